"""Exact search against faiss IndexFlatL2 on the same processor: self test, cross test, and a gallery larger than memory.

    python benchmarks/search.py [--rows 20000 --repeats 3] [--sweep --json FILE] [--disk-rows 1000000]

Everything runs in one process and in turn, so that a busy machine slows both sides alike. The vectors resemble a network's:
classes of 50 in 64 directions, a random linear layer, noise, a rectifier; --normal takes independent normal numbers instead,
which have no near neighbours at all and are the hardest case for a bound. The floor is the matrix product alone, in bfloat16
where the processor has it: n²/2 inner products for a self test, q n for a cross test.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from cyclopts import run

from compatlearn import search
from compatlearn.precision import fast_in_bfloat16

K = 5


def features(rows: int, dimension: int, *, normal: bool, seed: int = 0) -> np.ndarray:
    """(rows, dimension) float32."""
    random = np.random.default_rng(seed)
    if normal:
        return random.standard_normal((rows, dimension), dtype=np.float32)
    labels = np.arange(rows) // 50
    hidden = random.standard_normal((labels[-1] + 1, 64), dtype=np.float32)[labels]
    hidden += 0.7 * random.standard_normal((rows, 64), dtype=np.float32)
    vectors = hidden @ random.standard_normal((64, dimension), dtype=np.float32) / 8
    vectors += 0.3 * random.standard_normal((rows, dimension), dtype=np.float32)
    return np.maximum(vectors, 0, out=vectors)


def with_faiss(queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """(q, K) neighbours by the exact index."""
    index = faiss.IndexFlatL2(gallery.shape[1])
    index.add(gallery)
    return index.search(queries, K)[1]


def product(queries: int, gallery: int, dimension: int) -> Callable[[], None]:
    """The floor: that many inner products in tiles, and nothing else."""
    dtype = torch.bfloat16 if fast_in_bfloat16(torch.device("cpu")) else torch.float32
    a, b = (torch.randn(size, dimension).to(dtype) for size in (min(1024, queries), min(8192, gallery)))

    def work() -> None:
        for _ in range(round(queries * gallery / (len(a) * len(b)))):
            torch.mm(a, b.T)

    return work


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """Wall-clock seconds of one call, and what it returned."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def compare(name: str, rows: int, d_query: int, d_gallery: int, *, repeats: int, normal: bool) -> dict[str, Any]:
    """One line of the table: ours, faiss on zero-padded vectors, the floor; medians of interleaved runs."""
    own = d_query == d_gallery
    gallery = features(rows, d_gallery, normal=normal)
    queries = gallery if own else features(rows, d_query, normal=normal, seed=1)
    padded = np.pad(gallery, ((0, 0), (0, d_query - d_gallery)))
    floor = product(rows, rows // 2 if own else rows, d_gallery)
    times: dict[str, list[float]] = {"ours": [], "faiss": [], "floor": []}
    for _ in range(repeats):
        elapsed, hits = seconds(lambda: search(queries, gallery, K))
        times["ours"].append(elapsed)
        elapsed, found = seconds(lambda: with_faiss(queries, padded))
        times["faiss"].append(elapsed)
        times["floor"].append(seconds(floor)[0])
    median = {key: sorted(values)[repeats // 2] for key, values in times.items()}
    same = float((found == hits.indices).mean())
    faster, above = median["faiss"] / median["ours"], median["ours"] / median["floor"]
    print(
        f"{name:<36} {faster:.1f} times faster than faiss ({median['ours']:.2f} s, {median['faiss']:.2f} s), "
        f"{above:.2f} times the floor of {median['floor']:.2f} s; {same:.4%} of neighbours identical"
    )
    return {"name": name, "rows": rows, "d_query": d_query, "d_gallery": d_gallery, **median}


def from_disk(rows: int, dimension: int) -> dict[str, Any]:
    """Search a memory-mapped gallery in its own process: its peak memory and the size of the file, in GiB."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gallery.npy"
        gallery = np.lib.format.open_memmap(path, "w+", np.float32, (rows, dimension))
        for start in range(0, rows, 50_000):
            gallery[start : start + 50_000] = features(min(50_000, rows - start), dimension, normal=False, seed=start)
        del gallery
        report = subprocess.run([sys.executable, __file__, "--child", str(path)], check=True, stdout=subprocess.PIPE).stdout
        size = path.stat().st_size / 2**30
    text, peak = report.decode().strip().rsplit("\n", 1)
    print(text)
    return {"name": "memory", "rows": rows, "memory": float(peak), "file": size}


def child(path: Path) -> None:
    """Send 1,000 queries to the gallery at `path`. Anonymous memory is the process's own; the rest is the file."""
    before = memory()
    gallery = np.load(path, mmap_mode="r")
    queries = np.array(gallery[:: len(gallery) // 1000][:1000])
    peak = [0.0]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    elapsed, hits = seconds(lambda: search(queries, gallery, K))
    done.set()
    watcher.join()
    assert (hits.distances[:, 0] == 0).all()  # every query is a row of the gallery
    whole, size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, path.stat().st_size / 2**30
    print(
        f"{len(gallery):,} x {gallery.shape[1]} from disk ({size:.2f} GiB), {len(queries)} queries: {elapsed:.1f} s, "
        f"{peak[0]:.2f} GiB of memory at most ({before:.2f} before), {whole:.2f} GiB with the mapped file's pages\n{peak[0]}"
    )


def memory() -> float:
    """GiB of anonymous memory of this process."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 2**20


def main(
    rows: int = 20_000,
    repeats: int = 3,
    normal: bool = False,
    sweep: bool = False,
    disk_rows: int = 1_000_000,
    json_file: Path | None = None,
) -> None:
    """Print the table; with `sweep`, also over rows and dimensions, for the plots."""
    torch.manual_seed(0)
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, faiss {faiss.__version__}, k = {K}")
    options = {"repeats": repeats, "normal": normal}
    lines = [
        compare(f"self test {rows} x 2048", rows, 2048, 2048, **options),
        compare(f"cross test {rows} x 2048 -> 512", rows, 2048, 512, **options),
    ]
    if sweep:
        lines += [compare(f"rows: self test {n} x 512", n, 512, 512, **options) for n in (2500, 5000, 10_000, 20_000, 40_000)]
        lines += [
            compare(f"dimension: self test 10000 x {d}", 10_000, d, d, **options) for d in (64, 128, 256, 512, 1024, 2048)
        ]
    for part in (8, 4, 2) if sweep else ():
        lines.append(from_disk(disk_rows // part, 512))
    if disk_rows:
        lines.append(from_disk(disk_rows, 512))
    if json_file:
        json_file.write_text(json.dumps(lines, indent=2))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(Path(sys.argv[2]))
    else:
        os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))
        run(main)
