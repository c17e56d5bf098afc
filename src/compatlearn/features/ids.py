"""The same items in several sets of features: matched by id, put in one order, checked to agree."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, Shaped

from ..arrays import Array, as_tensor, check_labels
from ..errors import DataError, IncompatibleError, first_few
from .classes import names_and_numbers, renumbered

ROWS = "row numbers"  # how `ids_from` begins where a row's number is its id


@runtime_checkable
class FeaturesLike(Protocol):
    """What evaluation needs of `Features`: (n, d) vectors, (n,) classes and ids, and their space ("" is unknown).

    Where there are such attributes, `ids_from` says where the ids come from, and `classes` how the classes are called.
    """

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
    """Features under the name that messages call them by; every row has an id of its own.

    Attributes:
        name: what messages call them.
        vectors: (n, d), not read here.
        labels: (n,) classes, or None.
        ids: (n,) int64 or text.
        space: the model that made them; "" is unknown.
        ids_from: where the ids come from, such as "column 'sku'" or "row numbers"; "" is unknown.
        classes: the names of the classes, or None where they are numbers alone.
    """

    name: str
    vectors: Array
    labels: Any
    ids: Shaped[np.ndarray, " n"]
    space: str
    ids_from: str = ""
    classes: tuple[str, ...] | None = None

    @classmethod
    def of(cls, features: FeaturesLike, name: str) -> "Items":
        """Checked features.

        Args:
            features: `Features`, or anything with the same attributes.
            name: what messages call them.

        Raises:
            DataError: labels or ids that are not one for each row, or an id that occurs more than once.
        """
        rows, labels = len(features.vectors), features.labels
        if labels is not None:
            labels = check_labels(labels, rows, f"labels of {name}").cpu().numpy()
        ids = np.asarray(features.ids)
        if ids.shape != (rows,):
            raise DataError(f"ids of {name} must be one for each of {rows} rows; got shape {ids.shape}")
        check_unique(ids, name)
        known = getattr(features, "ids_from", ""), getattr(features, "classes", None)
        return cls(name, features.vectors, labels, ids, features.space, *known)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def has_labels(self) -> bool:
        """Whether there are labels."""
        return self.labels is not None

    @property
    def ids_or_none(self) -> Shaped[np.ndarray, " n"] | None:
        """(n,) the ids; None where they are row numbers and so tell nothing more."""
        return None if are_rows(self.ids_from) else self.ids

    @property
    def source(self) -> str:
        """The name, for the messages of `same_classes`."""
        return self.name

    def with_classes(self, classes: tuple[str, ...]) -> "Items":
        """The same items, their named classes numbered as `classes` has them; IncompatibleError if one is not there."""
        return replace(self, labels=renumbered(self.labels, self.classes, classes, self.name), classes=classes)

    def in_order_of(self, other: "Items") -> "Items":
        """The same rows in the order of `other`, by id; no copy where they are in that order.

        Raises:
            IncompatibleError: the two do not hold the same ids, or disagree about a class.
        """
        rows = rows_of(other, self)
        if (rows < 0).any() or len(self) != len(other):
            raise _other_rows(other, self, rows, both=True)
        if (rows == np.arange(len(rows))).all():
            return self
        order = rows if isinstance(self.vectors, np.ndarray) else as_tensor(rows).to(self.vectors.device)
        labels = None if self.labels is None else self.labels[rows]
        return replace(self, vectors=self.vectors[order], labels=labels, ids=self.ids[rows])


def rows_of(wanted: Items, items: Items) -> Int[np.ndarray, " n"]:
    """The row that holds each id: the one place where ids are matched.

    Args:
        wanted: whose ids are looked for; an id may come more than once.
        items: where they are looked for.

    Returns:
        (n,) int64: the row of `items` that has the id of each row of `wanted`, -1 where none has.

    Raises:
        IncompatibleError: ids that cannot be compared, or the same id with two classes: then it names two things.
    """
    _check_kinds(wanted, items)
    increasing = bool((items.ids[1:] > items.ids[:-1]).all())  # the usual case, and it saves a sort
    order = np.arange(len(items)) if increasing else np.argsort(items.ids, kind="stable")
    ordered = items.ids if increasing else items.ids[order]
    place = np.searchsorted(ordered, wanted.ids).clip(max=len(items) - 1)
    rows: np.ndarray = np.where(ordered[place] == wanted.ids, order[place], -1)
    if wanted.labels is not None and items.labels is not None:
        _check_classes(wanted, items, rows)
    return rows


def require_rows(wanted: Items, items: Items) -> Int[np.ndarray, " n"]:
    """`rows_of` where every id must have a row.

    Raises:
        IncompatibleError: an id has none; or as `rows_of` does.
    """
    rows = rows_of(wanted, items)
    if (rows < 0).any():
        raise _other_rows(wanted, items, rows, both=False)
    return rows


def pair(
    new: FeaturesLike, old: FeaturesLike, names: Sequence[str] = ("new features", "old features")
) -> Int[np.ndarray, " n"]:
    """New and old vectors of the same items.

    Args:
        new: features of the one model, each with an id of its own.
        old: features of the other, of these items and perhaps of more.
        names: what messages call the two.

    Returns:
        (n,) int64: the row of `old` for each row of `new`.

    Raises:
        DataError: an id that occurs more than once.
        IncompatibleError: a new row has no old one, row numbers meet ids, or the two disagree about a class.
    """
    wanted, items = (Items.of(features, name) for features, name in zip((new, old), names, strict=True))
    return require_rows(wanted, items)


def check_unique(ids: Shaped[np.ndarray, " n"], name: str) -> None:
    """Raise DataError if an id occurs more than once; the message has the first of them."""
    if (ids[1:] > ids[:-1]).all():
        return
    values, counts = np.unique(ids, return_counts=True)
    twice = values[counts > 1]
    if len(twice):
        raise DataError(f"{len(twice)} ids of {name} occur more than once (first: {first_few(twice)}); give every row its own")


def are_rows(ids_from: str) -> bool:
    """Whether ids that come from there are row numbers."""
    return ids_from.startswith(ROWS)


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


def _check_kinds(wanted: Items, items: Items) -> None:
    for rows, real in ((wanted, items), (items, wanted)):
        if are_rows(rows.ids_from) and real.ids_from and not are_rows(real.ids_from):
            raise IncompatibleError(
                f"the ids of {rows.name} are {rows.ids_from}, those of {real.name} come from {real.ids_from} "
                f"(first: {first_few(real.ids)}); give both the ids of the items (id_column names their column), "
                "or pair both by row number (id_column='row')"
            )
    if len({ids.dtype.kind == "U" for ids in (wanted.ids, items.ids)}) > 1:
        first, second = (
            f"{'text' if one.ids.dtype.kind == 'U' else 'numbers'} ({one.ids_from or f'first: {first_few(one.ids)}'})"
            for one in (wanted, items)
        )
        raise IncompatibleError(
            f"the ids of {wanted.name} are {first} and those of {items.name} {second}; give both the same kind of id"
        )


def _check_classes(wanted: Items, items: Items, rows: Int[np.ndarray, " n"]) -> None:
    sides = wanted, items
    named, numbered = ([one for one in sides if (one.classes is None) == without] for without in (False, True))
    if named and numbered:
        raise names_and_numbers(named[0].name, named[0].classes, numbered[0].name)
    mine, theirs = wanted.labels, items.labels[rows]
    if wanted.classes != items.classes:
        mine, theirs = np.array(wanted.classes)[mine], np.array(items.classes)[theirs]
    odd = wanted.ids[(rows >= 0) & (mine != theirs)]
    if len(odd):
        raise IncompatibleError(
            f"{len(odd)} of {len(wanted)} rows of {wanted.name} have another class in {items.name} under the same id "
            f"(first: {first_few(odd)}); an id must name one item everywhere, and its class must not change"
        )


def _other_rows(wanted: Items, items: Items, rows: Int[np.ndarray, " n"], *, both: bool) -> IncompatibleError:
    missing = wanted.ids[rows < 0]
    first = f" (first: {first_few(missing)})" if len(missing) else ""
    extra = f", and {len(items) - len(wanted) + len(missing)} of its {len(items)} not in {wanted.name}" if both else ""
    return IncompatibleError(
        f"{len(missing)} of {len(wanted)} ids of {wanted.name} are not in {items.name}{first}{extra}; "
        "extract the same rows with both models"
    )
