"""LanceDB beyond the contract: writers at the same time, versions, names, kinds of columns, and what is wrong with a table."""

import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from compatlearn.errors import ConfigError, DataError, IncompatibleError
from compatlearn.indexes.open import open_index
from compatlearn.indexes.second import Second, mark_of, stamps_of

lancedb = pytest.importorskip("lancedb")
N, D, D_NEW = 400, 8, 4
SAID = "new@1|translated by test"


def normal(n: int, d: int = D, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def lists(rows: np.ndarray) -> Any:
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])


def made(folder: Path, column: str = "embedding", rows: np.ndarray | None = None, **others: Any) -> Any:
    """A table `items` as an application makes it."""
    rows = normal(N) if rows is None else rows
    columns = {"id": np.arange(len(rows)), column: lists(rows)} | others
    return lancedb.connect(folder, read_consistency_interval=timedelta(0)).create_table("items", pa.table(columns))


def mapped(old: np.ndarray) -> np.ndarray:
    return old[:, :D_NEW] * 2


def write_all(second: Second) -> int:
    """Write every row that is not stamped for its first vector; how many were written."""
    written = 0
    for block in second.blocks(batch=100):
        block = block.take(block.stamps != stamps_of(SAID, block.old))
        if len(block):
            written += second.write(block, mapped(block.old), stamps_of(SAID, block.old))
    return written


def test_four_writers_lose_nothing_and_nothing_of_theirs_is_stamped_as_ours(tmp_path: Path) -> None:
    table = made(tmp_path, content=[f"text of {one}" for one in range(N)])
    second = open_index(f"lancedb:{tmp_path}#items.embedding", metric="cosine").add_second("v2", D_NEW)
    latest: dict[int, np.ndarray | None] = dict(enumerate(normal(N)))
    failed: list[Exception] = []

    def application(number: int) -> None:
        mine = lancedb.connect(tmp_path, read_consistency_interval=timedelta(0)).open_table("items")
        rng = np.random.default_rng(number)
        try:
            for turn in range(6):
                some = [*rng.choice(np.arange(number, N, 4), 4, replace=False).tolist(), N + 10 * turn + number]
                rows = rng.normal(size=(5, D)).astype(np.float32)
                new = pa.table({"id": some, "embedding": lists(rows), "content": ["new"] * 5})
                mine.merge_insert("id").when_matched_update_all().when_not_matched_insert_all().execute(new)
                latest.update(zip(some, rows, strict=True))
                mine.delete(f"id = {some[0]}")
                latest[some[0]] = None
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=application, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        write_all(second)
    for thread in threads:
        thread.join()
    assert failed == []
    write_all(second)
    assert write_all(second) == 0
    found = table.to_arrow().to_pylist()
    there = {one: row for one, row in latest.items() if row is not None}
    assert sorted(row["id"] for row in found) == sorted(there)
    for row in found:
        np.testing.assert_array_equal(np.float32(row["embedding"]), there[row["id"]])
        np.testing.assert_array_equal(np.float32(row["v2"]), mapped(there[row["id"]][None])[0])
        assert row["v2_space"] == stamps_of(SAID, there[row["id"]][None])[0]
        assert row["content"] in ("new", f"text of {row['id']}")


def test_an_index_on_the_ids_is_not_written_through(tmp_path: Path) -> None:
    from lancedb.index import BTree

    table = made(tmp_path, content=["x"] * N)  # a column that is not written
    table.create_index("id", config=BTree())  # LanceDB 0.40 panics at conditional writes of some columns that use it
    assert write_all(open_index(f"lancedb:{tmp_path}#items.embedding", metric="cosine").add_second("v2", D_NEW)) == N


