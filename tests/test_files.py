"""A file is whole or not there; JSON comes back as it went in."""

import errno
import os
import resource
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from compatlearn.errors import DataError, FormatError
from compatlearn.files import read_json, read_tensors, remove_leftovers, write_atomically, write_json, write_tensors


@contextmanager
def largest_file(size):
    """The kernel refuses to let any file grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_the_old_file_stands_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "deep" / "figures.txt"
    write_atomically(path, lambda temporary: temporary.write_text("old") and None)

    def write(temporary: Path) -> None:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert (temporary.parent, temporary.suffix) == (path.parent, ".txt")

    write_atomically(path, write)
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("failure", [ValueError("a bug"), KeyboardInterrupt(), RuntimeError("not of a file")])
def test_a_failure_leaves_the_old_file_and_no_other(tmp_path, failure):
    path = tmp_path / "figures.txt"
    path.write_text("old")

    def write(temporary: Path) -> None:
        temporary.write_text("half")
        raise failure

    with pytest.raises(type(failure)):
        write_atomically(path, write)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


BIG = torch.zeros(500, 500)
WRITERS = {
    "text": lambda path: path.write_bytes(b"x" * 1_000_000) and None,
    "torch": lambda path: torch.save(BIG, path),
    "safetensors": lambda path: save_file({"weights": BIG}, path),
    "npy": lambda path: np.save(path, BIG.numpy()),
    "npz": lambda path: np.savez(path, weights=BIG.numpy()),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_no_room_is_one_line_and_leaves_the_old_file(tmp_path, write):
    path = tmp_path / "weights.npy"
    path.write_text("old")
    if write is WRITERS["npz"]:
        path = path.rename(tmp_path / "weights.npz")
    with largest_file(100_000), pytest.raises(DataError) as caught:
        write_atomically(path, write)
    assert str(caught.value).startswith(f"cannot write {path}: ")
    assert str(caught.value).endswith("; free some space or write elsewhere")
    assert "\n" not in str(caught.value)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_named(tmp_path):
    path = tmp_path / "figures.json"
    (tmp_path / f".figures.{os.getpid()}.tmp.json").symlink_to("/dev/full")
    with pytest.raises(DataError) as caught:
        write_json(path, {"rows": 1})
    assert str(caught.value) == f"cannot write {path}: No space left on device; free some space or write elsewhere"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(DataError, match=r"cannot write .*runs/a\.json: .*; check the path and its permissions"):
        write_json(tmp_path / "runs" / "a.json", {})


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640)])
@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_the_umask_decides_who_may_read(tmp_path, write, umask, mode):
    path = tmp_path / ("weights.npz" if write is WRITERS["npz"] else "weights.npy")
    before = os.umask(umask)
    try:
        for _ in range(2):  # the second replaces the first
            write_atomically(path, write)
            assert path.stat().st_mode & 0o777 == mode
    finally:
        os.umask(before)


def test_a_cleaning_up_that_fails_does_not_hide_what_failed(tmp_path):
    path = tmp_path / "figures.json"

    def write(temporary: Path) -> None:
        temporary.unlink()
        temporary.mkdir()  # which unlink cannot remove
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with pytest.raises(DataError) as caught:
        write_atomically(path, write)
    assert str(caught.value) == f"cannot write {path}: Read-only file system; check the path and its permissions"


def test_tensors_and_their_header_come_back(tmp_path):
    path = tmp_path / "deep" / "a.safetensors"
    weights = {"weights": torch.arange(6.0).reshape(2, 3).T, "half": torch.ones(2).bfloat16()}
    write_tensors(path, weights, {"format": "ours", "sizes": {"d": (2, 3), "scale": np.float32(0.5)}})
    header, tensors = read_tensors(path, format="ours", what="map", remedy="make one")
    assert header == {"format": "ours", "sizes": '{"d": [2, 3], "scale": 0.5}'}
    assert tensors.keys() == weights.keys()
    assert all(torch.equal(tensors[name], weights[name]) for name in weights)
    assert read_tensors(path, format=None, what="map", remedy="make one")[0] == header


def test_tensors_that_cannot_be_read(tmp_path):
    path = tmp_path / "a.safetensors"

    def said():
        with pytest.raises(DataError) as caught:
            read_tensors(path, format="ours", what="map", remedy="make one")
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert said() == f"there is no map {path}; make one"
    write_tensors(path, {"weights": BIG}, {"format": "theirs"})
    assert said() == f"{path} is no map (theirs); make one"
    write_tensors(path, {"weights": BIG}, {})
    assert said() == f"{path} is no map (its header has no format); make one"
    path.write_bytes(path.read_bytes()[:-1])
    assert said().startswith(f"{path} is not a whole safetensors file ({path.stat().st_size} bytes: ")
    torch.save(BIG, path)
    assert said().startswith(f"{path} is not a whole safetensors file (")


def test_leftovers_are_those_of_one_file(tmp_path):
    names = [".vectors.17.tmp.npy", ".vectors.18.tmp.npy", ".rows.17.tmp.parquet", "vectors.npy"]
    for name in names:
        (tmp_path / name).touch()
    remove_leftovers(tmp_path / "vectors.npy")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names[2:])


@dataclass
class Figure:
    top1: float
    folder: Path


def test_json_round_trip(tmp_path):
    path = tmp_path / "figures.json"
    write_json(
        path,
        {
            "figure": Figure(0.5, Path("runs/old")),
            "numpy": [np.float32(0.25), np.int64(3), np.array([[1, 2]]), np.bool_(True)],
            "text": "φ_old",
            "undefined": [float("nan"), np.float64("inf"), np.array([np.nan])],
            3: (None, False),
        },
    )
    assert read_json(path) == {
        "figure": {"top1": 0.5, "folder": "runs/old"},
        "numpy": [0.25, 3, [[1, 2]], True],
        "text": "φ_old",
        "undefined": [None, None, [None]],
        "3": [None, False],
    }
    assert "φ_old" in path.read_text(encoding="utf-8")


def test_json_that_is_none(tmp_path):
    path = tmp_path / "figures.json"
    with pytest.raises(DataError, match=r"there is no file .*figures\.json; check the path"):
        read_json(path)
    path.write_text('{"rows": 1,\n')
    with pytest.raises(FormatError, match=r"figures\.json is not JSON: .* at line 2, column 1"):
        read_json(path)
    path.write_bytes(b'"\xff"')
    with pytest.raises(FormatError, match="not UTF-8"):
        read_json(path)
    with pytest.raises(DataError, match="cannot read"):
        read_json(tmp_path)
