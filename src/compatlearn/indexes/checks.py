"""Queries that an index can be asked with."""

from typing import Any

import numpy as np
from jaxtyping import Float

from ..arrays import check_rows
from ..errors import IncompatibleError
from ..features.values import to_vectors
from .index import Index


def check_queries(queries: Any, index: Index) -> Float[np.ndarray, "q d"]:
    """Queries as float32 rows.

    Args:
        queries: (q, d) NumPy or torch.
        index: that they ask.

    Returns:
        (q, d).

    Raises:
        DataError: vectors that are not finite, or of length zero under cosine.
        IncompatibleError: another dimension than the index's.
    """
    rows = to_vectors(queries)
    check_rows(rows, "the queries", nonzero=index.metric == "cosine")
    if rows.shape[1] != index.dimension:
        raise IncompatibleError(
            f"the queries have {rows.shape[1]} dimensions and {index!r} has {index.dimension}; "
            "ask it with vectors of its own model, or through an adapter"
        )
    return np.ascontiguousarray(rows, dtype=np.float32)
