"""Model + texts → features: in memory, or on disk in a way that loses no batch when it is interrupted."""

import sys
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

import numpy as np

from ..data.texts import Texts
from ..features.features import Features
from ..features.folder import SHARDS
from ..features.writer import FeatureWriter
from ..locks import locked
from ..progress import shares
from .journal import Journal, key_of
from .text_batches import encode_batches, in_batches
from .text_encoder import TextEncoder

JOURNAL = "journal"  # in the folder of shards: it goes with them when the features are whole


def embed_texts(encoder: TextEncoder, texts: Texts) -> Features:
    """Features of texts in memory; a text that comes twice is embedded once.

    Args:
        encoder: the model.
        texts: n of them.

    Returns:
        n features, in the order of the texts, with their ids and labels.

    Raises:
        DataError: the model failed, or answered with something else than one finite vector of one dimension for each text.
    """
    keys = [key_of(text) for text in texts.texts]
    first = {key: row for row, key in reversed(list(enumerate(keys)))}
    rows = sorted(first.values())
    place = {keys[row]: number for number, row in enumerate(rows)}
    found: list[np.ndarray] = [np.empty(0)] * len(rows)

    def keep(batch: list[int], vectors: np.ndarray) -> None:
        for row, vector in zip(batch, vectors, strict=True):
            found[place[keys[row]]] = vector

    _say(encoder.notice([texts.texts[row] for row in rows]))
    try:
        encode_batches(encoder, texts, in_batches(encoder, texts, rows), keep, _counted(len(rows)))
    finally:
        _say(encoder.receipt())
    vectors = np.stack(found)[[place[key] for key in keys]]
    origin = encoder.space, texts.source
    return Features(vectors, texts.labels, texts.ids, *origin, ids_from=texts.ids_from, classes=texts.classes)


def extract_texts(
    encoder: TextEncoder, texts: Texts, out: Path, *, shard_rows: int = 16384, dtype: str = "float32"
) -> Features:
    """Features of texts on disk. Run again after an interruption, it resumes after the last batch that was answered: of a
    process that is killed, only the requests that were under way are asked again. A text that comes twice is embedded once.

    Args:
        encoder: the model.
        texts: n of them.
        out: folder of the features.
        shard_rows: texts in a shard.
        dtype: of the vectors on disk: "float32", "float16" or "float64".

    Returns:
        n features, in the order of the texts, with their ids and labels.

    Raises:
        ConfigError: an unknown dtype.
        DataError: the model failed, or answered with something else than one finite vector of one dimension for each text;
            another process writes `out`; or the disk is full.
        FormatError: `out` holds another extraction: other texts, another model, another prompt.
    """
    with locked(out):
        writer = FeatureWriter(
            out,
            rows=len(texts),
            shard_rows=shard_rows,
            dtype=dtype,
            space=encoder.space,
            source=texts.source,
            ids_from=texts.ids_from,
            classes=texts.classes,
            inputs={"texts": checksum(texts), **encoder.options},
        )
        if missing := writer.missing():
            journal = Journal(out / SHARDS / JOURNAL)
            try:
                _fill(encoder, texts, writer, missing, journal)
            finally:
                journal.close()
        return writer.finish()


def checksum(texts: Texts) -> str:
    """What tells one set of texts from another: of texts, ids and labels, in their order.

    Args:
        texts: n of them.

    Returns:
        "blake2b:" and 16 hex digits.
    """
    digest = blake2b(digest_size=8)
    for key in map(key_of, texts.texts):
        digest.update(key)
    digest.update(repr(texts.ids.dtype.kind).encode() + "\n".join(map(str, texts.ids.tolist())).encode())
    digest.update(b"" if texts.labels is None else texts.labels.tobytes())
    return f"blake2b:{digest.hexdigest()}"


def _fill(encoder: TextEncoder, texts: Texts, writer: FeatureWriter, missing: list[int], journal: Journal) -> None:
    """Embed and write the missing shards; the journal keeps what a later one needs again."""
    keys = [key_of(text) for text in texts.texts]
    last = {keys[row]: shard for shard in missing for row in writer.planned(shard)}
    plan = _plan(encoder, texts, keys, writer, missing, journal)
    fresh = [row for batches in plan.values() for batch in batches for row in batch]

    def keep(batch: list[int], vectors: np.ndarray) -> None:
        journal.add([keys[row] for row in batch], vectors)

    if fresh:
        _say(encoder.notice([texts.texts[row] for row in fresh]))
    show = _counted(len(fresh))
    try:
        for shard, batches in plan.items():
            encode_batches(encoder, texts, batches, keep, show)
            planned = writer.planned(shard)
            labels = None if texts.labels is None else texts.labels[planned]
            writer.write(shard, journal.vectors(keys[row] for row in planned), labels, texts.ids[planned])
            journal.shrink(lambda key, shard=shard: last.get(key, -1) > shard)  # type: ignore[misc]
    finally:
        _say(encoder.receipt())


def _plan(
    encoder: TextEncoder, texts: Texts, keys: list[bytes], writer: FeatureWriter, missing: list[int], journal: Journal
) -> dict[int, list[list[int]]]:
    """Missing shard → the batches that it still needs: those of an extraction that was not interrupted, where possible.

    The same text in another batch may get a vector that differs in the last digit, so batches do not depend on what is done.
    """
    first = {key: row for row, key in reversed(list(enumerate(keys)))}
    plan, planned = dict[int, list[list[int]]](), set[bytes]()
    for shard in missing:
        rows = writer.planned(shard)
        batches = [*in_batches(encoder, texts, [row for row in rows if first[keys[row]] == row])]
        planned |= {keys[row] for batch in batches for row in batch}
        lost = {keys[row]: row for row in rows if keys[row] not in planned and keys[row] not in journal}
        batches += in_batches(encoder, texts, list(lost.values()))  # their first shard was written, and another one damaged
        planned |= set(lost)
        plan[shard] = [left for batch in batches if (left := [row for row in batch if keys[row] not in journal])]
    return plan


def _counted(total: int) -> Callable[[int], None]:
    """A function that takes how many more are done, and says now and then how far the work is."""
    show, done = shares(f"embedding {total} texts"), 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        show(done / total)

    return count


def _say(line: str) -> None:
    if line:
        print(line, file=sys.stderr)
