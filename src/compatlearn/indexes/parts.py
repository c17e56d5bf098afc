"""Parts of a live index, for workers that translate it side by side."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

from .second import Block, Second


@dataclass(frozen=True)
class Part:
    """Some rows of a live index: a range of its keys, or of its row numbers.

    Keys, because they stay where they are: a row that is written moves to another page or fragment of its store, and a range
    of those would lose it or have it twice.

    Attributes:
        first: where it begins, as the store writes it; None: no row comes before.
        last: where the next part begins; None: no row comes after, whatever is inserted.
    """

    first: Any = None
    last: Any = None


WHOLE = Part()


@runtime_checkable
class Divisible(Second, Protocol):
    """A second vector that several processes can write at the same time, each a part of the rows."""

    def parts(self, count: int) -> list[Part]:
        """All rows, in parts of about equal size.

        Args:
            count: most parts.

        Returns:
            At least one; every row, of now or later, is in exactly one of them.
        """

    def blocks(self, batch: int = 1_000, part: Part = WHOLE) -> Iterator[Block]:
        """As `Second.blocks`: the rows of a part."""


def ranges(bounds: list[Any]) -> list[Part]:
    """Parts that meet at some keys, ascending; a key that comes twice bounds only once."""
    ends = [None, *dict.fromkeys(bounds), None]
    return [Part(first, last) for first, last in pairwise(ends)]
