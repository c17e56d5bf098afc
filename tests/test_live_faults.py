"""What happens to a live index when connections are cut, and the application goes on: nothing is lost."""

import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compatlearn.adapters.adapter import Adapter
from compatlearn.errors import DataError
from compatlearn.indexes.open import open_index
from compatlearn.indexes.second import Upgradable
from compatlearn.migration.status import status
from compatlearn.migration.translate import SAMPLE, translate
from stores import Store, pgvector, postgres

N, D_OLD, D_NEW = 240, 6, 9
SECOND = "embedding_v2"
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork")


def normal(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


NEW = normal(N, D_NEW)
OLD = (NEW[:, :D_OLD] + 0.1 * normal(N, D_OLD, 1)).astype(np.float32)


def gallery_map(folder: Path) -> Adapter:
    adapter = Adapter("ridge", "gallery", metric="cosine").fit(NEW[:50], OLD[:50])
    adapter.space_old, adapter.space_new = "old@1", "new@1"
    adapter.save(folder / "map.safetensors")
    return adapter


def assert_translated(index: Any, adapter: Adapter, ids: Any) -> None:
    """Every item has its old vector, as the store keeps lengths, and the map of it."""
    old = index.read(ids).vectors
    np.testing.assert_allclose(unit(old), unit(OLD), atol=1e-6)
    np.testing.assert_allclose(unit(index.second(SECOND).read(ids).vectors), unit(adapter.transform(old)), atol=1e-4)


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with pgvector(tmp_path, np.arange(N), OLD, "cosine") as made:
        yield made


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class Application(threading.Thread):
    """Inserts, updates and deletes rows until it is told to stop, and knows what there must be."""

    def __init__(self, store: Store) -> None:
        super().__init__(daemon=True)
        self.store, self.stop, self.draw = store, threading.Event(), np.random.default_rng(5)
        self.expected = dict(zip(range(N), OLD, strict=True))
        self.changes, self.fault = 0, None

    def run(self) -> None:
        try:
            while not self.stop.is_set():
                kind, item = self.draw.integers(3), int(self.draw.integers(N + 60))
                if kind == 2 and len(self.expected) > N // 2:
                    self.store.delete([item])
                    self.expected.pop(item, None)
                else:
                    vector = self.draw.normal(size=D_OLD).astype(np.float32)
                    self.store.upsert(np.array([item]), vector[None])
                    self.expected[item] = vector
                self.changes += 1
                time.sleep(0.002)
        except BaseException as error:
            self.fault = error


def test_an_application_that_writes_meanwhile_loses_nothing(store: Store, tmp_path: Path) -> None:
    adapter, index = gallery_map(tmp_path), open_index(store.address)
    application = Application(store)
    application.start()
    deadline = time.monotonic() + 60
    while application.changes < 50 and time.monotonic() < deadline:
        translate(index, adapter, SECOND, batch=16)
    scanned = np.concatenate([block.ids for block in index.scan(batch=16)])
    assert len(scanned) == len(set(scanned.tolist())), "a scan sees no row twice"
    application.stop.set()
    application.join()
    assert application.fault is None
    assert application.changes >= 50
    translate(index, adapter, SECOND, batch=16)
    second, ids = index.second(SECOND), np.array(sorted(application.expected))
    expected = np.stack([application.expected[one] for one in ids.tolist()])
    np.testing.assert_array_equal(index.read(ids).vectors, expected)
    assert len(index) == len(ids)
    assert status(second).missing == 0
    np.testing.assert_allclose(unit(second.read(ids).vectors), unit(adapter.transform(expected)), atol=1e-4)


def test_what_is_deleted_or_changed_while_it_is_read_back_is_no_fault(store: Store, tmp_path: Path) -> None:
    adapter, index = gallery_map(tmp_path), open_index(store.address)
    second = index.add_second(SECOND, D_NEW)
    read, left = second.read, [(store.upsert, (np.array([4]), OLD[:1])), (store.delete, ([3],))]  # the last one first

    def read_late(ids: Any) -> Any:
        if left:  # the application is quicker by a moment
            write, arguments = left.pop()
            write(*arguments)
        return read(ids)

    second.read = read_late
    index.add_second = lambda name, dimension: second
    assert translate(index, adapter, SECOND).checked == SAMPLE - 2


def test_two_at_once_do_no_harm(store: Store, tmp_path: Path) -> None:
    adapter = gallery_map(tmp_path)
    open_index(store.address).add_second(SECOND, D_NEW)
    done: list[int] = []

    def run() -> None:
        done.append(translate(open_index(store.address), adapter, SECOND, batch=8).written)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 2
    second = open_index(store.address).second(SECOND)
    assert status(second).translated == N
    np.testing.assert_allclose(unit(second.read(np.arange(N)).vectors), unit(adapter.transform(OLD)), atol=1e-4)


def test_a_connection_that_is_cut_comes_back(store: Store, tmp_path: Path) -> None:
    import psycopg

    adapter, index = gallery_map(tmp_path), open_index(store.address)
    second = index.add_second(SECOND, D_NEW)
    cuts = 0

    def cut(line: str = "") -> None:
        nonlocal cuts
        with psycopg.connect(postgres(), autocommit=True) as admin:
            cuts += len(
                admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid() "
                    "AND application_name = 'compatlearn'",
                    [store.address.split("/")[3].split("?")[0]],
                ).fetchall()
            )

    original = second.blocks

    def blocks(batch: int) -> Any:
        for number, block in enumerate(original(batch)):
            if number % 5 == 2:
                cut()
            yield block

    second.blocks = blocks  # type: ignore[method-assign]
    index.add_second = lambda name, dimension: second  # type: ignore[method-assign]
    done = translate(index, adapter, SECOND, batch=16)
    assert cuts >= 2
    assert (done.left, status(second).translated) == (0, N)


def test_a_role_that_may_only_read(store: Store, tmp_path: Path) -> None:
    import psycopg

    adapter = gallery_map(tmp_path)
    role = f"reader_{os.getpid()}"
    place, _, name = store.address.rpartition("#")
    with psycopg.connect(place, autocommit=True) as admin:
        admin.execute(f"DROP ROLE IF EXISTS {role}")
        admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret-word'")
        admin.execute(f"GRANT SELECT ON items TO {role}")
    reader = open_index(f"{place.replace('postgres:@', f'{role}:secret-word@')}#{name}")
    assert isinstance(reader, Upgradable)
    assert len(reader) == N
    with pytest.raises(DataError, match="does not allow it") as refused:
        translate(reader, adapter, SECOND)
    assert "secret-word" not in str(refused.value) + repr(reader)
    assert "\n" not in str(refused.value)


def test_nobody_answers() -> None:
    with pytest.raises(DataError, match="cannot connect") as refused:
        open_index("postgresql://me:secret-word@127.0.0.1:1/shop#items.embedding")
    assert "secret-word" not in str(refused.value)
