"""Random walk: conjugate gradients for one vector a class against the dense inverse of the paper's closed form.

    python benchmarks/pseudo.py [--classes 100 --rows 900 --dimension 512 --repeats 3]

Both in one process, float32, the same P (column-stochastic), the same features. Prints the ratio, and the distance to the
floor: the Gram products alone, which any exact walk has to compute.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from cyclopts import run

from compatlearn import random_walk_classifier


def dense_inverse(vectors: torch.Tensor, labels: torch.Tensor, temperature: float, damping: float) -> torch.Tensor:
    """Eq. 10 and 11 as printed, with P column-stochastic."""
    centres = []
    for label in range(int(labels.max()) + 1):
        columns = vectors[labels == label].T  # (d, m)
        unit = F.normalize(columns, dim=0)
        logits = (unit.T @ unit) / temperature
        logits.fill_diagonal_(-torch.inf)
        transition = torch.softmax(logits, dim=0)
        m = len(transition)
        refined = (1 - damping) * columns @ torch.linalg.inv(torch.eye(m) - damping * transition)
        centres.append(refined.mean(dim=1))
    return F.normalize(torch.stack(centres), dim=1)


def gram_only(vectors: torch.Tensor, labels: torch.Tensor) -> None:
    """The floor: every class's similarity matrix and nothing else."""
    for label in range(int(labels.max()) + 1):
        unit = F.normalize(vectors[labels == label], dim=1)
        unit @ unit.T


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """Wall-clock seconds of one call, and what it returned."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def main(classes: int = 100, rows: int = 900, dimension: int = 512, repeats: int = 3) -> None:
    """Time the three in turn, `repeats` times, and print medians and ratios."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(classes).repeat_interleave(rows)
    centres = torch.randn(classes, dimension, generator=generator)
    vectors = (centres[labels] + 1.5 * torch.randn(len(labels), dimension, generator=generator)).relu()
    times: dict[str, list[float]] = {"inverse": [], "ours": [], "gram": []}
    for _ in range(repeats):  # interleaved: a busy machine slows all three alike
        elapsed, ours = seconds(lambda: random_walk_classifier(vectors, labels, temperature=0.05, damping=0.9))
        times["ours"].append(elapsed)
        elapsed, dense = seconds(lambda: dense_inverse(vectors, labels, 0.05, 0.9))
        times["inverse"].append(elapsed)
        times["gram"].append(seconds(lambda: gram_only(vectors, labels))[0])
    median = {name: sorted(values)[repeats // 2] for name, values in times.items()}
    difference = float((ours - dense).abs().max())
    flops = 2 * classes * rows**2 * dimension
    print(f"{classes} classes x {rows} rows x {dimension}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"dense inverse {median['inverse']:.2f} s, ours {median['ours']:.2f} s, Gram products alone {median['gram']:.2f} s")
    print(f"ratio to the dense inverse: {median['inverse'] / median['ours']:.1f} times faster")
    print(f"distance to the floor: {median['ours'] / median['gram']:.2f} times the Gram products ({flops / 1e9:.0f} GFLOP)")
    print(f"largest difference of the two results: {difference:.1e}")


if __name__ == "__main__":
    run(main)
