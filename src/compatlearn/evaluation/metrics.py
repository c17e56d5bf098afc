"""Figures from ranked neighbours: top-k accuracy, mAP@R, nDCG, recall, reciprocal rank, negative flips, agreement.

Everything here is computed from ranks, never from the size or sign of a distance: items of one score stand in the order in
which the search gave them, which is by row number. (trec_eval orders them by id, descending, whatever the search said.)
NumPy or torch comes in; what comes back is NumPy, one value per query, for `bootstrap` to turn into a figure with its 95 %
interval.
"""

import numpy as np
from jaxtyping import Bool, Float, Int, Num, Shaped

from ..arrays import Array, as_numpy
from ..errors import ConfigError, DataError, IncompatibleError, first_few
from .figures import HELD


def top_k(relevant: Bool[Array, "q k"], k: int) -> Bool[np.ndarray, " q"]:
    """Whether any of a query's first k neighbours is relevant.

    Raises:
        ConfigError: k is below 1, or larger than the number of neighbours searched.
    """
    _check_depth(relevant, k)
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


def ndcg(grades: Num[Array, "q k"], ideal: Num[Array, "q i"], k: int = 10) -> Float[np.ndarray, " q"]:
    """Normalised discounted cumulative gain of each query: Σ_{i ≤ k} grade_i / log2(i + 1), over that of the best ranking.

    Equals trec_eval's `ndcg_cut`: the gain is the grade itself, and a grade below 0 gains nothing.

    Args:
        grades: (q, K) grade of each neighbour, nearest first, 0 where nobody judged it: of `Relevance.grades`; K ≥ k.
        ideal: (q, I) the best grades that the gallery holds for the query, descending: of `Relevance.ideal`;
            fewer than k stand for a gallery that has no more.
        k: neighbours that count.

    Returns:
        (q,) float64 in [0, 1]; 0 for a query that nothing in the gallery answers.

    Raises:
        ConfigError: k is below 1, or larger than the number of neighbours searched.
        IncompatibleError: ideals of another number of queries.

    Source: Järvelin and Kekäläinen, Cumulated gain-based evaluation of IR techniques, ACM TOIS 2002, with the discount of
    trec_eval, which starts at the second rank.
    """
    _check_depth(grades, k)
    _check_queries(grades, ideal)
    gained, possible = (_discounted(as_numpy(each)[:, :k]) for each in (grades, ideal))
    share: np.ndarray = gained / np.where(possible > 0, possible, 1.0)
    return share


def recall_at_k(relevant: Bool[Array, "q k"], counts: Int[Array, " q"], k: int = 100) -> Float[np.ndarray, " q"]:
    """Share of a query's relevant items that are among its first k neighbours; trec_eval's `recall`.

    A query with more than k relevant items cannot reach 1.

    Args:
        relevant: (q, K) whether each neighbour is relevant, nearest first; K ≥ k.
        counts: (q,) how many gallery rows are relevant to the query, its own row not counted.
        k: neighbours that count.

    Returns:
        (q,) float64 in [0, 1]; 0 for a query that nothing in the gallery answers.

    Raises:
        ConfigError: k is below 1, or larger than the number of neighbours searched.
        IncompatibleError: counts of another number of queries.
    """
    _check_depth(relevant, k)
    _check_queries(relevant, counts)
    share: np.ndarray = np.count_nonzero(as_numpy(relevant)[:, :k], axis=1) / np.maximum(as_numpy(counts), 1)
    return share


def reciprocal_rank(relevant: Bool[Array, "q k"], k: int = 10) -> Float[np.ndarray, " q"]:
    """One over the rank of the first relevant neighbour, 0 where none is among the first k; its mean is MRR@k.

    Args:
        relevant: (q, K) whether each neighbour is relevant, nearest first; K ≥ k.
        k: neighbours that count.

    Returns:
        (q,) float64 in [0, 1].

    Raises:
        ConfigError: k is below 1, or larger than the number of neighbours searched.

    Source: Voorhees, The TREC-8 question answering track report, 1999.
    """
    _check_depth(relevant, k)
    first = as_numpy(relevant)[:, :k]
    rank: np.ndarray = np.where(first.any(axis=1), 1.0 / (1 + first.argmax(axis=1)), 0.0)
    return rank


def agreement(found: Shaped[Array, "q k"], reference: Shaped[Array, "q r"], k: int = 10) -> Float[np.ndarray, " q"]:
    """Share of the reference's first k items that are among the first k found: overlap@k. It needs no truth.

    Args:
        found: (q, K) ids of the items that a system found, nearest first; K ≥ k. -1, or "" among text, is no item.
        reference: (q, R) ids that the reference found, such as the new model in its own gallery; R ≥ k.
        k: items that count. The order within them does not.

    Returns:
        (q,) float64 in [0, 1]; over as many items as the reference has, where these are fewer than k, and 0 where it has
        none.

    Raises:
        ConfigError: k is below 1, or larger than the number of items on either side.
        IncompatibleError: other numbers of queries.
    """
    for ids in (found, reference):
        _check_depth(ids, k)
    _check_queries(found, reference)
    ours, theirs = (as_numpy(ids)[:, :k] for ids in (found, reference))
    present = theirs != ("" if theirs.dtype.kind == "U" else -1)
    shared: np.ndarray = np.zeros(len(ours))
    step = max(1, HELD // (k * k))
    for part in (slice(start, start + step) for start in range(0, len(ours), step)):
        among = (theirs[part, :, None] == ours[part, None, :]).any(axis=2)  # (b, k)
        shared[part] = np.count_nonzero(among & present[part], axis=1)
    shared /= np.maximum(np.count_nonzero(present, axis=1), 1)
    return shared


def negative_flips(old_right: Bool[Array, " q"], new_right: Bool[Array, " q"]) -> Bool[np.ndarray, " q"]:
    """Whether the old system answers a query right and the new one answers it wrong.

    Source: Yan et al., Positive-Congruent Training, CVPR 2021.
    """
    old, new = as_numpy(old_right), as_numpy(new_right)
    if old.shape != new.shape:
        raise IncompatibleError(f"both systems must answer the same queries; got {len(old)} and {len(new)}")
    flipped: np.ndarray = old & ~new
    return flipped


def _discounted(grades: Num[np.ndarray, "q k"]) -> Float[np.ndarray, " q"]:
    gains: np.ndarray = grades.clip(min=0) @ (1 / np.log2(np.arange(2, grades.shape[1] + 2)))
    return gains


def _check_depth(hits: Shaped[Array, "q k"], k: int) -> None:
    if not 1 <= k <= hits.shape[1]:
        raise ConfigError(f"k must be from 1 to the {hits.shape[1]} neighbours searched; got {k}")


def _check_queries(first: Shaped[Array, "q ..."], second: Shaped[Array, "p ..."]) -> None:
    if len(first) != len(second):
        raise IncompatibleError(f"both must be of the same queries; got {len(first)} and {len(second)}")
