"""The ranking loss: a mapped query should rank the old vectors as the new model ranks its own, as after a full backfill."""

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
    """Cross-entropy of two distributions over the same m items, mean over the batch: which neighbour would be drawn.

    −Σ_j p_ij log q_ij with p_ij ∝ e^{−‖n_i − n_j‖²/τ_new}, the frozen new model in a gallery of its own, and
    q_ij ∝ e^{−‖f_i − o_j‖²/τ}, the mapped query in the old gallery. No classes are needed.

    Args:
        features: (b, d) mapped queries, d ≥ d_old.
        old, others: (m, d_old) old and (m, d_new) new features of the items.
        new: (b, d_new) new features of the batch.
        temperature, new_temperature: τ and τ_new > 0, squared lengths.
        own: (b, m), true where an item is the query itself; it is left out.

    Raises:
        IncompatibleError: the features have fewer dimensions than the old ones.

    Source: probabilistic knowledge transfer (Passalis and Tefas, ECCV 2018), from a model's own gallery to an old one.
    """
    near = nearness(old_dimensions(features, old.shape[1]), old, temperature, own)
    return _ranking_term(near, nearness(new, others, new_temperature, own))


def _ranking_term(near: Float[Tensor, "b m"], wanted: Float[Tensor, "b m"]) -> Float[Tensor, ""]:
    others = near > -torch.inf
    some = others.any(dim=1)  # a query that was compared with itself alone says nothing
    logarithms = near[some].log_softmax(dim=1).masked_fill(~others[some], 0)  # 0 · −∞ of the query itself
    return -(wanted[some].softmax(dim=1) * logarithms).sum() / max(len(near), 1)


class RankingLoss(nn.Module):
    """`ranking_loss` against a random sample of all cached pairs, drawn anew for every batch, and some `instance_loss`.

    Args:
        new, old: (n, d_new) and (n, d_old) features of the same items by both frozen models.
        instance: weight of the instance loss: a query should find its own item as well.
        temperature, sample: as in `NeighbourLoss`.
        unit: the mapped queries have unit length: another default of the temperature.

    Raises:
        IncompatibleError: another number of rows; ConfigError: a weight below 0.
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
        """Raise IncompatibleError if a model of so many dimensions has fewer than the old features."""
        check_dimension(dimension, self.old.shape[1])

    def forward(self, features: Float[Tensor, "b d"], labels: Int[Tensor, " b"], rows: Int[Tensor, " b"]) -> Float[Tensor, ""]:
        drawn = draw(self.old, self.sample)
        own = rows[:, None] == drawn
        compared = old_dimensions(features, self.old.shape[1])
        near = nearness(compared, self.old[drawn], self.temperature, own)
        loss = _ranking_term(near, nearness(self.new[rows], self.new[drawn], self.new_temperature, own))
        return loss + self.instance * instance_term(near, compared, self.old[rows], self.temperature)
