"""Reading and writing live indexes beside the stores' own fastest ways, in one run.

    python benchmarks/stores.py --postgres postgresql://localhost/bench [--rows 1000000] [--dimension 128]
    python benchmarks/stores.py --lancedb FOLDER [--rows 1000000] [--block 10000]

A table `bench` of random vectors is made there, and dropped at the end. Read: `scan` against PostgreSQL's binary COPY, or
LanceDB's `to_batches`. Write: second vectors with stamps, each under its condition, against the store's own unconditional
update of the same rows in the same blocks (COPY to a temporary table and UPDATE; `merge_insert`). Memory is the peak of this
process above what it had when the table was there.
"""

import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from cyclopts import run

import compatlearn as cl
from compatlearn.indexes.second import mark, stamps_of

TABLE, SECOND = "bench", "second"


def blocks(rows: int, dimension: int, block: int = 10_000) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Ids and random vectors."""
    random = np.random.default_rng(0)
    for start in range(0, rows, block):
        ids = np.arange(start, min(rows, start + block))
        yield ids, random.normal(size=(len(ids), dimension)).astype(np.float32)


def timed(work: Callable[[], int]) -> float:
    """Rows per second."""
    started = time.perf_counter()
    return work() / (time.perf_counter() - started)


def scanned(index: Any) -> int:
    return sum(len(block) for block in index.scan())


def written(second: Any, block: int) -> int:
    said, count = mark("new@1", "translated by nothing"), 0
    for one in second.blocks(block):
        count += second.write(one, one.old, stamps_of(said, one.old))
    return count


def fill_postgres(url: str, rows: int, dimension: int) -> None:
    """The table, by binary COPY."""
    import psycopg
    from pgvector.psycopg import register_vector

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        register_vector(connection)
        connection.execute(f"DROP TABLE IF EXISTS {TABLE}")
        connection.execute(f"CREATE TABLE {TABLE} (id bigint PRIMARY KEY, embedding vector({dimension}))")
        with connection.cursor() as cursor, cursor.copy(f"COPY {TABLE} FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(["int8", "vector"])
            for ids, vectors in blocks(rows, dimension):
                for pair in zip(ids.tolist(), vectors, strict=True):
                    copy.write_row(pair)


def postgres_own(url: str, rows: int, dimension: int, block: int) -> tuple[Callable[[], int], Callable[[], int]]:
    """PostgreSQL's own way to read the table, and to update a column of it."""
    import psycopg
    from pgvector.psycopg import register_vector

    def read() -> int:
        statement = f"COPY (SELECT id, embedding FROM {TABLE}) TO STDOUT (FORMAT BINARY)"
        with psycopg.connect(url) as connection, connection.cursor() as cursor, cursor.copy(statement) as copy:
            assert sum(len(part) for part in copy) > 4 * rows * dimension
        return rows

    def write() -> int:
        with psycopg.connect(url, autocommit=True) as connection:
            register_vector(connection)
            connection.execute(f"ALTER TABLE {TABLE} ADD COLUMN own vector({dimension})")
            connection.execute(f"CREATE TEMP TABLE rows (id bigint, v vector({dimension})) ON COMMIT DELETE ROWS")
            for ids, vectors in blocks(rows, dimension, block):
                with connection.transaction(), connection.cursor() as cursor:
                    with cursor.copy("COPY rows FROM STDIN (FORMAT BINARY)") as copy:
                        copy.set_types(["int8", "vector"])
                        for pair in zip(ids.tolist(), vectors, strict=True):
                            copy.write_row(pair)
                    cursor.execute(f"UPDATE {TABLE} t SET own = rows.v FROM rows WHERE rows.id = t.id")
            connection.execute(f"ALTER TABLE {TABLE} DROP COLUMN own")
        return rows

    return read, write


def lancedb_own(folder: Path, rows: int, dimension: int, block: int) -> tuple[Callable[[], int], Callable[[], int]]:
    """The table in LanceDB, its own way to read it, and to merge a column into it."""
    import lancedb
    import pyarrow as pa

    def column(vectors: np.ndarray) -> Any:
        return pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dimension)

    schema = pa.schema({"id": pa.int64(), "embedding": pa.list_(pa.float32(), dimension)})
    table = lancedb.connect(str(folder)).create_table(TABLE, schema=schema, mode="overwrite")
    table.add(
        pa.RecordBatch.from_arrays([pa.array(ids), column(vectors)], schema=schema) for ids, vectors in blocks(rows, dimension)
    )

    def read() -> int:
        return sum(len(batch) for batch in table.search().select(["id", "embedding"]).limit(rows).to_batches(10_000))

    def write() -> int:
        table.checkout_latest()
        table.add_columns(pa.field("own", pa.list_(pa.float32(), dimension)))
        for ids, vectors in blocks(rows, dimension, block):
            merge = table.merge_insert("id").when_matched_update_all()
            merge.execute(pa.table({"id": pa.array(ids), "own": column(vectors)}))
        table.drop_columns(["own"])
        return rows

    return read, write


def main(
    postgres: str | None = None, lancedb: Path | None = None, rows: int = 1_000_000, dimension: int = 128, block: int = 10_000
) -> None:
    """Print rows per second of both, and their ratios."""
    if postgres:
        fill_postgres(postgres, rows, dimension)
        address, own = f"{postgres}#{TABLE}.embedding", postgres_own(postgres, rows, dimension, block)
    elif lancedb:
        own, address = lancedb_own(lancedb, rows, dimension, block), f"lancedb:{lancedb}#{TABLE}.embedding"
    else:
        raise SystemExit("name a store: --postgres URL or --lancedb FOLDER")
    index = cl.open_index(address, metric="cosine")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    second = index.add_second(SECOND, dimension)
    ours = timed(lambda: scanned(index)), timed(lambda: written(second, block))
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    second.drop()
    theirs = timed(own[0]), timed(own[1])
    print(f"{rows:,} × {dimension}, blocks of {block:,}; our peak {peak:.0f} MiB above {before / 1024:.0f} MiB")
    for name, mine, other in zip(("read", "write"), ours, theirs, strict=True):
        print(f"{name}: {mine:,.0f} rows/s, the store's own way {other:,.0f}: {other / mine:.2f} times its time")


if __name__ == "__main__":
    run(main)
