"""Vectors of texts as they arrive: a file that only grows, from which a process that was killed loses no whole batch."""

import hashlib
import os
import struct
import threading
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Float

from ..files import write_atomically, writing

MAGIC = b"CLJ1"
HEADER = struct.Struct("<4sIII")  # magic, texts, dimension, CRC-32 of keys and vectors
KEY = 16  # bytes that stand for a text


def key_of(text: str) -> bytes:
    """What stands for a text in the journal: equal for equal texts only.

    Args:
        text: without lone surrogates.

    Returns:
        16 bytes.
    """
    return hashlib.blake2b(text.encode(), digest_size=KEY).digest()


class Journal:
    """The vectors of texts, each batch flushed to the disk before `add` returns; used from several threads.

    Args:
        path: the file; what is whole in it is known again, a batch that was being written when a process died is cut off.

    Raises:
        DataError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.dimension: int | None = None
        self._places: dict[bytes, int] = {}
        self._guard = threading.Lock()
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO = path.open("a+b")
            self._read()

    def __contains__(self, key: bytes) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def add(self, keys: Sequence[bytes], vectors: Float[np.ndarray, "b d"]) -> None:
        """Keep a batch.

        Args:
            keys: b of them.
            vectors: (b, d), of the dimension of all before; kept as float32.

        Raises:
            DataError: the disk is full.
        """
        record = _record(keys, vectors)
        with self._guard, writing(self.path):
            end = self._file.seek(0, os.SEEK_END)
            try:
                self._file.write(record)
                self._file.flush()
                os.fsync(self._file.fileno())
            except OSError:
                self._file.truncate(end)
                raise
            self._note(end, keys, vectors.shape[1])

    def vectors(self, keys: Iterable[bytes]) -> Float[np.ndarray, "b d"]:
        """The vectors of texts that are in the journal.

        Args:
            keys: b of them, all known.

        Returns:
            (b, d) float32.
        """
        width = 4 * (self.dimension or 0)
        with self._guard:
            rows = []
            for key in keys:
                self._file.seek(self._places[key])
                rows.append(self._file.read(width))
        return np.frombuffer(b"".join(rows), dtype="<f4").astype(np.float32).reshape(len(rows), width // 4)

    def shrink(self, needed: Callable[[bytes], bool]) -> None:
        """Forget what is not needed again, where that is at least half; one text stays, for it tells the dimension.

        Args:
            needed: whether a text is needed again, by its key.

        Raises:
            DataError: the disk is full.
        """
        kept = [key for key in self._places if needed(key)] or list(self._places)[:1]
        if 2 * len(kept) > len(self._places):
            return
        record = _record(kept, self.vectors(kept))

        def write(path: Path) -> None:
            path.write_bytes(record)

        with self._guard:
            self._file.close()
            write_atomically(self.path, write)
            self._places.clear()
            self._file = self.path.open("a+b")
            self._read()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _note(self, start: int, keys: Sequence[bytes], dimension: int) -> None:
        self.dimension = dimension
        first = start + HEADER.size + KEY * len(keys)
        for place, key in enumerate(keys):
            self._places[key] = first + 4 * dimension * place

    def _read(self) -> None:
        """Note every whole batch, and cut off what follows the last."""
        self._file.seek(0)
        end = 0
        while len(header := self._file.read(HEADER.size)) == HEADER.size:
            magic, count, dimension, checksum = HEADER.unpack(header)
            if magic != MAGIC or not dimension:
                break
            body = self._file.read(count * (KEY + 4 * dimension))
            if zlib.crc32(body) != checksum or len(body) != count * (KEY + 4 * dimension):
                break
            self._note(end, [body[KEY * place : KEY * (place + 1)] for place in range(count)], dimension)
            end += HEADER.size + len(body)
        self._file.truncate(end)


def _record(keys: Sequence[bytes], vectors: Float[np.ndarray, "b d"]) -> bytes:
    body = b"".join(keys) + np.ascontiguousarray(vectors, dtype="<f4").tobytes()
    return HEADER.pack(MAGIC, len(keys), vectors.shape[1], zlib.crc32(body)) + body