def test_a_scan_is_of_one_version(tmp_path: Path) -> None:
    rows = normal(50_000)
    table = made(tmp_path, rows=rows)
    index = open_index(f"lancedb:{tmp_path}#items.embedding", metric="dot")
    scan = index.scan(batch=500)
    ids = [next(scan).ids]
    table.delete("id < 49000")
    table.add(pa.table({"id": [len(rows)], "embedding": lists(rows[:1])}))
    ids += [block.ids for block in scan]
    assert np.concatenate(ids).tolist() == list(range(len(rows)))
    assert len(index) == len(table) == 1001


def test_small_fragments_become_whole_batches(tmp_path: Path) -> None:
    table = made(tmp_path, rows=normal(30))
    for start in (30, 60, 90):
        table.add(pa.table({"id": np.arange(30) + start, "embedding": lists(normal(30))}))
    index = open_index(f"lancedb:{tmp_path}#items.embedding", metric="dot")
    assert [len(block) for block in index.scan(batch=50)] == [50, 50, 20]
    assert [len(block) for block in index.add_second("v2", D_NEW).blocks(batch=120)] == [120]


def test_a_row_that_another_process_of_ours_has_stamped_is_not_overwritten(tmp_path: Path) -> None:
    made(tmp_path)
    index = open_index(f"lancedb:{tmp_path}#items.embedding", metric="dot")
    second = index.add_second("v2", D_NEW)
    block = second.block(range(10))
    assert second.write(block.take(slice(4)), mapped(block.old[:4]), stamps_of("new@1|embedded", block.old[:4])) == 4
    assert second.write(block, -mapped(block.old), stamps_of(SAID, block.old)) == 6
    again = second.block(range(10))
    assert {mark_of(stamp) for stamp in again.stamps} == {SAID, "new@1|embedded"}
    assert second.write(again, mapped(block.old), stamps_of(SAID, again.old)) == 10
    assert second.counts() == {"": N - 10, SAID: 10}


@pytest.mark.parametrize("column", ["Embedding", "my vector", 'a"b', "it's", "select"])
def test_names_are_quoted(tmp_path: Path, column: str) -> None:
    table = made(tmp_path, column)
    before = table.to_arrow().to_pylist()
    index = open_index(f"lancedb:{tmp_path}#items.{column}", metric="cosine")
    second = index.add_second(f"{column} 2", D_NEW)
    assert write_all(second) == N == len(second)
    assert second.search(normal(1, D_NEW), k=3).ids.shape == (1, 3)
    second.drop()
    assert sorted(table.to_arrow().to_pylist(), key=lambda row: row["id"]) == before


def test_half_precision_and_rows_without_a_vector(tmp_path: Path) -> None:
    table = made(tmp_path, rows=normal(20).astype(np.float16))
    table.add(pa.table({"id": [20], "embedding": pa.array([None], type=table.schema.field("embedding").type)}))
    index = open_index(f"lancedb:{tmp_path}#items.embedding", metric="euclidean")
    assert len(index) == 20
    assert index.read([3]).vectors.dtype == np.float16
    second = index.add_second("v2", D_NEW)
    assert write_all(second) == 20
    assert second.counts() == {SAID: 20}
    found = index.search(index.read([5]).vectors.astype(np.float32), k=30, exact=True, exclude=np.array([5]))
    assert sorted(found.ids[0, :19].tolist()) == [one for one in range(20) if one != 5]
    assert found.ids[0, 19:].tolist() == [-1] * 11


