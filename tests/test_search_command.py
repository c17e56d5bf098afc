"""The command search: rungs that embed or rank anew, and pictures as queries."""

import json
from pathlib import Path

import numpy as np
import pytest

from compatlearn.adapters.adapter import Adapter
from compatlearn.adapters.methods import GALLERY, QUERY
from compatlearn.features.cache import VectorCache
from compatlearn.features.features import Features
from compatlearn.upgrade.files import FILES
from samples import call, complaint, image_folder, mean_colour, picture

N, MODEL = 24, "samples:mean_colour"
NEW = mean_colour([picture(row) for row in range(N)]).astype(np.float32)
OLD = NEW[:, :2] + np.random.default_rng(0).normal(size=(N, 2)).astype(np.float32)
IDS = [f"cat/{row}.png" for row in range(N)]


@pytest.fixture
def flags(tmp_path: Path) -> tuple[str, ...]:
    """An index of pictures, a plan for it, and how it is searched."""
    image_folder(tmp_path / "pictures", {"cat": N})
    Features(OLD, ids=IDS, space="old@1").save(tmp_path / "shop")
    for way in (QUERY, GALLERY):
        adapter = Adapter("ridge", way).fit(NEW, OLD)
        adapter.space_old, adapter.space_new = "old@1", MODEL
        adapter.save(tmp_path / "plan" / FILES[way])
    content = {"recommended": "mapped", "methods": {"fuse": 1.0, "join": [0.1, 0.1]}}
    (tmp_path / "plan" / "plan.json").write_text(json.dumps(content))
    live = ("--index", str(tmp_path / "shop"), "--metric", "euclidean", "--plan", str(tmp_path / "plan"))
    return "search", *live, "--new-model", MODEL, "--json", "--k", "3"


def first(out: str) -> list[str]:
    return [one["ids"][0] for one in json.loads(out)["results"]]


def test_a_cascade_by_pictures(flags: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(tmp_path / "pictures" / IDS[row]) for row in (3, 11)]
    asked = ("--query-image", files[0], "--query-image", files[1])
    code, out, err = call(capsys, *flags, *asked)
    assert code == 0, err
    assert "by mapped" in err
    assert [one["query"] for one in json.loads(out)["results"]] == files
    cascade = ("--rung", "cascade", "--items", str(tmp_path / "pictures"))
    code, out, err = call(capsys, *flags, *asked, *cascade)
    assert code == 0, err
    assert first(out) == [IDS[3], IDS[11]]
    assert f"{N} items were embedded" in err
    with VectorCache(tmp_path / "plan" / "new.vectors") as cache:
        np.testing.assert_allclose(cache.read(IDS).vectors, NEW, rtol=1e-6)
    code, out, err = call(capsys, *flags, "--queries", str(tmp_path / "pictures"), *cascade)
    assert (code, first(out)) == (0, sorted(IDS)), err
    assert "0 items were embedded" in err


def test_mapped_with_csls(flags: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("--query-image", str(tmp_path / "pictures" / IDS[3]), "--rung", "mapped+csls")
    assert "plan holds none; give --known-queries" in complaint(capsys, 1, *flags, *asked)
    Features(NEW[5:], ids=IDS[5:], space=MODEL).save(tmp_path / "plan" / "features" / "pairs-new")
    code, out, err = call(capsys, *flags, *asked)
    assert code == 0, err
    Features(NEW[5:], ids=IDS[5:], space=MODEL).save(tmp_path / "logged")
    assert call(capsys, *flags, *asked, "--known-queries", str(tmp_path / "logged"))[1] == out


def test_wrong_turns(flags: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lost = str(tmp_path / "lost.png")
    said = complaint(capsys, 1, *flags, "--query-image", lost)
    assert f"image {lost} of --query-image cannot be read" in said
    assert "--query and --query-image both ask" in complaint(capsys, 1, *flags, "--query", "x", "--query-image", lost)
    assert "cascade embeds items for a query; give --items" in complaint(
        capsys, 1, *flags, "--query-image", lost, "--rung", "cascade"
    )
