"""The training loop: what it learns, how it resumes, what it refuses; on digits, small and real."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from compatlearn import ConfigError, DataError, FormatError, IncompatibleError, InfluenceLoss, TrainingError, progress
from compatlearn.config import TrainConfig
from compatlearn.data.images import Images, decode
from compatlearn.data.sources import open_images
from compatlearn.encoders.model_file import load_learner
from compatlearn.encoders.networks import Embedder, Learner, ModelSpec, build_backbone, memory_format
from compatlearn.training.batches import TrainingSet, augment, embed
from compatlearn.training.methods import METHODS, OldKnowledge
from compatlearn.training.runs import open_run
from compatlearn.training.train import train

CONFIG = TrainConfig(
    epochs=3,
    batch_size=64,
    learning_rate=0.2,
    schedule="one-cycle",
    resize=16,
    image_size=16,
    padding=1,
    flip=False,
    workers=0,
    seed=7,
)


@pytest.fixture(scope="module")
def digits() -> Images:
    return open_images("digits").take(np.arange(0, 1250, 2))


@pytest.fixture(scope="module")
def pixels(digits: Images) -> np.ndarray:
    return decode(digits, 16)[1]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_it_learns_and_the_file_gives_the_same_model(digits: Images, pixels: np.ndarray, tmp_path: Path) -> None:
    learner = train(digits, replace(CONFIG, epochs=8), tmp_path / "run", backbone="small_resnet4", pixels=pixels)
    again = load_learner(tmp_path / "run" / "model.safetensors")
    for name, value in learner.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, rtol=0, atol=0)
    val = open_images("digits:val")
    features, rows = embed(again.embedder, TrainingSet(val, 16, None, 0.0))
    assert rows.tolist() == list(range(len(val)))
    assert features.shape == (len(val), 16)
    logits = features @ again.classifier.weight.detach().numpy().T + again.classifier.bias.detach().numpy()
    assert (logits.argmax(axis=1) == val.labels).mean() > 0.85
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [entry["epoch"] for entry in log] == list(range(1, 9))
    assert log[-1]["class_loss"] < log[0]["class_loss"]
    assert not list((tmp_path / "run").glob("*checkpoint*"))


class Narrow(torch.nn.Module):
    """A network of somebody else's, with a strided 1 × 1 convolution over 4 channels that no module of it shows."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, channels, 3, padding=1)
        self.weight = torch.nn.Parameter(torch.randn(16, channels, 1, 1))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.conv2d(self.stem(pixels).relu(), self.weight, stride=2).mean(dim=(2, 3))


def narrow() -> torch.nn.Module:
    return Narrow(4)


def test_no_backbone_meets_the_kernel_that_gives_wrong_gradients() -> None:
    last, plain = torch.channels_last, torch.contiguous_format
    assert [memory_format(Narrow(channels), 16) for channels in (1, 4, 7, 8, 12)] == [plain, plain, plain, last, last]
    assert [memory_format(build_backbone(f"small_resnet{width}"), 16) for width in (4, 7, 8, 16)] == [plain, plain, last, last]
    assert memory_format(build_backbone("resnet18"), 32) == last
    grouped = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 1), torch.nn.Conv2d(8, 8, 1, 2, groups=8), torch.nn.Flatten())
    assert memory_format(grouped, 8) == last


def test_a_narrow_backbone_has_the_gradients_of_float64(digits: Images, pixels: np.ndarray, tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=1, batch_size=len(digits), learning_rate=10.0, schedule="step", weight_decay=0.0, padding=0)
    torch.manual_seed(CONFIG.seed)
    reference = Learner(Embedder(ModelSpec("test_train:narrow", 16, 16)), 10).double()
    train(digits, config, tmp_path, backbone="test_train:narrow", pixels=pixels)
    logits = reference.classifier(reference.embedder(torch.from_numpy(pixels).double()))  # one step, of all rows
    torch.nn.functional.cross_entropy(logits, torch.from_numpy(digits.labels)).backward()
    trained = load_learner(tmp_path / "model.safetensors").state_dict()
    for name, value in reference.named_parameters():
        moved = (value - config.learning_rate * value.grad).detach().float()
        torch.testing.assert_close(trained[name], moved, rtol=1e-5, atol=1e-5)
        assert value.grad.abs().max() > 1e-3, name


