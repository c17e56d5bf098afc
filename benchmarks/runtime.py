"""What a map costs in front of a query, against the bare matrix products that it cannot do without.

    python benchmarks/runtime.py [--dimension 384] [--hidden 1024] [--repeats 200] [--json-file FILE]

A linear map, one with a hidden layer, and fused queries, by `compatlearn.runtime` and by `Adapter.transform`: one vector, and
a batch of 256. Both sides of a ratio are timed in turn, in runs of 20 calls, and the quickest run counts. Then what a process
costs that imports NumPy alone, `compatlearn.runtime`, or what `load_adapter` needs: processor time, and peak memory
where /proc tells it. Set OMP_NUM_THREADS=1 for figures of one core.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from cyclopts import run

from compatlearn import load_adapter, runtime
from compatlearn.adapters import file
from compatlearn.adapters.network import MapNetwork
from compatlearn.files import write_json

CALLS = 20  # of a run that is timed
COST = """
import re, time
{statement}
status = open("/proc/self/status").read()
print(time.process_time(), int(re.search(r"VmHWM:\\s+(\\d+)", status).group(1)) / 1024)
"""


def made(folder: Path, dimension: int, hidden: int) -> Path:
    """The file of a map with random weights."""
    torch.manual_seed(0)
    network = MapNetwork(dimension, dimension, hidden=hidden, unit=True)
    for weights in network.parameters():
        torch.nn.init.normal_(weights, std=dimension**-0.5)
    path = folder / f"{hidden}.safetensors"
    file.write(path, network, file.Record("random", metric="cosine", unit_inputs=True))
    return path


def quickest(repeats: int, *calls: Callable[[], object]) -> list[float]:
    """Seconds of each call in its quickest run; all of them are timed in turn."""
    runs: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats):
        for call, own in zip(calls, runs, strict=True):
            start = time.perf_counter()
            for _ in range(CALLS):
                call()
            own.append((time.perf_counter() - start) / CALLS)
    return [min(own) for own in runs]


def bare(rows: np.ndarray, dimension: int, hidden: int) -> Callable[[], object]:
    """The matrix products of a map of these sizes, and nothing else."""
    random = np.random.default_rng(1)
    first = random.normal(size=(dimension, dimension)).astype(np.float32)
    up = random.normal(size=(dimension, hidden)).astype(np.float32)
    down, inner = np.ascontiguousarray(up.T), np.ascontiguousarray((rows @ up) if hidden else rows)
    return (lambda: (rows @ first, rows @ up, inner @ down)) if hidden else (lambda: rows @ first)


def measure(folder: Path, dimension: int, hidden: int, batch: int, repeats: int) -> dict[str, object]:
    """One line of the table."""
    path, random = made(folder, dimension, hidden), np.random.default_rng(2)
    fast, slow = runtime.load(path), load_adapter(path)
    rows = random.normal(size=(batch, dimension)).astype(np.float32)
    one = rows[0] if batch == 1 else rows
    np.testing.assert_allclose(fast(rows), slow.transform(rows), atol=1e-5)
    calls = bare(one, dimension, hidden), lambda: fast(one), lambda: fast.fused(one, one, 1.5), lambda: slow.transform(rows)
    product, mapped, fused, torchs = quickest(repeats if batch == 1 else max(5, repeats // 10), *calls)
    return {"hidden": hidden, "rows": batch, "product": product, "mapped": mapped, "fused": fused, "transform": torchs}


def cost(statement: str, times: int = 7) -> tuple[float, float]:
    """Seconds of processor time and MB of a process that runs one statement; the median."""
    found = []
    for _ in range(times):
        done = subprocess.run(
            [sys.executable, "-c", COST.format(statement=statement)], capture_output=True, text=True, check=True
        )
        found.append([float(word) for word in done.stdout.split()])
    seconds, memory = (statistics.median(column) for column in zip(*found, strict=True))
    return seconds, memory


def main(
    dimension: int = 384, hidden: int = 1024, repeats: int = 200, json_file: Path = Path("runs/bench/runtime.json")
) -> None:
    """Print both tables."""
    with tempfile.TemporaryDirectory() as name:
        sizes = [(units, batch) for units in (0, hidden) for batch in (1, 256)]
        rows = [measure(Path(name), dimension, units, batch, repeats) for units, batch in sizes]
        path = made(Path(name), dimension, 0)
        statements = {
            "NumPy": "import numpy",
            "compatlearn.runtime": "from compatlearn import runtime",
            "and a map loaded": f"from compatlearn import runtime; runtime.load({str(path)!r})",
            "load_adapter": f"from compatlearn import load_adapter; load_adapter({str(path)!r})",
        }
        costs = {what: cost(statement) for what, statement in statements.items()}
    print(f"{dimension} dimensions, microseconds (and times the bare products)\n")
    print("| hidden units | rows | bare products | mapped | fused | `Adapter.transform` |\n|---|---|---|---|---|---|")
    for row in rows:
        product = float(str(row["product"]))
        times = [float(str(row[name])) for name in ("mapped", "fused", "transform")]
        cells = " | ".join(f"{1e6 * seconds:.1f} ({seconds / product:.2f})" for seconds in times)
        print(f"| {row['hidden']} | {row['rows']} | {1e6 * product:.1f} | {cells} |")
    print("\n| a process that imports | processor seconds | peak memory, MB |\n|---|---|---|")
    for what, (seconds, memory) in costs.items():
        print(f"| {what} | {seconds:.3f} | {memory:.0f} |")
    write_json(json_file, {"dimension": dimension, "rows": rows, "processes": costs})


if __name__ == "__main__":
    run(main)
