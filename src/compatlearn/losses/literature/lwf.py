"""LwF, distillation: the new feature should give the class probabilities of the old feature of the same image."""

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...arrays import Array, check_vectors
from ...errors import ConfigError
from ..batch import check_dimension, exact, old_dimensions


def lwf_loss(
    features: Float[Tensor, "b d_new"],
    old: Float[Tensor, "b d_old"],
    classifier: Float[Tensor, "c d_old"],
    *,
    temperature: float = 2.0,
) -> Float[Tensor, ""]:
    """KL(softmax(P o / τ) ‖ softmax(P f / τ)) · τ², mean over the batch; labels play no part.

    Args:
        features: (b, d_new), d_new ≥ d_old.
        old: (b, d_old) old features of the same images.
        classifier: (c, d_old) P, frozen.
        temperature: τ > 0; τ² preserves the size of the gradient. openBCT's code has 1.

    Returns:
        The mean over the batch.

    Raises:
        IncompatibleError: the features have fewer dimensions than the old ones.

    Source: Li and Hoiem, Learning without Forgetting, 2017; Hinton et al., 2015.
    """
    compared = old_dimensions(features, classifier.shape[1])
    classifier = classifier.to(compared.dtype)
    with exact(compared):
        new = F.log_softmax(F.linear(compared, classifier) / temperature, dim=1)
        target = F.log_softmax(F.linear(old.to(compared.dtype), classifier) / temperature, dim=1)
        return F.kl_div(new, target, reduction="batchmean", log_target=True) * temperature**2


class LwfLoss(nn.Module):
    """`lwf_loss` with its classifier and the cached old features, looked up by row.

    Args:
        classifier: (c, d_old) P, frozen.
        old: (n, d_old) old feature of every training image, in the order of the training set.
        temperature: τ > 0.

    Raises:
        ConfigError: the temperature is out of range.
        DataError: classifier or old features are not finite.
    """

    classifier: Tensor
    old: Tensor

    def __init__(self, classifier: Float[Array, "c d_old"], old: Float[Array, "n d_old"], *, temperature: float = 2.0) -> None:
        super().__init__()
        if temperature <= 0:
            raise ConfigError(f"temperature must be above 0; got {temperature}")
        self.register_buffer("classifier", check_vectors(classifier, "classifier").clone())
        self.register_buffer("old", check_vectors(old, "old features"), persistent=False)
        self.temperature = temperature

    def check_dimension(self, dimension: int) -> None:
        """Check that the new model has room for the old space.

        Args:
            dimension: of the new model's features.

        Raises:
            IncompatibleError: it is below that of the old features.
        """
        check_dimension(dimension, self.classifier.shape[1])

    def forward(
        self, features: Float[Tensor, "b d_new"], labels: Int[Tensor, " b"], rows: Int[Tensor, " b"]
    ) -> Float[Tensor, ""]:
        return lwf_loss(features, self.old[rows], self.classifier, temperature=self.temperature)
