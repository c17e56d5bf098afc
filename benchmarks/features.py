"""Opening a folder of features, its labels and one class of its rows, against reading everything.

    python benchmarks/features.py [--rows 10000000 --dimension 8 --repeats 3 --json FILE]

Temporary folders are made with integer and with text ids; before every measurement their pages are dropped from the cache
where the system allows it. The alternative reads all of rows.parquet when a folder is opened, and all vectors (a tenth of the
rows, 512 float16 each) to get the rows of one class. Bytes are those of the mapped file that entered the process, including the
pages that the kernel maps around them.
"""

import json
import os
import re
import tempfile
import time
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from cyclopts import Parameter, run

from compatlearn import Features

CLASSES = 1000


def make(folder: Path, rows: int, dimension: int, dtype: str, *, text: bool = False, ordered: bool = False) -> Path:
    """Save made-up features; text ids are "img/" and eight digits."""
    labels = np.random.default_rng(0).integers(0, CLASSES, rows)
    ids = np.arange(rows)
    if text:
        digits = ids[:, None] // 10 ** np.arange(7, -1, -1) % 10 + ord("0")
        prefix = np.broadcast_to(np.array([ord(letter) for letter in "img/"]), (rows, 4))
        ids = np.concatenate([prefix, digits], axis=1).astype(np.uint32).view("U12")[:, 0]
    vectors = np.broadcast_to(np.sin(np.arange(rows)).astype(dtype)[:, None], (rows, dimension))
    Features(vectors, np.sort(labels) if ordered else labels, ids).save(folder)
    return folder


def forget(folder: Path) -> None:
    """Drop the cached pages of the files, so that they are read from the disk again."""
    if hasattr(os, "posix_fadvise"):
        for path in folder.iterdir():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def touched(path: Path) -> int:
    """Bytes of the mapped file that are in this process; 0 where /proc does not say."""
    maps = Path("/proc/self/smaps")
    found = re.findall(rf" {re.escape(str(path))}\n.*?^Rss: +(\d+) kB", maps.read_text(), re.M | re.S) if maps.exists() else []
    return 1024 * sum(map(int, found))


def seconds(work: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """Wall-clock seconds of one call, and what it returned."""
    start = time.perf_counter()
    result = work(*arguments)
    return time.perf_counter() - start, result


def opening(folder: Path, repeats: int) -> dict[str, float]:
    """Median seconds to open, to open with all columns, and of the first use of labels and of ids."""
    times: dict[str, list[float]] = {"open": [], "open and read": [], "labels": [], "ids": []}
    for _ in range(repeats):
        forget(folder)
        elapsed, features = seconds(Features.load, folder)
        times["open"].append(elapsed)
        for name in ("labels", "ids"):
            times[name].append(seconds(attrgetter(name), features)[0])
        forget(folder)
        elapsed, features = seconds(Features.load, folder)
        times["open and read"].append(elapsed + seconds(attrgetter("labels", "ids"), features)[0])
    return {name: sorted(values)[repeats // 2] for name, values in times.items()}


def one_class(folder: Path, name: str) -> dict[str, Any]:
    """Read the vectors of one class and of all classes, each from the disk, with the labels already read."""
    features, path = Features.load(folder), folder / "vectors.npy"
    order, _ = seconds(features.rows_of_class, 0)
    forget(folder)
    ours, found = seconds(lambda: features.vectors[features.rows_of_class(7)])
    read = touched(path)
    forget(folder)
    theirs, every = seconds(lambda: np.load(path)[features.labels == 7])
    assert np.array_equal(found, every)
    print(
        f"one class of {CLASSES}, rows {name}: {theirs / ours:.0f} times faster than reading all ({ours * 1000:.1f} ms, "
        f"{theirs * 1000:.0f} ms), {path.stat().st_size / max(read, 1):.0f} times fewer bytes ({read / 1e6:.1f} MB, for "
        f"{found.nbytes / 1e6:.1f} MB of vectors); before that, once, {order * 1000:.0f} ms to find the classes' order"
    )
    return {"name": f"class, rows {name}", "x": len(features), "seconds": ours, "all": theirs, "bytes": read}


def main(
    rows: int = 10_000_000,
    dimension: int = 8,
    repeats: int = 3,
    json_file: Annotated[Path | None, Parameter(name=["--json", "--json-file"])] = None,
) -> None:
    """Print the table; the file gets `rows`, a tenth and a hundredth of them."""
    lines = []
    for count in (rows // 100, rows // 10, rows):
        for text in (False, True):
            ids = "text" if text else "integer"
            with tempfile.TemporaryDirectory() as place:
                folder = make(Path(place) / "features", count, dimension, "float32", text=text)
                median = opening(folder, repeats)
            print(
                f"{count:,} rows, {ids} ids: opened {median['open and read'] / median['open']:,.0f} times faster than with "
                f"its columns ({median['open'] * 1000:.1f} ms, {median['open and read'] * 1000:.0f} ms); labels "
                f"{median['labels'] * 1000:.0f} ms, ids {median['ids'] * 1000:.0f} ms, each when first used"
            )
            lines += [{"name": f"{name}, {ids} ids", "x": count, "seconds": median[name]} for name in median]
    for ordered in (True, False):
        with tempfile.TemporaryDirectory() as place:
            folder = make(Path(place) / "features", rows // 10, 512, "float16", ordered=ordered)
            lines.append(one_class(folder, "sorted by class" if ordered else "in any order"))
    if json_file:
        json_file.write_text(json.dumps(lines, indent=2))


if __name__ == "__main__":
    run(main)
