"""`plan --index` on live stores: contents by id, a part of what is large, and the index as it is beside exact search."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from compatlearn.errors import IncompatibleError
from compatlearn.evaluation.relevance import Relevance
from compatlearn.features.features import Features
from compatlearn.indexes.arrays import ArrayIndex
from compatlearn.indexes.recall import nearest_in_one_pass
from compatlearn.upgrade import given, part
from compatlearn.upgrade.live import Answers, ask_index
from compatlearn.upgrade.part import read_part
from samples import call, complaint, quick_plans
from stores import STORES, Store

N, QUERIES, CLASSES, PAIRS = 160, 50, 5, 60
LABELS = np.arange(N + QUERIES) % CLASSES
ASKED: list[list[object]] = []
EMBEDDED: list[str] = []


def vectors(seed: int, width: int, spread: float, noise: float) -> np.ndarray:
    random = np.random.default_rng(seed)
    centres = spread * random.normal(size=(CLASSES, width))
    return (centres[LABELS] + noise * random.normal(size=(len(LABELS), width))).astype(np.float32)


NEW, OLD = vectors(0, 8, 3.0, 1.0), vectors(2, 6, 1.0, 1.2)


def embed(texts: list[str]) -> np.ndarray:
    """`text of 7` is item 7, `query 7` the seventh query."""
    EMBEDDED.extend(texts)
    return NEW[[int(one.split()[-1]) + N * one.startswith("query") for one in texts]]


def contents(ids: list[int]) -> list[str | None]:
    ASKED.append(ids)
    return [f"text of {one}" for one in ids]


def pictures(ids: list[int]) -> list[Image.Image]:
    ASKED.append(ids)
    return [Image.new("L", (4, 3), int(one)) for one in ids]


def see(some: list[Image.Image]) -> np.ndarray:
    return NEW[[one.getpixel((0, 0))[0] for one in some]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quick_plans(monkeypatch)
    ASKED.clear()
    EMBEDDED.clear()


@pytest.fixture(params=["pgvector", "lancedb", "qdrant", "chroma"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with STORES[request.param](tmp_path, np.arange(N), OLD[:N], "cosine") as made:
        yield made


@pytest.fixture
def lance(tmp_path: Path) -> Iterator[Store]:
    with STORES["lancedb"](tmp_path, np.arange(N), OLD[:N], "cosine") as made:
        yield made


def flags(store: Store, folder: Path, *, model: str = "embed") -> tuple[object, ...]:
    """A command without its items: judgements say which items answer which query."""
    lines = [json.dumps({"id": f"q{row}", "text": f"query {row}"}) for row in range(QUERIES)]
    (folder / "queries.jsonl").write_text("\n".join(lines))
    np.savez(folder / "asked.npz", vectors=OLD[N:], ids=[f"q{row}" for row in range(QUERIES)])
    right = [(q, item) for q in range(QUERIES) for item in range(N) if LABELS[N + q] == LABELS[item]]
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(f"q{q}\t{item}\t1\n" for q, item in right))
    sides = ("--queries", folder / "queries.jsonl", "--old-queries", folder / "asked.npz", "--qrels", folder / "qrels.tsv")
    draw = ("--new-model", f"test_plan_index:{model}", "--pairs", PAIRS, "--out", folder / "plan")
    return ("plan", "--index", store.address, *sides, *draw)


def column(store: Store) -> str:
    return "document" if store.address.startswith("chroma") else "content"


def test_contents_from_the_stores_own_column(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, *flags(store, tmp_path), "--items-column", column(store), "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["pairs"], found["items"], found["primary"]) == (PAIRS, N, "ndcg10")
    assert len(EMBEDDED) == PAIRS + QUERIES  # of no other items
    page = (tmp_path / "plan" / "plan.html").read_text()
    assert f"text of {found['examples'][0]['after'][0]}" in page


def test_a_column_that_is_not_there(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = complaint(capsys, 1, *flags(store, tmp_path), "--items-column", 'bdy"; --', progress=True)
    assert "bdy" in said
    assert not (tmp_path / "plan" / "plan.json").exists()


def test_a_column_of_something_else(lance: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = complaint(capsys, 1, *flags(lance, tmp_path), "--items-column", "embedding", progress=True)
    assert "holds fixed_size_list" in said


def test_contents_from_a_function(lance: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, *flags(lance, tmp_path), "--items", "test_plan_index:contents", "--json")
    assert code == 0, err
    assert json.loads(out)["pairs"] == PAIRS
    assert sorted({one for page in ASKED for one in page}) != list(range(N))


def test_pictures_from_a_function(lance: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = [Image.new("L", (4, 3), N + row) for row in range(QUERIES)]
    (tmp_path / "queries" / "all").mkdir(parents=True)
    for row, one in enumerate(shown):
        one.save(tmp_path / "queries" / "all" / f"{row}.png")
    arguments = [
        tmp_path / "queries" if str(one).endswith("queries.jsonl") else one for one in flags(lance, tmp_path, model="see")
    ]
    place = arguments.index("--old-queries")
    del arguments[place : place + 4]
    code, out, err = call(capsys, *arguments, "--items", "test_plan_index:pictures", "--json")
    assert code == 0, err
    assert (json.loads(out)["pairs"], json.loads(out)["primary"]) == (PAIRS, "agreement")
    assert max(map(len, ASKED)) == PAIRS


def short(ids: list[int]) -> list[str]:
    return [f"text of {one}" for one in ids[:-1]]


def wrong(ids: list[int]) -> list[object]:
    return [f"text of {one}" for one in ids[:-1]] + [3]


def both(ids: list[int]) -> list[object]:
    return [*contents(ids[:-1]), *pictures(ids[-1:])]


def broken(ids: list[int]) -> list[str]:
    raise KeyError("shop")


def gone(ids: list[int]) -> list[None]:
    return [None] * len(ids)


def lonely(ids: list[int]) -> str:
    return "text"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("short", "was given 60 ids (first: id 1) and returned 59 contents; it must return a list with one content for each"),
        ("lonely", "returned text; it must return a list with one content for each"),
        ("wrong", "returned int for id 158; contents are texts, or all of them pictures of Pillow"),
        ("both", "returned texts and pictures"),
        ("broken", "failed on 60 ids (first: id 1): KeyError: 'shop'"),
        ("gone", "has no text for any of 60 items (first: id 1)"),
        ("missing", "cannot import 'test_plan_index:missing'"),
        ("pictures", "gives pictures and --queries"),
    ],
)
def test_functions_that_cannot_be_used(
    name: str, says: str, lance: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = complaint(capsys, 1, *flags(lance, tmp_path), "--items", f"test_plan_index:{name}", progress=True)
    assert f"test_plan_index:{name}" in said
    assert says in said


def some(ids: list[int]) -> list[str | None]:
    return [None if one % 20 == 3 else " " if one % 20 == 13 else f"text of {one}" for one in ids]


def test_items_without_contents_are_left_out_by_id(lance: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, err = call(capsys, *flags(lance, tmp_path), "--items", "test_plan_index:some", "--json")
    line = next(one for one in err.splitlines() if "have no text" in one)
    left = PAIRS - json.loads(out)["pairs"]
    assert left > 0
    assert f"{left} of {PAIRS} items have no text in test_plan_index:some (first: id " in line


def test_contents_by_id_need_an_index(lance: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = flags(lance, tmp_path)
    without = ("plan", *given[3:])
    said = complaint(capsys, 1, *without, "--items", "test_plan_index:contents")
    assert "--items test_plan_index:contents gives contents of ids; give --index" in said
    said = complaint(capsys, 1, *without, "--items-column", "content")
    assert "--items-column content is a column of a live index; give its address by --index" in said
    said = complaint(capsys, 1, *given, "--items-column", "content", "--items", "items.jsonl")
    assert "--items and --items-column both say where the contents are" in said


# a part of what is large


@dataclass
class Endless:
    """An index that is too large to be held: it makes its rows as they are read."""

    ids: np.ndarray
    block: int = 100
    most: int = 0

    def scan(self, batch: int = 10_000) -> Iterator[Features]:
        for start in range(0, len(self.ids), self.block):
            some = self.ids[start : start + self.block]
            numbers = some.astype(np.int64)
            yield Features(np.stack([numbers, -numbers], axis=1).astype(np.float32), ids=some, space="old@1")

    def read(self, ids: Any) -> Features:
        raise NotImplementedError


@pytest.mark.parametrize("kind", [np.int64, str])
def test_a_part_of_a_large_index_is_drawn_at_random(kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(given, "SEARCHED", 500)
    ids, keep = np.arange(1, 20_001).astype(kind), np.array(["17", "19999", "nobody"])
    held = []
    draw = part._Held._draw
    monkeypatch.setattr(part._Held, "_draw", lambda self: (held.append(sum(map(len, self.blocks))), draw(self))[1])
    found = read_part(Endless(ids), keep)
    assert found.items == 20_000
    assert len(found.features) in (500, 501, 502)
    assert {17, 19_999} <= set(found.features.ids.astype(int).tolist())
    assert (np.sort(found.features.ids) == found.features.ids).all()
    np.testing.assert_array_equal(found.features.vectors[:, 0], found.features.ids.astype(np.float32))
    assert max(held) <= 1.25 * 500 + 100 + 2  # rows in memory: the drawn ones, a quarter more, and a block
    numbers = found.features.ids.astype(int)
    assert abs(np.mean(numbers <= 10_000) - 0.5) < 0.07  # from everywhere
    assert abs(np.mean(numbers % 2) - 0.5) < 0.07
    order = np.random.default_rng(0).permutation(len(ids))
    again = read_part(Endless(ids[order], block=7_000), keep)
    assert again.features.ids.tolist() == found.features.ids.tolist()  # in whatever order the rows come
    assert read_part(Endless(ids), keep, seed=1).features.ids.tolist() != found.features.ids.tolist()


def test_a_part_of_a_small_index_is_all_of_it() -> None:
    found = read_part(Endless(np.arange(300)[::-1].copy()), np.array(["5"]))
    assert (found.items, found.features.ids.tolist()) == (300, list(range(300)))


def test_of_the_items_only_those_that_are_named() -> None:
    index = Endless(np.arange(300))
    found = read_part(index, np.array([5, 200]), among=np.arange(100, 120))
    assert (found.items, found.features.ids.tolist()) == (300, list(range(100, 120)))
    with pytest.raises(IncompatibleError, match=r"2 of 3 ids of the items are not in the index \(first: 300, 301\)"):
        read_part(index, np.array([5]), among=np.array([7, 300, 301]))


def test_a_file_of_some_items_makes_a_plan_about_these(
    lance: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [json.dumps({"id": row, "text": f"text of {row}", "label": int(LABELS[row])}) for row in range(130)]
    (tmp_path / "items.jsonl").write_text("\n".join(lines))
    code, out, err = call(capsys, *flags(lance, tmp_path), "--items", tmp_path / "items.jsonl", "--json")
    assert code == 0, err
    assert f"items.jsonl names 130 of {N} items of the index: the plan is about these" in err
    assert json.loads(out)["items"] == 130
    assert not any("drawn at random" in note for note in json.loads(out)["notes"])


def test_costs_are_of_the_whole_index(
    lance: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(given, "SEARCHED", 130)
    arguments = flags(lance, tmp_path)
    right = [(q, 10 * (q % 4) + LABELS[N + q]) for q in range(QUERIES)]  # 20 items
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(f"q{q}\t{item}\t1\n" for q, item in right))
    code, out, err = call(capsys, *arguments, "--items-column", "content", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["items"] == N
    rungs = {one["name"]: one for one in found["rungs"]}
    assert rungs["backfill"]["cost"]["encoder_items"] == N - PAIRS
    assert rungs["translated"]["cost"]["bytes_written"] == N * 8 * 4
    note = next(one for one in found["notes"] if "are searched" in one)
    assert f"of {N - PAIRS} items are searched: the " in note
    assert len({item for _, item in right}) == 20


# the index as it is


def test_the_live_index_is_asked_exactly_and_as_it_is(lance: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, *flags(lance, tmp_path), "--items-column", "content", "--json")
    assert code == 0, err
    found = json.loads(out)
    live = found["live"]
    assert (live["queries"], live["primary"], live["unknown"]) == (QUERIES, "ndcg10", 0.0)
    assert [one["name"] for one in live["rungs"]] == ["old", "mapped", "fused"]
    old = live["rungs"][0]
    sides = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in (OLD[N:], OLD[:N])]
    nearest = np.argsort(-(sides[0] @ sides[1].T), axis=1)[:, :10]
    gains = (LABELS[nearest] == LABELS[N:, None]) / np.log2(np.arange(2, 12))
    assert old["exact"]["value"] == pytest.approx(gains.sum(axis=1).mean() / (1 / np.log2(np.arange(2, 12))).sum(), abs=1e-6)
    assert old["change"]["value"] == pytest.approx(old["as_is"]["value"] - old["exact"]["value"])
    assert old["recall"]["value"] > 0.8
    page = (tmp_path / "plan" / "plan.html").read_text()
    assert "On the live index" in page
    assert any(note.startswith("the index as it is finds") and "by exact search" in note for note in found["notes"])


class Narrow(ArrayIndex):
    """An index that finds nothing on one side of its space, as one does that was not built for what it is asked."""

    def search(self, queries: Any, k: int = 10, exact: bool = True, exclude: Any = None) -> Any:
        hits = super().search(queries, k, exclude=exclude)
        return hits if exact else replace(hits, indices=np.where(queries[:, :1] < 0, -1, hits.indices))


def test_queries_that_lose_recall_are_named() -> None:
    random = np.random.default_rng(0)
    gallery = Features(random.normal(size=(300, 4)).astype(np.float32))
    old = np.abs(random.normal(size=(60, 4))).astype(np.float32)
    index = Narrow(gallery, metric="cosine")
    live = ask_index(index, gallery, {"old": old, "mapped": old * np.where(np.arange(60) % 2, 1, -1)[:, None], "fused": old})
    assert [one.recall.value for one in live.rungs] == [1.0, 0.5, 1.0]
    assert [one.loses for one in live.rungs] == [False, True, False]
    assert live.notes()[-1].startswith("mapped queries lose recall on this index: it finds 50% of their ten nearest, and 100%")


def test_a_query_that_is_an_item_does_not_find_itself_on_the_index() -> None:
    gallery = Features(np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32))
    relevance = Relevance.from_labels(np.arange(40) // 2, np.arange(40) // 2)
    answers = Answers(relevance, gallery.ids, gallery.ids, "top1", every=True)
    index = ArrayIndex(gallery, metric="cosine")
    own = np.where(np.arange(40) < 39, gallery.ids, -1)
    live = ask_index(index, gallery, {"old": gallery.vectors}, own, answers)
    sides = gallery.vectors / np.linalg.norm(gallery.vectors, axis=1, keepdims=True)
    near = sides @ sides.T
    near[np.arange(39), np.arange(39)] = -2
    assert live.rungs[0].exact.value == pytest.approx(np.mean(near.argmax(axis=1) // 2 == np.arange(40) // 2))
    assert live.rungs[0].recall.value == 1.0


def test_exact_neighbours_in_one_pass() -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(90, 3)).astype(np.float32)
    vectors[7] = 0  # which cosine cannot rank
    ids = np.array([f"i{row}" for row in range(90)])
    blocks = [Features(vectors[start : start + 20], ids=ids[start : start + 20]) for start in range(0, 90, 20)]
    found, there = nearest_in_one_pass(random.normal(size=(5, 3)).astype(np.float32), blocks, 95, "cosine")
    assert there.sum(axis=1).tolist() == [89] * 5
    assert "i7" not in found[there]
