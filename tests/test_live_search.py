"""Search by every rung on live indexes finds what the plan's own arithmetic finds on arrays."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compatlearn.adapters.adapter import Adapter
from compatlearn.adapters.methods import GALLERY, QUERY
from compatlearn.errors import ConfigError, IncompatibleError
from compatlearn.features.cache import VectorCache
from compatlearn.features.features import Features
from compatlearn.indexes.exact import search
from compatlearn.indexes.second import mark, stamps_of
from compatlearn.migration.search import Road
from compatlearn.migration.translate import translate
from compatlearn.upgrade.case import Case, directed, joined, mixed
from compatlearn.upgrade.maps import NEW_HEAD, OLD_HEAD, Methods, Pairs, apply_maps, sampled
from compatlearn.upgrade.order import NONE
from compatlearn.upgrade.rungs import RUNGS
from compatlearn.upgrade.truth import Agreeing
from stores import STORES, Store, numbers

N, D_OLD, D_NEW = 150, 6, 9


def normal(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


NEW = normal(N, D_NEW)
OLD = (NEW[:, :D_OLD] + 0.3 * normal(N, D_OLD, 1)).astype(np.float32)
ASK = normal(12, D_NEW, 2)
ASK_OLD = (ASK[:, :D_OLD] + 0.3 * normal(12, D_OLD, 3)).astype(np.float32)
UNIT_NEW, UNIT_OLD = directed(NEW, "cosine"), directed(OLD, "cosine")  # as a plan under the cosine fits its maps
MAPS = {
    QUERY: Adapter("procrustes", QUERY, metric="cosine").fit(UNIT_NEW[:60], UNIT_OLD[:60]),
    GALLERY: Adapter("ridge", GALLERY, metric="cosine").fit(UNIT_NEW[:60], UNIT_OLD[:60]),
}
SPACES = {"space_old": "old@1", "space_new": "new@1"}
for one in MAPS.values():
    one.space_old, one.space_new = SPACES["space_old"], SPACES["space_new"]
new, old = Features(ASK, space="new@1"), Features(ASK_OLD, space="old@1")


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with STORES[request.param](tmp_path, np.arange(N), OLD, "cosine") as made:
        yield made


def road(store: Store, rung: str) -> Road:
    index = store.open("cosine")
    if index.second(store.second) is None:
        translate(index, MAPS[GALLERY], store.second)
    return Road(rung, index, index.second(store.second), MAPS, fuse=2.0, join=(0.3, 0.5))


def best(queries: np.ndarray, items: np.ndarray, k: int = 5) -> list[list[int]]:
    return np.asarray(search(queries, items, k, "cosine").indices).tolist()


def test_every_rung_finds_what_its_formula_says(store: Store) -> None:
    mapped, translated = MAPS[QUERY].transform(directed(ASK, "cosine")), MAPS[GALLERY].transform(UNIT_OLD)
    fused = mixed(directed(ASK_OLD, "cosine"), directed(mapped, "cosine"), 2.0, "cosine")
    asked = mixed(
        directed(ASK, "cosine"), directed(MAPS[GALLERY].transform(directed(ASK_OLD, "cosine")), "cosine"), 0.3, "cosine"
    )
    expected = {
        "old": best(ASK_OLD, OLD),
        "mapped": best(mapped, OLD),
        "fused": best(fused, OLD),
        "translated": best(ASK, translated),
        "translated+fused": best(
            joined(asked, directed(ASK_OLD, "cosine"), 0.5),
            joined(directed(translated, "cosine"), directed(OLD, "cosine"), 0.5),
        ),
    }
    for rung, ids in expected.items():
        found = road(store, rung).search(new, old, 5, exact=True)
        assert numbers(found.ids).tolist() == ids, rung
        assert (np.diff(found.scores, axis=1) <= 1e-6).all(), rung


@pytest.mark.parametrize("kind", ["pgvector", "features"])
def test_the_other_rungs_find_what_a_plan_measures(kind: str, tmp_path: Path) -> None:
    """By the plan's own functions on arrays; the pairs are in the index, and left out of what they are measured with."""
    labels, pairs = np.arange(60) % 5, Pairs(UNIT_NEW[:60], UNIT_OLD[:60], np.arange(60) % 5)
    methods = Methods("procrustes", "ridge", fuse=2.0, join=(0.3, 0.5))
    heads = {
        name: Adapter("head", QUERY, metric="euclidean", options={"epochs": 1}).fit(side[:60], side[:60], labels)
        for name, side in ((OLD_HEAD, UNIT_OLD), (NEW_HEAD, UNIT_NEW))
    }
    asked, asked_old = directed(ASK, "cosine"), directed(ASK_OLD, "cosine")
    nobody = np.full(len(ASK), -1)
    truth = Agreeing(np.zeros((len(ASK), 1), dtype=np.int64))
    case = Case(asked, asked_old, UNIT_OLD, UNIT_NEW, nobody, truth, "cosine", np.arange(12), np.arange(N), "", depth=5)
    maps = apply_maps(case, methods, MAPS | heads, pairs)
    own = np.where(np.arange(N) < 60, np.arange(N), -1)
    maps = replace(maps, sample=sampled(pairs.new, own, MAPS[QUERY], "cosine"))
    expected = {rung.name: rung.search(replace(case, depth=100), maps, case.rows, NONE)[:, :5].tolist() for rung in RUNGS}

    calls: list[int] = []

    def embed(ids: list[object]) -> np.ndarray:
        calls.extend(numbers(ids).tolist())
        return NEW[numbers(ids)]

    known = Features(NEW[:60], ids=np.arange(60), space="new@1", ids_from="the index")
    with STORES[kind](tmp_path, np.arange(N), OLD, "cosine") as store, VectorCache(tmp_path / "new", "new@1") as cache:
        for rung in ("old+head", "mapped+csls", "cascade", "backfill+head"):
            asking = replace(road(store, rung), adapters=MAPS | heads, known=known, embed=embed, cache=cache)
            if rung == "backfill+head":
                assert asking.second is not None
                block = asking.second.block(np.arange(N))
                asking.second.write(block, NEW[block.ids], stamps_of(mark("new@1", "embedded"), block.old))
            found = asking.search(new, old, 5, exact=True)
            assert found.ids.tolist() == expected[rung], rung
            assert (np.diff(found.scores, axis=1) <= 1e-6).all(), rung
        assert len(calls) == len(set(calls)) == len(cache)
        count = len(calls)
        again = replace(road(store, "cascade"), embed=embed, cache=cache).search(new, old, 5, exact=True)
        assert (again.ids.tolist(), len(calls)) == (expected["cascade"], count), "what was embedded is not embedded again"
        with pytest.raises(ConfigError, match="fitted to labelled pairs"):
            road(store, "old+head").search(new, old)
        with pytest.raises(ConfigError, match="known beforehand"):
            road(store, "mapped+csls").search(new, old)
        with pytest.raises(ConfigError, match="contents of the items"):
            road(store, "cascade").search(new, old)


