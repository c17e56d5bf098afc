"""Maps in closed form, as networks: Procrustes and ridge; seconds for any number of rows."""

from .linear import Map, procrustes, ridge, ridge_of
from .network import MapNetwork
from .task import Task


def procrustes_map(task: Task) -> MapNetwork:
    """`procrustes`, with the scale of a raw old space."""
    return _network(procrustes(task.pairs, unit=task.unit), task)


def centred_procrustes_map(task: Task) -> MapNetwork:
    """`procrustes` of vectors around their means: y = R (x − mean x) + mean y."""
    return _network(procrustes(task.pairs, unit=task.unit, centred=True), task)


def adjoint_map(task: Task) -> MapNetwork:
    """Wᵀ for the ridge map y → W y of the other direction: scores x · Wᵀ y are those of W y · x, without its lengths."""
    weight, _ = ridge(task.pairs.turned(), task.seed)
    return _network((weight.T, weight.new_zeros(weight.shape[1])), task)


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
