"""Features: the vectors a model gave, with their labels, ids and the space they live in."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int, Int64, Shaped
from torch import Tensor

from ..arrays import unit_length
from ..errors import DataError, FormatError, IncompatibleError, first_few
from . import folder as feature_folder
from . import formats as feature_files

Values: TypeAlias = np.ndarray | Tensor | Sequence[Any]
Reader: TypeAlias = Callable[[], np.ndarray]  # of a column that is read when it is first asked for
BLOCK = 65536  # rows looked at in one go: a memory map is read through and never held


@dataclass(frozen=True, eq=False, repr=False, init=False)
class Features:
    """Vectors and what is known of every row; lists and tensors given to it become NumPy arrays.

    Attributes:
        vectors: (n, d) float16, float32 or float64, often a memory map (copy-on-write: the file never changes).
        labels: (n,) int64 class of each row, or None where nobody gave them.
        ids: (n,) int64 or text, by default the row numbers. Labels and ids of a folder are read when first asked for.
        space: the model that gave the vectors, such as "resnet18@3f2a9c01"; "" is unknown.
        source: where the rows come from, for people to read.

    Raises:
        DataError: no rows, not floats, or counts that disagree.
    """

    vectors: Float[np.ndarray, "n d"]
    space: str
    source: str
    known_normalized: bool | None
    _readers: dict[str, Reader]

    def __init__(
        self,
        vectors: Values,
        labels: Values | Reader | None = None,
        ids: Values | Reader | None = None,
        space: str = "",
        source: str = "",
        *,
        known_normalized: bool | None = None,
    ) -> None:
        found = _vectors(_numpy(vectors))
        readers: dict[str, Reader] = {}
        self.__dict__.update(vectors=found, space=space, source=source, known_normalized=known_normalized, _readers=readers)
        if callable(labels):
            readers["labels"] = labels
        else:
            self.__dict__["labels"] = None if labels is None else _labels(_numpy(labels), len(found))
        if ids is None or callable(ids):
            readers["ids"] = ids or partial(np.arange, len(found))
        else:
            self.__dict__["ids"] = _ids(_numpy(ids), len(found))

    @cached_property
    def labels(self) -> Int64[np.ndarray, " n"] | None:
        return _labels(self._readers["labels"](), len(self))

    @cached_property
    def ids(self) -> Shaped[np.ndarray, " n"]:
        return _ids(self._readers["ids"](), len(self))

    def __len__(self) -> int:
        return len(self.vectors)

    def __repr__(self) -> str:
        labels = "labels" if self.has_labels else "no labels"
        return f"Features({len(self)} × {self.dimension} {self.vectors.dtype}, {labels}, space={self.space!r})"

    @property
    def dimension(self) -> int:
        return int(self.vectors.shape[1])

    @property
    def has_labels(self) -> bool:
        """Whether there are labels; they are not read for it."""
        return "labels" in self._readers or self.labels is not None

    @cached_property
    def normalized(self) -> bool:
        """Every vector has unit length (within 0.001); read from the manifest where there is one."""
        if self.known_normalized is not None:
            return self.known_normalized
        blocks = range(0, len(self), BLOCK)
        return all(unit_length(self.vectors[start : start + BLOCK]) for start in blocks)

    @classmethod
    def load(cls, path: str | Path, *, verify: bool = False) -> "Features":
        """Open features: a folder that `save` wrote, or anyone's .npy, .npz, .parquet (or a folder of them),
        .safetensors or .pt with `vectors`, and where known `labels` and `ids` (or `vector`, `label`, `id`).

        Args:
            verify: read everything once and compare it with the manifest's checksums.

        Raises:
            DataError: no such path.
            FormatError: the file is truncated, foreign, changed, unfinished, or a pickle.
        """
        columns = feature_files.read(Path(path), verify=verify)
        try:
            return cls(**columns)
        except FormatError:
            raise
        except DataError as error:
            raise FormatError(f"{path}: {error}") from error

    def save(self, folder: str | Path, shard_rows: int = 65536) -> None:
        """Write vectors.npy, rows.parquet and, last, manifest.json; features already in `folder` are replaced.

        Args:
            shard_rows: rows that share one checksum.

        Raises:
            DataError: the disk is full, or `folder` holds an unfinished extraction.
        """
        starts = range(0, len(self), shard_rows)
        blocks = (self._columns(slice(start, start + shard_rows)) for start in starts)
        shape = feature_folder.Shape(len(self), self.dimension, self.vectors.dtype)
        feature_folder.write(Path(folder), blocks, shape, {"space": self.space, "source": self.source})

    def take(self, rows: Shaped[np.ndarray, " m"] | slice) -> "Features":
        """The given rows, by number, mask or slice, in that order."""
        known = True if self.known_normalized else None
        return Features(*self._columns(rows), space=self.space, source=self.source, known_normalized=known)

    def align(self, ids: Values, name: str = "the features") -> Int[np.ndarray, " m"]:
        """(m,) the row that holds each of `ids`, so that `features.take(rows).ids` equals `ids`.

        Raises:
            IncompatibleError: an id has no row or several, or numbers meet text.
        """
        wanted = _ids(_numpy(ids), len(ids))
        if wanted.dtype.kind != self.ids.dtype.kind:
            kinds = {"i": "numbers", "U": "text"}
            mine, theirs = kinds[self.ids.dtype.kind], kinds[wanted.dtype.kind]
            raise IncompatibleError(f"the ids of {name} are {mine}, the wanted ids {theirs}; use one kind for both")
        increasing = bool((self.ids[1:] > self.ids[:-1]).all())
        order = np.arange(len(self)) if increasing else np.argsort(self.ids, kind="stable")
        ordered = self.ids if increasing else self.ids[order]
        twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
        if len(twice):
            raise IncompatibleError(
                f"{len(twice)} ids of {name} belong to several rows (first: {first_few(twice)}); give every row its own id"
            )
        places = np.minimum(np.searchsorted(ordered, wanted), len(self) - 1)
        absent = wanted[ordered[places] != wanted]
        if len(absent):
            raise IncompatibleError(
                f"{len(absent)} of {len(wanted)} ids have no feature in {name} (first: {first_few(absent)}); "
                "extract features for them"
            )
        return order[places]

    def rows_of_class(self, label: int) -> Int64[np.ndarray, " m"]:
        """(m,) the rows of a class, ascending, from the labels alone: `vectors[rows_of_class(c)]` reads no other class.

        Raises:
            DataError: there are no labels.
        """
        labels, order = self.require_labels(), self._class_order
        first, last = np.searchsorted(labels, [label, label + 1], sorter=order)
        return np.arange(first, last) if order is None else order[first:last].copy()

    def require_labels(self, name: str = "the features") -> Int[np.ndarray, " n"]:
        """(n,) the labels.

        Raises:
            DataError: there are none.
        """
        if (labels := self.labels) is None:
            raise DataError(
                f"{name} have no labels for their {len(self)} rows; store labels beside the vectors (.npz, .parquet)"
            )
        return labels

    def check(self, classes: int | None = None, name: str = "the features") -> None:
        """Read every row once.

        Args:
            classes: if given, there must be labels, each in [0, classes); otherwise labels may be any class from 0 up.

        Raises:
            DataError: NaN or infinity in the vectors, or labels out of range.
        """
        blocks = range(0, len(self), BLOCK)
        faults = (np.flatnonzero(~np.isfinite(self.vectors[i : i + BLOCK]).all(axis=1)) + i for i in blocks)
        bad = np.concatenate(list(faults))
        if len(bad):
            raise DataError(
                f"{len(bad)} of {len(self)} rows of {name} have NaN or infinity (first: {first_few(bad)}); extract them again"
            )
        if classes is None and not self.has_labels:
            return
        labels = self.require_labels(name)
        bad = np.flatnonzero((labels < 0) | (labels >= (np.inf if classes is None else classes)))
        if len(bad):
            allowed = "negative" if classes is None else f"out of range [0, {classes})"
            raise DataError(
                f"{len(bad)} of {len(self)} labels of {name} are {allowed} "
                f"(first: {first_few(labels[bad])} in rows {first_few(bad)}); give every row a class in range"
            )

    @cached_property
    def _class_order(self) -> Int64[np.ndarray, " n"] | None:
        """(n,) the rows class by class; None where they are stored so."""
        labels = self.require_labels()
        if (labels[1:] >= labels[:-1]).all():
            return None
        small = labels.min() >= 0 and labels.max() < 1 << 16  # sorted digit by digit: 4 times as fast
        return np.argsort(labels.astype(np.uint16) if small else labels, kind="stable")

    def _columns(self, rows: Any) -> tuple[Any, Any, Any]:
        return self.vectors[rows], None if self.labels is None else self.labels[rows], self.ids[rows]


def _numpy(values: Values) -> np.ndarray:
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        foreign = values.is_floating_point() and values.dtype not in (torch.float16, torch.float32, torch.float64)
        values = values.float() if foreign else values  # NumPy has no bfloat16
    try:
        array: np.ndarray = np.asarray(values)
    except ValueError as error:
        raise DataError(f"not an array: {error}; give every row the same length") from error
    return array


def _vectors(vectors: np.ndarray) -> np.ndarray:
    if vectors.ndim != 2 or 0 in vectors.shape:
        raise DataError(f"vectors must be (rows, dimension), both at least 1; got shape {vectors.shape}")
    if vectors.dtype.name not in ("float16", "float32", "float64"):
        raise DataError(f"vectors must be float16, float32 or float64, not {vectors.dtype}; convert them with astype")
    return vectors if vectors.dtype.isnative else vectors.astype(vectors.dtype.newbyteorder("="))


def _labels(labels: np.ndarray, rows: int) -> np.ndarray:
    if labels.shape != (rows,):
        raise DataError(f"labels must hold one class for each of {rows} rows; got shape {labels.shape}")
    if labels.dtype.kind not in "iu":
        raise DataError(f"labels must be integers, not {labels.dtype}; number the classes from 0")
    return labels.astype(np.int64, copy=not labels.flags.writeable)  # torch warns about read-only memory


def _ids(ids: np.ndarray, rows: int) -> np.ndarray:
    if ids.shape != (rows,):
        raise DataError(f"ids must hold one id for each of {rows} rows; got shape {ids.shape}")
    if ids.dtype.kind == "O" and all(isinstance(one, str) for one in ids):
        ids = ids.astype(str)
    if ids.dtype.kind == "u" and ids.size and ids.max() > np.iinfo(np.int64).max:
        raise DataError(f"ids must fit in 63 bits; the largest is {ids.max()}; store them as text")
    if ids.dtype.kind not in "iuU":
        raise DataError(f"ids must be integers or text, not {ids.dtype}; convert them with astype")
    return ids if ids.dtype.kind == "U" else ids.astype(np.int64, copy=not ids.flags.writeable)
