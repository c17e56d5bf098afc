"""Settle queries: rank the candidates that bounds leave, and prove that no other row can be nearer."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..arrays import Array, as_tensor
from ..metric import Metric
from .bounds import Frame, Pool, Watch, survey
from .rows import Rows
from .tiles import Tiles

SAMPLE = 256  # rows whose mean and size set the frame of the bounds
Pairs = tuple[Int[Tensor, " m"], Int[Tensor, " m"]]  # queries of a block, in order, and a gallery row for each


@dataclass(frozen=True)
class Task:
    """A search, and what is found of it so far. Keys rank, the smallest first: squared distances, or products negated."""

    queries: Rows
    gallery: Rows
    skip: Int[Tensor, " q"]  # gallery row to leave out, -1 for none
    k: int
    products: bool  # keys are inner products, negated
    tiles: Tiles
    indices: Int[Tensor, "q k"]  # the result, filled in as queries are settled
    keys: Float[Tensor, "q k"]  # float64, on the first d_gallery dimensions

    @classmethod
    def of(cls, queries: Array, gallery: Array, k: int, metric: Metric, skip: Int[Tensor, " q"], tiles: Tiles) -> "Task":
        """A search of which nothing is found yet; it runs where the queries are."""
        device = queries.device if isinstance(queries, Tensor) and queries.device.type != "mps" else torch.device("cpu")
        widths = queries.shape[1], gallery.shape[1]
        width = min(widths) if metric == "dot" else widths[1]  # zeros add nothing to a product
        known = metric == "cosine", width, device
        return cls(
            Rows(queries, "queries", *known),
            Rows(gallery, "gallery", *known),
            skip.to(device),
            k,
            metric == "dot",
            tiles,
            torch.full((len(queries), k), -1, device=device),
            torch.full((len(queries), k), torch.inf, dtype=torch.float64, device=device),
        )

    def keys_of(self, queries: Int[Tensor, " p"], gallery: Int[Tensor, " p"], dtype: torch.dtype) -> Float[Tensor, " p"]:
        """(p,) float64: the key of each pair of rows, computed in `dtype`."""
        keys = torch.empty(len(queries), dtype=torch.float64, device=queries.device)
        step = max(1, self.tiles.held // (self.gallery.width * dtype.itemsize))
        for part in (slice(start, start + step) for start in range(0, len(queries), step)):
            rows, asked = self.gallery.take(gallery[part], dtype), self.queries.take(queries[part], None)
            keys[part] = _negated_products(rows, asked) if self.products else rows.sub_(asked).square_().sum(dim=1)
        return keys


def settle(task: Task, pending: Int[Tensor, " p"], dtype: torch.dtype, watch: Watch | None = None) -> Int[Tensor, " u"]:
    """Choose candidates by bounds from a product in `dtype`, rank them in float64.

    Args:
        task: the search; what is found is stored in it.
        pending: (p,) its queries that are not settled.
        dtype: of the product.
        watch: is called with the share of the work that is done, where all queries are pending.

    Returns:
        (u,) the queries that are not proven right.
    """
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    frame = _frame(task, pending, dtype, wide)
    every = len(pending) == len(task.queries)
    same = every and not task.products and _equal(task.queries, task.gallery, task.tiles.read)

    def read(start: int, stop: int) -> Float[Tensor, "m d"]:
        return task.queries.tile(start, stop, wide) if every else task.queries.take(pending[start:stop], wide)

    def read_gallery(start: int, stop: int) -> Float[Tensor, "m d"]:
        return task.gallery.tile(start, stop, wide)

    count = task.tiles.candidates(task.k, dtype)
    watch = watch if every else None
    blocks = survey(read, len(pending), read_gallery, len(task.gallery), frame, count, same=same, watch=watch)
    unproven, done = [pending[:0]], 0
    try:
        for part, pool, *sizes in blocks:
            unproven.append(_rank(task, pending[part], pool, frame, *sizes))
            if done == 0 and len(unproven[1]) > part.stop // 2:  # the next type will do better
                return pending
            done = part.stop
    except OverflowError:  # rows too far apart for this type
        pass
    return torch.cat([*unproven, pending[done:]])


def search_directly(task: Task, pending: Int[Tensor, " p"]) -> None:
    """Rank by the keys themselves, for the few queries that no bound could settle."""
    task.indices[pending], task.keys[pending] = -1, torch.inf
    size = max(1, min(task.tiles.read, task.tiles.held // (8 * task.gallery.width)))
    step = max(1, task.tiles.held // (8 * size * task.gallery.width))
    for start in range(0, len(task.gallery) if len(pending) else 0, size):
        rows = torch.arange(start, min(start + size, len(task.gallery)), device=pending.device)
        tile = task.gallery.tile(start, start + size)  # checked, also where no bound looked
        for ids in torch.split(pending, step):
            asked = task.queries.take(ids)[:, None]
            new = _negated_products(tile, asked) if task.products else (tile - asked).square_().sum(dim=2)  # (b, t)
            new = new.masked_fill(task.skip[ids, None] == rows, torch.inf)
            # earlier rows stand first, so the stable sort keeps ties in row order
            keys, order = torch.cat([task.keys[ids], new], dim=1).sort(dim=1, stable=True)
            found = torch.cat([task.indices[ids], rows.expand(len(ids), -1)], dim=1).gather(1, order)
            task.keys[ids], task.indices[ids] = keys[:, : task.k], found[:, : task.k]
    task.indices[task.keys.isinf()] = -1  # the row left out


def _negated_products(rows: Tensor, queries: Tensor) -> Tensor:
    return 0 - (rows * queries).sum(dim=-1)  # a zero without a sign


def _frame(task: Task, pending: Int[Tensor, " p"], dtype: torch.dtype, wide: torch.dtype) -> Frame:
    """Coordinates in which some of the rows have a length of about 1."""

    def some(count: int) -> Int[Tensor, " s"]:
        return torch.linspace(0, count - 1, min(SAMPLE, count)).long()

    queries = task.queries.take(pending[some(len(pending))], wide) if task.products else None
    return Frame.of(task.gallery.take(some(len(task.gallery)), wide), dtype, task.gallery.unit, queries, task.tiles)


def _equal(queries: Rows, gallery: Rows, step: int) -> bool:
    """The same rows, so that distances are symmetric; looked at only as long as they are."""
    mine, theirs = queries.values, gallery.values
    if mine is theirs:
        return True
    tiles = (slice(start, start + step) for start in range(0, len(gallery), step))
    return (
        mine.shape == theirs.shape
        and mine.dtype == theirs.dtype
        and all(torch.equal(*(as_tensor(values[tile]).to(queries.device) for values in (mine, theirs))) for tile in tiles)
    )


def _rank(
    task: Task,
    ids: Int[Tensor, " b"],
    pool: Pool,
    frame: Frame,
    query_sizes: Float[Tensor, "b 2"],
    gallery_sizes: Float[Tensor, "n 2"],
) -> Int[Tensor, " u"]:
    """Rank the survivors of a block of queries, store the k nearest of each; returns the queries that these do not settle."""
    pairs = _survivors(task, ids, pool, frame, query_sizes, gallery_sizes)
    crowded = len(pairs[0]) > 2 * task.k * len(ids) and frame.dtype != torch.float64 and 1e-9 < frame.scale < 1e9
    _store(task, ids, *(_closer(task, ids, *pairs) if crowded and not task.products else pairs))
    return ids[~_settled(task, ids, pool, frame, query_sizes, gallery_sizes)]


def _survivors(
    task: Task,
    ids: Int[Tensor, " b"],
    pool: Pool,
    frame: Frame,
    query_sizes: Float[Tensor, "b 2"],
    gallery_sizes: Float[Tensor, "n 2"],
) -> Pairs:
    """The pairs of the pool without those whose bound is above k others' keys: they need not be ranked."""
    count, rows = len(ids), len(task.gallery)
    queries, found, lower = pool.survivors()
    real = (queries < count) & (found < rows)  # blocks are filled up to a multiple of a group
    real &= found != task.skip[ids][queries.clamp(max=count - 1)]
    order = torch.argsort((queries * (rows + 1) + found)[real])  # by row: a stable sort of keys breaks ties by row
    queries, found, lower = queries[real][order], found[real][order], lower[real][order].double()
    spread = frame.spread(query_sizes[queries], gallery_sizes[found])
    upper = _table(queries, lower + frame.rounding * lower.abs() + spread + frame.least, count)
    kept = lower <= upper.kthvalue(min(task.k, upper.shape[1]), dim=1).values[queries]
    return queries[kept], found[kept]


