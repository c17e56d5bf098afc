"""Kernel ridge regression: a smooth map that is not linear, in closed form, exact to ten thousand pairs.

The map is y(x) = mean + Σᵢ k(x, xᵢ) aᵢ with k the sum of a linear kernel and of a Gaussian one on whitened directions, and
(K + λI) a = targets − mean. What it gives is then drawn towards the true targets of the pairs that lie nearest to it, which
a map that averages over its doubts stays away from.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

BLOCK = 2048  # rows mapped at a time
NEIGHBOURS, DRAW = 5, 0.4  # pairs that draw a result towards them, and how much
FLOOR = 0.1  # of the mean variance, added before whitening


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
        if self.directions:  # of unit length: nothing to sum, which for a single query is most of the work
            squares = 2 - 2 * features @ others.T
        else:
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
        whitening: that the kernel was made with; None where it is not known.
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
        whitening: float | None = None,
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
        self.sizes["whitening"] = whitening
        shapes = {"centre": (d_new,), "whitener": (d_new, d_new), "features": (pairs, d_new), "weights": (pairs, d_old)}
        shapes |= {"slope": (d_new, d_old), "mean": (d_old,), "targets": (pairs if drawing is None else drawing, d_old)}
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape))
        self.temperature, self.directions = temperature, directions
        self.neighbours, self.draw, self.unit = neighbours, draw, unit

    @property
    def settled(self) -> dict[str, Any]:
        """Options that fit the same kernel to other pairs."""
        return {name: self.sizes[name] for name in ("whitening", "temperature") if self.sizes[name] is not None}

    def forward(self, new: Float[Tensor, "b d_new"]) -> Float[Tensor, "b d_old"]:
        return torch.cat([self._mapped(block) for block in new.split(BLOCK)])

    def _mapped(self, inputs: Float[Tensor, "b d_new"]) -> Float[Tensor, "b d_old"]:
        kernel = Kernel(self.centre, self.whitener, self.temperature, 1.0, self.directions)
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
    near = found @ targets.T if unit else nearness(found, targets)
    if own is not None:
        near.masked_fill_(own, -torch.inf)
    mean = targets[near.topk(count, dim=1).indices].mean(dim=1)
    return F.normalize(found + draw * F.normalize(mean, dim=1), dim=1) if unit else (found + draw * mean) / (1 + draw)


def nearness(queries: Float[Tensor, "b d"], items: Float[Tensor, "m d"]) -> Float[Tensor, "b m"]:
    """q·x − ‖x‖²/2, which ranks as the distance does, and as the cosine among unit vectors."""
    return queries @ items.T - items.square().sum(dim=1) / 2
