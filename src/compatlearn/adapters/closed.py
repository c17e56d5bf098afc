"""Maps in closed form, as networks: Procrustes and ridge; seconds for any number of rows."""

from .linear import Map, procrustes, ridge_of
from .network import MapNetwork
from .task import Task


def procrustes_map(task: Task) -> MapNetwork:
    """`procrustes`, with the scale of a raw old space."""
    return _network(procrustes(task.pairs, unit=task.unit), task)


def ridge_map(task: Task, *, strength: float | None = None) -> MapNetwork:
    """`ridge`.

    Args:
        strength: instead of the one that does best on held-out rows.
    """
    return _network(task.ridge if strength is None else ridge_of(task.halves, strength), task)


def _network(fitted: Map, task: Task) -> MapNetwork:
    weight = fitted[0]
    network = MapNetwork(weight.shape[1], weight.shape[0], unit=task.unit).to(weight.device)
    return network.start_from(fitted).eval().requires_grad_(False)
