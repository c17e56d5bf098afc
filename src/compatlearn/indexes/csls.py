"""CSLS: an item that is near to all kinds of queries says little about any of them, so its scores count for less."""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int

from ..arrays import Array, as_numpy, as_tensor, like
from ..errors import ConfigError, DataError, IncompatibleError
from ..metric import Metric
from .exact import search
from .hits import Hits

NEIGHBOURS = 10  # queries of an item, as in the paper


def hubness(
    items: Float[Array, "n d"],
    queries: Float[Array, "q e"],
    metric: Metric,
    k: int = NEIGHBOURS,
    *,
    exclude: Int[Array, " n"] | None = None,
) -> Float[Array, " n"]:
    """How near each item is to its nearest queries: one number per item, kept beside the index for `reranked`.

    Args:
        items: (n, d) vectors of the index, as in `search`.
        queries: (q, d) a sample of what asks it: logged queries, or pairs, mapped into the space of the index.
        metric: what ranks in the index.
        k: queries per item, at least 1; of fewer queries all count.
        exclude: (n,) for each item the query that is the item itself, -1 for none: a pair of the index is nearest to itself,
            which says nothing about other queries.

    Returns:
        (n,) mean score of the k nearest queries, in the units of `Hits.scores`; the kind of array that `items` is.

    Raises:
        ConfigError: unknown metric, or k below 1.
        DataError: no query is left to compare with, or vectors that cannot be searched.
        IncompatibleError: another dimension than that of the items, or `exclude` that does not fit.

    Source:
        Conneau et al., Word Translation Without Parallel Data, ICLR 2018: r_S, section 2.3.

    >>> import numpy as np
    >>> import compatlearn as cl
    >>> cl.hubness(np.eye(2), np.array([[0.8, 0.6], [0.6, 0.8], [1.0, 0.0]]), "dot", k=2)
    array([0.9, 0.7])
    """
    if queries.ndim == items.ndim == 2 and queries.shape[1] != items.shape[1]:
        raise IncompatibleError(
            f"the queries have {queries.shape[1]} dimensions and the items {items.shape[1]}; map the queries into the space "
            "of the index first"
        )
    most = len(queries) - (exclude is not None)
    if most < 1:
        raise DataError(f"{len(queries)} queries leave none to compare an item with; give some hundreds")
    return search(items, queries, min(k, most), metric, exclude=exclude).scores.mean(1)


def reranked(hits: Hits, hubness: Float[Array, " n"], k: int | None = None) -> Hits:
    """What an index has found, by 2 s − r instead of s: items that are near to all kinds of queries go back.

    The index stays as it is. Only what it has found can be ranked, so ask it for some more than are needed, say 100. An
    index of inner products can rank all items this way, with r/2 as one dimension more and −1 in that of every query.

    Args:
        hits: (q, c) that the index found, by their scores s.
        hubness: (n,) r of each row of the index, as `hubness` gives it.
        k: how many are kept; None: all.

    Returns:
        (q, k) hits whose scores are 2 s − r and whose distances are their negatives; those that tie as the index had them.

    Raises:
        ConfigError: k below 1.
        DataError: hubness that is not finite.
        IncompatibleError: hubness of another number of items than the index has.

    Source:
        Conneau et al., Word Translation Without Parallel Data, ICLR 2018: CSLS, section 2.3; r_T is the same for all items
        of a query and changes no rank.

    >>> import numpy as np
    >>> import compatlearn as cl
    >>> hits = cl.search(np.array([[1.0, 0.9]]), np.eye(2), k=2, metric="dot")
    >>> cl.reranked(hits, np.array([0.9, 0.2])).indices
    array([[1, 0]])
    """
    if k is not None and k < 1:
        raise ConfigError(f"k must be at least 1; got {k}")
    rows, scores = as_tensor(hits.indices), as_tensor(hits.scores)
    away = torch.from_numpy(_of_hits(as_numpy(hubness), hits)).to(rows.device)
    corrected = (2 * scores.double() - away).masked_fill(rows < 0, -torch.inf)
    corrected, order = corrected.sort(dim=1, descending=True, stable=True)
    rows, corrected = rows.gather(1, order)[:, :k], corrected[:, :k].to(scores.dtype)
    distances = like(-corrected, hits.scores)
    return replace(hits, indices=like(rows, hits.indices), distances=distances, scores=like(corrected, hits.scores))


def _of_hits(hubness: Float[np.ndarray, " n"], hits: Hits) -> Float[np.ndarray, "q c"]:
    """float64 hubness of every hit; of a memory map nothing else is read, since this runs for every query."""
    rows = as_numpy(hits.indices)
    least = int(rows.max(initial=-1)) + 1
    if hubness.ndim != 1 or len(hubness) < least or (hits.names is not None and len(hubness) != len(hits.names)):
        count = f"at least {least}" if hits.names is None else len(hits.names)
        raise IncompatibleError(
            f"hubness of shape {hubness.shape} does not fit an index of {count} items; compute it of all items"
        )
    found = hubness[np.maximum(rows, 0)].astype(np.float64)
    if len(bad := rows[(rows >= 0) & ~np.isfinite(found)]):
        raise DataError(f"hubness of row {int(bad[0])} of {len(hubness)} is not finite; compute it again")
    return found
