"""Features: the vectors a model gave, with their labels, ids and the space they live in."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float, Int, Int64, Shaped

from ..arrays import check_rows, unit_length
from ..errors import DataError, FormatError, IncompatibleError
from . import checks
from . import folder as feature_folder
from . import formats as feature_files
from .classes import renumbered
from .ids import ROWS, Items, are_rows, check_unique, require_rows
from .names import Names
from .values import Classes, Values, to_ids, to_labels, to_vectors

Reader: TypeAlias = Callable[[], np.ndarray]  # of a column that is read when it is first asked for


@dataclass(frozen=True, eq=False, repr=False, init=False)
class Features:
    """Vectors and what is known of every row; lists and tensors given to it become NumPy arrays.

    Attributes:
        vectors: (n, d) float16, float32 or float64, often a memory map (copy-on-write: the file never changes).
        labels: (n,) int64 class of each row, or None where nobody gave them. Names become numbers: see `classes`.
        ids: (n,) int64 or text, by default the row numbers. Labels and ids of a folder are read when first asked for.
        space: the model that gave the vectors, such as "resnet18@3f2a9c01"; "" is unknown.
        source: where the rows come from, for people to read.
        ids_from: where the ids come from: "column 'sku'", "key 'ids'", "row numbers" and why; "" is unknown.
        classes: the names of classes 0, 1, …, or None where classes are numbers alone.

    Raises:
        DataError: no rows, not floats, or counts that disagree.
    """

    vectors: Float[np.ndarray, "n d"]
    space: str
    source: str
    ids_from: str
    classes: Classes
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
        ids_from: str = "",
        classes: Classes = None,
        known_normalized: bool | None = None,
    ) -> None:
        found = to_vectors(vectors)
        readers: dict[str, Reader] = {}
        if callable(labels):
            readers["labels"] = labels
        elif labels is None:
            self.__dict__["labels"] = None
        else:
            self.__dict__["labels"], classes = to_labels(labels, len(found), classes)
        if ids is None or callable(ids):
            readers["ids"] = ids or partial(np.arange, len(found))
        else:
            self.__dict__["ids"] = to_ids(ids, len(found))
        self.__dict__.update(vectors=found, space=space, source=source, known_normalized=known_normalized)
        self.__dict__.update(ids_from=ids_from or (ROWS if ids is None else ""), classes=classes, _readers=readers)

    @cached_property
    def labels(self) -> Int64[np.ndarray, " n"] | None:
        return to_labels(self._readers["labels"](), len(self), self.classes)[0]

    @cached_property
    def ids(self) -> Shaped[np.ndarray, " n"]:
        return to_ids(self._readers["ids"](), len(self))

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
        blocks = range(0, len(self), checks.BLOCK)
        return all(unit_length(self.vectors[start : start + checks.BLOCK]) for start in blocks)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        verify: bool = False,
        vector_column: str | None = None,
        id_column: str | None = None,
        label_column: str | None = None,
        space: str = "",
    ) -> "Features":
        """Open features: a folder that `save` wrote, or anyone's .npy, .npz, .parquet (or a folder of them),
        .safetensors or .pt with `vectors`, and where known `labels` and `ids` (or `vector`, `label`, `id`).

        Args:
            path: the folder or file.
            verify: read everything once and compare it with the manifest's checksums.
            vector_column: column of .parquet, or key of .npz, .safetensors and .pt, where it has another name.
            id_column: the same for the ids; "row" takes the number of each row for its id.
            label_column: the same for the labels.
            space: the model that gave the vectors, where the file does not say.

        Raises:
            DataError: no such path.
            FormatError: the file is truncated, foreign, changed, unfinished, or a pickle; has no such column; or has none
                that is known to hold ids, and others that could.
            IncompatibleError: the file says that its vectors are of another space.
        """
        names = Names(vector_column, id_column, label_column)
        columns = feature_files.read(Path(path), verify=verify, names=names)
        if space and columns.setdefault("space", space) not in ("", space):
            raise IncompatibleError(f"{path} says that it is of space {columns['space']!r}, not {space!r}; give the right one")
        columns["space"] = columns.get("space") or space
        try:
            return cls(**columns)
        except FormatError:
            raise
        except DataError as error:
            raise FormatError(f"{path}: {error}") from error

    def save(self, folder: str | Path, shard_rows: int = 65536) -> None:
        """Write vectors.npy, rows.parquet and, last, manifest.json; features already in `folder` are replaced.

        Args:
            folder: where to.
            shard_rows: rows that share one checksum.

        Raises:
            DataError: the disk is full, or `folder` holds an unfinished extraction.
        """
        starts = range(0, len(self), shard_rows)
        blocks = (self._columns(slice(start, start + shard_rows)) for start in starts)
        shape = feature_folder.Shape(len(self), self.dimension, self.vectors.dtype)
        known: dict[str, Any] = {"space": self.space, "source": self.source}
        known |= {"ids_from": self.ids_from} if self.ids_from else {}
        known |= {} if self.classes is None else {"classes": list(self.classes)}
        feature_folder.write(Path(folder), blocks, shape, known)

    def take(self, rows: Shaped[np.ndarray, " m"] | slice) -> "Features":
        """The given rows, by number, mask or slice, in that order."""
        return self._with(*self._columns(rows), known_normalized=True if self.known_normalized else None)

    def with_classes(self, classes: tuple[str, ...]) -> "Features":
        """The same features, their named classes numbered as `classes` has them.

        Args:
            classes: every name of this object's classes, and perhaps more.

        Raises:
            IncompatibleError: these classes have no names, or one is not in `classes`.
        """
        labels = renumbered(self.labels, self.classes, classes, self.source or "the features")
        known = {"known_normalized": self.known_normalized, "classes": classes}
        return self._with(self.vectors, labels, self._readers.get("ids", self.__dict__.get("ids")), **known)

    def align(
        self, ids: Values, name: str = "the features", wanted: str = "the items", wanted_from: str = ""
    ) -> Int[np.ndarray, " m"]:
        """(m,) the row that holds each of `ids`, so that `features.take(rows).ids` equals `ids`.

        Args:
            ids: any number of ids, an id perhaps several times.
            name: what messages call these features.
            wanted: what messages call the owner of `ids`.
            wanted_from: where `ids` come from, as `ids_from` says it; "" is unknown.

        Raises:
            DataError: an id of these features occurs more than once.
            IncompatibleError: an id has no row, numbers meet text, or row numbers meet ids.
        """
        check_unique(self.ids, name)
        theirs = Items(wanted, self.vectors, None, to_ids(ids, len(ids)), "", wanted_from)
        return require_rows(theirs, Items(name, self.vectors, None, self.ids, "", self.ids_from))

    def rows_of_class(self, label: int) -> Int64[np.ndarray, " m"]:
        """(m,) the rows of a class, ascending, from the labels alone: `vectors[rows_of_class(c)]` reads no other class.

        Raises:
            DataError: there are no labels.
        """
        labels, order = self.require_labels(), self._class_order
        first, last = np.searchsorted(labels, [label, label + 1], sorter=order)
        return np.arange(first, last) if order is None else order[first:last].copy()

    def require_labels(self, name: str = "the feature set") -> Int[np.ndarray, " n"]:
        """(n,) the labels.

        Args:
            name: what messages call these features: their file, say.

        Raises:
            DataError: there are none.
        """
        if (labels := self.labels) is None:
            raise DataError(
                f"{name} has no labels ({len(self)} rows); store labels beside the vectors (.npz, .parquet), "
                "or name their column (label_column)"
            )
        return labels

    def check(self, classes: int | None = None, name: str = "the features", *, nonzero: bool = False) -> None:
        """Read every row once.

        Args:
            classes: if given, there must be labels, each in [0, classes); otherwise labels may be any class from 0 up.
            name: what messages call these features: their file, say.
            nonzero: whether a vector of length zero is a fault.

        Raises:
            DataError: NaN, infinity or (with `nonzero`) zeros in the vectors, or labels out of range; with the rows and ids.
        """
        check_rows(self.vectors, name, nonzero=nonzero, told=lambda bad: checks.rows_at_fault(bad, self.ids_or_none))
        if classes is not None or self.has_labels:
            checks.check_range(self.require_labels(name), self.ids_or_none, classes, name)

    def check_varied(self, name: str = "the features") -> None:
        """Read rows until one differs from the first.

        Args:
            name: what messages call these features: their file, say.

        Raises:
            DataError: there is one row, or all of them hold the same vector.
        """
        checks.check_varied(self.vectors, name)

    @property
    def ids_or_none(self) -> Shaped[np.ndarray, " n"] | None:
        """(n,) the ids; None where they are row numbers and so tell nothing more."""
        return None if are_rows(self.ids_from) else self.ids

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

    def _with(self, vectors: Any, labels: Any, ids: Any, **known: Any) -> "Features":
        """Other rows or numbers of the same origin."""
        origin = {name: self.__dict__[name] for name in ("space", "source", "ids_from", "classes")}
        return Features(vectors, labels, ids, **{**origin, **known})
