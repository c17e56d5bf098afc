"""The random walk against the dense inverse of the paper's closed form, and against its floor: the Gram products alone.

    python benchmarks/pseudo.py [--classes 100 --rows 900 --dimension 512 --repeats 3] [--large] [--json-file FILE]

Classes: random_walk_classifier, the dense inverse and the Gram products in one process and in turn, in float32, with the same P
(column-stochastic). Streamed: one class whose tiles are recomputed in each pass; the floor is the products of the tiles on and
above the diagonal, as often as the solver asks for them. Landmarks: the estimate for huge classes against the exact walk.
"""

import json
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from cyclopts import run

from compatlearn import random_walk_classifier, random_walk_weights
from compatlearn.pseudo import walk


def features(
    classes: int, rows: int, dimension: int, noise: float = 1.5, wrong: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """(classes · rows, dimension) float32 behind a rectifier, and labels; `wrong` is the share of rows from other classes."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(classes).repeat_interleave(rows)
    centres = torch.randn(classes + 20, dimension, generator=random)
    strangers = torch.rand(len(labels), generator=random) < wrong
    sources = torch.where(strangers, torch.randint(classes, len(centres), (len(labels),), generator=random), labels)
    vectors = torch.randn(len(labels), dimension, generator=random).mul_(noise)
    for part, some in zip(vectors.split(4096), sources.split(4096), strict=True):  # in place: no second copy in memory
        part.add_(centres[some]).relu_()
    return vectors, labels


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
    """Every class's similarity matrix, and nothing else."""
    for label in range(int(labels.max()) + 1):
        unit = F.normalize(vectors[labels == label], dim=1)
        unit @ unit.T


def tiles_only(vectors: torch.Tensor, passes: int) -> None:
    """The floor of a streamed class: its tiles on and above the diagonal, `passes` times, and nothing else."""
    unit, (height, width) = F.normalize(vectors, dim=1), walk.CPU_TILE
    memory = torch.empty(height * width)
    for first in [*range(0, len(unit), height)] * passes:
        rows = unit[first : first + height]
        for columns in unit[first:].split(width):
            torch.mm(rows, columns.T, out=memory[: len(rows) * len(columns)].view(len(rows), len(columns)))


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """Wall-clock seconds of one call, and what it returned."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def in_turn(repeats: int, *work: Callable[[], Any]) -> list[float]:
    """Median seconds of each, timed in turn: a busy machine slows all of them alike."""
    times = [[seconds(one)[0] for one in work] for _ in range(repeats)]
    return [sorted(column)[repeats // 2] for column in zip(*times, strict=True)]


def by_class(classes: int, rows: int, dimension: int, repeats: int) -> list[float]:
    """Median seconds of ours, the dense inverse and the Gram products; the largest difference between the two results."""
    vectors, labels = features(classes, rows, dimension)
    ours, dense = partial(random_walk_classifier, vectors, labels), partial(dense_inverse, vectors, labels, 0.05, 0.9)
    medians = in_turn(repeats, ours, dense, partial(gram_only, vectors, labels))
    return [*medians, float((ours() - dense()).abs().max())]


def streamed(rows: int, dimension: int, repeats: int) -> tuple[float, float, int, float]:
    """Median seconds of the walk and of its floor, passes, and MiB beyond the features. Run it in its own process, on Linux."""
    walk.BLOCK_BYTES, passes, product = 0, 0, walk.Similarity.__matmul__
    random_walk_weights(features(1, 500, dimension)[0])  # loads what stays in memory
    vectors, _ = features(1, rows, dimension)

    def counted(self: walk.Similarity, v: torch.Tensor) -> torch.Tensor:
        nonlocal passes
        passes += 1
        return product(self, v)

    walk.Similarity.__matmul__ = counted
    Path("/proc/self/clear_refs").write_text("5")  # the peak is measured from here on
    before = peak()
    random_walk_weights(vectors)
    memory, walk.Similarity.__matmul__ = peak() - before, product
    ours, floor = in_turn(repeats, partial(random_walk_weights, vectors), partial(tiles_only, vectors, passes))
    return ours, floor, passes, memory


def peak() -> float:
    """Largest resident memory so far, MiB."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def angle(a: torch.Tensor, b: torch.Tensor) -> float:
    """Radians, from the chord: the cosine of a small angle is 1."""
    return float(2 * torch.asin((F.normalize(a.double(), dim=0) - F.normalize(b.double(), dim=0)).norm() / 2))


def estimated(rows: int, dimension: int, noise: float, wrong: float) -> None:
    """Print the error and time of the estimate for huge classes."""
    vectors, _ = features(1, rows, dimension, noise, wrong)
    elapsed, exact = seconds(partial(random_walk_weights, vectors))
    centre = exact @ vectors
    print(f"  {dimension} dimensions, noise {noise}, {wrong:.0%} of other classes: exact {elapsed:.1f} s,", end=" ")
    print(f"centre {angle(centre, vectors.mean(dim=0)):.1e} rad from the mean")
    for walk.LANDMARKS in (2048, 8192):
        elapsed, weights = seconds(partial(walk.landmark_weights, vectors, 0.05, 0.9, None))
        off, error = angle(weights @ vectors, centre), (weights / exact - 1).abs()
        print(f"    {walk.LANDMARKS} landmarks {elapsed:.1f} s, centre {off:.1e} rad off,", end=" ")
        print(f"weights {error.median():.2%} off in the median and {error.max():.0%} at most")


def main(
    classes: int = 100,
    rows: int = 900,
    dimension: int = 512,
    repeats: int = 3,
    large: bool = False,
    json_file: Path | None = None,
) -> None:
    """Print medians and ratios; --large streams 50,000 rows and estimates 30,000, --json-file stores a sweep of shapes."""
    ours, dense, gram, difference = by_class(classes, rows, dimension, repeats)
    print(f"{classes} classes x {rows} rows x {dimension}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"  dense inverse {dense:.2f} s, ours {ours:.2f} s: {dense / ours:.1f} times faster; difference {difference:.1e}")
    print(f"  Gram products {gram:.2f} s: ours takes {ours / gram:.2f} times as long; by symmetry half of them is enough")

    many = 50_000 if large else 12_000
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        ours, floor, passes, memory = process.submit(streamed, many, dimension, 1 if large else repeats).result()
    print(f"one class of {many} rows, streamed: {ours:.1f} s, {passes} passes, {memory:.0f} MiB beyond the features")
    print(f"  products of its tiles {floor:.1f} s: ours takes {ours / floor:.2f} times as long")

    many = 30_000 if large else 12_000
    print(f"one class of {many} rows, estimated from landmarks")
    for d, noise, wrong in ((512, 0.5, 0.0), (512, 1.5, 0.1), (512, 3.0, 0.0), (512, 0.5, 0.3), (64, 1.5, 0.1)):
        estimated(many, d, noise, wrong)

    if json_file:
        shapes = [("rows", m, (10, m, dimension)) for m in (30, 100, 300, 900, 3000)]
        shapes += [("classes", c, (c, 300, dimension)) for c in (10, 30, 100, 300)]
        shapes += [("dimensions", d, (10, 900, d)) for d in (64, 128, 256, 512, 1024, 2048)]
        keys = ("seconds", "inverse_seconds", "floor_seconds")
        lines = [{"name": name, "x": x} | dict(zip(keys, by_class(*shape, repeats), strict=False)) for name, x, shape in shapes]
        json_file.write_text(json.dumps(lines, indent=2))


if __name__ == "__main__":
    run(main)
