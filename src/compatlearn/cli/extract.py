"""`compatlearn extract`."""

from pathlib import Path
from typing import Any, Literal

from .engine import Engine, connected


def extract(
    *,
    data: str,
    model: str,
    out: Path,
    weights: Path | None = None,
    batch_size: int = 256,
    shard_rows: int = 16384,
    dtype: Literal["float32", "float16"] = "float32",
    tolerance: float = 0.001,
    device: str | None = None,
    engine: Engine = "local",
    address: str | None = None,
) -> int:
    """Features of labelled images on disk; an interrupted run goes on at its first missing shard.

    Args:
        data: digits, Parquet files, an image folder, ImageNet, Places365 or a hub name; `DATA:val` chooses a split.
        model: a run of `compatlearn train`, a timm or torchvision name, or `module:function` (a list of RGB pictures in,
            vectors out).
        out: folder of the features.
        weights: .safetensors or .pt state dict for a name; without it a hub's.
        batch_size: images given to the model at a time.
        shard_rows: images between two points from which an interrupted run can go on.
        dtype: of the vectors on disk.
        tolerance: largest share of unreadable images that is skipped and recorded.
        device: torch's name of it; by default a GPU if there is one.
        engine: where it runs: here, or on a Ray cluster.
        address: host:port of the cluster, or auto; without one it is started here.
    """
    from ..data.sources import open_images
    from ..encoders.encoder import load_encoder
    from ..encoders.extract import extract

    options: dict[str, Any] = {"batch_size": batch_size, "shard_rows": shard_rows, "dtype": dtype, "tolerance": tolerance}
    with connected(engine, address) as cluster:
        images, encoder = open_images(data), load_encoder(model, weights=weights, device=device)
        if cluster:
            features = cluster.extract((data, model, weights, device), encoder, images, out, **options)
        else:
            features = extract(encoder, images, out, **options)
    skipped = len(images) - len(features)
    print(f"{out}: {len(features)} features of {features.dimension} dimensions, {skipped} unreadable images skipped")
    return 0
