"""Kernel ridge regression: a smooth map that is not linear, in closed form, exact to ten thousand pairs.

The map is y(x) = mean + Σᵢ k(x, xᵢ) aᵢ with k the sum of a linear kernel and of a Gaussian one on whitened directions, and
(K + λI) a = targets − mean. What it gives is then drawn towards the true targets of the pairs that lie nearest to it, which
a map that averages over its doubts stays away from.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from .agreement import overlap
from .task import Task

EXACT = 10_000  # pairs that are solved exactly; of more, so many are landmarks:
LANDMARKS = 4_000
BLOCK = 2048  # rows mapped at a time
STRENGTH = 0.05
NEIGHBOURS, DRAW = 5, 0.4  # pairs that draw a result towards them, and how much
FLOOR = 0.1  # of the mean variance, added before whitening
KERNELS = ((0.25, 0.6), (0.5, 0.8), (0.0, 0.4))  # whitening and temperature that are tried
CHOOSING = 2000  # pairs that choose between them, at most
ASKING = 0.2  # share of these that ask; none of them is fitted


@dataclass(frozen=True)
class Kernel:
    """k(x, z) = exp(−‖φ(x) − φ(z)‖²/2T) + (x − μ)·(z − μ)/v, φ the direction of the whitened x.

    Attributes:
        centre: (d,) μ, the mean of the pairs' x.
        whitener: (d, d) (C + c·tr C/d)^−p for the covariance C; for p = 0 a scale alone.
        temperature: T, above 0.
        spread: v, the mean of ‖x − μ‖².
        directions: φ has unit length; else it is x on a scale.
    """

    centre: Float[Tensor, " d"]
    whitener: Float[Tensor, "d d"]
    temperature: float
    spread: float
    directions: bool

    @classmethod
    def of(cls, inputs: Float[Tensor, "m d"], whitening: float, temperature: float) -> "Kernel":
        """The kernel that the mean and covariance of some inputs give.

        Args:
            inputs: (m, d) float64.
            whitening: p, from 0 to 0.5: how far directions of much variance are shortened.
            temperature: T.
        """
        centre = inputs.mean(dim=0)
        spread = float((inputs - centre).square().sum(dim=1).mean()) or 1.0
        if whitening == 0:
            scale = float(inputs.square().sum(dim=1).mean().sqrt()) or 1.0
            return cls(centre, torch.eye(inputs.shape[1], dtype=inputs.dtype) / scale, temperature, spread, False)
        values, vectors = torch.linalg.eigh((inputs - centre).T @ (inputs - centre) / len(inputs))
        damped = values.clamp(min=0) + FLOOR * values.mean().clamp(min=1e-12)
        return cls(centre, vectors * damped**-whitening, temperature, spread, True)

    def features(self, inputs: Float[Tensor, "m d"]) -> Float[Tensor, "m d"]:
        """φ."""
        if not self.directions:
            return inputs @ self.whitener
        return F.normalize((inputs - self.centre) @ self.whitener, dim=1)

    def gaussian(self, features: Float[Tensor, "a d"], others: Float[Tensor, "b d"]) -> Float[Tensor, "a b"]:
        """The Gaussian part of k, of features."""
        squares = features.square().sum(dim=1)[:, None] + others.square().sum(dim=1) - 2 * features @ others.T
        return squares.clamp_(min=0).div_(-2 * self.temperature).exp_()

    def gram(self, inputs: Float[Tensor, "a d"], others: Float[Tensor, "b d"]) -> Float[Tensor, "a b"]:
        """k of every pair of inputs."""
        linear = (inputs - self.centre) @ (others - self.centre).T / self.spread
        return self.gaussian(self.features(inputs), self.features(others)) + linear


class KernelNetwork(nn.Module):
    """The fitted map, as a torch module with nothing to train.

    Args:
        d_new: dimensions that go in.
        d_old: dimensions that come out.
        pairs: m, how many pairs it holds.
        drawing: how many of them, the first, may draw results towards their targets; None: all.
        temperature: of the kernel.
        directions: of the kernel.
        neighbours: pairs nearest to a result that draw it towards their targets; 0 is none.
        draw: how much, of the length of the result.
        unit: what comes out has unit length.
    """

    centre: Tensor
    whitener: Tensor
    features: Tensor
    weights: Tensor
    slope: Tensor
    mean: Tensor
    targets: Tensor

    def __init__(
        self,
        d_new: int,
        d_old: int,
        *,
        pairs: int,
        drawing: int | None = None,
        temperature: float,
        directions: bool,
        neighbours: int = NEIGHBOURS,
        draw: float = DRAW,
        unit: bool = False,
        kind: str = "kernel",
    ) -> None:
        super().__init__()
        self.sizes: dict[str, Any] = {
            "kind": kind,
            "d_new": d_new,
            "d_old": d_old,
            "pairs": pairs,
            "drawing": drawing,
            "temperature": temperature,
        }
        self.sizes |= {"directions": directions, "neighbours": neighbours, "draw": draw, "unit": unit}
        shapes = {"centre": (d_new,), "whitener": (d_new, d_new), "features": (pairs, d_new), "weights": (pairs, d_old)}
        shapes |= {"slope": (d_new, d_old), "mean": (d_old,), "targets": (pairs if drawing is None else drawing, d_old)}
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape))
        self.kernel = Kernel(self.centre, self.whitener, temperature, 1.0, directions)
        self.neighbours, self.draw, self.unit = neighbours, draw, unit

    def forward(self, new: Float[Tensor, "b d_new"]) -> Float[Tensor, "b d_old"]:
        return torch.cat([self._mapped(block) for block in new.split(BLOCK)])

    def _mapped(self, inputs: Float[Tensor, "b d_new"]) -> Float[Tensor, "b d_old"]:
        kernel = Kernel(self.centre, self.whitener, self.kernel.temperature, 1.0, self.kernel.directions)
        found = kernel.gaussian(kernel.features(inputs), self.features) @ self.weights
        found += (inputs - self.centre) @ self.slope + self.mean
        return drawn(found, self.targets, neighbours=self.neighbours, draw=self.draw, unit=self.unit)


def drawn(
    found: Float[Tensor, "b d"],
    targets: Float[Tensor, "m d"],
    *,
    neighbours: int,
    draw: float,
    unit: bool,
    own: Bool[Tensor, "b m"] | None = None,
) -> Float[Tensor, "b d"]:
    """Results drawn towards the mean of the targets nearest to them: unit(ŷ + w · unit(mean)), or (y + w · mean)/(1 + w).

    Args:
        found: (b, d) what a map gives.
        targets: (m, d) of the pairs.
        neighbours: how many targets; 0 is none.
        draw: w.
        unit: results and targets have unit length.
        own: (b, m) targets that a row must not see.
    """
    found = F.normalize(found, dim=1) if unit else found
    count = min(neighbours, len(targets) - (0 if own is None else 1))
    if count < 1 or draw == 0:
        return found
    near = nearness(found, targets)
    if own is not None:
        near.masked_fill_(own, -torch.inf)
    mean = targets[near.topk(count, dim=1).indices].mean(dim=1)
    return F.normalize(found + draw * F.normalize(mean, dim=1), dim=1) if unit else (found + draw * mean) / (1 + draw)


def nearness(queries: Float[Tensor, "b d"], items: Float[Tensor, "m d"]) -> Float[Tensor, "b m"]:
    """q·x − ‖x‖²/2, which ranks as the distance does, and as the cosine among unit vectors."""
    return queries @ items.T - items.square().sum(dim=1) / 2


def kernel_ridge_map(
    task: Task,
    *,
    whitening: float | None = None,
    temperature: float | None = None,
    strength: float = STRENGTH,
    neighbours: int = NEIGHBOURS,
    draw: float = DRAW,
    landmarks: int | None = None,
    drawing: int | None = None,
) -> KernelNetwork:
    """Fit kernel ridge regression.

    Args:
        task: the pairs.
        whitening: p of the kernel, 0 to 0.5; None: what retrieves best among `KERNELS` on pairs kept out.
        temperature: T of the kernel; None: the one that goes with the whitening.
        strength: λ, above 0.
        neighbours: pairs that draw a result towards them.
        draw: how much.
        drawing: how many pairs, the first, may draw: those of items where further pairs are queries; None: all.
        landmarks: pairs that carry the map; None: all of up to 10,000, else 4,000 (Nyström).

    Source: Saunders, Gammerman and Vovk, Ridge regression learning algorithm in dual variables, ICML 1998; landmarks: Rudi,
    Camoriano and Rosasco, Less is more: Nyström computational regularization, NeurIPS 2015, equation 8.
    """
    inputs, targets = (side.double().cpu() for side in task.pairs.take(slice(0, None)))
    if whitening is None:
        whitening, usual = _best_kernel(inputs, targets, task, strength, neighbours, draw)
    else:
        usual = dict(KERNELS).get(whitening, KERNELS[0][1])
    kernel = Kernel.of(inputs, whitening, usual if temperature is None else temperature)
    count = landmarks or (len(inputs) if len(inputs) <= EXACT else LANDMARKS)
    chosen = _landmarks(len(inputs), count, task.seed)
    drawers = chosen if drawing is None else chosen[chosen < drawing]
    mean = targets.mean(dim=0)
    weights = _solved(kernel, inputs, targets - mean, chosen, strength)
    network = KernelNetwork(
        inputs.shape[1],
        targets.shape[1],
        pairs=len(chosen),
        drawing=len(drawers),
        temperature=kernel.temperature,
        directions=kernel.directions,
        neighbours=neighbours,
        draw=draw,
        unit=task.unit,
    )
    values = {"centre": kernel.centre, "whitener": kernel.whitener, "features": kernel.features(inputs[chosen])}
    values |= {"weights": weights, "mean": mean, "targets": targets[drawers]}
    values["slope"] = (inputs[chosen] - kernel.centre).T @ weights / kernel.spread
    network.load_state_dict({name: value.float() for name, value in values.items()})
    return network.eval().requires_grad_(False)


def _landmarks(count: int, wanted: int, seed: int) -> Int64[Tensor, " m"]:
    if wanted >= count:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:wanted].sort().values


def _solved(
    kernel: Kernel,
    inputs: Float[Tensor, "n d"],
    targets: Float[Tensor, "n e"],
    chosen: Int64[Tensor, " m"],
    strength: float,
) -> Float[Tensor, "m e"]:
    """(K + λI)⁻¹ Y; with fewer landmarks than pairs (KᵐⁿKⁿᵐ + λKᵐᵐ)⁻¹ KᵐⁿY, which is the same where all are landmarks."""
    system = kernel.gram(inputs[chosen], inputs[chosen])
    if len(chosen) == len(inputs):
        system.diagonal().add_(strength)
        return _cholesky_solve(system, targets)
    system.mul_(strength)
    sides = torch.zeros(len(chosen), targets.shape[1], dtype=targets.dtype)
    for rows in _blocks(len(inputs)):
        part = kernel.gram(inputs[rows], inputs[chosen])
        system.addmm_(part.T, part)
        sides.addmm_(part.T, targets[rows])
    system.diagonal().add_(1e-9 * float(system.diagonal().mean()))
    return _cholesky_solve(system, sides)


def _cholesky_solve(system: Float[Tensor, "m m"], sides: Float[Tensor, "m e"]) -> Float[Tensor, "m e"]:
    solved: Tensor = torch.cholesky_solve(sides, torch.linalg.cholesky(system))
    return solved


def _blocks(count: int) -> Iterator[slice]:
    return (slice(start, start + BLOCK) for start in range(0, count, BLOCK))


def _best_kernel(
    inputs: Float[Tensor, "n d"],
    targets: Float[Tensor, "n e"],
    task: Task,
    strength: float,
    neighbours: int,
    draw: float,
) -> tuple[float, float]:
    """The kernel under which pairs kept out, as queries of the target side, find what they find among true targets.

    Every pair is in the gallery, mapped by a fit that has seen neither it nor any of those that ask: leaving one pair out of
    a fit has the closed form yᵢ − aᵢ / (K + λI)⁻¹ᵢᵢ.

    Source: leave-one-out: Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, equation 5.12.
    """
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(task.seed))[:CHOOSING]
    count = max(1, int(ASKING * len(order)))
    asking, fitted = order[:count], order[count:]
    own = torch.eye(len(fitted), dtype=torch.bool)
    gallery = targets[torch.cat([asking, fitted])]
    scores: list[float] = []
    for whitening, temperature in KERNELS:
        kernel = Kernel.of(inputs[fitted], whitening, temperature)
        system = kernel.gram(inputs[fitted], inputs[fitted])
        system.diagonal().add_(strength)
        inverse, mean = torch.cholesky_inverse(torch.linalg.cholesky(system)), targets[fitted].mean(dim=0)
        weights = inverse @ (targets[fitted] - mean)
        left_out = targets[fitted] - weights / inverse.diagonal()[:, None]
        fresh = kernel.gram(inputs[asking], inputs[fitted]) @ weights + mean
        mapped = [
            drawn(found, targets[fitted], neighbours=neighbours, draw=draw, unit=task.unit, own=hidden)
            for found, hidden in ((fresh, None), (left_out, own))
        ]
        scores.append(float(overlap(targets[asking], torch.cat(mapped), gallery).mean()))
    return KERNELS[max(range(len(KERNELS)), key=lambda number: scores[number])]
