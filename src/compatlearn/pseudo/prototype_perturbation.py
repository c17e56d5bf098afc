"""Old class centres pushed apart where they crowd each other, as a pseudo classifier."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..arrays import Array, as_tensor, like, unit_rows
from ..errors import ConfigError
from .centres import mean_classifier


def prototype_perturbation_classifier(
    vectors: Float[Array, "n d"], labels: Int[Array, " n"], *, strength: float = 0.5, classes: int | None = None
) -> Float[Array, "c d"]:
    """Unit class means, each pushed away from the mean of its crowd: classes whose cosine to it is unusually large.

    Args:
        vectors: (n, d) features of the old model, finite.
        labels: (n,) class of each row, in [0, classes).
        strength: how far, in distances from the crowd's mean; 0 gives `mean_classifier`.
        classes: number of classes; by default one more than the largest label.

    Returns:
        (classes, d) unit rows, NumPy or torch as `vectors` is.

    Raises:
        ConfigError: the strength is negative.
        DataError: as in `mean_classifier`.

    Source: the neighbour-driven form of Prototype Perturbation, arXiv:2503.14824, 2025.
    """
    if strength < 0:
        raise ConfigError(f"strength must be 0 or more; got {strength}")
    return like(perturb(as_tensor(mean_classifier(vectors, labels, classes=classes)), strength), vectors)


def perturb(centres: Float[Tensor, "c d"], strength: float) -> Float[Tensor, "c d"]:
    """ĉ + strength · (ĉ − m) at unit length; m is the mean of ĉ's crowd.

    Args:
        centres: (c, d) unit rows ĉ.
        strength: 0 or more.

    Returns:
        (c, d) unit rows. The crowd of a centre are those whose cosine to it exceeds the mean over all pairs by one standard
        deviation; a centre without a crowd stays where it is.
    """
    count = len(centres)
    if count < 3:
        return centres  # no pair is unusual
    cosines = (centres @ centres.T).fill_diagonal_(-torch.inf)
    pairs = cosines[~torch.eye(count, dtype=torch.bool, device=centres.device)]
    crowd = (cosines > pairs.mean() + pairs.std()).to(centres.dtype)
    sizes = crowd.sum(dim=1, keepdim=True)
    means = crowd @ centres / sizes.clamp(min=1)
    return unit_rows(torch.where(sizes > 0, centres + strength * (centres - means), centres))
