"""A number and its 95 % interval; the paired bootstrap that gives it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from ..arrays import Array, as_numpy
from ..errors import DataError

Statistic = Callable[[np.ndarray], np.ndarray]
LEVEL = 0.95
HELD = 1 << 22  # values held at a time


@dataclass(frozen=True)
class Figure:
    """A number and its 95 % interval; prints as `0.163 [0.155, 0.171]`, and with `:.1%` as `16.3% [15.5%, 17.1%]`.

    An interval may be unbounded (a ratio whose denominator may be zero); nothing in it is ever NaN.
    """

    value: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        spec = spec or ".3f"
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"

    def __str__(self) -> str:
        return format(self, "")

    def to_dict(self) -> dict[str, float | str]:
        """For JSON, which has no infinity: "Infinity" and "-Infinity" stand for it."""
        return {name: _json_number(value) for name, value in vars(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Figure":
        """The figure that `to_dict` wrote."""
        return cls(float(values["value"]), float(values["low"]), float(values["high"]))


def bootstrap(
    statistic: Statistic, columns: Float[Array, "q m"] | Bool[Array, "q m"], *, resamples: int = 2000, seed: int = 0
) -> Figure:
    """A statistic of column means, with its 95 % percentile interval over resampled queries.

    The rows of `columns` are queries and are drawn whole: systems that answer the same queries are compared in pairs.
    With few queries (some dozens) percentile intervals are too narrow.

    Args:
        statistic: (r, m) means of the columns, one row a resample, to (r,) values; not NaN, infinite at will.
        columns: (q, m) what each of m systems scored on each query.
        resamples: how often the queries are drawn.
        seed: of the draws; the same seed gives the same figure.

    Raises:
        DataError: no query, or NaN in the columns.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13.
    """
    scores = as_numpy(columns).astype(np.float64)
    if len(scores) == 0 or np.isnan(scores).any():
        raise DataError(f"a figure needs at least one query and no NaN; got {len(scores)} queries")
    value = float(statistic(scores.mean(axis=0, keepdims=True))[0])
    drawn = statistic(_resampled_means(scores, resamples, np.random.default_rng(seed)))
    # inverted_cdf takes values that were drawn: interpolating between infinities would give NaN
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="inverted_cdf")
    return Figure(value, float(low), float(high))


def _resampled_means(scores: np.ndarray, resamples: int, random: np.random.Generator) -> Float[np.ndarray, "r m"]:
    """Column means of as many rows, drawn with replacement; in blocks, so that memory is bounded."""
    queries = len(scores)
    distinct, copies = np.unique(scores, axis=0, return_counts=True)
    few = len(distinct) * 8 <= queries  # right and wrong: a handful of different rows, drawn by their counts
    block = max(1, HELD // ((len(distinct) if few else queries) * scores.shape[1]))
    means = []
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        if few:
            means.append(random.multinomial(queries, copies / queries, size=size) @ distinct / queries)
        else:
            means.append(scores[random.integers(0, queries, (size, queries), dtype=np.int32)].mean(axis=1))
    return np.concatenate(means)


def _json_number(value: float) -> float | str:
    return value if math.isfinite(value) else ("Infinity" if value > 0 else "-Infinity")
