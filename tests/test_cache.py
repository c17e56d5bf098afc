"""Vectors kept on disk: what `add` was given is there, whoever is killed, and whoever else writes."""

import multiprocessing
import os
import signal
import sqlite3
import threading
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compatlearn import DataError, FormatError, IncompatibleError, VectorCache
from compatlearn.indexes.index import Readable
from samples import forks

SPACE = "model@1"


def vectors_of(ids: list[int], width: int = 6) -> np.ndarray:
    """The vector of each id, wherever and whenever it is asked for."""
    return np.stack([np.random.default_rng(one).normal(size=width) for one in ids]).astype(np.float32)


def test_what_is_added_is_there_when_the_file_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "new.vectors"
    with VectorCache(path, SPACE) as cache:
        assert (len(cache), cache.dimension) == (0, None)
        assert cache.get([1, 2])[0].shape == (2, 0)
        assert cache.add([7, 3], vectors_of([7, 3])) == 2
        assert cache.add(np.array([3, 9]), vectors_of([8, 9]).astype(np.float64)) == 1  # 3 keeps the vector that it has
    assert [file.name for file in path.parent.iterdir()] == ["new.vectors"]
    with VectorCache(path) as cache:
        assert (len(cache), cache.dimension, cache.space) == (3, 6, SPACE)
        vectors, known = cache.get([9, 4, 3, 9])
        assert known.tolist() == [True, False, True, True]
        np.testing.assert_array_equal(vectors[known], vectors_of([9, 3, 9]))
        assert vectors.dtype == np.float32
        assert np.isnan(vectors[1]).all()
        assert cache.get([])[0].shape == (0, 6)
        assert isinstance(cache, Readable)
        assert cache.drop([3, 4]) == 1
        assert cache.get([3, 7])[1].tolist() == [False, True]


def test_vectors_of_items_that_have_changed_are_forgotten(tmp_path: Path) -> None:
    path, many = tmp_path / "v", range(10, 2_010)
    with VectorCache(path, SPACE) as cache:
        cache.add([1, 2, 3, *many], vectors_of([1, 2, 3, *many]))
        with cache._database.held() as connection:  # as every file of an older version
            assert connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'sources'").fetchone() == (0,)
        assert cache.drop_changed([1, 2, 4], ["a", "b", "d"]) == 0, "nothing is known of what these were made from"
    with VectorCache(path) as cache:
        assert cache.drop_changed([1, 2, 3, 4], ["a", "other", "c", "other"]) == 1
        assert cache.get([1, 2, 3, 4])[1].tolist() == [True, False, True, False]
        cache.add([2], vectors_of([5]))
        assert cache.drop_changed([2, 1], ["other", "a"]) == 0
        assert cache.drop_changed(many, ["a"] * 2_000) == 0
        assert cache.drop_changed(many, ["a"] * 1_000 + ["b"] * 1_000) == 1_000
        assert cache.drop_changed([], []) == 0
        with pytest.raises(IncompatibleError, match="numbers"):
            cache.drop_changed(["1"], ["a"])


def test_it_becomes_features(tmp_path: Path) -> None:
    ids = [f"{number} 💳" for number in range(2500)]
    with VectorCache(tmp_path / "v", SPACE) as cache:
        cache.add(ids, vectors_of(list(range(2500))))
        blocks = list(cache.scan(batch=1000))
        assert [len(block) for block in blocks] == [1000, 1000, 500]
        features = cache.features()
        assert (features.ids.tolist(), features.space) == (ids, SPACE)
        np.testing.assert_array_equal(features.vectors, vectors_of(list(range(2500))))
        some = cache.read([ids[2400], ids[3]])
        np.testing.assert_array_equal(some.vectors, vectors_of([2400, 3]))
        with pytest.raises(IncompatibleError, match=r"1 of 2 ids are not in .*/v \(first: nowhere\); embed these items first"):
            cache.read(["3 💳", "nowhere"])
        scan = cache.scan(batch=2400)
        next(scan)
        cache.add(["later"], vectors_of([1]))
        assert len(next(scan)) == 100
        assert list(scan) == []


@settings(max_examples=25, deadline=None)
@given(
    st.one_of(
        st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=12, unique=True),
        st.lists(
            st.text(st.characters(exclude_categories=["Cs"]), max_size=6).map(lambda one: one + "."), min_size=1, unique=True
        ),
    ),
    st.data(),
)
def test_any_ids_come_back(tmp_path_factory: pytest.TempPathFactory, ids: list, data: st.DataObject) -> None:
    vectors = vectors_of(list(range(len(ids))))
    cut = data.draw(st.integers(0, len(ids) - 1))
    with VectorCache(tmp_path_factory.mktemp("any") / "v", SPACE) as cache:
        for part in (slice(cut, None), slice(0, cut)):
            assert not ids[part] or cache.add(ids[part], vectors[part]) == len(ids[part])
        order = data.draw(st.permutations(range(len(ids))))
        np.testing.assert_array_equal(cache.get([ids[row] for row in order])[0], vectors[order])
        assert cache.features().ids.tolist() == [*ids[cut:], *ids[:cut]]


