"""Cascade: the old index proposes items, the new model embeds those that it does not know yet, and ranks them all."""

import threading
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped

from ..adapters.methods import GALLERY
from ..arrays import as_numpy, check_rows
from ..errors import ConfigError, IncompatibleError
from ..features.cache import VectorCache
from ..features.values import Values, to_ids, to_vectors
from ..indexes.among import nearest_among
from ..indexes.hits import Hits
from ..indexes.index import Index
from ..indexes.query_map import QueryMap
from .case import Rows, directed, mixed
from .fresh import Embed, FreshVectors, WithoutContent
from .maps import FUSE
from .rungs import CANDIDATES

BATCH = 256  # items that one call of `embed` is given
BLOCK = 64  # queries whose candidates are in memory at a time


@dataclass(frozen=True)
class Touched:
    """What a cascade has cost so far.

    Attributes:
        queries: that were asked.
        embedded: items that the new model embedded for them.
        cached: candidates whose vector was there already.
        last: of each query of the last search, how many items were embedded for it; what two queries of a search share is
            counted with the first.
    """

    queries: int = 0
    embedded: int = 0
    cached: int = 0
    last: tuple[int, ...] = ()

    def __str__(self) -> str:
        candidates, queries = max(1, self.embedded + self.cached), max(1, self.queries)
        return (
            f"{self.queries:,} queries: {self.embedded:,} items embedded ({self.embedded / queries:.2f} per query), "
            f"{100 * self.cached / candidates:.1f} % of {self.embedded + self.cached:,} candidates were in the cache"
        )


