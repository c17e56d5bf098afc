"""Exact neighbours among a few rows per query that somebody else has proposed."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..arrays import Array
from ..metric import Metric
from .settle import Task
from .tiles import DEFAULT, Tiles


def nearest_among(
    queries: Float[Array, "q d"],
    gallery: Float[Array, "n d"],
    proposed: Int[np.ndarray, "q c"],
    k: int,
    metric: Metric,
    *,
    tiles: Tiles = DEFAULT,
) -> tuple[Int[Tensor, "q k"], Float[Tensor, "q k"]]:
    """The k nearest of the proposed rows for each query, by the keys of `search`: with all rows proposed, it is `search`.

    Args:
        queries: (q, d) float16, float32 or float64, finite; NumPy or torch.
        gallery: (n, d) likewise; only proposed rows are read.
        proposed: (q, c) different gallery rows for each query, in any order; -1 for none.
        k: neighbours a query.
        metric: what ranks.
        tiles: how much is worked on at a time; changes no result.

    Returns:
        (q, k) rows, -1 where fewer were proposed, ties by row number; and (q, k) keys in float64, inf at -1: squared distances
        (of unit rows for cosine), or inner products negated.

    Raises:
        DataError: vectors that are not finite, or zero rows under the cosine metric.
    """
    task = Task.of(queries, gallery, k, metric, torch.full((len(queries),), -1), tiles)
    rows = torch.from_numpy(np.sort(proposed, axis=1)).to(task.keys.device)  # ties by row: the sort of keys is stable
    asked, place = (rows >= 0).nonzero(as_tuple=True)
    keys = torch.full(rows.shape, torch.inf, dtype=torch.float64, device=rows.device)
    with torch.no_grad():
        keys[asked, place] = task.keys_of(asked, rows[asked, place], torch.float64)
    if not bool(keys[asked, place].isfinite().all()):
        _complain(task)
    keys, order = keys.sort(dim=1, stable=True)
    width = min(k, keys.shape[1])
    task.keys[:, :width], task.indices[:, :width] = keys[:, :width], rows.gather(1, order)[:, :width]
    return task.indices, task.keys


def _complain(task: Task) -> None:
    """Raise for the vectors that gave keys which are no numbers."""
    for side in (task.queries, task.gallery):
        for start in range(0, len(side), task.tiles.read):
            side.tile(start, start + task.tiles.read)
