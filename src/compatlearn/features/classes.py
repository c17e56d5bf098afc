"""Classes that have names: one numbering for several sets of features."""

from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Int

from ..errors import DataError, IncompatibleError, first_few


@runtime_checkable
class _Classed(Protocol):
    @property
    def has_labels(self) -> bool: ...
    @property
    def classes(self) -> tuple[str, ...] | None: ...
    @property
    def source(self) -> str: ...
    def with_classes(self, classes: tuple[str, ...]) -> Any: ...


ManyFeatures = TypeVar("ManyFeatures", bound=_Classed)


def same_classes(*features: ManyFeatures) -> tuple[ManyFeatures, ...]:
    """Features whose classes have names, with one numbering: the names of all of them, sorted.

    Args:
        features: those without labels, and all of them where no class has a name, come back as they are.

    Raises:
        IncompatibleError: some name their classes and others number them.
    """
    named = [one for one in features if one.classes is not None]
    numbered = [one for one in features if one.has_labels and one.classes is None]
    if not named:
        return features
    if numbered:
        raise names_and_numbers(named[0].source, named[0].classes, numbered[0].source)
    union = tuple(sorted({name for one in named for name in one.classes or ()}))
    return tuple(one if one.classes in (None, union) else one.with_classes(union) for one in features)


def renumbered(labels: Any, before: tuple[str, ...] | None, after: tuple[str, ...], name: str) -> Any:
    """Labels of classes called `before` as numbers of the same names in `after`.

    Args:
        labels: (n,) int64, or None.
        before: the names of classes 0, 1, …
        after: these names and perhaps more, in another order.
        name: what the message calls their owner.

    Returns:
        (n,) int64, or None where there were none.

    Raises:
        IncompatibleError: the classes have no names, or one of them is not in `after`.
    """
    places = {one: number for number, one in enumerate(after)}
    absent = [one for one in before or () if one not in places]
    if before is None or absent:
        reason = f"{first_few(absent)} not among them" if absent else "they have no names"
        raise IncompatibleError(f"the classes of {name} cannot be numbered as {first_few(after)}: {reason}; give every name")
    return None if labels is None else np.array([places[one] for one in before], np.int64)[labels]


def drawn_together(name: str, *labels: Int[np.ndarray, " q"] | None) -> Int[np.ndarray, " q"]:
    """The classes of some queries, where intervals draw whole classes.

    Args:
        name: what messages call the queries.
        labels: (q,) their classes as several sides have them, or None; the first that are there are taken.

    Returns:
        (q,) classes.

    Raises:
        DataError: no side has labels, or there is only one class.
    """
    known = next((one for one in labels if one is not None), None)
    if known is None:
        raise DataError(
            f"there are no labels of {name}, so cluster='class' has no classes to draw; give labels, or cluster='query'"
        )
    if len(np.unique(known)) < 2:
        raise DataError(f"all {len(known)} queries of {name} are of one class; cluster='class' needs two at least, better 50")
    return known


def names_and_numbers(named: str, classes: tuple[str, ...] | None, numbered: str) -> IncompatibleError:
    """The refusal of two sets of features of which one names its classes and the other numbers them."""
    return IncompatibleError(
        f"the classes of {named or 'some features'} are names ({first_few(classes or ())}), those of "
        f"{numbered or 'others'} numbers; give both names, or number both alike"
    )
