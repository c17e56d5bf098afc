"""What ranks, what a verdict says and rests on: the closed sets of words that every layer shares."""

from typing import Literal, TypeAlias, get_args

from .errors import unknown

Metric: TypeAlias = Literal["euclidean", "cosine", "dot"]
METRICS: tuple[str, ...] = get_args(Metric)
Verdict: TypeAlias = Literal["yes", "no", "undecided"]
Primary: TypeAlias = Literal["top1", "ndcg10", "agreement"]  # the figure that a verdict is of
Cluster: TypeAlias = Literal["query", "class"]  # what is drawn together for an interval


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


def check_cluster(name: str) -> Cluster:
    """What an interval draws, by that name.

    Args:
        name: "query", each by itself, or "class": all queries of a class together.

    Returns:
        The same word.

    Raises:
        ConfigError: neither.
    """
    for cluster in get_args(Cluster):
        if name == cluster:
            return cluster
    raise unknown("cluster", name, get_args(Cluster))
