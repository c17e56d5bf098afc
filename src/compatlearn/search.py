"""Exact nearest neighbours: float32 products choose candidates, float64 differences rank them, a bound is the proof.

The order is that of squared distances in float64 by direct differences, ties by row number. A query whose candidates
are not proven complete (many duplicates, a huge common offset) is searched again with float64 products, and after
that, if need be, by the differences themselves. Queries and gallery are read in tiles, so both may be memory maps.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from .arrays import Array, as_tensor, check_vectors, like
from .errors import ConfigError, DataError, IncompatibleError, first_few, unknown
from .precision import full_precision, squared_distance_error

METRICS = ("euclidean", "cosine")
QUERY_TILE = 1024
GALLERY_TILE = 8192
ELEMENTS = 1 << 21  # float64 differences held at a time: 16 MB
SPARE = 16  # candidates beyond k, and one more for every four of k
LONGEST, SHORTEST = 1e150, 1e-150  # lengths whose square is still an ordinary float64


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
class _Rows:
    """Rows read a tile at a time as float64; of unit length for the cosine metric."""

    values: Array
    name: str
    unit: bool
    device: torch.device

    def __len__(self) -> int:
        return len(self.values)

    def tile(self, start: int, stop: int) -> Float[Tensor, "m d"]:
        """Rows [start, stop), checked."""
        name = f"{self.name}[{start}:{min(stop, len(self))}]"
        block = check_vectors(self.values[start:stop], name, nonzero=self.unit).to(self.device).double()
        lengths = torch.linalg.vector_norm(block, dim=1)
        bad = ((lengths > LONGEST) | (lengths < SHORTEST if self.unit else lengths.isnan())).nonzero()[:, 0].tolist()
        if bad:
            raise DataError(
                f"{len(bad)} rows of {name} have a length beyond 1e±150 (first: {first_few(bad)}); scale the vectors"
            )
        return block / lengths[:, None] if self.unit else block

    def take(self, rows: Int[Tensor, " m"]) -> Float[Tensor, "m d"]:
        """The given rows, which a tile has checked before."""
        values = self.values
        block = as_tensor(values[rows.to(values.device)] if isinstance(values, Tensor) else values[rows.cpu().numpy()])
        block = block.to(self.device).double()
        return block / torch.linalg.vector_norm(block, dim=1, keepdim=True) if self.unit else block


@dataclass(frozen=True)
class _Task:
    queries: _Rows
    gallery: _Rows
    skip: Int[Tensor, " q"]  # gallery row to leave out, -1 for none
    k: int
    indices: Int[Tensor, "q k"]  # the result, filled in as queries are settled
    squared: Float[Tensor, "q k"]  # float64, on the first d_gallery dimensions

    @property
    def width(self) -> int:
        return int(self.gallery.values.shape[1])

    def fitted(self, rows: Int[Tensor, " m"]) -> Float[Tensor, "m d_gallery"]:
        """Queries cut or zero-padded to the gallery's dimension."""
        vectors = self.queries.take(rows)
        return pad(vectors, (0, self.width - vectors.shape[1]))


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
    device = queries.device if isinstance(queries, Tensor) and queries.device.type != "mps" else torch.device("cpu")
    skip = _rows_to_skip(len(queries), len(gallery), exclude_self, exclude).to(device)
    indices = torch.full((len(queries), k), -1, device=device)
    squared = torch.full((len(queries), k), torch.inf, dtype=torch.float64, device=device)
    unit = metric == "cosine"
    rows = _Rows(queries, "queries", unit, device), _Rows(gallery, "gallery", unit, device)
    task = _Task(rows[0], rows[1], skip, k, indices, squared)
    with torch.no_grad(), full_precision(device):
        tails = _query_tails(task)  # checks the queries before any work is done
        double = torch.float64 in (as_tensor(queries[:1]).dtype, as_tensor(gallery[:1]).dtype)
        pending = torch.arange(len(queries), device=device)
        for dtype in (torch.float64,) if double else (torch.float32, torch.float64):
            pending = _settle(task, pending, dtype)
        _search_directly(task, pending)
        squared += tails[:, None]
        distances = squared / 2 if unit else squared.sqrt()
    return Hits(like(indices, queries), like(distances if double else distances.float(), queries))


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


def _query_tails(task: _Task) -> Float[Tensor, " q"]:
    """Squared length of every query beyond the gallery's dimension."""
    count, width = len(task.queries), task.width
    tiles = (task.queries.tile(start, start + QUERY_TILE) for start in range(0, count, QUERY_TILE))
    return torch.cat([tile[:, width:].square().sum(dim=1) for tile in tiles])


