"""Exact nearest neighbours: bounds from a matrix product choose candidates, float64 differences rank them.

The order is that of squared distances in float64 by direct differences, ties by row number. A query is settled once its
k-th distance lies below the bound of every row that is no candidate: first with bounds from a product in bfloat16, where
that is fast, then in float32, then in float64, and after that, if need be (many duplicates), by the differences
themselves. Queries and gallery are read in tiles, so both may be memory maps.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..arrays import Array, as_tensor, like
from ..errors import ConfigError, DataError, IncompatibleError, unknown
from ..precision import fast_in_bfloat16, full_precision
from .bounds import Frame, Pool, survey
from .rows import Rows

METRICS = ("euclidean", "cosine")
GALLERY_TILE = 8192  # rows read at a time where all differences are taken
HELD = 1 << 19  # bytes of differences at a time, so that they stay in the processor's cache
SPARE = {torch.bfloat16: 32, torch.float32: 12, torch.float64: 12}  # candidates beyond 1.25 k
SAMPLE = 256  # gallery rows whose mean and size set the frame of the bounds


@dataclass(frozen=True)
class Hits:
    """The nearest gallery rows of every query, nearest first; the kind of array that the queries were.

    Attributes:
        indices: (q, k) int64 gallery rows, -1 where the gallery has no further row.
        distances: (q, k) float32, or float64 if an input was: Euclidean distance, or 1 − cos in [0, 2]; inf at -1.
    """

    indices: Int[Array, "q k"]
    distances: Float[Array, "q k"]


@dataclass(frozen=True)
class _Task:
    queries: Rows
    gallery: Rows
    skip: Int[Tensor, " q"]  # gallery row to leave out, -1 for none
    k: int
    indices: Int[Tensor, "q k"]  # the result, filled in as queries are settled
    squared: Float[Tensor, "q k"]  # float64, on the first d_gallery dimensions


def search(
    queries: Float[Array, "q d_query"],
    gallery: Float[Array, "n d_gallery"],
    k: int = 5,
    metric: str = "euclidean",
    exclude_self: bool = False,
    exclude: Int[Array, " q"] | None = None,
) -> Hits:
    """The k nearest gallery rows of every query, exactly, ties by row number.

    Unequal dimensions are zero-padded. A longer query costs nothing: its tail adds the same constant to all of its
    distances, so only the first d_gallery dimensions are searched and the constant is added at the end.

    Args:
        queries: (q, d_query) float16, float32 or float64, finite; NumPy (memory maps too) or torch.
        gallery: (n, d_gallery) likewise; read tile by tile to where the queries are.
        k: neighbours a query, at least 1; if the gallery has fewer rows, -1 and inf fill up.
        metric: "euclidean", or "cosine" for 1 − cos.
        exclude_self: leave gallery row i out of query i's list; needs as many queries as gallery rows.
        exclude: (q,) the gallery row to leave out of each query's list, -1 for none.

    Raises:
        ConfigError: unknown metric, k below 1, or both ways of leaving rows out.
        DataError: vectors that are not finite floats, or zero rows under the cosine metric.
        IncompatibleError: `exclude_self` with unequal row counts, or `exclude` that does not fit.
    """
    if metric not in METRICS:
        raise unknown("metric", metric, METRICS)
    if k < 1:
        raise ConfigError(f"k must be at least 1; got {k}")
    for name, values in (("queries", queries), ("gallery", gallery)):
        if values.ndim != 2 or 0 in values.shape:
            raise DataError(f"{name} must be (rows, dimension), both at least 1; got shape {tuple(values.shape)}")
    skip = _rows_to_skip(len(queries), len(gallery), exclude_self, exclude)
    indices, squared = nearest(queries, gallery, k, metric, skip)
    if queries.shape[1] > gallery.shape[1]:  # at the end, so that no rounding comes between equal distances
        whole = Rows(queries, "queries", metric == "cosine", gallery.shape[1], squared.device)
        for start in range(0, len(queries), GALLERY_TILE):
            squared[start : start + GALLERY_TILE] += whole.tail(start, start + GALLERY_TILE)[:, None]
    distances = squared / 2 if metric == "cosine" else squared.sqrt()
    double = torch.float64 in (as_tensor(queries[:1]).dtype, as_tensor(gallery[:1]).dtype)
    return Hits(like(indices, queries), like(distances if double else distances.float(), queries))


def nearest(
    queries: Array, gallery: Array, k: int, metric: str, skip: Int[Tensor, " q"]
) -> tuple[Int[Tensor, "q k"], Float[Tensor, "q k"]]:
    """`search` before its distances are rounded: (q, k) rows and squared distances in float64 (of unit rows for cosine), on
    the first d_gallery dimensions.

    Args:
        queries: (q, d_query) and gallery: (n, d_gallery) as in `search`.
        skip: (q,) the gallery row to leave out of each query's list, -1 for none.
    """
    device = queries.device if isinstance(queries, Tensor) and queries.device.type != "mps" else torch.device("cpu")
    double = torch.float64 in (as_tensor(queries[:1]).dtype, as_tensor(gallery[:1]).dtype)
    known = metric == "cosine", gallery.shape[1], device
    task = _Task(
        Rows(queries, "queries", *known),
        Rows(gallery, "gallery", *known),
        skip.to(device),
        k,
        torch.full((len(queries), k), -1, device=device),
        torch.full((len(queries), k), torch.inf, dtype=torch.float64, device=device),
    )
    with torch.no_grad(), full_precision(device):
        pending = torch.arange(len(queries), device=device)
        for dtype in (torch.float64,) if double else (torch.bfloat16, torch.float32, torch.float64):
            if len(pending) and (dtype != torch.bfloat16 or fast_in_bfloat16(device)):
                pending = _settle(task, pending, dtype)
        _search_directly(task, pending)
    return task.indices, task.squared


def merge(
    parts: Sequence[tuple[Int[Tensor, "q k"], Float[Tensor, "q k"]]], k: int
) -> tuple[Int[Tensor, "q k"], Float[Tensor, "q k"]]:
    """The k nearest of what `nearest` found in parts of a gallery, their row numbers made those of the whole gallery."""
    indices, squared = (torch.cat(column, dim=1) for column in zip(*parts, strict=True))
    indices, order = indices.sort(dim=1)
    squared, kept = squared.gather(1, order).sort(dim=1, stable=True)
    return indices.gather(1, kept)[:, :k], squared[:, :k]


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


def _settle(task: _Task, pending: Int[Tensor, " p"], dtype: torch.dtype) -> Int[Tensor, " u"]:
    """Choose candidates by bounds from a product in `dtype`, rank them in float64; returns the queries not proven right."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    rows = torch.linspace(0, len(task.gallery) - 1, min(SAMPLE, len(task.gallery))).long()
    frame = Frame.of(task.gallery.take(rows, wide), dtype, task.gallery.unit)
    every = len(pending) == len(task.queries)
    same = every and _equal(task.queries, task.gallery)

    def read(start: int, stop: int) -> Float[Tensor, "m d"]:
        return task.queries.tile(start, stop, wide) if every else task.queries.take(pending[start:stop], wide)

    def read_gallery(start: int, stop: int) -> Float[Tensor, "m d"]:
        return task.gallery.tile(start, stop, wide)

    count = task.k + 1 + task.k // 4 + SPARE[dtype]  # one for the row left out
    unproven, done = [pending[:0]], 0
    try:
        for part, pool, *sizes in survey(read, len(pending), read_gallery, len(task.gallery), frame, count, same=same):
            unproven.append(_rank(task, pending[part], pool, frame, *sizes))
            if done == 0 and len(unproven[1]) > part.stop // 2:  # the next type will do better
                return pending
            done = part.stop
    except OverflowError:  # rows too far apart for this type
        pass
    return torch.cat([*unproven, pending[done:]])


