"""The files of a second vector that stands beside an index: written in place, whole after a kill at any moment.

A row's vector is flushed before its stamp, so no stamp is ever without its vector. Rows that have a stamp already are written
through a journal: it is flushed first, then their stamps are cleared, and whoever opens the folder after a crash ends what the
journal says. A stamp is one number of eight bytes, which is written whole or not at all.
"""

import io
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt64

from ..errors import DataError, FormatError, IncompatibleError
from ..files import read_json, remove, write_atomically, write_json, writing
from ..locks import LOCK, locked
from .second import DIGEST

FORMAT = "compatlearn-second"
MANIFEST, IDS, VECTORS, STAMPS, JOURNAL = "manifest.json", "ids.npy", "vectors.npy", "stamps.npy", "pending.npz"
BITS = np.uint64(4 * DIGEST)  # of a stamp's number that hold its digest; the mark's number is above them


class Slots:
    """A folder of second vectors: a slot per id, with a vector and a stamp.

    Args:
        folder: that `create` made.

    Raises:
        FormatError: what is in it cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if (folder / JOURNAL).exists():
            with suppress(DataError), locked(folder):  # its writer is at work, or nobody may write
                self.recover()
        self._load()

    def _load(self) -> None:
        self._seen = self._state()
        self.facts: dict[str, Any] = read_json(self.folder / MANIFEST)
        if self.facts.get("format") != FORMAT:
            raise FormatError(f"{self.folder} holds no second vectors of this package; choose another name")
        try:
            self.ids = np.load(self.folder / IDS, allow_pickle=False)
            self.vectors = np.load(self.folder / VECTORS, mmap_mode="r", allow_pickle=False)[: len(self.ids)]
            self.codes = np.load(self.folder / STAMPS, mmap_mode="r", allow_pickle=False)[: len(self.ids)]
        except (OSError, ValueError, EOFError) as error:
            raise FormatError(f"{self.folder} cannot be read: {error}; remove it and translate again") from error
        if not len(self.ids) == len(self.vectors) == len(self.codes):
            raise FormatError(
                f"{self.folder} is damaged: {IDS}, {VECTORS} and {STAMPS} disagree; remove it and translate again"
            )

    def _state(self) -> tuple[int, int]:
        try:
            return (self.folder / MANIFEST).stat().st_mtime_ns, (self.folder / IDS).stat().st_mtime_ns
        except OSError as error:
            raise DataError(f"{self.folder} is gone; was the second vector dropped?") from error

    def renew(self) -> None:
        """See what another process has added."""
        if self._state() != self._seen:
            self._load()

    def stamps(self, codes: UInt64[np.ndarray, " m"]) -> Shaped[np.ndarray, " m"]:
        """Stamps as they were written, of their numbers; "" of 0."""
        marks = ["", *self.facts["marks"]]
        mask = (1 << int(BITS)) - 1
        texts = [f"{marks[code >> int(BITS)]}#{code & mask:0{DIGEST}x}" if code else "" for code in codes.tolist()]
        return np.array(texts, dtype=str)

    def counts(self, slots: Int[np.ndarray, " m"]) -> dict[str, int]:
        """How many of these slots carry which mark; -1 is a slot without one."""
        numbers = np.where(slots < 0, 0, self.codes[slots] >> BITS).astype(np.int64)
        values, counts = np.unique(numbers, return_counts=True)
        marks = ["", *self.facts["marks"]]
        return {marks[value]: count for value, count in zip(values.tolist(), counts.tolist(), strict=True)}

    def note(self, **facts: Any) -> None:
        """Change the manifest; only under the folder's lock."""
        write_json(self.folder / MANIFEST, self.facts | facts)
        self._load()

    def grow(self, ids: Shaped[np.ndarray, " m"]) -> None:
        """Give slots to further ids; only under the folder's lock."""
        count = len(self.ids) + len(ids)
        for name in (VECTORS, STAMPS):
            with writing(self.folder / name), (self.folder / name).open("r+b") as file:
                _lengthen(file, count)
        more = np.concatenate([self.ids, ids])
        write_atomically(self.folder / IDS, lambda path: np.save(path, more))
        self._load()

    def put(self, slots: Int[np.ndarray, " m"], vectors: Float[np.ndarray, "m d"], stamps: Shaped[np.ndarray, " m"]) -> None:
        """Write vectors with their stamps; only under the folder's lock."""
        codes, order = self._numbers(stamps), np.argsort(slots)
        rows: dict[str, Any] = {
            "slots": slots[order],
            "vectors": vectors[order].astype(self.vectors.dtype),
            "codes": codes[order],
        }
        if self.codes[slots].any():
            write_atomically(self.folder / JOURNAL, lambda path: np.savez(path, **rows))
            self.recover()
        else:
            self._write(**rows, clear=False)

    def recover(self) -> None:
        """End what a killed process has begun; only under the folder's lock."""
        journal = self.folder / JOURNAL
        if journal.exists():
            with np.load(journal, allow_pickle=False) as rows:
                self._write(**dict(rows))
            remove(journal)

    def _write(
        self,
        slots: Int[np.ndarray, " m"],
        vectors: Float[np.ndarray, "m d"],
        codes: UInt64[np.ndarray, " m"],
        clear: bool = True,
    ) -> None:
        steps = [(STAMPS, np.zeros_like(codes)), (VECTORS, vectors), (STAMPS, codes)]
        for name, rows in steps if clear else steps[1:]:
            with writing(self.folder / name), (self.folder / name).open("r+b") as file:
                _write_rows(file, slots, rows)

    def _numbers(self, stamps: Shaped[np.ndarray, " m"]) -> UInt64[np.ndarray, " m"]:
        parts = [stamp.rpartition("#") for stamp in stamps.tolist()]
        if not all(said and len(digest) == DIGEST for said, _, digest in parts):
            raise IncompatibleError("a stamp is a mark and a digest, as stamps_of makes it")
        marks = list(self.facts["marks"])
        marks += sorted({said for said, _, _ in parts} - set(marks))
        if marks != self.facts["marks"]:
            self.note(marks=marks)
        number = {said: place + 1 for place, said in enumerate(marks)}
        return np.array([number[said] << int(BITS) | int(digest, 16) for said, _, digest in parts], dtype=np.uint64)


