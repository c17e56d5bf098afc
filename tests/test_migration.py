"""A plan carried out on live indexes: translate, backfill, status and the way back, on every store."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from compatlearn.adapters.adapter import Adapter
from compatlearn.errors import ConfigError, IncompatibleError
from compatlearn.features.cache import VectorCache
from compatlearn.indexes.second import mark, stamps_of
from compatlearn.migration.backfill import backfill, most_found
from compatlearn.migration.status import require_one_space, status
from compatlearn.migration.translate import fingerprint, translate
from stores import STORES, Store, numbers

N, D_OLD, D_NEW = 200, 6, 9


def normal(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


NEW = normal(N, D_NEW)
OLD = (NEW[:, :D_OLD] + 0.1 * normal(N, D_OLD, 1)).astype(np.float32)


def gallery_map(method: str = "ridge") -> Adapter:
    adapter = Adapter(method, "gallery", metric="cosine").fit(NEW[:50], OLD[:50])
    adapter.space_old, adapter.space_new = "old@1", "new@1"
    return adapter


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with STORES[request.param](tmp_path, np.arange(N), OLD, "cosine") as made:
        yield made


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def stored(store: Store, second: object, ids: object) -> np.ndarray:
    return unit(second.read(np.asarray(ids).astype(store.ids)).vectors)  # type: ignore[attr-defined]


def held(store: Store, rows: np.ndarray) -> np.ndarray:
    """First vectors as the store has them under cosine."""
    return rows if store.keeps_lengths else unit(rows)


def test_translates_backfills_and_goes_back(store: Store, tmp_path: Path) -> None:
    index, adapter, before = store.open("cosine"), gallery_map(), store.rows()
    done = translate(index, adapter, store.second, batch=64)
    assert (done.written, done.kept, done.left) == (N, 0, 0)
    assert done.checked > 0
    second = index.second(store.second)
    expected = unit(adapter.transform(held(store, OLD)))
    np.testing.assert_allclose(stored(store, second, np.arange(N)), expected, atol=1e-4)
    assert second.space == "new@1"
    assert status(second).translated == N
    assert translate(index, adapter, store.second).written == 0

    asked: list[int] = []

    def embed(ids: list[object]) -> np.ndarray:
        asked.extend(numbers(ids).tolist())
        return NEW[numbers(ids)]

    order = np.repeat(most_found(second, NEW[:40]), 2)  # an item that is named twice is one item
    with VectorCache(tmp_path / "new.vectors", space="new@1") as cache:
        some = backfill(second, embed, cache, order=order, items=30, batch=16)
        assert (some.embedded, some.written, some.finished) == (30, 30, False)
        assert set(asked) == set(numbers(order[:60]).tolist())
        assert (status(second).embedded, status(second).translated) == (30, N - 30)
        assert translate(index, adapter, store.second).kept == N, "true vectors stay"
        rest = backfill(second, embed, cache, order=order)
        assert (rest.embedded, rest.finished) == (N - 30, True)
        assert sorted(asked) == list(range(N)), "no item is embedded twice"
    np.testing.assert_allclose(stored(store, second, np.arange(N)), unit(NEW), atol=1e-4)
    assert require_one_space(second).spaces == {"new@1": N}
    second.drop()
    assert index.second(store.second) is None
    assert store.rows() == before


def test_what_the_application_changes_is_made_again(store: Store, tmp_path: Path) -> None:
    index, adapter = store.open("cosine"), gallery_map()
    translate(index, adapter, store.second)
    second = index.second(store.second)
    with VectorCache(tmp_path / "new.vectors", space="new@1") as cache:
        backfill(second, lambda ids: NEW[numbers(ids)], cache, items=20, batch=20)
        changed = np.array([3, 150])
        store.upsert(changed, -OLD[changed])
        store.upsert(np.array([N + 5]), OLD[:1])
        store.delete([7])
        done = translate(index, adapter, store.second)
        assert done.written == 3
        assert len(second) == N
        expected = unit(adapter.transform(held(store, np.concatenate([-OLD[changed], OLD[:1]]))))
        np.testing.assert_allclose(stored(store, second, [3, 150, N + 5]), expected, atol=1e-4)
        now = np.concatenate([NEW, normal(6, D_NEW, 4)])
        now[changed] *= -1
        full = backfill(second, lambda ids: now[numbers(ids)], cache)
        assert full.finished
        np.testing.assert_allclose(stored(store, second, [3, 150, N + 5]), unit(now[[3, 150, N + 5]]), atol=1e-4)


def test_a_second_map_replaces_what_the_first_translated(store: Store) -> None:
    index, first, other = store.open("cosine"), gallery_map(), gallery_map("procrustes")
    assert fingerprint(first) != fingerprint(other)
    assert fingerprint(first) == fingerprint(gallery_map())
    translate(index, first, store.second)
    assert translate(index, other, store.second).written == N
    assert len(status(index.second(store.second)).marks) == 1


def test_two_spaces_in_one_column_are_refused_with_the_counts(store: Store) -> None:
    index = store.open("cosine")
    second = index.add_second(store.second, D_NEW)
    block = second.block(np.arange(N).astype(store.ids))
    half = np.arange(len(block)) < 50
    for rows, space in ((half, "new@1"), (~half, "new@2")):
        some = block.take(rows)
        second.write(some, NEW[numbers(some.ids)], stamps_of(mark(space, "embedded"), some.old))
    with pytest.raises(IncompatibleError, match=r"50 of 'new@1', 150 of 'new@2'"):
        require_one_space(second)
    with pytest.raises(IncompatibleError, match="new@2"):
        translate(index, gallery_map(), store.second)


def test_maps_that_do_not_fit_are_refused(store: Store) -> None:
    index, adapter = store.open("cosine"), gallery_map()
    index.name_space("another@1")
    with pytest.raises(IncompatibleError, match=r"'old@1'.*'another@1'"):
        translate(index, adapter, store.second)
    index.name_space("old@1")
    with pytest.raises(IncompatibleError, match="leads to 'new@1'"):
        translate(index, adapter, store.second, space="other")
    adapter.space_new = ""
    with pytest.raises(ConfigError, match="named the new model"):
        translate(index, adapter, store.second)
    with pytest.raises(ConfigError, match="direction 'gallery'"):
        translate(index, Adapter("ridge").fit(NEW, OLD), store.second)
    assert index.second(store.second) is None


def test_the_pace_is_kept(store: Store) -> None:
    done = translate(store.open("cosine"), gallery_map(), store.second, batch=50, rate=200)
    assert done.seconds >= N / 200 * 0.9
