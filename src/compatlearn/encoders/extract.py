"""Model + images → features: in memory for a comparison, on disk in resumable shards for a gallery."""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from ..arrays import Array, as_tensor
from ..data.images import Images, check_skipped
from ..errors import ConfigError, DataError, first_few
from ..features.features import Features
from ..features.writer import FeatureWriter
from ..files import read_json
from ..locks import locked
from ..progress import shares
from .encoder import Encoder

AHEAD = 2  # batches decoded while one is encoded
PIECE = 16  # images that a thread decodes before it takes the next


class Decoded(NamedTuple):
    """The rows that can be read, their pictures as the encoder wants them, and (id, reason) of the others."""

    rows: list[int]
    pictures: list[Any]
    skipped: list[tuple[str, str]]


class Encoded(NamedTuple):
    """The rows of a shard that can be read, (b, d) vectors of each batch of them, and (id, reason) of the others."""

    rows: list[int]
    vectors: list[Float[np.ndarray, "b d"]]
    skipped: list[tuple[str, str]]


def extract(
    encoder: Encoder,
    images: Images,
    out: Path,
    *,
    batch_size: int = 256,
    shard_rows: int = 16384,
    dtype: str = "float32",
    tolerance: float = 0.001,
    threads: int | None = None,
    inputs: Mapping[str, Any] | None = None,
) -> Features:
    """Features of all images on disk; run again after an interruption, it goes on at the first missing shard.

    An image that cannot be read is left out, recorded in `skipped.json` with the reason, and counted.

    Args:
        threads: that decode; by default one a core, and at least 4.
        inputs: what else must be the same where an interrupted extraction is resumed, such as a `checksum` of the images.

    Raises:
        ConfigError: batch_size or tolerance out of range.
        DataError: more than `tolerance` of the images are unreadable, the model returned something else than vectors, or
            another process writes `out`.
        FormatError: `out` holds another extraction.
    """
    with locked(out):
        return extract_locked(
            encoder,
            images,
            out,
            batch_size=batch_size,
            shard_rows=shard_rows,
            dtype=dtype,
            tolerance=tolerance,
            threads=threads,
            inputs=inputs,
        )


def checksum(images: Images) -> str:
    """What tells one choice of images from another: of their ids and labels, in their order.

    Args:
        images: n of them.

    Returns:
        "blake2b:" and 16 hex digits.
    """
    digest = blake2b("\n".join(map(str, images.ids.tolist())).encode(), digest_size=8)
    digest.update(images.labels.tobytes())
    return f"blake2b:{digest.hexdigest()}"


def extract_locked(
    encoder: Encoder,
    images: Images,
    out: Path,
    *,
    batch_size: int,
    shard_rows: int,
    dtype: str,
    tolerance: float,
    threads: int | None = None,
    inputs: Mapping[str, Any] | None = None,
) -> Features:
    """`extract` for a caller that holds the lock of `out` already, and may have let others write shards there."""
    if batch_size < 1 or not 0 <= tolerance <= 1:
        raise ConfigError(
            f"batch_size must be at least 1, tolerance a share in [0, 1]; got batch_size {batch_size}, tolerance {tolerance}"
        )
    origin: dict[str, Any] = {"space": encoder.space, "source": images.source, "ids_from": images.ids_from}
    writer = FeatureWriter(out, rows=len(images), shard_rows=shard_rows, dtype=dtype, inputs=inputs, **origin)
    missing, lost = writer.missing(), 0
    show = shares(f"embedding {len(images)} images")
    with ThreadPoolExecutor(threads or max(4, os.cpu_count() or 1)) as pool, ThreadPoolExecutor(1) as disk:
        written: Future[None] = disk.submit(lambda: None)
        shards = encode_shards(encoder, images, map(writer.planned, missing), batch_size, pool)
        for number, (shard, encoded) in enumerate(zip(missing, shards, strict=True), 1):
            lost += len(encoded.skipped)
            if encoded.skipped:
                check_skipped(lost, len(images), tolerance, encoded.skipped[0][1])
            written.result()  # one shard at a time is written while the next is encoded
            written = disk.submit(write_shard, writer, shard, images, encoded)
            show(number / len(missing))
        written.result()
    features = writer.finish()
    if len(features) < len(images):  # counts what an interrupted run had skipped before
        check_skipped(len(images) - len(features), len(images), tolerance, read_json(out / "skipped.json")[0][1])
    return features


