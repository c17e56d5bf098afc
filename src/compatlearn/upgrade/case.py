"""Queries, the items that they search, and what is right: everything that a rung is measured on."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from ..arrays import as_tensor, unit_rows
from ..evaluation.figures import Figure, mean_of
from ..indexes.exact import search
from ..metric import Metric
from .truth import DEPTH, Truth

Rows = Float[np.ndarray, "_ _"]  # (n, d)


@dataclass(frozen=True)
class Case:
    """What is searched with, what is searched, and what is right.

    Attributes:
        new: (q, d_new) queries by the new model.
        old: (q, d_old) the same by the old model; None where it was not run.
        items: (n, d_old) old vectors of the items.
        fresh: (n, d_new) their true new vectors; None where nobody knows them.
        own: (q,) the item that is the query itself, and is left out; -1 for none.
        truth: what is right.
        metric: what ranks.
        query_ids: (q,) ids.
        item_ids: (n,) ids.
        what: in words, what the queries and the items are.
        depth: neighbours that are looked for.
        clusters: (q,) groups of queries that intervals draw as a whole; None: single queries.
    """

    new: Rows
    old: Rows | None
    items: Rows
    fresh: Rows | None
    own: Int[np.ndarray, " q"]
    truth: Truth
    metric: Metric
    query_ids: Shaped[np.ndarray, " q"]
    item_ids: Shaped[np.ndarray, " n"]
    what: str
    depth: int = DEPTH
    clusters: Int[np.ndarray, " q"] | None = None

    def __len__(self) -> int:
        return len(self.new)

    @property
    def rows(self) -> Int[np.ndarray, " q"]:
        """Numbers of all queries."""
        return np.arange(len(self))

    def search(self, queries: Rows, items: Rows, rows: Int[np.ndarray, " q"], k: int | None = None) -> Int[np.ndarray, "q k"]:
        """(q, k) rows of the items nearest to some queries, -1 where there are no more.

        Args:
            queries: (q, d) vectors of the queries.
            items: (n, d) vectors of the items.
            rows: (q,) which queries these are, so that their own item is left out.
            k: neighbours a query; None: as deep as the case looks.
        """
        k = min(k or self.depth, len(items))
        return np.asarray(search(queries, items, k, self.metric, exclude=self.own[rows]).indices)

    def mean(self, scores: Float[np.ndarray, " q"] | Bool[np.ndarray, " q"], seed: int) -> Figure:
        """The mean of what all queries score, with its 95 % interval."""
        return mean_of(scores, seed=seed, clusters=self.clusters)

    @property
    def scale(self) -> float:
        """How much larger squared distances are in the new space than in the old one; 1 where only directions count."""
        if self.metric == "cosine":
            return 1.0
        sides = [float(side.var(axis=0).sum()) for side in (self.new, self.items)]
        return sides[0] / sides[1] if sides[1] > 0 else 1.0


def directed(vectors: Rows, metric: Metric) -> Rows:
    """float32 vectors as the metric sees them: of unit length for cosine."""
    rows = np.asarray(vectors, dtype=np.float32)
    return unit_rows(as_tensor(rows)).numpy() if metric == "cosine" else rows


def mixed(one: Rows, other: Rows, weight: float, metric: Metric) -> Rows:
    """one + weight · other: for the cosine of any length, else divided by 1 + weight so that distances keep their size."""
    return directed((one + weight * other) / (1 + weight), metric)


def joined(one: Rows, other: Rows, weight: float) -> Rows:
    """(n, d + e) both side by side, so that inner products and squared distances add up as one + weight · other."""
    return np.concatenate([one, np.float32(weight**0.5) * other], axis=1)
