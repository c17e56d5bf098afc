"""The commands of a live index: wrong turns are one line each, and nothing is lost by them."""

import json
from pathlib import Path

import numpy as np
import pytest

from compatlearn.adapters.adapter import Adapter
from compatlearn.adapters.methods import GALLERY, QUERY
from compatlearn.cli.live import redacted
from compatlearn.features.features import Features
from compatlearn.indexes.open import open_index
from compatlearn.upgrade.files import FILES
from samples import call, complaint

N, D_OLD, D_NEW = 60, 5, 7
NEW = np.random.default_rng(0).normal(size=(N, D_NEW)).astype(np.float32)
OLD = NEW[:, :D_OLD] + 0.1 * np.random.default_rng(1).normal(size=(N, D_OLD)).astype(np.float32)
IDS = [f"item{row}" for row in range(N)]


def embed(texts: list[str]) -> np.ndarray:
    return NEW[[int(text.removeprefix("text ")) for text in texts]]


def other(texts: list[str]) -> np.ndarray:
    return -embed(texts)


@pytest.fixture
def live(tmp_path: Path) -> tuple[str, ...]:
    """An index and a plan for it, as flags."""
    Features(OLD, ids=IDS, space="old@1").save(tmp_path / "shop")
    plan = tmp_path / "plan"
    plan.mkdir()
    for way in (QUERY, GALLERY):
        adapter = Adapter("ridge", way, metric="cosine").fit(NEW[:40], OLD[:40])
        adapter.space_old, adapter.space_new = "old@1", "test_live_commands:embed"
        adapter.save(plan / FILES[way])
    content = {"recommended": "translated", "methods": {"fuse": 1.0, "join": [0.1, 0.1]}}
    (plan / "plan.json").write_text(json.dumps(content))
    lines = [json.dumps({"id": one, "text": f"text {row}"}) for row, one in enumerate(IDS)]
    (tmp_path / "items.jsonl").write_text("\n".join(lines))
    return "--index", str(tmp_path / "shop"), "--metric", "cosine"


def test_the_whole_way_and_its_wrong_turns(live: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan, before = ("--plan", str(tmp_path / "plan")), open_index(tmp_path / "shop").read(IDS).vectors
    model = ("--new-model", "test_live_commands:embed")
    backfill = ("backfill", *live, *plan, "--items", str(tmp_path / "items.jsonl"), *model)
    assert "no second vector 'embedding_v2'; translate makes one" in complaint(capsys, 1, "status", *live)
    assert "no second vector" in complaint(capsys, 1, *backfill)
    code, out, err = call(capsys, "translate", *live, *plan, "--json")
    assert code == 0, err
    assert json.loads(out)["written"] == N
    assert call(capsys, "status", *live, "--require-finished")[0] == 0
    assert "--budget is a share" in complaint(capsys, 1, *backfill, "--budget", "2")
    stranger = [*backfill[:-1], "test_live_commands:other"]
    assert "'test_live_commands:other', and embedding_v2 holds those of 'test_live_commands:embed'" in complaint(
        capsys, 1, *stranger
    )
    code, out, err = call(capsys, *backfill, "--budget", "0.5", "--json")
    assert code == 0, err
    assert json.loads(out)["embedded"] == N // 2
    code, out, _ = call(capsys, "status", *live, "--json")
    assert (code, json.loads(out)["embedded"], json.loads(out)["translated"]) == (0, N // 2, N // 2)
    code, out, err = call(
        capsys, "search", *live, *plan, "--query", "text 3", "--query", "text 5", *model, "--k", "2", "--json"
    )
    assert code == 0, err
    assert [one["ids"][0] for one in json.loads(out)["results"]] == ["item3", "item5"]
    assert "needs the old queries" in complaint(
        capsys, 1, "search", *live, *plan, "--query", "text 3", *model, "--rung", "fused"
    )
    assert "nothing is asked" in complaint(capsys, 1, "search", *live, *plan)
    assert f"holds {N // 2} vectors that a model has embedded; pass --yes" in complaint(capsys, 1, "rollback", *live)
    assert call(capsys, "rollback", *live, "--yes")[0] == 0
    assert open_index(tmp_path / "shop").second("embedding_v2") is None
    np.testing.assert_array_equal(open_index(tmp_path / "shop").read(IDS).vectors, before)


def test_a_folder_without_a_plan(live: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = complaint(
        capsys, 1, "search", *live, "--plan", str(tmp_path), "--query", "text 1", "--new-model", "test_live_commands:embed"
    )
    assert "holds no plan.json" in said


def test_an_address_of_no_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean 'qdrant'" in complaint(capsys, 1, "status", "--index", "qdrnt:x#y")
    assert "postgresql://USER@HOST/DATABASE#table.column" in complaint(
        capsys, 1, "status", "--index", "postgresql://localhost/x"
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:secret@host/db#t.c", "postgresql://me:***@host/db#t.c"),
        ("postgresql://host/db?user=me&password=secret#t.c", "postgresql://host/db?user=me&password=***#t.c"),
        ("--index=postgresql://me:sec%40ret@host:5432/db", "--index=postgresql://me:***@host:5432/db"),
        ("qdrant:http://localhost:6333#items", "qdrant:http://localhost:6333#items"),
        ("items.jsonl", "items.jsonl"),
    ],
)
def test_passwords_are_struck_out(text: str, shown: str) -> None:
    assert redacted(text) == shown