def _equal(queries: Rows, gallery: Rows) -> bool:
    """The same rows, so that distances are symmetric; looked at only as long as they are."""
    mine, theirs = queries.values, gallery.values
    if mine is theirs:
        return True
    tiles = (slice(start, start + GALLERY_TILE) for start in range(0, len(gallery), GALLERY_TILE))
    return (
        mine.shape == theirs.shape
        and mine.dtype == theirs.dtype
        and all(torch.equal(*(as_tensor(values[tile]).to(queries.device) for values in (mine, theirs))) for tile in tiles)
    )


def _rank(
    task: _Task,
    ids: Int[Tensor, " b"],
    pool: Pool,
    frame: Frame,
    query_sizes: Float[Tensor, "b 2"],
    gallery_sizes: Float[Tensor, "n 2"],
) -> Int[Tensor, " u"]:
    """Rank the survivors of some queries, store the k nearest of each; returns the queries that these do not settle."""
    count, rows = len(ids), len(task.gallery)
    queries, found, lower = pool.survivors()
    real = (queries < count) & (found < rows)  # blocks are filled up to a multiple of a group
    real &= found != task.skip[ids][queries.clamp(max=count - 1)]
    order = torch.argsort((queries * (rows + 1) + found)[real])  # by row: a stable sort of distances breaks ties by row
    queries, found, lower = queries[real][order], found[real][order], lower[real][order].double()
    # what is certainly further away than k others need not be ranked
    (a, lost_a), (b, lost_b) = query_sizes[queries].unbind(1), gallery_sizes[found].unbind(1)
    slack = 2.1 * (lost_a * b + a * lost_b + frame.slack(task.gallery.width) * (a.square() + b.square()))
    upper = _table(queries, lower + frame.rounding * lower.abs() + slack + frame.least, count)
    kept = lower <= upper.kthvalue(min(task.k, upper.shape[1]), dim=1).values[queries]
    queries, found = queries[kept], found[kept]
    if len(found) > 2 * task.k * count and frame.dtype != torch.float64 and 1e-9 < frame.scale < 1e9:  # many: closer bounds
        lower, upper = _bounds(task, ids[queries], found)
        kept = lower <= _table(queries, upper, count).kthvalue(task.k, dim=1).values[queries]
        queries, found = queries[kept], found[kept]
    squared = _table(queries, _squared_distances(task, ids[queries], found, torch.float64), count)
    squared, order = squared.sort(dim=1, stable=True)
    nearest = _table(queries, found, count, fill=-1).gather(1, order)
    width = min(task.k, squared.shape[1])
    task.squared[ids, :width], task.indices[ids, :width] = squared[:, :width], nearest[:, :width]
    # every row that is no survivor is at least this far away
    limit = pool.threshold[:count].double()
    limit = limit - frame.rounding * limit.abs()
    last = task.squared[ids, task.k - 1].sqrt() * (1 + 1e-15 * (task.gallery.width + 8)) + frame.unit * 4e-15
    return ids[~((limit == torch.inf) | ((last * frame.scale).square() / 2 < limit))]


