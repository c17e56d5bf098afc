"""What happens to a live index when its server restarts, its disk is full, or its files may only be read: one line, no loss."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stores
from compatlearn.errors import DataError
from compatlearn.indexes.open import open_index
from compatlearn.indexes.stores import postgres
from compatlearn.migration.status import status
from compatlearn.migration.translate import translate
from stores import STORES, Store, contents
from test_live_faults import D_NEW, OLD, SECOND, N, assert_translated, gallery_map

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs the limits of Unix")

CLIENTS = {"lancedb": "lance, lancedb", "faiss": "faiss", "qdrant": "qdrant_client.local.qdrant_local", "chroma": "chromadb"}
CHILD = """
import json, os, resource, signal, sys
from compatlearn import load_adapter
from compatlearn.errors import CompatlearnError
from compatlearn.indexes.open import open_index
from compatlearn.migration.translate import translate
address, adapter, name, limit = json.loads(sys.argv[1])
adapter = load_adapter(adapter)
if limit:
    index = open_index(address, metric="cosine")
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
elif os.geteuid() == 0:
    os.setuid(65534)  # root may write everywhere
try:
    translate(index if limit else open_index(address, metric="cosine"), adapter, name)
except CompatlearnError as error:
    print(error)
"""


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with stores.pgvector(tmp_path, np.arange(N), OLD, "cosine") as made:
        yield made


def test_the_server_restarts_in_the_middle(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is running waits for it and goes on; where it stays away, one line says so, and the next run finishes."""
    adapter, index = gallery_map(tmp_path), open_index(store.address)
    second, server = index.add_second(SECOND, D_NEW), stores._server
    write, writes = second.write, []

    def written(*arguments: Any) -> int:
        writes.append(1)
        if len(writes) in (3, 12):
            server.stop()
        if len(writes) == 3:
            server.start()
        return write(*arguments)

    second.write = written  # type: ignore[method-assign]
    index.add_second = lambda name, dimension: second  # type: ignore[method-assign]
    monkeypatch.setattr(postgres, "PATIENCE", 1.5)
    try:
        with pytest.raises(DataError, match="PostgreSQL at") as gone:
            translate(index, adapter, SECOND, batch=16)
    finally:
        server.start()
    assert len(writes) == 12
    assert "\n" not in str(gone.value)
    again = open_index(store.address)
    assert 0 < status(again.second(SECOND)).missing < N
    done = translate(again, adapter, SECOND, batch=16)
    assert (done.left, done.kept) == (0, 11 * 16)
    assert_translated(again, adapter, np.arange(N))


def largest(folder: Path) -> int:
    return max(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def said_by_a_child(kind: str, store: Store, folder: Path, limit: int) -> str:
    """The one line of another process that cannot translate: files are limited, or (0) it may not write them."""
    asked = json.dumps([store.address, str(folder / "map.safetensors"), SECOND, limit])
    command = [sys.executable, "-c", f"import {CLIENTS[kind]}, compatlearn.progress" + CHILD, asked]
    child = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert child.returncode == 0, child.stderr
    assert len(child.stdout.splitlines()) == 1, child.stdout
    return child.stdout


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_full_disk(kind: str, tmp_path: Path) -> None:
    """No file may grow beyond a limit: one line says so, and with room again the next run finishes."""
    with STORES[kind](tmp_path, np.arange(N), OLD, "cosine") as store:
        store.release()
        adapter, before = gallery_map(tmp_path), store.rows()
        store.release()
        folder = Path(store.address.partition(":")[2].partition("#")[0])
        limit = 4_096 if kind in ("lancedb", "faiss") else largest(folder) + 4_096
        assert said_by_a_child(kind, store, tmp_path, limit)
        index = open_index(store.address, metric="cosine")
        assert translate(index, adapter, SECOND).left == 0
        assert_translated(index, adapter, np.arange(N).astype(store.ids))
        index.second(SECOND).drop()
        store.release()
        assert store.rows() == before


@pytest.mark.parametrize("kind", CLIENTS)
def test_files_that_may_only_be_read(kind: str, tmp_path: Path) -> None:
    """One line names the place, and nothing in it is changed."""
    with tempfile.TemporaryDirectory() as place, STORES[kind](Path(place), np.arange(N), OLD, "cosine") as store:
        store.release()
        gallery_map(tmp_path)
        files = Path(store.address.partition(":")[2].partition("#")[0])
        files = files if files.is_dir() else files.parent
        before, every = contents(files), [files, *files.rglob("*")]
        for folder in (Path(place), files.parent):
            folder.chmod(0o755)
        modes = [path.stat().st_mode for path in every]
        for path in every:
            path.chmod(0o555 if path.is_dir() else 0o444)
        try:
            said = said_by_a_child(kind, store, tmp_path, 0)
        finally:
            for path, mode in zip(every, modes, strict=True):
                path.chmod(mode)
        assert kind == "chroma" or files.name in said, said
        assert contents(files) == before
