"""The neighbour loss: a new feature should find its class among the old features themselves, as a query will."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..arrays import Array, check_labels, check_vectors
from ..errors import ConfigError
from .batch import check_dimension, exact, old_dimensions

TEMPERATURE = 0.2  # in mean squared lengths of an old feature
UNIT_TEMPERATURE = 0.1  # where queries have unit length too: their distances differ less
SAMPLE = 2048  # old features that a batch is compared with


def neighbour_loss(
    features: Float[Tensor, "b d_new"],
    labels: Int[Tensor, " b"],
    old: Float[Tensor, "m d_old"],
    old_labels: Int[Tensor, " m"],
    *,
    temperature: float,
    own: Bool[Tensor, "b m"] | None = None,
    unit: bool = False,
) -> Float[Tensor, ""]:
    """−log of the probability that a neighbour drawn among old features has the label; nearer ones are drawn more often.

    With d² the squared Euclidean distance of the first d_old dimensions, mean over the batch of
    −log Σ_{same class} e^{−d²/τ} / Σ_{all} e^{−d²/τ}. As τ → 0 this counts the queries whose nearest old feature is of
    another class, which is what the cross test counts.

    Args:
        features: (b, d_new) of the new model, d_new ≥ d_old.
        labels: (b,) their classes.
        old: (m, d_old) old features, a sample of them or all.
        old_labels: (m,) their classes.
        temperature: τ > 0, a squared length.
        own: (b, m), true where an old feature is of the same image; it is left out.
        unit: scale the new features to unit length first, for spaces ranked by cosine.

    Returns: the mean over the images with an old feature of their class among those given; 0 where there is none.

    Raises:
        IncompatibleError: the features have fewer dimensions than the old ones.

    Source: neighbourhood components analysis (Goldberger et al., 2004), between two models and against frozen features.
    """
    compared = _compared(features, old.shape[1], unit)
    return _class_term(nearness(compared, old, temperature, own), labels, old_labels)


def _class_term(near: Float[Tensor, "b m"], labels: Int[Tensor, " b"], old_labels: Int[Tensor, " m"]) -> Float[Tensor, ""]:
    right = near.masked_fill(labels[:, None] != old_labels, -torch.inf)
    found = right.amax(dim=1) > -torch.inf  # others have nothing to find, and −inf has no gradient
    if not found.any():
        return near.masked_fill(near == -torch.inf, 0).sum() * 0
    return (near[found].logsumexp(dim=1) - right[found].logsumexp(dim=1)).mean()


def instance_loss(
    features: Float[Tensor, "b d_new"],
    same: Float[Tensor, "b d_old"],
    old: Float[Tensor, "m d_old"],
    *,
    temperature: float,
    own: Bool[Tensor, "b m"] | None = None,
    unit: bool = False,
) -> Float[Tensor, ""]:
    """−log of the probability that the neighbour drawn is the old feature of the same image: no classes are needed.

    Args:
        features, old, temperature, own, unit: as in `neighbour_loss`.
        same: (b, d_old) old feature of each image itself.

    Source: instance discrimination as in RACT (Zhang et al., 2022), with Euclidean distances.
    """
    compared = _compared(features, same.shape[1], unit)
    return instance_term(nearness(compared, old, temperature, own), compared, same, temperature)


def instance_term(
    near: Float[Tensor, "b m"], compared: Float[Tensor, "b d"], same: Float[Tensor, "b d"], temperature: float
) -> Float[Tensor, ""]:
    others, same = near.logsumexp(dim=1), same.to(compared.dtype)
    target = (2 * (compared * same).sum(dim=1) - same.square().sum(dim=1)) / temperature
    return (torch.logaddexp(others, target) - target).mean()


def _compared(features: Float[Tensor, "b d_new"], d_old: int, unit: bool) -> Float[Tensor, "b d_old"]:
    compared = old_dimensions(features, d_old)
    return F.normalize(compared, dim=1) if unit else compared


def default_temperature(unit: bool) -> float:
    """In mean squared lengths of an old feature."""
    return UNIT_TEMPERATURE if unit else TEMPERATURE


def draw(old: Float[Tensor, "n d_old"], sample: int) -> Int[Tensor, " m"]:
    """Rows of the cache that a batch is compared with: all, or a sample with replacement."""
    if sample >= len(old):
        return torch.arange(len(old), device=old.device)
    return torch.randint(len(old), (sample,), device=old.device)


def nearness(
    compared: Float[Tensor, "b d"], old: Float[Tensor, "m d"], temperature: float, own: Bool[Tensor, "b m"] | None
) -> Float[Tensor, "b m"]:
    """−d²/τ without the query's own squared length, which is in every sum alike; −∞ for its own image."""
    old = old.to(compared.dtype)
    with exact(compared):
        near = (2 * compared @ old.T - old.square().sum(dim=1)) / temperature
    return near if own is None else near.masked_fill(own, -torch.inf)


