"""Commands that are killed again and again, wherever they are, end with the bytes of a run that nobody killed."""

import gc
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from compatlearn.cli.app import run
from compatlearn.features.features import Features
from compatlearn.locks import LOCK
from samples import CAT, DOG, image_folder

UNREADABLE = ("cat/5.png", "dog/11.png")
STAGES = (".vectors*", "vectors.npy", ".rows*", "rows.parquet", ".skipped*", "skipped.json", ".manifest*", "manifest.json")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork")


def command(arguments: list[str]) -> None:
    """One call of the command line, on a slow disk, so that every stage lasts long enough to be killed in."""
    import torch

    torch.set_num_threads(1)
    gc.freeze()  # accelerate collects garbage after each training: not in what was imported
    if arguments[0] == "plan":
        _keep_every_fit()
    flush = os.fsync
    os.fsync = lambda descriptor: (time.sleep(0.01), flush(descriptor))[1]
    sys.exit(run(arguments))


def _keep_every_fit() -> None:
    """Plans of quick methods, one of them a network, whose fits are all kept."""
    from compatlearn.upgrade import choice, curves, fits

    fits.WORTH = 0.0
    choice.UNLABELLED = choice.DISTILLING = ("ridge", "residual-mlp")
    choice.TRANSLATING = ("procrustes", "kernel-ridge")
    curves.PARTS, curves.SHARES = (0.5, 1), (0.0, 1.0)


Start = Callable[[list[str]], multiprocessing.process.BaseProcess]


@pytest.fixture(scope="module")
def start() -> Start:
    """Starts a command in a process of its own: a copy of one that has imported everything and done nothing."""
    context = multiprocessing.get_context("forkserver")
    modules = ["encoders.extract", "data.sources", "comparison.compare", "training.train", "cli.loss", "cli.compare"]
    modules += ["upgrade.plan", "report.plan_page", "adapters.heads"]
    libraries = ["pytest", "accelerate", "torch._dynamo", "torchvision", "timm", "pandas", "matplotlib.pyplot", "test_killed"]
    context.set_forkserver_preload([*libraries, *(f"compatlearn.{name}" for name in modules)])

    def begin(arguments: list[str]) -> multiprocessing.process.BaseProcess:
        process = context.Process(target=command, args=(arguments,))
        process.start()
        return process

    return begin


def extraction(data: Path, out: Path) -> list[str]:
    options = ["--shard-rows", "2", "--batch-size", "1", "--tolerance", "0.1"]
    return ["extract", "--data", str(data), "--model", "samples:mean_colour", "--out", str(out), *options]


def kill(process: multiprocessing.process.BaseProcess) -> bool:
    """Whether it was killed, and had not come to its end before."""
    process.kill()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def finish(process: multiprocessing.process.BaseProcess) -> None:
    process.join()
    assert process.exitcode == 0


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but those of locks: a crash leaves such a file behind, and not the lock."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != LOCK)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def entries(folder: Path, pattern: str) -> set[tuple[str, int]]:
    """Files by name and number: one that was replaced is another file."""
    return {(path.name, path.stat().st_ino) for path in folder.glob(pattern)}


def test_killed_anywhere_again_and_again(start: Start, tmp_path: Path) -> None:
    data = image_folder(tmp_path / "pets", {CAT: 21, DOG: 20})
    for name in UNREADABLE:
        (data / name).write_bytes(b"no picture")
    finish(start(extraction(data, tmp_path / "warm")))
    started = time.monotonic()
    finish(start(extraction(data, tmp_path / "whole")))
    duration = time.monotonic() - started
    expected = contents(tmp_path / "whole")
    features = Features.load(tmp_path / "whole", verify=True)
    every = {f"{name}/{number}.png" for name, count in ((CAT, 21), (DOG, 20)) for number in range(count)}
    assert sorted(features.ids.tolist()) == sorted(every - set(UNREADABLE))
    assert sorted(expected) == ["manifest.json", "rows.parquet", "skipped.json", "vectors.npy"]

    moments, kills = random.Random(0), 0
    while kills < 30:  # while shards are written, most of the time
        out = tmp_path / f"anywhere{kills}"
        while True:
            process = start(extraction(data, out))
            process.join(moments.uniform(0, duration))
            if not kill(process):
                break
            kills += 1
        assert contents(out) == expected

    out, landed = tmp_path / "end", []
    process = start(extraction(data, out))
    while not list(out.glob("shards/00020.npz")):
        assert process.exitcode is None
        time.sleep(0.001)
    kill(process)
    assert list(out.glob("shards/00020.npz"))  # every shard is there, the features are not
    for stage in STAGES:
        again = shutil.copytree(out, tmp_path / f"end{len(landed)}")
        before = entries(again, stage)
        process = start(extraction(data, again))
        while process.exitcode is None and not entries(again, stage) - before:
            time.sleep(0.001)
        landed.append(kill(process) and (again / "plan.json").exists())
        finish(start(extraction(data, again)))
        assert contents(again) == expected, stage
    assert sum(landed) >= 6, landed  # of 8


