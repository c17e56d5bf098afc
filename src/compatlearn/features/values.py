"""What anyone gives as vectors, labels or ids becomes the arrays that `Features` holds, or one line says why not."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError

Values: TypeAlias = np.ndarray | Tensor | Sequence[Any]
Classes: TypeAlias = tuple[str, ...] | None  # the names of classes 0, 1, …; None where classes are numbers alone


def to_numpy(values: Values) -> np.ndarray:
    """The same values in NumPy, which has no bfloat16: that becomes float32.

    Raises:
        DataError: rows of several lengths.
    """
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        foreign = values.is_floating_point() and values.dtype not in (torch.float16, torch.float32, torch.float64)
        values = values.float() if foreign else values
    try:
        array: np.ndarray = np.asarray(values)
    except ValueError as error:
        raise DataError(f"not an array: {error}; give every row the same length") from error
    return array


def to_vectors(values: Values) -> np.ndarray:
    """(n, d) float16, float32 or float64, both at least 1.

    Raises:
        DataError: another shape, or not floats.
    """
    vectors = to_numpy(values)
    if vectors.ndim != 2 or 0 in vectors.shape:
        raise DataError(f"vectors must be (rows, dimension), both at least 1; got shape {vectors.shape}")
    if vectors.dtype.name not in ("float16", "float32", "float64"):
        raise DataError(f"vectors must be float16, float32 or float64, not {vectors.dtype}; convert them with astype")
    return vectors if vectors.dtype.isnative else vectors.astype(vectors.dtype.newbyteorder("="))


def to_labels(values: Values, rows: int, classes: Classes = None) -> tuple[np.ndarray, Classes]:
    """(rows,) int64 classes and their names; names given as labels are numbered in their sorted order.

    Raises:
        DataError: not one label for each row, neither integers nor text, or a number without a name in `classes`.
    """
    labels = _texts(to_numpy(values))
    if labels.shape != (rows,):
        raise DataError(f"labels must hold one class for each of {rows} rows; got shape {labels.shape}")
    if labels.dtype.kind == "U":
        names, numbers = np.unique(labels, return_inverse=True)
        return numbers.astype(np.int64), tuple(names.tolist())
    if labels.dtype.kind not in "iu":
        raise DataError(f"labels must be integers or names, not {labels.dtype}; number the classes from 0")
    if classes is not None and (labels.min() < 0 or labels.max() >= len(classes)):
        low, high = labels.min(), labels.max()
        raise DataError(f"labels reach from {low} to {high}, but {len(classes)} classes have names; name them all")
    return labels.astype(np.int64, copy=not labels.flags.writeable), classes  # torch warns about read-only memory


def to_ids(values: Values, rows: int) -> np.ndarray:
    """(rows,) int64 or text.

    Raises:
        DataError: not one id for each row, or neither integers nor text.
    """
    ids = _texts(to_numpy(values))
    if ids.shape != (rows,):
        raise DataError(f"ids must hold one id for each of {rows} rows; got shape {ids.shape}")
    if ids.dtype.kind == "u" and ids.size and ids.max() > np.iinfo(np.int64).max:
        raise DataError(f"ids must fit in 63 bits; the largest is {ids.max()}; store them as text")
    if ids.dtype.kind not in "iuU":
        raise DataError(f"ids must be integers or text, not {ids.dtype}; convert them with astype")
    return ids if ids.dtype.kind == "U" else ids.astype(np.int64, copy=not ids.flags.writeable)


def _texts(values: np.ndarray) -> np.ndarray:
    """Python texts as NumPy's; other values as they are."""
    texts = values.dtype.kind == "O" and all(isinstance(one, str) for one in values.ravel())
    return values.astype(str) if texts else values
