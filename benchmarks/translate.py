"""`translate` by one process, and by one and two Ray workers, one thread each, in one run.

    python benchmarks/translate.py [--postgres URL] [--lancedb FOLDER] [--features FOLDER] [--rows 200000] [--dimension 128]

A table `bench` (in a folder for LanceDB and features) of random vectors is made anew for every run. Prints rows per second
without the time that Ray takes to start, which a job without work measures, and the processor time per row of all that takes
part: this process, the workers, and the server where there is one.
"""

import contextlib
import io
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import torch
from cyclopts import run
from ray.cluster_utils import Cluster

import compatlearn as cl
from compatlearn.adapters.adapter import Adapter
from compatlearn.cluster import workers
from compatlearn.migration import parallel
from compatlearn.migration.translate import translate
from stores import TABLE, blocks, fill_postgres, lancedb_own


def gallery_map(dimension: int) -> Adapter:
    """A linear map between random vectors."""
    random = np.random.default_rng(1)
    pairs = random.normal(size=(2 * dimension, dimension)).astype(np.float32)
    adapter = Adapter("ridge", "gallery", metric="cosine").fit(pairs, pairs)
    adapter.space_old, adapter.space_new = "old@1", "new@1"
    return adapter


def fill(store: str, place: str, rows: int, dimension: int) -> str:
    """The address of a fresh table."""
    if store == "postgres":
        fill_postgres(place, rows, dimension)
        return f"{place}#{TABLE}.embedding"
    shutil.rmtree(place, ignore_errors=True)
    if store == "lancedb":
        lancedb_own(Path(place), rows, dimension, 10_000)
        return f"lancedb:{place}#{TABLE}.embedding"
    ids, vectors = (np.concatenate(parts) for parts in zip(*blocks(rows, dimension), strict=True))
    cl.Features(vectors, ids=ids).save(f"{place}/{TABLE}")
    return f"{place}/{TABLE}"


def processor(server: int | None) -> Callable[[], float]:
    """Seconds of processor time of this process, its children and a server's, since now."""

    def used() -> float:
        found = 0.0
        for pid in filter(None, (os.getpid(), server)):
            for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    times = process.cpu_times()
                    found += times.user + times.system + times.children_user + times.children_system
        return found

    before = used()
    return lambda: used() - before


def postmaster(url: str) -> int:
    """The process of a PostgreSQL server on this machine."""
    import psycopg

    with psycopg.connect(url) as connection:
        [pid] = connection.execute("SELECT pg_backend_pid()").fetchone() or (0,)
        return int(psutil.Process(pid).ppid())


def main(
    postgres: str | None = None,
    lancedb: str | None = None,
    features: str | None = None,
    rows: int = 200_000,
    dimension: int = 128,
) -> None:
    """Print rows and processor time of every store and number of workers."""
    torch.set_num_threads(1)
    adapter, limit = gallery_map(dimension), {"object_store_memory": 200 << 20, "include_dashboard": False}
    stores = {"postgres": postgres, "lancedb": lancedb, "features": features}
    for store, place in ((name, place) for name, place in stores.items() if place):
        server = postmaster(place) if store == "postgres" else None
        for size in (0, 1, 2):
            address = fill(store, place, rows, dimension)
            index = cl.open_index(address, metric="cosine")
            with contextlib.ExitStack() as stack:
                stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
                start = 0.0
                if size:
                    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": size, **limit})
                    stack.callback(nodes.shutdown)
                    stack.enter_context(workers.connected(nodes.address))
                    began = time.perf_counter()
                    list(workers.each(warm, [(number,) for number in range(8)], "tasks", gpu=False, attempts=5))
                    start = time.perf_counter() - began
                spent, began = processor(server), time.perf_counter()
                done = parallel.translate(index, address, adapter, "v2") if size else translate(index, adapter, "v2")
                seconds, cost = time.perf_counter() - began, spent()
            assert (done.written, done.left) == (rows, 0)
            print(
                f"{store}, {size or 'no'} workers: {rows / seconds:,.0f} rows/s, {1e6 * cost / rows:.1f} µs of processor a row"
            )
            print(f"  {seconds:.1f} s; a job of eight tasks without work on the same workers {start:.1f} s")


def warm(number: int) -> int:
    """A task without work, in a process with the same imports as the others."""
    import compatlearn.migration.parallel  # noqa: F401

    return number


if __name__ == "__main__":
    run(main)