def test_the_influence_loss_is_in_the_gradient(digits: Images, pixels: np.ndarray, tmp_path: Path) -> None:
    classifier = torch.eye(10)
    config = replace(CONFIG, epochs=8)
    for name, loss in (("with", InfluenceLoss(classifier)), ("without", None)):
        train(digits, config, tmp_path / name, backbone="small_resnet4", loss=loss, pixels=pixels)
    agreement = {}
    for name in ("with", "without"):
        embedder = load_learner(tmp_path / name / "model.safetensors").embedder
        features, _ = embed(embedder, TrainingSet(digits, 16, pixels, 0.0))
        agreement[name] = ((features[:, :10] @ classifier.numpy().T).argmax(axis=1) == digits.labels).mean()
    assert agreement["with"] > 0.85
    assert agreement["without"] < 0.5


def test_decoded_as_needed_gives_the_weights_of_decoded_once(digits: Images, pixels: np.ndarray, tmp_path: Path) -> None:
    train(digits, replace(CONFIG, epochs=1), tmp_path / "once", backbone="small_resnet4", pixels=pixels)
    train(digits, replace(CONFIG, epochs=1, workers=2), tmp_path / "needed", backbone="small_resnet4", pixels=None)
    once, needed = weights(tmp_path / "once"), weights(tmp_path / "needed")
    assert all(torch.equal(once[name], needed[name]) for name in once)


SCRIPT = """
import sys, torch, numpy as np
torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_train import CONFIG
from compatlearn.data.images import decode
from compatlearn.data.sources import open_images
from compatlearn.training.train import train
from compatlearn.losses import InfluenceLoss
if __name__ == "__main__":
    images = open_images("digits").take(np.arange(0, 1250, 2))
    loss = InfluenceLoss(torch.eye(10, 12))
    pixels = decode(images, 16)[1]
    train(images, CONFIG, Path({out!r}), backbone="test_train:dropout_net", loss=loss, pixels=pixels, resume={resume})
"""


def dropout_net() -> torch.nn.Module:
    """A net whose training draws random numbers of its own, so that resuming must restore them."""
    return torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(768, 32), torch.nn.BatchNorm1d(32), torch.nn.Dropout(0.3), torch.nn.Linear(32, 16)
    )


def start(out: Path, resume: bool) -> "subprocess.Popen[str]":
    code = SCRIPT.format(tests=str(Path(__file__).parent), out=str(out), resume=resume)
    return subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def finish(run: "subprocess.Popen[str]") -> None:
    _, said = run.communicate(timeout=240)
    assert run.returncode == 0, said


def test_killed_and_resumed_is_bitwise_the_uninterrupted_run(tmp_path: Path) -> None:
    finish(start(tmp_path / "whole", resume=False))
    killed = start(tmp_path / "killed", resume=False)
    deadline = time.monotonic() + 200
    while not list((tmp_path / "killed").glob("checkpoint-*")) and time.monotonic() < deadline:
        time.sleep(0.002)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (tmp_path / "killed" / "model.safetensors").exists(), "killed too late to show anything"
    finish(start(tmp_path / "killed", resume=True))
    expected, got = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    log = [json.loads(line) for line in (tmp_path / "killed" / "log.jsonl").read_text().splitlines()]
    assert [entry["epoch"] for entry in log] == [1, 2, 3]  # an epoch that was run twice is logged once


def test_a_finished_run_is_not_trained_again(digits: Images, pixels: np.ndarray, tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=1)
    train(digits, config, tmp_path / "run", backbone="small_resnet4", pixels=pixels)
    written = (tmp_path / "run" / "model.safetensors").stat().st_mtime_ns
    train(digits, config, tmp_path / "run", backbone="small_resnet4", pixels=pixels, resume=True)
    assert (tmp_path / "run" / "model.safetensors").stat().st_mtime_ns == written
    with pytest.raises(ConfigError, match="already holds a run"):
        train(digits, config, tmp_path / "run", backbone="small_resnet4", pixels=pixels)
    with pytest.raises(ConfigError, match="epochs was 1, is 5"):
        train(digits, replace(config, epochs=5), tmp_path / "run", backbone="small_resnet4", pixels=pixels, resume=True)


