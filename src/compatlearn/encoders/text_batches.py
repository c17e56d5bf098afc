"""Texts through a model, batch by batch: within its limits, several at a time, every answer checked."""

import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from itertools import islice

import numpy as np
from jaxtyping import Float

from ..data.texts import Texts
from ..errors import DataError, first_few
from .text_encoder import AnswerError, TextEncoder

Keep = Callable[[list[int], np.ndarray], None]  # rows of a batch, and their (b, d) vectors


def encode_batches(
    encoder: TextEncoder, texts: Texts, batches: Iterable[list[int]], keep: Keep, show: Callable[[int], None]
) -> None:
    """Embed some of the texts, `encoder.concurrency` batches at a time; each checked batch is kept as soon as it is there.

    After a failure, or Ctrl-C where each text is paid for, no further batch is begun, and those under way are kept.

    Args:
        encoder: the model.
        texts: the texts, and the ids for messages.
        batches: rows of them.
        keep: called with the rows and vectors of a batch, from several threads.
        show: called with the number of texts of each batch that is done.

    Raises:
        DataError: the model failed, or answered with something else than one finite vector of one dimension for each text.
    """
    widths, guard = list[int](), threading.Lock()

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

    if encoder.concurrency == 1 and not encoder.paid:  # here, so that Ctrl-C ends it at once
        for batch in batches:
            show(work(batch))
        return
    with closing(_in_threads(work, iter(batches), encoder.concurrency)) as counts:
        for count in counts:
            show(count)


def in_batches(encoder: TextEncoder, texts: Texts, rows: Sequence[int]) -> Iterator[list[int]]:
    """Rows in batches that keep within the encoder's limits.

    Args:
        encoder: the model.
        texts: the texts.
        rows: which of them.

    Yields:
        Rows of a batch, in their order; a text that is over the limit of characters stands alone.
    """
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


def _in_threads(work: Callable[[list[int]], int], batches: Iterator[list[int]], concurrency: int) -> Generator[int]:
    """What `work` returns for each batch, as they finish; however it ends, what is under way is waited for."""
    under_way: set[Future[int]] = set()
    with ThreadPoolExecutor(concurrency) as pool:
        while True:
            under_way |= {pool.submit(work, batch) for batch in islice(batches, concurrency - len(under_way))}
            if not under_way:
                return
            finished, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in finished)


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
