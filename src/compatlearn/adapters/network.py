"""The network of an adapter, with or without a hidden layer, and the loop that trains it on cached features."""

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..errors import TrainingError
from .linear import Map
from .task import Task

Loss = Callable[..., Tensor]
BATCH = 512  # rows of a minibatch, at most
QUIET = 5.0  # seconds between two lines of progress


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


def batch_of(count: int, most: int = BATCH) -> int:
    """Rows of a minibatch of `count` pairs."""
    return min(most, -(-count // 32))


def train_map(
    network: MapNetwork,
    task: Task,
    loss: Loss,
    labels: Int[Tensor, " n"] | None = None,
    *,
    epochs: int,
    batch: int = BATCH,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-2,
) -> MapNetwork:
    """The loop: minibatches of n/32 cached features, at most `batch`; AdamW, one-cycle rate.

    The same seed gives the same map on one machine. Progress is told every five seconds.

    Args:
        network: where training starts; it is changed.
        task: the pairs and the seed.
        loss: called as loss(features, labels, rows), rows being places in the pairs.
        labels: (n,) int64 classes that the loss is given; None gives zeros.
        epochs: passes over the pairs.
        batch: rows of a minibatch, at most.
        learning_rate: peak of the one-cycle rate.
        weight_decay: of AdamW.

    Raises:
        TrainingError: the loss is not finite.
    """
    learner = nn.ModuleList([network, *([loss] if isinstance(loss, nn.Module) else [])])
    optimizer = torch.optim.AdamW(learner.parameters(), lr=learning_rate, weight_decay=weight_decay)
    count = len(task.pairs)
    batch_size = batch_of(count, batch)  # few rows: still some steps an epoch
    steps = epochs * -(-count // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
    device = network.linear.weight.device
    classes = torch.zeros(count, dtype=torch.int64) if labels is None else labels.cpu()
    clock = _Clock(steps, task.tell)
    with torch.random.fork_rng(), torch.enable_grad():  # a loss may draw too
        torch.manual_seed(task.seed)
        for epoch in range(epochs):
            for rows in torch.randperm(count).split(batch_size):
                mapped = network(task.pairs.take(rows)[0].to(device, torch.float32))
                value = loss(mapped, classes[rows].to(device), rows.to(device))
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
                schedule.step()
                clock.tick()
                if not bool(torch.isfinite(value)):
                    raise TrainingError(f"the loss is {value.item()} in epoch {epoch + 1} of {epochs}; check the features")
    return network.eval().requires_grad_(False)


class _Clock:
    """Tells how far a training is, every few seconds."""

    def __init__(self, steps: int, tell: Callable[[str], None]) -> None:
        self.steps, self.tell, self.done = steps, tell, 0
        self.started = self.told = time.monotonic()

    def tick(self) -> None:
        self.done += 1
        now = time.monotonic()
        if now - self.told >= QUIET:
            self.told = now
            left = (now - self.started) * (self.steps - self.done) / self.done
            self.tell(f"trained to {self.done / self.steps:.0%}, {left:.0f} s left")


def scaled_network(task: Task, *, centred: bool = True, **sizes: Any) -> MapNetwork:
    """A network that sees new features of about unit size and gives old ones of the right size."""
    moments = task.moments
    device, d_new, d_old = moments.new.device, len(moments.new), len(moments.old)
    with torch.random.fork_rng():
        torch.manual_seed(task.seed)
        network = MapNetwork(d_new, d_old, unit=task.unit, **sizes).to(device)
    mean = moments.new / moments.count if centred else torch.zeros_like(moments.new)
    squares = [float(products.trace()) / moments.count for products in (moments.new_new, moments.old_old)]
    variance = squares[0] - float(mean.square().sum())
    variance = variance / d_new if centred else variance
    network.centre.copy_(mean)
    network.spread.fill_(variance**0.5 if variance > 1e-12 * squares[0] else 1.0)
    network.length.fill_(1.0 if task.unit or squares[1] == 0 else squares[1] ** 0.5)
    return network


def _perceptron(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """One hidden layer that gives zero until it is trained."""
    last = nn.Linear(hidden, outputs)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), last)