class NeighbourLoss(nn.Module):
    """`neighbour_loss` and `instance_loss` against a random sample of all cached old features, drawn anew for every batch.

    Old features never change, so no memory of them grows stale.

    Args:
        old: (n, d_old) old feature of every training image, in the order of the training set.
        labels: (n,) their classes; None leaves the instance loss alone.
        instance: weight of the instance loss beside the other. It costs accuracy on the classes of the training set, and
            is what carries over to classes that are not among them.
        temperature: τ in mean squared lengths of an old feature; None is 0.2, of unit length 0.1.
        sample: old features a batch is compared with; n or more takes all of them. Four for each class at least are taken.
        unit: compare directions: new features are scaled to unit length. The old ones should have it.

    Raises:
        ConfigError: a temperature or sample out of range, or neither labels nor an instance weight.
    """

    old: Tensor
    labels: Tensor | None

    def __init__(
        self,
        old: Float[Array, "n d_old"],
        labels: Int[Array, " n"] | None,
        *,
        instance: float = 0.0,
        temperature: float | None = None,
        sample: int = SAMPLE,
        unit: bool = False,
    ) -> None:
        super().__init__()
        temperature = default_temperature(unit) if temperature is None else temperature
        if temperature <= 0 or sample < 1 or instance < 0:
            raise ConfigError(
                f"temperature must be above 0, sample at least 1, instance 0 or more; got {temperature}, {sample}, {instance}"
            )
        if labels is None and instance == 0:
            raise ConfigError("without labels only the instance loss can be had; pass labels, or an instance weight above 0")
        self.register_buffer("old", check_vectors(old, "old features", nonzero=unit).float(), persistent=False)
        known = None if labels is None else check_labels(labels, len(self.old)).to(self.old.device)
        self.register_buffer("labels", known, persistent=False)
        self.temperature = temperature * float(self.old.square().sum(dim=1).mean())
        self.instance, self.unit = instance, unit
        self.sample = min(len(self.old), max(sample, 0 if known is None else 4 * (int(known.max()) + 1)))

    def check_dimension(self, dimension: int) -> None:
        """Raise IncompatibleError if a model of so many dimensions has fewer than the old features."""
        check_dimension(dimension, self.old.shape[1])

    def forward(
        self, features: Float[Tensor, "b d_new"], labels: Int[Tensor, " b"], rows: Int[Tensor, " b"]
    ) -> Float[Tensor, ""]:
        drawn = draw(self.old, self.sample)
        compared = _compared(features, self.old.shape[1], self.unit)
        near = nearness(compared, self.old[drawn], self.temperature, rows[:, None] == drawn)
        loss = compared.new_zeros(())
        if self.labels is not None:
            loss = loss + _class_term(near, labels, self.labels[drawn])
        if self.instance:
            loss = loss + self.instance * instance_term(near, compared, self.old[rows], self.temperature)
        return loss
