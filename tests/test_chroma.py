"""Chroma beyond the contract: items that are deleted or changed around a write, and errors."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compatlearn.errors import DataError, IncompatibleError
from compatlearn.indexes.open import open_index
from compatlearn.indexes.second import stamps_of
from compatlearn.indexes.stores.chroma import ChromaSecond
from stores import Store, chroma

N, D = 40, 4


def normal(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with chroma(tmp_path, np.arange(N), normal(N, D), "euclidean") as made:
        yield made


def write(second: ChromaSecond) -> int:
    return sum(second.write(block, block.old, stamps_of("new|x", block.old)) for block in second.blocks(15))


def test_deleted_items_are_met_nowhere(store: Store) -> None:
    second = open_index(store.address).add_second("items_v2", D)
    assert write(second) == N
    gone = [str(one) for one in range(10)]
    store.delete(gone)
    for exact in (False, True):
        found = second.search(normal(N, D), k=10, exact=exact)
        assert not set(gone) & set(found.ids.ravel().tolist())
        assert np.isfinite(found.scores).all()
    assert second.search(normal(1, D), k=N).ids[0].tolist().count("") == 10
    assert (len(second), sum(map(len, second.scan())), second.counts()) == (N - 10, N - 10, {"new|x": N - 10})


def test_what_changes_in_the_middle_of_a_write_is_not_counted_and_shows(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    second, done = open_index(store.address).add_second("items_v2", D), []
    ask = second._ask

    def asked(call: Any, *arguments: Any, **named: Any) -> Any:
        if call == second.rows.upsert and not done:
            done.append(True)
            store.upsert(["3"], np.ones((1, D)))
            store.delete(["4"])
        return ask(call, *arguments, **named)

    monkeypatch.setattr(second, "_ask", asked)
    assert write(second) == N - 2
    assert second.counts() == {"new|x": N - 1}
    block = second.block(np.arange(N).astype(str))
    assert block.ids[block.stamps != stamps_of("new|x", block.old)].tolist() == ["3"]


def test_what_is_not_there_is_said_in_one_line(store: Store, tmp_path: Path) -> None:
    place = store.address.partition("#")[0]
    with pytest.raises(DataError, match="no Chroma collection 'nope'; there is items"):
        open_index(f"{place}#nope")
    with pytest.raises(DataError, match="no Chroma folder"):
        open_index(f"chroma:{tmp_path}/none#items")
    assert not (tmp_path / "none").exists()


def test_collections_that_are_somebody_elses_or_have_no_name(store: Store) -> None:
    index = open_index(store.address)
    index.client.create_collection("theirs", embedding_function=None)
    with pytest.raises(IncompatibleError, match="was not made here"):
        index.add_second("theirs", D)
    with pytest.raises(DataError, match="the Chroma collection theirs is empty"):
        open_index(store.address.replace("#items", "#theirs"))
    with pytest.raises(DataError, match="Chroma refuses"):
        index.add_second("a b", D)
