"""The vectors of a FAISS index, read back type by type.

`reconstruct_n` returns uninitialised memory for an inverted file with ids of its own, and ends the process for an id map.
So only types that are known to be safe are read, each through the parts that it consists of. A part is freed with the index
that owns it, whatever Python holds: `Stored.owner` keeps the index.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ...errors import DataError, FormatError
from ...extras import require

MAPS = {"IndexIDMap", "IndexIDMap2"}
FLAT = {"IndexFlat", "IndexFlatL2", "IndexFlatIP"}
CODES = {"IndexScalarQuantizer", "IndexPQ", "IndexRaBitQ", "IndexPQFastScan"}
LISTS = {"IndexIVFFlat", "IndexIVFScalarQuantizer", "IndexIVFPQ", "IndexIVFRaBitQ"}
GRAPHS = {"IndexHNSWFlat", "IndexHNSWSQ", "IndexHNSWPQ", "IndexNSGFlat", "IndexNSGSQ", "IndexNSGPQ"}
BITS = {"QT_8bit": 8, "QT_8bit_uniform": 8, "QT_6bit": 6, "QT_4bit": 4, "QT_4bit_uniform": 4}
ROUNDED = {"QT_fp16": 2.0**-10, "QT_bf16": 2.0**-7}  # the last place of a number between 1 and 2

SAMPLE = 1_000  # vectors that are looked at, to know what all are like
Read = Callable[[Int[np.ndarray, " m"]], Float[np.ndarray, "m d"]]


@dataclass(frozen=True)
class Stored:
    """The vectors of an index.

    Attributes:
        labels: (n,) int64: what the index calls them, in the order in which they lie there.
        at: function of (m,) places in that order: (m, d) float32 vectors.
        owner: the index.
        through: function of (q, d) queries: what the transforms of the index leave of them.
        codecs: what the vectors are compressed by; none: they come back as they were added.
        error: length of the error of a vector, root mean square; NaN: it cannot be known.
    """

    labels: Int[np.ndarray, " n"]
    at: Read
    owner: Any
    through: Callable[[Float[np.ndarray, "q d"]], Float[np.ndarray, "q d"]] = lambda queries: queries
    codecs: tuple[str, ...] = ()
    error: float = 0.0


def stored(index: Any) -> Stored:
    """The vectors of an index.

    Args:
        index: a trained FAISS index.

    Raises:
        DataError: of a type that cannot be read back, or labels that are not unique.
        FormatError: its parts disagree.
    """
    found = _walk(index)
    if len(found.labels) != index.ntotal:
        raise FormatError(f"the index holds {index.ntotal} vectors and {len(found.labels)} ids; write it again")
    return replace(found, owner=index)


def lists_of(index: Any) -> Any:
    """The inverted file that an index, or its id map, consists of; or None."""
    name = type(index).__name__
    if name.startswith("IndexIVF"):
        return index
    return lists_of(_part(index.index)) if name in MAPS else None


def _walk(index: Any) -> Stored:
    name, faiss = type(index).__name__, require("faiss")
    if name in MAPS:
        inner = _walk(_part(index.index))
        return replace(inner, labels=_mapped(faiss.vector_to_array(index.id_map), inner.labels))
    if name == "IndexPreTransform":
        return _transformed(index)
    if name == "IndexRefineFlat":
        return _walk(_part(index.refine_index))
    if name in GRAPHS:
        return _walk(_part(index.storage))
    if name in LISTS:
        return _lists(index)
    if name in FLAT:
        flat = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d).reshape(index.ntotal, index.d)
        return Stored(np.arange(index.ntotal), lambda places: flat[places], index)
    if name in CODES:
        return _coded(index, np.arange(index.ntotal))
    raise DataError(f"vectors of a FAISS {name} cannot be read back; give the old vectors as they were stored")


def _lists(index: Any) -> Stored:
    faiss = require("faiss")
    sizes = [index.invlists.list_size(place) for place in range(index.nlist)]
    parts = [faiss.rev_swig_ptr(index.invlists.get_ids(place), size).copy() for place, size in enumerate(sizes) if size]
    labels = np.concatenate([np.zeros(0, dtype=np.int64), *parts])
    if len(np.unique(labels)) != len(labels):
        raise DataError("some ids occur more than once in the lists of this index; give every vector its own")
    index.set_direct_map_type(faiss.DirectMap.Hashtable)
    return Stored(labels, _probed(index, labels), index) if type(index).__name__ == "IndexIVFFlat" else _coded(index, labels)


def _coded(index: Any, labels: Int[np.ndarray, " n"]) -> Stored:
    read = _probed(index, labels)
    return Stored(labels, read, index, codecs=(_codec(index),), error=_error(index, read(np.arange(min(SAMPLE, len(labels))))))


def _transformed(index: Any) -> Stored:
    faiss = require("faiss")
    inner = _walk(_part(index.index))
    chain = [faiss.downcast_VectorTransform(index.chain.at(place)) for place in range(index.chain.size())]
    lost = [one for one in chain if not (getattr(one, "is_orthonormal", False) and one.d_in == one.d_out)]

    def back(rows: Float[np.ndarray, "m e"]) -> Float[np.ndarray, "m d"]:
        for one in reversed(chain):
            rows = one.reverse_transform(np.ascontiguousarray(rows, dtype=np.float32))
        return rows

    def through(queries: Float[np.ndarray, "q d"]) -> Float[np.ndarray, "q d"]:
        for one in chain:
            queries = one.apply(np.ascontiguousarray(queries, dtype=np.float32))
        return back(inner.through(queries))

    try:
        back(inner.at(np.arange(min(1, index.ntotal))))
    except RuntimeError as error:
        kinds = ", ".join(type(one).__name__ for one in chain)
        raise DataError(f"the transforms of this index ({kinds}) cannot be undone; give the old vectors as stored") from error
    sample = inner.at(np.arange(min(SAMPLE, index.ntotal)))
    errors = [inner.error, *(_lost(one, sample) for one in lost)]
    codecs = (*(type(one).__name__ for one in lost), *inner.codecs)
    return replace(inner, at=lambda places: back(inner.at(places)), through=through, codecs=codecs, error=math.hypot(*errors))


def _probed(index: Any, labels: Int[np.ndarray, " n"]) -> Read:
    """How to read vectors by `reconstruct_batch`, which ends the process where the plain call only fails."""
    try:
        if len(labels):
            index.reconstruct(int(labels[0]))
    except RuntimeError as error:
        raise DataError(
            f"vectors of a FAISS {type(index).__name__} cannot be read back; give the stored old vectors"
        ) from error
    nothing = np.zeros((0, index.d), dtype=np.float32)
    return lambda places: index.reconstruct_batch(labels[places]) if len(places) else nothing


def _mapped(ids: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    if len(ids) != len(labels) or (len(labels) and not 0 <= labels.min() <= labels.max() < len(ids)):
        raise FormatError(f"the id map of this index has {len(ids)} ids for {len(labels)} vectors; write it again")
    found: np.ndarray = ids[labels]
    if len(np.unique(found)) != len(found):
        raise DataError("some ids occur more than once in the id map of this index; give every vector its own")
    return found


def _part(index: Any) -> Any:
    return require("faiss").downcast_index(index)


def _codec(index: Any) -> str:
    return type(index).__name__.removeprefix("Index").removeprefix("IVF")


def _quantizer_type(index: Any) -> str:
    known = require("faiss").ScalarQuantizer
    return next((name for name in (*BITS, *ROUNDED) if getattr(known, name, None) == index.sq.qtype), "")


def _error(index: Any, sample: Float[np.ndarray, "m d"]) -> float:
    """The error of a scalar quantizer follows from its steps; nothing but the vectors themselves tells that of others."""
    kind = _quantizer_type(index) if hasattr(index, "sq") else ""
    if kind in ROUNDED:  # relative to every number, whose mean mantissa is about 1.5
        return float(np.sqrt(np.square(sample.astype(np.float64)).sum(axis=1).mean() / 12) * ROUNDED[kind] / 1.5)
    if kind in BITS:
        trained = require("faiss").vector_to_array(index.sq.trained)
        widths = trained[len(trained) // 2 :].astype(np.float64)
        steps = np.broadcast_to(widths, (index.d,)) / (2 ** BITS[kind] - 1)
        return float(np.sqrt((steps**2).sum() / 12))
    return math.nan


def _lost(transform: Any, sample: Float[np.ndarray, "m e"]) -> float:
    """What a projection leaves out: of the variances that it was trained on, the kept ones are those of the sample."""
    if type(transform).__name__ == "PCAMatrix" and transform.eigen_power == 0 and not transform.random_rotation:
        values = require("faiss").vector_to_array(transform.eigenvalues).astype(np.float64).clip(0)
        kept, left = values[: transform.d_out].sum(), values[transform.d_out :].sum()
        return float(np.sqrt(sample.astype(np.float64).var(axis=0).sum() * left / kept))
    return math.nan
