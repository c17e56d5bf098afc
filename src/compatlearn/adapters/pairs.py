"""New and old vectors of the same items, read in blocks, and their second moments."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ..arrays import Array
from ..rows import Rows

BLOCK = 8192
HELD_OUT = 0.1  # share of the rows that choose strength and rank
FEWEST = 20  # pairs; of fewer, none is held out


@dataclass(frozen=True)
class Pairs:
    """New and old features of the same items: row new_rows[i] of `new` belongs to row old_rows[i] of `old`.

    A map leads from `new` to `old`; where the gallery is translated the sides are `turned`.
    """

    new: Array
    old: Array
    new_rows: Int[Tensor, " n"]
    old_rows: Int[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.new_rows)

    def turned(self) -> "Pairs":
        """The other direction: what was given becomes what is wanted."""
        return Pairs(self.old, self.new, self.old_rows, self.new_rows)

    def take(self, places: Int[Tensor, " m"] | slice) -> tuple[Float[Tensor, "m d_new"], Float[Tensor, "m d_old"]]:
        """Pairs by number: float32, or float64 where they are stored so."""
        new, old = self._sides
        return new[places], old[places]

    @cached_property
    def _sides(self) -> tuple[Rows, Rows]:
        return Rows(self.new, self.new_rows), Rows(self.old, self.old_rows)

    def blocks(self) -> Iterator[tuple[Float[Tensor, "m d_new"], Float[Tensor, "m d_old"]]]:
        """All pairs, some at a time, in float64."""
        for start in range(0, len(self), BLOCK):
            new, old = self.take(slice(start, start + BLOCK))
            yield new.double(), old.double()


@dataclass(frozen=True)
class Moments:
    """Sums over pairs: how many, Σ x, Σ y, Σ x xᵀ, Σ x yᵀ, Σ y yᵀ; x new, y old, in float64."""

    count: int
    new: Float[Tensor, " d_new"]
    old: Float[Tensor, " d_old"]
    new_new: Float[Tensor, "d_new d_new"]
    new_old: Float[Tensor, "d_new d_old"]
    old_old: Float[Tensor, "d_old d_old"]

    @classmethod
    def of(cls, new: Float[Tensor, "m d_new"], old: Float[Tensor, "m d_old"]) -> "Moments":
        return cls(len(new), new.sum(0), old.sum(0), new.T @ new, new.T @ old, old.T @ old)

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(*(mine + its for mine, its in zip(vars(self).values(), vars(other).values(), strict=True)))

    def around(self, new: Float[Tensor, " d_new"], old: Float[Tensor, " d_old"]) -> "Moments":
        """Means of the same products with `new` and `old` subtracted from every pair."""
        x, y = self.new / self.count, self.old / self.count
        return Moments(
            1,
            x - new,
            y - old,
            self.new_new / self.count - torch.outer(x, new) - torch.outer(new, x - new),
            self.new_old / self.count - torch.outer(x, old) - torch.outer(new, y - old),
            self.old_old / self.count - torch.outer(y, old) - torch.outer(old, y - old),
        )


def split_moments(pairs: Pairs, seed: int) -> tuple[Moments, Moments]:
    """Moments of the rows to fit and of those held out; the same object twice where there are too few to hold any out."""
    generator = torch.Generator().manual_seed(seed)
    if len(pairs) < FEWEST:
        everything = sum_moments(pairs)
        return everything, everything
    parts: list[Moments] = []
    for new, old in pairs.blocks():
        out = torch.rand(len(new), generator=generator) < HELD_OUT
        out[0] = len(out) > 1 and len(parts) == 0  # at least one row
        found = [Moments.of(new[rows], old[rows]) for rows in (~out, out)]
        parts = [mine + its for mine, its in zip(parts, found, strict=True)] if parts else found
    return parts[0], parts[1]


def sum_moments(pairs: Pairs, *, directions: bool = False) -> Moments:
    total: Moments | None = None
    for new, old in pairs.blocks():
        part = Moments.of(F.normalize(new, dim=1), F.normalize(old, dim=1)) if directions else Moments.of(new, old)
        total = part if total is None else total + part
    assert total is not None
    return total
