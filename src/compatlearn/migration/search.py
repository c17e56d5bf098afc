"""Search a live index by a rung of the plan: which vectors ask which column."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Shaped

from ..adapters.adapter import Adapter
from ..adapters.methods import GALLERY, QUERY
from ..arrays import as_numpy
from ..errors import ConfigError, IncompatibleError
from ..features.features import Features
from ..indexes.among import nearest_among
from ..indexes.hits import Hits
from ..indexes.second import Second, Upgradable
from ..metric import Metric
from ..upgrade.case import Rows, directed, joined, mixed
from .status import require_one_space

FIRST = ("old", "mapped", "fused")  # rungs that ask the first vectors
SECOND = ("translated", "translated+fused", "partial", "backfill")  # and those that ask the second
RUNGS = (*FIRST, *SECOND)
CANDIDATES = 100  # that each column proposes where both are asked


@dataclass(frozen=True)
class Road:
    """A rung with what it needs to answer queries.

    Attributes:
        rung: one of `RUNGS`.
        index: the first vectors.
        second: the second vectors, for the rungs that ask them.
        adapters: maps by direction.
        fuse: weight of the mapped query beside the old one.
        join: weights of the translated old query beside the new one, and of the old column beside the new one.
    """

    rung: str
    index: Upgradable
    second: Second | None = None
    adapters: Mapping[str, Adapter] | None = None
    fuse: float = 1.5
    join: tuple[float, float] = (0.2, 0.25)

    def search(self, new: Features | None, old: Features | None, k: int = 10, *, exact: bool = False) -> Hits:
        """The k nearest items of every query.

        Args:
            new: queries by the new model; the rung "old" needs none.
            old: the same queries by the old model, for the rungs that ask with them.
            k: neighbours per query.
            exact: every vector is looked at.

        Returns:
            Hits with the ids of the index.

        Raises:
            ConfigError: the rung is unknown or needs what was not given.
            DataError: queries that cannot be used.
            IncompatibleError: queries of another model or dimension than the column they ask, or a column of two models.
        """
        if self.rung not in RUNGS:
            raise ConfigError(f"a live index is searched by {', '.join(RUNGS)}; got {self.rung!r}")
        if self.rung in FIRST:
            return self.index.search(self._first(new, old), k, exact=exact)
        second = self._second()
        require_one_space(second)
        fresh = _of(new, second.space, "the new queries", second.dimension)
        if self.rung != "translated+fused" and not (self.rung == "partial" and old is not None and self._joins()):
            return second.search(fresh, k, exact=exact)
        return self._both(second, fresh, _of(old, self.index.space, "the old queries", self.index.dimension), k, exact)

    def _first(self, new: Features | None, old: Features | None) -> Rows:
        """(q, d_old) what the first vectors are asked with."""
        index, metric = self.index, self.index.metric
        mine = None if self.rung == "mapped" else _of(old, index.space, "the old queries", index.dimension)
        if self.rung == "old":
            assert mine is not None
            return mine
        adapter = self._adapter(QUERY)
        mapped = directed(as_numpy(adapter(_of(new, adapter.space_new, "the new queries", adapter.d_new))), metric)
        return mapped if mine is None else mixed(directed(mine, metric), mapped, self.fuse, metric)

    def _both(self, second: Second, new: Rows, old: Rows, k: int, exact: bool) -> Hits:
        """Both columns propose; their candidates are ranked by the sum of both scores."""
        metric, (share, weight) = self.index.metric, self.join
        new, old = directed(new, metric), directed(old, metric)
        asked = mixed(new, directed(as_numpy(self._adapter(GALLERY)(old)), metric), share, metric)
        proposals = [side.search(rows, max(k, CANDIDATES), exact=exact) for side, rows in ((second, asked), (self.index, old))]
        found = [as_numpy(one.ids) for one in proposals]
        ids = np.unique(
            np.concatenate([one[np.asarray(hits.indices) >= 0] for one, hits in zip(found, proposals, strict=True)])
        )
        second_vectors, first_vectors, known = _read(second, ids)
        if metric != "cosine":
            weight *= float(new.var(axis=0).sum()) / max(float(first_vectors.var(axis=0).sum()), 1e-30)
        items = joined(directed(second_vectors, metric), directed(first_vectors, metric), weight)
        places = np.concatenate([_places(one, known) for one in found], axis=1)
        places = np.sort(places, axis=1)
        places[:, 1:][places[:, 1:] == places[:, :-1]] = -1
        sums: Metric = "euclidean" if metric == "euclidean" else "dot"  # what adds up over both columns
        rows, keys = nearest_among(joined(asked, old, weight), items, places, k, sums)
        hits = Hits.of(rows, keys, sums, new, False)
        return replace(hits, names=known)

    def _joins(self) -> bool:
        return GALLERY in (self.adapters or {})

    def _second(self) -> Second:
        if self.second is None:
            raise ConfigError(f"the rung {self.rung!r} asks a second vector, and the index has none; translate first")
        return self.second

    def _adapter(self, direction: str) -> Adapter:
        found = (self.adapters or {}).get(direction)
        if found is None:
            raise ConfigError(f"the rung {self.rung!r} needs the map of direction {direction!r}; give the plan's folder")
        return found


def _of(queries: Features | None, space: str, name: str, dimension: int) -> Rows:
    """Vectors of queries that are of a space."""
    if queries is None:
        raise ConfigError(f"this rung needs {name}")
    if queries.space and space and queries.space != space:
        raise IncompatibleError(
            f"{name} are of {queries.space!r}, and what they ask is of {space!r}; embed them with its model"
        )
    if queries.dimension != dimension:
        raise IncompatibleError(f"{name} have {queries.dimension} dimensions, and what they ask has {dimension}")
    return np.ascontiguousarray(queries.vectors, dtype=np.float32)


def _read(second: Second, ids: Shaped[np.ndarray, " n"]) -> tuple[Rows, Rows, Shaped[np.ndarray, " n"]]:
    """The second and first vectors of the items that have both, and their ids, sorted."""
    block = second.block(ids)
    block = block.take(np.array([bool(stamp) for stamp in block.stamps.tolist()], dtype=bool))
    order = np.argsort(block.ids)
    block = block.take(order)
    return as_numpy(second.read(block.ids).vectors), block.old, block.ids


def _places(ids: Shaped[np.ndarray, "q c"], known: Shaped[np.ndarray, " n"]) -> Any:
    """(q, c) the row of each id among the sorted ids that are known, -1 for none."""
    places = np.searchsorted(known, ids).clip(max=max(0, len(known) - 1))
    return np.where(known[places] == ids, places, -1)
