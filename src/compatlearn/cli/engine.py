"""Where a command runs: here, or on a Ray cluster."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from ..errors import ConfigError

Engine = Literal["local", "ray"]


@contextmanager
def connected(engine: Engine, address: str | None) -> Iterator[Any]:
    """`cluster`, connected, or None for this machine."""
    if engine == "local":
        if address is not None:
            raise ConfigError(f"--address {address} is that of a Ray cluster; pass --engine ray too, or leave it out")
        yield None
        return
    from ..cluster import jobs, workers

    with workers.connected(address):
        yield jobs