def test_queries_of_another_model_are_refused(store: Store) -> None:
    index = store.open("cosine")
    index.name_space("old@1")
    stranger = Features(ASK_OLD, space="new@1")
    with pytest.raises(IncompatibleError, match=r"'new@1'.*'old@1'"):
        road(store, "old").search(None, stranger)
    with pytest.raises(IncompatibleError, match=r"'old@1'.*'new@1'"):
        road(store, "translated").search(Features(ASK, space="old@1"), None)
    with pytest.raises(IncompatibleError, match=rf"{D_NEW + 1} dimensions.*{D_NEW}"):
        road(store, "translated").search(Features(normal(2, D_NEW + 1)), None)
    with pytest.raises(ConfigError, match="needs the old queries"):
        road(store, "fused").search(new, None)
    with pytest.raises(ConfigError, match="searched by old, "):
        road(store, "best").search(new, old)


def test_a_column_of_two_models_is_not_searched(store: Store) -> None:
    index = store.open("cosine")
    translate(index, MAPS[GALLERY], store.second)
    second = index.second(store.second)
    block = second.block(np.arange(10).astype(store.ids))
    second.write(block, NEW[numbers(block.ids)], stamps_of(mark("another@2", "embedded"), block.old))
    with pytest.raises(IncompatibleError, match=r"10 of 'another@2', 140 of 'new@1'"):
        road(store, "translated").search(new, None)
