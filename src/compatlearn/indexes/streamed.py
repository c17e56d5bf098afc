"""Exact search of vectors that come block by block, so that they never have to fit in memory together."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped

from ..metric import Metric
from .exact import merge, nearest
from .hits import Hits


def search_blocks(
    queries: Float[np.ndarray, "q d"],
    blocks: Iterable[Float[np.ndarray, "m d"]],
    k: int,
    metric: Metric,
    names: Shaped[np.ndarray, " n"],
    exclude: Any = None,
) -> Hits:
    """What `search` finds in all blocks together, ties by the number of the row.

    Args:
        queries: (q, d) finite.
        blocks: one after the other; n rows together, perhaps none.
        k: neighbours per query, at least 1.
        metric: what ranks.
        names: (n,) ids of the rows.
        exclude: (q,) the id to leave out of each query's list, or None; an id that is not among `names` leaves out none.

    Returns:
        Hits that know their items by id.

    Raises:
        DataError: vectors that are not finite, or zero rows under the cosine metric.
    """
    skip = torch.full((len(queries),), -1) if exclude is None else torch.from_numpy(_rows(np.asarray(exclude), names))
    nothing = torch.full((len(queries), k), -1), torch.full((len(queries), k), torch.inf, dtype=torch.float64)
    best, start = nothing, 0
    for block in blocks:
        own = torch.where((skip >= start) & (skip < start + len(block)), skip - start, -1)
        rows, keys = nearest(queries, block, k, metric, own)
        best = merge([best, (torch.where(rows < 0, rows, rows + start), keys)], k)
        start += len(block)
    hits = Hits.of(*best, metric, queries, double=False)
    return replace(hits, names=names if len(names) else np.zeros(1, dtype=names.dtype))


def _rows(wanted: Shaped[np.ndarray, " q"], names: Shaped[np.ndarray, " n"]) -> Int[np.ndarray, " q"]:
    rows = np.flatnonzero(np.isin(names, wanted))
    found = dict(zip(names[rows].tolist(), rows.tolist(), strict=True))
    return np.array([found.get(one, -1) for one in wanted.tolist()], dtype=np.int64)
