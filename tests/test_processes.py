"""Two real processes (gloo) do what one does: value and gradient of every loss, and whole trainings, also resumed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed
from safetensors.torch import load_file
from torch import nn

from compatlearn.losses import gather
from compatlearn.training.knowledge import OldKnowledge
from compatlearn.training.methods import METHODS, Trained

LOSSES = [name for name, method in METHODS.items() if name != "independent" and isinstance(method, Trained)]
ROWS, D_OLD, D_NEW, CLASSES = 24, 6, 9, 4


def batch_and_loss(name: str) -> tuple[nn.Linear, torch.Tensor, torch.Tensor, torch.Tensor, nn.Module]:
    """A model, a batch of pixels, labels and rows, and the loss that the method makes of old features."""
    torch.manual_seed(0)
    old, classifier = np.random.default_rng(0).normal(size=(2 * ROWS, D_OLD)).astype(np.float32), nn.Linear(D_OLD, CLASSES)
    labels = np.arange(2 * ROWS) % CLASSES
    options = {"temperature": 0.1, "damping": 0.9, "steps": None, "seed": 0, "scale": None, "epochs": 3}
    independent = np.random.default_rng(1).normal(size=(2 * ROWS, D_NEW - 4)).astype(np.float32)
    loss = METHODS[name].loss(OldKnowledge(old, labels, CLASSES, lambda: classifier, options, independent))
    assert loss is not None
    rows = torch.randperm(2 * ROWS)[:ROWS]
    return nn.Linear(5, D_NEW), torch.randn(ROWS, 5), torch.from_numpy(labels)[rows], rows, loss


def second_value(loss: nn.Module, features: torch.Tensor, labels: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """The loss of a batch that was seen before: those that remember, and those that fade in, say nothing the first time."""
    torch.manual_seed(1)  # of what is drawn
    loss(features, labels, rows)
    torch.manual_seed(1)
    return loss(features, labels, rows)


def one_of_two(rank: int, folder: str) -> None:
    """Half of each batch through DDP, as `train` has it; the first process stores value and gradient."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    found = {}
    for name in LOSSES:
        model, pixels, labels, rows, loss = batch_and_loss(name)
        parallel, half = nn.parallel.DistributedDataParallel(model), slice(rank * ROWS // 2, (rank + 1) * ROWS // 2)
        value = second_value(loss, parallel(pixels[half]), labels[half], rows[half])
        value.backward()
        for shared in (value.detach(), *(weight.grad for weight in loss.parameters())):
            torch.distributed.all_reduce(shared)
        own = [weight.grad / 2 for weight in loss.parameters()]
        found[name] = value.detach() / 2, model.weight.grad, own
    if rank == 0:
        torch.save(found, f"{folder}/found.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    folder = tmp_path_factory.mktemp("two")
    torch.multiprocessing.spawn(one_of_two, (str(folder),), nprocs=2)
    return torch.load(folder / "found.pt", weights_only=True)


@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradient_are_those_of_one_process(name: str, found: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> None:
    model, pixels, labels, rows, loss = batch_and_loss(name)
    value = second_value(loss, model(pixels), labels, rows)
    value.backward()
    torch.testing.assert_close(found[name][0], value.detach())
    torch.testing.assert_close(found[name][1], model.weight.grad)
    assert model.weight.grad.abs().max() > 1e-4
    for theirs, weight in zip(found[name][2], loss.parameters(), strict=True):
        torch.testing.assert_close(theirs, weight.grad)


def gather_unequal(rank: int, folder: str) -> None:
    """Three and five rows: an unreadable image is left out of its batch."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    values = torch.arange(16.0).view(8, 2)[:3] if rank == 0 else torch.arange(16.0).view(8, 2)[3:]
    values.requires_grad_()
    whole = gather(values)
    (whole.cumsum(dim=0).square().sum() * (rank + 1)).backward()
    torch.save((whole.detach(), values.grad), f"{folder}/gathered{rank}.pt")
    torch.distributed.destroy_process_group()


def test_batches_of_unequal_size_are_gathered_with_gradient(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(gather_unequal, (str(tmp_path),), nprocs=2)
    values = torch.arange(16.0).view(8, 2).requires_grad_()
    values.cumsum(dim=0).square().sum().backward()
    gathered = [torch.load(tmp_path / f"gathered{rank}.pt", weights_only=True) for rank in (0, 1)]
    for whole, _ in gathered:
        torch.testing.assert_close(whole, values.detach())
    torch.testing.assert_close(torch.cat([gradient for _, gradient in gathered]), 3 * values.grad)  # 1 + 2: both used it


SCRIPT = """
import sys
from pathlib import Path
import numpy as np, torch
from compatlearn import InfluenceLoss
from compatlearn.losses import AdvbctLoss
from compatlearn.config import TrainConfig
from compatlearn.data.images import Images
from compatlearn.training.train import train

random = np.random.default_rng(0)
labels, rows = np.arange(200) % 5, np.arange(200)
pixels = (random.integers(0, 128, (200, 3, 8, 8)) + 25 * labels[:, None, None, None]).astype(np.uint8)
images = Images(None, labels, rows, rows, tuple("abcde"), "made here")
config = TrainConfig(epochs=3, batch_size=50, learning_rate=0.05, resize=8, image_size=8, flip=False)

class Stops(torch.nn.Module):
    steps = 0
    def __init__(self, loss, last):
        super().__init__()
        self.loss, self.last = loss, last
    def forward(self, *given):
        self.steps += 1
        if self.steps > self.last:
            raise KeyboardInterrupt
        return self.loss(*given)

old = (np.eye(5, 4)[labels] + 0.3 * random.normal(size=(200, 4)) + 0.1).astype(np.float32)
LOSSES = {
    "frozen": lambda: InfluenceLoss(torch.nn.functional.normalize(torch.eye(5, 4) + 0.1, dim=1)),
    "trained": lambda: AdvbctLoss(old, labels, 5, epochs=3),
}

def run(kind, name, last=10**9, resume=False):
    loss = Stops(LOSSES[kind](), last)
    train(images, config, Path(sys.argv[1]) / f"{kind}-{name}", backbone="tiny:net", loss=loss, pixels=pixels, resume=resume)

if __name__ == "__main__":
    for kind in LOSSES:
        run(kind, "whole")
        try:
            run(kind, "stopped", last=6)  # four steps an epoch
        except KeyboardInterrupt:
            run(kind, "stopped", resume=True)
    (Path(sys.argv[1]) / "processes").write_text(str(torch.distributed.get_world_size()))
"""
NET = """
from torch import nn

def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.Tanh(), nn.Linear(16, 8))
"""


def search_path(folder: Path) -> str:
    """The folder before what is searched anyway."""
    return os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])


def launched(folder: Path, processes: int) -> Path:
    """The script, by torchrun with so many processes on this machine, as `accelerate launch` starts them on GPUs."""
    out = folder / str(processes)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes), folder / "job.py", out]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": search_path(folder)}
    done = subprocess.run([sys.executable, *launch], env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (out / "processes").read_text() == str(processes)
    return out


def test_two_processes_train_the_model_of_one_and_resume(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(SCRIPT)
    (tmp_path / "tiny.py").write_text(NET)
    one, two = launched(tmp_path, 1), launched(tmp_path, 2)
    for kind in ("frozen", "trained"):
        weights = load_file(one / f"{kind}-whole" / "model.safetensors")
        whole = load_file(two / f"{kind}-whole" / "model.safetensors")
        for name, value in whole.items():
            torch.testing.assert_close(value, weights[name], rtol=1e-4, atol=1e-5)
        resumed = load_file(two / f"{kind}-stopped" / "model.safetensors")
        for name, value in whole.items():
            torch.testing.assert_close(resumed[name], value, rtol=0, atol=0)
        logs = [
            [json.loads(line) for line in (out / f"{kind}-{run}" / "log.jsonl").read_text().splitlines()]
            for out, run in ((one, "whole"), (two, "whole"), (two, "stopped"))
        ]
        assert len(logs[0]) == 3
        for other in logs[1:]:
            for mine, theirs in zip(logs[0], other, strict=True):
                assert mine["epoch"] == theirs["epoch"]
                assert mine["unreadable"] == theirs["unreadable"] == 0
                assert theirs["class_loss"] == pytest.approx(mine["class_loss"], rel=1e-4)
                assert theirs["compatible_loss"] == pytest.approx(mine["compatible_loss"], rel=1e-4)


def test_the_command_speaks_once(tmp_path: Path) -> None:
    """`compatlearn train` in two processes: one line on stdout, one model, one list of skipped images."""
    (tmp_path / "tiny.py").write_text(NET)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "compatlearn", "train"]
    launch += ["--data", "digits", "--backbone", "tiny:net", "--out", str(tmp_path / "run"), "--resize", "8", "--no-flip"]
    launch += ["--image-size", "8", "--epochs", "1", "--batch-size", "100"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": search_path(tmp_path)}
    done = subprocess.run([sys.executable, *launch], env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("trained on") == 1
    assert json.loads((tmp_path / "run" / "skipped.json").read_text()) == []
    assert (tmp_path / "run" / "model.safetensors").exists()
