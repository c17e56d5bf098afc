"""Asymmetric metric learning: new features are anchors, the fixed old features of the batch are their pairs.

Source: Budnik and Avrithis, Asymmetric metric learning for knowledge transfer, 2020. There, an anchor has one positive and
five negatives, mined once per epoch among 20,000 images, at most one of each class; here, all positives of the batch (their
mean is what one drawn at random gives on average) and the five hardest negatives of the batch.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ...arrays import Array, check_vectors
from ..batch import check_dimension, exact, whole_batch

NEGATIVES = 5  # of an anchor; the source has as many
MISSING = 4.0  # squared distance of what is not there: no unit vectors are farther apart
TINY = 1e-12  # the slope of the square root is infinite at 0


def asymmetric_contrastive_loss(
    features: Float[Tensor, "b d"],
    old: Float[Tensor, "b d"],
    labels: Int[Tensor, " b"],
    *,
    margin: float = 0.7,
    negatives: int = NEGATIVES,
) -> Float[Tensor, ""]:
    """½ D² of the pairs of one class (i ≠ j), and ½ [margin − D]₊² of each anchor's hardest negatives; D = ‖f̂_i − ô_j‖.

    Args:
        features: (b, d) new features.
        old: (b, d) old features of the same images.
        labels: (b,) their classes.
        margin: distance in [0, 2] from which a negative is left alone.
        negatives: of an anchor, at least 1, see `hardest_negatives`.

    Returns:
        The mean over the positive pairs, plus the mean over the anchors of the sum over their negatives. A part without
        pairs is 0.
    """
    squared, same = _squared_distances(features, old), labels[:, None] == labels
    near, _ = hardest_negatives(squared, labels, negatives)
    pushed = (margin - near.clamp(min=TINY).sqrt()).relu().square().sum(dim=1)
    return (_mean(squared, _positives(same)) + _mean(pushed, ~same.all(dim=1))) / 2


def asymmetric_triplet_loss(
    features: Float[Tensor, "b d"],
    old: Float[Tensor, "b d"],
    labels: Int[Tensor, " b"],
    *,
    margin: float = 0.1,
    negatives: int = NEGATIVES,
) -> Float[Tensor, ""]:
    """[D²_ip − D²_in + margin]₊ over p ≠ i of i's class and i's hardest negatives n; D = ‖f̂ − ô‖.

    Args:
        features: (b, d) new features.
        old: (b, d) old features of the same images.
        labels: (b,) their classes.
        margin: of squared distances of unit vectors, above 0.
        negatives: of an anchor, at least 1, see `hardest_negatives`.

    Returns:
        The mean over the positive pairs of the sum over the anchor's negatives; 0 where there is no triplet.
    """
    squared = _squared_distances(features, old)
    near, found = hardest_negatives(squared, labels, negatives)
    anchor, positive = _positives(labels[:, None] == labels).nonzero(as_tuple=True)
    violation = (squared[anchor, positive][:, None] - near[anchor] + margin).relu() * found[anchor]
    return violation.sum() / max(1, len(anchor))


def hardest_negatives(
    squared: Float[Tensor, "b m"], labels: Int[Tensor, " b"], count: int
) -> tuple[Float[Tensor, "b k"], Bool[Tensor, "b k"]]:
    """Squared distances to the nearest old features of other classes, at most one of each class.

    Args:
        squared: (b, b) squared distances from every new to every old feature of the batch.
        labels: (b,) classes.
        count: of negatives of an anchor.

    Returns:
        (b, k) squared distances, nearest first, and which of them there are; k is `count`, or the number of classes where
        that is less. What there is not is 4, the largest squared distance of unit vectors.
    """
    classes, numbered = labels.unique(return_inverse=True)
    places = numbered.expand(len(labels), -1)
    nearest = squared.new_full((len(labels), len(classes)), MISSING).scatter_reduce(1, places, squared, "amin")
    own = numbered[:, None] == torch.arange(len(classes), device=labels.device)
    near, chosen = nearest.masked_fill(own, MISSING).topk(min(count, len(classes)), dim=1, largest=False)
    return near, ~own.gather(1, chosen)


def _squared_distances(features: Float[Tensor, "b d"], old: Float[Tensor, "b d"]) -> Float[Tensor, "b b"]:
    """Of unit vectors."""
    with exact(features):
        return 2 - 2 * F.normalize(features, dim=1) @ F.normalize(old.to(features.dtype), dim=1).T


def _positives(same: Bool[Tensor, "b b"]) -> Bool[Tensor, "b b"]:
    return same & ~torch.eye(len(same), dtype=torch.bool, device=same.device)


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
