"""How busy extraction keeps the processor or GPU: its rate against that of the bare forward pass.

    python benchmarks/extract.py [--repeats 3] [--device cuda] [--json FILE]

The bare pass is the same module on random pixels of the same shape and batch size, with nothing to read. Both run in turn in
one process, so that a busy machine slows both alike. Pictures come from memory or from files that have to be decoded. On a CPU,
decoding and the forward pass share the cores, so the floor is the sum of their work; decoding is timed alone, on one core.
"""

import json
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from cyclopts import Parameter, run
from PIL import Image

from compatlearn.data.images import Images
from compatlearn.data.sources import open_images
from compatlearn.encoders.encoder import Encoder, module_encoder
from compatlearn.encoders.extract import encode_shards, extract, write_shard
from compatlearn.encoders.networks import Embedder, ModelSpec
from compatlearn.features.writer import FeatureWriter


def pictures(folder: Path, count: int, size: tuple[int, int], kind: str) -> Images:
    """Smooth noise, in memory or in files of the given kind."""
    random = np.random.default_rng(0)
    small = random.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    made = [Image.fromarray(one).resize(size, Image.Resampling.BICUBIC) for one in small]
    if kind == "memory":
        labels = np.zeros(count, np.int64)
        return Images(lambda row: made[row].copy(), labels, np.arange(count), np.arange(count), ("all",), kind)
    (folder / "all").mkdir(parents=True)
    for number, picture in enumerate(made):
        picture.save(folder / "all" / f"{number:05}.{kind}")
    return open_images(str(folder))


def seconds(work: Callable[..., Any], *arguments: Any, **options: Any) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    work(*arguments, **options)
    return time.perf_counter() - start


def bare(embedder: Embedder, count: int, batch_size: int) -> None:
    """The forward pass alone, on pixels that are already in memory."""
    device, size = embedder.mean.device, embedder.spec.image_size
    pixels = torch.randint(256, (batch_size, size, size, 3), dtype=torch.uint8, device=device).permute(0, 3, 1, 2)
    with torch.inference_mode():
        for first in range(0, count, batch_size):
            embedder(pixels[: min(batch_size, count - first)]).float()
    if device.type == "cuda":
        torch.cuda.synchronize()


def compare(
    backbone: str, size: int, count: int, batch_size: int, stored: tuple[int, int], kind: str, repeats: int, device: str
) -> dict[str, Any]:
    """One line of the table: medians of interleaved runs."""
    embedder = Embedder(ModelSpec(backbone, size, size)).eval().to(device)
    encoder = module_encoder(embedder, backbone)
    options = {"batch_size": batch_size, "shard_rows": 4 * batch_size}
    times: dict[str, list[float]] = {"extract": [], "bare": []}
    with tempfile.TemporaryDirectory() as folder:
        images = pictures(Path(folder) / "pictures", count, stored, kind)
        bare(embedder, batch_size, batch_size)
        for number in range(repeats):
            times["bare"].append(seconds(bare, embedder, count, batch_size))
            times["extract"].append(seconds(extract, encoder, images, Path(folder) / f"out{number}", **options))
        decode = seconds(lambda: [encoder.prepare(images.picture(row)) for row in range(count)])
        write = seconds(store, images, Path(folder) / "store", options["shard_rows"], embedder.dimension)
    median = {name: sorted(values)[repeats // 2] for name, values in times.items()}
    shared = decode / (os.cpu_count() or 1)
    floor = median["bare"] + shared if device == "cpu" else max(median["bare"], shared)
    name = f"{backbone} at {size} px from {kind}"
    print(
        f"{name}: {median['bare'] / median['extract']:.0%} of the bare forward rate ({count / median['extract']:,.0f} of "
        f"{count / median['bare']:,.0f} images/s), {median['extract'] / floor:.2f} times the floor; {count} images take "
        f"{median['bare']:.2f} s forward, {decode:.2f} s to decode on one core, {write:.2f} s to write"
    )
    return {"name": name, "images": count, "decode": decode, "write": write, "floor": floor, **median}


def store(images: Images, out: Path, shard_rows: int, dimension: int) -> None:
    """Write what an extraction writes, and do nothing else."""
    encoder = Encoder(lambda rows: np.zeros((len(rows), dimension), np.float32), "none")
    empty = Images(lambda row: Image.new("RGB", (1, 1)), images.labels, images.ids, images.rows, images.classes, "none")
    writer = FeatureWriter(out, rows=len(images), shard_rows=shard_rows)
    with ThreadPoolExecutor(1) as pool:
        planned = [writer.planned(shard) for shard in writer.missing()]
        for shard, encoded in enumerate(encode_shards(encoder, empty, planned, shard_rows, pool)):
            write_shard(writer, shard, empty, encoded)
    writer.finish()


def main(
    repeats: int = 3,
    device: str = "cuda" if torch.cuda.is_available() else "cpu",
    json_file: Annotated[Path | None, Parameter(name=["--json", "--json-file"])] = None,
) -> None:
    """Print the table."""
    torch.manual_seed(0)
    scale = 1 if device == "cpu" else 16
    print(f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    cases = [
        ("small_resnet32", 32, 12288 * scale, 256, (40, 32), "memory"),
        ("small_resnet32", 32, 12288 * scale, 256, (40, 32), "png"),
        ("resnet18", 224, 160 * scale, 16, (256, 224), "memory"),
        ("resnet18", 224, 160 * scale, 16, (256, 224), "jpg"),
    ]
    lines = [compare(*case, repeats, device) for case in cases]
    if json_file:
        json_file.write_text(json.dumps(lines, indent=2))


if __name__ == "__main__":
    run(main)
