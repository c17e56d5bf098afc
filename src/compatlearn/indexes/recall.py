"""What an approximate index loses: its answers beside those of a look at every vector."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from ..arrays import as_numpy
from ..features.features import Features
from ..metric import Metric
from .index import Index
from .streamed import search_blocks


def recall(index: Index, queries: Float[Any, "q d"], k: int = 10) -> float:
    """The share of the exact k nearest items that the index finds as it is.

    Args:
        index: whose approximate search is judged by its exact one.
        queries: (q, d) vectors of its space.
        k: neighbours per query.

    Returns:
        In [0, 1]; 1 where the index looks at every vector anyway.
    """
    found, exact = (index.search(queries, k, exact=every) for every in (False, True))
    there = as_numpy(exact.indices) >= 0
    return float(shared(as_numpy(found.ids), as_numpy(exact.ids), there).sum() / max(1, there.sum()))


def shared(
    found: Shaped[np.ndarray, "q k"], exact: Shaped[np.ndarray, "q k"], there: Shaped[np.ndarray, "q k"]
) -> Float[np.ndarray, " q"]:
    """How many of the exact neighbours each query has found.

    Args:
        found: (q, k) ids.
        exact: (q, k) ids.
        there: (q, k) which of the exact ones are items; the others are fillers.
    """
    pairs = zip(found.tolist(), exact.tolist(), there.tolist(), strict=True)
    return np.array(
        [len(set(mine) & {one for one, real in zip(theirs, mask, strict=True) if real}) for mine, theirs, mask in pairs],
        dtype=np.float64,
    )


def nearest_in_one_pass(
    queries: Float[np.ndarray, "q d"], blocks: Iterable[Features], k: int, metric: Metric
) -> tuple[Shaped[np.ndarray, "q k"], Shaped[np.ndarray, "q k"]]:
    """The exact k nearest items of many queries, all vectors being read once: of a large index quicker than query by query.

    Args:
        queries: (q, d) finite.
        blocks: all items, such as `index.scan()`; vectors that no metric can rank are passed over.
        k: neighbours per query.
        metric: what ranks.

    Returns:
        (q, k) ids, and (q, k) which of them are items; the others are fillers, where there are fewer than k.
    """
    names: list[np.ndarray] = []

    def vectors() -> Iterator[np.ndarray]:
        for block in blocks:
            fine = np.isfinite(block.vectors).all(axis=1)
            if metric == "cosine":
                fine &= block.vectors.any(axis=1)
            if fine.any():
                names.append(block.ids[fine])
                yield np.ascontiguousarray(block.vectors[fine])

    rows = as_numpy(search_blocks(queries, vectors(), k, metric, np.zeros(0, dtype=np.int64)).indices)
    return np.concatenate(names)[rows], rows >= 0
