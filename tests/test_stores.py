"""One contract for every index that lives in a store, on the real thing."""

from collections.abc import Iterator
from pathlib import Path
from uuid import NAMESPACE_OID, uuid5

import numpy as np
import pytest

from compatlearn.errors import IncompatibleError
from compatlearn.indexes.exact import search
from compatlearn.indexes.second import Second, Upgradable, how_of, mark, space_of, stamps_of
from stores import STORES, UUIDS, Store, numbers

METRICS = ("euclidean", "cosine", "dot")
N, D_OLD, D_NEW = 300, 8, 12


def normal(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


@pytest.fixture(params=STORES)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def store(kind: str, tmp_path: Path) -> Iterator[Store]:
    with STORES[kind](tmp_path, np.arange(N) + 7, normal(N, D_OLD), "cosine") as made:
        yield made


@pytest.mark.parametrize("metric", METRICS)
def test_searches_as_exact_search_does(kind: str, metric: str, tmp_path: Path) -> None:
    vectors, queries = normal(N, D_OLD), normal(20, D_OLD, 1)
    with STORES[kind](tmp_path, np.arange(N) + 7, vectors, metric) as store:
        index = store.open(metric)
        assert (len(index), index.dimension, index.metric) == (N, D_OLD, metric)
        assert isinstance(index, Upgradable)
        expected = search(queries, vectors, 5, metric)
        found = index.search(queries, k=5, exact=True)
        assert numbers(found.ids).tolist() == (np.asarray(expected.indices) + 7).tolist()
        np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-4, atol=1e-5)
        assert (np.diff(found.scores, axis=1) <= 0).all()
        near = index.search(queries, k=5)
        assert np.mean([len(set(a) & set(b)) for a, b in zip(near.ids.tolist(), found.ids.tolist(), strict=True)]) > 4
        without = index.search(queries, k=5, exact=True, exclude=found.ids[:, 0])
        assert without.ids[:, :4].tolist() == found.ids[:, 1:].tolist()


def test_more_neighbours_than_items(kind: str, tmp_path: Path) -> None:
    with STORES[kind](tmp_path, np.arange(3), normal(3, 4), "cosine") as store:
        found = store.open("cosine").search(normal(2, 4, 1), k=5, exact=True)
        assert sorted(numbers(found.ids)[0].tolist()) == [-1, -1, 0, 1, 2]
        assert np.isneginf(found.scores[:, 3:]).all()


def test_scans_every_row_once_and_reads_by_id(store: Store) -> None:
    index, vectors = store.open("cosine"), normal(N, D_OLD)
    blocks = list(index.scan(batch=64))
    assert max(map(len, blocks)) <= 64
    ids = numbers(np.concatenate([block.ids for block in blocks]))
    assert sorted(ids.tolist()) == (np.arange(N) + 7).tolist()
    expected = vectors if store.keeps_lengths else vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(np.concatenate([b.vectors for b in blocks])[np.argsort(ids)], expected, rtol=1e-6, atol=1e-7)
    wanted = np.array([9, 7, 200]).astype(store.ids)
    some = index.read(wanted)
    assert some.ids.tolist() == wanted.tolist()
    np.testing.assert_allclose(some.vectors, expected[[2, 0, 193]], rtol=1e-6, atol=1e-7)
    with pytest.raises(IncompatibleError, match=r"1 of 2 ids .*first: '?6"):
        index.read(np.array([9, 6]).astype(store.ids))


def test_ids_of_text_pass_through(kind: str, tmp_path: Path) -> None:
    names = np.array(["a/1", "b'; DROP TABLE items; --", "ä €", "0007"])
    names = np.array([str(uuid5(NAMESPACE_OID, name)) for name in names]) if kind in UUIDS else names
    with STORES[kind](tmp_path, names, normal(4, 4), "cosine") as store:
        index = store.open("cosine")
        assert sorted(index.search(normal(1, 4), k=4, exact=True).ids[0].tolist()) == sorted(names.tolist())
        assert index.read(names[::-1]).ids.tolist() == names[::-1].tolist()


