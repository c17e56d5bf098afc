"""Pseudo classifiers: old features of the new training data in, one row a class out.

They stand in for the old model's classifier, which the method never sees. The random walk is personalised PageRank:
the refined centre of a class is Σ_i π_i f_i with π = λ P π + (1 − λ)/m · 1, so one vector a class is solved for and the
m × m inverse of the paper's closed form is never built. P is **column**-stochastic: with features as columns,
F ← λ F P + (1 − λ) F₀ makes every new column a convex combination of the old ones. Equation 8 read literally (rows that
sum to one) leaves the mean of the columns exactly where it was, for any temperature and damping.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from .arrays import Array, check_labels, check_vectors, like
from .errors import ConfigError, DataError, first_few

BLOCK_BYTES = 1 << 30  # a similarity block larger than this is recomputed in tiles instead of kept
SOLVER_STEPS = 50  # a bound, not a setting: conjugate gradients take 4 to 10


def mean_classifier(
    vectors: Float[Array, "n d"], labels: Int[Array, " n"], *, classes: int | None = None, normalize: bool = True
) -> Float[Array, "c d"]:
    """Mean old feature of every class: the simplest pseudo classifier.

    Args:
        vectors: (n, d) features of the old model, finite.
        labels: (n,) class of each row, in [0, classes).
        classes: number of classes; by default one more than the largest label.
        normalize: scale each row to unit length (the paper's an-pse); without it training may diverge.

    Returns: (classes, d), NumPy or torch as `vectors` is, float32 (float64 for float64).

    Raises:
        DataError: vectors or labels are unusable, a class has no row, or (with `normalize`) its features cancel out.

    Source: Non-Inherent Feature Compatible Learning, Eq. 4 and 5.
    """
    return like(_reduce_classes(vectors, labels, classes, lambda rows: rows.mean(dim=0), normalize), vectors)


def random_walk_classifier(
    vectors: Float[Array, "n d"],
    labels: Int[Array, " n"],
    *,
    temperature: float = 0.05,
    damping: float = 0.9,
    steps: int | None = None,
    classes: int | None = None,
) -> Float[Array, "c d"]:
    """Unit-length PageRank-weighted mean of every class: outliers of a class hardly count.

    Args:
        vectors: (n, d) features of the old model, finite, no zero row.
        labels: (n,) class of each row, in [0, classes).
        temperature: T > 0 of the similarity exp(cos / T); lower trusts only close neighbours.
        damping: λ in [0, 1): weight of the walk against the plain mean (0 gives `mean_classifier`).
        steps: number of walk steps t (Eq. 9); None is the limit t → ∞ (Eq. 10).
        classes: number of classes; by default one more than the largest label.

    Returns: (classes, d) unit rows, NumPy or torch as `vectors` is, float32 (float64 for float64).

    Raises:
        DataError: vectors or labels are unusable, or a class has no row.
        ConfigError: temperature, damping or steps out of range.

    Source: Non-Inherent Feature Compatible Learning, Eq. 8 to 11, with P column-stochastic.
    """
    check_walk(temperature, damping, steps)
    walk = partial(_walk_weights, temperature=temperature, damping=damping, steps=steps)
    centres = _reduce_classes(vectors, labels, classes, lambda rows: walk(rows) @ rows, True, nonzero=True)
    return like(centres, vectors)


def random_walk_weights(
    class_vectors: Float[Array, "m d"], *, temperature: float = 0.05, damping: float = 0.9, steps: int | None = None
) -> Float[Array, " m"]:
    """PageRank weight of every feature of one class: positive, sums to 1, an outlier far below 1/m.

    Args:
        class_vectors: (m, d) features of one class, finite, no zero row.
        temperature, damping, steps: as in `random_walk_classifier`.

    Returns: (m,), NumPy or torch as `class_vectors` is, float32 (float64 for float64); within 1e-5 relative of a dense solve.

    Raises:
        DataError: the vectors are unusable.
        ConfigError: temperature, damping or steps out of range.

    Source: Non-Inherent Feature Compatible Learning, Eq. 8 to 11; Page et al. (1999).
    """
    rows = check_vectors(class_vectors, "class_vectors", nonzero=True)
    check_walk(temperature, damping, steps)
    return like(_walk_weights(rows, temperature, damping, steps), class_vectors)


def trained_classifier(
    vectors: Float[Array, "n d"],
    labels: Int[Array, " n"],
    *,
    seed: int = 0,
    classes: int | None = None,
    epochs: int = 20,
) -> Float[Array, "c d"]:
    """Softmax regression on the frozen old features (the paper's t-pse), by SGD with a one-cycle rate.

    Rows keep the length the fit gave them; there is no bias and no weight decay. Features are divided by their root mean
    square length while fitting and the rate grows with the number of classes (the curvature at the start is 1/classes), so
    the fit depends neither on the scale of the old space nor on how many classes there are.

    Args:
        vectors: (n, d) features of the old model, finite.
        labels: (n,) class of each row, in [0, classes).
        seed: of the order of the rows; the same seed gives the same classifier on one machine.
        epochs: passes over the rows, in batches of n/32 rows, at most 1024.

    Returns: (classes, d), NumPy or torch as `vectors` is, float32 (float64 for float64).

    Raises:
        DataError: vectors or labels are unusable, or a class has no row.

    Source: Non-Inherent Feature Compatible Learning, Eq. 13.
    """
    rows = check_vectors(vectors)
    targets, count = _check_classes(labels, len(rows), classes)
    targets = targets.to(rows.device)
    scale = rows.square().sum(dim=1).mean().sqrt()
    linear = torch.nn.Linear(rows.shape[1], count, bias=False, device=rows.device, dtype=rows.dtype)
    torch.nn.init.zeros_(linear.weight)
    rate, batch_size = 0.5 * count, min(1024, -(-len(rows) // 32))
    optimizer = torch.optim.SGD(linear.parameters(), lr=rate, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * -(-len(rows) // batch_size))
    order = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for batch in torch.randperm(len(rows), generator=order).to(rows.device).split(batch_size):
            loss = F.cross_entropy(linear(rows[batch] / scale), targets[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return like(linear.weight.detach() / scale, vectors)


def check_walk(temperature: float, damping: float, steps: int | None) -> None:
    """Raise ConfigError unless temperature, damping and steps are in range."""
    if not temperature > 0:
        raise ConfigError(f"temperature must be above 0; got {temperature}")
    if not 0 <= damping <= 1 or (damping == 1 and steps is None):
        raise ConfigError(f"damping must be in [0, 1), or 1 with a number of steps; got {damping}")
    if steps is not None and steps < 0:
        raise ConfigError(f"steps must be 0 or more; got {steps}")


def _check_classes(labels: Array, rows: int, classes: int | None) -> tuple[Tensor, int]:
    """(n,) labels and the number of classes; every class must have a row and every label a class."""
    targets = check_labels(labels, rows)
    count = int(targets.max()) + 1 if classes is None else classes
    if int(targets.max()) >= count:
        bad = (targets >= count).nonzero()[:, 0].tolist()
        raise DataError(f"{len(bad)} of {rows} labels are not in [0, {count}) (first rows: {first_few(bad)}); relabel them")
    empty = (torch.bincount(targets, minlength=count) == 0).nonzero()[:, 0].tolist()
    if empty:
        raise DataError(
            f"{len(empty)} of {count} classes have no feature (first: {first_few(empty)}); "
            "drop them or extract features for them"
        )
    return targets, count


def _reduce_classes(
    vectors: Array,
    labels: Array,
    classes: int | None,
    reduce: Callable[[Tensor], Tensor],
    normalize: bool,
    *,
    nonzero: bool = False,
) -> Tensor:
    """(classes, d): `reduce` of each class's rows, one class in memory at a time."""
    rows = check_vectors(vectors, nonzero=nonzero)
    targets, count = _check_classes(labels, len(rows), classes)
    counts = torch.bincount(targets, minlength=count).tolist()
    if bool((targets[1:] >= targets[:-1]).all()):  # sorted by class, as image folders are: no copy
        by_class = iter(rows.split(counts))
    else:
        by_class = (rows[members.to(rows.device)] for members in torch.argsort(targets, stable=True).split(counts))
    centres = torch.stack([reduce(members) for members in by_class])  # (c, d)
    if not normalize:
        return centres
    lengths = _lengths(centres)
    cancelled = (lengths[:, 0] == 0).nonzero()[:, 0].tolist()
    if cancelled:
        raise DataError(
            f"the features of {len(cancelled)} of {count} classes cancel out (first: {first_few(cancelled)}); "
            "a centre of length zero has no direction: check these classes' features"
        )
    return centres / lengths


def _walk_weights(rows: Tensor, temperature: float, damping: float, steps: int | None) -> Tensor:
    """(m,) solution of π = λ P π + (1 − λ)/m · 1, or its t-th iterate from 1/m · 1."""
    m = len(rows)
    start = torch.full((m,), 1.0 / m, dtype=torch.float64, device=rows.device)
    if m <= 2 or damping == 0 or steps == 0:  # no neighbour, or two that only have each other: nothing to prefer
        return start.to(rows.dtype)
    # float32 cosines are off by 1e-7: by 1e-7/T in P, and by up to 1/(1 − λ) times that in π
    precise = temperature * (1 - damping) < 0.004 and steps is None
    walk, log_degrees = _transition(rows.double() if precise else rows, temperature)
    if steps is None:
        pi = _solve(walk, log_degrees, start, damping)
    else:
        pi = start
        for _ in range(steps):
            pi = damping * walk(pi) + (1 - damping) * start
    return (pi / pi.sum()).to(rows.dtype)


def _lengths(rows: Tensor) -> Tensor:
    """(m, 1); squares are summed in float64, or those of a very short float32 row would vanish."""
    return torch.linalg.vector_norm(rows, dim=1, keepdim=True, dtype=torch.float64).to(rows.dtype)


def _transition(rows: Tensor, temperature: float) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """π ↦ P π for P_ij = S_ij / Σ_k S_kj, and log Σ_k S_kj; one (m, m) block, or tiles of it recomputed at each call."""
    m = len(rows)
    unit = rows / (_lengths(rows) * math.sqrt(temperature))  # products of these are cos / T
    tile = max(1, min(m, BLOCK_BYTES // (m * unit.element_size())))

    def logits() -> Iterator[Tensor]:  # (t, m): cos(f_i, f_j) / T with −∞ on the diagonal, some rows at a time
        for first in range(0, m, tile):
            block = unit[first : first + tile] @ unit.T
            block.diagonal(first).fill_(-torch.inf)
            yield block

    kept = next(logits()) if tile == m else None
    # S is symmetric: the largest of a row is the largest of its column, and exp of the difference never above 1
    largest = torch.cat([block.amax(dim=1) for block in ([kept] if kept is not None else logits())])  # (m,)

    def similarities() -> Iterator[Tensor]:  # (t, m): S_ij / exp(largest_j)
        return iter([kept]) if kept is not None else (block.sub_(largest).exp_() for block in logits())

    if kept is not None:
        kept.sub_(largest).exp_()
    totals = torch.stack([block.sum(dim=0) for block in similarities()]).sum(dim=0).double()  # (m,), each at least 1

    def walk(pi: Tensor) -> Tensor:
        spread = (pi / totals).to(unit.dtype)
        return torch.cat([block @ spread for block in similarities()]).double()

    return walk, largest.double() + totals.log()


def _solve(walk: Callable[[Tensor], Tensor], log_degrees: Tensor, start: Tensor, damping: float) -> Tensor:
    """π = λ P π + (1 − λ) · start.

    I − λP is symmetric positive definite in ⟨u, v⟩ = Σ u_i v_i / d_i, because d_j P_ij = S_ij = S_ji: conjugate gradients in
    that inner product, condition number at most (1 + λ)/(1 − λ). Plain iteration finishes what they leave, which is nothing
    unless the degrees are too far apart for the arithmetic: it contracts the error by λ a step, whatever the degrees are.
    """
    weights = torch.exp((log_degrees.max() - log_degrees).clamp(max=600.0))  # 1/d_i, up to a common factor
    tolerance = 1e-7 * (1 - damping)  # in the 1-norm: ‖error‖₁ ≤ ‖residual‖₁ / (1 − λ)
    pi = start
    residual = damping * (walk(pi) - pi)
    direction = residual
    energy = (weights * residual.square()).sum()
    for _ in range(SOLVER_STEPS):
        if residual.abs().sum() <= tolerance:
            break
        image = direction - damping * walk(direction)
        step = energy / (weights * direction * image).sum()
        pi = pi + step * direction
        residual = residual - step * image
        energy, previous = (weights * residual.square()).sum(), energy
        direction = residual + energy / previous * direction
    if not torch.isfinite(pi).all() or (pi < 0).any():
        pi = start
    for _ in range(math.ceil(math.log(1e-9) / math.log(damping))):
        pi, previous = damping * walk(pi) + (1 - damping) * start, pi
        if (pi - previous).abs().sum() <= 10 * tolerance:
            break
    return pi
