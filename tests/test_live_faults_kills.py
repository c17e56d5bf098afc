"""Processes that work on a live index and are killed by SIGKILL, again and again, in every store: nothing is lost."""

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

from compatlearn.adapters.adapter import load_adapter
from compatlearn.features.cache import VectorCache
from compatlearn.indexes.open import open_index
from compatlearn.migration.backfill import backfill
from compatlearn.migration.status import status
from compatlearn.migration.translate import translate
from stores import STORES, Store
from test_live_faults import NEW, OLD, SECOND, N, assert_translated, gallery_map, unit

KILLS = {"pgvector": 30, "lancedb": 30, "qdrant": 15, "chroma": 15, "faiss": 15}  # of each command
BATCH = 4  # 60 batches, more than the killed processes can do together
MOMENTS = {"translate": 4, "backfill": 6}  # among the first so many of its moments a process is killed
DELAYS = (-3.3, -1.3)  # of the kill after its moment: powers of ten of seconds, about as a write lasts in one or another store
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork")


class Killer:
    """Kills its own process a while after one of its moments, and lets it get no further than the next: no race is lost."""

    def __init__(self, moment: int, delay: float) -> None:
        self.left, self.delay = moment, delay

    def moment(self) -> None:
        """Count one; called before whatever is worth being killed in."""
        self.left -= 1
        if self.left == 0:
            threading.Thread(target=self._kill, daemon=True).start()
        elif self.left < 0:
            threading.Event().wait()

    def _kill(self) -> None:
        time.sleep(self.delay)
        os.kill(os.getpid(), signal.SIGKILL)


def asked(folder: Path) -> list[str]:
    path = folder / "asked"
    return path.read_text().split() if path.exists() else []


def work(what: str, address: str, folder: Path, moment: int, delay: float) -> None:
    """One run of a migration in a process of its own; moment 0: nobody kills it."""
    import torch

    torch.set_num_threads(1)
    killer = Killer(moment or 10**9, delay)
    killer.moment()
    index = open_index(address, metric="cosine")
    if what == "translate":
        add = index.add_second
        index.add_second = lambda *arguments: watched(add(*arguments), killer)
        translate(index, load_adapter(folder / "map.safetensors"), SECOND, batch=BATCH)
    else:

        def embed(ids: list[Any]) -> np.ndarray:
            with (folder / "asked").open("a") as file:
                file.write("".join(f"{one}\n" for one in ids))
            killer.moment()
            return NEW[[int(one) for one in ids]]

        with VectorCache(folder / "new.vectors", space="new@1") as cache:
            backfill(watched(index.second(SECOND), killer), embed, cache, batch=BATCH)
    assert not moment, "it has come to its end without being killed"


def watched(second: Any, killer: Killer) -> Any:
    """A second vector whose writes are moments."""
    write = second.write

    def counted(*arguments: Any) -> int:
        killer.moment()
        return write(*arguments)

    second.write = counted
    return second


@pytest.fixture(scope="module")
def context() -> Any:
    found = multiprocessing.get_context("forkserver")
    stores = [f"compatlearn.indexes.stores.{name}" for name in ("pgvector", "lance", "qdrant", "chroma", "faiss")]
    ours = [f"compatlearn.migration.{name}" for name in ("translate", "backfill", "status")]
    clients = ["psycopg", "pgvector.psycopg", "lancedb", "lance", "qdrant_client.local.qdrant_local", "chromadb", "faiss"]
    found.set_forkserver_preload(["pytest", *clients, *stores, *ours])  # that of this module would not find it
    return found


def run(context: Any, *arguments: Any) -> int | None:
    process = context.Process(target=work, args=arguments)
    process.start()
    process.join()
    return process.exitcode


def killed(context: Any, what: str, store: Store, folder: Path, kills: int) -> None:
    """Runs that are killed, each somewhere else, before one that is left in peace."""
    draw = random.Random(0)
    for _ in range(kills):
        moment, delay = draw.randint(1, MOMENTS[what]), 10 ** draw.uniform(*DELAYS)
        assert run(context, what, store.address, folder, moment, delay) == -signal.SIGKILL
    assert run(context, what, store.address, folder, 0, 0.0) == 0


@pytest.mark.parametrize(("kind", "kills"), KILLS.items())
def test_killed_again_and_again(context: Any, kind: str, kills: int, tmp_path: Path) -> None:
    """Kills of a translation, and as many of a backfill: the index ends as it would have without."""
    with STORES[kind](tmp_path, np.arange(N), OLD, "cosine") as store:
        store.release()  # Qdrant reads other lengths from its folder than it had in memory
        adapter, before = gallery_map(tmp_path), store.rows()
        store.release()
        killed(context, "translate", store, tmp_path, kills)
        index = open_index(store.address)
        second, ids = index.second(SECOND), np.arange(N).astype(store.ids)
        assert status(second).translated == N
        assert_translated(index, adapter, ids)
        getattr(index, "close", store.release)()
        store.release()
        killed(context, "backfill", store, tmp_path, kills)
        second = open_index(store.address).second(SECOND)
        assert status(second).embedded == N
        np.testing.assert_allclose(unit(second.read(ids).vectors), unit(NEW), atol=1e-6)
        assert set(asked(tmp_path)) == {str(one) for one in range(N)}
        assert len(asked(tmp_path)) - N <= BATCH * kills, "what a kill can cost is the batch that was being embedded"
        second.drop()
        store.release()
        assert store.rows() == before