def test_queries_of_another_dimension_are_refused(store: Store) -> None:
    with pytest.raises(IncompatibleError, match=rf"{D_OLD + 1} dimensions .*{D_OLD}"):
        store.open("cosine").search(normal(2, D_OLD + 1))


def test_another_metric_than_the_store_has_is_refused(store: Store) -> None:
    from compatlearn.indexes.open import open_index

    if store.metric:
        with pytest.raises(IncompatibleError, match="cosine"):
            open_index(store.address, metric="dot")


def test_space_is_remembered(store: Store) -> None:
    index = store.open("cosine")
    assert index.space == ""
    index.name_space("old@1")
    assert store.open("cosine").space == "old@1"


def filled(index: Upgradable, name: str, said: str = "new@1|translated by test") -> Second:
    second = index.add_second(name, D_NEW)
    for block in second.blocks(batch=50):
        vectors = normal(1000, D_NEW, 5)[numbers(block.ids)]
        assert second.write(block, vectors, stamps_of(said, block.old)) == len(block)
    return second


def test_second_vectors_are_written_beside_the_first_and_dropped_without_a_trace(store: Store) -> None:
    index, before = store.open("cosine"), store.rows()
    assert index.second(store.second) is None
    second = index.add_second(store.second, D_NEW)
    assert isinstance(second, Second)
    assert second.counts() == {"": N}
    filled(index, store.second)
    assert index.add_second(store.second, D_NEW).counts() == {"new@1|translated by test": N}
    queries = normal(5, D_NEW, 6)
    expected = search(queries, normal(1000, D_NEW, 5)[7 : N + 7], 4, "cosine")
    found = index.second(store.second).search(queries, k=4, exact=True)
    assert numbers(found.ids).tolist() == (np.asarray(expected.indices) + 7).tolist()
    assert sum(len(block) for block in second.scan()) == N
    assert index.search(normal(2, D_OLD, 1), k=3, exact=True).ids.shape == (2, 3)
    second.drop()
    assert index.second(store.second) is None
    assert store.rows() == before


def test_another_dimension_of_the_second_is_refused(store: Store) -> None:
    index = store.open("cosine")
    index.add_second(store.second, D_NEW)
    with pytest.raises(IncompatibleError, match=rf"{D_NEW} dimensions, not {D_NEW + 1}"):
        index.add_second(store.second, D_NEW + 1)


def test_rows_that_the_application_changed_meanwhile_are_not_overwritten(store: Store) -> None:
    index = store.open("cosine")
    second = index.add_second(store.second, D_NEW)
    block = next(iter(second.blocks(batch=N)))
    changed, gone = block.ids[:3], block.ids[3:5]
    store.upsert(changed, normal(3, D_OLD, 9))
    store.delete(gone)
    assert second.write(block, normal(len(block), D_NEW), stamps_of(mark("new", "x"), block.old)) == len(block) - 5
    counts = second.counts()
    assert counts == {"": 3, "new|x": N - 5}
    again = second.block(np.concatenate([changed, gone]))
    assert sorted(again.ids.tolist()) == sorted(changed.tolist())
    assert second.write(again, normal(3, D_NEW), stamps_of(mark("new", "x"), again.old)) == 3
    assert second.counts() == {"new|x": N - 2}


def test_a_stamp_names_space_method_and_the_old_vector() -> None:
    old = normal(2, 4)
    first, second = stamps_of(mark("m@1", "translated by ridge"), old).tolist()
    assert first != second
    assert space_of(first) == "m@1"
    assert how_of(first) == "translated by ridge"
    assert stamps_of(mark("m@1", "translated by ridge"), old.astype(np.float64)).tolist() == [first, second]
    for bad in ("", "a|b", "a#b"):
        with pytest.raises(IncompatibleError):
            mark(bad, "x")
