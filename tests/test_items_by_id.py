"""backfill and the cascade with contents asked for by id: of the live index's own column, or of a function."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from compatlearn.adapters.adapter import Adapter
from compatlearn.adapters.methods import GALLERY, QUERY
from compatlearn.cli import items
from compatlearn.features.cache import VectorCache
from compatlearn.features.features import Features
from compatlearn.indexes.second import how_of
from compatlearn.migration.backfill import backfill
from compatlearn.migration.money import Money
from compatlearn.migration.status import status
from compatlearn.migration.translate import translate
from compatlearn.upgrade.cascade import Cascade
from compatlearn.upgrade.files import FILES
from compatlearn.upgrade.fresh import WithoutContent
from embedding_server import serving, vector
from samples import call, complaint
from stores import STORES, Store

N, MODEL, SERVICE = 60, "test_items_by_id:embed", "openai:m"
NEW = np.stack([vector(f"text of {row}") for row in range(N)])
OLD = (NEW[:, :3] + 0.1 * np.random.default_rng(1).normal(size=(N, 3))).astype(np.float32)
ASKED: list[int] = []


def embed(texts: list[str]) -> np.ndarray:
    return np.stack([vector(text) for text in texts])


def see(some: list[Image.Image]) -> np.ndarray:
    return NEW[[one.getpixel((0, 0))[0] for one in some]]


def contents(ids: list[int]) -> list[str]:
    ASKED.extend(ids)
    return [f"text of {one}" for one in ids]


def some(ids: list[int]) -> list[str | None]:
    return [None if one % 10 == 3 else " " if one == 20 else f"text of {one}" for one in ids]


def pictures(ids: list[int]) -> list[Image.Image | None]:
    return [None if one == 7 else Image.new("L", (4, 3), int(one)) for one in ids]


def nothing(ids: list[int]) -> list[None]:
    return [None for _ in ids]


def later(ids: list[int]) -> list[Any]:
    return list(pictures(ids) if 33 in ids and 0 not in ids else contents(ids))


@pytest.fixture(params=["pgvector", "lancedb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with STORES[request.param](tmp_path, np.arange(N), OLD, "cosine") as made:
        yield made


@pytest.fixture
def lance(tmp_path: Path) -> Iterator[Store]:
    with STORES["lancedb"](tmp_path, np.arange(N), OLD, "cosine") as made:
        yield made


@pytest.fixture(autouse=True)
def forget() -> None:
    ASKED.clear()


def flags(store: Store, folder: Path, model: str = MODEL) -> tuple[str, ...]:
    """A translated index and its plan, without the items."""
    plan = folder / "plan"
    for way in (QUERY, GALLERY):
        adapter = Adapter("ridge", way, metric="cosine").fit(NEW, OLD)
        adapter.space_old, adapter.space_new = "old@1", model
        adapter.save(plan / FILES[way])
    content = {"recommended": "translated", "methods": {"fuse": 1.0, "join": [0.1, 0.1]}}
    (plan / "plan.json").write_text(json.dumps(content))
    (folder / "items.jsonl").write_text("\n".join(json.dumps({"id": row, "text": f"text of {row}"}) for row in range(N)))
    translate(store.open("cosine"), adapter, "embedding_v2")
    return "--index", store.address, "--plan", str(plan), "--new-model", model


def hows(store: Store) -> dict[str, int]:
    marks = status(store.open("cosine").second("embedding_v2")).marks
    return {how_of(said).split()[0]: count for said, count in marks.items()}


def test_a_column_a_function_and_a_file_write_the_same_rows(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Features(NEW[10:40], ids=[f"q{row}" for row in range(30)], space=MODEL).save(tmp_path / "asked")
    queries = ("--queries", str(tmp_path / "asked"), "--batch-size", "8", "--budget", "0.5", "--json")
    ways = ("--items-column", "content"), ("--items", "test_items_by_id:contents"), ("--items", str(tmp_path / "items.jsonl"))
    found = []
    for number, way in enumerate(ways):
        live = flags(store, tmp_path)
        log = tmp_path / f"{number}.json"
        code, out, err = call(capsys, "backfill", *live, *way, *queries, "--out", str(log))
        assert code == 0, err
        done = json.loads(out)
        assert (done["embedded"], done["without"], done["finished"]) == (N // 2, 0, False)
        found.append((store.rows(), done["curve"]))
        assert hows(store) == {"embedded": N // 2, "translated": N // 2}
        store.open("cosine").second("embedding_v2").drop()
        (tmp_path / "plan" / "new.vectors").unlink()
    assert found[0] == found[1] == found[2]


def test_only_what_is_embedded_is_asked_for(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(items, "FIRST", 5)
    live = flags(store, tmp_path)
    function = ("--items", "test_items_by_id:contents")
    assert (
        call(capsys, "backfill", *live, *function, "--most-items", "10", "--price-per-item", "1", "--batch-size", "4")[0] == 0
    )
    assert len(ASKED) == 5 + 10  # five say that these are texts


def test_items_without_content_stay_translated(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    live, function = flags(store, tmp_path), ("--items", "test_items_by_id:some", "--batch-size", "16")
    code, out, err = call(capsys, "backfill", *live, *function)
    assert code == 0, err
    assert "7 items have no content in test_items_by_id:some (first: id 3) and are left out" in err
    assert "53 items embedded" in out
    assert "7 have no content; nothing is left to embed" in " ".join(out.split())
    assert hows(store) == {"embedded": 53, "translated": 7}
    code, out, _ = call(capsys, "backfill", *live, "--items-column", "content", "--json")
    assert (code, json.loads(out)["embedded"], hows(store)) == (0, 7, {"embedded": N}), "once they have some"


def test_empty_rows_of_a_column(lance: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import lancedb

    live = flags(lance, tmp_path)
    lancedb.connect(tmp_path / "lance").open_table("items").update(where="id = 4", values_sql={"content": "NULL"})
    code, _, err = call(capsys, "backfill", *live, "--items-column", "content")
    assert code == 0, err
    assert "1 items have no content in column 'content' of the index (first: id 4) and are left out" in err
    assert hows(lance) == {"embedded": N - 1, "translated": 1}


def test_pictures_of_a_function(lance: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    live = flags(lance, tmp_path, "test_items_by_id:see")
    code, _, err = call(capsys, "backfill", *live, "--items", "test_items_by_id:pictures")
    assert code == 0, err
    assert hows(lance) == {"embedded": N - 1, "translated": 1}
    kept = np.delete(np.arange(N), 7)
    rows = lance.open("cosine").second("embedding_v2").read(kept).vectors
    np.testing.assert_allclose(
        rows / np.linalg.norm(rows, axis=1)[:, None], NEW[kept] / np.linalg.norm(NEW[kept], axis=1)[:, None], atol=1e-5
    )
    said = complaint(
        capsys,
        1,
        "backfill",
        *live,
        "--items",
        "test_items_by_id:pictures",
        "--queries",
        str(tmp_path / "items.jsonl"),
        progress=True,
    )
    assert "test_items_by_id:pictures gives pictures and --queries" in said


def test_what_a_service_bills(lance: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    live, function = flags(lance, tmp_path, SERVICE), ("--items", "test_items_by_id:some", "--batch-size", "16")
    with serving() as service:
        model = ("--base-url", service.url, "--price", "1e6", "--most-dollars", "100", "--json")
        code, out, err = call(capsys, "backfill", *live, *function, *model)
        assert code == 0, err
        done, sent = json.loads(out), [text for batch in service.batches for text in batch]
    assert "$100.00 may be spent: about" in err
    assert done["embedded"] == len(sent) == hows(lance)["embedded"]
    assert done["spent"] == sum(len(text.encode()) for text in sent)
    assert "text of 3" not in sent


def test_a_budget_counts_no_item_without_content(lance: Store, tmp_path: Path) -> None:
    flags(lance, tmp_path)
    second, asked = lance.open("cosine").second("embedding_v2"), list[int]()

    def make(ids: list[int]) -> np.ndarray:
        if empty := [one for one in ids if one < 5]:
            raise WithoutContent("empty", empty)
        asked.extend(ids)
        return NEW[ids]

    with VectorCache(tmp_path / "some.vectors", space=MODEL) as cache:
        money = Money(lambda ids: np.array([0.0 if one < 5 else 1.0 for one in ids]), most=12.0)
        done = backfill(second, make, cache, money=money, batch=10)
        assert (done.embedded, done.spent, done.without, done.finished) == (12, 12.0, 5, False)
        assert asked == list(range(5, 17))
        done = backfill(second, make, cache, items=7, batch=10)
        assert (done.embedded, done.without, done.finished) == (7, 5, False)
        done = backfill(second, make, cache)
        assert (done.embedded, done.kept, done.without, done.finished) == (N - 24, 19, 5, True)

        def odd(ids: list[int]) -> np.ndarray:
            raise WithoutContent("nobody knows", [-1])

        lance.upsert([2], OLD[:1])
        with pytest.raises(WithoutContent, match="nobody knows"):
            backfill(second, odd, cache)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("--items-column", 'bdy"; --'), 'bdy"; --'),
        (("--items-column", "content", "--items", "items.jsonl"), "--items and --items-column both say where the contents are"),
        ((), "backfill embeds items; give --items, or --items-column where the index holds their texts"),
        (("--items", "test_items_by_id:nothing"), "test_items_by_id:nothing has no content for any of 60 items"),
    ],
)
def test_wrong_turns(
    given: tuple[str, ...], says: str, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    live, before = flags(store, tmp_path), store.rows()
    assert says in complaint(capsys, 1, "backfill", *live, *given)
    assert store.rows() == before
    assert not (tmp_path / "plan" / "new.vectors").exists()


def test_a_function_that_changes_its_mind(lance: Store, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(items, "FIRST", 5)
    live = (*flags(lance, tmp_path), "--batch-size", "20")
    said = complaint(capsys, 1, "backfill", *live, "--items", "test_items_by_id:later", progress=True)
    assert "test_items_by_id:later returned pictures (first: id 20) and before texts" in said
    assert hows(lance) == {"embedded": 20, "translated": 40}, "what was done is kept"


def test_a_cascade_by_the_stores_own_column(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    live = flags(store, tmp_path)
    asked = ("search", *live, "--rung", "cascade", "--query", "text of 13", "--k", "3", "--json")
    code, out, err = call(capsys, *asked, "--items-column", "content")
    assert code == 0, err
    assert json.loads(out)["results"][0]["ids"][0] == 13
    (tmp_path / "plan" / "new.vectors").unlink()
    code, out, err = call(capsys, *asked, "--items", "test_items_by_id:some")
    assert code == 0, err
    found = json.loads(out)["results"][0]["ids"]
    assert 13 not in found
    assert len(found) == 3
    assert "items have no content in test_items_by_id:some" in err
    said = complaint(capsys, 1, *asked, "--items-column", "bdy", progress=True)
    assert "bdy" in said
    assert "cascade embeds items for a query; give --items, or --items-column, and --new-model" in complaint(capsys, 1, *asked)


def test_a_cascade_whose_candidates_have_no_content(tmp_path: Path) -> None:
    from compatlearn.indexes.arrays import ArrayIndex

    def make(ids: list[int]) -> np.ndarray:
        raise WithoutContent("empty", ids)

    with VectorCache(tmp_path / "some.vectors", space=MODEL) as cache:
        hits = Cascade(ArrayIndex(OLD, metric="cosine"), make, cache, candidates=5).search(NEW[:2], 3, old_queries=OLD[:2])
    assert (np.asarray(hits.indices) == -1).all()
