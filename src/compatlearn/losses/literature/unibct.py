"""UniBCT: the random walk's classifier with similarities of new features and vertices of old ones, refreshed."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...arrays import Array, as_tensor, check_labels, check_vectors, unit_rows
from ...pseudo.centres import mean_classifier, random_walk_weights
from ..batch import check_dimension, whole_batch
from ..influence import influence_loss


def unibct_classifier(
    new: Float[Tensor, "n d"],
    old: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    before: Float[Tensor, "c d"],
    *,
    temperature: float = 0.05,
    damping: float = 0.9,
) -> Float[Tensor, "c d"]:
    """P_y = Σ_i π_i o_i at unit length, where π are the random walk's weights of the class's new features.

    Args:
        new: (n, d) new features.
        old: (n, d) old features of the same images.
        labels: (n,) their classes.
        before: (c, d) the classifier so far, kept for classes without an image.
        temperature: T > 0 of the random walk.
        damping: λ in [0, 1) of the random walk.

    Returns:
        (c, d) unit rows, where `before` has them.

    Raises:
        ConfigError: temperature or damping out of range.
        DataError: a new feature has length zero.

    Source: Zhang et al., Towards universal backward-compatible representation learning, IJCAI 2022.
    """
    rows = before.clone()
    for c in labels.unique().tolist():
        members = labels == c
        weights = as_tensor(random_walk_weights(new[members], temperature=temperature, damping=damping))
        rows[c] = unit_rows(weights.to(old.dtype) @ old[members])
    return rows


class UnibctLoss(nn.Module):
    """`influence_loss` against `unibct_classifier`, refreshed whenever an image appears again; 0 until the first refresh.

    Within an epoch no image appears twice, so the refresh happens in the first batch of every epoch except the first. The new
    features are those that training itself computed: augmented, and from weights up to an epoch old.

    Args:
        old: (n, d_old) old feature of every training image, in the order of the training set.
        labels: (n,) their classes in [0, classes), each of which occurs.
        classes: number of classes.
        temperature: T > 0 of the random walk.
        damping: λ in [0, 1) of the random walk.
        scale: None for raw inner products, a number for `scale · cos`.

    Raises:
        DataError: the old features or labels are unusable.
    """

    memory: Tensor
    seen: Tensor
    classifier: Tensor
    ready: Tensor
    old: Tensor
    labels: Tensor

    def __init__(
        self,
        old: Float[Array, "n d_old"],
        labels: Int[Array, " n"],
        classes: int,
        *,
        temperature: float = 0.05,
        damping: float = 0.9,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        vectors = check_vectors(old, "old features", nonzero=True)
        known = check_labels(labels, len(vectors)).to(vectors.device)
        self.register_buffer("memory", torch.zeros_like(vectors))
        self.register_buffer("seen", torch.zeros(len(vectors), dtype=torch.bool, device=vectors.device))
        self.register_buffer("classifier", as_tensor(mean_classifier(vectors, known, classes=classes)))
        self.register_buffer("ready", torch.zeros((), dtype=torch.bool, device=vectors.device))
        self.register_buffer("old", vectors, persistent=False)
        self.register_buffer("labels", known, persistent=False)
        self.temperature, self.damping, self.scale = temperature, damping, scale

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
        new, _, places = whole_batch(features.detach(), labels, rows, self.old.shape[1])
        if self.seen[places].any():
            self.refresh()
        self.memory[places] = new.to(self.memory.dtype)
        self.seen[places] = True
        loss = influence_loss(features, labels, self.classifier, scale=self.scale)
        return loss if self.ready else loss * 0

    def refresh(self) -> None:
        """Rebuild the classifier from the new features collected since the last refresh."""
        rows = self.seen.nonzero()[:, 0]
        options = {"temperature": self.temperature, "damping": self.damping}
        classifier = unibct_classifier(self.memory[rows], self.old[rows], self.labels[rows], self.classifier, **options)
        self.classifier.copy_(classifier)
        self.seen.zero_()
        self.ready.fill_(True)
