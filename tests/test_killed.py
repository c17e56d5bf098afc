"""`compatlearn extract`, killed again and again wherever it is, ends with the bytes of an extraction that nobody killed."""

import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from compatlearn.cli.app import run
from compatlearn.features.features import Features
from samples import CAT, DOG, image_folder

UNREADABLE = ("cat/5.png", "dog/11.png")
STAGES = (".vectors*", "vectors.npy", ".rows*", "rows.parquet", ".skipped*", "skipped.json", ".manifest*", "manifest.json")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork")


def command(data: Path, out: Path) -> None:
    """One call of the command line, on a slow disk, so that every stage lasts long enough to be killed in."""
    flush = os.fsync
    os.fsync = lambda descriptor: (time.sleep(0.01), flush(descriptor))[1]
    options = ["--shard-rows", "2", "--batch-size", "1", "--tolerance", "0.1"]
    sys.exit(run(["extract", "--data", str(data), "--model", "samples:mean_colour", "--out", str(out), *options]))


@pytest.fixture(scope="module")
def start() -> Callable[[Path, Path], multiprocessing.process.BaseProcess]:
    """Starts the command in a process of its own: a copy of one that has imported everything and done nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", "compatlearn.encoders.extract", "compatlearn.data.sources", "test_killed"])

    def begin(data: Path, out: Path) -> multiprocessing.process.BaseProcess:
        process = context.Process(target=command, args=(data, out))
        process.start()
        return process

    return begin


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
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def entries(folder: Path, pattern: str) -> set[tuple[str, int]]:
    """Files by name and number: one that was replaced is another file."""
    return {(path.name, path.stat().st_ino) for path in folder.glob(pattern)}


def test_killed_anywhere_again_and_again(start: Callable[..., multiprocessing.process.BaseProcess], tmp_path: Path) -> None:
    data = image_folder(tmp_path / "pets", {CAT: 21, DOG: 20})
    for name in UNREADABLE:
        (data / name).write_bytes(b"no picture")
    finish(start(data, tmp_path / "warm"))
    started = time.monotonic()
    finish(start(data, tmp_path / "whole"))
    duration = time.monotonic() - started
    expected = contents(tmp_path / "whole")
    features = Features.load(tmp_path / "whole", verify=True)
    every = {f"{name}/{number}.png" for name, count in ((CAT, 21), (DOG, 20)) for number in range(count)}
    assert sorted(features.ids.tolist()) == sorted(every - set(UNREADABLE))
    assert sorted(expected) == ["manifest.json", "rows.parquet", "skipped.json", "vectors.npy"]

    moments, kills = random.Random(0), 0
    while kills < 12:  # while shards are written, most of the time
        out = tmp_path / f"anywhere{kills}"
        while True:
            process = start(data, out)
            process.join(moments.uniform(0, duration))
            if not kill(process):
                break
            kills += 1
        assert contents(out) == expected

    out, landed = tmp_path / "end", []
    process = start(data, out)
    while not list(out.glob("shards/00020.npz")):
        assert process.exitcode is None
        time.sleep(0.001)
    kill(process)
    assert list(out.glob("shards/00020.npz"))  # every shard is there, the features are not
    for stage in STAGES:
        again = shutil.copytree(out, tmp_path / f"end{len(landed)}")
        before = entries(again, stage)
        process = start(data, again)
        while process.exitcode is None and not entries(again, stage) - before:
            time.sleep(0.001)
        landed.append(kill(process) and (again / "plan.json").exists())
        finish(start(data, again))
        assert contents(again) == expected, stage
    assert sum(landed) >= 6, landed  # of 8
