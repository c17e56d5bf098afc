"""The network of an adapter, with or without a hidden layer, and the loop that trains it on cached features."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import TrainingError
from .linear import Map
from .pairs import Pairs

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


def scaled_network(pairs: Pairs, unit: bool, seed: int, *, centred: bool = True, **sizes: Any) -> MapNetwork:
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
