"""BT²: a learned change of basis holds a compatible part and an independent model's feature in one embedding."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal

from ...arrays import Array, check_vectors
from ...errors import IncompatibleError
from ..batch import exact, old_dimensions
from ..influence import influence_loss

EXTRA = 32  # dimensions beyond those of the independent model


def bt2_loss(
    features: Float[Tensor, "b d"],
    labels: Int[Tensor, " b"],
    old: Float[Tensor, "b d_old"],
    independent: Float[Tensor, "b d_star"],
    classifier: Float[Tensor, "c d_old"],
    first: Float[Tensor, "d_old d_old"],
    second: Float[Tensor, "d_star d_star"],
    *,
    scale: float | None = None,
) -> Float[Tensor, ""]:
    """1 − cos(h, φ*) + 10 · CE(P e, y) + 5 · (1 − cos(e, o)), means over the batch.

    e is the embedding's first d_old dimensions and P the classifier. With k = d − d_star, the paper makes the embedding from
    two parts, a with k and z with d_star numbers, as (R_o (a, z₁), z₂), where z = (z₁, z₂) = R_p h. Both rotations are
    orthogonal, so here they are undone instead: h is read from whatever embedding the network gives.

    Args:
        features: (b, d) embeddings, d > d_star, d ≥ d_old ≥ k.
        labels: (b,) classes in [0, c).
        old: (b, d_old) old features o of the same images.
        independent: (b, d_star) features φ* of an independent model for the same images.
        classifier: (c, d_old) pseudo classifier.
        first: (d_old, d_old) R_o, orthogonal.
        second: (d_star, d_star) R_p, orthogonal.
        scale: None for raw inner products, a number for `scale · cos`, for unit-norm spaces.

    Returns:
        The mean over the batch.

    Raises:
        IncompatibleError: the embedding has a dimension that does not fit.

    Source: Zhou et al., BT²: Backward-compatible training with basis transformation, ICCV 2023. There the parts have fixed
    lengths; here the network sets them, as a raw old space requires.
    """
    d_old, d_star = old.shape[1], independent.shape[1]
    extra = _extra(features.shape[1], d_old, d_star)
    compared = old_dimensions(features, d_old)
    with exact(compared):
        turned = compared @ first.to(compared.dtype)  # rows: R_oᵀ e
        h = torch.cat([turned[:, extra:], features[:, d_old:].to(turned.dtype)], dim=1) @ second.to(turned.dtype)
        away = 1 - F.cosine_similarity(h, independent.to(h.dtype), dim=1).mean()
        apart = 1 - F.cosine_similarity(compared, old.to(h.dtype), dim=1).mean()
        return away + 10 * influence_loss(compared, labels, classifier, scale=scale) + 5 * apart


def fitting_dimension(d_old: int, d_star: int) -> int:
    """The dimension of an embedding with room for both, and for 32 numbers that the independent model lacks.

    Args:
        d_old: of the old features.
        d_star: of the independent model's features.

    Returns:
        d for `bt2_loss`.
    """
    return max(d_star + min(EXTRA, d_old), d_old)


def _extra(dimension: int, d_old: int, d_star: int) -> int:
    """k, provided that the embedding has room for both."""
    if not 0 < dimension - d_star <= d_old <= dimension:
        raise IncompatibleError(
            f"bt2 embeds in more dimensions than the independent model's {d_star} and no fewer than the old {d_old}; "
            f"got {dimension}: pass --dimension {fitting_dimension(d_old, d_star)}"
        )
    return dimension - d_star


class Bt2Loss(nn.Module):
    """`bt2_loss` with the two rotations that it learns, which start at the identity.

    Args:
        old: (n, d_old) old feature of every training image, in the order of the training set.
        independent: (n, d_star) features of the same images by an independently trained new model.
        classifier: (c, d_old) pseudo classifier.
        scale: None for raw inner products, a number for `scale · cos`.

    Raises:
        IncompatibleError: old and independent features differ in their number of rows.
        DataError: features or classifier are not finite, or a feature has length zero.
    """

    old: Tensor
    independent: Tensor
    classifier: Tensor

    def __init__(
        self,
        old: Float[Array, "n d_old"],
        independent: Float[Array, "m d_star"],
        classifier: Float[Array, "c d_old"],
        *,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        if len(old) != len(independent):
            raise IncompatibleError(
                f"{len(old)} old and {len(independent)} independent features; give both for every training image"
            )
        self.register_buffer("old", check_vectors(old, "old features", nonzero=True), persistent=False)
        self.register_buffer("independent", check_vectors(independent, "independent features", nonzero=True), persistent=False)
        self._ddp_params_and_buffers_to_ignore = ["old", "independent"]  # the same on every process
        self.register_buffer("classifier", check_vectors(classifier, "classifier").clone())
        self.first, self.second = (_turn(rows.shape[1]) for rows in (self.old, self.independent))
        self.scale = scale

    def check_dimension(self, dimension: int) -> None:
        """Check that embeddings have room for both spaces.

        Args:
            dimension: of the new model's embeddings.

        Raises:
            IncompatibleError: it does not fit.
        """
        _extra(dimension, self.old.shape[1], self.independent.shape[1])

    def forward(self, features: Float[Tensor, "b d"], labels: Int[Tensor, " b"], rows: Int[Tensor, " b"]) -> Float[Tensor, ""]:
        with exact(features):
            turns: list[Tensor] = [turn.weight for turn in (self.first, self.second)]  # type: ignore[misc]
        return bt2_loss(features, labels, self.old[rows], self.independent[rows], self.classifier, *turns, scale=self.scale)


def _turn(dimension: int) -> nn.Module:
    layer = nn.Linear(dimension, dimension, bias=False)
    nn.init.eye_(layer.weight)
    return orthogonal(layer)