def _table(queries: Int[Tensor, " p"], values: Tensor, count: int, fill: float | int = torch.inf) -> Tensor:
    """(count, w): in row i the values of query i, filled up; the queries are in order."""
    counts = torch.bincount(queries, minlength=count)
    table = torch.full((count, max(1, int(counts.max()))), fill, dtype=values.dtype, device=values.device)
    table[queries, torch.arange(len(queries), device=queries.device) - (counts.cumsum(0) - counts)[queries]] = values
    return table


def _squared_distances(
    task: _Task, queries: Int[Tensor, " p"], gallery: Int[Tensor, " p"], dtype: torch.dtype
) -> Float[Tensor, " p"]:
    """Σ (q_i − g_i)² of each pair of rows, computed in `dtype`, as float64."""
    squared = torch.empty(len(queries), dtype=torch.float64, device=queries.device)
    step = max(1, HELD // (task.gallery.width * dtype.itemsize))
    for part in (slice(start, start + step) for start in range(0, len(queries), step)):
        difference = task.gallery.take(gallery[part], dtype).sub_(task.queries.take(queries[part], None))
        squared[part] = difference.square_().sum(dim=1)
    return squared


def _bounds(task: _Task, queries: Int[Tensor, " p"], gallery: Int[Tensor, " p"]) -> tuple[Tensor, Tensor]:
    """(p,) lower and upper bounds of the distance of each pair, from float32 differences: a sum of squares has only
    relative errors; rows scaled to unit length have an absolute one too."""
    distances = _squared_distances(task, queries, gallery, torch.float32).sqrt()
    relative = (task.gallery.width + 8) * torch.finfo(torch.float32).eps / 2
    absolute = 1e-6 if task.gallery.unit else 1e-18
    return distances * (1 - relative) - absolute, distances * (1 + relative) + absolute


def _search_directly(task: _Task, pending: Int[Tensor, " p"]) -> None:
    """Rank by the differences themselves, for the few queries that no bound could settle."""
    task.indices[pending], task.squared[pending] = -1, torch.inf
    size = max(1, min(GALLERY_TILE, HELD // (8 * task.gallery.width)))
    step = max(1, HELD // (8 * size * task.gallery.width))
    for start in range(0, len(task.gallery) if len(pending) else 0, size):
        rows = torch.arange(start, min(start + size, len(task.gallery)), device=pending.device)
        tile = task.gallery.tile(start, start + size)  # checked, also where no bound looked
        for ids in torch.split(pending, step):
            new = (tile - task.queries.take(ids)[:, None]).square_().sum(dim=2)  # (b, t)
            new = new.masked_fill(task.skip[ids, None] == rows, torch.inf)
            # earlier rows stand first, so the stable sort keeps ties in row order
            squared, order = torch.cat([task.squared[ids], new], dim=1).sort(dim=1, stable=True)
            found = torch.cat([task.indices[ids], rows.expand(len(ids), -1)], dim=1).gather(1, order)
            task.squared[ids], task.indices[ids] = squared[:, : task.k], found[:, : task.k]
    task.indices[task.squared.isinf()] = -1  # the row left out
