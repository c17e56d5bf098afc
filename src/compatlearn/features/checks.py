"""What may be wrong with the rows of features; messages name the features, the rows and the ids."""

import numpy as np
from jaxtyping import Float, Int64, Shaped

from ..errors import DataError, first_few

BLOCK = 65536  # rows looked at in one go: a memory map is read through and never held


def check_range(labels: Int64[np.ndarray, " n"], ids: Shaped[np.ndarray, " n"] | None, classes: int | None, name: str) -> None:
    """Classes from 0 up, below `classes` if that is given.

    Raises:
        DataError: a label out of range.
    """
    bad = np.flatnonzero((labels < 0) | (labels >= (np.inf if classes is None else classes)))
    if len(bad):
        allowed = "negative" if classes is None else f"out of range [0, {classes})"
        raise DataError(
            f"{len(bad)} of {len(labels)} labels of {name} are {allowed} "
            f"(first: {first_few(labels[bad])} in rows {rows_at_fault(bad.tolist(), ids)}); give every row a class in range"
        )


def check_varied(vectors: Float[np.ndarray, "n d"], name: str) -> None:
    """Read rows until one differs from the first.

    Raises:
        DataError: there is one row, or all of them hold the same vector.
    """
    if len(vectors) < 2:
        raise DataError(f"{name} has a single row, which nothing can be learned from; give more items")
    blocks = range(0, len(vectors), BLOCK)
    if all((vectors[first : first + BLOCK] == vectors[0]).all() for first in blocks):
        what = "zeros" if not vectors[0].any() else "the same vector"
        raise DataError(f"all {len(vectors)} rows of {name} are {what}; extract them again")


def rows_at_fault(rows: list[int], ids: Shaped[np.ndarray, " n"] | None) -> str:
    """`3 (id p3), 9 (id p9), …`: the first rows, with their ids where those say more."""
    return first_few(rows if ids is None else (f"{row} (id {ids[row]})" for row in rows))
