"""Asymmetric metric learning: new features are anchors, the fixed old features of the batch are their pairs.

Source: Budnik and Avrithis, Asymmetric metric learning for knowledge transfer, 2020.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...arrays import Array, check_vectors
from ..batch import check_dimension, exact, whole_batch


def asymmetric_contrastive_loss(
    features: Float[Tensor, "b d"], old: Float[Tensor, "b d"], labels: Int[Tensor, " b"], *, margin: float = 0.5
) -> Float[Tensor, ""]:
    """Mean of 1 − f̂_i·ô_j over pairs of one class (i ≠ j), plus mean of f̂_i·ô_j − margin over pairs of two classes above it.

    The source's code has another form, ½D² + ½[0.7 − D]₊² of distances D of unit vectors, on mined pairs.

    Args:
        features: (b, d) new features.
        old: (b, d) old features of the same images.
        labels: (b,) their classes.
        margin: cosine in [−1, 1) that pairs of different classes may have.

    Returns:
        The sum of both means; a part without pairs is 0.
    """
    cosines, same = _cosines(features, old), labels[:, None] == labels
    positive = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    excess = (cosines - margin).relu()
    return _mean(1 - cosines, positive) + _mean(excess, ~same & (excess > 0))


def asymmetric_triplet_loss(
    features: Float[Tensor, "b d"], old: Float[Tensor, "b d"], labels: Int[Tensor, " b"], *, margin: float = 0.1
) -> Float[Tensor, ""]:
    """Mean of margin − f̂_i·ô_p + f̂_i·ô_n over the triplets where it is positive: p ≠ i of i's class, n of another.

    Args:
        features: (b, d) new features.
        old: (b, d) old features of the same images.
        labels: (b,) their classes.
        margin: a difference of cosines, above 0; the source's code has 0.05, as 0.1 of squared distances.

    Returns:
        The mean over the violated triplets; 0 where there is none.
    """
    cosines, same = _cosines(features, old), labels[:, None] == labels
    anchor, positive = (same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)).nonzero(as_tuple=True)
    violation = (margin - cosines[anchor, positive][:, None] + cosines[anchor]).relu()  # (pairs, b)
    return _mean(violation, ~same[anchor] & (violation > 0))


def _cosines(features: Float[Tensor, "b d"], old: Float[Tensor, "b d"]) -> Float[Tensor, "b b"]:
    with exact(features):
        return F.normalize(features, dim=1) @ F.normalize(old.to(features.dtype), dim=1).T


def _mean(values: Tensor, chosen: Tensor) -> Float[Tensor, ""]:
    return (values * chosen).sum() / chosen.sum().clamp(min=1)


class AsymmetricLoss(nn.Module):
    """A loss of the new features, old features and labels of a batch, that of all processes.

    Args:
        old: (n, d_old) old feature of every training image, in the order of the training set.
        loss: `asymmetric_contrastive_loss`, `asymmetric_triplet_loss` or a function like them.

    Raises:
        DataError: the old features are not finite, or one has length zero.
    """

    old: Tensor

    def __init__(self, old: Float[Array, "n d_old"], loss: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.register_buffer("old", check_vectors(old, "old features", nonzero=True), persistent=False)
        self.loss = loss

    def check_dimension(self, dimension: int) -> None:
        """Check that the new model has room for the old space.

        Args:
            dimension: of the new model's features.

        Raises:
            IncompatibleError: it is below that of the old features.
        """
        check_dimension(dimension, self.old.shape[1])

    def forward(
        self, features: Float[Tensor, "b d_new"], labels: Int[Tensor, " b"], rows: Int[Tensor, " b"]
    ) -> Float[Tensor, ""]:
        compared, classes, places = whole_batch(features, labels, rows, self.old.shape[1])
        return self.loss(compared, self.old[places].to(compared.dtype), classes)
