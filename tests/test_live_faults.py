"""What happens to a live index when processes are killed, connections cut, and the application goes on: nothing is lost."""

import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compatlearn.adapters.adapter import Adapter, load_adapter
from compatlearn.errors import DataError
from compatlearn.features.cache import VectorCache
from compatlearn.indexes.open import open_index
from compatlearn.indexes.second import Upgradable
from compatlearn.migration.backfill import backfill
from compatlearn.migration.status import status
from compatlearn.migration.translate import translate
from stores import Store, lancedb, pgvector, postgres

N, D_OLD, D_NEW, KILLS = 240, 6, 9, 30
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


def asked(folder: Path) -> list[int]:
    path = folder / "asked"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def work(what: str, address: str, folder: Path) -> None:
    """One run of a migration in a process of its own, slow enough to be killed in the middle."""
    import torch

    torch.set_num_threads(1)
    index = open_index(address, metric="cosine")
    if what == "translate":
        translate(index, load_adapter(folder / "map.safetensors"), SECOND, batch=8, rate=120)
        return

    def embed(ids: list[int]) -> np.ndarray:
        with (folder / "asked").open("a") as file:
            file.write("".join(f"{one}\n" for one in ids))
        time.sleep(0.08)
        return NEW[ids]

    with VectorCache(folder / "new.vectors", space="new@1") as cache:
        backfill(index.second(SECOND), embed, cache, batch=8)


@pytest.fixture(scope="module")
def context() -> Any:
    found = multiprocessing.get_context("forkserver")
    modules = ["compatlearn.migration.backfill", "compatlearn.migration.translate", "compatlearn.indexes.open"]
    found.set_forkserver_preload(["pytest", "psycopg", "pgvector.psycopg", "test_live_faults", *modules])
    return found


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with pgvector(tmp_path, np.arange(N), OLD, "cosine") as made:
        yield made


def killed(context: Any, what: str, store: Store, folder: Path) -> int:
    """How often a run was killed before one came to its end; later kills come later."""
    draw, count = random.Random(0), 0
    for _ in range(KILLS):
        process = context.Process(target=work, args=(what, store.address, folder))
        process.start()
        process.join(timeout=draw.uniform(0.05, 0.6))
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
        process.join()
        count += process.exitcode == -signal.SIGKILL
        assert process.exitcode in (0, -signal.SIGKILL)
    last = context.Process(target=work, args=(what, store.address, folder))
    last.start()
    last.join()
    assert last.exitcode == 0
    return count


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("kind", [pgvector, lancedb])
def test_killed_again_and_again(context: Any, kind: Any, tmp_path: Path) -> None:
    with kind(tmp_path, np.arange(N), OLD, "cosine") as store:
        kill_both(context, store, tmp_path)


def kill_both(context: Any, store: Store, tmp_path: Path) -> None:
    """30 kills of a translation, and 30 of a backfill: the index ends as it would have without."""
    adapter, before = gallery_map(tmp_path), store.rows()
    assert killed(context, "translate", store, tmp_path) > 3
    index = open_index(store.address)
    second = index.second(SECOND)
    assert status(second).translated == N
    np.testing.assert_allclose(unit(second.read(np.arange(N)).vectors), unit(adapter.transform(OLD)), atol=1e-4)
    assert killed(context, "backfill", store, tmp_path) > 3
    assert status(second).embedded == N
    np.testing.assert_allclose(second.read(np.arange(N)).vectors, NEW, atol=1e-6)
    twice = len(asked(tmp_path)) - N
    assert set(asked(tmp_path)) == set(range(N))
    assert twice <= 8 * KILLS, "what a kill can cost is the batch that was being embedded"
    second.drop()
    assert store.rows() == before


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
