"""Compatible losses: each a pure function, and a module that holds its frozen state.

Every module is called as `loss(features, labels, rows)`: (b, d_new) features, (b,) labels, (b,) rows of the training set.
The class term CE(W f, y) is the training loop's own and not part of these.
"""

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from .arrays import Array, check_vectors
from .errors import IncompatibleError


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

    Raises:
        IncompatibleError: the features have fewer dimensions than the classifier.

    Source: Non-Inherent Feature Compatible Learning, Eq. 6 and 12; Shen et al. (2020), Eq. 3.
    """
    compared = old_dimensions(features, classifier.shape[1])
    if scale is None:
        logits = F.linear(compared, classifier.to(compared.dtype), bias)
    else:
        logits = scale * F.linear(F.normalize(compared, dim=1), F.normalize(classifier.to(compared.dtype), dim=1), bias)
    return F.cross_entropy(logits, labels)


def regression_loss(features: Float[Tensor, "b d_new"], old: Float[Tensor, "b d_old"]) -> Float[Tensor, ""]:
    """Mean over the batch of ‖f[:d_old] − o‖², o the old feature of the same image: the paper's L2 baseline.

    Raises:
        IncompatibleError: the features have fewer dimensions than the old ones.
    """
    compared = old_dimensions(features, old.shape[1])
    return (compared - old.to(compared.dtype)).square().sum(dim=1).mean()


def old_dimensions(features: Float[Tensor, "b d_new"], d_old: int) -> Float[Tensor, "b d_old"]:
    """The dimensions that are compared with old features, in float32 at least."""
    if features.shape[1] < d_old:
        raise IncompatibleError(
            f"the old features have {d_old} dimensions, the new model gives {features.shape[1]}; "
            f"train it with dimension={d_old}, which adds a linear layer"
        )
    compared = features[:, :d_old]
    return compared.float() if compared.element_size() < 4 else compared


class InfluenceLoss(nn.Module):
    """`influence_loss` with its classifier: frozen, follows `.to()` and checkpoints.

    Args:
        classifier: (c, d_old) pseudo classifier, NumPy or torch.
        scale: None for raw inner products, a number for `scale · cos`.
        bias: (c,) of the old classifier, where it is known.
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

    def forward(
        self, features: Float[Tensor, "b d_new"], labels: Int[Tensor, " b"], rows: Int[Tensor, " b"] | None = None
    ) -> Float[Tensor, ""]:
        return influence_loss(features, labels, self.classifier, bias=self.bias, scale=self.scale)


class RegressionLoss(nn.Module):
    """`regression_loss` against cached old features of the whole training set, looked up by row.

    Args:
        old: (n, d_old) old feature of every training image, in the order of the training set.
    """

    old: Tensor

    def __init__(self, old: Float[Array, "n d_old"]) -> None:
        super().__init__()
        self.register_buffer("old", check_vectors(old, "old features"), persistent=False)

    def forward(
        self, features: Float[Tensor, "b d_new"], labels: Int[Tensor, " b"], rows: Int[Tensor, " b"]
    ) -> Float[Tensor, ""]:
        return regression_loss(features, self.old[rows])
