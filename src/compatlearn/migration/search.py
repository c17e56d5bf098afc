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
from ..evaluation.lookup import places_of
from ..features.cache import VectorCache
from ..features.features import Features
from ..features.ids import are_rows
from ..indexes.among import nearest_among
from ..indexes.csls import hubness, reranked
from ..indexes.hits import Hits
from ..indexes.second import Second, Upgradable
from ..metric import Metric
from ..upgrade.cascade import Cascade
from ..upgrade.case import Rows, directed, joined, mixed
from ..upgrade.fresh import Embed
from ..upgrade.maps import NEW_HEAD, OLD_HEAD, sampled
from ..upgrade.rungs import CANDIDATES
from .status import require_one_space

FIRST = ("old", "old+head", "mapped", "mapped+csls", "fused", "cascade")  # rungs that ask the first vectors
SECOND = ("translated", "translated+fused", "partial", "backfill", "backfill+head")  # and those that ask the second
RUNGS = (*FIRST, *SECOND)


@dataclass(frozen=True)
class Road:
    """A rung with what it needs to answer queries.

    Attributes:
        rung: one of `RUNGS`.
        index: the first vectors.
        second: the second vectors, for the rungs that ask them.
        adapters: maps by direction, and heads by their names, as `upgrade.carry.FILES` has them.
        fuse: weight of the mapped query beside the old one.
        join: weights of the translated old query beside the new one, and of the old column beside the new one.
        known: logged queries by the new model, or pairs: what "mapped+csls" knows of the queries to come.
        embed: what embeds items for "cascade", by id.
        cache: where "cascade" keeps what it has embedded.
    """

    rung: str
    index: Upgradable
    second: Second | None = None
    adapters: Mapping[str, Adapter] | None = None
    fuse: float = 1.5
    join: tuple[float, float] = (0.2, 0.25)
    known: Features | None = None
    embed: Embed | None = None
    cache: VectorCache | None = None

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
        if self.rung == "cascade":
            return self._cascade(new, old, k, exact)
        if self.rung == "mapped+csls":
            return self._less_hubs(self.index.search(self._first(new, old), max(k, CANDIDATES), exact=exact), k)
        if self.rung in FIRST:
            return self.index.search(self._first(new, old), k, exact=exact)
        second = self._second()
        require_one_space(second)
        fresh = _of(new, second.space, "the new queries", second.dimension)
        if self.rung == "backfill+head":
            return second.search(self._through(NEW_HEAD, fresh, second.metric), k, exact=exact)
        if self.rung != "translated+fused" and not (self.rung == "partial" and old is not None and self._joins()):
            return second.search(fresh, k, exact=exact)
        return self._both(second, fresh, _of(old, self.index.space, "the old queries", self.index.dimension), k, exact)

    def _first(self, new: Features | None, old: Features | None) -> Rows:
        """(q, d_old) what the first vectors are asked with."""
        index, metric = self.index, self.index.metric
        mine = None if self.rung.startswith("mapped") else _of(old, index.space, "the old queries", index.dimension)
        if self.rung == "old":
            assert mine is not None
            return mine
        if self.rung == "old+head":
            assert mine is not None
            return self._through(OLD_HEAD, mine, metric)
        adapter = self._query_map()
        mapped = directed(as_numpy(adapter(_of(new, adapter.space_new, "the new queries", adapter.d_new))), metric)
        return mapped if mine is None else mixed(directed(mine, metric), mapped, self.fuse, metric)

    def _through(self, name: str, queries: Rows, metric: Metric) -> Rows:
        """Queries through a head, which knows them as the plan's metric sees them."""
        return directed(as_numpy(self._adapter(name)(directed(queries, metric))), metric)

    def _query_map(self) -> Adapter:
        adapter, index = self._adapter(QUERY), self.index
        if adapter.space_old and index.space and adapter.space_old != index.space:
            raise IncompatibleError(
                f"the map leads to {adapter.space_old!r}, and the index holds vectors of {index.space!r}; fit one to these"
            )
        return adapter

    def _less_hubs(self, hits: Hits, k: int) -> Hits:
        """What was found, ranked by CSLS. Only candidates need their hubness, so it is computed for these and never stored."""
        if self.known is None or not len(self.known):
            raise ConfigError("the rung 'mapped+csls' needs queries that are known beforehand: some hundreds, or the pairs")
        adapter, metric, there = self._query_map(), self.index.metric, as_numpy(hits.indices) >= 0
        if not there.any():
            return hits
        names = np.unique(as_numpy(hits.ids)[there])
        known = _of(self.known, adapter.space_new, "the known queries", adapter.d_new)
        ids, own = np.asarray(self.known.ids), np.full(len(names), -1)
        if ids.dtype.kind == names.dtype.kind and not are_rows(self.known.ids_from):
            order = np.argsort(ids, kind="stable")
            places = places_of(ids[order], names)
            own = np.where(places >= 0, order[places], -1)
        sample = sampled(directed(known, metric), own, adapter, metric)
        items = directed(as_numpy(self.index.read(names).vectors), metric)
        away = hubness(items, sample.mapped, metric, exclude=sample.own)
        indices = np.where(there, places_of(names, as_numpy(hits.ids)), -1)
        distances, scores = as_numpy(hits.distances), as_numpy(hits.scores)
        return reranked(Hits(indices, distances, scores, names), away, k)

    def _cascade(self, new: Features | None, old: Features | None, k: int, exact: bool) -> Hits:
        """What the first vectors propose, by the new model's vectors of these items."""
        if self.embed is None or self.cache is None:
            raise ConfigError("the rung 'cascade' embeds items; give the contents of the items and the new model")
        adapter, index = self._query_map(), self.index
        asked = _of(new, self.cache.space, "the new queries", adapter.d_new)
        mine = None if old is None else _of(old, index.space, "the old queries", index.dimension)
        options: dict[str, Any] = {"candidates": max(k, CANDIDATES), "weight": self.fuse, "exact": exact}
        return Cascade(index, self.embed, self.cache, adapter=adapter, **options).search(asked, k, old_queries=mine)

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
        places = np.concatenate([places_of(known, one) for one in found], axis=1)
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
            what = (
                f"the map of direction {direction!r}" if direction in (QUERY, GALLERY) else "a head, fitted to labelled pairs"
            )
            raise ConfigError(f"the rung {self.rung!r} needs {what}; give the folder of a plan that has it")
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
