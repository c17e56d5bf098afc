"""`--out` is checked before the work: what a command reads, and what somebody else wrote, is never overwritten."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from compatlearn.cli.out import check_out_file, check_out_folder
from compatlearn.errors import ConfigError
from compatlearn.files import write_tensors

FORMAT = "compatlearn-adapter"


def refused(out: Path, inputs: dict[str, Path | str | None], kind: str = "") -> str:
    with pytest.raises(ConfigError) as caught:
        check_out_folder(out, inputs, kind) if kind else check_out_file(out, inputs, FORMAT)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    np.savez(tmp_path / "old.npz", vectors=np.ones((3, 2)))
    return tmp_path / "old.npz"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "train.parquet").write_text("rows")
    return tmp_path / "shop"


def test_a_file_that_is_read_by_whatever_name(old: Path, tmp_path: Path) -> None:
    (tmp_path / "soft.safetensors").symlink_to(old)
    (tmp_path / "hard.safetensors").hardlink_to(old)
    (tmp_path / "x").mkdir()
    for out in (old, tmp_path / "x" / ".." / "old.npz", tmp_path / "soft.safetensors", tmp_path / "hard.safetensors"):
        said = refused(out, {"--new-features": None, "--old-features": old})
        assert said == f"--out {out} is the same as --old-features {old}, which would be destroyed; name another place"


def test_relative_and_absolute_names(old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "is the same as --features" in refused(Path("old.npz"), {"--features": old})
    assert "is the same as --features" in refused(old, {"--features": "old.npz"})


def test_any_of_several_inputs(old: Path, shop: Path) -> None:
    assert f"--out {old} is the same as --new-features {old}" in refused(old, {"--old-features": shop, "--new-features": old})


@pytest.mark.parametrize("data", ["shop", "shop:train", "link:train"])
def test_a_folder_that_is_read(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("link").symlink_to("shop")
    for out, relation in (("shop", "is the same as"), ("shop/features", "lies in"), (".", "contains"), ("..", "contains")):
        assert refused(Path(out), {"--data": data}, "features").startswith(f"--out {out} {relation} --data {data}, which ")
    said = refused(Path("shop/a.safetensors"), {"--features": data})
    assert said == f"--out shop/a.safetensors lies in --features {data}, which is read; name a place outside it"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["link", "shop", "train.parquet"]


def test_names_that_are_no_files_are_no_inputs(tmp_path: Path) -> None:
    inputs = {"--data": "owner/name:train", "--model": "vendor:embed", "--weights": None, "--recipe": ""}
    check_out_folder(tmp_path / "features", inputs, "features")
    check_out_file(tmp_path / "a.safetensors", inputs, FORMAT)
    assert list(tmp_path.iterdir()) == []


def test_the_suffix_says_what_is_written(tmp_path: Path) -> None:
    said = refused(tmp_path / "b.onnx", {})
    assert said == f"--out {tmp_path}/b.onnx is written as safetensors; call it {tmp_path}/b.safetensors"
    assert "call it" in refused(tmp_path / "b", {})


def test_folders_where_a_file_is_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert refused(Path(), {}) == "--out . is a folder; name a file in it, such as out.safetensors"
    assert refused(tmp_path, {}) == f"--out {tmp_path} is a folder; name a file in it, such as {tmp_path}/out.safetensors"


def test_files_where_a_folder_is_wanted(old: Path) -> None:
    assert refused(old, {}, "run") == f"--out {old} is a file, and a folder is written; name a folder"
    for said in (refused(old / "x" / "a.safetensors", {}), refused(old / "x", {}, "run")):
        assert re.fullmatch(rf"--out {old}/x.* lies below {old}, which is a file; name a folder that is one", said)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o555)
    for said in (refused(tmp_path / "locked" / "a.safetensors", {}), refused(tmp_path / "locked", {}, "run")):
        assert f"cannot be written: {tmp_path}/locked is read-only for you" in said


def test_only_a_file_of_the_same_kind_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "a.safetensors"
    write_tensors(out, {"weight": torch.ones(2)}, {"format": FORMAT})
    check_out_file(out, {}, FORMAT)
    for format, kind in (
        ("compatlearn-pseudo", "a pseudo classifier"),
        ("compatlearn-model", "a model of `compatlearn train`"),
        ("pt", "pt"),
    ):
        write_tensors(out, {"weight": torch.ones(2)}, {"format": format})
        said = refused(out, {})
        assert said == f"--out {out} is there already and is {kind}, not an adapter; name another file, or delete that one"
    write_tensors(out, {"weight": torch.ones(2)}, {})
    assert "is a safetensors file that compatlearn did not write, not an adapter" in refused(out, {})
    for content in (b"", b"text", b"\x02\0\0\0\0\0\0\0[]", b"\xff" * 20):
        out.write_bytes(content)
        assert f"is no safetensors file ({len(content)} bytes), not an adapter" in refused(out, {})
        assert out.read_bytes() == content


@pytest.mark.parametrize(
    ("kind", "mark"),
    [("features", "manifest.json"), ("features", "plan.json"), ("run", "run.json"), ("comparison", "recipe.json")],
)
def test_only_a_folder_of_the_same_kind_is_written_into(tmp_path: Path, kind: str, mark: str) -> None:
    check_out_folder(tmp_path / "new", {}, kind)
    check_out_folder(tmp_path, {}, kind)
    (tmp_path / ".plan.17.tmp.json").touch()  # a process was killed
    check_out_folder(tmp_path, {}, kind)
    (tmp_path / "holiday.jpg").touch()
    said = refused(tmp_path, {}, kind)
    assert said == (
        f"--out {tmp_path} holds files that are not of such a folder (first: holiday.jpg); name a new folder or an empty one"
    )
    (tmp_path / ("plan.json" if kind == "run" else "run.json")).touch()
    assert "holds files that are not of such a folder" in refused(tmp_path, {}, kind)
    (tmp_path / mark).touch()
    check_out_folder(tmp_path, {}, kind)
