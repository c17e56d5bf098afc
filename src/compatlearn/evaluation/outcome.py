"""What one search scores on every query: by what is relevant, or by agreement with the new model's own ranking."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int

from ..metric import Primary
from .metrics import agreement, map_at_r, ndcg, recall_at_k, reciprocal_rank, top_k
from .relevance import Relevance

CURVE = 20  # accuracy is kept for k = 1 to this
TEN = 10  # of nDCG, MRR and agreement
HUNDRED = 100  # of Recall
DEEPEST = 1000  # mAP@R looks no further than this, or a few large classes would cost whole rankings


@dataclass(frozen=True, eq=False)
class Outcome:
    """What one test scored on every query.

    Attributes:
        scores: figure, by its name in `Scores` → (q,) what each query scored, in [0, 1].
        right: (q,) whether the first hit is a right answer.
        curve: accuracy at k = 1, 2, …, 20; empty where nobody knows what is right.
    """

    scores: dict[str, Float[np.ndarray, " q"]]
    right: Bool[np.ndarray, " q"]
    curve: list[float] = field(default_factory=list)

    def take(self, rows: Bool[np.ndarray, " q"]) -> "Outcome":
        """What some of the queries scored.

        Args:
            rows: (q,) which of them.

        Returns:
            The same figures of these alone, without the curve.
        """
        return Outcome({name: values[rows] for name, values in self.scores.items()}, self.right[rows])


@dataclass(frozen=True, eq=False)
class PerQuery:
    """What every query scored, in the order of the old queries: what figures of some of them are made of.

    Attributes:
        outcomes: test → what its queries scored; "old_self" and "cross" at least.
        backfill: the test that stands for a full backfill; None: there is none.
    """

    outcomes: Mapping[str, Outcome]
    backfill: str | None


@dataclass(frozen=True, eq=False)
class ByRelevance:
    """Truth by classes or judgements.

    Attributes:
        relevance: of rows to rows.
        own: (q,) the row that is the query itself and is left out, or -1.
        primary: the figure that the verdict is of.
    """

    relevance: Relevance
    own: Int[np.ndarray, " q"]
    primary: Primary

    @cached_property
    def counts(self) -> Int[np.ndarray, " q"]:
        """(q,) how many rows are relevant to each query."""
        return self.relevance.counts(np.arange(len(self.own)), exclude=self.own)

    @property
    def depth(self) -> int:
        """How many neighbours must be seen."""
        return max(HUNDRED, min(int(self.counts.max()), DEEPEST))

    def outcome(self, found: Int[np.ndarray, "q k"]) -> Outcome:
        """What the queries score.

        Args:
            found: (q, depth) rows of the gallery, nearest first, -1 where there is none.

        Returns:
            The scores of each query.
        """
        rows = np.arange(len(found))
        right = self.relevance.of(rows, found)  # (q, k)
        ideal = self.relevance.ideal(rows, TEN, exclude=self.own)
        scores = {
            "top1": top_k(right, 1).astype(np.float64),
            "top5": top_k(right, 5).astype(np.float64),
            "map_r": map_at_r(right, self.counts.clip(max=DEEPEST)),
            "ndcg10": ndcg(self.relevance.grades(rows, found[:, :TEN]), ideal, TEN),
            "recall100": recall_at_k(right, self.counts, HUNDRED),
            "mrr10": reciprocal_rank(right, TEN),
        }
        return Outcome(scores, right[:, 0], [float(top_k(right, k).mean()) for k in range(1, CURVE + 1)])


@dataclass(frozen=True, eq=False)
class ByAgreement:
    """Truth by what the new model itself finds in its own gallery.

    Attributes:
        reference: (q, 10) the rows that it finds nearest, -1 where there is none.
        primary: the figure that the verdict is of.
        depth: how many neighbours must be seen.
    """

    reference: Int[np.ndarray, "q 10"]
    primary: Primary = "agreement"
    depth: int = TEN

    def outcome(self, found: Int[np.ndarray, "q k"]) -> Outcome:
        """What the queries score.

        Args:
            found: (q, depth) rows of the gallery, nearest first, -1 where there is none.

        Returns:
            The scores of each query.
        """
        right: np.ndarray = (found[:, :1] == self.reference).any(axis=1) & (found[:, 0] >= 0)
        return Outcome({"agreement": agreement(found, self.reference, TEN)}, right)


Truth: TypeAlias = ByRelevance | ByAgreement