def test_divergence_is_an_error_that_says_where(digits: Images, pixels: np.ndarray, tmp_path: Path) -> None:
    loss = InfluenceLoss(1e30 * torch.ones(10, 4))
    with pytest.raises(TrainingError, match="diverged in epoch 1 of 3"):
        train(digits, CONFIG, tmp_path / "run", backbone="small_resnet4", loss=loss, pixels=pixels)


def test_more_old_dimensions_than_the_backbone_gives(digits: Images, pixels: np.ndarray, tmp_path: Path) -> None:
    loss = InfluenceLoss(torch.eye(10, 40))
    with pytest.raises(IncompatibleError, match="40 dimensions, the new model gives 16; train it with dimension=40"):
        train(digits, CONFIG, tmp_path / "run", backbone="small_resnet4", loss=loss, pixels=pixels)
    config = replace(CONFIG, epochs=1, dimension=40)
    learner = train(digits, config, tmp_path / "wide", backbone="small_resnet4", loss=loss, pixels=pixels)
    assert learner.embedder.dimension == 40
    assert load_learner(tmp_path / "wide" / "model.safetensors").embedder.dimension == 40


class Foreign(torch.nn.Module):
    """A user's own loss, which happens to hold a wide table; it says by itself what it needs."""

    def __init__(self, needed: int) -> None:
        super().__init__()
        self.needed = needed
        self.register_buffer("neighbours", torch.zeros(7, 50))

    def check_dimension(self, dimension: int) -> None:
        if dimension < self.needed:
            raise IncompatibleError(f"{self.needed} dimensions, please")

    def forward(self, features: torch.Tensor, labels: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return features.square().mean()


def test_a_loss_says_itself_which_dimension_it_needs(digits: Images, pixels: np.ndarray, tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=1)
    train(digits, config, tmp_path / "fits", backbone="small_resnet4", loss=Foreign(16), pixels=pixels)
    with pytest.raises(IncompatibleError, match=r"^17 dimensions, please$"):
        train(digits, config, tmp_path / "narrow", backbone="small_resnet4", loss=Foreign(17), pixels=pixels)
    assert not (tmp_path / "narrow").exists()


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if not method.adapter])
def test_every_loss_of_ours_refuses_a_narrow_model_before_the_first_batch(name: str) -> None:
    old, labels = np.random.default_rng(0).normal(size=(24, 6)).astype(np.float32), np.arange(24) % 3
    options = {"temperature": 0.1, "damping": 0.9, "steps": None, "seed": 0, "scale": None, "epochs": 3}
    loss = METHODS[name].loss(OldKnowledge(old, labels, 3, lambda: torch.nn.Linear(6, 3), options, old))
    if loss is None:
        return
    with pytest.raises(IncompatibleError, match=r"6 dimensions|got 5"):
        loss.check_dimension(5)
    loss.check_dimension(12)


