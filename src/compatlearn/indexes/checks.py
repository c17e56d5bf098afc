"""Queries that an index can be asked with, and what ranks it."""

from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
from jaxtyping import Float

from ..arrays import check_rows
from ..errors import ConfigError, IncompatibleError
from ..features.values import to_vectors
from ..metric import Metric, check_metric
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


def check_metric_of(column: str, known: AbstractSet[str], metric: str | None) -> Metric:
    """The metric that ranks a column of a store.

    Args:
        column: its name, for messages.
        known: what its indexes rank by, or else what was noted of it; empty where neither says so.
        metric: what the user says, if anything.

    Returns:
        The one metric.

    Raises:
        ConfigError: too little or too much is known, or the metric does not exist.
        IncompatibleError: the user says another than the store.
    """
    if metric is None and len(known) != 1:
        said = f"has indexes for {' and '.join(sorted(known))}" if known else "has no index that says how it is ranked"
        raise ConfigError(f"column {column} {said}; name the metric")
    if metric is not None and known and metric not in known:
        raise IncompatibleError(f"column {column} is ranked by {' and '.join(sorted(known))}, not by {metric}")
    return check_metric(metric or next(iter(known)))
