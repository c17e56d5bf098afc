"""One writer a folder: the second is refused with a line that names the first; a crash leaves no lock."""

import errno
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from compatlearn import DataError, Features, locks
from compatlearn.locks import locked
from samples import call, complaint, image_folder

HOLDER = """
import sys, time
from pathlib import Path
from compatlearn.locks import locked
with locked(Path(sys.argv[1])):
    (Path(sys.argv[1]) / "work").touch()
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "PATIENCE", 0.2)


@pytest.fixture
def holder(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that holds `tmp_path / "out"`."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "out")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_second_is_refused_and_told_who_the_first_is(holder: "subprocess.Popen[str]", tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught, locked(tmp_path / "out"):
        raise AssertionError
    who = rf"process {holder.pid} on \S+ since \d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d"
    remedy = "wait until that is done, or use another folder"
    assert re.fullmatch(rf"{tmp_path / 'out'} is being written by {who}; {remedy}", str(caught.value))
    with locked(tmp_path / "elsewhere"):
        pass


def test_a_process_that_is_killed_leaves_no_lock(holder: "subprocess.Popen[str]", tmp_path: Path) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "out" / ".lock").exists()
    with locked(tmp_path / "out"):
        assert f"process {os.getpid()} on " in (tmp_path / "out" / ".lock").read_text()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["work"]


def test_every_command_that_writes_a_folder_is_refused(
    holder: "subprocess.Popen[str]", capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out, data = tmp_path / "out", image_folder(tmp_path / "pets", {"cat": 4, "dog": 4})
    for mark in ("plan.json", "run.json", "recipe.json"):  # of whatever the other process is doing
        (out / mark).write_text("{}")
    small = ("--resize", "8", "--image-size", "8")
    for arguments in (
        ("extract", "--data", data, "--model", "samples:mean_colour"),
        ("train", "--data", data, "--backbone", "small_resnet8", *small),
        ("compare", "--data", data, *small),
        ("sweep", "--data", data, *small),
        ("demo",),
    ):
        said = complaint(capsys, 1, *arguments, "--out", out)
        assert said.startswith(f"{out} is being written by process {holder.pid} on "), arguments
    with pytest.raises(DataError, match=f"process {holder.pid} on "):
        Features(np.eye(3, dtype=np.float32)).save(out)
    assert sorted(path.name for path in out.iterdir()) == [".lock", "plan.json", "recipe.json", "run.json", "work"]
    assert call(capsys, "extract", "--data", data, "--model", "samples:mean_colour", "--out", tmp_path / "free")[0] == 0


def test_one_process_has_a_folder_once(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(DataError, match=f"process {os.getpid()} on "), locked(tmp_path):
        raise AssertionError
    with locked(tmp_path):
        pass


def test_folders_that_stay_empty_are_not_left(tmp_path: Path) -> None:
    with pytest.raises(KeyError), locked(tmp_path / "a" / "b"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    with locked(tmp_path / "mine"):
        pass
    assert list(tmp_path.iterdir()) == [tmp_path / "mine"]


def test_a_file_that_its_holder_has_removed_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second opened `.lock` before the first, at its end, unlinked it: what it locked then is nobody's file."""
    take, taken = locks._take, []

    def late(descriptor: int) -> None:
        if not taken:
            (tmp_path / ".lock").unlink()
        taken.append(descriptor)
        take(descriptor)

    monkeypatch.setattr(locks, "_take", late)
    with locked(tmp_path):
        assert len(taken) == 2
        assert (tmp_path / ".lock").read_text()


def test_a_file_system_without_locks_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none(descriptor: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks, "_take", none)
    with locked(tmp_path / "out"):
        pass
    assert capsys.readouterr().err == f"{tmp_path / 'out'} has no locks; start one process there at a time\n"
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_written_the_first_write_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with locked(tmp_path / "file" / "out"):
        pass
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]
