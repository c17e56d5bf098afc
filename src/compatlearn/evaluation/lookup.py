"""Ids of queries and items, looked up many at a time."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Int, Shaped
from torch import Tensor

from ..arrays import as_numpy
from ..errors import DataError, IncompatibleError
from .figures import HELD

Ids: TypeAlias = np.ndarray | Tensor | Sequence[Any]  # numbers or text, of any shape


def as_ids(values: Ids, name: str = "ids") -> np.ndarray:
    """Numbers as int64, text as it is.

    Raises:
        DataError: neither, or some of each.
    """
    array = as_numpy(values) if isinstance(values, np.ndarray | Tensor) else np.asarray(values)
    text = array.dtype.kind == "U"
    if (
        text
        and not isinstance(values, np.ndarray)
        and not all(isinstance(value, str) for value in np.ravel(np.asarray(values, dtype=object)))
    ):
        raise DataError(f"some {name} are numbers and some text; give all of them one kind")
    if not text and array.dtype.kind not in "iu" and array.size:
        raise DataError(f"{name} must be whole numbers or text; got {array.dtype}")
    return array if text or array.dtype == np.int64 else array.astype(np.int64)


def of_kind(ids: np.ndarray, known: np.ndarray, name: str) -> np.ndarray:
    """Ids as they compare with the known ones: numbers as their digits, where these are text.

    Raises:
        IncompatibleError: text where numbers are known.
    """
    if ids.dtype.kind == known.dtype.kind:
        return ids
    if known.dtype.kind == "U":
        return ids.astype(str)
    raise IncompatibleError(f"ids of the {name} are text and those of the judgements numbers; give both the same kind")


def places_of(known: np.ndarray, wanted: np.ndarray) -> Int[np.ndarray, "..."]:
    """Where each id stands among ascending ones, -1 where it is none of them."""
    places = np.searchsorted(known, wanted).clip(max=len(known) - 1)
    found: np.ndarray = np.where(known[places] == wanted, places, -1)
    return found


def groups_of(known: np.ndarray | None, groups: Int[np.ndarray, " n"], wanted: np.ndarray) -> Int[np.ndarray, "..."]:
    """The group of each id, -1 where it has none."""
    places = wanted if known is None else places_of(known, wanted)
    inside = (places >= 0) & (places < len(groups))
    found: np.ndarray = np.where(inside, np.take(groups, places, mode="clip"), -1)
    return found


def blocks_of(hits: Shaped[np.ndarray, "q k"]) -> Iterator[slice]:
    """Rows of which so many are looked up at a time that memory stays bounded."""
    step = max(1, HELD // max(1, hits.shape[1]))
    return (slice(start, start + step) for start in range(0, len(hits), step))
