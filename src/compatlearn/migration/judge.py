"""What a live index finds for some queries, and how good that is."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped

from ..arrays import as_numpy
from ..errors import DataError
from ..evaluation.figures import Figure, mean_of
from ..evaluation.lookup import of_kind, places_of
from ..evaluation.relevance import Relevance
from ..features.classes import same_classes
from ..features.features import Features
from ..features.ids import Items, are_rows
from ..upgrade.truth import AGREEING, DEPTH, Judged
from .search import Road

MOST = 1000  # queries that measure: more take their time at every point, and narrow the interval little
Found = Int[np.ndarray, "q k"]  # rows of the items, -1 for none


@dataclass(frozen=True)
class Judge:
    """Queries that a live index is measured with.

    Attributes:
        new: (q, d_new) queries by the new model.
        old: the same by the old model, in the same order, or None.
        items: (n,) ascending ids of the items.
        own: (q,) row of the item that is the query itself, and is left out; -1 for none.
        truth: what is right; None: nobody knows, and rankings are only compared with each other.
    """

    new: Features
    old: Features | None
    items: Shaped[np.ndarray, " n"]
    own: Int[np.ndarray, " q"]
    truth: Judged | None

    @classmethod
    def of(cls, new: Features, items: Items, *, old: Features | None = None, relevance: Relevance | None = None) -> "Judge":
        """A judge by judgements, else by classes where both sides have them, else without truth.

        Args:
            new: queries by the new model.
            items: ids, and where known classes, of the items of the index; their vectors are not read.
            old: the same queries by the old model, in any order.
            relevance: what answers which query, by their ids.

        Returns:
            The judge.

        Raises:
            DataError: no item answers any query.
            IncompatibleError: ids or classes that do not fit.
        """
        order = np.argsort(items.ids, kind="stable")
        ids = items.ids[order]
        if old is not None:
            old = old.take(old.align(new.ids, "the old queries", "the new queries", new.ids_from))
        own = np.full(len(new), -1)
        if ids.dtype.kind == new.ids.dtype.kind and not are_rows(new.ids_from) and not are_rows(items.ids_from):
            own = places_of(ids, np.asarray(new.ids))
        truth = None
        if relevance is not None:
            truth = Judged(relevance.at(new.ids, ids), own, "ndcg10")
        elif new.labels is not None and items.labels is not None:
            asked, held = same_classes(Items.of(new, "the queries"), items)
            truth = Judged(Relevance.from_labels(asked.labels, held.labels[order]), own, "top1")
        judge = cls(new, old, ids, own, truth)
        if truth is not None and not truth.relevance.counts(judge.rows, exclude=own).any():
            raise DataError(f"no item answers any of the {len(new)} queries; give judgements by the ids of queries and items")
        return judge

    @property
    def rows(self) -> Int[np.ndarray, " q"]:
        """Numbers of the queries."""
        return np.arange(len(self.new))

    @property
    def primary(self) -> str:
        """The figure that says most."""
        return "agreement" if self.truth is None else self.truth.primary

    def found(self, road: Road) -> Found:
        """What the index, as it is, finds for every query, the query itself left out.

        Args:
            road: how it is asked.

        Returns:
            (q, k) rows of the items, nearest first; k is 100, or 10 without truth.
        """
        depth = AGREEING if self.truth is None else DEPTH
        hits = road.search(self.new, self.old, depth + int((self.own >= 0).any()))
        there, ids = as_numpy(hits.indices) >= 0, as_numpy(hits.ids)
        places = np.where(there, places_of(self.items, of_kind(ids, self.items, "items")), -1)
        mine = (places == self.own[:, None]) & (self.own >= 0)[:, None]
        order = np.argsort(mine, axis=1, kind="stable")  # the query itself goes to the end
        return np.take_along_axis(np.where(mine, -1, places), order, axis=1)[:, :depth]

    def figures(self, found: Found, seed: int = 0) -> dict[str, Figure]:
        """Figures with their 95 % intervals over the queries, under the names that a plan has for them; none without truth.

        Args:
            found: as `found` gives it.
            seed: of the intervals.
        """
        scores: dict[str, Any] = {} if self.truth is None else self.truth.scores(self.rows, found)
        return {name: mean_of(column, seed=seed) for name, column in scores.items()}


def halves(queries: Features) -> tuple[Int[np.ndarray, " a"], Int[np.ndarray, " b"]]:
    """Two halves of some queries, drawn at random, the same in every run: one chooses what is embedded, one measures it.

    Args:
        queries: two of them at least.

    Returns:
        Rows of those that choose, and of at most a thousand that measure, ascending.
    """
    order = np.argsort(queries.ids, kind="stable")[np.random.default_rng(0).permutation(len(queries))]
    half = len(queries) // 2
    return np.sort(order[:-half]), np.sort(order[-half:][:MOST])
