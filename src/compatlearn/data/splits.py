"""Which part of the data: a split by its name, or a share of each class."""

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from jaxtyping import Int64

from ..errors import ConfigError, DataError, first_few

SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation", "test")}  # by what sources call them
Source = TypeVar("Source")


def choose_split(groups: Mapping[str, Source], split: str | None, name: object) -> Source:
    """The group that is asked for, by its own name or by `train` and `val`; the only one there is serves where none is.

    Raises:
        DataError: there is no such group.
    """
    if split is None and len(groups) == 1:
        return next(iter(groups.values()))
    asked = split or "train"
    whole = ("all",) if asked == "train" else ()
    for candidate in (asked, *SPLITS.get(asked, ()), *whole):
        if candidate in groups:
            return groups[candidate]
    raise DataError(f"{name} has no split {asked!r}, only {', '.join(groups)}; name one as DATA:SPLIT")


def split_rows(
    labels: Int64[np.ndarray, " n"], fraction: float, seed: int
) -> tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " m"]]:
    """Disjoint rows: `fraction` of each class (at least one row each side), seeded, and the rest, both ascending.

    Raises:
        ConfigError: fraction is not in (0, 1).
        DataError: a class has a single row and cannot be split.
    """
    if not 0 < fraction < 1:
        raise ConfigError(f"the fraction of a split must be between 0 and 1; got {fraction}")
    generator = np.random.default_rng(seed)
    first, second, single = [], [], []
    for label in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == label))
        if len(rows) < 2:
            single.append(label)
            continue
        cut = min(max(round(fraction * len(rows)), 1), len(rows) - 1)
        first.append(rows[:cut])
        second.append(rows[cut:])
    if single:
        raise DataError(
            f"{len(single)} classes have one image and cannot be split (first: {first_few(single)}); drop them or add images"
        )
    return np.sort(np.concatenate(first)), np.sort(np.concatenate(second))