def _settle(task: _Task, pending: Int[Tensor, " p"], dtype: torch.dtype) -> Int[Tensor, " u"]:
    """Find candidates with products in `dtype`, rank them in float64; returns the queries not proven right."""
    if len(pending) == 0:
        return pending
    rows = len(task.gallery)
    count = min(rows, task.k + task.k // 4 + SPARE)
    scores, candidates, reach = _candidates(task, pending, count, dtype)
    unproven = []
    step = max(1, ELEMENTS // (count * task.width))
    for block in range(0, len(pending), step):
        ids = pending[block : block + step]
        queries = task.fitted(ids)
        found = candidates[block : block + step].sort(dim=1).values  # by row: a stable sort then breaks ties by row
        found = found.masked_fill(found == task.skip[ids, None], -1)
        near = task.gallery.take(found.clamp(min=0).flatten()).view(*found.shape, task.width)  # (b, count, d)
        exact = (near - queries[:, None]).square_().sum(dim=2).masked_fill(found < 0, torch.inf)
        exact, order = exact.sort(dim=1, stable=True)
        kept = min(task.k, count)
        task.squared[ids, :kept] = exact[:, :kept]
        task.indices[ids, :kept] = found.gather(1, order)[:, :kept]
        # every row that is no candidate is at least this far away
        lengths = queries.square().sum(dim=1)
        error = squared_distance_error(lengths.sqrt(), reach, task.width, dtype)
        limit = lengths + 2 * scores[block : block + step].amax(dim=1).double() - error
        proven = error.isfinite() & ((exact[:, kept - 1] < limit) | (count == rows))
        unproven.append(ids[~proven])
    return torch.cat(unproven)


def _candidates(
    task: _Task, pending: Int[Tensor, " p"], count: int, dtype: torch.dtype
) -> tuple[Float[Tensor, "p c"], Int[Tensor, "p c"], Float[Tensor, ""]]:
    """The `count` smallest scores ‖g‖²/2 − q·g of each query, their gallery rows, and the longest gallery row."""
    device = pending.device
    scores = torch.full((len(pending), count), torch.inf, dtype=dtype, device=device)
    rows = torch.full((len(pending), count), -1, device=device)
    reach = torch.zeros((), dtype=torch.float64, device=device)
    for start in range(0, len(task.gallery), GALLERY_TILE):
        tile = task.gallery.tile(start, start + GALLERY_TILE)
        halves = tile.square().sum(dim=1) / 2
        reach = torch.maximum(reach, (2 * halves.max()).sqrt())
        tile, halves = tile.to(dtype), halves.to(dtype)
        for block in range(0, len(pending), QUERY_TILE):
            part = slice(block, block + QUERY_TILE)
            new = torch.addmm(halves, task.fitted(pending[part]).to(dtype), tile.T, alpha=-1)  # (b, t)
            new = _leave_out(new, task.skip[pending[part]] - start)
            new, at = new.topk(min(count, len(tile)), dim=1, largest=False, sorted=False)
            both = torch.cat([scores[part], new], dim=1)
            scores[part], kept = both.topk(count, dim=1, largest=False, sorted=False)
            rows[part] = torch.cat([rows[part], at + start], dim=1).gather(1, kept)
    return scores, rows, reach


def _leave_out(values: Float[Tensor, "b t"], columns: Int[Tensor, " b"]) -> Float[Tensor, "b t"]:
    """Infinity, in place, in the column given for each row; columns outside the tile are passed over."""
    inside = ((columns >= 0) & (columns < values.shape[1])).nonzero()[:, 0]
    values[inside, columns[inside]] = torch.inf
    return values


def _search_directly(task: _Task, pending: Int[Tensor, " p"]) -> None:
    """Rank by the differences themselves, for the few queries that no bound could settle."""
    task.indices[pending], task.squared[pending] = -1, torch.inf
    size = max(1, min(GALLERY_TILE, ELEMENTS // task.width))
    step = max(1, ELEMENTS // (size * task.width))
    for start in range(0, len(task.gallery) if len(pending) else 0, size):
        tile = task.gallery.tile(start, start + size)
        rows = torch.arange(start, start + len(tile), device=pending.device)
        for ids in torch.split(pending, step):
            new = (tile - task.fitted(ids)[:, None]).square_().sum(dim=2)  # (b, t)
            new = _leave_out(new, task.skip[ids] - start)
            # earlier rows stand first, so the stable sort keeps ties in row order
            squared, order = torch.cat([task.squared[ids], new], dim=1).sort(dim=1, stable=True)
            found = torch.cat([task.indices[ids], rows.expand(len(ids), -1)], dim=1).gather(1, order)
            task.squared[ids], task.indices[ids] = squared[:, : task.k], found[:, : task.k]
