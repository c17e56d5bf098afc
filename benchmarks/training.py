"""The training loop against a bare PyTorch loop on random tensors, with and without the influence loss.

    python benchmarks/training.py [--backbone small_resnet32 --size 32 --batch-size 256 --batches 24 --rounds 5]
                                  [--precision bf16] [--compile]

The bare loop repeats forward, cross-entropy, backward and an SGD step on one batch of random pixels: the same model, memory
format and precision, and nothing else. Ours is `train()`: batches gathered from the decoded images, cropped and flipped, the
schedule, the log, everything accelerate does. The rates are medians of rounds in turn, so that a busy machine slows all alike;
the first epoch of each `train()` is not counted.
"""

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from cyclopts import run

from compatlearn import InfluenceLoss
from compatlearn.config import TrainConfig
from compatlearn.data.images import Images
from compatlearn.encoders.networks import Embedder, Learner, ModelSpec
from compatlearn.training.batches import augment
from compatlearn.training.train import train

CLASSES, D_OLD = 100, 64


class Bare:
    """A bare loop: `rate(steps)` is in images per second."""

    def __init__(self, backbone: str, size: int, batch_size: int, precision: str, compiled: bool = False) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        learner = Learner(Embedder(ModelSpec(backbone, size, size)), CLASSES)
        self.model: Any = learner.to(self.device, memory_format=torch.channels_last)
        self.model = torch.compile(self.model) if compiled else self.model
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
        pixels = torch.randint(0, 256, (batch_size, 3, size, size), dtype=torch.uint8)
        self.pixels = pixels.contiguous(memory_format=torch.channels_last).to(self.device)
        self.labels = torch.randint(0, CLASSES, (batch_size,), device=self.device)
        self.type = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]

    def rate(self, steps: int) -> float:
        started = time.perf_counter()
        for _ in range(steps):
            with torch.autocast(self.device.type, dtype=self.type, enabled=self.type is not None):
                _, logits = self.model(self.pixels)
            F.cross_entropy(logits, self.labels).backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return steps * len(self.labels) / (time.perf_counter() - started)


def ours(images: Images, pixels: np.ndarray, config: TrainConfig, backbone: str, loss: torch.nn.Module | None) -> float:
    """Images per second in the second epoch of `train()`, from its own log."""
    with tempfile.TemporaryDirectory() as folder:
        train(images, config, Path(folder), backbone=backbone, loss=loss, pixels=pixels)
        return float(json.loads((Path(folder) / "log.jsonl").read_text().splitlines()[-1])["images_per_second"])


def parts(pixels: np.ndarray, config: TrainConfig) -> dict[str, float]:
    """Milliseconds per batch of each thing that the bare loop does not do."""
    batch, draws = torch.from_numpy(pixels[: config.batch_size]), torch.Generator().manual_seed(0)
    rows = np.random.default_rng(0).permutation(len(pixels))[: config.batch_size]
    work = {"gather": lambda: pixels[rows], "augment": lambda: augment(batch, config, draws)}
    found = {}
    for name, each in work.items():
        each()
        started = time.perf_counter()
        for _ in range(20):
            each()
        found[name] = (time.perf_counter() - started) / 20 * 1000
    return found


def main(
    backbone: str = "small_resnet32",
    size: int = 32,
    batch_size: int = 256,
    batches: int = 24,
    rounds: int = 5,
    precision: str = "bf16",
    compile: bool = False,
) -> None:
    """Print both ratios, the rates behind them, and what a batch costs besides the model."""
    random = np.random.default_rng(0)
    count = batches * batch_size
    pixels = random.integers(0, 256, (count, 3, size + 8, size + 8), dtype=np.uint8)
    labels = random.integers(0, CLASSES, count)
    rows = np.arange(count)
    images = Images(lambda row: None, labels, rows, rows, tuple(map(str, range(CLASSES))), "random pixels")  # type: ignore
    config = TrainConfig(
        epochs=2,
        batch_size=batch_size,
        learning_rate=0.01,
        resize=size + 8,
        image_size=size,
        precision=precision,  # type: ignore
    )
    loss = InfluenceLoss(F.normalize(torch.randn(CLASSES, D_OLD), dim=1))
    bare = Bare(backbone, size, batch_size, precision)
    compiled = Bare(backbone, size, batch_size, precision, compiled=True) if compile else None
    if compiled:
        started = time.perf_counter()
        compiled.rate(2)
        print(f"torch.compile: {time.perf_counter() - started:.0f} s until two steps are done")
    bare.rate(3)
    loops: dict[str, Callable[[], float]] = {
        "bare": lambda: bare.rate(batches),
        "without": lambda: ours(images, pixels, config, backbone, None),
        "with": lambda: ours(images, pixels, config, backbone, loss),
    }
    if compiled:
        loops["compiled"] = lambda: compiled.rate(batches)
    rates: dict[str, list[float]] = {name: [] for name in loops}
    for number in range(rounds):
        turn = number % len(loops)  # none is always last
        for name in [*loops][turn:] + [*loops][:turn]:
            rates[name].append(loops[name]())
    median = {name: sorted(values)[rounds // 2] for name, values in rates.items()}

    def ratio(name: str, other: str) -> str:
        each = sorted(a / b for a, b in zip(rates[name], rates[other], strict=True))
        return f"{each[rounds // 2]:.3f} (median of {rounds} rounds; {each[0]:.3f} to {each[-1]:.3f})"

    print(f"{backbone}, {size} pixels, batch {batch_size}, {precision}, {bare.device}, torch {torch.__version__}")
    print(f"with the influence loss / without:   {ratio('with', 'without')}")
    print(f"our loop without it / the bare loop: {ratio('without', 'bare')}")
    if compiled:
        print(f"compiled bare loop / bare loop:      {ratio('compiled', 'bare')}")
    print("images per second: " + ", ".join(f"{name} {value:.0f}" for name, value in median.items()))
    spent = ", ".join(f"{name} {value:.1f}" for name, value in parts(pixels, config).items())
    print(f"milliseconds per batch: bare step {batch_size / median['bare'] * 1000:.1f}, {spent}")


if __name__ == "__main__":
    run(main)