def test_what_does_not_fit_is_refused_with_both(tmp_path: Path) -> None:
    path = tmp_path / "v"
    with pytest.raises(DataError, match=r"there is no vector cache .*/v; to make it, name the model"):
        VectorCache(path)
    assert not path.exists()
    with VectorCache(path, SPACE) as cache:
        cache.add([1, 2], vectors_of([1, 2]))
        with pytest.raises(IncompatibleError, match="holds vectors of 6 dimensions; these have 5; keep these in another file"):
            cache.add([3], np.ones((1, 5)))
        with pytest.raises(IncompatibleError, match="holds ids that are numbers; these are text"):
            cache.add(["3"], np.ones((1, 6)))
        with pytest.raises(IncompatibleError, match=r"ids of .*/v are numbers and the wanted ones text \(first: 1\)"):
            cache.get(["1"])
        assert len(cache) == 2
    with pytest.raises(IncompatibleError, match="holds vectors of space 'model@1', not 'model@2'; keep these in another file"):
        VectorCache(path, "model@2")
    with VectorCache(path, SPACE) as cache:
        assert cache.get([1, 2])[1].all()


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_what_is_no_number_is_refused_by_id(tmp_path: Path, value: float) -> None:
    vectors = np.ones((3, 4))
    vectors[1, 2] = value
    with VectorCache(tmp_path / "v", SPACE) as cache:
        with pytest.raises(DataError, match=r"1 of 3 rows of the vectors for .*/v have NaN or infinity \(first: 1 \(id b\)\)"):
            cache.add(["a", "b", "c"], vectors)
        assert (len(cache), cache.dimension) == (0, None)


def test_odd_input(tmp_path: Path) -> None:
    with VectorCache(tmp_path / "v", SPACE) as cache:
        with pytest.raises(DataError, match=r"1 ids of .* occur more than once \(first: a\)"):
            cache.add(["a", "a"], np.ones((2, 3)))
        with pytest.raises(DataError, match=r"ids must hold one id for each of 2 rows"):
            cache.add(["a"], np.ones((2, 3)))
        with pytest.raises(DataError, match=r"1 of 2 ids are no valid text \(first: '\\ud800'\)"):
            cache.add(["a", "\ud800"], np.ones((2, 3)))
        with pytest.raises(DataError, match=r"holds no vectors yet"):
            cache.features()
        assert (len(cache), list(cache.scan())) == (0, [])
    with pytest.raises(DataError, match=r"v cannot be used: Cannot operate on a closed database.; open it again"):
        len(cache)


def test_a_foreign_or_damaged_file_is_left_as_it_is(tmp_path: Path) -> None:
    text, other, newer = tmp_path / "text", tmp_path / "other", tmp_path / "newer"
    text.write_text("no database, and longer than any header of one would be " * 20)
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE notes (id)")
    connection.close()
    VectorCache(newer, SPACE).close()
    with sqlite3.connect(newer) as connection:
        connection.execute("PRAGMA user_version = 9")
    connection.close()
    for path, message in (
        (text, "text is no vector cache, or a damaged one"),
        (other, "other is a database of something else, and no vector cache; choose another file"),
        (newer, "newer is a vector cache of format 9, this version reads 1; upgrade compatlearn"),
    ):
        before = path.read_bytes()
        with pytest.raises(FormatError, match=message) as caught:
            VectorCache(path, SPACE)
        assert "\n" not in str(caught.value)
        assert path.read_bytes() == before
    with pytest.raises(DataError, match="free some space, or check the path and its permissions"):
        VectorCache(tmp_path, SPACE)
    empty = tmp_path / "empty"
    empty.touch()
    with pytest.raises(DataError, match="empty is empty; name the model"):
        VectorCache(empty)
    with VectorCache(empty, SPACE) as cache:
        assert cache.add([1], vectors_of([1])) == 1


def test_a_vector_that_somebody_cut_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "v"
    with VectorCache(path, SPACE) as cache:
        cache.add([1, 2], vectors_of([1, 2]))
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE vectors SET vector = x'00' WHERE id = 2")
    connection.close()
    with VectorCache(path) as cache:
        assert cache.get([1])[1].all()
        with pytest.raises(FormatError, match="has no vector of 6 dimensions for id 2; drop that id and add it again"):
            cache.get([1, 2])


