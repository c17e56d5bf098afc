"""The command backfill: what a budget in money buys and what was spent, and the curve of quality against share."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compatlearn.adapters.adapter import Adapter
from compatlearn.adapters.methods import GALLERY, QUERY
from compatlearn.errors import ConfigError, DataError
from compatlearn.evaluation.relevance import Relevance
from compatlearn.features.cache import VectorCache
from compatlearn.features.features import Features
from compatlearn.features.ids import Items
from compatlearn.indexes.exact import search
from compatlearn.indexes.open import open_index
from compatlearn.indexes.second import how_of
from compatlearn.migration.backfill import backfill
from compatlearn.migration.curve import BackfillLog
from compatlearn.migration.judge import Judge, halves
from compatlearn.migration.money import Money
from compatlearn.migration.search import Road
from compatlearn.migration.status import status
from compatlearn.migration.translate import translate
from compatlearn.upgrade.files import FILES
from embedding_server import serving, vector
from samples import call, complaint

N, D_OLD = 80, 3
TEXTS = [f"text {row:02}" for row in range(N)]  # 7 bytes each
NEW = np.stack([vector(text) for text in TEXTS])
OLD = (NEW[:, :D_OLD] + 0.3 * np.random.default_rng(1).normal(size=(N, D_OLD))).astype(np.float32)
IDS = [f"item{row}" for row in range(N)]
PRICE = 1e6  # dollars per million tokens: a dollar for each token
SPACE, MODEL = "openai:m", "test_backfill:embed"


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
    flags = (*made(tmp_path, MODEL), "--new-model", MODEL)
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


def queries(folder: Path, labels: bool = True) -> str:
    asked = np.random.default_rng(5).permutation(N)[:40]
    vectors = NEW[asked] + 0.1 * np.random.default_rng(6).normal(size=(40, NEW.shape[1])).astype(np.float32)
    names = [f"q{row}" for row in range(40)]
    Features(vectors, asked % 4 if labels else None, ids=names, space=MODEL).save(folder / "queries")
    (folder / "qrels.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + "".join(f"q{row}\titem{item}\t1\n" for row, item in enumerate(asked))
    )
    return str(folder / "queries")


@pytest.mark.parametrize("truth", ["judgements", "classes", "agreement"])
def test_the_curve_is_measured_as_it_goes(truth: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = [*made(tmp_path, MODEL), "--new-model", MODEL, "--queries", queries(tmp_path, truth == "classes")]
    flags += ["--qrels", str(tmp_path / "qrels.tsv")] if truth == "judgements" else []
    code, out, err = call(capsys, "backfill", *flags, "--most-items", "20", "--batch-size", "4", "--json")
    assert code == 0, err
    assert "20 queries choose the order, 20 others measure" in err
    log = json.loads((tmp_path / "plan" / "backfill.json").read_text())
    points = log["curve"]["points"]
    assert [one["items"] for one in points] == [0, 4, 8, 16, 20]
    assert [one["share"] for one in points] == [0.0, 0.05, 0.1, 0.2, 0.25]
    primary = {"judgements": "ndcg10", "classes": "top1", "agreement": "agreement"}[truth]
    assert log["curve"]["primary"] == primary
    assert json.loads(out)["curve"] == points
    code, _, err = call(capsys, "backfill", *flags)
    assert code == 0, err
    log = json.loads((tmp_path / "plan" / "backfill.json").read_text())
    points = log["curve"]["points"]
    assert [one["items"] for one in points] == [0, 4, 8, 16, 20, 80], "a run that resumes continues the curve"
    assert [run["embedded"] for run in log["runs"]] == [20, 60]
    first, last = points[0]["figures"][primary], points[-1]["figures"][primary]
    assert first["low"] <= first["value"] <= first["high"]
    assert first["value"] < last["value"]
    words = {"judgements": "judgements", "classes": "classes", "agreement": "agreement with the new model's own ranking"}
    assert log["curve"]["judged_by"] == words[truth]
    named = {"judgements": "nDCG@10", "classes": "top-1", "agreement": "agreement with the point before"}[truth]
    assert f"100.0% embedded (80 of 80): {named}" in err

    second = open_index(tmp_path / "shop", metric="cosine").second("embedding_v2")
    loaded = Features.load(tmp_path / "queries")
    asked = loaded.take(halves(loaded)[1])
    exact = search(asked.vectors, NEW, 10, "cosine").indices
    if truth == "agreement":
        assert last["value"] == 1
        assert [[f"item{row}" for row in rows] for rows in exact[:, :3]] == second.search(asked.vectors, 3).ids.tolist()
    elif truth == "classes":
        assert last["value"] == np.mean(exact[:, 0] % 4 == asked.labels)


def test_queries_that_are_items_do_not_find_themselves(tmp_path: Path) -> None:
    made(tmp_path, SPACE)
    index = open_index(tmp_path / "shop", metric="cosine")
    road = Road("partial", index, index.second("embedding_v2"))
    asked = Features(NEW[:5], np.arange(5), ids=IDS[:5], space=SPACE)
    items = Items("items", NEW, np.arange(N) % 5, np.array(IDS), SPACE)
    found = Judge.of(asked, items).found(road)
    assert found.shape == (5, 100)
    names = np.array(sorted(IDS))
    for row in range(5):
        assert IDS[row] not in names[found[row, : N - 1]]
        assert (found[row, N - 1 :] == -1).all()
    with pytest.raises(DataError, match="no item answers any of the 5 queries"):
        Judge.of(asked, items, relevance=Relevance.from_dict({"q1": ["item1"]}))


def test_other_queries_begin_another_curve(live: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--qrels x.tsv is for measuring, and that needs --queries" in complaint(
        capsys, 1, "backfill", *live, "--new-model", SPACE, "--qrels", "x.tsv"
    )
    index = open_index(tmp_path / "shop", metric="cosine")
    road = Road("partial", index, index.second("embedding_v2"))
    items, path, said = Items("items", NEW, None, np.array(IDS), SPACE), tmp_path / "curve.json", list[str]()
    for rows in (slice(0, 9), slice(0, 9), slice(0, 8)):
        with BackfillLog(path, road, Judge.of(Features(NEW[rows], space=SPACE), items), said.append):
            pass
    assert len(said) == 3
    assert "begins anew" in said[1]
    assert json.loads(path.read_text())["curve"]["queries"] == 8


def test_status_says_what_it_takes_to_finish(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = made(tmp_path, MODEL)
    live, plan = flags[:4], ("--plan", str(tmp_path / "plan"))
    assert "a full backfill: 80 items to embed\n" in call(capsys, "status", *live)[1]
    assert "80 items to embed, about $8.00\n" in call(capsys, "status", *live, "--price-per-item", "0.1")[1]
    spend = ("--new-model", MODEL, "--price-per-item", "0.5", "--most-items", "20")
    assert call(capsys, "backfill", *flags, *spend)[0] == 0
    code, out, _ = call(capsys, "status", *live, *plan, "--json")
    rest = json.loads(out)["to_finish"]
    run = json.loads((tmp_path / "plan" / "backfill.json").read_text())["runs"][0]
    assert (code, rest["embed"], rest["dollars"]) == (0, 60, 30.0), "at what the last run spent"
    assert rest["minutes"] == pytest.approx(3 * run["seconds"] / 60)
    with VectorCache(tmp_path / "plan" / "new.vectors") as cache:
        cache.add(IDS[50:60], NEW[50:60])
    out = call(capsys, "status", *live, *plan, "--price-per-item", "1")[1]
    assert "50 items to embed, 10 more from the cache, about" in out
    assert "minutes at the rate of the last run, about $50.00" in out
    assert "--price-per-item must be" in complaint(capsys, 1, "status", *live, "--price-per-item", "-1")
