"""The Hugging Face hub, or its cache where it cannot be reached: the hub's client would retry for half a minute."""

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from ..errors import CompatlearnError, DataError

SECONDS = 5  # to wait for a connection


@contextmanager
def asking_hub(fact: str, remedy: str) -> Iterator[None]:
    """A context that turns whatever the hub's client raises into one line: `fact` (reason); `remedy`.

    Args:
        fact: what failed.
        remedy: what to do instead.

    Yields:
        Nothing.

    Raises:
        DataError: the hub does not have it, does not provide it, or cannot be reached.
    """
    import huggingface_hub.constants

    modules: list[Any] = [huggingface_hub.constants, *filter(None, [sys.modules.get("datasets.config")])]
    before = [module.HF_HUB_OFFLINE for module in modules]
    offline = any(before) or not reachable(huggingface_hub.constants.ENDPOINT)
    try:
        for module in modules:
            module.HF_HUB_OFFLINE = offline
        yield
    except CompatlearnError:
        raise
    except Exception as error:  # not found, gated, no network: the client has many errors
        reason = "the hub cannot be reached" if offline else " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise DataError(f"{fact} ({reason}); {remedy}") from error
    finally:
        for module, value in zip(modules, before, strict=True):
            module.HF_HUB_OFFLINE = value


def reachable(address: str) -> bool:
    """Whether a connection can be opened; assumed without a try where there is a proxy.

    Args:
        address: a URL.

    Returns:
        True if it can.
    """
    parts = urlsplit(address)
    if parts.scheme in getproxies() or "all" in getproxies():
        return True
    try:
        socket.create_connection((parts.hostname, parts.port or 443), SECONDS).close()
    except OSError:
        return False
    return True
