"""The same items in several sets of features: matched by id, put in one order, checked to agree."""

from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, Shaped

from ..arrays import Array, as_tensor, check_labels
from ..errors import DataError, IncompatibleError, first_few


@runtime_checkable
class FeaturesLike(Protocol):
    """What evaluation needs of `Features`: (n, d) vectors, (n,) classes and ids, and their space ("" is unknown)."""

    @property
    def vectors(self) -> Any: ...
    @property
    def labels(self) -> Any: ...
    @property
    def ids(self) -> Any: ...
    @property
    def space(self) -> str: ...


@dataclass(frozen=True)
class Items:
    """Features under the name that messages call them by; every row has a class and an id of its own."""

    name: str
    vectors: Array  # (n, d), not read here
    labels: Int[np.ndarray, " n"]
    ids: Shaped[np.ndarray, " n"]
    space: str

    @classmethod
    def of(cls, features: FeaturesLike, name: str) -> "Items":
        """Checked features.

        Raises:
            DataError: no labels, or ids that are not one for each row.
        """
        if features.labels is None:
            raise DataError(f"{name} has no labels, and they tell which neighbours are right; give every row a class")
        rows = len(features.vectors)
        labels = check_labels(features.labels, rows, f"labels of {name}")
        ids = np.asarray(features.ids)
        if ids.shape != (rows,):
            raise DataError(f"ids of {name} must be one for each of {rows} rows; got shape {ids.shape}")
        values, counts = np.unique(ids, return_counts=True)
        if len(values) < rows:
            twice = values[counts > 1]
            raise DataError(
                f"{len(twice)} ids of {name} occur more than once (first: {first_few(twice)}); give every row its own"
            )
        return cls(name, features.vectors, labels.cpu().numpy(), ids, features.space)

    def __len__(self) -> int:
        return len(self.ids)

    def in_order_of(self, other: "Items") -> "Items":
        """The same rows in the order of `other`, by id; no copy where they are in that order.

        Raises:
            IncompatibleError: the two do not hold the same ids, or disagree about a class.
        """
        rows = rows_of(other, self)
        missing = other.ids[rows < 0]
        if len(missing) or len(self) != len(other):
            extra = len(self) - len(other) + len(missing)
            first = f" (first: {first_few(missing)})" if len(missing) else ""
            raise IncompatibleError(
                f"{len(missing)} of {len(other)} ids of {other.name} are not in {self.name}{first}, and {extra} of its "
                f"{len(self)} not in {other.name}; extract the same rows with both models"
            )
        if (rows == np.arange(len(rows))).all():
            return self
        order = rows if isinstance(self.vectors, np.ndarray) else as_tensor(rows).to(self.vectors.device)
        return replace(self, vectors=self.vectors[order], labels=self.labels[rows], ids=self.ids[rows])


def rows_of(wanted: Items, items: Items) -> Int[np.ndarray, " n"]:
    """(n,) int64: the row of `items` that has the id of each row of `wanted`, -1 where none has.

    Raises:
        IncompatibleError: ids that cannot be compared, or the same id with two classes: then it names two things.
    """
    text = {ids.dtype.kind == "U" for ids in (wanted.ids, items.ids)}
    if len(text) > 1:
        raise IncompatibleError(
            f"ids of {wanted.name} are {wanted.ids.dtype} and those of {items.name} {items.ids.dtype}; "
            "give both the same kind of id"
        )
    order = np.argsort(items.ids, kind="stable")
    place = np.searchsorted(items.ids, wanted.ids, sorter=order).clip(max=len(items) - 1)
    rows: np.ndarray = np.where(items.ids[order[place]] == wanted.ids, order[place], -1)
    odd = wanted.ids[(rows >= 0) & (items.labels[rows] != wanted.labels)]
    if len(odd):
        raise IncompatibleError(
            f"{len(odd)} of {len(wanted)} rows of {wanted.name} have another class in {items.name} under the same id "
            f"(first: {first_few(odd)}); an id must name one item everywhere, and its class must not change"
        )
    return rows


def check_space(query: Items, gallery: Items) -> None:
    """One model made both, as far as can be known.

    Raises:
        IncompatibleError: two known spaces that differ, or two dimensions.
    """
    if query.space and gallery.space and query.space != gallery.space:
        raise IncompatibleError(
            f"{query.name} is in space {query.space!r} and {gallery.name} in {gallery.space!r}; "
            "a self test needs both by one model"
        )
    widths = query.vectors.shape[1], gallery.vectors.shape[1]
    if widths[0] != widths[1]:
        raise IncompatibleError(
            f"{query.name} has {widths[0]} dimensions and {gallery.name} {widths[1]}; a self test needs both by one model"
        )