def _closer(task: Task, ids: Int[Tensor, " b"], queries: Int[Tensor, " p"], found: Int[Tensor, " p"]) -> Pairs:
    """Fewer of the pairs, by closer bounds: distances from differences in float32.

    A sum of squares has only relative errors; rows scaled to unit length have an absolute one too.
    """
    distances = task.keys_of(ids[queries], found, torch.float32).sqrt()
    relative = (task.gallery.width + 8) * torch.finfo(torch.float32).eps / 2
    absolute = 1e-6 if task.gallery.unit else 1e-18
    upper = _table(queries, distances * (1 + relative) + absolute, len(ids))
    limit = upper.kthvalue(min(task.k, upper.shape[1]), dim=1).values
    kept = distances * (1 - relative) - absolute <= limit[queries]
    return queries[kept], found[kept]


def _store(task: Task, ids: Int[Tensor, " b"], queries: Int[Tensor, " p"], found: Int[Tensor, " p"]) -> None:
    """Keep the k pairs of each query whose keys in float64 are smallest, ties by row."""
    keys = _table(queries, task.keys_of(ids[queries], found, torch.float64), len(ids))
    keys, order = keys.sort(dim=1, stable=True)
    nearest = _table(queries, found, len(ids), fill=-1).gather(1, order)
    width = min(task.k, keys.shape[1])
    task.keys[ids, :width], task.indices[ids, :width] = keys[:, :width], nearest[:, :width]


