"""What a rung costs: runs of the new model, bytes written, time added to a query."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from ..adapters.adapter import Adapter
from ..adapters.methods import GALLERY, QUERY
from ..indexes.csls import reranked
from ..indexes.hits import Hits
from .case import Case
from .given import Given
from .maps import NEW_HEAD, OLD_HEAD
from .rungs import CANDIDATES, Rung

FLOAT = 4  # bytes of a number in an index
TIMED = 20  # queries that are mapped one at a time
RANKED = "mapped+csls"  # the rung that keeps one number per item


@dataclass(frozen=True)
class Cost:
    """What a rung costs.

    Attributes:
        encoder_items: items of the gallery that the new model embeds; the pairs, which are paid for, are not counted.
        bytes_written: to the index or beside it, of float32 vectors or numbers.
        query_microseconds: that its maps and CSLS add to one query, measured here, without the search itself and the models.
    """

    encoder_items: int
    bytes_written: int
    query_microseconds: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def cost_of(
    rung: Rung,
    case: Case,
    found: Int[np.ndarray, "q k"] | None,
    given: Given,
    budget: float,
    times: dict[str, float],
) -> Cost:
    """The cost of a rung on a whole gallery.

    Args:
        rung: the rung.
        case: what it was measured on.
        found: (q, k) the items that a cascade embedded for each query, -1 for none; None for another rung.
        given: the whole gallery, and how much of it is embedded already.
        budget: share that `partial` embeds of the items that are not embedded yet.
        times: microseconds of a map for one query, by name.
    """
    items, paid = given.items, given.paid
    backfill = items - paid
    embedded = {"backfill": backfill, "backfill+head": backfill, "partial": round(budget * backfill)}
    count = embedded.get(rung.name, 0)
    if found is not None:
        count = len(np.unique(found[found >= 0]))
    written = dict.fromkeys(("translated", "translated+fused", "partial", "backfill", "backfill+head"), items)
    written["cascade"] = count
    numbers = items if rung.name == RANKED else 0  # hubness, of each item
    spent = {
        "old+head": OLD_HEAD,
        "mapped": QUERY,
        RANKED: QUERY,
        "fused": QUERY,
        "cascade": QUERY,
        "translated+fused": GALLERY,
    }
    spent |= {"backfill+head": NEW_HEAD} | ({} if case.old is None else {"partial": GALLERY})  # it joins both spaces too
    micro = times.get(spent.get(rung.name, ""), 0.0) + (reranking_microseconds() if numbers else 0.0)
    return Cost(count, (written.get(rung.name, 0) * case.new.shape[1] + numbers) * FLOAT, round(micro, 1))


def reranking_microseconds() -> float:
    """Median time of ranking the first hits of one query by CSLS."""
    scores = np.linspace(1, 0, CANDIDATES, dtype=np.float32)[None]
    hits, away = Hits(np.arange(CANDIDATES)[None], 1 - scores, scores), np.zeros(CANDIDATES, dtype=np.float32)
    return _median(lambda: reranked(hits, away), TIMED)


def microseconds(adapter: Adapter, queries: np.ndarray) -> float:
    """Median time of mapping one query."""
    rows = iter(range(len(queries)))

    def one() -> None:
        row = next(rows)
        adapter.transform(queries[row : row + 1])

    return _median(one, min(TIMED, len(queries)))


def _median(one: Callable[[], Any], times: int) -> float:
    """Microseconds of the median call."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        one()
        taken.append(time.perf_counter() - started)
    return round(1e6 * float(np.median(taken)), 1)
