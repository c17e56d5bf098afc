"""The ranking loss: a mapped query should rank the old vectors as the new model ranks its own, as after a backfill."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..arrays import Array, check_vectors
from ..errors import ConfigError, IncompatibleError
from .batch import check_dimension, old_dimensions
from .neighbours import SAMPLE, default_temperature, draw, instance_term, nearness

SHARPNESS = 0.1  # temperature of the new model's own ranking, in mean squared distances to the mean new feature
INSTANCE = 0.3


def ranking_loss(
    features: Float[Tensor, "b d"],
    old: Float[Tensor, "m d_old"],
    new: Float[Tensor, "b d_new"],
    others: Float[Tensor, "m d_new"],
    *,
    temperature: float,
    new_temperature: float,
    own: Bool[Tensor, "b m"] | None = None,
) -> Float[Tensor, ""]:
    """Cross-entropy between two distributions over the same m items: which neighbour would be drawn.

    The mean over the batch of −Σ_j p_ij log q_ij, with p_ij ∝ e^{−‖n_i − n_j‖²/τ_new} for the frozen new model in its own
    gallery, and q_ij ∝ e^{−‖f_i − o_j‖²/τ} for the mapped query in the old gallery. It needs no classes.

    Args:
        features: (b, d) mapped queries, d ≥ d_old.
        old: (m, d_old) old features of the items.
        new: (b, d_new) new features of the batch.
        others: (m, d_new) new features of the items.
        temperature: τ > 0, a squared length in the old space.
        new_temperature: τ_new > 0, a squared length in the new space.
        own: (b, m), true where an item is the query itself; it is left out.

    Returns:
        The mean over the batch.

    Raises:
        IncompatibleError: the features have fewer dimensions than the old ones.

    Source: probabilistic knowledge transfer (Passalis and Tefas, ECCV 2018), from a model's own gallery to an old one.
    """
    near = nearness(old_dimensions(features, old.shape[1]), old, temperature, own)
    return _ranking_term(near, nearness(new, others, new_temperature, own))


def _ranking_term(near: Float[Tensor, "b m"], wanted: Float[Tensor, "b m"]) -> Float[Tensor, ""]:
    some = near.amax(dim=1) > -torch.inf  # a query that was compared only with itself says nothing
    count = max(len(near), 1)
    if not some.all():
        near, wanted = near[some], wanted[some]
    weights = wanted.softmax(dim=1)
    expected = (weights * near.masked_fill(weights == 0, 0)).sum(dim=1)  # 0 · −∞ of the query itself
    return (near.logsumexp(dim=1) - expected).sum() / count


class RankingLoss(nn.Module):
    """`ranking_loss` against a random sample of all cached pairs, drawn anew for every batch, plus some `instance_loss`.

    Args:
        new: (n, d_new) features of the items by the frozen new model.
        old: (n, d_old) features of the same items by the frozen old model.
        instance: weight of the instance loss: a query should find its own item as well.
        temperature: τ in mean squared lengths of an old feature; None is 0.2, or 0.1 with `unit`.
        sample: pairs that a batch is compared with; n or more takes all.
        unit: the mapped queries have unit length, which changes the default temperature.

    Raises:
        IncompatibleError: old and new features differ in their number of rows.
        ConfigError: a weight, temperature or sample out of range.
        DataError: the features are unusable.
    """

    new: Tensor
    old: Tensor

    def __init__(
        self,
        new: Float[Array, "n d_new"],
        old: Float[Array, "m d_old"],
        *,
        instance: float = INSTANCE,
        temperature: float | None = None,
        sample: int = SAMPLE,
        unit: bool = False,
    ) -> None:
        super().__init__()
        temperature = default_temperature(unit) if temperature is None else temperature
        if len(new) != len(old):
            raise IncompatibleError(f"{len(new)} new and {len(old)} old features; pair them: one row an item in both")
        if instance < 0 or temperature <= 0 or sample < 1:
            raise ConfigError(
                f"instance must be 0 or more, temperature above 0, sample at least 1; got {instance}, {temperature}, {sample}"
            )
        self.register_buffer("old", check_vectors(old, "old features").float(), persistent=False)
        self.register_buffer("new", check_vectors(new, "new features").float(), persistent=False)
        self.temperature = temperature * float(self.old.square().sum(dim=1).mean())
        self.new_temperature = SHARPNESS * max(float(self.new.var(dim=0, correction=0).sum()), 1e-12)
        self.instance, self.sample = instance, sample

    def check_dimension(self, dimension: int) -> None:
        """Check that the new model has room for the old space.

        Args:
            dimension: of the new model's features.

        Raises:
            IncompatibleError: it is below that of the old features.
        """
        check_dimension(dimension, self.old.shape[1])

    def forward(self, features: Float[Tensor, "b d"], labels: Int[Tensor, " b"], rows: Int[Tensor, " b"]) -> Float[Tensor, ""]:
        drawn = draw(self.old, self.sample)
        own = rows[:, None] == drawn
        compared = old_dimensions(features, self.old.shape[1])
        near = nearness(compared, self.old[drawn], self.temperature, own)
        loss = _ranking_term(near, nearness(self.new[rows], self.new[drawn], self.new_temperature, own))
        return loss + self.instance * instance_term(near, compared, self.old[rows], self.temperature)
