"""Intervals in closed form, for tails so thin that few resamples would reach them, and for shares that are nearly 0 or 1."""

import math

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import betaincinv, ndtri, stdtrit

from .figures import Figure


def share(values: Float[np.ndarray, " n"] | Bool[np.ndarray, " n"], tail: float) -> Figure:
    """The mean of scores in [0, 1], with an interval that is exact where they are 0 and 1, such as flips.

    Other scores vary less than 0 and 1 of the same mean do, as if there were more of them; how much less is measured with one
    0 and one 1 added.

    Args:
        values: (n,) scores, one at least.
        tail: chance, at most, that the true mean is above the interval, and likewise below it, such as 0.025.

    Returns:
        The mean and its interval, within [0, 1].

    Source: Clopper and Pearson, 1934; for other scores, Korn and Graubard, Confidence Intervals for Proportions With Small
    Expected Number of Positive Counts, 1998.
    """
    count, mean = len(values), float(np.mean(values))
    effective = float(count)
    if count > 1 and not np.isin(values, (0, 1)).all():
        more = np.append(values, (0.0, 1.0))  # scores that are alike by chance do not show that all are
        part = float(np.var(more)) / float(np.mean(more) * (1 - np.mean(more)))
        effective = max(effective, count / part * float(ndtri(tail) / stdtrit(count - 1, tail)) ** 2)
    hits, misses = mean * effective, (1 - mean) * effective
    low = float(betaincinv(hits, misses + 1, tail)) if mean > 0 else 0.0
    high = float(betaincinv(hits + 1, misses, 1 - tail)) if mean < 1 else 1.0
    return Figure(mean, low, high)


def difference(values: Float[np.ndarray, " n"], tail: float) -> Figure:
    """The mean of differences, with the interval of Student's t.

    Args:
        values: (n,) what each query gained, one at least.
        tail: as for `share`.

    Returns:
        The mean and its interval; unbounded for a single query.
    """
    mean = float(np.mean(values))
    if len(values) < 2:
        return Figure(mean, -math.inf, math.inf)
    reach = -float(stdtrit(len(values) - 1, tail)) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return Figure(mean, mean - reach, mean + reach)


def ratio(gained: Float[np.ndarray, " n"], possible: Float[np.ndarray, " n"], tail: float) -> Figure:
    """What was gained of what was possible: the ratio of two means of the same queries.

    Args:
        gained: (n,) what each query gained.
        possible: (n,) what it could have gained.
        tail: as for `share`.

    Returns:
        The ratio and its interval; unbounded where it is not sure that there was anything to gain.

    Source: Fieller, Some Problems in Interval Estimation, 1954.
    """
    whole = difference(possible, tail)
    above = float(np.mean(gained))
    value = above / whole.value if whole.value else (math.copysign(math.inf, above) if above else 0.0)
    if whole.low <= 0:
        return Figure(value, -math.inf, math.inf)
    factor = float(stdtrit(len(gained) - 1, tail)) ** 2 / len(gained)
    spread = factor * np.cov(gained, possible)  # (2, 2), in squared reaches
    first, middle, last = above**2 - spread[0, 0], above * whole.value - spread[0, 1], whole.value**2 - spread[1, 1]
    root = math.sqrt(max(0.0, middle**2 - first * last))
    return Figure(value, float(middle - root) / float(last), float(middle + root) / float(last))
