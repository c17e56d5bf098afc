"""What holds the old vectors, by what it can do: an index that is searched, and one whose vectors can be read."""

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

from ..features.features import Features
from ..features.values import Values
from ..metric import Metric
from .hits import Hits


@runtime_checkable
class Index(Protocol):
    """Enough to serve from, and for the cross test.

    Attributes:
        dimension: of its vectors.
        metric: what ranks.
        space: the model that made its vectors; "" is unknown.
    """

    @property
    def dimension(self) -> int: ...
    @property
    def metric(self) -> Metric: ...
    @property
    def space(self) -> str: ...

    def __len__(self) -> int: ...

    def search(self, queries: Any, k: int = 10, exact: bool = False, exclude: Any = None) -> Hits:
        """The k nearest items of every query.

        Args:
            queries: (q, dimension) NumPy or torch.
            k: neighbours a query.
            exact: every vector is looked at, even where the index could answer sooner and nearly as well.
            exclude: (q,) the id to leave out of each query's list; an id that the index lacks leaves out none.

        Returns:
            `ids` and `scores`, each (q, k), nearest first.

        Raises:
            IncompatibleError: queries of another dimension than the index; a `QueryMap` gives them the right one.
        """


@runtime_checkable
class Readable(Protocol):
    """Enough to fit an adapter, and for the old self test."""

    def scan(self, batch: int = 10_000) -> Iterator[Features]:
        """All vectors with their ids, at most `batch` at a time, each once."""

    def read(self, ids: Values) -> Features:
        """The vectors of these ids, in their order."""
