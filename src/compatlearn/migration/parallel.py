"""Translate on a Ray cluster: every part of the index by a worker that opens the store itself."""

from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

from ..adapters.adapter import Adapter
from ..adapters.task import Tell, silent
from ..cluster.workers import capacity, each, get, put
from ..errors import ConfigError, DataError
from ..indexes.open import open_index
from ..indexes.parts import Divisible, Part
from ..indexes.second import Second, Upgradable
from .pace import Pace
from .translate import PASSES, Translated, check, opened, translate_rows

TASKS = 4  # for each worker, so that a slow one does not keep the others waiting
ROWS = 100_000  # of a part; LanceDB reads its table once for each
MOST = 10_000  # parts
LEAST = 1_000  # rows of a part
ATTEMPTS = 5  # at a part that ends its process


@dataclass(frozen=True)
class Job:
    """What every worker needs; it travels through Ray's memory, in no message and no log.

    Attributes:
        address: of the index, as `open_index` takes it; it may hold a password.
        metric: what ranks.
        name: of the second vector.
        adapter: the map.
        said: its mark.
        batch: rows that are read and written together; None: as the store likes it.
        rate: most rows per second of one worker.
    """

    address: str = field(repr=False)
    metric: str
    name: str
    adapter: Adapter
    said: str
    batch: int | None
    rate: float | None


def translate(
    index: Upgradable,
    address: str,
    adapter: Adapter,
    name: str,
    *,
    space: str = "",
    batch: int | None = None,
    rate: float | None = None,
    tell: Tell = silent,
) -> Translated:
    """`translate.translate` by the workers of a Ray cluster, a part of the rows a task; what is written is the same.

    The part of a worker that dies is repeated by another, which writes only what is not stamped; the rows that the dead one
    wrote count as kept.

    Args:
        index: whose vectors are translated.
        address: where each worker opens it.
        adapter: a map with direction "gallery", old to new.
        name: of the second vector; it is made if it is not there.
        space: the new model, where the adapter does not say it.
        batch: rows that are read and written together; None: as the store likes it.
        rate: most rows per second of all workers together.
        tell: takes lines of progress.

    Returns:
        What was done.

    Raises:
        ConfigError: as `translate.translate`, or a store that only one process can write.
        DataError: as `translate.translate`, or Ray has given up.
        IncompatibleError: as `translate.translate`.
    """
    second, said = opened(index, adapter, name, space)
    if not isinstance(second, Divisible):
        raise ConfigError(f"{second!r} can be written by one process only; translate without Ray (--engine local)")
    size, rows = capacity(gpu=False)[0], len(index)
    count = max(1, min(max(TASKS * size, rows // ROWS), rows // max(LEAST, batch or 0), MOST))
    job = put(Job(address, index.metric, name, adapter, said, batch, None if rate is None else rate / min(size, count)))
    pace, written, kept, left = Pace(rows, "translated", None, tell), 0, 0, 0
    for _ in range(PASSES):
        kept = left = done = 0
        tasks = [(part,) for part in second.parts(count)]
        for wrote, had, missed in each(partial(_translate_part, job), tasks, "parts", gpu=False, attempts=ATTEMPTS):
            done, kept, left = done + wrote, kept + had, left + missed
            pace.went(wrote)
        written += done
        left = max(left, second.counts().get("", 0))
        if not left:
            break
    return Translated(written, max(0, kept - (written - done)), left, pace.seconds, check(second, adapter, said))


# what runs in the workers


def _translate_part(job: Any, part: Part) -> tuple[int, int, int]:
    """As `translate_rows`, of a part."""
    known, second = _job(job)
    blocks = second.blocks(part=part) if known.batch is None else second.blocks(known.batch, part=part)
    return translate_rows(second, known.adapter, known.said, blocks, Pace(0, "translated", known.rate, silent))


@lru_cache(maxsize=1)
def _job(job: Any) -> tuple[Job, Divisible]:
    known: Job = get(job)
    second: Second | None = open_index(known.address, metric=known.metric).second(known.name)
    if not isinstance(second, Divisible):
        raise DataError(f"{known.name} is gone; was the second vector dropped?")
    return known, second
