"""What a rung is measured by: relevance where somebody knows it, else agreement with the new model's own ranking."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from ..evaluation.metrics import agreement, ndcg, recall_at_k, reciprocal_rank
from ..evaluation.relevance import Relevance

DEPTH = 100  # neighbours of a query that are looked at
AGREEING = 10  # of the new model's own ranking that a rung should find

Scores = dict[str, Float[np.ndarray, " q"]]  # figure → what each query scored


@runtime_checkable
class Truth(Protocol):
    """Judges what some queries found."""

    @property
    def primary(self) -> str:
        """The figure that gains are of."""
        ...

    def scores(self, rows: Int[np.ndarray, " q"], found: Int[np.ndarray, "q k"]) -> Scores:
        """What queries score on each figure.

        Args:
            rows: (q,) numbers of the queries.
            found: (q, k) rows of the items they found, nearest first; -1 where there is none.
        """
        ...

    def first_right(self, rows: Int[np.ndarray, " q"], found: Int[np.ndarray, "q k"]) -> Bool[np.ndarray, " q"]:
        """Whether the first hit is a right answer; arguments as for `scores`."""
        ...

    def answers(self, rows: Int[np.ndarray, " q"]) -> Int[np.ndarray, " m"]:
        """(m,) ascending rows of the items without which a part of the gallery would judge these queries otherwise."""
        ...


@dataclass(frozen=True)
class Judged:
    """Truth by labels or judgements.

    Attributes:
        relevance: by row numbers of queries and items.
        own: (q,) item that is the query itself and is left out, or -1.
        primary: "top1" for labels, "ndcg10" for judgements.
    """

    relevance: Relevance
    own: Int[np.ndarray, " q"]
    primary: str

    def scores(self, rows: Int[np.ndarray, " q"], found: Int[np.ndarray, "q k"]) -> Scores:
        relevant, ten = self.relevance.of(rows, found), min(AGREEING, found.shape[1])
        counts = self.relevance.counts(rows, exclude=self.own[rows])
        ideal = self.relevance.ideal(rows, ten, exclude=self.own[rows])
        return {
            "top1": relevant[:, 0].astype(np.float64),
            "ndcg10": ndcg(self.relevance.grades(rows, found), ideal, k=ten),
            "recall100": recall_at_k(relevant, counts, k=min(DEPTH, found.shape[1])),
            "mrr10": reciprocal_rank(relevant, k=ten),
        }

    def first_right(self, rows: Int[np.ndarray, " q"], found: Int[np.ndarray, "q k"]) -> Bool[np.ndarray, " q"]:
        return self.relevance.of(rows, found[:, :1])[:, 0]

    def answers(self, rows: Int[np.ndarray, " q"]) -> Int[np.ndarray, " m"]:
        return self.relevance.judged_items(rows)


@dataclass(frozen=True)
class Agreeing:
    """Truth by the new model's own ranking of the same items.

    Attributes:
        wanted: (q, k) the items it finds nearest, k at most ten.
    """

    wanted: Int[np.ndarray, "q k"]
    primary: str = "agreement"

    def scores(self, rows: Int[np.ndarray, " q"], found: Int[np.ndarray, "q k"]) -> Scores:
        wanted = self.wanted[rows]
        return {"agreement": agreement(found, wanted, k=wanted.shape[1])}

    def first_right(self, rows: Int[np.ndarray, " q"], found: Int[np.ndarray, "q k"]) -> Bool[np.ndarray, " q"]:
        return (found[:, :1] == self.wanted[rows]).any(axis=1)

    def answers(self, rows: Int[np.ndarray, " q"]) -> Int[np.ndarray, " m"]:
        return np.unique(self.wanted[rows][self.wanted[rows] >= 0])
