"""LCE: a trained classifier is held to the old class centres, and features are held within the old class boundaries."""

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...arrays import Array, unit_rows
from ..batch import check_dimension, exact, old_dimensions
from ..influence import influence_loss
from .boundaries import class_means, least_cosines, unit_features


def lce_loss(
    features: Float[Tensor, "b d_new"],
    labels: Int[Tensor, " b"],
    classifier: Float[Tensor, "c d_old"],
    centres: Float[Tensor, "c d_old"],
    boundaries: Float[Tensor, " c"],
    *,
    scale: float | None = None,
    weight: float = 100.0,
) -> Float[Tensor, ""]:
    """CE(V f, y) + weight · MSE(v̂, ĉ) + mean[boundary_y − f̂·ĉ_y]₊, where MSE is the mean over all classes and dimensions.

    Args:
        features: (b, d_new) of the new model, d_new ≥ d_old.
        labels: (b,) classes in [0, c).
        classifier: (c, d_old) V, trained.
        centres: (c, d_old) unit directions of the old classes.
        boundaries: (c,) cosine of the widest angle to its centre in each class.
        scale: None for raw inner products, a number for `scale · cos`.
        weight: of the mean squared error.

    Returns:
        The mean over the batch.

    Raises:
        IncompatibleError: the features have fewer dimensions than the old ones.

    Source: Meng et al., Learning compatible embeddings, ICCV 2021.
    """
    compared = old_dimensions(features, centres.shape[1])
    centres, boundaries = centres.to(compared.dtype), boundaries.to(compared.dtype)
    with exact(compared):
        aligned = F.mse_loss(F.normalize(classifier.to(compared.dtype), dim=1), centres)
        outside = (boundaries[labels] - (F.normalize(compared, dim=1) * centres[labels]).sum(dim=1)).relu().mean()
        return influence_loss(compared, labels, classifier, scale=scale) + weight * aligned + outside


class LceLoss(nn.Module):
    """`lce_loss` with the classifier it trains, which starts at the old centres.

    Args:
        old: (n, d_old) old feature of every training image.
        labels: (n,) their classes in [0, classes), each of which occurs.
        classes: number of classes.
        scale: None for raw inner products, a number for `scale · cos`.

    Raises:
        DataError: the old features or labels are unusable.
    """

    centres: Tensor
    boundaries: Tensor

    def __init__(
        self, old: Float[Array, "n d_old"], labels: Int[Array, " n"], classes: int, *, scale: float | None = None
    ) -> None:
        super().__init__()
        rows, known = unit_features(old, labels)
        centres = unit_rows(class_means(rows, known, classes))
        self.register_buffer("centres", centres)
        self.register_buffer("boundaries", least_cosines(rows, known, centres))
        self.classifier = nn.Parameter(centres.clone())
        self.scale = scale

    def check_dimension(self, dimension: int) -> None:
        """Check that the new model has room for the old space.

        Args:
            dimension: of the new model's features.

        Raises:
            IncompatibleError: it is below that of the old features.
        """
        check_dimension(dimension, self.centres.shape[1])

    def forward(
        self, features: Float[Tensor, "b d_new"], labels: Int[Tensor, " b"], rows: Int[Tensor, " b"] | None = None
    ) -> Float[Tensor, ""]:
        return lce_loss(features, labels, self.classifier, self.centres, self.boundaries, scale=self.scale)