def test_what_is_wrong_with_a_table_is_one_line(tmp_path: Path) -> None:
    made(tmp_path / "db", content=["x"] * N)
    client = lancedb.connect(tmp_path / "db")
    client.create_table("keyless", pa.table({"sku": [1], "embedding": lists(normal(1))}))
    client.create_table("floats", pa.table({"id": [1.5], "embedding": lists(normal(1))}))
    place = f"lancedb:{tmp_path}/db#"
    for address, kind, message in (
        (f"lancedb:{tmp_path}/none#items.embedding", DataError, "there is no folder"),
        (f"{place}other.embedding", DataError, "'other' was not found"),
        (f"{place}items.vector", DataError, "no column 'vector'; it has id, embedding, content"),
        (f"{place}items.content", IncompatibleError, "holds string; vectors are lists"),
        (f"{place}keyless.embedding", ConfigError, "no column 'id' .* it has sku, embedding"),
        (f"{place}floats.embedding", IncompatibleError, "ids are integers or text"),
        (f"{place}embedding", ConfigError, "lancedb:DIR#table.column"),
        (f"{place}items.embedding", ConfigError, "no index that says how it is ranked; name the metric"),
    ):
        with pytest.raises(kind, match=message) as caught:
            open_index(address)
        assert "\n" not in str(caught.value)
        assert ".cargo" not in str(caught.value)
    assert not (tmp_path / "none").exists()
    index = open_index(f"{place}items.embedding", metric="dot")
    with pytest.raises(IncompatibleError, match="was not made here"):
        index.add_second("content", D_NEW)
    with pytest.raises(IncompatibleError, match="1 of 1 ids are not in table items"):
        index.read([N])


def test_columns_of_any_kind_stay_as_they_are(tmp_path: Path) -> None:
    """Rows are written in full, with what stands in their other columns."""
    kinds = {
        "blob": pa.array([bytes([row % 256]) * 2_000 for row in range(N)], pa.large_binary()),
        "tags": pa.array([[f"t{row}", None] if row % 3 else None for row in range(N)], pa.list_(pa.string())),
        "facts": pa.array([{"price": row / 7, "name": None} for row in range(N)]),
        "kind": pa.array([f"kind {row % 2}" for row in range(N)]).dictionary_encode(),
        "when": pa.array(range(N), pa.timestamp("us", tz="UTC")),
    }
    fields = [pa.field(name, array.type) for name, array in kinds.items()]
    fields[0] = fields[0].with_metadata({"lance-encoding:blob": "true"})
    rows = {"embedding": lists(normal(N)), "id": pa.array(range(N))}
    schema = pa.schema([*fields, *(pa.field(name, array.type) for name, array in rows.items())])
    table = lancedb.connect(tmp_path, read_consistency_interval=timedelta(0)).create_table(
        "items", pa.table(kinds | rows, schema=schema)
    )
    before = table.to_lance().scanner(blob_handling="all_binary").to_table().sort_by("id")
    assert write_all(open_index(f"lancedb:{tmp_path}#items.embedding", metric="dot").add_second("v2", D_NEW)) == N
    after = table.to_lance().scanner(blob_handling="all_binary").to_table().sort_by("id")
    assert after.select(before.column_names).to_pylist() == before.to_pylist()
    assert after.schema.field("blob").metadata == before.schema.field("blob").metadata


def test_ids_that_several_rows_have_are_refused(tmp_path: Path) -> None:
    table = made(tmp_path)
    table.add(pa.table({"id": [7, 9], "embedding": lists(normal(2))}))
    second = open_index(f"lancedb:{tmp_path}#items.embedding", metric="dot").add_second("v2", D_NEW)
    with pytest.raises(DataError, match=r"^2 ids stand in several rows of table items .*first: 7, 9"):
        write_all(second)


def test_memory_does_not_grow_with_the_table(tmp_path: Path) -> None:
    """Some rows of a wide table are written; LanceDB's own conditional merge holds every row of it, twice."""
    made(tmp_path, rows=normal(1_500), content=["x" * 100_000] * 1_500)
    script = f"""
import lance, numpy as np, resource
from compatlearn.indexes.open import open_index
from compatlearn.indexes.second import stamps_of
second = open_index("lancedb:{tmp_path}#items.embedding", metric="dot").add_second("v2", {D_NEW})
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before, block = peak(), second.block(np.arange(50))
assert second.write(block, np.ones((50, {D_NEW}), np.float32), stamps_of("new@1|test", block.old)) == 50
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 150, "a table of 150 MB, held twice, is 300"
