"""A number and its 95 % interval; the paired bootstrap, over queries or clusters of them, that gives it."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy.special import ndtr, stdtrit

from ..arrays import Array, as_numpy
from ..errors import DataError, IncompatibleError

Statistic = Callable[[np.ndarray], np.ndarray]
LEVEL = 0.95
HELD = 1 << 22  # values held at a time
NARROW = 4  # columns that may well have few different rows


@dataclass(frozen=True)
class Figure:
    """A number and its 95 % interval; prints as `0.163 [0.155, 0.171]`, and with `:.1%` as `16.3% [15.5%, 17.1%]`.

    An interval may be unbounded (a ratio whose denominator may be zero); nothing in it is ever NaN.
    """

    value: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """1 where the whole interval is above zero, −1 where it is below, 0 where it holds zero."""
        return int(self.low > 0) - int(self.high < 0)

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


@dataclass(frozen=True, eq=False)
class Resamples:
    """Column means of scored queries, as measured and as drawn again many times; every figure of them is paired.

    Attributes:
        measured: (1, m) the means of all queries.
        drawn: (r, m) the means of each resample.
        units: how many were drawn from: queries, or clusters of queries.
    """

    measured: Float[np.ndarray, "1 m"]
    drawn: Float[np.ndarray, "r m"]
    units: int

    def figure(self, statistic: Statistic) -> Figure:
        """A statistic of the means, with its 95 % percentile interval, widened for few units.

        The tails that are cut off are Φ(−√(n/(n − 1)) t) rather than 2.5 %, with t the quantile of Student's distribution of
        n − 1 degrees of freedom: with 1000 units the same, with 10 units 0.9 %.

        Args:
            statistic: (r, m) means to (r,) values; not NaN, infinite at will.

        Returns:
            The figure; of one unit only, a point.

        Source: Hesterberg, What Teachers Should Know about the Bootstrap, 2015, section 3.3 (expanded percentile interval).
        """
        value = float(statistic(self.measured)[0])
        tail = 0.0
        if self.units > 1:
            tail = float(ndtr(stdtrit(self.units - 1, (1 - LEVEL) / 2) * math.sqrt(self.units / (self.units - 1))))
        # inverted_cdf takes values that were drawn: interpolating between infinities would give NaN
        low, high = np.quantile(statistic(self.drawn), [tail, 1 - tail], method="inverted_cdf")
        return Figure(value, float(low), float(high))


def bootstrap(
    statistic: Statistic,
    columns: Float[Array, "q m"] | Bool[Array, "q m"],
    *,
    resamples: int = 2000,
    seed: int = 0,
    clusters: Shaped[Array, " q"] | None = None,
) -> Figure:
    """A statistic of column means, with its 95 % interval over resampled queries, or over resampled clusters of them.

    The rows of `columns` are queries and are drawn whole: systems that answer the same queries are compared in pairs.
    Without `clusters`, the interval says how the figure would move with other queries like these, of the same classes; with
    the class of each query as its cluster, how it would move with other classes. Where a gain depends on the class, the
    former is far too narrow for the latter.

    Args:
        statistic: (r, m) means of the columns, one row per resample, to (r,) values; not NaN, infinite at will.
        columns: (q, m) what each of m systems scored on each query.
        resamples: how often the queries are drawn.
        seed: of the draws; the same seed gives the same figure.
        clusters: (q,) a number or a name per query: those of one cluster are drawn together. Two clusters at least.

    Returns:
        The statistic of all queries, and the interval.

    Raises:
        DataError: no query, NaN in the columns, or a single cluster.
        IncompatibleError: clusters of other queries.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13; for clusters, Davison and Hinkley, Bootstrap
    Methods and their Application, section 3.8.
    """
    return resampled(columns, resamples=resamples, seed=seed, clusters=clusters).figure(statistic)


def mean_of(
    column: Float[Array, " q"] | Bool[Array, " q"], *, seed: int = 0, clusters: Shaped[Array, " q"] | None = None
) -> Figure:
    """The mean of what each query scored, with its 95 % interval over queries, or over groups of them.

    Args:
        column: (q,) scores.
        seed: of the draws.
        clusters: (q,) groups of queries that are drawn as a whole; None: single queries.

    Returns:
        The mean, and the interval of `bootstrap`.

    Raises:
        DataError: no query, or NaN.
    """
    return bootstrap(lambda means: means[:, 0], column[:, None], seed=seed, clusters=clusters)


def resampled(
    columns: Float[Array, "q m"] | Bool[Array, "q m"],
    *,
    resamples: int = 2000,
    seed: int = 0,
    clusters: Shaped[Array, " q"] | None = None,
) -> Resamples:
    """The draws of `bootstrap`, for many figures of the same queries.

    Args:
        columns: (q, m) what each of m systems scored on each query.
        resamples: how often the queries are drawn.
        seed: of the draws.
        clusters: (q,) what is drawn together.

    Returns:
        Means of all columns, drawn together.

    Raises:
        DataError: no query, NaN in the columns, or a single cluster.
        IncompatibleError: clusters of other queries.
    """
    scores = as_numpy(columns).astype(np.float64)
    if len(scores) == 0 or np.isnan(scores).any():
        raise DataError(f"a figure needs at least one query and no NaN; got {len(scores)} queries")
    random = np.random.default_rng(seed)
    measured = scores.mean(axis=0, keepdims=True)
    if clusters is None:
        return Resamples(measured, _means_of_queries(scores, resamples, random), len(scores))
    if len(clusters) != len(scores):
        raise IncompatibleError(f"clusters must be one for each of {len(scores)} queries; got {len(clusters)}")
    members = np.unique(as_numpy(clusters), return_inverse=True)[1]
    units = int(members.max()) + 1
    if units < 2:
        raise DataError(f"all {len(scores)} queries are of one cluster; an interval over clusters needs two at least")
    return Resamples(measured, _means_of_clusters(scores, members, units, resamples, random), units)


def _means_of_queries(scores: Float[np.ndarray, "q m"], resamples: int, random: np.random.Generator) -> np.ndarray:
    """(r, m) column means of as many rows, drawn with replacement; in blocks, so that memory is bounded."""
    queries = len(scores)
    if scores.shape[1] <= NARROW:
        distinct, copies = np.unique(scores, axis=0, return_counts=True)
        if len(distinct) * 8 <= queries:  # right and wrong: a handful of different rows, drawn by their counts
            draws = _multinomial(copies / queries, queries, resamples, random)
            return np.concatenate([drawn @ distinct / queries for drawn in draws])
    block = max(1, HELD // queries)
    means = []
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        rows = random.integers(0, queries, (size, queries), dtype=np.int32) + queries * np.arange(size)[:, None]
        times = np.bincount(rows.ravel(), minlength=size * queries).reshape(size, queries)
        means.append(times.astype(np.float64) @ scores / queries)
    return np.concatenate(means)


def _means_of_clusters(
    scores: Float[np.ndarray, "q m"], members: np.ndarray, units: int, resamples: int, random: np.random.Generator
) -> np.ndarray:
    """(r, m) column means of the queries of as many clusters, drawn with replacement."""
    sizes = np.bincount(members)
    totals = np.stack([np.bincount(members, weights=column) for column in scores.T], axis=1)  # (c, m)
    draws = _multinomial(np.full(units, 1 / units), units, resamples, random)
    return np.concatenate([drawn @ totals / (drawn @ sizes)[:, None] for drawn in draws])


def _multinomial(
    shares: Float[np.ndarray, " n"], draws: int, resamples: int, random: np.random.Generator
) -> Iterator[np.ndarray]:
    """(b, n) float64 how often each is drawn, some resamples at a time."""
    block = max(1, HELD // len(shares))
    for start in range(0, resamples, block):
        yield random.multinomial(draws, shares, size=min(block, resamples - start)).astype(np.float64)


def _json_number(value: float) -> float | str:
    return value if math.isfinite(value) else ("Infinity" if value > 0 else "-Infinity")
