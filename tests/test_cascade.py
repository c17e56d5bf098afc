"""The cascade as it is run: what it answers, what it embeds, and what is left when it is stopped."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compatlearn import Cascade, ConfigError, DataError, IncompatibleError, VectorCache, fit_adapter, search
from compatlearn.adapters.adapter import Adapter
from compatlearn.indexes.arrays import ArrayIndex
from compatlearn.upgrade.order import NONE
from compatlearn.upgrade.rungs import ask_cascade
from samples import forks
from test_rungs import case_of, length_one, ranked, scores

METRICS = ["cosine", "euclidean", "dot"]


class Table:
    """A model: gives the vectors of items from a table, and notes what it was asked."""

    def __init__(self, vectors: np.ndarray, ids: list[Any] | None = None) -> None:
        self.vectors = dict(zip(range(len(vectors)) if ids is None else ids, vectors, strict=True))
        self.calls: list[list[Any]] = []

    def __call__(self, ids: list[Any]) -> np.ndarray:
        self.calls.append(ids)
        return np.stack([self.vectors[one] for one in ids])

    @property
    def asked(self) -> list[Any]:
        return [one for call in self.calls for one in call]


class Told:
    """A map that gives vectors which were written down before."""

    space_new = space_old = ""

    def __init__(self, mapped: np.ndarray, d_new: int) -> None:
        self.mapped, self.d_new, self.d_old = mapped, d_new, mapped.shape[1]

    def __call__(self, new: np.ndarray) -> np.ndarray:
        return self.mapped


def normal(rows: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[VectorCache]:
    with VectorCache(tmp_path / "new.vectors", "new@1") as opened:
        yield opened


def unsettled(path: Path) -> VectorCache:
    return VectorCache(path / "new.vectors", "new@1")


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(METRICS), st.booleans(), st.booleans(), st.integers(3, 150), st.integers(0, 999))
def test_it_answers_what_the_rung_was_measured_with(
    tmp_path_factory: pytest.TempPathFactory, metric: str, old: bool, own: bool, items: int, seed: int
) -> None:
    case, maps = case_of(metric, queries=min(9, items), items=items, seed=seed, own=own)
    case = case if old else replace(case, old=None)
    expected = ask_cascade(case, maps, case.rows, NONE)
    model = Table(case.fresh)
    index = ArrayIndex(case.items, metric=metric)
    with unsettled(tmp_path_factory.mktemp("cascade")) as cache:
        cascade = Cascade(index, model, cache, adapter=Told(maps.mapped, 5), weight=maps.methods.fuse, batch=40)
        hits = cascade.search(case.new, k=expected.shape[1], old_queries=case.old, exclude=case.own if own else None)
        np.testing.assert_array_equal(hits.indices, expected)
        assert sorted(model.asked) == sorted(set(expected.ravel().tolist()) - {-1})  # each item once
        assert max(map(len, model.calls)) <= 40


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("asks", ["mapped", "fused", "old"])
def test_against_the_obvious_way(cache: VectorCache, asks: str, metric: str) -> None:
    gallery, old, mapped = normal(60, 4), normal(7, 4, 1), normal(7, 4, 2)
    fresh, new = 2 * normal(60, 6, 3), normal(7, 6, 4)
    one, other = length_one(old.astype(float), metric), length_one(mapped.astype(float), metric)
    asked = {"mapped": other, "old": one, "fused": length_one((one + 0.8 * other) / 1.8, metric)}[asks]
    expected = []
    for row in range(7):
        near = scores(asked[row : row + 1], gallery, metric)[0]
        candidates = sorted(range(60), key=lambda item: -near[item])[:12]
        nearness = scores(new[row : row + 1], fresh, metric)[0]
        expected.append(sorted(candidates, key=lambda item: -nearness[item])[:5])
    cascade = Cascade(
        ArrayIndex(gallery, metric=metric),
        Table(fresh),
        cache,
        adapter=None if asks == "old" else Told(mapped, 6),
        candidates=12,
        weight=0.8,
    )
    hits = cascade.search(new, k=5, old_queries=None if asks == "mapped" else old)
    assert hits.indices.tolist() == expected
    exact = search(new, fresh, 60, metric)
    for row in range(7):
        for place in range(5):
            there = exact.indices[row].tolist().index(hits.indices[row, place])
            assert hits.distances[row, place] == exact.distances[row, there]
            assert hits.scores[row, place] == exact.scores[row, there]


@pytest.mark.parametrize("kind", [np.float32, np.float64, torch.float32])
@pytest.mark.parametrize("metric", METRICS)
def test_with_every_item_a_candidate_it_is_the_backfill(cache: VectorCache, metric: str, kind: Any) -> None:
    fresh, new = normal(150, 6), normal(70, 6, 1)
    fresh[100:] = fresh[:50]  # ties, which the row number decides
    queries = torch.from_numpy(new) if isinstance(kind, torch.dtype) else new.astype(kind)
    cascade = Cascade(ArrayIndex(normal(150, 3, 2), metric=metric), Table(fresh), cache, candidates=200)
    hits = cascade.search(queries, k=160, old_queries=normal(70, 3, 3))
    exact = search(queries, fresh, 160, metric)
    for name in ("indices", "distances", "scores", "ids"):
        mine, theirs = getattr(hits, name), getattr(exact, name)
        assert type(mine) is type(theirs)
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs)


def test_an_item_is_embedded_once_and_counted(tmp_path: Path) -> None:
    ids = [f"p{number}" for number in range(40)]
    model, fresh = Table(normal(40, 5), ids), normal(40, 5)
    index = ArrayIndex(fresh[:, :3], ids=ids, metric="cosine")
    new = normal(8, 5, 1)

    def ask(cascade: Cascade, rows: slice) -> set[str]:
        cascade.search(new[rows], k=2, old_queries=new[rows, :3])
        return set(index.search(new[rows, :3], 6).ids.ravel().tolist())

    with unsettled(tmp_path) as cache:
        cascade = Cascade(index, model, cache, candidates=6, batch=4)
        wanted = ask(cascade, slice(0, 5))
        assert len(model.asked) == len(set(model.asked))
        assert set(model.asked) == wanted
        assert model.asked[:6] == index.search(new[:1, :3], 6).ids[0].tolist()  # the first query's best come first
        touched = cascade.touched
        assert (touched.queries, touched.embedded, touched.cached) == (5, len(wanted), 30 - len(wanted))
        seen: set[str] = set()
        for row, count in enumerate(touched.last):
            mine = set(index.search(new[row : row + 1, :3], 6).ids[0].tolist())
            assert count == len(mine - seen)
            seen |= mine
        ask(cascade, slice(0, 5))
        assert len(model.asked) == len(wanted)
        assert cascade.touched.last == (0, 0, 0, 0, 0)
        assert str(cascade.touched).startswith(f"10 queries: {len(wanted)} items embedded ({len(wanted) / 10:.2f} per query), ")
    with unsettled(tmp_path) as cache:  # another process, another day
        cascade = Cascade(index, model, cache, candidates=6)
        more = ask(cascade, slice(0, 8)) - wanted
        assert set(model.asked[len(wanted) :]) == more
        assert cascade.touched.embedded == len(more)
        assert len(cache) == len(wanted | more)


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        ("nan", DataError, r"embed gave NaN, infinity or length zero for 1 of 5 ids \(first: 'p7'\); check the model on these"),
        (
            "zero",
            DataError,
            r"embed gave NaN, infinity or length zero for 1 of 5 ids \(first: 'p7'\); check the model on these",
        ),
        ("count", DataError, r"embed gave float32 of shape \(4, 5\) for 5 ids \(first: id 'p5'\); it must give a vector"),
        ("width", IncompatibleError, r"embed gave vectors of 4 dimensions \(first: id 'p5'\), the new queries have 5"),
        (
            "kind",
            DataError,
            r"embed gave int64 of shape \(5, 5\) for 5 ids \(first: id 'p5'\); it must give a vector of floats",
        ),
    ],
)
def test_what_embed_gets_wrong_costs_nothing_that_was_right(
    cache: VectorCache, fault: str, error: type[Exception], message: str
) -> None:
    ids = [f"p{number}" for number in range(20)]
    fresh, angles = normal(20, 5), np.arange(20) / 10
    model, broken = Table(fresh, ids), [True]

    def embed(asked: list[str]) -> np.ndarray:
        vectors = model(asked)
        if "p7" not in asked or not broken[0]:
            return vectors
        if fault in ("nan", "zero"):
            vectors[asked.index("p7")] = {"nan": np.nan, "zero": 0.0}[fault]
        return {"count": vectors[:-1], "width": vectors[:, :-1], "kind": np.ones_like(vectors, int)}.get(fault, vectors)

    index = ArrayIndex(np.stack([np.cos(angles), np.sin(angles)], axis=1), ids=ids, metric="cosine")
    cascade = Cascade(index, embed, cache, candidates=15, batch=5)
    asked = {"new_queries": normal(1, 5, 1), "old_queries": np.array([[1.0, 0.0]])}
    with pytest.raises(error, match=message) as caught:
        cascade.search(**asked)
    assert "\n" not in str(caught.value)
    kept = [*ids[:5], *(["p5", "p6", "p8", "p9"] if fault in ("nan", "zero") else [])]
    assert cache.features().ids.tolist() == kept
    assert cascade.touched.embedded == len(kept)
    broken[0] = False
    model.calls.clear()
    hits = cascade.search(**asked)
    assert model.asked == [one for one in ids[:15] if one not in kept]  # nothing is paid for twice
    exact = search(asked["new_queries"], fresh[:15], 10, "cosine")
    assert hits.indices.tolist() == exact.indices.tolist()


def test_what_cannot_work_is_said_in_one_line(cache: VectorCache) -> None:
    new, old = normal(60, 6), normal(60, 4, 1)
    index, model = ArrayIndex(old, metric="cosine", space="old@1"), Table(new)
    with pytest.raises(
        ConfigError, match="nothing to ask the old index with; give the cascade an adapter, or pass old_queries"
    ):
        Cascade(index, model, cache).search(new[:2])
    cascade = Cascade(index, model, cache, adapter=fit_adapter("ridge", new, old))
    with pytest.raises(ConfigError, match=r"k must be from 1 to the 100 candidates per query; got 101; raise candidates"):
        cascade.search(new[:2], k=101)
    with pytest.raises(
        ConfigError, match=r"candidates and batch must be at least 1, and weight at least 0; got 0, 256 and 1\.5"
    ):
        Cascade(index, model, cache, candidates=0)
    with pytest.raises(IncompatibleError, match="the new queries have 5 dimensions and the adapter 6"):
        cascade.search(new[:2, :5])
    with pytest.raises(IncompatibleError, match=r"the old queries are \(2, 3\), the index needs \(2, 4\)"):
        cascade.search(new[:2], old_queries=old[:2, :3])
    with pytest.raises(DataError, match=r"1 of 2 rows of the new queries have NaN or infinity \(first: 1\)"):
        cascade.search(np.where(np.arange(2)[:, None] == 1, np.nan, new[:2]))
    with pytest.raises(DataError, match="rows of the old queries have length zero"):
        cascade.search(new[:2], old_queries=0 * old[:2])
    with pytest.raises(ConfigError, match="the adapter maps old vectors to new ones"):
        Cascade(index, model, cache, adapter=Adapter("ridge", "gallery").fit(new, old))
    with pytest.raises(IncompatibleError, match="the adapter gives 3 dimensions, the index has 4"):
        Cascade(index, model, cache, adapter=fit_adapter("ridge", new, old[:, :3]))
    for side, message in (("space_old", "'other' and the index of 'old@1'"), ("space_new", "'other' and the cache of 'new@1'")):
        adapter = fit_adapter("ridge", new, old)
        setattr(adapter, side, "other")
        with pytest.raises(IncompatibleError, match=message):
            Cascade(index, model, cache, adapter=adapter)
    assert model.calls == []
    cache.add([59], normal(1, 3))
    with pytest.raises(IncompatibleError, match="the new queries have 6 dimensions and the cache 3"):
        cascade.search(new[:2])


def test_a_cached_vector_of_length_zero_is_named(cache: VectorCache) -> None:
    cache.add([3], np.zeros((1, 5)))
    index = ArrayIndex(normal(10, 4), metric="cosine")
    with pytest.raises(DataError, match=r"1 of 10 vectors of .*new.vectors have length zero.*\(first: id 3\); drop these ids"):
        Cascade(index, Table(normal(10, 5)), cache).search(normal(2, 5), old_queries=normal(2, 4))
    dot = Cascade(ArrayIndex(normal(10, 4), metric="dot"), Table(normal(10, 5)), cache)
    assert 3 in dot.search(normal(2, 5), old_queries=normal(2, 4)).ids


def test_few_items_and_items_in_several_rows(cache: VectorCache) -> None:
    index = ArrayIndex(normal(1, 4), ids=["only"])
    model = Table(normal(1, 5), ["only"])
    hits = Cascade(index, model, cache).search(normal(2, 5), k=2, old_queries=normal(2, 4), exclude=["only", "none"])
    assert hits.ids.tolist() == [["", ""], ["only", ""]]
    chunks = ArrayIndex(normal(4, 4), ids=["a", "b", "a", "c"])
    model = Table(normal(3, 5), ["a", "b", "c"])
    hits = Cascade(chunks, model, cache).search(normal(1, 5), k=4, old_queries=normal(1, 4))
    assert sorted(hits.ids[0].tolist()) == ["a", "a", "b", "c"]
    assert sorted(model.asked) == ["a", "b", "c"]


def test_threads_embed_an_item_once(cache: VectorCache) -> None:
    model = Table(normal(300, 5))
    index, new, old = ArrayIndex(normal(300, 4)), normal(40, 5, 1), normal(40, 4, 1)
    cascade = Cascade(index, model, cache, candidates=30, batch=7)
    found: dict[int, list[int]] = {}

    def ask(rows: range) -> None:
        for row in rows:
            hits = cascade.search(new[row : row + 1], k=3, old_queries=old[row : row + 1])
            found[row] = hits.indices[0].tolist()

    threads = [threading.Thread(target=ask, args=(range(start, 40, 4),)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(model.asked) == len(set(model.asked)) == len(cache)
    assert (cascade.touched.queries, cascade.touched.embedded + cascade.touched.cached) == (40, 1200)
    expected = ranked(scores(new, np.stack(list(model.vectors.values())), "euclidean"), np.full(40, -1), 300)
    near = index.search(old, 30).indices
    for row in range(40):
        assert found[row] == [one for one in expected[row].tolist() if one in near[row]][:3]


def ask_slowly(folder: Path, log: Path, rows: slice) -> None:
    """A search whose model takes its time and writes down, before it answers, what it was asked."""
    torch.set_num_threads(1)
    fresh = normal(200, 5)

    def embed(ids: list[int]) -> np.ndarray:
        with log.open("a") as file:
            file.write("".join(f"{one}\n" for one in ids))
        time.sleep(0.02)
        return fresh[ids]

    with unsettled(folder) as cache:
        cascade = Cascade(ArrayIndex(normal(200, 4)), embed, cache, batch=10)
        cascade.search(normal(3, 5, 1)[rows], old_queries=normal(3, 4, 1)[rows])
    os._exit(0)


def asking(folder: Path, log: Path, rows: slice = slice(None)) -> multiprocessing.process.BaseProcess:
    process = multiprocessing.get_context("fork").Process(target=ask_slowly, args=(folder, log, rows))
    process.start()
    return process


@forks
def test_killed_in_the_middle_it_goes_on_with_what_it_has(tmp_path: Path) -> None:
    log, kills = tmp_path / "log", 0
    while True:
        process = asking(tmp_path, log)
        process.join(0.25 + 0.02 * kills)  # a slow machine must get somewhere in the end
        process.kill()  # unless it has come to its end
        process.join()
        if process.exitcode != -signal.SIGKILL:
            assert process.exitcode == 0
            break
        kills += 1
        with unsettled(tmp_path) as cache:
            if len(cache):
                kept = cache.features()
                np.testing.assert_array_equal(kept.vectors, normal(200, 5)[kept.ids])
    asked = [int(line) for line in log.read_text().split()]
    distinct = set(ArrayIndex(normal(200, 4)).search(normal(3, 4, 1), 100).indices.ravel().tolist())
    assert kills > 0
    assert set(asked) == distinct
    assert 0 <= len(asked) - len(distinct) <= 10 * kills  # no more than the batch that was under way
    with unsettled(tmp_path) as cache:
        assert set(cache.features().ids.tolist()) == distinct


@forks
def test_two_processes_share_what_they_embed(tmp_path: Path) -> None:
    logs = [tmp_path / "one", tmp_path / "two"]
    processes = [asking(tmp_path, log, slice(row, row + 2)) for row, log in enumerate(logs)]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    with unsettled(tmp_path) as cache:
        kept = cache.features()
        assert set(kept.ids.tolist()) == {int(line) for log in logs for line in log.read_text().split()}
        np.testing.assert_array_equal(kept.vectors, normal(200, 5)[kept.ids])
