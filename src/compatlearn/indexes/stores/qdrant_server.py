"""One Qdrant client, of a server or of a local folder, whose errors are lines that a user can act on."""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID
from weakref import WeakValueDictionary

import numpy as np
from jaxtyping import Shaped

from ...errors import DataError, first_few
from ...extras import require

PATIENCE = 60.0  # seconds that a server which has answered before is waited for
KEY = "QDRANT_API_KEY"


class Gone(DataError):
    """A point, or what else was named, is not there (any more)."""


class Qdrant:
    """A client that several indexes share.

    Args:
        client: of the official library.
        place: URL or folder, as messages name it.
        local: whether it is a folder, which one thread at a time may use.
    """

    def __init__(self, client: Any, place: str, local: bool) -> None:
        self.client, self.place, self.local = client, place, local
        self.models: Any = require("qdrant_client.models")
        self._guard: Any = threading.RLock() if local else nullcontext()
        self._answered = False

    def __repr__(self) -> str:
        return self.place

    def ask(self, call: str, *arguments: Any, **named: Any) -> Any:
        """Call the client; again, if a server that has answered before does not answer.

        Args:
            call: name of its method, which does no harm if it runs twice.
            arguments: of it.
            named: of it.

        Returns:
            What it returned.

        Raises:
            DataError: Qdrant refuses, or does not come back within a minute.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with self._guard:
                    answer = getattr(self.client, call)(*arguments, **named)
                self._answered = True
                return answer
            except Exception as error:
                pause = self._pause(error)
                if pause is None or not self._answered or time.monotonic() + pause > deadline:
                    raise self._explained(error) from error
            time.sleep(pause)

    def vectors(self, collection: str) -> dict[str, Any]:
        """Name → parameters of the dense vectors of a collection; the unnamed one is "".

        Raises:
            DataError: no such collection.
        """
        found = self.ask("get_collection", collection).config.params.vectors
        return found if isinstance(found, dict) else {"": found} if found else {}

    def parts(self, name: str) -> tuple[str, str]:
        """The collection and the vector of `collection.vector`; both may hold dots, and the vector may be left out.

        Raises:
            DataError: there is no collection of such a name.
        """
        pieces = name.split(".")
        for end in range(len(pieces), 0, -1):
            collection = ".".join(pieces[:end])
            if self.ask("collection_exists", collection):
                return collection, ".".join(pieces[end:])
        known = sorted(one.name for one in self.ask("get_collections").collections)
        raise DataError(f"Qdrant at {self} has no collection {name!r}; it has {first_few(known, 5) or 'none'}")

    def pages(self, collection: str, **named: Any) -> Iterator[list[Any]]:
        """Points in the order of their ids, one page after the other; those that come and go meanwhile may be met or not.

        Args:
            collection: name.
            named: arguments of the client's `scroll`.
        """
        offset = None
        while True:
            points, offset = self.ask("scroll", collection, offset=offset, **named)
            if points:
                yield points
            if offset is None:
                return

    def having(self, *names: str) -> Any:
        """A filter: points that have these vectors.

        Args:
            names: of vectors; "" is the unnamed one.
        """
        return self.models.Filter(must=[self.models.HasVectorCondition(has_vector=name) for name in names])

    def close(self) -> None:
        """Close the client; a folder is free for others then, and all its indexes in this process are closed."""
        _folders.pop(self.place, None)
        self.client.close()

    def _pause(self, error: Exception) -> float | None:
        """Seconds after which it is worth trying again; None: never."""
        exceptions = require("qdrant_client.http.exceptions")
        if isinstance(error, exceptions.ResponseHandlingException):  # a restart, a cut line, a timeout
            return 0.5 if type(error.source).__module__.startswith("httpx") else None
        if isinstance(error, exceptions.UnexpectedResponse):
            return 0.5 if error.status_code in (429, 502, 503, 504) else None
        return getattr(error, "retry_after_s", None)

    def _explained(self, error: Exception) -> Exception:
        exceptions = require("qdrant_client.http.exceptions")
        if isinstance(error, exceptions.ResponseHandlingException):
            said = "failed" if self._answered else "cannot be reached"
            return DataError(f"Qdrant at {self} {said}: {_line(error.source)}")
        if isinstance(error, exceptions.UnexpectedResponse):
            if error.status_code in (401, 403):
                return DataError(f"Qdrant at {self} does not allow it: {_said(error)}; set {KEY} to a key that may")
            return (Gone if error.status_code == 404 else DataError)(f"Qdrant at {self} refuses: {_said(error)}")
        if isinstance(error, KeyError):
            return Gone(f"Qdrant at {self} has no point {error}")
        return DataError(f"Qdrant at {self} failed: {_line(error)}")


def connect(place: str) -> Qdrant:
    """The client of a server, with the key that QDRANT_API_KEY holds; or of a local folder, one for this process.

    Args:
        place: URL, or a folder that Qdrant's local mode has made.

    Returns:
        The client; that of a folder is the same for everybody in this process, as its lock demands.

    Raises:
        ConfigError: the client is not installed.
        DataError: there is no such folder, or another process works in it.
    """
    library = require("qdrant_client")
    if "://" in place:
        url = urlsplit(place)
        shown = url.netloc.rpartition("@")[2]
        try:
            client = library.QdrantClient(url=place, api_key=os.environ.get(KEY), timeout=60, check_compatibility=False)
        except ValueError as error:
            raise DataError(f"{shown} is not the address of a Qdrant server: {_line(error)}") from error
        return Qdrant(client, shown, local=False)
    folder = str(Path(place).resolve())
    if not (Path(folder) / "meta.json").is_file():
        raise DataError(f"no Qdrant folder at {place}: it has no meta.json")
    with _opening:
        found = _folders.get(folder)
        if found is None:
            try:
                client = library.QdrantClient(path=folder, force_disable_check_same_thread=True)
            except (RuntimeError, OSError, ValueError) as error:
                raise DataError(f"cannot open the Qdrant folder {place}: {_line(error)}") from error
            found = _folders[folder] = Qdrant(client, folder, local=True)
    return found


def ids_of(ids: list[Any]) -> Shaped[np.ndarray, " m"]:
    """Ids of points as one array of one kind: what NumPy would make of both kinds, or of large numbers, are other ids.

    Args:
        ids: as Qdrant has them.

    Returns:
        (m,) int64 or text.

    Raises:
        DataError: numbers and UUIDs together, or numbers beyond int64.
    """
    texts = sum(isinstance(one, str) for one in ids)
    if 0 < texts < len(ids):
        raise DataError("the collection has numbers and UUIDs as ids; ids must be of one kind")
    try:
        return np.array(ids, dtype=str if texts else np.int64)
    except OverflowError as error:
        raise DataError("the collection has ids beyond 2^63 - 1, which cannot be kept apart") from error


def known_id(one: Any) -> int | str | None:
    """An id as Qdrant writes it; None if no point can have it."""
    if isinstance(one, str):
        try:
            return str(UUID(one))
        except ValueError:
            return None
    return one if isinstance(one, int) and 0 <= one < 2**64 else None


def _said(error: Any) -> str:
    try:
        return _line(json.loads(error.content)["status"]["error"])
    except (ValueError, KeyError, TypeError):
        return f"{error.status_code} {error.reason_phrase}"


def _line(error: Any) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


_folders: WeakValueDictionary[str, Qdrant] = WeakValueDictionary()
_opening = threading.Lock()