def _settled(
    task: Task,
    ids: Int[Tensor, " b"],
    pool: Pool,
    frame: Frame,
    query_sizes: Float[Tensor, "b 2"],
    gallery_sizes: Float[Tensor, "n 2"],
) -> Bool[Tensor, " b"]:
    """Whether the k-th key of each query lies below the bound of every row that is no survivor, whatever was rounded."""
    limit = pool.threshold[: len(ids)].double()
    limit = limit - frame.rounding * limit.abs()
    last, terms = task.keys[ids, task.k - 1], task.gallery.width + 8
    if frame.query_scale is None:
        furthest = last.sqrt() * (1 + 1e-15 * terms) + frame.unit * 4e-15
        key = (furthest * frame.scale).square() / 2
    else:
        centre = frame.centre.double()
        longest = gallery_sizes[:, 0].max() + torch.linalg.vector_norm(centre) * frame.scale
        key = (last + task.queries.take(ids) @ centre) * frame.query_scale * frame.scale
        key = key + terms * (1e-15 * query_sizes[:, 0] * longest + 1e-323 * frame.query_scale * frame.scale)  # and underflow
    return (limit == torch.inf) | (key < limit)


def _table(queries: Int[Tensor, " p"], values: Tensor, count: int, fill: float | int = torch.inf) -> Tensor:
    """(count, w): in row i the values of query i, filled up; the queries are in order."""
    counts = torch.bincount(queries, minlength=count)
    table = torch.full((count, max(1, int(counts.max()))), fill, dtype=values.dtype, device=values.device)
    table[queries, torch.arange(len(queries), device=queries.device) - (counts.cumsum(0) - counts)[queries]] = values
    return table
