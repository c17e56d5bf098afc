"""Candidates for nearest neighbours: one matrix product bounds every distance from below, and the small bounds survive.

With a = (q − c) s and b = (g − c) s, any centre c and scale s, and with ã, b̃ what the type of the product keeps of them,

    ‖a − b‖² / 2  ≥  ‖a‖²/2 + ‖b‖²/2 − ã·b̃ − ‖a − ã‖ ‖b‖ − ‖ã‖ ‖b − b̃‖,

by Cauchy and Schwarz; and for inner products, with a = −q t instead and a scale t of its own,

    −q·(g − c) t s = a·b  ≥  ã·b̃ − ‖a − ã‖ ‖b‖ − ‖ã‖ ‖b − b̃‖,

where the centre moves all products of a query alike, by q·c. The right-hand side is itself an inner product, of rows that are
eight numbers longer than ã and b̃: one product, in bfloat16 if the hardware is fastest there, gives a lower bound of every
key. Rounding in the product is paid for by shortening ‖a‖²/2 and ‖b‖²/2, or for inner products by lengthening ‖b − b̃‖:
|error| ≤ γ Σ |terms|, γ = n u / (1 − n u) for n terms in any order (Higham, Accuracy and Stability of Numerical Algorithms,
3.1), and Σ |terms| ≤ 2.1 (‖a‖²/2 + ‖b‖²/2), or ≤ 2.1 ‖a‖ ‖b‖.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .tiles import DEFAULT, Tiles

EXTRA = 8  # columns beside the vector: three and three for the halved squares, two for what rounding lost

Read = Callable[[int, int], Float[Tensor, "m d"]]  # rows [start, stop), checked
Watch = Callable[[float], None]  # is told the share of the work that is done, in [0, 1]


@dataclass(frozen=True)
class Frame:
    """The coordinates, and the type of the product; far from a frame's own scale there is no bound (OverflowError).

    A key, what ranks a pair, is half the squared distance times scale², or for inner products their negative times both scales.
    """

    centre: Float[Tensor, " d"]  # float32, or float64 for a product in float64
    scale: float  # of the gallery, and for distances of the queries: a power of two
    dtype: torch.dtype
    unit: bool  # rows were divided by their length, which rounds them
    query_scale: float | None = None  # for inner products: that of the queries
    tiles: Tiles = DEFAULT

    @classmethod
    def of(
        cls,
        sample: Float[Tensor, "m d"],
        dtype: torch.dtype,
        unit: bool,
        queries: Float[Tensor, "n d"] | None = None,
        tiles: Tiles = DEFAULT,
    ) -> "Frame":
        """The mean of some gallery rows as centre, and a scale that makes the longest about 1.

        Args:
            sample: (m, d) gallery rows, of the type that operands are computed in.
            dtype: of the product.
            unit: rows were divided by their length.
            queries: (n, d) some queries, for inner products; None for distances.
            tiles: how much is worked on at a time.
        """
        centre = sample.double().mean(dim=0).to(sample.dtype)
        own = None if queries is None else _power_of_two(queries)
        return cls(centre, _power_of_two(sample - centre), dtype, unit, own, tiles)

    @property
    def products(self) -> bool:
        """Inner products, not distances."""
        return self.query_scale is not None

    @property
    def accurate(self) -> torch.dtype:
        """What the product is summed in: float32 for bfloat16."""
        return torch.float64 if self.dtype == torch.float64 else torch.float32

    @property
    def rounding(self) -> float:
        """Relative error that a bound may have from being stored in the product's own type."""
        return 0.51 * torch.finfo(self.dtype).eps

    @property
    def least(self) -> float:
        """More than what underflow takes from a bound."""
        return torch.finfo(self.accurate).tiny ** 0.75

    def slack(self, dimension: int) -> float:
        """Share of ‖a‖²/2 that pays for rounding."""
        unit = torch.finfo(self.accurate).eps / 2
        terms = dimension + EXTRA
        return 2.1 * terms * unit / (1 - terms * unit) + 16 * unit

    def spread(self, query_sizes: Float[Tensor, "p 2"], gallery_sizes: Float[Tensor, "p 2"]) -> Float[Tensor, " p"]:
        """(p,) float64: how far the key of each pair may be above its bound, storing the bound apart."""
        (a, lost_a), (b, lost_b) = query_sizes.unbind(1), gallery_sizes.unbind(1)
        lost = lost_a * b + a * lost_b
        if not self.products:
            lost = lost + self.slack(len(self.centre)) * (a.square() + b.square())
        return 2.1 * lost

    def operand(self, rows: Float[Tensor, "m d"], *, query: bool) -> tuple[Float[Tensor, "p w"], Float[Tensor, "m 2"]]:
        """Rows as the product takes them, and their lengths ‖a‖ and losses ‖a − ã‖.

        Returns:
            (p, d + 8) with p the next multiple of `tiles.group` after m, further rows being infinitely far away for all
            purposes; (m, 2) float64.
        """
        (count, dimension), group = rows.shape, self.tiles.group
        huge = torch.finfo(self.accurate).max ** 0.75
        packed = torch.zeros(-(-count // group) * group, dimension + EXTRA, dtype=self.dtype, device=rows.device)
        sizes = torch.empty(count, 2, dtype=torch.float64, device=rows.device)
        step = max(1, self.tiles.cached // dimension)
        for part in (slice(start, min(start + step, count)) for start in range(0, count, step)):
            moved = self._moved(rows[part], query)
            sizes[part, 0] = torch.linalg.vector_norm(moved, dim=1, dtype=torch.float64)
            packed[part, :dimension] = moved
            sizes[part, 1] = torch.linalg.vector_norm(moved.sub_(packed[part, :dimension]), dim=1, dtype=torch.float64)
        if not bool((sizes[:, 0] < huge**0.25).all()):
            raise OverflowError
        if self.products:
            rest = torch.full_like(sizes[:, 0], -self.least)
            sizes[:, 1] += 0 if query else self.slack(dimension) * sizes[:, 0]
        else:
            rest = sizes[:, 0].square() / 2 * (1 - self.slack(dimension)) - self.least
        sizes[:, 1] += 4 * torch.finfo(self.accurate).eps * self.scale if self.unit else 0
        sizes *= 1.01  # more than bfloat16 may cut off
        halves, ones = packed[:, dimension : dimension + 3], packed[:, dimension + 3 : dimension + 6]
        if query:
            halves, ones = ones, halves
            packed[:count, dimension + 6 :] = -sizes.flip(1)
        else:
            packed[:count, dimension + 6 :] = sizes
        ones.fill_(1)
        halves[count:, 0] = huge
        for piece in halves[:count].unbind(1):
            piece.copy_(rest)
            rest = rest - piece.double()
        return packed, sizes

    def _moved(self, rows: Float[Tensor, "m d"], query: bool) -> Float[Tensor, "m d"]:
        """a or b of each row, the queries' with the sign of the product."""
        if query and self.query_scale is not None:
            return rows * -self.query_scale
        return ((self.centre - rows) if query else (rows - self.centre)).mul_(self.scale)

    def mirrored(self, packed: Float[Tensor, "p w"]) -> Float[Tensor, "p w"]:
        """The operand of gallery rows from that of the same rows as queries."""
        width = packed.shape[1] - EXTRA
        other = packed.neg()
        other[:, width : width + 3] = packed[:, width + 3 : width + 6]
        other[:, width + 3 : width + 6] = packed[:, width : width + 3]
        other[:, width + 6 :] = -packed[:, width + 6 :].flip(1)
        return other


class Pool:
    """For each of a block of queries, every gallery row whose bound is at most the threshold, and never fewer than `count`.

    The threshold is the `count`-th smallest among the smallest bounds of groups of rows; it only ever falls.
    """

    def __init__(self, rows: int, count: int, gallery: int, like: Tensor, tiles: Tiles = DEFAULT) -> None:
        self.count, self.coarse, self.tiles = count, gallery // (8 * count), tiles
        self.best = torch.full((rows, count), torch.inf, dtype=like.dtype, device=like.device)
        self.threshold = self.best[:, 0]
        self.parts: list[tuple[Tensor, Tensor, Tensor]] = []
        self.seen = self.held = 0

    def add(self, bounds: Float[Tensor, "b w"], first: int) -> None:
        """Bounds for the gallery rows from `first` on; looked at by groups, of which most hold no survivor."""
        width = bounds.shape[1]
        group = self.tiles.group
        fine = width // (8 * self.count) if self.seen < self.count else group  # until there is a threshold, a good one
        size = 1 << (max(1, min(group, self.coarse, fine)).bit_length() - 1)
        self.seen += width // size
        groups = width // size  # i, i + groups, … are one: rows of a class, often neighbours, spread over many
        parts = bounds.unflatten(1, (size, groups))
        # the same either way, but a reduction is quick only along the memory
        smallest = parts.amin(dim=1) if bounds.stride(1) == 1 else bounds.T.unflatten(0, (size, groups)).amin(dim=0).T
        self.best = torch.cat([self.best, smallest], dim=1).topk(self.count, dim=1, largest=False, sorted=False).values
        self.threshold = self.best.amax(dim=1)
        query, group = (smallest <= self.threshold[:, None]).nonzero().unbind(1)
        values = parts[query, :, group]  # (p, size)
        member, place = (values <= self.threshold[query, None]).nonzero().unbind(1)
        gallery = first + place * groups + group[member]
        self.parts.append((query[member].int(), gallery.int(), values[member, place]))
        self.held += len(member)
        if self.held > self.tiles.crowd * self.count * len(self.best):
            self._thin()

    def survivors(self) -> tuple[Int[Tensor, " p"], Int[Tensor, " p"], Float[Tensor, " p"]]:
        """(p,) queries of the block, their gallery rows, and the bounds of these pairs, in no order."""
        self._thin()
        queries, gallery, values = self.parts[0]
        return queries.long(), gallery.long(), values

    def _thin(self) -> None:
        """Drop what has come above the threshold since, and give up queries with a crowd of equal bounds."""
        queries, gallery, values = (torch.cat(column) for column in zip(*self.parts, strict=True))
        kept = values <= self.threshold[queries]
        counts = torch.bincount(queries[kept], minlength=len(self.best))
        crowded = (counts > self.tiles.crowd * self.count) & self.threshold.isfinite()
        self.best[crowded] = -torch.inf
        self.threshold = self.threshold.masked_fill(crowded, -torch.inf)
        kept &= ~crowded[queries]
        self.parts = [(queries[kept], gallery[kept], values[kept])]
        self.held = len(self.parts[0][0])


def survey(
    read_queries: Read,
    queries: int,
    read_gallery: Read,
    gallery: int,
    frame: Frame,
    count: int,
    *,
    same: bool,
    watch: Watch | None = None,
) -> Iterator[tuple[slice, Pool, Float[Tensor, "b 2"], Float[Tensor, "n 2"]]]:
    """The pools of all queries, a block after another, with the lengths and losses of queries and gallery.

    Args:
        same: queries and gallery are the same rows: each tile of the symmetric matrix is computed once, for both sides.
        watch: called after every tile of the gallery.
    """
    height, width = frame.tiles.product_on(frame.centre.device)
    most = max(1, frame.tiles.operand_bytes // ((len(frame.centre) + EXTRA) * frame.dtype.itemsize * width)) * width
    pools: dict[int, Pool] = {}
    done = 0
    sizes = torch.empty(gallery, 2, dtype=torch.float64, device=frame.centre.device)

    def pool(row: int, bounds: Tensor) -> Pool:
        return pools.setdefault(row, Pool(len(bounds), count, gallery, bounds, frame.tiles))

    # a first block of queries by itself: whoever asks may see how well this type does, and stop
    for first, last in itertools.pairwise([0, *range(height, queries, most), queries]):
        left, ours = zip(
            *(frame.operand(read_queries(i, min(i + width, last)), query=True) for i in range(first, last, width)), strict=True
        )
        mirrored = range(first, last, width) if same else ()
        for column in itertools.chain(mirrored, range(last if same else 0, gallery, width)):
            if column in mirrored:
                right = frame.mirrored(left[(column - first) // width])
                sizes[column : min(column + width, last)] = ours[(column - first) // width]
            else:
                stop = min(column + width, gallery)
                right, sizes[column:stop] = frame.operand(read_gallery(column, stop), query=False)
            rows = range(first, min(last, column + width) if same else last, height)
            _meet(pool, left, right, rows, column, width, same)
            done += (last - first) * min(width, gallery - column)
            if watch:
                watch(min(1.0, done / (queries * gallery) * (2 if same else 1)))
        for row in range(first, last, height):
            yield slice(row, min(row + height, last)), pools.pop(row), torch.cat(ours)[row - first :][:height], sizes


def _meet(
    pool: Callable[[int, Tensor], Pool],
    left: Sequence[Tensor],
    right: Float[Tensor, "m w"],
    rows: range,
    column: int,
    width: int,
    same: bool,
) -> None:
    """Bounds of blocks of queries, which begin at `rows`, with the gallery rows from `column` on; into their pools.

    Args:
        pool: the pool of the block that begins at a row.
        left: operands of the queries, `width` rows in each, from the first row on.
        right: (m, w) operand of the gallery rows.
        rows: where the blocks begin.
        column: the first gallery row.
        width: rows of an operand.
        same: as in `survey`.
    """
    first, height = rows.start, rows.step
    for row in rows:
        tile = left[(row - first) // width][(row - first) % width :][:height]
        begin = max(0, row - column) if same else 0
        bounds = tile @ right[begin:].T  # (b, w)
        pool(row, bounds).add(bounds, column + begin)
        for across in range(max(begin, row + height - column), len(right), height) if same else ():
            part = bounds[:, across - begin :][:, :height].T
            pool(column + across, part).add(part, row)


def _power_of_two(rows: Float[Tensor, "m d"]) -> float:
    """The scale that makes the longest of some rows about 1."""
    longest = float(torch.linalg.vector_norm(rows.double(), dim=1).max())
    exponent = 0 if longest == 0 else torch.frexp(torch.tensor(longest, dtype=torch.float64)).exponent.item()
    limit = 1000 if rows.dtype == torch.float64 else 100
    return float(2.0 ** -max(-limit, min(limit, exponent)))
