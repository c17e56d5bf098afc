"""Between old and mapped queries: spherical interpolation."""

from pathlib import Path

import torch
from jaxtyping import Float

from ..arrays import Array, check_vectors, like
from ..errors import ConfigError, IncompatibleError
from ..features.features import Features
from .adapter import Adapter, load_adapter


def slerp(old_query: Float[Array, "n d"], mapped: Float[Array, "m d_mapped"], weight: float) -> Float[Array, "n d"]:
    """Mix old and mapped queries on the unit sphere: (sin((1 − w) θ) ô + sin(w θ) m̂) / sin θ, of length (1 − w) ‖o‖ + w ‖m‖.

    Opposite vectors have no unique path between them: for w < ½ the old query's direction is returned, otherwise the
    mapped one's.

    Args:
        old_query: (n, d) old queries, finite, none of length zero.
        mapped: (n, d) the same queries by the new model, mapped.
        weight: w in [0, 1]: 0 is the old query, 1 the mapped one.

    Returns:
        (n, d) of the kind and type that `old_query` has.

    Raises:
        ConfigError: the weight is out of range.
        IncompatibleError: the shapes differ.
        DataError: a vector of length zero, NaN or infinity.

    Source: Shoemake, Animating rotation with quaternion curves, SIGGRAPH 1985.

    Example:
        >>> import numpy as np
        >>> slerp(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]), 0.5).round(3)
        array([[0.707, 0.707]])
    """
    if not 0 <= weight <= 1:
        raise ConfigError(f"the weight of slerp must be in [0, 1]; got {weight}")
    if old_query.shape != mapped.shape:
        raise IncompatibleError(
            f"old queries are {tuple(old_query.shape)} and mapped ones {tuple(mapped.shape)}; give the same queries by both"
        )
    o, m = check_vectors(old_query, "old queries", nonzero=True), check_vectors(mapped, "mapped queries", nonzero=True)
    m = m.to(o.device)
    lengths = [torch.linalg.vector_norm(rows.double(), dim=1, keepdim=True) for rows in (o, m)]
    a, b = o.double() / lengths[0], m.double() / lengths[1]
    apart, sum_ = (a - b).norm(dim=1, keepdim=True), (a + b).norm(dim=1, keepdim=True)
    angle = 2 * torch.atan2(apart, sum_)  # exact near 0 and π, where the arc cosine is not
    first, second = (torch.sin(share * angle) / torch.sin(angle) for share in (1 - weight, weight))
    straight = torch.sin(angle) < 1e-6
    mixed = torch.where(straight, a if weight < 0.5 else b, first * a + second * b)
    length = (1 - weight) * lengths[0] + weight * lengths[1]
    return like((length * mixed).to(o.dtype), old_query)


class Mixed:
    """An adapter whose result is mixed, by `slerp`, with the old features of the same rows."""

    def __init__(self, adapter: Adapter, old: Array, weight: float) -> None:
        self.adapter, self.old, self.weight = adapter, old, weight
        self.d_new, self.d_old = adapter.d_new, adapter.d_old
        self.space_new, self.space_old = adapter.space_new, adapter.space_old

    def __call__(self, new: Array) -> Array:
        return slerp(self.old, self.adapter(new), self.weight)


def query_map(path: Path | None, weight: float | None, old: Features, new: Features) -> Adapter | Mixed | None:
    """The adapter of a file, or None without one; with a weight, mixed with the old queries, in their order.

    Args:
        path: the adapter's file, or None.
        weight: w of `slerp`, or None for mapped queries alone.
        old: features of the queries by the old model.
        new: features of the queries by the new model.

    Raises:
        ConfigError: a weight without an adapter.
        IncompatibleError: dimensions that do not fit.
    """
    if path is None:
        if weight is not None:
            raise ConfigError(f"--slerp {weight} mixes old queries with mapped ones; pass --adapter too, or leave it out")
        return None
    adapter = load_adapter(path)
    for features, expected, name in ((new, adapter.d_new, "new"), (old, adapter.d_old, "old")):
        if features.dimension != expected:
            raise IncompatibleError(
                f"the adapter {path} is for {name} features of {expected} dimensions; these have {features.dimension}: "
                "fit one on features of these two models"
            )
    return adapter if weight is None else Mixed(adapter, old.vectors, weight)
