"""Exact nearest neighbours: bounds from a matrix product choose candidates, keys computed in float64 rank them.

The order is that of the key: the squared distance by direct differences, or the inner product's negative, in float64; ties
by row number. A query is settled once its k-th key lies below the bound of every row that is no candidate: first with bounds
from a product in bfloat16, where that is fast, then in float32, then in float64, and after that, if need be (many
duplicates), by the keys themselves. Queries and gallery are read in tiles, so both may be memory maps.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..arrays import Array, as_tensor
from ..errors import ConfigError, DataError, IncompatibleError
from ..metric import Metric, check_metric
from ..precision import fast_in_bfloat16, full_precision
from .bounds import Watch
from .hits import Hits
from .rows import Rows
from .settle import Task, search_directly, settle
from .tiles import DEFAULT, Tiles


def search(
    queries: Float[Array, "q d_query"],
    gallery: Float[Array, "n d_gallery"],
    k: int = 5,
    metric: Metric = "euclidean",
    exclude_self: bool = False,
    exclude: Int[Array, " q"] | None = None,
    *,
    watch: Watch | None = None,
    tiles: Tiles = DEFAULT,
) -> Hits:
    """The k nearest gallery rows of every query, exactly, ties by row number.

    Unequal dimensions are zero-padded. A longer query costs nothing: its tail adds the same constant to all of its
    distances, so only the first d_gallery dimensions are searched and the constant is added at the end. An inner product
    has no tail at all.

    Args:
        queries: (q, d_query) float16, float32 or float64, finite; NumPy (memory maps too) or torch.
        gallery: (n, d_gallery) likewise; read tile by tile to where the queries are.
        k: neighbours a query, at least 1; if the gallery has fewer rows, -1 and inf fill up.
        metric: "euclidean", "cosine", or "dot": the largest inner product is nearest.
        exclude_self: leave gallery row i out of query i's list; needs as many queries as gallery rows.
        exclude: (q,) the gallery row to leave out of each query's list, -1 for none.
        watch: is called with the share of the work that is done, now and then.
        tiles: how much is worked on at a time; changes no result.

    Returns:
        Hits: rows, distances, scores, each (q, k), nearest first.

    Raises:
        ConfigError: unknown metric, k below 1, or both ways of leaving rows out.
        DataError: vectors that are not finite floats, or zero rows under the cosine metric.
        IncompatibleError: `exclude_self` with unequal row counts, or `exclude` that does not fit.

    >>> import numpy as np
    >>> import compatlearn as cl
    >>> gallery = np.array([[0.0, 0.0], [3.0, 4.0], [1.0, 0.0]])
    >>> hits = cl.search(gallery[:1], gallery, k=2, exclude=np.array([0]))
    >>> hits.indices, hits.distances
    (array([[2, 1]]), array([[1., 5.]]))
    >>> cl.search(gallery, gallery, k=2, metric="dot").scores
    array([[ 0.,  0.],
           [25.,  3.],
           [ 3.,  1.]])
    """
    metric = check_metric(metric)
    if k < 1:
        raise ConfigError(f"k must be at least 1; got {k}")
    for name, values in (("queries", queries), ("gallery", gallery)):
        if values.ndim != 2 or 0 in values.shape:
            raise DataError(f"{name} must be (rows, dimension), both at least 1; got shape {tuple(values.shape)}")
    skip = _rows_to_skip(len(queries), len(gallery), exclude_self, exclude)
    indices, keys = nearest(queries, gallery, k, metric, skip, watch=watch, tiles=tiles)
    if queries.shape[1] > gallery.shape[1] and metric != "dot":  # at the end, so that no rounding comes between equal distances
        whole = Rows(queries, "queries", metric == "cosine", gallery.shape[1], keys.device)
        for start in range(0, len(queries), tiles.read):
            keys[start : start + tiles.read] += whole.tail(start, start + tiles.read)[:, None]
    return Hits.of(indices, keys, metric, queries, _double(queries, gallery))


def nearest(
    queries: Array,
    gallery: Array,
    k: int,
    metric: Metric,
    skip: Int[Tensor, " q"],
    *,
    watch: Watch | None = None,
    tiles: Tiles = DEFAULT,
) -> tuple[Int[Tensor, "q k"], Float[Tensor, "q k"]]:
    """`search` before its keys become distances.

    Args:
        queries: (q, d_query), as in `search`.
        gallery: (n, d_gallery), as in `search`.
        k: neighbours a query.
        metric: what ranks.
        skip: (q,) the gallery row to leave out of each query's list, -1 for none.
        watch: is called with the share of the work that is done, now and then.
        tiles: how much is worked on at a time; changes no result.

    Returns:
        (q, k) rows, and (q, k) keys in float64 on the first d_gallery dimensions: squared distances (of unit rows for cosine),
        or inner products negated.
    """
    task = Task.of(queries, gallery, k, metric, skip, tiles)
    device = task.keys.device
    quick = fast_in_bfloat16(device) if tiles.bfloat16 is None else tiles.bfloat16
    types = (torch.float64,) if _double(queries, gallery) else (torch.bfloat16, torch.float32, torch.float64)
    with torch.no_grad(), full_precision(device):
        pending = torch.arange(len(queries), device=device)
        for dtype in types:
            if len(pending) and (dtype != torch.bfloat16 or quick):
                pending = settle(task, pending, dtype, watch)
        search_directly(task, pending)
    return task.indices, task.keys


def merge(
    parts: Sequence[tuple[Int[Tensor, "q k"], Float[Tensor, "q k"]]], k: int
) -> tuple[Int[Tensor, "q k"], Float[Tensor, "q k"]]:
    """The k nearest of what `nearest` found in parts of a gallery, their row numbers made those of the whole gallery."""
    indices, keys = (torch.cat(column, dim=1) for column in zip(*parts, strict=True))
    indices, order = indices.sort(dim=1)
    keys, kept = keys.gather(1, order).sort(dim=1, stable=True)
    return indices.gather(1, kept)[:, :k], keys[:, :k]


def _double(queries: Array, gallery: Array) -> bool:
    return torch.float64 in (as_tensor(queries[:1]).dtype, as_tensor(gallery[:1]).dtype)


def _rows_to_skip(queries: int, gallery: int, exclude_self: bool, exclude: Array | None) -> Int[Tensor, " q"]:
    if exclude_self and exclude is not None:
        raise ConfigError("exclude_self and exclude both say which row to leave out; give one of them")
    if exclude_self:
        if queries != gallery:
            raise IncompatibleError(
                f"exclude_self needs row i of both to be the same item; got {queries} queries and {gallery} gallery "
                "rows; use exclude to name the rows"
            )
        return torch.arange(queries)
    if exclude is None:
        return torch.full((queries,), -1)
    skip = as_tensor(exclude)
    if skip.shape != (queries,) or skip.is_floating_point() or skip.dtype == torch.bool:
        raise IncompatibleError(
            f"exclude must hold one integer for each of {queries} queries; got {skip.dtype} {tuple(skip.shape)}"
        )
    if ((skip < -1) | (skip >= gallery)).any():
        raise IncompatibleError(
            f"exclude must name rows from 0 to {gallery - 1}, or -1; got {int(skip.min())} to {int(skip.max())}"
        )
    return skip.long()
