"""New and old vectors of the same items under the names that messages call them by, checked before anything is fitted."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from ..arrays import Array, as_numpy, as_tensor, check_kind, check_labels, unit_length
from ..errors import DataError, IncompatibleError
from ..features.features import Features
from ..features.ids import pair
from .pairs import BLOCK, Pairs

FEWEST = 10  # pairs: of fewer nothing can be fitted that is worth a file
OTHERS = 4000  # items beside the pairs that a method may learn from, at most
NAMES = ("the new features", "the old features")


@dataclass(frozen=True)
class Matched:
    """Pairs, the class of each where either side knows it, and what the two sides are called.

    Attributes:
        pairs: n new and old vectors of the same items.
        labels: (n,) int64 classes, or None.
        names: of the new and the old side, in messages: a file, or what the caller calls them.
        ids: (n,) of the pairs, or None where rows have only a number.
        space_new: the new model; "" is unknown.
        space_old: the old model; "" is unknown.
    """

    pairs: Pairs
    labels: Int64[np.ndarray, " n"] | None = None
    names: tuple[str, str] = NAMES
    ids: Shaped[np.ndarray, " n"] | None = None
    space_new: str = ""
    space_old: str = ""

    @classmethod
    def by_row(cls, new: Array, old: Array, labels: Array | None = None) -> "Matched":
        """Arrays whose row i is the same item.

        Args:
            new: (n, d_new) new vectors.
            old: (n, d_old) old vectors.
            labels: (n,) classes, or None.

        Raises:
            IncompatibleError: another number of rows.
            DataError: not two arrays of floats, or labels that are not one for each row.
        """
        if len(new) != len(old):
            raise IncompatibleError(f"{len(new)} new and {len(old)} old features; pair them: one row an item in both")
        for name, vectors in zip(NAMES, (new, old), strict=True):
            _check_kind(vectors, name)
        rows = torch.arange(len(new))
        classes = None if labels is None else as_numpy(check_labels(labels, len(new)))
        return cls(Pairs(new, old, rows, rows), classes)

    @classmethod
    def by_id(cls, new: Features, old: Features, names: tuple[str, str] = NAMES) -> "Matched":
        """The items of `new`, each with its row of `old`.

        Args:
            new: the new model's features.
            old: the old model's features of these items and perhaps of more.
            names: what messages call the two.

        Raises:
            DataError: an id occurs more than once.
            IncompatibleError: a new row has no old one, row numbers meet ids, or an id has two classes.
        """
        places = pair(new, old, names)
        labels = new.labels if new.has_labels else None
        if labels is None and old.has_labels:
            labels = old.require_labels()[places]
        pairs = Pairs(new.vectors, old.vectors, torch.arange(len(new)), torch.from_numpy(places))
        return cls(pairs, labels, names, new.ids, new.space, old.space)

    def __len__(self) -> int:
        return len(self.pairs)

    def turned(self) -> "Matched":
        """The other direction: the old side is given, the new one wanted."""
        names, spaces = self.names[::-1], (self.space_old, self.space_new)
        return Matched(self.pairs.turned(), self.labels, names, self.ids, *spaces)

    def others(self, old: Features, seed: int) -> Tensor | None:
        """Old vectors of some items that are none of the pairs; None where there are none."""
        rest = np.setdiff1d(np.arange(len(old)), self.pairs.old_rows.numpy())
        if len(rest) == 0:
            return None
        rows = np.random.default_rng(seed).permutation(rest)[:OTHERS]
        return as_tensor(np.asarray(old.vectors[np.sort(rows)]))

    def at(self, rows: Int64[Tensor, " r"]) -> Pairs:
        """Some of the pairs, by number."""
        return Pairs(self.pairs.new, self.pairs.old, self.pairs.new_rows[rows], self.pairs.old_rows[rows])

    def within(self, rows: Int64[Tensor, " r"]) -> "Matched":
        """The old vectors of some pairs on both sides: what is fitted to them stays in one space."""
        old, known = self.at(rows), self.labels_at(rows)
        itself = Pairs(old.old, old.old, old.old_rows, old.old_rows)
        labels = None if known is None else known.numpy()
        return replace(self, pairs=itself, labels=labels, names=(self.names[1],) * 2, ids=None, space_new=self.space_old)

    def labels_at(self, rows: Int64[Tensor, " r"]) -> Int64[Tensor, " r"] | None:
        """(r,) their classes."""
        return None if self.labels is None else torch.from_numpy(self.labels[rows.numpy()])

    def where(self, side: int, rows: list[int]) -> str:
        """Rows of one side for people: `row 672 of old.npz, id 'p672'`, of the first of them."""
        number = int((self.pairs.new_rows, self.pairs.old_rows)[side][rows[0]])
        known = "" if self.ids is None else f", id {self.ids[rows[0]].item()!r}"
        return f"row {number} of {self.names[side]}{known}"

    def digests(self) -> dict[str, str]:
        """Hashes of the bytes of both sides, as they were given."""
        return {"new": digest(self.pairs.new), "old": digest(self.pairs.old)}


@dataclass
class Seen:
    """What one reading of one side's vectors shows.

    Attributes:
        first: the first row.
        endless: numbers of pairs with NaN or infinity.
        zero: numbers of pairs whose vector has length zero.
        varies: two rows differ.
        unit: every row has unit length.
        lengths: shortest and longest.
    """

    first: Tensor
    endless: list[int] = field(default_factory=list)
    zero: list[int] = field(default_factory=list)
    varies: bool = False
    unit: bool = True
    lengths: tuple[float, float] = (np.inf, 0.0)

    def look(self, block: Tensor, start: int) -> None:
        """Take the rows from number `start` on into account."""
        sizes = torch.linalg.vector_norm(block, dim=1, dtype=torch.float64)
        self.endless += ((~torch.isfinite(block)).any(dim=1).nonzero()[:, 0] + start).tolist()
        self.zero += ((block == 0).all(dim=1).nonzero()[:, 0] + start).tolist()
        self.varies = self.varies or bool((block != self.first).any())
        self.unit = self.unit and unit_length(block.float().cpu().numpy())
        self.lengths = min(self.lengths[0], float(sizes.min())), max(self.lengths[1], float(sizes.max()))


def inspect(matched: Matched, *, directions: bool) -> tuple[Seen, Seen]:
    """Read all pairs once and refuse what no map can be fitted to.

    Args:
        matched: the pairs.
        directions: vectors of length zero are a fault too: the metric ranks by direction.

    Returns:
        What was seen of the new and of the old side.

    Raises:
        DataError: too few pairs, NaN or infinity, vectors that are all the same, or of length zero.
    """
    if len(matched) < FEWEST:
        count = f"{len(matched)} pair{'s' if len(matched) != 1 else ''}"
        raise DataError(f"{count} cannot tell one map from another; give {FEWEST} at least, better thousands")
    pairs = matched.pairs
    sides = tuple(Seen(block[0]) for block in pairs.take(slice(0, 1)))
    for start in range(0, len(pairs), BLOCK):
        for seen, block in zip(sides, pairs.take(slice(start, start + BLOCK)), strict=True):
            seen.look(block, start)
    for side, seen in enumerate(sides):
        faults = {"NaN or infinity": seen.endless, "length zero": seen.zero if directions or not seen.varies else []}
        for fault, bad in faults.items():
            if bad:
                raise DataError(
                    f"{len(bad)} of {len(pairs)} vectors of {matched.names[side]} have {fault} "
                    f"(first: {matched.where(side, bad)}); drop or extract them again"
                )
        if not seen.varies:
            raise DataError(f"all {len(pairs)} vectors of {matched.names[side]} are the same; extract them again")
    return sides[0], sides[1]


def facts(matched: Matched, old: Seen) -> str:
    """What there is to choose by: pairs, dimensions, lengths of the old vectors, classes and their sizes."""
    new_old = [vectors.shape[1] for vectors in (matched.pairs.new, matched.pairs.old)]
    lengths = "of unit length" if old.unit else f"{old.lengths[0]:.3g} to {old.lengths[1]:.3g} long"
    text = f"{len(matched)} pairs, {new_old[0]} to {new_old[1]} dimensions, old vectors {lengths}"
    if matched.labels is None:
        return f"{text}, no labels"
    sizes = np.unique(matched.labels, return_counts=True)[1]
    return f"{text}, {len(sizes)} classes of {sizes.min()} to {sizes.max()} rows"


def digest(vectors: Array) -> str:
    """BLAKE2b, 128 bits in hexadecimal, of type, shape and bytes; read in blocks."""
    hashed = hashlib.blake2b(digest_size=16)
    hashed.update(f"{str(as_tensor(vectors[:1]).dtype).removeprefix('torch.')} {tuple(vectors.shape)}".encode())
    for block in _blocks(vectors):
        hashed.update(as_tensor(block).cpu().contiguous().view(torch.uint8).numpy().data)
    return hashed.hexdigest()


def _blocks(vectors: Array) -> Iterator[Array]:
    return (vectors[start : start + BLOCK] for start in range(0, len(vectors), BLOCK))


def _check_kind(vectors: Array, name: str) -> None:
    """Raises DataError unless these are rows of floats."""
    if vectors.ndim == 1:
        raise DataError(
            f"{name} must be (rows, dimension), both at least 1; got shape {tuple(vectors.shape)}; "
            "pass vectors[None] for a single one"
        )
    check_kind(vectors, name)


def as_rows(vectors: Any, name: str) -> Array:
    """An array as it is; lists and whatever else NumPy can read as floats in NumPy.

    Args:
        vectors: (n, d) floats of any kind.
        name: what messages call them.

    Raises:
        DataError: not rows of floats.
    """
    convert: Callable[[Any], np.ndarray] = np.asarray
    try:
        rows: Array = vectors if isinstance(vectors, (Tensor, np.ndarray)) else convert(vectors)
    except ValueError as error:
        raise DataError(f"{name} are not an array: {error}; give every row the same length") from error
    _check_kind(rows, name)
    return rows
