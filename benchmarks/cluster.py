"""`extract`, `pseudo` and `evaluate` on a Ray cluster of one and of two workers against the local engine, one thread each.

    python benchmarks/cluster.py [--images 3000 --classes 150 --rows 1000 --queries 8000 --gallery 200000 --json FILE]

The commands themselves are timed, in turn. Prints the speed-up of two workers over one and the cost of Ray, each with and
without the time it takes to start the workers, which is measured separately by a job without work.
"""

import contextlib
import io
import json as codec
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cyclopts import run
from PIL import Image
from ray.cluster_utils import Cluster
from torchvision.models import resnet18

from compatlearn import Features, cli
from compatlearn.cluster import workers

DIMENSION = {"training": 512, "gallery": 128, "query": 128}


@cache
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return resnet18().eval()


def embed(pictures: list[Image.Image]) -> torch.Tensor:
    """A black box: the scores of a ResNet-18 with random weights."""
    pixels = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2)
    with torch.inference_mode():
        return network()(pixels.float() / 255)


def same(number: int) -> int:
    """A task without work, in a process with the same imports as the others."""
    import compatlearn.cluster.jobs  # noqa: F401

    return number


def prepare(images: int, classes: int, rows: int, queries: int, gallery: int) -> None:
    """Write everything the commands read to the current folder."""
    random = np.random.default_rng(0)
    for number in range(images):
        path = Path("images", f"class{number % 10}", f"{number}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path, compress_level=1)
    for name, count, groups in (("training", classes * rows, classes), ("gallery", gallery, 1000), ("query", queries, 1000)):
        labels = np.arange(count) * groups // count
        centres = np.random.default_rng(1).normal(size=(groups, DIMENSION[name])).astype(np.float32)
        vectors = centres[labels] + 2 * random.standard_normal((count, DIMENSION[name]), np.float32)
        ids = np.arange(count) + (gallery if name == "query" else 0)
        Features(vectors, labels, ids, space="old").save(name)
        if name == "query":
            Features(vectors + 0.1, labels, ids, space="new").save("new")


def seconds(command: str, out: Path | None = None) -> float:
    """Wall-clock seconds of one command, which must succeed; its output is discarded."""
    arguments = [*command.split(), *(["--out", str(out)] if out else [])]
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        code = cli.run(arguments)
    assert code == 0, command
    return time.perf_counter() - start


def start_up(address: str, stay: bool) -> float:
    """Seconds of a job without work: connect, start the workers, hand out the tasks, shut down."""
    start = time.perf_counter()
    with contextlib.redirect_stderr(io.StringIO()), workers.connected(address):
        assert sorted(workers.each(same, [(number,) for number in range(8)], "tasks", stay=stay)) == list(range(8))
    return time.perf_counter() - start


def main(
    images: int = 2000,
    classes: int = 150,
    rows: int = 1000,
    queries: int = 8000,
    gallery: int = 200_000,
    repeats: int = 1,
    json: Path | None = None,
) -> None:
    """Time every job with every engine in turn and print medians and ratios."""
    torch.set_num_threads(1)
    jobs = {  # name → (command, workers are kept)
        "extract": ("extract --data images --model cluster:embed --shard-rows 100", True),
        "pseudo": ("pseudo --features training", False),
        "evaluate": ("evaluate --old-query query --old-gallery gallery --new-query new --json", False),
    }
    limit = {"object_store_memory": 200 << 20, "include_dashboard": False}
    times: dict[tuple[str, int], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), contextlib.ExitStack() as stack:
        prepare(images, classes, rows, queries, gallery)
        addresses = {}
        for size in (1, 2):
            nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": size, **limit})
            stack.callback(nodes.shutdown)
            addresses[size] = nodes.address
        for repeat in range(repeats):  # interleaved: a busy machine slows all alike
            for name, (command, stay) in jobs.items():
                for size in (0, 1, 2):
                    engine = f" --engine ray --address {addresses[size]}" if size else ""
                    out = Path(f"{name}-{size}-{repeat}.safetensors") if name != "evaluate" else None
                    times.setdefault((name, size), []).append(seconds(command + engine, out))
                    if size:
                        times.setdefault((f"start {stay}", size), []).append(start_up(addresses[size], stay))
        for name in ("vectors.npy", "rows.parquet"):
            assert len({Path(f"extract-{size}-0.safetensors", name).read_bytes() for size in (0, 1, 2)}) == 1
    median = {key: float(np.median(values)) for key, values in times.items()}
    table: dict[str, Any] = {}
    for name, (_, stay) in jobs.items():
        local, one, two = (median[name, size] for size in (0, 1, 2))
        start = [median[f"start {stay}", size] for size in (1, 2)]
        work = [max(one - start[0], 1e-9), max(two - start[1], 1e-9)]
        table[name] = {
            "speed-up of two workers over one": one / two,
            "the same without their start": work[0] / work[1],
            "one worker against the local engine": one / local,
            "the same without its start": work[0] / local,
            "seconds: local, one worker, two workers": [local, one, two],
            "seconds of a job without work: one worker, two workers": start,
        }
        print(f"{name}: two workers {one / two:.2f} times as fast as one, {work[0] / work[1]:.2f} without their start")
        print(f"  one worker takes {one / local:.2f} times as long as no Ray, {work[0] / local:.2f} without its start")
        print(f"  local {local:.1f} s, workers {one:.1f} s and {two:.1f} s, their start {start[0]:.1f} s and {start[1]:.1f} s")
    if json:
        json.write_text(codec.dumps(table, indent=2))


if __name__ == "__main__":
    run(main)
