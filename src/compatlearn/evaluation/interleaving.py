"""Interleaved comparison: two rankings share one result list, and clicks say which of them users prefer."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from ..errors import DataError

Item: TypeAlias = int | str


@dataclass(frozen=True)
class Interleaved:
    """One list made of two.

    Attributes:
        items: at most k ids, none twice.
        first: for each of them, whether it came from the first ranking.
    """

    items: tuple[Item, ...]
    first: tuple[bool, ...]

    def wins(self, clicked: Iterable[Item]) -> int:
        """1 if the first ranking's items were clicked more often, −1 if the second's, 0 for neither.

        Args:
            clicked: ids of this list; others are not counted.
        """
        sides = dict(zip(self.items, self.first, strict=True))
        return int(np.sign(sum(1 if sides[item] else -1 for item in set(clicked) if item in sides)))


def interleave(first: Sequence[Item], second: Sequence[Item], k: int = 10, *, seed: int = 0) -> Interleaved:
    """Team-draft interleaving: in each round both rankings, in an order drawn by lot, add their best item that is not there.

    Args:
        first: ids, best first, such as what the old query found.
        second: ids, best first, such as what the mapped query found.
        k: length of the list, at least 1.
        seed: of the lots; a hash of the request.

    Returns:
        The list to show, and who added what.

    Raises:
        DataError: k below 1.

    Source:
        Radlinski, Kurup and Joachims, How does clickthrough data reflect retrieval quality?, CIKM 2008, algorithm 2.

    >>> mixed = interleave(["a", "b", "c"], ["b", "d", "a"], 4, seed=1)
    >>> sorted(mixed.items), sum(mixed.first)
    (['a', 'b', 'c', 'd'], 2)
    """
    if k < 1:
        raise DataError(f"a list has at least one item; got k = {k}")
    random, rankings = np.random.default_rng(seed), (list(first), list(second))
    items: list[Item] = []
    added: list[bool] = []
    while len(items) < k:
        before = len(items)
        for side in random.permutation(2).tolist():
            left = next((item for item in rankings[side] if item not in items), None)
            if left is not None and len(items) < k:
                items.append(left)
                added.append(side == 0)
        if len(items) == before:
            break
    return Interleaved(tuple(items), tuple(added))


@dataclass(frozen=True)
class Preference:
    """Which ranking users prefer.

    Attributes:
        first: lists that the first ranking won.
        second: lists that the second won.
        ties: lists without a winner.
        p: two-sided p-value of no preference, of the sign test; ties do not count.
    """

    first: int
    second: int
    ties: int
    p: float


def preference(wins: Iterable[int]) -> Preference:
    """Count what `Interleaved.wins` gave, list by list.

    Args:
        wins: 1, −1 or 0 for each list.

    Raises:
        DataError: anything else.

    >>> preference([1] * 9 + [-1] * 1 + [0] * 5).first
    9
    """
    from scipy.stats import binomtest

    counted = list(wins)
    if odd := [one for one in counted if one not in (-1, 0, 1)]:
        raise DataError(f"a list is won by 1, lost by -1 or tied by 0; got {odd[0]}")
    first, second = counted.count(1), counted.count(-1)
    p = float(binomtest(first, first + second).pvalue) if first + second else 1.0
    return Preference(first, second, counted.count(0), p)