def test_bfloat16_is_float32_where_the_processor_has_none(
    digits: Images, pixels: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    monkeypatch.setattr(progress, "said", set())
    config, out = replace(CONFIG, epochs=1), tmp_path / "bf16"
    train(digits, config, tmp_path / "float32", backbone="small_resnet8", pixels=pixels)
    for _ in range(2):
        train(digits, replace(config, precision="bf16"), out, backbone="small_resnet8", pixels=pixels, resume=True)
    lines = [line for line in capsys.readouterr().err.splitlines() if ": epoch " not in line]
    assert lines == ["this processor has no bfloat16 arithmetic: training in float32 instead"]
    expected, found = weights(tmp_path / "float32"), weights(out)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    run = json.loads((out / "run.json").read_text())
    assert (run["precision"], run["arithmetic"]) == ("bf16", "no")


def test_a_run_that_moves_to_another_arithmetic_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    open_run(tmp_path, {"precision": "bf16"}, False, "bf16")
    (tmp_path / "checkpoint-1").mkdir()
    open_run(tmp_path, {"precision": "bf16"}, True, "bf16")
    assert capsys.readouterr().err == ""
    open_run(tmp_path, {"precision": "bf16"}, True, "no")
    line = "resuming in float32 what was trained in bfloat16 until here: the weights will differ a little\n"
    assert capsys.readouterr().err == line


def test_float16_needs_a_gpu(digits: Images, pixels: np.ndarray, tmp_path: Path) -> None:
    if torch.accelerator.is_available():
        pytest.skip("there is one")
    with pytest.raises(ConfigError, match="precision fp16 needs a GPU, and there is none here; use bf16 or no"):
        train(digits, replace(CONFIG, precision="fp16"), tmp_path / "run", backbone="small_resnet8", pixels=pixels)
    assert not (tmp_path / "run").exists()


def test_a_run_that_cannot_begin_leaves_nothing_behind(digits: Images, pixels: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(IncompatibleError):
        train(digits, CONFIG, tmp_path / "run", backbone="small_resnet4", loss=InfluenceLoss(torch.eye(10, 40)), pixels=pixels)
    with pytest.raises(ConfigError, match=r"unknown tracker 'tensorbord'; did you mean 'tensorboard'\?"):
        train(digits, replace(CONFIG, tracker="tensorbord"), tmp_path / "run", backbone="small_resnet4", pixels=pixels)
    assert not (tmp_path / "run").exists()


def test_a_tracker_is_told_every_epoch(digits: Images, pixels: np.ndarray, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = replace(CONFIG, tracker="tensorboard")
    train(digits, config, tmp_path / "run", backbone="small_resnet4", pixels=pixels)
    events = EventAccumulator(str(tmp_path / "run" / "compatlearn"))
    events.Reload()
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [event.value for event in events.Scalars("class_loss")] == pytest.approx([entry["class_loss"] for entry in log])


def test_an_unreadable_image_met_while_training_is_counted(digits: Images, tmp_path: Path) -> None:
    def read(row: int) -> object:
        if row == int(digits.rows[5]):
            raise OSError("truncated")
        return digits.read(row)

    config = replace(CONFIG, epochs=1, batch_size=625)
    train(replace(digits, read=read), config, tmp_path / "run", backbone="small_resnet4")
    assert json.loads((tmp_path / "run" / "log.jsonl").read_text())["unreadable"] == 1


def test_a_full_disk_at_a_checkpoint_is_one_error(
    digits: Images, pixels: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import accelerate

    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(accelerate.Accelerator, "save_state", full)
    with pytest.raises(DataError, match=r"cannot write .*checkpoint: No space left on device"):
        train(digits, CONFIG, tmp_path / "run", backbone="small_resnet4", pixels=pixels)


def test_a_foreign_file_is_not_a_model(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "model.pt")
    with pytest.raises(FormatError, match="not a safetensors file"):
        load_learner(tmp_path / "model.pt")


def test_crops_and_flips_are_windows_of_the_padded_image() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(1, 256, (50, 3, 9, 9), dtype=torch.uint8, generator=generator)
    config = replace(CONFIG, image_size=8, padding=2, flip=True)
    crops = augment(images, config, generator)
    assert crops.shape == (50, 3, 8, 8)
    seen = set()
    for image, crop in zip(images, crops, strict=True):
        padded = torch.nn.functional.pad(image, [2] * 4)
        windows = {
            (y, x, flipped): window.flip(2) if flipped else window
            for y in range(6)
            for x in range(6)
            for flipped in (False, True)
            for window in [padded[:, y : y + 8, x : x + 8]]
        }
        places = [place for place, window in windows.items() if torch.equal(window, crop)]
        assert len(places) == 1
        seen.add(places[0])
    assert len({place[2] for place in seen}) == 2
    assert len(seen) > 20


def test_without_padding_or_room_nothing_moves() -> None:
    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    same = augment(images, replace(CONFIG, image_size=8, padding=0, flip=False), torch.Generator().manual_seed(0))
    assert torch.equal(same, images)
