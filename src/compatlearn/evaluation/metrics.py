"""Figures from ranked neighbours: top-k accuracy, mAP@R, negative flips, and the interval around each.

Everything here is computed from ranks, never from the size or sign of a distance. NumPy or torch comes in; what comes
back is NumPy, one value a query, for `bootstrap` to turn into a figure with its 95 % interval.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from ..arrays import Array, as_tensor
from ..errors import ConfigError, DataError, IncompatibleError, first_few

Statistic = Callable[[np.ndarray], np.ndarray]
LEVEL = 0.95
HELD = 1 << 22  # values held at a time


@dataclass(frozen=True)
class Figure:
    """A number and its 95 % interval; prints as `0.163 [0.155, 0.171]`, and with `:.1%` as `16.3% [15.5%, 17.1%]`.

    An interval may be unbounded (a ratio whose denominator may be zero); nothing in it is ever NaN.
    """

    value: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        spec = spec or ".3f"
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"

    def __str__(self) -> str:
        return format(self, "")

    def to_dict(self) -> dict[str, float | str]:
        """For JSON, which has no infinity: "Infinity" and "-Infinity" stand for it."""
        return {name: _json_number(value) for name, value in vars(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Figure":
        """The figure that `to_dict` wrote."""
        return cls(float(values["value"]), float(values["low"]), float(values["high"]))


def relevance(
    indices: Int[Array, "q k"], query_labels: Int[Array, " q"], gallery_labels: Int[Array, " n"]
) -> Bool[np.ndarray, "q k"]:
    """Whether each neighbour has its query's label.

    Args:
        indices: (q, k) gallery rows, nearest first; -1, which is no row, is not relevant.
        query_labels: (q,) class of each query.
        gallery_labels: (n,) class of each gallery row.
    """
    rows = _numpy(indices)
    relevant: np.ndarray = (_numpy(gallery_labels)[rows] == _numpy(query_labels)[:, None]) & (rows >= 0)
    return relevant


def top_k(relevant: Bool[Array, "q k"], k: int) -> Bool[np.ndarray, " q"]:
    """Whether any of a query's first k neighbours is relevant.

    Raises:
        ConfigError: k is below 1, or larger than the number of neighbours searched.
    """
    if not 1 <= k <= relevant.shape[1]:
        raise ConfigError(f"k must be from 1 to the {relevant.shape[1]} neighbours searched; got {k}")
    hit: np.ndarray = np.logical_or.reduce(_numpy(relevant)[:, :k], axis=1)
    return hit


def map_at_r(relevant: Bool[Array, "q k"], relevant_counts: Int[Array, " q"]) -> Float[np.ndarray, " q"]:
    """Mean average precision at R of each query: (1/R) Σ_{i ≤ R} precision@i · [neighbour i is relevant].

    Args:
        relevant: (q, k) whether each neighbour is relevant, nearest first.
        relevant_counts: (q,) R: how many gallery rows are relevant to the query, its own row not counted; at most k.
            A query with R = 0 counts as 0, a miss: how many there are is for the caller to report.

    Returns:
        (q,) float64 in [0, 1].

    Raises:
        DataError: some R is negative, or larger than k.

    Source: Musgrave, Belongie and Lim, A Metric Learning Reality Check, 2020, section 3.2.
    """
    hits, counts = _numpy(relevant), _numpy(relevant_counts)
    bad = np.flatnonzero((counts < 0) | (counts > hits.shape[1]))
    if len(bad):
        raise DataError(
            f"mAP@R needs R neighbours a query; R is not within 0 and {hits.shape[1]} for {len(bad)} of {len(counts)} "
            f"queries (first: {first_few(bad)}); search with k = {counts.max()}"
        )
    ranks = np.arange(1, hits.shape[1] + 1)
    totals: np.ndarray = np.zeros(len(hits))
    step = max(1, HELD // hits.shape[1])
    for part in (slice(start, start + step) for start in range(0, len(hits), step)):
        precision = np.cumsum(hits[part], axis=1) / ranks  # (b, k)
        totals[part] = (precision * (hits[part] & (ranks <= counts[part, None]))).sum(axis=1)
    totals /= np.maximum(counts, 1)
    return totals


def negative_flips(old_right: Bool[Array, " q"], new_right: Bool[Array, " q"]) -> Bool[np.ndarray, " q"]:
    """Whether the old system answers a query right and the new one answers it wrong.

    Source: Yan et al., Positive-Congruent Training, CVPR 2021.
    """
    old, new = _numpy(old_right), _numpy(new_right)
    if old.shape != new.shape:
        raise IncompatibleError(f"both systems must answer the same queries; got {len(old)} and {len(new)}")
    flipped: np.ndarray = old & ~new
    return flipped


def bootstrap(
    statistic: Statistic, columns: Float[Array, "q m"] | Bool[Array, "q m"], *, resamples: int = 2000, seed: int = 0
) -> Figure:
    """A statistic of column means, with its 95 % percentile interval over resampled queries.

    The rows of `columns` are queries and are drawn whole: systems that answer the same queries are compared in pairs.
    With few queries (some dozens) percentile intervals are too narrow.

    Args:
        statistic: (r, m) means of the columns, one row a resample, to (r,) values; not NaN, infinite at will.
        columns: (q, m) what each of m systems scored on each query.
        resamples: how often the queries are drawn.
        seed: of the draws; the same seed gives the same figure.

    Raises:
        DataError: no query, or NaN in the columns.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13.
    """
    scores = _numpy(columns).astype(np.float64)
    if len(scores) == 0 or np.isnan(scores).any():
        raise DataError(f"a figure needs at least one query and no NaN; got {len(scores)} queries")
    value = float(statistic(scores.mean(axis=0, keepdims=True))[0])
    drawn = statistic(_resampled_means(scores, resamples, np.random.default_rng(seed)))
    # inverted_cdf takes values that were drawn: interpolating between infinities would give NaN
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="inverted_cdf")
    return Figure(value, float(low), float(high))


def _resampled_means(scores: np.ndarray, resamples: int, random: np.random.Generator) -> Float[np.ndarray, "r m"]:
    """Column means of as many rows, drawn with replacement; in blocks, so that memory is bounded."""
    queries = len(scores)
    distinct, copies = np.unique(scores, axis=0, return_counts=True)
    few = len(distinct) * 8 <= queries  # right and wrong: a handful of different rows, drawn by their counts
    block = max(1, HELD // ((len(distinct) if few else queries) * scores.shape[1]))
    means = []
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        if few:
            means.append(random.multinomial(queries, copies / queries, size=size) @ distinct / queries)
        else:
            means.append(scores[random.integers(0, queries, (size, queries), dtype=np.int32)].mean(axis=1))
    return np.concatenate(means)


def _json_number(value: float) -> float | str:
    return value if math.isfinite(value) else ("Infinity" if value > 0 else "-Infinity")


def _numpy(values: Array) -> np.ndarray:
    return values if isinstance(values, np.ndarray) else as_tensor(values).cpu().numpy()
