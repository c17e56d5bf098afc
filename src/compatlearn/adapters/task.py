"""What is fitted: pairs, their classes, and what several methods compute from them, computed once."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .linear import Map, ridge_of
from .pairs import Moments, Pairs, split_moments

Tell: TypeAlias = Callable[[str], None]  # takes one line of progress


def silent(line: str) -> None:
    """A `Tell` that says nothing."""


@dataclass(frozen=True)
class Task:
    """One fit: what every method is given. Candidates that share a task share its moments and its ridge map.

    Attributes:
        pairs: the n pairs.
        labels: (n,) int64 classes as they were given, or None.
        unit: every old vector has unit length, so mapped ones shall have it too.
        seed: of the rows held out and of training.
        tell: takes lines of progress.
        gallery: (g, d) old vectors of further items, whose new ones nobody knows; None where there are none.
    """

    pairs: Pairs
    labels: Int[Tensor, " n"] | None = None
    unit: bool = False
    seed: int = 0
    tell: Tell = silent
    gallery: Float[Tensor, "g d_old"] | None = None

    @cached_property
    def classes(self) -> Int[Tensor, " n"] | None:
        """(n,) int64 the labels, numbered from 0 without gaps."""
        return None if self.labels is None else torch.unique(self.labels, return_inverse=True)[1]

    @cached_property
    def halves(self) -> tuple[Moments, Moments]:
        """Moments of the rows to fit and of those held out to choose a strength."""
        return split_moments(self.pairs, self.seed)

    @cached_property
    def moments(self) -> Moments:
        """Moments of all pairs."""
        fitted, held = self.halves
        return fitted if held is fitted else fitted + held

    @cached_property
    def ridge(self) -> Map:
        """The ridge map, where heads start."""
        return ridge_of(self.halves)
