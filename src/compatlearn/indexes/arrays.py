"""An index that is nothing but arrays: searched exactly, row by row known by id."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from ..arrays import Array, as_numpy
from ..errors import IncompatibleError
from ..features.features import Features
from ..features.ids import Items, require_rows, rows_of
from ..metric import Metric, check_metric
from .beside import Beside, add_beside, beside
from .exact import search
from .hits import Hits
from .places import folder_beside, note_space, noted_space, state_of


class ArrayIndex:
    """Vectors in memory or in a memory map, as an index: `Index` and `Readable` over the exact search.

    Attributes:
        vectors: (n, d) the gallery.
        ids: (n,) int64 or text; None: the row numbers.
        metric: what ranks.
        space: the model that made the vectors; "" is unknown.
        path: the folder or file of features that holds them, or None: then a second vector is called by a path.

    >>> import numpy as np
    >>> from compatlearn.indexes.arrays import ArrayIndex
    >>> index = ArrayIndex(np.eye(3), ids=["a", "b", "c"], metric="dot")
    >>> hits = index.search(np.array([[0.1, 0.7, 0.2]]), k=2)
    >>> hits.ids, hits.scores
    (array([['b', 'c']], dtype='<U1'), array([[0.7, 0.2]]))
    >>> print(hits)
    Hits(1 × 2, nearest first)
    query 0: 'b' (0.7), 'c' (0.2)
    """

    def __init__(
        self,
        vectors: Features | Array,
        *,
        ids: Shaped[Array, " n"] | Sequence[Any] | None = None,
        metric: Metric = "euclidean",
        space: str = "",
        path: Path | None = None,
    ) -> None:
        self.path, self._state = path, () if path is None else state_of(path)
        space = space or ("" if path is None else noted_space(path))
        self.features = vectors if isinstance(vectors, Features) else None
        self.vectors = vectors.vectors if isinstance(vectors, Features) else vectors
        known = self.features.ids if self.features is not None and ids is None else ids
        self.ids = None if known is None else as_numpy(np.asarray(known) if isinstance(known, Sequence) else known)
        self.metric = check_metric(metric)
        self.space = space or (self.features.space if self.features is not None else "")
        if self.ids is not None and self.ids.shape != (len(self),):
            raise IncompatibleError(f"ids must be one for each of {len(self)} rows; got shape {self.ids.shape}")

    def __len__(self) -> int:
        return len(self.vectors)

    def __repr__(self) -> str:
        return f"ArrayIndex({len(self)} × {self.dimension}, {self.metric}, space={self.space!r})"

    @property
    def dimension(self) -> int:
        return int(self.vectors.shape[1])

    def search(
        self, queries: Float[Array, "q d"], k: int = 10, exact: bool = True, exclude: Shaped[Array, " q"] | None = None
    ) -> Hits:
        """The k nearest items of every query, exactly.

        Args:
            queries: (q, d) NumPy or torch, by the model of the index: d is its `dimension`.
            k: neighbours a query.
            exact: of no effect: this index always is.
            exclude: (q,) the id to leave out of each query's list; an id that the index lacks leaves out none.

        Returns:
            Hits, with the ids of this index.

        Raises:
            DataError: as `search` does.
            IncompatibleError: queries of another dimension.
            IncompatibleError: ids to leave out that cannot be compared with those of the index.
        """
        if queries.ndim == 2 and queries.shape[1] != self.dimension:
            raise IncompatibleError(
                f"the queries have {queries.shape[1]} dimensions and the index {self.dimension}; ask with vectors of the model "
                "of the index, or map the queries first: by an adapter, or by a Cut if their model was trained for that"
            )
        rows = None if exclude is None else self._rows(as_numpy(exclude))
        hits = search(queries, self.vectors, k, self.metric, exclude=rows)
        return hits if self.ids is None else replace(hits, names=self.ids)

    def scan(self, batch: int = 10_000) -> Iterator[Features]:
        """All vectors with their ids, at most `batch` at a time, each once."""
        for start in range(0, len(self), batch):
            yield self._take(np.arange(start, min(start + batch, len(self))))

    def read(self, ids: Sequence[Any] | Shaped[Array, " m"]) -> Features:
        """The vectors of these ids, in their order.

        Raises:
            IncompatibleError: an id that the index lacks.
        """
        return self._take(require_rows(self._items(np.asarray(ids), "the wanted ids"), self._items(self._known(), "the index")))

    def second(self, name: str) -> Beside | None:
        """As `Upgradable.second`: in a folder beside the features, or at the path `name`."""
        return beside(self, self._folder(name), name)

    def add_second(self, name: str, dimension: int) -> Beside:
        """As `Upgradable.add_second`."""
        return add_beside(self, self._folder(name), name, dimension)

    def name_space(self, space: str) -> None:
        """As `Upgradable.name_space`: in a file beside the features; of arrays, as long as they live."""
        if self.path is not None:
            note_space(self.path, space)
        self.space = space

    def renew(self) -> None:
        """As `First.renew`."""
        if self.path is not None and (state := state_of(self.path)) != self._state:
            self.features = Features.load(self.path)
            self.vectors, self.ids, self._state = self.features.vectors, self.features.ids, state

    def items(self) -> Shaped[np.ndarray, " n"]:
        """As `First.items`."""
        if self.ids is None:
            self.ids = self._known()
        return self.ids

    def vectors_at(self, rows: Int[np.ndarray, " m"]) -> Float[np.ndarray, "m d"]:
        """As `First.vectors_at`."""
        return as_numpy(self.vectors[rows])

    def _folder(self, name: str) -> Path:
        return Path(name) if self.path is None else folder_beside(self.path, name)

    def _take(self, rows: Int[np.ndarray, " m"]) -> Features:
        if self.features is not None and self.ids is self.features.ids:
            return self.features.take(rows)
        return Features(as_numpy(self.vectors[rows]), ids=self._known()[rows], space=self.space)

    def _known(self) -> Shaped[np.ndarray, " n"]:
        return np.arange(len(self)) if self.ids is None else self.ids

    def _rows(self, ids: Shaped[np.ndarray, " q"]) -> Int[np.ndarray, " q"]:
        if self.ids is None:
            return np.where(ids < len(self), ids, -1)
        return rows_of(self._items(ids, "the ids to leave out"), self._items(self.ids, "the index"))

    def _items(self, ids: Shaped[np.ndarray, " n"], name: str) -> Items:
        return Items(name, self.vectors, None, ids, self.space)
