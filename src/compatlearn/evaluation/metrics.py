"""Figures from ranked neighbours: top-k accuracy, mAP@R, negative flips, and the interval around each.

Everything here is computed from ranks, never from the size or sign of a distance. NumPy or torch comes in; what comes
back is NumPy, one value a query, for `bootstrap` to turn into a figure with its 95 % interval.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

from ..arrays import Array, as_numpy
from ..errors import ConfigError, DataError, IncompatibleError, first_few
from .figures import HELD


def top_k(relevant: Bool[Array, "q k"], k: int) -> Bool[np.ndarray, " q"]:
    """Whether any of a query's first k neighbours is relevant.

    Raises:
        ConfigError: k is below 1, or larger than the number of neighbours searched.
    """
    if not 1 <= k <= relevant.shape[1]:
        raise ConfigError(f"k must be from 1 to the {relevant.shape[1]} neighbours searched; got {k}")
    hit: np.ndarray = np.logical_or.reduce(as_numpy(relevant)[:, :k], axis=1)
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
    hits, counts = as_numpy(relevant), as_numpy(relevant_counts)
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
    old, new = as_numpy(old_right), as_numpy(new_right)
    if old.shape != new.shape:
        raise IncompatibleError(f"both systems must answer the same queries; got {len(old)} and {len(new)}")
    flipped: np.ndarray = old & ~new
    return flipped
