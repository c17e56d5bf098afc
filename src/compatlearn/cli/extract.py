"""`compatlearn extract`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import CompatlearnError, DataError
from .columns import as_flags
from .engine import Engine, connected
from .out import check_out_folder

if TYPE_CHECKING:
    from ..data.images import Images


def extract(
    *,
    data: str,
    model: str,
    out: Path,
    weights: Path | None = None,
    id_column: str | None = None,
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
        id_column: column of Parquet images with the ids, where it has no usual name; `row`: the row's number is the id.
        batch_size: images given to the model at a time.
        shard_rows: images between two points from which an interrupted run can go on.
        dtype: of the vectors on disk.
        tolerance: largest share of unreadable images that is skipped and recorded.
        device: torch's name of it; by default a GPU if there is one.
        engine: where it runs: here, or on a Ray cluster.
        address: host:port of the cluster, or auto; without one it is started here.
    """
    check_out_folder(
        out,
        {"--data": None if data.partition(":")[0] == "digits" else data, "--model": model, "--weights": weights},
        "features",
    )
    from ..data.sources import open_images
    from ..encoders.encoder import load_encoder
    from ..encoders.extract import extract

    options: dict[str, Any] = {"batch_size": batch_size, "shard_rows": shard_rows, "dtype": dtype, "tolerance": tolerance}
    with connected(engine, address) as cluster:
        images = _with_ids(open_images, data, id_column)
        encoder = load_encoder(model, weights=weights, device=device)
        if cluster:
            features = cluster.extract((data, model, weights, device, id_column), encoder, images, out, **options)
        else:
            features = extract(encoder, images, out, **options)
    skipped = len(images) - len(features)
    print(f"{out}: {len(features)} features of {features.dimension} dimensions, {skipped} unreadable images skipped")
    return 0


def _with_ids(open_images: Any, data: str, id_column: str | None) -> "Images":
    """The images; a word on stderr where a column that could name them is not used, a refusal where several could."""
    try:
        images: Images = open_images(data, id_column=id_column)
    except CompatlearnError as error:
        raise type(error)(as_flags(str(error))) from error
    candidates = images.could_be_ids
    if len(candidates) > 1:
        raise DataError(
            f"{data} has no id column, and several that could be one: {', '.join(candidates)}; pass --id-column with one of "
            "these, or --id-column row to number the rows"
        )
    if candidates:
        hint = f"--id-column {candidates[0]} would use column {candidates[0]!r}"
        print(f"{data}: ids are {images.ids_from}; {hint}", file=sys.stderr)
    elif "because" in images.ids_from:
        print(f"{data}: ids are {images.ids_from}", file=sys.stderr)
    return images