def encode_shards(
    encoder: Encoder, images: Images, shards: Iterable[range], batch_size: int, pool: ThreadPoolExecutor
) -> Iterator[Encoded]:
    """The features of each shard's rows. The pool decodes the following batches meanwhile, also those of the next shard.

    Raises:
        DataError: the vectors are not finite, or not of one dimension.
    """
    plan = [[rows[first : first + batch_size] for first in range(0, len(rows), batch_size)] for rows in shards]
    decoded = _decode(encoder, images, chain.from_iterable(plan), pool)
    for batches in plan:
        done, coming = Encoded([], [], []), deque[tuple[list[int], Array]]()
        for left in reversed(range(len(batches))):
            rows, pictures, skipped = next(decoded)
            done.skipped.extend(skipped)
            if pictures:
                coming.append((rows, encoder.forward(pictures)))
            while len(coming) > (1 if left else 0):  # a GPU is given the next batch before the last one is waited for
                rows, vectors = coming.popleft()
                done.rows.extend(rows)
                done.vectors.append(as_tensor(vectors).cpu().numpy())
                _check(done, images, encoder.space)
        yield done


def write_shard(writer: FeatureWriter, shard: int, images: Images, encoded: Encoded) -> None:
    """Store the features of a shard."""
    vectors = np.concatenate(encoded.vectors or [np.empty((0, 0), np.float32)])
    writer.write(shard, vectors, images.labels[encoded.rows], images.ids[encoded.rows], skipped=encoded.skipped)


def _decode(encoder: Encoder, images: Images, batches: Iterable[range], pool: ThreadPoolExecutor) -> Iterator[Decoded]:
    """Every batch, prepared by the pool, which is `AHEAD` batches before the one that is used."""
    started = deque[list[Future[Decoded]]]()
    for rows in batches:
        pieces = [rows[first : first + PIECE] for first in range(0, len(rows), PIECE)]
        started.append([pool.submit(_read, encoder, images, piece) for piece in pieces])
        if len(started) > AHEAD:
            yield _joined(started.popleft())
    while started:
        yield _joined(started.popleft())


def _joined(pieces: list[Future[Decoded]]) -> Decoded:
    columns = zip(*(piece.result() for piece in pieces), strict=True)
    return Decoded(*(list(chain.from_iterable(column)) for column in columns))


def _read(encoder: Encoder, images: Images, rows: range) -> Decoded:
    read = Decoded([], [], [])
    for row in rows:
        try:
            read.pictures.append(encoder.prepare(images.picture(row)))
            read.rows.append(row)
        except DataError as error:
            read.skipped.append((str(images.ids[row]), str(error)))
    return read


def _check(done: Encoded, images: Images, space: str) -> None:
    """Raise DataError if the last vectors are not finite, or not of the dimension of the first."""
    vectors = done.vectors[-1]
    dimension, rows = done.vectors[0].shape[1], done.rows[-len(vectors) :]
    if vectors.shape[1] != dimension:
        raise DataError(f"{space} gave vectors of {dimension} and then of {vectors.shape[1]} dimensions; it must give one kind")
    bad = images.ids[np.array(rows)[~np.isfinite(vectors).all(axis=1)]]
    if len(bad):
        raise DataError(
            f"{space} gave NaN or infinity for {len(bad)} of {len(rows)} images (first: {first_few(bad)}); "
            "check the model on them"
        )
