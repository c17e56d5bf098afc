"""Kernel ridge regression fitted: exactly, or by landmarks; and its kernel chosen by retrieval on pairs kept out."""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from .agreement import overlap
from .kernel import DRAW, NEIGHBOURS, Kernel, KernelNetwork, drawn
from .task import Task

EXACT = 10_000  # pairs that are solved exactly; of more, so many are landmarks:
LANDMARKS = 4_000
BLOCK = 2048  # rows that the landmarks meet at a time
STRENGTH = 0.05
KERNELS = ((0.25, 0.6), (0.5, 0.8), (0.0, 0.4))  # whitening and temperature that are tried
CHOOSING = 2000  # pairs that choose between them, at most
ASKING = 0.2  # share of these that ask; none of them is fitted


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
        whitening=whitening,
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
