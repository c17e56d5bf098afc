"""MixBCT: one margin classifier for a mixture of new and credible old features, so that both share its classes."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ...arrays import Array, unit_rows
from ..batch import check_dimension, exact, whole_batch
from .boundaries import class_means, credible_rows, unit_features


def mixbct_loss(
    features: Float[Tensor, "b d"],
    labels: Int[Tensor, " b"],
    classifier: Float[Tensor, "c d"],
    *,
    scale: float = 64.0,
    margin: float = 0.5,
) -> Float[Tensor, ""]:
    """Cross-entropy of scale · cos(θ), with `margin` added to the angle at the own class; lengths play no part.

    Where θ + margin would exceed π, cos θ − margin · sin margin takes over and keeps falling.

    Args:
        features: (b, d) features.
        labels: (b,) classes in [0, c).
        classifier: (c, d) rows of any length.
        scale: of the cosines; by default that of MixBCT's code.
        margin: an angle in radians; by default that of MixBCT's code.

    Returns:
        The mean over the batch.

    Source: Deng et al., ArcFace: Additive angular margin loss, CVPR 2019.
    """
    with exact(features):
        cosines = F.linear(F.normalize(features, dim=1), F.normalize(classifier.to(features.dtype), dim=1))
        own = cosines.gather(1, labels[:, None])
        sine = (1 - own.square()).clamp(min=1e-6).sqrt()  # its slope is infinite at 0
        moved = own * math.cos(margin) - sine * math.sin(margin)
        moved = torch.where(own > -math.cos(margin), moved, own - margin * math.sin(margin))
        return F.cross_entropy(scale * cosines.scatter(1, labels[:, None], moved), labels)


def mixture(features: Float[Tensor, "b d"], old: Float[Tensor, "b d"], replaced: Bool[Tensor, " b"]) -> Float[Tensor, "b d"]:
    """New directions, some replaced by old ones; all of unit length, or their length would tell which is which.

    Args:
        features: (b, d) new features.
        old: (b, d) old features of the same images.
        replaced: (b,) true where the old one is taken.

    Returns:
        (b, d) unit rows.
    """
    return torch.where(replaced[:, None], F.normalize(old, dim=1), F.normalize(features, dim=1))


class MixbctLoss(nn.Module):
    """`mixbct_loss` of the `mixture`: a share of each batch, drawn among its credible rows, is old.

    In the source this is the only loss, and new features have the dimension of the old ones. Here new features may have
    more, and the class term of training, on all of them, remains beside it: nothing else would train the rest.

    Args:
        old: (n, d_old) old feature of every training image, in the order of the training set.
        labels: (n,) their classes in [0, classes), each of which occurs.
        classes: number of classes.
        share: of the batch that is replaced; less where fewer rows are credible.
        seed: of the draws, which are the same on every process.

    Raises:
        DataError: the old features or labels are unusable.

    Source: MixBCT: Towards self-adapting backward-compatible training, 2023.
    """

    old: Tensor
    credible: Tensor
    batches: Tensor

    def __init__(
        self, old: Float[Array, "n d_old"], labels: Int[Array, " n"], classes: int, *, share: float = 0.3, seed: int = 0
    ) -> None:
        super().__init__()
        rows, known = unit_features(old, labels)
        centres = class_means(rows, known, classes)
        self.register_buffer("old", rows, persistent=False)
        self._ddp_params_and_buffers_to_ignore = ["old"]  # the same on every process: DDP would send it with every batch
        self.register_buffer("credible", credible_rows(rows, known, centres), persistent=False)
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))
        self.classifier = nn.Parameter(unit_rows(centres))
        self.share, self.seed = share, seed

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
        mixed = mixture(new, self.old[places].to(new.dtype), self.replaced(places))
        self.batches += 1
        return mixbct_loss(mixed, classes, self.classifier)

    def replaced(self, rows: Int[Tensor, " b"]) -> Bool[Tensor, " b"]:
        """Which images of this batch are replaced by their old features.

        Args:
            rows: (b,) rows of the training set.

        Returns:
            (b,) true where the old feature is taken.
        """
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + int(self.batches))
        order = torch.randperm(len(rows), generator=generator).to(rows.device)
        order = order[self.credible[rows[order]]][: int(self.share * len(rows))]
        return torch.zeros_like(rows, dtype=torch.bool).index_fill(0, order, True)
