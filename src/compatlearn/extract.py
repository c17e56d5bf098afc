"""Model + images → features: in memory for a comparison, on disk in resumable shards for a gallery."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from PIL import Image

from .backbones import Embedder
from .data import Images, check_skipped
from .encoders import Encoder, load_encoder, module_encoder
from .errors import ConfigError, DataError, first_few
from .feature_writer import FeatureWriter
from .features import Features
from .files import read_json
from .train import TrainingSet

__all__ = ["Encoder", "embed", "extract", "load_encoder", "module_encoder"]


def embed(
    embedder: Embedder, dataset: TrainingSet, *, batch_size: int = 512, workers: int = 0
) -> tuple[Float[np.ndarray, "n d"], Int64[np.ndarray, " n"]]:
    """Features of every readable image of a data set, in its order, and their rows; float32, on the embedder's device."""
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_size=batch_size,
        collate_fn=lambda batch: batch,
        num_workers=0 if dataset.pixels is not None else workers,
    )
    device = embedder.mean.device
    embedder.eval()
    vectors, rows = [], []
    with torch.inference_mode():
        for pixels, _, batch_rows in loader:
            vectors.append(embedder(_middle(pixels.to(device), embedder.spec.image_size)).float().cpu())
            rows.append(batch_rows)
    return torch.cat(vectors).numpy(), torch.cat(rows).numpy()


def _middle(pixels: torch.Tensor, size: int) -> torch.Tensor:
    """(b, 3, s, s) → (b, 3, size, size) in channels-last memory; smaller images as they are."""
    first = (pixels.shape[2] - size) // 2
    cropped = pixels[:, :, first : first + size, first : first + size] if first > 0 else pixels
    return cropped.contiguous(memory_format=torch.channels_last)


def extract(
    encoder: Encoder,
    images: Images,
    out: Path,
    *,
    batch_size: int = 256,
    shard_rows: int = 16384,
    dtype: str = "float32",
    tolerance: float = 0.001,
    threads: int = 4,
) -> Features:
    """Features of all images on disk; run again after an interruption, it goes on at the first missing shard.

    An image that cannot be read is left out, recorded in `skipped.json` with the reason, and counted.

    Raises:
        ConfigError: batch_size or tolerance out of range.
        DataError: more than `tolerance` of the images are unreadable, or the model returned something else than vectors.
        FormatError: `out` holds another extraction.
    """
    if batch_size < 1 or not 0 <= tolerance <= 1:
        raise ConfigError(
            f"batch_size must be at least 1, tolerance a share in [0, 1]; got batch_size {batch_size}, tolerance {tolerance}"
        )
    writer = FeatureWriter(out, rows=len(images), shard_rows=shard_rows, space=encoder.space, source=images.source, dtype=dtype)
    lost = 0
    with ThreadPoolExecutor(threads) as pool:
        for shard in writer.missing():
            rows, vectors, skipped = _encode(encoder, images, writer.planned(shard), batch_size, pool)
            lost += len(skipped)
            if skipped:
                check_skipped(lost, len(images), tolerance, skipped[0][1])
            writer.write(shard, vectors, images.labels[rows], images.ids[rows], skipped=skipped)
    features = writer.finish()
    if len(features) < len(images):  # counts what an interrupted run had skipped before
        check_skipped(len(images) - len(features), len(images), tolerance, read_json(out / "skipped.json")[0][1])
    return features


def _encode(
    encoder: Encoder, images: Images, rows: range, batch_size: int, pool: ThreadPoolExecutor
) -> tuple[list[int], Float[np.ndarray, "k d"], list[tuple[str, str]]]:
    """The rows that can be read, their features, and (id, reason) of the others; the next batch is decoded meanwhile."""
    batches = [rows[first : first + batch_size] for first in range(0, len(rows), batch_size)]
    kept: list[int] = []
    vectors = [np.empty((0, 0), np.float32)]
    skipped: list[tuple[str, str]] = []
    pending = _start(pool, images, batches[0])
    for following in [*batches[1:], range(0)]:
        outcomes, pending = list(pending), _start(pool, images, following)
        good = {row: picture for row, picture in outcomes if isinstance(picture, Image.Image)}
        skipped += [(str(images.ids[row]), reason) for row, reason in outcomes if isinstance(reason, str)]
        if good:
            vectors.append(encoder.encode(list(good.values())))
            _check(vectors[-1], vectors[1].shape[1], images, list(good), encoder.space)
            kept += good
    return kept, np.concatenate(vectors[1:] or vectors), skipped


def _start(pool: ThreadPoolExecutor, images: Images, rows: range) -> Iterable[tuple[int, Image.Image | str]]:
    """Each row with its picture, or why there is none; read by the pool from now on."""

    def read(row: int) -> tuple[int, Image.Image | str]:
        try:
            return row, images.picture(row)
        except DataError as error:
            return row, str(error)

    return pool.map(read, rows)


def _check(vectors: Float[np.ndarray, "b d"], dimension: int, images: Images, rows: list[int], space: str) -> None:
    if vectors.shape[1] != dimension:
        raise DataError(f"{space} gave vectors of {dimension} and then of {vectors.shape[1]} dimensions; it must give one kind")
    bad = images.ids[np.array(rows)[~np.isfinite(vectors).all(axis=1)]]
    if len(bad):
        raise DataError(
            f"{space} gave NaN or infinity for {len(bad)} of {len(rows)} images (first: {first_few(bad)}); "
            "check the model on them"
        )
