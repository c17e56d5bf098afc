"""The neighbour loss: a new feature should find its class among the old features, as a query will."""

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

    The mean over the batch of −log Σ_{same class} e^{−d²/τ} / Σ_{all} e^{−d²/τ}, where d² is the squared Euclidean distance
    in the first d_old dimensions. As τ → 0 this counts the queries whose nearest old feature belongs to another class, which
    is what the cross test counts.

    Args:
        features: (b, d_new) of the new model, d_new ≥ d_old.
        labels: (b,) their classes.
        old: (m, d_old) old features, all or a sample.
        old_labels: (m,) their classes.
        temperature: τ > 0, a squared length.
        own: (b, m), true where an old feature belongs to the same image; it is left out.
        unit: scale the new features to unit length first, for spaces ranked by cosine.

    Returns:
        The mean over the images with an old feature of their class among those given; 0 where there is none.

    Raises:
        IncompatibleError: the features have fewer dimensions than the old ones.

    Source: neighbourhood components analysis (Goldberger et al., 2004), between two models and against frozen features.
    """
    compared = _compared(features, old.shape[1], unit)
    return _class_term(nearness(compared, old, temperature, own), labels, old_labels)


def _class_term(near: Float[Tensor, "b m"], labels: Int[Tensor, " b"], old_labels: Int[Tensor, " m"]) -> Float[Tensor, ""]:
    right = near.masked_fill(labels[:, None] != old_labels, -torch.inf)
    found = right.amax(dim=1) > -torch.inf  # the others have nothing to find, and −inf has no gradient
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
    """−log of the probability that the neighbour drawn is the old feature of the same image; needs no classes.

    Args:
        features: (b, d_new) of the new model, d_new ≥ d_old.
        same: (b, d_old) old feature of the image itself.
        old: (m, d_old) old features, all or a sample.
        temperature: τ > 0, a squared length.
        own: (b, m), true where an old feature belongs to the same image; it is left out of the sample.
        unit: scale the new features to unit length first, for spaces ranked by cosine.

    Returns:
        The mean over the batch.

    Raises:
        IncompatibleError: the features have fewer dimensions than the old ones.

    Source: instance discrimination as in RACT (Zhang et al., 2022), with Euclidean distances.
    """
    compared = _compared(features, same.shape[1], unit)
    return instance_term(nearness(compared, old, temperature, own), compared, same, temperature)


def instance_term(
    near: Float[Tensor, "b m"], compared: Float[Tensor, "b d"], same: Float[Tensor, "b d"], temperature: float
) -> Float[Tensor, ""]:
    """`instance_loss` from what the losses share.

    Args:
        near: (b, m) from `nearness`.
        compared: (b, d) new features, cut and scaled as they are compared.
        same: (b, d) old feature of the image itself.
        temperature: τ > 0, a squared length.

    Returns:
        The mean over the batch.
    """
    others, same = near.logsumexp(dim=1), same.to(compared.dtype)
    target = (2 * (compared * same).sum(dim=1) - same.square().sum(dim=1)) / temperature
    return (torch.logaddexp(others, target) - target).mean()


def _compared(features: Float[Tensor, "b d_new"], d_old: int, unit: bool) -> Float[Tensor, "b d_old"]:
    compared = old_dimensions(features, d_old)
    return F.normalize(compared, dim=1) if unit else compared


def default_temperature(unit: bool) -> float:
    """The τ used where none is given, in mean squared lengths of an old feature."""
    return UNIT_TEMPERATURE if unit else TEMPERATURE


def draw(old: Float[Tensor, "n d_old"], sample: int) -> Int[Tensor, " m"]:
    """Rows of the cache that a batch is compared with: all, or a sample with replacement.

    Args:
        old: (n, d_old) cached old features.
        sample: how many rows to draw; n or more takes all.

    Returns:
        (m,) row numbers.
    """
    if sample >= len(old):
        return torch.arange(len(old), device=old.device)
    return torch.randint(len(old), (sample,), device=old.device)


def nearness(
    compared: Float[Tensor, "b d"], old: Float[Tensor, "m d"], temperature: float, own: Bool[Tensor, "b m"] | None
) -> Float[Tensor, "b m"]:
    """−d²/τ without the query's own squared length, which is the same in every sum.

    Args:
        compared: (b, d) queries.
        old: (m, d) old features.
        temperature: τ > 0, a squared length.
        own: (b, m), true where an old feature belongs to the same image.

    Returns:
        (b, m); −∞ where `own` is true.
    """
    old = old.to(compared.dtype)
    with exact(compared):
        near = torch.addmm(-old.square().sum(dim=1) / temperature, compared * (2 / temperature), old.T)
    return near if own is None else near.masked_fill_(own, -torch.inf)


class NeighbourLoss(nn.Module):
    """`neighbour_loss` and `instance_loss` against a random sample of all cached old features, drawn anew for every batch.

    Old features never change, so the cache never grows stale.

    Args:
        old: (n, d_old) old feature of every training image, in the order of the training set.
        labels: (n,) their classes; None for the instance loss alone.
        instance: weight of the instance loss. It costs accuracy on the classes of the training set, and is what carries over
            to other classes.
        temperature: τ in mean squared lengths of an old feature; None is 0.2, or 0.1 with `unit`.
        sample: old features that a batch is compared with, at least four per class; n or more takes all.
        unit: compare directions: new features are scaled to unit length, which the old ones should already have.

    Raises:
        ConfigError: a temperature, sample or weight out of range, or neither labels nor an instance weight.
        DataError: the old features or labels are unusable.

    Examples:
        >>> import torch
        >>> old, labels = torch.eye(4), torch.tensor([0, 0, 1, 1])
        >>> loss = NeighbourLoss(old, labels, temperature=0.1)
        >>> rows = torch.tensor([0])  # its own old feature is left out: row 1 is the other one of its class
        >>> round(float(loss(old[[1]], labels[rows], rows)), 4), round(float(loss(old[[2]], labels[rows], rows)), 4)
        (0.0, 20.0)
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
        drawn = draw(self.old, self.sample)
        compared = _compared(features, self.old.shape[1], self.unit)
        near = nearness(compared, self.old[drawn], self.temperature, rows[:, None] == drawn)
        loss = compared.new_zeros(())
        if self.labels is not None:
            loss = loss + _class_term(near, labels, self.labels[drawn])
        if self.instance:
            loss = loss + self.instance * instance_term(near, compared, self.old[rows], self.temperature)
        return loss
