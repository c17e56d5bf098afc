"""What a search found."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..arrays import Array, as_numpy, like
from ..metric import Metric

SHOWN = 3  # queries and neighbours that are printed


@dataclass(frozen=True, eq=False, repr=False)
class Hits:
    """The nearest items of every query, nearest first; the kind of array that the queries were.

    Attributes:
        indices: (q, k) int64 gallery rows, -1 where the gallery has no further row.
        distances: (q, k) float32, or float64 if an input was, smaller is nearer: Euclidean distance, 1 − cos in [0, 2], or
            under the dot metric the inner product's negative; inf at -1.
        scores: (q, k) of the same type, bigger is nearer: the distance's negative, cos in [-1, 1], or the inner product; -inf
            at -1.
        names: (n,) ids of the gallery rows, or None where the rows are known by their numbers.
    """

    indices: Int[Array, "q k"]
    distances: Float[Array, "q k"]
    scores: Float[Array, "q k"]
    names: Any = None

    @classmethod
    def of(cls, indices: Int[Tensor, "q k"], keys: Float[Tensor, "q k"], metric: Metric, template: Any, double: bool) -> "Hits":
        """Hits of what `nearest` found.

        Args:
            indices: (q, k) gallery rows, -1 for none.
            keys: (q, k) float64 of what ranks: squared distance, or the inner product's negative.
            metric: what ranked.
            template: the kind of array that comes out, and its device.
            double: float64 rather than float32 distances.
        """
        distances = {"euclidean": keys.clamp(min=0).sqrt(), "cosine": keys / 2, "dot": keys}[metric]
        scores = (1 if metric == "cosine" else 0) - distances  # not −distances: a zero without a sign
        values = (distances, scores) if double else (distances.float(), scores.float())
        return cls(like(indices, template), *(like(one, template) for one in values))

    @classmethod
    def named(cls, ids: Sequence[Sequence[Any]], scores: Sequence[Sequence[float]], k: int, metric: Metric) -> "Hits":
        """Hits of a store, which knows its items by their ids alone.

        Args:
            ids: of each query, nearest first; at most k.
            scores: of the same; bigger is nearer.
            k: columns; those that a query lacks are -1.
            metric: what ranked.

        Returns:
            Hits whose `indices` point into `names`, the ids that were found.
        """
        flat = [one for row in ids for one in row]
        names, rows = np.unique(np.array(flat) if flat else np.zeros(0, dtype=np.int64), return_inverse=True)
        place = np.arange(k) < np.array([len(row) for row in ids], dtype=np.int64)[:, None]
        indices, values = np.full(place.shape, -1, dtype=np.int64), np.full(place.shape, -np.inf, dtype=np.float32)
        indices[place] = rows
        values[place] = [one for row in scores for one in row]
        return cls(indices, (1 if metric == "cosine" else 0) - values, values, names)

    @cached_property
    def ids(self) -> Any:
        """(q, k) ids of the items: those of the index, or the row numbers; -1, or "" among text, where there is no item.

        Ids that are numbers are of the kind of array that the queries were; text is always NumPy.
        """
        if self.names is None:
            return self.indices
        rows, names = as_numpy(self.indices), as_numpy(self.names)
        text = names.dtype.kind == "U"
        found = np.where(rows < 0, "" if text else -1, names[rows])
        return found if text else like(torch.from_numpy(found), self.indices)

    def __len__(self) -> int:
        return len(self.indices)

    def __repr__(self) -> str:
        return f"Hits({' × '.join(map(str, self.indices.shape))}, nearest first)"

    def __str__(self) -> str:
        """The first queries with the ids and scores of their nearest items."""
        ids, scores = as_numpy(self.ids)[:SHOWN, :SHOWN].tolist(), as_numpy(self.scores)[:SHOWN, :SHOWN].tolist()
        more = ", …" if self.indices.shape[1] > SHOWN else ""
        lines = [
            f"query {row}: {', '.join(f'{item!r} ({score:.4g})' for item, score in zip(*pair, strict=True))}{more}"
            for row, pair in enumerate(zip(ids, scores, strict=True))
        ]
        return "\n".join([repr(self), *lines, *(["…"] if len(self) > SHOWN else [])])