def test_on_a_full_disk_all_of_a_batch_is_kept_or_nothing(tmp_path: Path) -> None:
    with VectorCache(tmp_path / "v", SPACE) as cache:
        cache.add([1], vectors_of([1], 256))
        with cache._database.held() as connection:
            connection.execute("PRAGMA max_page_count = 20")  # of 4,096 bytes
        with pytest.raises(DataError, match=r"cannot use .*/v: database or disk is full; free some space"):
            cache.add(list(range(2, 302)), vectors_of(list(range(2, 302)), 256))
        assert len(cache) == 1
        np.testing.assert_array_equal(cache.get([1])[0], vectors_of([1], 256))


def add_on(path: Path, log: Path, start: int, stop: int, width: int) -> None:
    """Add three vectors at a time, and say so in a log when `add` has returned."""
    with VectorCache(path, SPACE) as cache:
        for first in range(start, stop, 3):
            ids = list(range(first, first + 3))
            cache.add(ids, vectors_of(ids, width))
            with log.open("a") as file:
                file.write(f"{first}\n")
        os._exit(0)


def adding(path: Path, *arguments: int) -> tuple[multiprocessing.process.BaseProcess, Path]:
    log = path.parent / f"{'-'.join(map(str, arguments))}.log"
    process = multiprocessing.get_context("fork").Process(target=add_on, args=(path, log, *arguments))
    process.start()
    return process, log


@forks
def test_killed_with_a_vector_half_written(tmp_path: Path) -> None:
    """Two processes at once, both killed with SIGKILL wherever they are, again and again."""
    path, width, said = tmp_path / "v", 2000, set[int]()
    for attempt in range(6):
        running = [adding(path, start + 3000 * attempt, 10**6, width) for start in (0, 30_000)]
        for _, log in running:
            while not log.exists():
                time.sleep(0.005)
        time.sleep(0.1 + 0.0137 * attempt)
        for process, log in running:
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            assert process.exitcode == -signal.SIGKILL
            said |= {int(line) for line in log.read_text().split("\n")[:-1]}
        with VectorCache(path) as cache:
            ids = [one for first in sorted(said) for one in range(first, first + 3)]
            vectors, known = cache.get(ids)
            assert known.all()
            np.testing.assert_array_equal(vectors, vectors_of(ids, width))
            kept = cache.features()
            assert len(kept) % 3 == 0  # whole batches
            assert len(kept) - len(ids) in range(0, 6 * (attempt + 1) + 1, 3)  # one may have been kept and not been said
            np.testing.assert_array_equal(kept.vectors, vectors_of(kept.ids.tolist(), width))
    assert min(said) == 0
    assert max(said) >= 45_000


@forks
def test_two_processes_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "v"
    running = [adding(path, start, start + 300, 8) for start in (0, 150)]  # 150 ids are written by both
    for process, log in running:
        process.join()
        assert process.exitcode == 0
        assert len(log.read_text().split()) == 100
    with VectorCache(path) as cache:
        assert sorted(cache.features().ids.tolist()) == list(range(450))
        np.testing.assert_array_equal(cache.get(range(450))[0], vectors_of(list(range(450)), 8))


def make_many(folder: Path, together: Barrier, number: int) -> None:
    for name in range(60):
        together.wait()
        with VectorCache(folder / str(name), SPACE) as cache:
            cache.add([number], vectors_of([number]))
    os._exit(0)


@forks
def test_processes_that_make_the_same_file_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    together = context.Barrier(4, timeout=30)
    processes = [context.Process(target=make_many, args=(tmp_path, together, number)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    for name in range(60):
        with VectorCache(tmp_path / str(name)) as cache:
            assert sorted(cache.features().ids.tolist()) == [0, 1, 2, 3]


def in_child(cache: VectorCache, inherited: sqlite3.Connection) -> None:
    cache.add([2], vectors_of([2]))
    with cache._database.held() as connection:
        if connection is inherited:
            os._exit(2)
    os._exit(0 if cache.get([1, 2])[1].all() else 1)


@forks
def test_a_fork_has_a_connection_of_its_own(tmp_path: Path) -> None:
    with VectorCache(tmp_path / "v", SPACE) as cache:
        cache.add([1], vectors_of([1]))
        with cache._database.held() as connection:
            child = multiprocessing.get_context("fork").Process(target=in_child, args=(cache, connection))
        child.start()
        child.join()
        assert child.exitcode == 0
        cache.add([3], vectors_of([3]))
        assert cache.get([1, 2, 3])[1].all()


def test_threads_share_a_cache(tmp_path: Path) -> None:
    with VectorCache(tmp_path / "v", SPACE) as cache:

        def work(first: int) -> None:
            for one in range(first, first + 20):
                cache.add([one], vectors_of([one]))
                assert cache.get([one])[1].all()

        threads = [threading.Thread(target=work, args=(first,)) for first in (0, 10, 20, 30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        np.testing.assert_array_equal(cache.get(range(50))[0], vectors_of(list(range(50))))
