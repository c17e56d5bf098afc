"""Second vectors in a folder beside an index: whole after a kill, one writer, in step with a file that changes."""

import errno
import itertools
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from compatlearn.errors import ConfigError, DataError, IncompatibleError
from compatlearn.features.features import Features
from compatlearn.indexes import slots
from compatlearn.indexes.arrays import ArrayIndex
from compatlearn.indexes.exact import search
from compatlearn.indexes.open import open_index
from compatlearn.indexes.second import mark, mark_of, stamps_of
from compatlearn.locks import LOCK, locked

N, D_OLD, D_NEW = 240, 4, 6
WAYS = ("translated by x", "embedded")


def normal(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


@pytest.fixture
def items(tmp_path: Path) -> Path:
    Features(normal(N, D_OLD), ids=[f"p{row}" for row in range(N)]).save(tmp_path / "items")
    return tmp_path / "items"


def rows_of(ids: Any) -> np.ndarray:
    return np.array([int(one[1:]) for one in ids.tolist()])


def true(way: str) -> np.ndarray:
    """What every row holds when it was written in this way: no two rows, and no two ways, share a number."""
    return (np.arange(N * D_NEW, dtype=np.float32).reshape(N, D_NEW) + 1) * (1 if way == "embedded" else -1)


def fill(path: Path, way: str, batch: int = 16) -> None:
    """Write all rows that are not written in this way yet."""
    second = open_index(path).add_second("v2", D_NEW)
    for block in second.blocks(batch):
        todo = np.array([mark_of(stamp) != mark("m@2", way) for stamp in block.stamps.tolist()])
        some = block.take(todo)
        if not len(some):
            continue
        second.write(some, true(way)[rows_of(some.ids)], stamps_of(mark("m@2", way), some.old))


def fill_until_killed(path: Path, way: str, flushes: int, later: float) -> None:
    """`fill`, killed so many seconds after its flush of this number: while it writes, whatever the speed of the machine."""
    count, flush = itertools.count(1), os.fsync

    def kill() -> None:
        time.sleep(later)
        os.kill(os.getpid(), signal.SIGKILL)

    def slow(descriptor: int) -> None:
        time.sleep(0.002)
        if next(count) == flushes:
            threading.Thread(target=kill, daemon=True).start()
        flush(descriptor)

    os.fsync = slow
    fill(path, way)
    time.sleep(later + 5)  # it was done before: the kill comes all the same


def killed(items: Path, way: str, flushes: int, later: float) -> bool:
    context = multiprocessing.get_context("forkserver")
    ours = ("features.features", "indexes.arrays", "indexes.beside", "indexes.exact", "indexes.open", "indexes.streamed")
    context.set_forkserver_preload(["pytest", *(f"compatlearn.{name}" for name in ours)])
    process = context.Process(target=fill_until_killed, args=(items, way, flushes, later))
    process.start()
    process.join()
    return process.exitcode == -signal.SIGKILL


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_a_kill_at_any_moment_loses_nothing_that_was_stamped(items: Path) -> None:
    draw = random.Random(0)
    for way in WAYS:  # the second way writes over rows that have a stamp: through the journal
        done = 0
        for _ in range(5):
            assert killed(items, way, draw.randint(1, 6), draw.uniform(0, 0.008))
            second = open_index(items).second("v2")
            if second is None:
                continue
            counts = second.counts()
            assert sum(counts.values()) == N
            assert counts.get(mark("m@2", way), 0) >= done
            done = counts.get(mark("m@2", way), 0)
            if way == "embedded":  # what was translated before is still there
                assert "" not in counts
            for block in second.blocks(50):
                stamped = block.take(block.stamps != "")
                if len(stamped):
                    ways = [mark_of(stamp).partition("|")[2] for stamp in stamped.stamps.tolist()]
                    expected = np.stack([true(one)[row] for one, row in zip(ways, rows_of(stamped.ids), strict=True)])
                    assert (second.read(stamped.ids).vectors == expected).all()
        fill(items, way)
        assert open_index(items).second("v2").counts() == {mark("m@2", way): N}
    left = sorted(path.name for path in (items.parent / "items.v2").iterdir())
    assert left == ["ids.npy", "manifest.json", "stamps.npy", "vectors.npy"]


@pytest.mark.parametrize("at", ["cleared", "half", "unstamped"])
def test_a_journal_is_ended_by_whoever_opens_the_folder(items: Path, at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(items, WAYS[0])
    second, real, calls = open_index(items).second("v2"), slots._write_rows, []

    def stops(file: Any, places: np.ndarray, rows: np.ndarray) -> None:
        calls.append(Path(file.name).name)
        if at == "half" and len(calls) == 2:
            real(file, places[:5], rows[:5])
        if len(calls) == {"cleared": 2, "half": 2, "unstamped": 3}[at]:
            raise KeyboardInterrupt
        real(file, places, rows)

    monkeypatch.setattr(slots, "_write_rows", stops)
    block = next(iter(second.blocks(30)))
    with pytest.raises(KeyboardInterrupt):
        second.write(block, true("embedded")[:30], stamps_of(mark("m@2", "embedded"), block.old))
    assert calls[:2] == ["stamps.npy", "vectors.npy"]
    assert len(second) == N - 30  # nobody takes a half-written vector for a whole one
    monkeypatch.undo()
    again = open_index(items).second("v2")
    assert again.counts() == {mark("m@2", "embedded"): 30, mark("m@2", WAYS[0]): N - 30}
    assert (again.read(block.ids).vectors == true("embedded")[:30]).all()


def test_one_process_writes_at_a_time(items: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compatlearn.locks.PATIENCE", 0.0)
    second = open_index(items).add_second("v2", D_NEW)
    block = second.block(["p3"])
    with locked(items.parent / "items.v2"), pytest.raises(DataError, match=r"items\.v2 is being written by process \d+"):
        second.write(block, true("embedded")[[3]], stamps_of(mark("m", "embedded"), block.old))
    assert second.write(block, true("embedded")[[3]], stamps_of(mark("m", "embedded"), block.old)) == 1
    assert second.write(block, true("embedded")[[4]], stamps_of(mark("m", "embedded"), block.old)) == 0  # written meanwhile
    assert (second.read(["p3"]).vectors == true("embedded")[[3]]).all()
    assert not (items.parent / "items.v2" / LOCK).exists()


def test_items_that_come_and_go_and_change_their_place(items: Path) -> None:
    fill(items, "embedded")
    second = open_index(items).second("v2")
    order = np.r_[N - 1 : 9 : -1]
    vectors = np.concatenate([normal(N, D_OLD)[order], normal(3, D_OLD, 4)])
    Features(vectors, ids=[f"p{row}" for row in order] + ["p900", "p901", "p902"]).save(items)
    assert second.counts() == {"": 3, mark("m@2", "embedded"): N - 10}
    fresh = second.block(["p0", "p901", "p900"])
    assert fresh.ids.tolist() == ["p901", "p900"]
    new = np.arange(2 * D_NEW, dtype=np.float32).reshape(2, D_NEW) + 0.5
    assert second.write(fresh, new, stamps_of(mark("m@2", "embedded"), fresh.old)) == 2
    assert second.counts() == {"": 1, mark("m@2", "embedded"): N - 8}
    again = open_index(items).second("v2")
    assert (again.read(["p900", "p12", "p901"]).vectors == np.stack([new[1], true("embedded")[12], new[0]])).all()
    assert (np.load(items.parent / "items.v2" / "vectors.npy").shape, len(again)) == ((N + 2, D_NEW), N - 8)
    gallery = np.concatenate([true("embedded")[order], new[::-1]])
    names = np.array([f"p{row}" for row in order] + ["p900", "p901"])
    queries = 700 * normal(5, D_NEW, 9)
    assert (again.search(queries, 7).ids == names[search(queries, gallery, 7).indices]).all()
    left = again.search(queries, 7, exclude=again.search(queries, 1).ids[:, 0])
    assert (left.ids[:, :6] == again.search(queries, 7).ids[:, 1:]).all()
    for gone in ("p0", "p902"):
        with pytest.raises(IncompatibleError, match=f"1 of 1 ids have no vector in .*first: {gone}"):
            again.read([gone])


def test_nothing_but_whole_vectors_is_taken(items: Path) -> None:
    second = open_index(items).add_second("v2", D_NEW)
    block = second.block(["p1", "p2"])
    stamps = stamps_of(mark("m", "embedded"), block.old)
    with pytest.raises(DataError, match="1 of 2 rows of the second vectors have NaN"):
        second.write(block, np.array([[np.nan] * D_NEW, [1] * D_NEW], dtype=np.float32), stamps)
    with pytest.raises(IncompatibleError, match=r"takes \(2, 6\) vectors here, not \(2, 5\)"):
        second.write(block, normal(2, 5), stamps)
    with pytest.raises(IncompatibleError, match="a mark and a digest"):
        second.write(block, normal(2, D_NEW), np.array(["new", "new"]))
    assert second.counts() == {"": N}
    assert second.search(normal(2, D_NEW), 3).ids.tolist() == [["", "", ""]] * 2


def test_names_and_what_stands_there_already(items: Path) -> None:
    index = open_index(items)
    for name in ("", "a/b", ".."):
        with pytest.raises(ConfigError, match="plain name"):
            index.add_second(name, 3)
    (items.parent / "items.photos").mkdir()
    with pytest.raises(IncompatibleError, match="was not made here"):
        index.add_second("photos", 3)
    index.add_second("v2", 3)
    Features(normal(5, D_OLD), ids=list("abcde")).save(items)
    with pytest.raises(IncompatibleError, match=r"items\.v2 is of other items"):
        open_index(items).second("v2")


def test_arrays_have_their_second_vectors_at_a_path(tmp_path: Path) -> None:
    index = ArrayIndex(normal(20, D_OLD), metric="cosine")
    assert index.second(str(tmp_path / "v2")) is None
    second = index.add_second(str(tmp_path / "v2"), D_NEW)
    second.name_space("m@2")
    for block in second.blocks(7):
        second.write(block, normal(20, D_NEW, 1)[block.ids], stamps_of(mark("m@2", "embedded"), block.old))
    again = ArrayIndex(normal(20, D_OLD), metric="cosine").second(str(tmp_path / "v2"))
    queries = normal(3, D_NEW, 2)
    assert (again.space, len(again)) == ("m@2", 20)
    assert (again.search(queries, 4).ids == search(queries, normal(20, D_NEW, 1), 4, "cosine").indices).all()
    assert [len(block) for block in again.scan(8)] == [8, 8, 4]
    again.drop()
    assert list(tmp_path.iterdir()) == []


def test_a_write_to_a_full_disk_is_refused_with_a_line(items: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    second = open_index(items).add_second("v2", D_NEW)
    block = second.block([f"p{row}" for row in range(9)])

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(slots, "os", SimpleNamespace(fsync=full))
    with pytest.raises(DataError, match=r"cannot write .*vectors\.npy.*free some space"):
        second.write(block, true("embedded")[:9], stamps_of(mark("m", "embedded"), block.old))
    monkeypatch.undo()
    assert second.counts() == {"": N}
