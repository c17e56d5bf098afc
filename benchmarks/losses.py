"""What each method costs: a training step with its loss against the same step without it, in one run.

    python benchmarks/losses.py [--methods all --rows 35000 --rounds 15]

A step is forward, cross-entropy, loss, backward and SGD on one batch of random pixels. The steps of all methods take turns, so
that a busy machine slows all alike; the figure is the median of the ratios. What `unibct` does once per epoch is divided by the
steps of an epoch. Building the loss (the random walk, a fit) happens once per training run and is shown in seconds.
"""

import time

import numpy as np
import torch
import torch.nn.functional as F
from cyclopts import run

from compatlearn.encoders.networks import Embedder, Learner, ModelSpec
from compatlearn.losses import Bt2Loss, UnibctLoss
from compatlearn.losses.literature.bt2 import fitting_dimension
from compatlearn.training.knowledge import OldKnowledge
from compatlearn.training.methods import Trained, find_method, find_methods, find_trained

CLASSES, D_OLD, D_NEW, SIZE = 100, 64, 128, 32


class Step:
    """A training step of its own model, in bf16; called with the rows of the batch, it returns its seconds."""

    def __init__(self, backbone: str, loss: torch.nn.Module | None, classes: torch.Tensor, batch_size: int) -> None:
        torch.manual_seed(0)
        dimension = fitting_dimension(D_OLD, D_NEW) if isinstance(loss, Bt2Loss) else None
        embedder = Embedder(ModelSpec(backbone, SIZE, SIZE, dimension))
        self.learner = Learner(embedder, CLASSES).to(memory_format=torch.channels_last)
        self.loss, self.classes = loss, classes
        weights = [*self.learner.parameters(), *(loss.parameters() if loss is not None else ())]
        self.optimizer = torch.optim.SGD(weights, lr=0.01, momentum=0.9)
        pixels = torch.randint(0, 256, (batch_size, 3, SIZE, SIZE), dtype=torch.uint8)
        self.pixels = pixels.contiguous(memory_format=torch.channels_last)

    def __call__(self, rows: torch.Tensor) -> float:
        started, labels = time.perf_counter(), self.classes[rows]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            features, logits = self.learner(self.pixels)
            total = F.cross_entropy(logits, labels)
            if self.loss is not None:
                total = total + self.loss(features, labels, rows)
        total.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return time.perf_counter() - started


def once_an_epoch(loss: torch.nn.Module | None) -> float:
    """Seconds of what a loss does at the start of an epoch, with features of the whole previous one."""
    if not isinstance(loss, UnibctLoss):
        return 0.0
    loss.memory.copy_(loss.old + torch.randn_like(loss.old))
    loss.seen.fill_(True)
    started = time.perf_counter()
    loss.refresh()
    return time.perf_counter() - started


def prepared(method: str, old: OldKnowledge) -> tuple[torch.nn.Module | None, float]:
    """The loss of a method, and the seconds it took to build."""
    started = time.perf_counter()
    return find_trained(method).loss(old), time.perf_counter() - started


def main(
    methods: str = "all", backbone: str = "small_resnet32", rows: int = 35_000, batch_size: int = 256, rounds: int = 15
) -> None:
    """Print one line per method, the most expensive first."""
    random = np.random.default_rng(0)
    labels = np.arange(rows) % CLASSES
    vectors = (random.normal(size=(CLASSES, D_OLD))[labels] + 2 * random.normal(size=(rows, D_OLD))).clip(0).astype(np.float32)
    classifier = torch.nn.Linear(D_OLD, CLASSES)
    independent = random.normal(size=(rows, D_NEW)).astype(np.float32)
    old = OldKnowledge(vectors, labels, CLASSES, lambda: classifier, {"epochs": 12, "seed": 0}, independent)
    chosen = [name for name in find_methods(methods) if isinstance(find_method(name), Trained) and name != "independent"]
    classes = torch.from_numpy(labels)
    steps = {"independent": Step(backbone, None, classes, batch_size)}
    made = {"independent": 0.0}
    for name in chosen:
        loss, made[name] = prepared(name, old)
        steps[name] = Step(backbone, loss, classes, batch_size)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    batches = torch.from_numpy(random.permutation(rows)).split(batch_size)  # of one epoch: no image twice
    for number in range(min(rounds + 2, len(batches) - 1)):
        order = [*steps][number % len(steps) :] + [*steps][: number % len(steps)]
        for name in order:
            taken = steps[name](batches[number])
            if number >= 2:
                seconds[name].append(taken)
    print(f"{backbone}, {SIZE} pixels, batch {batch_size}, {rows} rows × {D_OLD}, {torch.get_num_threads()} threads")
    print(f"independent: {np.median(seconds['independent']) * 1000:.0f} ms per step")
    print("| method | step | made in |\n|---|---|---|")
    plain = np.array(seconds["independent"])
    share = {name: once_an_epoch(steps[name].loss) / len(batches) for name in chosen}
    ratios = {name: float(np.median((np.array(seconds[name]) + share[name]) / plain)) for name in chosen}
    for name in sorted(chosen, key=ratios.__getitem__, reverse=True):
        print(f"| `{name}` | {ratios[name]:.2f} | {made[name]:.1f} s |")


if __name__ == "__main__":
    run(main)
