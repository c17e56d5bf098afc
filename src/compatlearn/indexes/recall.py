"""What an approximate index loses: its answers beside those of a look at every vector."""

from typing import Any

import numpy as np
from jaxtyping import Float

from ..arrays import as_numpy
from .index import Index


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
    shared = [
        len(set(mine.tolist()) & set(theirs[mask].tolist()))
        for mine, theirs, mask in zip(as_numpy(found.ids), as_numpy(exact.ids), there, strict=True)
    ]
    return float(np.sum(shared) / max(1, there.sum()))
