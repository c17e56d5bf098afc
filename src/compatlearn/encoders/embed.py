"""Model + texts → features: in memory, or on disk in a way that loses no batch when it is interrupted."""

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from hashlib import blake2b
from pathlib import Path

import numpy as np
from jaxtyping import Float

from ..data.texts import Texts
from ..errors import DataError, first_few
from ..features.features import Features
from ..features.folder import SHARDS
from ..features.writer import FeatureWriter
from ..locks import locked
from ..progress import shares
from .journal import Journal, key_of
from .text_encoder import AnswerError, TextEncoder

JOURNAL = "journal"  # in the folder of shards: it goes with them when the features are whole

Keep = Callable[[list[int], np.ndarray], None]  # rows of a batch, and their (b, d) vectors


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
        encode_rows(encoder, texts, rows, keep)
    finally:
        _say(encoder.receipt())
    vectors = np.stack(found)[[place[key] for key in keys]]
    known = {"ids_from": texts.ids_from, "classes": texts.classes}
    return Features(vectors, texts.labels, texts.ids, encoder.space, texts.source, **known)


def extract_texts(
    encoder: TextEncoder, texts: Texts, out: Path, *, shard_rows: int = 16384, dtype: str = "float32"
) -> Features:
    """Features of texts on disk. Run again after an interruption, it goes on after the last batch that was answered: of a
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


def encode_rows(
    encoder: TextEncoder, texts: Texts, rows: Sequence[int], keep: Keep, show: Callable[[float], None] | None = None
) -> None:
    """Embed some of the texts, `encoder.concurrency` batches at a time; each checked batch is kept as soon as it is there.

    After a failure no further batch is begun, and those under way are waited for and kept.

    Args:
        encoder: the model.
        texts: the texts, and the ids for messages.
        rows: which of them.
        keep: called with the rows and vectors of a batch, from several threads.
        show: called with the share that is done.

    Raises:
        DataError: the model failed, or answered with something else than one finite vector of one dimension for each text.
    """
    show = show or shares(f"embedding {len(rows)} texts")
    widths, guard, done = list[int](), threading.Lock(), 0

    def work(batch: list[int]) -> int:
        vectors = _answer(encoder, texts, batch)
        with guard:
            widths.append(vectors.shape[1])
        if vectors.shape[1] != widths[0]:
            raise DataError(
                f"{encoder.space} gave vectors of {widths[0]} dimensions and then of {vectors.shape[1]} "
                f"(first: id {texts.ids[batch[0]].item()!r}); it must give one kind"
            )
        keep(batch, vectors)
        return len(batch)

    for count in _run(work, _batches(encoder, texts, rows), encoder.concurrency):
        done += count
        show(done / len(rows))


def _run(work: Callable[[list[int]], int], batches: Iterator[list[int]], concurrency: int) -> Iterator[int]:
    """What `work` returns for each batch, as they finish."""
    if concurrency == 1:  # here, so that Ctrl-C ends it
        yield from map(work, batches)
        return
    under_way: set[Future[int]] = set()
    with ThreadPoolExecutor(concurrency) as pool:
        for batch in batches:
            under_way.add(pool.submit(work, batch))
            if len(under_way) == concurrency:
                finished, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in finished)
        while under_way:
            finished, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in finished)


def _batches(encoder: TextEncoder, texts: Texts, rows: Sequence[int]) -> Iterator[list[int]]:
    """Rows in batches that keep within the encoder's limits; a text that is over the limit of characters stands alone."""
    batch, characters = list[int](), 0
    for row in rows:
        length = len(texts.texts[row])
        if batch and (len(batch) == encoder.batch_size or characters + length > encoder.batch_characters):
            yield batch
            batch, characters = [], 0
        batch.append(row)
        characters += length
    if batch:
        yield batch


def _answer(encoder: TextEncoder, texts: Texts, batch: list[int]) -> Float[np.ndarray, "b d"]:
    """The vectors of a batch, checked; an error names the ids."""
    ids = texts.ids[batch]
    try:
        vectors = np.asarray(encoder.forward([texts.texts[row] for row in batch]))
    except AnswerError as error:
        wrong = ids[error.places] if error.places else ids
        raise DataError(f"{encoder.space} {error} ({_named(wrong, len(ids))})") from error
    if vectors.ndim != 2 or len(vectors) != len(batch) or not vectors.shape[1]:
        raise DataError(f"{encoder.space} gave {vectors.shape} for {len(batch)} texts ({_named(ids, len(ids))}); one row each")
    if not np.isfinite(vectors).all():
        wrong = ids[~np.isfinite(vectors).all(axis=1)]
        raise DataError(f"{encoder.space} gave NaN or infinity ({_named(wrong, len(ids))}); check the model on these texts")
    return vectors


def _named(ids: np.ndarray, total: int) -> str:
    return f"{len(ids)} of {total} texts of a batch, first: {first_few(map(repr, ids.tolist()))}"


def _say(line: str) -> None:
    if line:
        print(line, file=sys.stderr)


def _fill(encoder: TextEncoder, texts: Texts, writer: FeatureWriter, missing: list[int], journal: Journal) -> None:
    """Embed and write the missing shards; the journal keeps what a later one needs again."""
    keys = [key_of(text) for text in texts.texts]
    last = {keys[row]: shard for shard in missing for row in writer.planned(shard)}
    first = {keys[row]: row for shard in reversed(missing) for row in reversed(writer.planned(shard))}
    wanted = [row for shard in missing for row in writer.planned(shard) if first[keys[row]] == row and keys[row] not in journal]
    if wanted:
        _say(encoder.notice([texts.texts[row] for row in wanted]))
    place, show = 0, shares(f"embedding {len(wanted)} texts")
    try:
        for shard in missing:
            planned = writer.planned(shard)
            rows = [row for row in planned if first[keys[row]] == row and keys[row] not in journal]
            done = place

            def keep(batch: list[int], vectors: np.ndarray) -> None:
                journal.add([keys[row] for row in batch], vectors)

            encode_rows(
                encoder, texts, rows, keep, lambda share, done=done, count=len(rows): show((done + share * count) / len(wanted))
            )
            place += len(rows)
            labels = None if texts.labels is None else texts.labels[planned]
            writer.write(shard, journal.vectors(keys[row] for row in planned), labels, texts.ids[planned])
            journal.shrink({key for key, end in last.items() if end > shard})
    finally:
        _say(encoder.receipt())
