"""UniBCT: the random walk's classifier, its similarities from the new features and its vertices from the old, kept fresh."""

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
    """P_y = Σ_i π_i o_i of unit length; π are the random walk's weights of the class's new features.

    Args:
        new, old: features of the same images; labels: their classes.
        before: the classifier so far, which stays for classes without an image.
        temperature, damping: as in `random_walk_classifier`.

    Source: Zhang et al., Towards universal backward-compatible representation learning, IJCAI 2022.
    """
    rows = before.clone()
    for c in labels.unique().tolist():
        members = labels == c
        weights = as_tensor(random_walk_weights(new[members], temperature=temperature, damping=damping))
        rows[c] = unit_rows(weights.to(old.dtype) @ old[members])
    return rows


class UnibctLoss(nn.Module):
    """`influence_loss` against `unibct_classifier`, refreshed whenever an image comes again; 0 before the first time.

    Within an epoch no image comes twice, so that is the first batch of every epoch but one. The new features are those that
    training itself saw: augmented, and from weights up to an epoch old.

    Args:
        old: (n, d_old) old feature of every training image, in the order of the training set.
        labels: (n,) their classes in [0, classes), all of them there.
        scale: None for raw inner products, a number for `scale · cos`.
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
        """Raise IncompatibleError if a model of so many dimensions has fewer than the old features."""
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
        """A new classifier from the new features kept since the last one."""
        rows = self.seen.nonzero()[:, 0]
        options = {"temperature": self.temperature, "damping": self.damping}
        classifier = unibct_classifier(self.memory[rows], self.old[rows], self.labels[rows], self.classifier, **options)
        self.classifier.copy_(classifier)
        self.seen.zero_()
        self.ready.fill_(True)
