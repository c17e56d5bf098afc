"""What ranks, and what a verdict says: the two closed sets of words that every layer shares."""

from typing import Literal, TypeAlias, get_args

from .errors import unknown

Metric: TypeAlias = Literal["euclidean", "cosine", "dot"]
METRICS: tuple[str, ...] = get_args(Metric)
Verdict: TypeAlias = Literal["yes", "no", "undecided"]


def check_metric(name: str) -> Metric:
    """The metric of that name.

    Args:
        name: "euclidean" (the smallest distance is nearest), "cosine" (the largest cosine) or "dot" (the largest inner
            product).

    Raises:
        ConfigError: no such metric.
    """
    for metric in get_args(Metric):
        if name == metric:
            return metric
    raise unknown("metric", name, METRICS)
