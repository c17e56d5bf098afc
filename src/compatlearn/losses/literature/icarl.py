"""Regression to the old class mean: the regulariser of iCaRL."""

from jaxtyping import Float, Int
from torch import Tensor, nn

from ...arrays import Array, check_vectors
from ..batch import check_dimension
from ..regression import regression_loss


class IcarlLoss(nn.Module):
    """`regression_loss` to the centre of the class.

    Args:
        centres: (c, d_old) mean old feature of each class.

    Raises:
        DataError: the centres are not finite.

    Source: Rebuffi et al., iCaRL: Incremental classifier and representation learning, CVPR 2017, as a regulariser.
    """

    centres: Tensor

    def __init__(self, centres: Float[Array, "c d_old"]) -> None:
        super().__init__()
        self.register_buffer("centres", check_vectors(centres, "centres").clone())

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
        return regression_loss(features, self.centres[labels])
