"""The command backfill: what a budget in money buys and what was spent, and the curve of quality against share."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compatlearn.adapters.adapter import Adapter
from compatlearn.adapters.methods import GALLERY, QUERY
from compatlearn.errors import ConfigError
from compatlearn.features.cache import VectorCache
from compatlearn.features.features import Features
from compatlearn.indexes.open import open_index
from compatlearn.indexes.second import how_of
from compatlearn.migration.backfill import backfill
from compatlearn.migration.money import Money
from compatlearn.migration.status import status
from compatlearn.migration.translate import translate
from compatlearn.upgrade.carry import FILES
from embedding_server import serving, vector
from samples import call, complaint

N, D_OLD = 80, 3
TEXTS = [f"text {row:02}" for row in range(N)]  # 7 bytes each
NEW = np.stack([vector(text) for text in TEXTS])
OLD = (NEW[:, :D_OLD] + 0.3 * np.random.default_rng(1).normal(size=(N, D_OLD))).astype(np.float32)
IDS = [f"item{row}" for row in range(N)]
PRICE = 1e6  # dollars per million tokens: a dollar for each token
SPACE = "openai:m"


def embed(texts: list[str]) -> np.ndarray:
    return np.stack([vector(text) for text in texts])


@pytest.fixture
def live(tmp_path: Path) -> tuple[str, ...]:
    """A translated index, a plan for it and its items, as flags."""
    return made(tmp_path, SPACE)


def made(folder: Path, space: str) -> tuple[str, ...]:
    Features(OLD, ids=IDS, space="old@1").save(folder / "shop")
    plan = folder / "plan"
    plan.mkdir()
    for way in (QUERY, GALLERY):
        adapter = Adapter("ridge", way, metric="cosine").fit(NEW[:30], OLD[:30])
        adapter.space_old, adapter.space_new = "old@1", space
        adapter.save(plan / FILES[way])
    content = {"recommended": "translated", "methods": {"fuse": 1.0, "join": [0.1, 0.1]}}
    (plan / "plan.json").write_text(json.dumps(content))
    lines = [
        json.dumps({"id": one, "text": text, "label": row % 4}) for row, (one, text) in enumerate(zip(IDS, TEXTS, strict=True))
    ]
    (folder / "items.jsonl").write_text("\n".join(lines))
    adapter = Adapter("ridge", GALLERY, metric="cosine").fit(NEW[:30], OLD[:30])
    adapter.space_old, adapter.space_new = "old@1", space
    translate(open_index(folder / "shop", metric="cosine"), adapter, "embedding_v2")
    return "--index", str(folder / "shop"), "--metric", "cosine", "--plan", str(plan), "--items", str(folder / "items.jsonl")


def embedded(folder: Path) -> int:
    return status(open_index(folder / "shop", metric="cosine").second("embedding_v2")).embedded


def test_dollars_buy_items_and_are_counted(live: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving() as service:
        model = ("--new-model", SPACE, "--base-url", service.url, "--batch-size", "10")
        # the service counts 7 tokens for each text, where 7 bytes look like 1.75
        code, out, err = call(capsys, "backfill", *live, *model, "--price", PRICE, "--most-dollars", "150", "--json")
        assert code == 0, err
        assert "$150.00 may be spent: about 80 of 80 items" in err
        assert "at about $1.75 per item; all of them would be $140.00" in err
        assert "m counted 147 tokens, $147.00" in err
        found = json.loads(out)
        assert (found["embedded"], found["spent"], found["finished"]) == (21, 147.0, False), "what is billed is what counts"
        assert embedded(tmp_path) == 21
        assert sum(map(len, service.batches)) == 21
        code, out, err = call(capsys, "backfill", *live, *model, "--price", PRICE, "--most-dollars", "0")
        assert (code, embedded(tmp_path)) == (0, 21), err
        assert "$0 spent" in out


def test_a_price_per_item(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = (*made(tmp_path, "test_backfill:embed"), "--new-model", "test_backfill:embed")
    code, out, err = call(capsys, "backfill", *flags, "--price-per-item", "0.1", "--most-dollars", "3.3")
    assert code == 0, err
    assert "$3.30 may be spent: about 33 of 80 items" in err
    assert "33 items embedded" in out
    assert "the budget is used up; $3.30 spent" in out
    assert embedded(tmp_path) == 33
    code, out, err = call(capsys, "backfill", *flags, "--price-per-item", "0.1", "--json")
    assert code == 0, err
    assert "about 47 of 47 items that have no new vector yet are embedded for $4.70" in err
    assert json.loads(out)["spent"] == pytest.approx(4.7)
    assert json.loads(out)["finished"]


def test_a_budget_in_money_needs_a_price(live: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    model = ("--new-model", SPACE)
    said = complaint(capsys, 1, "backfill", *live, *model, "--most-dollars", "5")
    assert said == (
        "--most-dollars 5 needs a price: give --price-per-item, or of a service --price, in dollars per million tokens"
    )
    both = ("--price", "1", "--price-per-item", "1")
    assert "give one of them" in complaint(capsys, 1, "backfill", *live, *model, *both)
    assert "--price-per-item must be 0 or more dollars; got -1" in complaint(
        capsys, 1, "backfill", *live, *model, "--price-per-item", "-1"
    )
    with pytest.raises(ConfigError, match="finite sum"):
        Money(lambda ids: np.ones(len(ids)), -1.0)


def test_what_is_in_the_cache_is_free(live: tuple[str, ...], tmp_path: Path) -> None:
    second = open_index(tmp_path / "shop", metric="cosine").second("embedding_v2")
    asked: list[Any] = []

    def make(ids: list[Any]) -> np.ndarray:
        asked.extend(ids)
        return NEW[[IDS.index(one) for one in ids]]

    with VectorCache(tmp_path / "some.vectors", space=SPACE) as cache:
        cache.add(IDS[:25], NEW[:25])
        dear = Money(lambda ids: np.array([5.0 if one == "item30" else 1.0 for one in ids]), most=7.0)
        done = backfill(second, make, cache, money=dear, batch=200)
        assert (done.cached, done.embedded, done.spent, done.finished) == (25, 5, 5.0, False), "item30 is beyond it"
        assert asked == IDS[25:30]
        done = backfill(second, make, cache, items=10, batch=200)
        assert (done.embedded, done.spent, done.finished) == (10, None, False), "the budget ends within the last block"
        done = backfill(second, make, cache, batch=200)
        assert (done.embedded, done.finished) == (40, True)
    assert {how_of(said) for said in status(second).marks} == {"embedded"}