class Cascade:
    """Search the old index with a new model: the index proposes candidates, new vectors rank them and are kept.

    The index is not changed. Every item is embedded once, whoever asks for it, unless two processes want it in the same
    moment: then both rank by the vector that came first. `search` may be called from several threads; one of them embeds at
    a time.

    Args:
        index: holds the old vectors; its metric ranks the new ones as well.
        embed: function of a list of m ids, which are in no case known to the cache: (m, d_new) floats, in the order of the
            ids. Items that it names in `WithoutContent` are not candidates.
        cache: where new vectors are kept.
        adapter: maps new queries into the space of the index; without one, old queries propose.
        candidates: items per query that the index proposes.
        weight: of the mapped query beside the old one, where both are given; a plan chooses it.
        batch: most ids that one call of `embed` is given.
        exact: the index looks at every vector for its proposals.

    Raises:
        ConfigError: an adapter of the other direction, or a number below 1.
        IncompatibleError: an adapter for another index or another model than the cache's.

    Example:
        >>> import numpy as np, tempfile
        >>> from compatlearn.indexes.arrays import ArrayIndex
        >>> new = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
        >>> index = ArrayIndex(new[:, :2], metric="cosine")
        >>> folder = tempfile.TemporaryDirectory()
        >>> with VectorCache(f"{folder.name}/new.vectors", space="model@1") as cache:
        ...     cascade = Cascade(index, lambda ids: new[ids], cache, candidates=5)
        ...     hits = cascade.search(new[:2], k=1, old_queries=new[:2, :2])
        ...     again = cascade.search(new[:2], k=1, old_queries=new[:2, :2])
        >>> hits.ids.tolist()
        [[0], [1]]
        >>> print(cascade.touched)
        4 queries: 10 items embedded (2.50 per query), 50.0 % of 20 candidates were in the cache
        >>> folder.cleanup()
    """

    def __init__(
        self,
        index: Index,
        embed: Embed,
        cache: VectorCache,
        *,
        adapter: QueryMap | None = None,
        candidates: int = CANDIDATES,
        weight: float = FUSE,
        batch: int = BATCH,
        exact: bool = False,
    ) -> None:
        if min(candidates, batch) < 1 or not weight >= 0:
            raise ConfigError(
                f"candidates and batch must be at least 1, and weight at least 0; got {candidates}, {batch} and {weight}"
            )
        _check_adapter(adapter, index, cache)
        self.index, self.cache, self.adapter = index, cache, adapter
        self.candidates, self.weight, self.exact = candidates, weight, exact
        self._items = FreshVectors(embed, cache, batch, nonzero=index.metric == "cosine")
        self._touched, self._guard = Touched(), threading.Lock()

    @property
    def touched(self) -> Touched:
        """What it has cost so far; begins anew with every object, while the cache remembers."""
        return replace(self._touched, embedded=self._items.count)

    def search(
        self, new_queries: Values, k: int = 10, *, old_queries: Values | None = None, exclude: Values | None = None
    ) -> Hits:
        """The k nearest by the new model among what the index proposes.

        Args:
            new_queries: (q, d_new) finite floats, NumPy or torch.
            k: neighbours per query, at most `candidates`.
            old_queries: (q, d_old) the same queries by the old model. With an adapter, proposals come from the mixture of both,
                otherwise from these alone.
            exclude: (q,) the id to leave out of each query's list; an id that the index lacks leaves out none.

        Returns:
            Hits, with the ids of the index and distances of the new space; -1 where the index has no further item.

        Raises:
            ConfigError: k beyond `candidates`, or neither an adapter nor old queries.
            DataError: vectors that are not finite (of length zero, under cosine), of the queries or of `embed`, which are
                named by id; or another number of vectors than of ids. What was embedded before stays in the cache.
            IncompatibleError: queries, cache and `embed` that are not of one dimension, or old queries that are not the
                index's.
        """
        if not 1 <= k <= self.candidates:
            raise ConfigError(f"k must be from 1 to the {self.candidates} candidates per query; got {k}; raise candidates")
        queries = self._queries(new_queries, "the new queries")
        self._check_width(queries.shape[1])
        asked = self._asked(queries, old_queries)
        left_out = None if exclude is None else to_ids(exclude, len(queries))
        proposed = self.index.search(asked, self.candidates, exact=self.exact, exclude=left_out)
        rows, ids = as_numpy(proposed.indices), as_numpy(proposed.ids)
        blocks = [slice(start, start + BLOCK) for start in range(0, len(queries), BLOCK)]
        found = [self._ranked(queries[block], rows[block], ids[block], k) for block in blocks]
        with self._guard:
            self._touched = replace(self._touched, last=tuple(count for _, _, counts in found for count in counts))
        indices, keys = torch.cat([one for one, _, _ in found]), torch.cat([one for _, one, _ in found])
        template = new_queries if isinstance(new_queries, torch.Tensor) else queries
        hits = Hits.of(indices, keys, self.index.metric, template, queries.dtype == np.float64)
        return replace(hits, names=proposed.names)

    def _asked(self, queries: Rows, old_queries: Values | None) -> Rows:
        """(q, d_old) what the index is asked with."""
        metric = self.index.metric
        old = None if old_queries is None else directed(self._old(old_queries, len(queries)), metric)
        if self.adapter is None:
            if old is None:
                raise ConfigError(
                    "there is nothing to ask the old index with; give the cascade an adapter, or pass old_queries"
                )
            return old
        mapped = directed(as_numpy(self.adapter(queries)), metric)
        return mapped if old is None else mixed(old, mapped, self.weight, metric)

    def _ranked(
        self, queries: Rows, proposed: Int[np.ndarray, "q c"], ids: Shaped[np.ndarray, "q c"], k: int
    ) -> tuple[Int[torch.Tensor, "q k"], Float[torch.Tensor, "q k"], list[int]]:
        """Rows of the index and keys of the nearest candidates, and how many items were embedded for each query."""
        rows, first = np.unique(proposed, return_index=True)
        rows, first = rows[rows >= 0], first[rows >= 0]  # -1: a query found fewer
        order = np.argsort(first)  # what was proposed first is embedded first
        try:
            known, embedded = self._items.vectors(ids.ravel()[first[order]], queries.shape[1])
        except WithoutContent as error:
            without = np.isin(ids, error.ids) & (proposed >= 0)
            if not without.any():
                raise
            return self._ranked(queries, np.where(without, -1, proposed), ids, k)
        vectors = np.empty((len(rows), queries.shape[1]), dtype=np.float32)
        if len(rows):  # a cache that was never filled has no dimension
            vectors[order] = known  # by row of the index, which decides ties
        places = np.where(proposed >= 0, np.searchsorted(rows, proposed), -1)
        found, keys = nearest_among(queries, vectors, places, k, self.index.metric)
        counts = np.bincount(first[order][embedded] // proposed.shape[1], minlength=len(queries)).tolist()
        with self._guard:
            cached = self._touched.cached + int((proposed >= 0).sum()) - sum(counts)
            self._touched = replace(self._touched, queries=self._touched.queries + len(queries), cached=cached)
        return torch.from_numpy(np.append(rows, -1))[found], keys, counts  # -1 stays -1

    def _queries(self, values: Values, name: str) -> Rows:
        queries = to_vectors(values)
        check_rows(queries, name, nonzero=self.index.metric == "cosine")
        return queries

    def _old(self, values: Values, count: int) -> Rows:
        old = self._queries(values, "the old queries")
        if old.shape != (count, self.index.dimension):
            raise IncompatibleError(
                f"the old queries are {old.shape}, the index needs ({count}, {self.index.dimension}); "
                "give the same queries by the model of the index"
            )
        return old

    def _check_width(self, width: int) -> None:
        for name, expected in (("cache", self.cache.dimension), ("adapter", self.adapter and self.adapter.d_new)):
            if expected not in (None, width):
                raise IncompatibleError(
                    f"the new queries have {width} dimensions and the {name} {expected}; "
                    f"embed them with the model of the {name}"
                )


def _check_adapter(adapter: QueryMap | None, index: Index, cache: VectorCache) -> None:
    if adapter is None:
        return
    if getattr(adapter, "direction", "") == GALLERY:
        raise ConfigError(f"the adapter maps old vectors to new ones; a cascade needs one that maps queries: {adapter!r}")
    if adapter.d_old != index.dimension:
        raise IncompatibleError(
            f"the adapter gives {adapter.d_old} dimensions, the index has {index.dimension}; fit one to vectors of this index"
        )
    for what, mine, theirs in (("the index", adapter.space_old, index.space), ("the cache", adapter.space_new, cache.space)):
        if mine and theirs and mine != theirs:
            raise IncompatibleError(f"the adapter is of space {mine!r} and {what} of {theirs!r}; fit one to these two models")