def create(folder: Path, ids: Shaped[np.ndarray, " n"], dimension: int, dtype: np.dtype[Any], **facts: Any) -> None:
    """Make the folder, whole or not at all; its files take room on the disk as they are filled.

    Args:
        folder: that is not there yet.
        ids: (n,) int64 or text.
        dimension: of the vectors.
        dtype: of the vectors.
        facts: for the manifest.

    Raises:
        DataError: it cannot be written.
    """

    def fill(made: Path) -> None:
        write_atomically(made / IDS, lambda path: np.save(path, ids))
        for name, kind, shape in ((VECTORS, dtype, (len(ids), dimension)), (STAMPS, np.dtype(np.uint64), (len(ids),))):
            with writing(made / name), (made / name).open("wb") as file:
                file.write(_header(kind, shape))
                file.truncate(file.tell() + kind.itemsize * int(np.prod(shape)))
                os.fsync(file.fileno())
        write_json(made / MANIFEST, {"format": FORMAT, "version": 1, "dimension": dimension, "marks": [], **facts})

    _aside(folder, fill)


def discard(folder: Path) -> None:
    """Remove the folder; it is gone at once, or not at all."""
    aside = folder.with_name(f".{folder.name}.tmp")
    with locked(folder), writing(folder):
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def _aside(folder: Path, fill: Callable[[Path], None]) -> None:
    aside = folder.with_name(f".{folder.name}.tmp")
    with locked(aside), writing(folder):
        for left in aside.glob("[!.]*"):  # of a process that was killed here
            left.unlink()
        fill(aside)
        if folder.exists() and any(folder.iterdir()):  # another process was quicker
            shutil.rmtree(aside)
            return
        aside.replace(folder)
        (folder / LOCK).unlink(missing_ok=True)


def _header(kind: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    header = io.BytesIO()
    facts = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, facts)
    return header.getvalue()


def _shape(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of the .npy; the file stands at its first row then."""
    file.seek(0)
    np.lib.format.read_magic(file)
    shape, _, kind = np.lib.format.read_array_header_1_0(file)
    return shape, kind


def _lengthen(file: BinaryIO, rows: int) -> None:
    """More rows of zeros at the end; NumPy leaves room in the header for the number."""
    shape, kind = _shape(file)
    shape, start = (max(rows, shape[0]), *shape[1:]), file.tell()
    header = _header(kind, shape)
    if len(header) != start:
        raise FormatError("the header of a .npy has no room for more rows; drop the second vector and translate again")
    file.truncate(start + kind.itemsize * int(np.prod(shape)))
    file.seek(0)
    file.write(header)
    file.flush()
    os.fsync(file.fileno())


def _write_rows(file: BinaryIO, slots: Int[np.ndarray, " m"], rows: Shaped[np.ndarray, "m ..."]) -> None:
    """Rows at their slots, ascending; one write per run of neighbours."""
    shape, kind = _shape(file)
    start, size = file.tell(), kind.itemsize * int(np.prod(shape[1:]))
    for first, last in _runs(slots):
        file.seek(start + int(slots[first]) * size)
        file.write(np.ascontiguousarray(rows[first:last]).tobytes())
    file.flush()
    os.fsync(file.fileno())


def _runs(slots: Int[np.ndarray, " m"]) -> Iterator[tuple[int, int]]:
    ends = [0, *(np.flatnonzero(np.diff(slots) != 1) + 1).tolist(), len(slots)]
    return pairwise(ends)
