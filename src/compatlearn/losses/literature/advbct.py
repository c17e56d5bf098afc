"""AdvBCT: features within elastic old class boundaries, distributed so that a discriminator takes them for old ones."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...arrays import Array
from ...errors import ConfigError
from ..batch import check_dimension, exact, whole_batch
from .boundaries import class_means, radii, unit_features


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradient, None


def reverse_gradient(values: Tensor, strength: float) -> Tensor:
    """The identity, whose gradient is reversed.

    Args:
        values: any shape.
        strength: the gradient is multiplied by −strength.

    Returns:
        The same values.

    Source: Ganin and Lempitsky, Unsupervised domain adaptation by backpropagation, ICML 2015.
    """
    return _Reversal.apply(values, strength)


def advbct_loss(
    features: Float[Tensor, "b d"],
    labels: Int[Tensor, " b"],
    centres: Float[Tensor, "c d"],
    radius: Float[Tensor, " c"],
    elastic: Float[Tensor, " c"],
) -> Float[Tensor, ""]:
    """Mean of [‖f̂ − c_y‖ − r̃_y]₊ over the features outside; r̃ = r ± |r − τ| σ(u) lies between r and τ, the mean of r.

    Args:
        features: (b, d) new features of the batch.
        labels: (b,) their classes.
        centres: (c, d) means of the old unit features.
        radius: (c,) r, distances of unit vectors.
        elastic: (c,) u, trained.

    Returns:
        The mean over the features outside; 0 where there is none.

    Source: Pan et al., Boundary-aware backward-compatible representation via adversarial learning, CVPR 2023; its code sets
    τ = 1.
    """
    reach = radius + (radius.mean() - radius) * elastic.sigmoid()
    distances = torch.linalg.vector_norm(F.normalize(features, dim=1) - centres[labels], dim=1)
    excess = (distances - reach[labels]).relu()
    return excess.sum() / (excess > 0).sum().clamp(min=1)


class AdvbctLoss(nn.Module):
    """`advbct_loss` + (E − e + 1)/E · cross-entropy of an old-against-new discriminator behind gradient reversal.

    e of E is the epoch and p the share of training completed; the reversal's strength is 2/(1 + e^{−10 p}) − 1. The
    discriminator itself is trained at full strength. It sees unit vectors on both sides: lengths alone would tell them apart.

    Args:
        old: (n, d_old) old feature of every training image, in the order of the training set.
        labels: (n,) their classes in [0, classes), each of which occurs.
        classes: number of classes.
        epochs: E ≥ 1 of the training run.
        seed: of the discriminator's initial weights.

    Raises:
        ConfigError: fewer than one epoch.
        DataError: the old features or labels are unusable.

    Source: Pan et al., Boundary-aware backward-compatible representation via adversarial learning, CVPR 2023. Its code adds up
    the cross-entropies of old and new features, each a mean; here the mean is over both together, half the weight.
    """

    old: Tensor
    centres: Tensor
    radius: Tensor
    images: Tensor

    def __init__(
        self, old: Float[Array, "n d_old"], labels: Int[Array, " n"], classes: int, *, epochs: int, seed: int = 0
    ) -> None:
        super().__init__()
        if epochs < 1:
            raise ConfigError(f"epochs must be at least 1; got {epochs}")
        rows, known = unit_features(old, labels)
        centres = class_means(rows, known, classes)
        self.register_buffer("old", rows, persistent=False)
        self._ddp_params_and_buffers_to_ignore = ["old"]  # the same on every process: DDP would send it with every batch
        self.register_buffer("centres", centres)
        self.register_buffer("radius", radii(rows, known, centres))
        self.register_buffer("images", torch.zeros((), dtype=torch.long))  # seen, by all processes
        self.elastic = nn.Parameter(torch.zeros(classes, dtype=rows.dtype))
        width = rows.shape[1]
        with torch.random.fork_rng(devices=[]):  # the model's own draws stay unchanged
            torch.manual_seed(seed)
            self.discriminator = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)).to(rows.dtype)
        self.epochs = epochs

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
        new, classes, places = whole_batch(features, labels, rows, self.old.shape[1])
        weight, strength = self.weights()
        self.images += len(new)
        with exact(new):
            new = new.to(self.old.dtype)
            inside = advbct_loss(new, classes, self.centres, self.radius, self.elastic)
            seen = torch.cat([self.old[places], reverse_gradient(F.normalize(new, dim=1), strength)])
            is_new = torch.arange(2 * len(new), device=new.device) >= len(new)
            told = F.binary_cross_entropy_with_logits(self.discriminator(seen)[:, 0], is_new.to(seen.dtype))
        return inside + weight * told

    def weights(self) -> tuple[float, float]:
        """What the images seen so far make of the schedule.

        Returns:
            The weight of the adversarial term and the strength of the reversal, both in [0, 1].
        """
        done = min(int(self.images) / len(self.old), self.epochs - 1e-9)  # in epochs
        strength = 2 / (1 + torch.exp(torch.tensor(-10 * done / self.epochs))) - 1
        return (self.epochs - int(done)) / self.epochs, float(strength)