SMALL = ["--epochs", "3", "--batch-size", "8", "--resize", "8", "--image-size", "8"]


def training(data: Path, out: Path) -> list[str]:
    resume = ["--resume"] if (out / "run.json").exists() else []
    return ["train", "--data", f"{data}:train", "--backbone", "small_resnet8", "--out", str(out), *SMALL, *resume]


def comparison(data: Path, out: Path) -> list[str]:
    models = ["--old-backbone", "small_resnet8", "--new-backbone", "small_resnet8", "--methods", "random-walk,ridge"]
    return ["compare", "--data", str(data), "--out", str(out), *models, *SMALL]


def tensors(path: Path) -> tuple[dict[str, str], dict[str, bytes]]:
    """Header, but for its date and the digest of all, and tensors of a safetensors file; its entries come in any order."""
    with safe_open(path, "np") as file:
        header = {key: value for key, value in file.metadata().items() if key not in ("date", "digest")}
        return header, {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118


def undated(results: bytes) -> dict[str, Any]:
    """The results of a comparison, but for when and by what command they were made."""
    return {key: value for key, value in json.loads(results).items() if key != "made"}


@pytest.mark.parametrize(
    ("arguments", "results", "count"),
    [(training, ["run.json", "skipped.json"], 30), (comparison, ["results.json"], 30)],
    ids=["train", "compare"],
)
def test_training_killed_anywhere_again_and_again(
    start: Start, tmp_path: Path, arguments: Callable[[Path, Path], list[str]], results: list[str], count: int
) -> None:
    data, whole = tmp_path / "pets", tmp_path / "whole"
    for split, images in (("train", 20), ("val", 6)):
        image_folder(data / split, {CAT: images, DOG: images})
    finish(start(arguments(data, tmp_path / "warm")))
    started = time.monotonic()
    finish(start(arguments(data, whole)))
    duration = time.monotonic() - started
    expected = contents(whole)
    assert set(results) <= set(expected)

    moments, kills, runs = random.Random(1), 0, 0
    while kills < count:
        out = tmp_path / f"anywhere{runs}"
        runs += 1
        while True:
            process = start(arguments(data, out))
            process.join(moments.uniform(0, duration))
            if not kill(process):
                break
            kills += 1
        found = contents(out)
        assert sorted(found) == sorted(expected)
        for name in expected:
            if name == "results.json":
                assert undated(found[name]) == undated(expected[name])
            elif name in results or name.endswith(".npy"):
                assert found[name] == expected[name], name
            elif name.endswith(".safetensors"):
                assert tensors(out / name) == tensors(whole / name), name


def untimed(content: Any) -> Any:
    """What a plan found, but for how long it took and where it was written."""
    if isinstance(content, dict):
        timed = ("seconds", "query_microseconds", "made", "next", "commands")
        return {key: untimed(value) for key, value in content.items() if key not in timed}
    return [untimed(one) for one in content] if isinstance(content, list) else content


def test_a_plan_killed_anywhere_again_and_again(start: Start, tmp_path: Path) -> None:
    random_vectors, ids = np.random.default_rng(0), np.arange(160)
    new = random_vectors.normal(size=(160, 6))
    sides = {"new": new, "old": new @ random_vectors.normal(size=(6, 4)) + random_vectors.normal(size=(160, 4))}
    rows = {"index": ("old", slice(0, 120)), "pairs": ("new", slice(0, 50)), "backfill": ("new", slice(0, 120))}
    rows |= {"queries-new": ("new", slice(120, 160)), "queries-old": ("old", slice(120, 160))}
    for name, (side, part) in rows.items():
        Features(sides[side][part].astype(np.float32), ids=ids[part]).save(tmp_path / name)

    def planning(out: Path) -> list[str]:
        flags = zip(("--index", "--pairs-new", "--backfill", "--new-queries", "--old-queries"), rows, strict=True)
        return ["plan", *(str(part) for flag, name in flags for part in (flag, tmp_path / name)), "--out", str(out)]

    finish(start(planning(tmp_path / "warm")))
    started = time.monotonic()
    finish(start(planning(tmp_path / "whole")))
    duration = time.monotonic() - started
    whole = contents(tmp_path / "whole")

    moments, kills, kept = random.Random(2), 0, 0
    while kills < 6:
        out = tmp_path / f"anywhere{kills}"
        while True:
            process = start(planning(out))
            process.join(moments.uniform(0, duration))
            if not kill(process):
                break
            kills += 1
            kept += len(list(out.glob("fits/*.safetensors")))
        assert set(contents(out)) == set(whole)
        assert untimed(json.loads((out / "plan.json").read_text())) == untimed(json.loads(whole["plan.json"]))
        for name in whole:
            if name.endswith(".safetensors"):
                assert tensors(out / name) == tensors(tmp_path / "whole" / name)
    assert kept > 0  # fits were there to resume from
