"""Maps that are trained by gradient descent on cached features of two frozen models; minutes on a CPU."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..errors import TrainingError
from ..losses import InfluenceLoss, NeighbourLoss, RankingLoss
from ..losses.ranking import INSTANCE
from ..pseudo.table import build_classifier
from .linear import Map, Pairs, procrustes, ridge

UNIT_SCALE = 16.0  # of the cosine in the influence loss, where old features have unit length
Loss = Callable[..., Tensor]


class MapNetwork(nn.Module):
    """An affine map, and where it is trained also a hidden branch beside it or residual bottleneck blocks behind it.

    y = A x + b + V gelu(U x), then y ← y + V' gelu(U' y) for each block; x = (n − centre) / spread, and length · y is given.

    Args:
        hidden: units of the branch; 0 is none.
        blocks: how many bottlenecks, each of d_old/2 units.
        unit: scale what is given to unit length.
    """

    centre: Tensor
    spread: Tensor
    length: Tensor

    def __init__(self, d_new: int, d_old: int, *, hidden: int = 0, blocks: int = 0, unit: bool = False) -> None:
        super().__init__()
        self.sizes = {"d_new": d_new, "d_old": d_old, "hidden": hidden, "blocks": blocks, "unit": unit}
        self.linear = nn.Linear(d_new, d_old)
        self.branch = _perceptron(d_new, hidden, d_old) if hidden else None
        self.blocks = nn.ModuleList(_perceptron(d_old, max(d_old // 2, 1), d_old) for _ in range(blocks))
        self.unit = unit
        for name, value in (("centre", torch.zeros(d_new)), ("spread", torch.ones(())), ("length", torch.ones(()))):
            self.register_buffer(name, value)

    def forward(self, new: Float[Tensor, "b d_new"]) -> Float[Tensor, "b d_old"]:
        x = (new - self.centre) / self.spread
        y = self.linear(x) if self.branch is None else self.linear(x) + self.branch(x)
        for block in self.blocks:
            y = y + block(y)
        return F.normalize(y, dim=1) if self.unit else self.length * y

    @torch.no_grad()
    def start_from(self, fitted: Map) -> "MapNetwork":
        """Give what `fitted` gives, whatever centre, spread and length are; branches start at nothing."""
        weight, bias = fitted
        self.linear.weight.copy_(weight * self.spread / self.length)
        self.linear.bias.copy_((bias + weight @ self.centre.double()) / self.length)
        return self


def residual_mlp(
    pairs: Pairs, labels: Tensor | None, unit: bool, seed: int, *, epochs: int = 10, hidden: int = 256
) -> MapNetwork:
    """Ridge plus one hidden layer, trained on ‖g(n) − o‖² / mean ‖o‖²."""
    network = _network(pairs, unit, seed, hidden=hidden)
    return train_map(network.start_from(ridge(pairs, seed)), pairs, _regression(pairs), epochs=epochs, seed=seed)


def lambda_orthogonal(
    pairs: Pairs,
    labels: Tensor | None,
    unit: bool,
    seed: int,
    *,
    epochs: int = 10,
    threshold: float = 1.0,
    sharpness: float = 10.0,
) -> MapNetwork:
    """A matrix W (times one length) trained on ‖g(n) − o‖² / mean ‖o‖² + `orthogonal_penalty(W)`, from Procrustes on.

    Source: the λ-orthogonality of NeurIPS 2025; λ is the threshold.
    """
    network = _network(pairs, unit, seed, centred=False)
    rotation, bias = procrustes(pairs, seed, unit=True)
    network.start_from((rotation * network.length / network.spread, bias))
    network.linear.bias.requires_grad_(False)
    regression = _regression(pairs)

    def loss(features: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        return regression(features, labels, rows) + orthogonal_penalty(network.linear.weight, threshold, sharpness)

    return train_map(network, pairs, loss, epochs=epochs, seed=seed)


def orthogonal_penalty(weight: Float[Tensor, "a b"], threshold: float, sharpness: float) -> Float[Tensor, ""]:
    """σ(a (‖W Wᵀ − I‖ − λ)) · ‖W Wᵀ − I‖, Frobenius, of the smaller of W Wᵀ and Wᵀ W; a the sharpness, λ the threshold."""
    gram = weight @ weight.T if weight.shape[0] <= weight.shape[1] else weight.T @ weight
    excess = gram - torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    distance = (excess.square().sum() + torch.finfo(gram.dtype).tiny).sqrt()  # of an exact rotation: no NaN in its gradient
    return torch.sigmoid(sharpness * (distance - threshold)) * distance


def rbt(
    pairs: Pairs, labels: Tensor, unit: bool, seed: int, *, epochs: int = 10, blocks: int = 2, similarity: float = 1.0
) -> MapNetwork:
    """Residual bottleneck blocks, trained on the influence loss plus `similarity` · ‖g(n) − o‖² / mean ‖o‖².

    Source: Wang et al., Unified representation learning for cross model compatibility, BMVC 2020. The old model is a black
    box here: its classifier is replaced by the random-walk pseudo classifier.
    """
    network = _network(pairs, unit, seed, blocks=blocks).start_from(ridge(pairs, seed))
    influence, regression = _influence(pairs, labels, unit), _regression(pairs)

    def loss(features: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        return influence(features, labels, rows) + similarity * regression(features, labels, rows)

    return train_map(network, pairs, loss, labels, epochs=epochs, seed=seed)


def head(
    pairs: Pairs,
    labels: Tensor,
    unit: bool,
    seed: int,
    *,
    epochs: int = 10,
    hidden: int = 0,
    loss: Loss | None = None,
) -> MapNetwork:
    """The compatible head: ridge, trained on with a compatible loss on cached new features.

    Args:
        loss: called as loss(features, labels, rows), rows being places in `pairs`; by default the influence loss against the
            random-walk pseudo classifier, with a scale of 16 where old features have unit length.
        hidden: units of a layer beside the linear map; 0 is none.
    """
    network = _network(pairs, unit, seed, hidden=hidden).start_from(ridge(pairs, seed))
    return train_map(network, pairs, loss or _influence(pairs, labels, unit), labels, epochs=epochs, seed=seed)


def neighbour_head(
    pairs: Pairs,
    labels: Tensor | None,
    unit: bool,
    seed: int,
    *,
    instance: float = 0.0,
    epochs: int = 12,
    hidden: int = 1024,
    temperature: float | None = None,
) -> MapNetwork:
    """The compatible head with the neighbour loss: a query should find its class, or itself, among the old features.

    Args:
        labels: None leaves the instance loss alone.
        instance: weight of the instance loss.
    """
    old = pairs.take(slice(0, None))[1]
    loss = NeighbourLoss(old, labels, instance=instance, temperature=temperature, unit=unit)
    network = _network(pairs, unit, seed, hidden=hidden).start_from(ridge(pairs, seed))
    return train_map(network, pairs, loss, labels, epochs=epochs, seed=seed)


def instance_head(pairs: Pairs, labels: Tensor | None, unit: bool, seed: int, **options: Any) -> MapNetwork:
    """`neighbour_head` without classes."""
    return neighbour_head(pairs, None, unit, seed, instance=1.0, **options)


def ranking_head(
    pairs: Pairs,
    labels: Tensor | None,
    unit: bool,
    seed: int,
    *,
    instance: float = INSTANCE,
    epochs: int = 12,
    hidden: int = 1024,
    temperature: float | None = None,
) -> MapNetwork:
    """The compatible head with the ranking loss: a query ranks the old gallery as the new model would rank its own.

    Args:
        labels: not used.
        instance: weight of the instance loss.
    """
    loss = RankingLoss(*pairs.take(slice(0, None)), instance=instance, temperature=temperature, unit=unit)
    network = _network(pairs, unit, seed, hidden=hidden).start_from(ridge(pairs, seed))
    return train_map(network, pairs, loss, epochs=epochs, seed=seed)


def train_map(
    network: MapNetwork,
    pairs: Pairs,
    loss: Loss,
    labels: Tensor | None = None,
    *,
    epochs: int,
    seed: int,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-2,
) -> MapNetwork:
    """The loop: minibatches of n/32 cached features, at most 512; AdamW, one-cycle rate.

    The same seed gives the same map on one machine.

    Raises:
        TrainingError: the loss is not finite.
    """
    learner = nn.ModuleList([network, *([loss] if isinstance(loss, nn.Module) else [])])
    optimizer = torch.optim.AdamW(learner.parameters(), lr=learning_rate, weight_decay=weight_decay)
    count = len(pairs)
    batch_size = min(512, -(-count // 32))  # few rows: still some steps an epoch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=epochs * -(-count // batch_size))
    device = network.linear.weight.device
    classes = torch.zeros(count, dtype=torch.int64) if labels is None else labels
    with torch.random.fork_rng(), torch.enable_grad():  # a loss may draw too
        torch.manual_seed(seed)
        for epoch in range(epochs):
            for rows in torch.randperm(count).split(batch_size):
                mapped = network(pairs.take(rows)[0].to(device, torch.float32))
                value = loss(mapped, classes[rows].to(device), rows.to(device))
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
                schedule.step()
                if not bool(torch.isfinite(value)):
                    raise TrainingError(f"the loss is {value.item()} in epoch {epoch + 1} of {epochs}; check the features")
    return network.eval().requires_grad_(False)


def _network(pairs: Pairs, unit: bool, seed: int, *, centred: bool = True, **sizes: Any) -> MapNetwork:
    """A network that sees new features of about unit size and gives old ones of the right size."""
    new, old = pairs.take(slice(0, 1))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = MapNetwork(new.shape[1], old.shape[1], unit=unit, **sizes).to(new.device)
    count, total = len(pairs), torch.zeros(new.shape[1], dtype=torch.float64, device=new.device)
    squares = torch.zeros(2, dtype=torch.float64)
    for n, o in pairs.blocks():
        total += n.sum(0)
        squares += torch.stack([n.square().sum(), o.square().sum()]).cpu() / count
    mean = total / count if centred else torch.zeros_like(total)
    variance = squares[0] - float(mean.square().sum())
    variance = variance / new.shape[1] if centred else variance
    network.centre.copy_(mean)
    network.spread.fill_(float(variance) ** 0.5 if variance > 1e-12 * squares[0] else 1.0)
    network.length.fill_(1.0 if unit or squares[1] == 0 else float(squares[1]) ** 0.5)
    return network


def _perceptron(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """One hidden layer that gives zero until it is trained."""
    last = nn.Linear(hidden, outputs)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), last)


def _regression(pairs: Pairs) -> Loss:
    """Mean over the batch of ‖g(n) − o‖², in units of the mean of ‖o‖²."""
    mean_square = sum(float(old.square().sum()) for _, old in pairs.blocks()) / len(pairs) or 1.0

    def loss(features: Tensor, labels: Tensor, rows: Int[Tensor, " b"]) -> Tensor:
        old = pairs.take(rows.cpu())[1].to(features)
        return (features - old).square().sum(dim=1).mean() / mean_square

    return loss


def _influence(pairs: Pairs, labels: Tensor, unit: bool) -> nn.Module:
    old = pairs.take(slice(0, None))[1]
    classifier = build_classifier("random-walk", old, labels)
    return InfluenceLoss(classifier.float(), scale=UNIT_SCALE if unit else None).to(old.device)
