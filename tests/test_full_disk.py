"""A full or read-only disk, for every command that writes a folder: one line, and the same command goes on afterwards."""

import re
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from compatlearn import Features
from samples import CAT, DOG, call, complaint, image_folder

SMALL = ("--epochs", "2", "--batch-size", "8", "--resize", "8", "--image-size", "8")
COMMANDS = {
    "extract": ("--model", "samples:mean_colour"),
    "train": ("--backbone", "small_resnet8", *SMALL),
    "compare": ("--old-backbone", "small_resnet8", "--new-backbone", "small_resnet8", "--methods", "ridge", *SMALL),
}


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("data") / "pets"
    for split, count in (("train", 12), ("val", 4)):
        image_folder(data / split, {CAT: count, DOG: count})
    return data


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """No file of this process can grow beyond `limit` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A file system that cannot be written: not even root can."""
    (tmp_path / "disk").mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", tmp_path / "disk"], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("needs the right to mount")
    yield tmp_path / "disk"
    subprocess.run(["umount", tmp_path / "disk"], check=True)


def arguments(name: str, data: Path, out: Path) -> tuple[object, ...]:
    return name, "--data", data if name == "compare" else f"{data}:train", "--out", out, *COMMANDS[name]


@pytest.mark.parametrize("limit", [500, 3000, 20_000])
@pytest.mark.parametrize("name", ["train", "compare"])
def test_a_full_disk(capsys: pytest.CaptureFixture[str], pets: Path, tmp_path: Path, name: str, limit: int) -> None:
    out = tmp_path / "out"
    with full_disk(limit):
        said = complaint(capsys, 1, *arguments(name, pets, out), progress=True)
    assert re.fullmatch(rf"cannot write {out}.*; free some space or write elsewhere", said)
    assert not list(out.rglob(".*"))  # neither a lock nor half a file
    resume = ["--resume"] if (out / "run.json").exists() else []
    assert call(capsys, *arguments(name, pets, out), *resume)[0] == 0


@pytest.mark.parametrize("name", COMMANDS)
def test_a_read_only_disk(capsys: pytest.CaptureFixture[str], pets: Path, read_only: Path, name: str) -> None:
    said = complaint(capsys, 1, *arguments(name, pets, read_only / "out"))
    assert said == f"--out {read_only}/out cannot be written: {read_only} is read-only for you; name another place"


def test_features_on_a_read_only_disk_are_read(capsys: pytest.CaptureFixture[str], pets: Path, read_only: Path) -> None:
    """An extraction that is finished needs no writing, and so no lock."""
    subprocess.run(["mount", "-o", "remount,rw", read_only], check=True)
    assert call(capsys, *arguments("extract", pets, read_only / "out"))[0] == 0
    subprocess.run(["mount", "-o", "remount,ro", read_only], check=True)
    code, out, err = call(capsys, *arguments("extract", pets, read_only / "out"))
    assert (code, err) == (0, "")
    assert "24 features of 3 dimensions" in out
    assert len(Features.load(read_only / "out")) == 24
