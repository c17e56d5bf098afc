"""Regression: every new feature is pulled towards one old vector, of its own image or of its class."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..arrays import Array, check_vectors
from .batch import check_dimension, old_dimensions


def regression_loss(features: Float[Tensor, "b d_new"], old: Float[Tensor, "b d_old"]) -> Float[Tensor, ""]:
    """Mean over the batch of ‖f[:d_old] − o‖², o the old feature of the same image: the paper's L2 baseline.

    With the class means of the old features for o, this is iCaRL's regulariser.

    Args:
        features: (b, d_new) of the new model, d_new ≥ d_old.
        old: (b, d_old) old features of the same images.

    Returns:
        The mean over the batch, a squared length.

    Raises:
        IncompatibleError: the features have fewer dimensions than the old ones.

    Examples:
        >>> import torch
        >>> float(regression_loss(torch.tensor([[3.0, 4.0, 9.0]]), torch.zeros(1, 2)))  # the third dimension is free
        25.0

    Source: Non-Inherent Feature Compatible Learning, section 4.3.
    """
    compared = old_dimensions(features, old.shape[1])
    return (compared - old.to(compared.dtype)).square().sum(dim=1).mean()


def weakened_regression_loss(
    features: Float[Tensor, "b d_new"], old: Float[Tensor, "b d_old"], *, threshold: float = 0.2, weight: float = 10.0
) -> Float[Tensor, ""]:
    """weight · mean[‖f̂ − ô‖ − threshold]₊: directions that are near enough are left alone.

    Args:
        features: (b, d_new) of the new model, d_new ≥ d_old.
        old: (b, d_old) old features of the same images.
        threshold: distance of unit vectors in [0, 2) up to which nothing is pulled.
        weight: factor of the loss.

    Returns:
        The mean over the batch.

    Raises:
        IncompatibleError: the features have fewer dimensions than the old ones.
    """
    new, same = _directions(features, old)
    return weight * (torch.linalg.vector_norm(new - same, dim=1) - threshold).relu().mean()


def cosine_regression_loss(features: Float[Tensor, "b d_new"], old: Float[Tensor, "b d_old"]) -> Float[Tensor, ""]:
    """Mean over the batch of 1 − f̂·ô.

    Args:
        features: (b, d_new) of the new model, d_new ≥ d_old.
        old: (b, d_old) old features of the same images.

    Returns:
        The mean over the batch, in [0, 2].

    Raises:
        IncompatibleError: the features have fewer dimensions than the old ones.

    Source: Budnik and Avrithis, Asymmetric metric learning for knowledge transfer, 2020, the regression there.
    """
    new, same = _directions(features, old)
    return 1 - (new * same).sum(dim=1).mean()


def _directions(
    features: Float[Tensor, "b d_new"], old: Float[Tensor, "b d_old"]
) -> tuple[Float[Tensor, "b d_old"], Float[Tensor, "b d_old"]]:
    compared = old_dimensions(features, old.shape[1])
    return F.normalize(compared, dim=1), F.normalize(old.to(compared.dtype), dim=1)


class RegressionLoss(nn.Module):
    """A loss against cached old features of the whole training set, looked up by row.

    Args:
        old: (n, d_old) old feature of every training image, in the order of the training set.
        loss: `regression_loss`, or another function of features and old features of the same images.

    Raises:
        DataError: the old features are not finite.

    Examples:
        >>> import torch
        >>> loss = RegressionLoss(torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
        >>> labels, rows = torch.tensor([5]), torch.tensor([1])  # labels play no part; row 1 is (1, 1)
        >>> float(loss(torch.tensor([[4.0, 5.0]]), labels, rows))
        25.0
    """

    old: Tensor

    def __init__(self, old: Float[Array, "n d_old"], loss: Callable[[Tensor, Tensor], Tensor] = regression_loss) -> None:
        super().__init__()
        self.register_buffer("old", check_vectors(old, "old features"), persistent=False)
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
        return self.loss(features, self.old[rows])
