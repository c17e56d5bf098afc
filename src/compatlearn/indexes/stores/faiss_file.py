"""The file of a FAISS index: opened with the ids beside it, its metric found out, and one written."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped

from ...arrays import unit_length
from ...errors import ConfigError, DataError, FormatError, IncompatibleError
from ...extras import require
from ...features.ids import check_unique
from ...files import write_atomically
from ...metric import Metric, check_metric
from ..beside import Table
from ..places import note_space, state_of
from ..second import Second, space_of
from .faiss_vectors import SAMPLE, Stored, stored

MAPPED = 1 << 31  # bytes: larger files are not read into memory; nobody may write into a mapped one, only replace it
CLOSE = 0.05  # of a length of 1, within which vectors from a lossy code are taken to have had it


@dataclass(frozen=True)
class Opened:
    """The file as it was when it was read.

    Attributes:
        index: of FAISS.
        names: (n,) ids from beside the file, by the number of the vector; None: the index's own ids.
        state: tells whether the file has been written since.
    """

    index: Any
    names: Shaped[np.ndarray, " n"] | None
    state: Any

    @cached_property
    def stored(self) -> Stored:
        """Its vectors; DataError if they cannot be read back."""
        return stored(self.index)

    @cached_property
    def items(self) -> Shaped[np.ndarray, " n"]:
        """(n,) ids in the order in which the vectors lie in the index."""
        return self.named(self.stored.labels)

    @cached_property
    def table(self) -> Table:
        """Ids and their places."""
        return Table(self.items, "the index")

    def named(self, labels: Int[np.ndarray, " m"]) -> Shaped[np.ndarray, " m"]:
        """Ids of what the index calls by number."""
        if self.names is None:
            return labels
        if len(labels) and labels.max() >= len(self.names):
            raise FormatError("this index has ids of its own, and others beside it; remove the file of ids")
        found: np.ndarray = self.names[labels]
        return found


def opened(path: Path) -> Opened:
    """Read a FAISS file, and the ids beside it.

    Args:
        path: of the file.

    Raises:
        ConfigError: FAISS is not installed.
        DataError: there is no such file, or no vector in it.
        FormatError: it is no whole FAISS file, or the ids beside it are not those of its vectors.
    """
    faiss, seen = require("faiss"), state(path)
    if not path.is_file():
        raise DataError(f"there is no file {path}; check the path")
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if path.stat().st_size > MAPPED else 0)
    except (RuntimeError, MemoryError) as error:
        reason = str(error).strip().splitlines()[0].rpartition("Error: ")[2].rpartition("index_read.cpp:")[2]
        raise FormatError(f"{path} is no whole FAISS index ({path.stat().st_size} bytes: {reason}); write it again") from error
    if not index.ntotal:
        raise DataError(f"{path} holds no vectors; add some")
    names = _names(path)
    if names is not None and len(names) != index.ntotal:
        raise FormatError(f"{path} holds {index.ntotal} vectors, and beside it are {len(names)} ids; write both again")
    return Opened(index, names, seen)


def write_faiss(second: Second, path: Path) -> int:
    """Write a finished second vector as a FAISS index that can take the place of the first: flat, with the ids of the items.

    The whole index is built in memory. Ids of text go to `FILE.ids.npy`. Under cosine, vectors are scaled to unit length.

    Args:
        second: every row of it has a vector, all of one model.
        path: of the file; it is replaced as a whole.

    Returns:
        How many vectors were written.

    Raises:
        DataError: it cannot be written.
        IncompatibleError: rows without a vector, or of several models.
    """
    counts, spaces = second.counts(), {space_of(said) for said in second.counts()}
    if len(spaces) != 1 or "" in counts:
        told = ", ".join(f"{count} {said or 'without a vector'}" for said, count in sorted(counts.items()))
        raise IncompatibleError(f"{second!r} is not finished: {told}; run the translation or the backfill to its end")
    faiss = require("faiss")
    flat = (faiss.IndexFlatL2 if second.metric == "euclidean" else faiss.IndexFlatIP)(second.dimension)
    names = []
    index = faiss.IndexIDMap(flat)
    for block in second.scan():
        rows = np.ascontiguousarray(block.vectors, dtype=np.float32)
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True) if second.metric == "cosine" else rows
        text = block.ids.dtype.kind == "U"
        index.add_with_ids(rows, np.arange(len(rows)) + index.ntotal if text else block.ids)
        names += [block.ids] if text else []
    if names:
        write_atomically(_beside(path, ".ids.npy"), lambda temporary: np.save(temporary, np.concatenate(names)))
    write_atomically(path, lambda temporary: faiss.write_index(index, str(temporary)))
    note_space(path, second.space)
    return int(index.ntotal)


def metric_of(now: Opened, path: Path, given: str | None) -> Metric:
    """What ranks, as the file says it; inner product over vectors of unit length is cosine."""
    faiss, wanted = require("faiss"), None if given is None else check_metric(given)
    if now.index.metric_type not in (faiss.METRIC_L2, faiss.METRIC_INNER_PRODUCT):
        raise IncompatibleError(f"{path} is ranked by FAISS's metric {now.index.metric_type}; L2 and inner product can be used")
    if now.index.metric_type == faiss.METRIC_L2:
        found: Metric | None = "euclidean"
    else:
        found = _cosine_or_dot(now)
    if found is None and wanted in ("cosine", "dot"):
        found = wanted
    if found is None:
        raise ConfigError(
            f"{path} is ranked by inner product, and its code does not tell whether vectors had unit length; "
            "name the metric: cosine or dot"
        )
    if wanted not in (None, found):
        raise IncompatibleError(f"{path} is ranked by {found} (from its vectors and FAISS's metric), not by {wanted}")
    return found


def _cosine_or_dot(now: Opened) -> Metric | None:
    try:
        rows = now.stored.at(sample(len(now.stored.labels)))
    except DataError:
        return None
    if not now.stored.codecs:
        return "cosine" if unit_length(rows) else "dot"
    off = np.abs(np.linalg.norm(rows, axis=1) - 1)
    return "cosine" if (off < CLOSE).all() else "dot" if off.mean() > 0.9 else None


def _names(path: Path) -> Shaped[np.ndarray, " n"] | None:
    lines, array = _beside(path, ".ids"), _beside(path, ".ids.npy")
    try:
        if lines.is_file():
            found = np.array(lines.read_text(encoding="utf-8").splitlines(), dtype=str)
        elif array.is_file():
            found = np.load(array, allow_pickle=False)
        else:
            return None
    except (OSError, ValueError) as error:
        raise FormatError(f"the ids beside {path} cannot be read: {error}; write them again") from error
    if found.ndim != 1 or found.dtype.kind not in "Uiu":
        raise FormatError(f"{array} must hold one id per vector, integers or text; got {found.dtype} {found.shape}")
    check_unique(found, f"the ids beside {path}")
    return found if found.dtype.kind == "U" else found.astype(np.int64)


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def state(path: Path) -> Any:
    return [state_of(one) for one in (path, _beside(path, ".ids"), _beside(path, ".ids.npy"))]


def sample(count: int) -> Int[np.ndarray, " m"]:
    return np.unique(np.linspace(0, count - 1, min(count, SAMPLE)).astype(np.int64))
