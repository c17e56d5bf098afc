"""The influence loss: cross-entropy against a frozen classifier of the old space."""

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..arrays import Array, check_vectors
from .batch import check_dimension, exact, old_dimensions


def influence_loss(
    features: Float[Tensor, "b d_new"],
    labels: Int[Tensor, " b"],
    classifier: Float[Tensor, "c d_old"],
    *,
    bias: Float[Tensor, " c"] | None = None,
    scale: float | None = None,
) -> Float[Tensor, ""]:
    """Softmax cross-entropy of the first d_old dimensions of the new features against a frozen classifier.

    Args:
        features: (b, d_new) of the new model, d_new ≥ d_old.
        labels: (b,) in [0, c).
        classifier: (c, d_old) pseudo classifier (or the old classifier itself).
        bias: (c,) of the old classifier, where it is known.
        scale: None for raw inner products (the length of a feature is the softmax scale, as in the paper); a number
            for `scale · cos`, for unit-norm spaces.

    Returns:
        The mean over the batch.

    Raises:
        IncompatibleError: the features have fewer dimensions than the classifier.

    Source: Non-Inherent Feature Compatible Learning, Eq. 6 and 12; Shen et al. (2020), Eq. 3.
    """
    compared = old_dimensions(features, classifier.shape[1])
    classifier = classifier.to(compared.dtype)
    with exact(compared):
        if scale is None:
            logits = F.linear(compared, classifier, bias)
        else:
            logits = scale * F.linear(F.normalize(compared, dim=1), F.normalize(classifier, dim=1), bias)
        return F.cross_entropy(logits, labels)


class InfluenceLoss(nn.Module):
    """`influence_loss` with its classifier, which is frozen and follows `.to()` and checkpoints.

    Args:
        classifier: (c, d_old) pseudo classifier, NumPy or torch.
        scale: None for raw inner products, a number for `scale · cos`.
        bias: (c,) of the old classifier, where it is known.

    Raises:
        DataError: the classifier is not finite.

    Examples:
        >>> import torch
        >>> loss = InfluenceLoss(torch.eye(2))
        >>> features = torch.tensor([[20.0, 0.0, 7.0]])  # the third dimension is free
        >>> float(loss(features, torch.tensor([0])))
        0.0
        >>> float(loss(features, torch.tensor([1])))
        20.0
    """

    classifier: Tensor
    bias: Tensor | None

    def __init__(
        self, classifier: Float[Array, "c d_old"], *, scale: float | None = None, bias: Float[Array, " c"] | None = None
    ) -> None:
        super().__init__()
        self.register_buffer("classifier", check_vectors(classifier, "classifier").clone())
        self.register_buffer("bias", None if bias is None else check_vectors(bias[None], "bias")[0].clone())
        self.scale = scale

    def check_dimension(self, dimension: int) -> None:
        """Check that the new model has room for the old space.

        Args:
            dimension: of the new model's features.

        Raises:
            IncompatibleError: it is below that of the old features.
        """
        check_dimension(dimension, self.classifier.shape[1])

    def forward(
        self, features: Float[Tensor, "b d_new"], labels: Int[Tensor, " b"], rows: Int[Tensor, " b"] | None = None
    ) -> Float[Tensor, ""]:
        return influence_loss(features, labels, self.classifier, bias=self.bias, scale=self.scale)
