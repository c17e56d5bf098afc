"""What a rung costs: runs of the new model, bytes written, time added to a query."""

import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..adapters.adapter import Adapter
from .case import Case
from .maps import Maps
from .rungs import Rung, proposed

FLOAT = 4  # bytes of a number in an index
TIMED = 20  # queries that are mapped one at a time


@dataclass(frozen=True)
class Cost:
    """What a rung costs.

    Attributes:
        encoder_items: items of the gallery that the new model embeds; the pairs, which are paid for, are not counted.
        bytes_written: to the index, of float32 vectors.
        query_microseconds: that its maps add to one query, measured here; the search itself and the models are not in it.
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
    parts: list[tuple[np.ndarray, Maps]] | None,
    items: int,
    pairs: int,
    budget: float,
    times: dict[str, float],
) -> Cost:
    """The cost of a rung on a whole gallery.

    Args:
        rung: the rung.
        case: what it was measured on.
        parts: queries with the maps for them; None where there are none.
        items: of the whole gallery.
        pairs: that are embedded already.
        budget: share of the gallery that `partial` embeds.
        times: microseconds of a map for one query, by direction.
    """
    width = case.new.shape[1]
    vector = width * FLOAT
    embedded = {"backfill": items - pairs, "partial": max(0, round(budget * items) - pairs)}.get(rung.name, 0)
    if rung.name == "cascade" and parts is not None:
        items_embedded = np.unique(np.concatenate([proposed(case, maps, rows).ravel() for rows, maps in parts]))
        embedded = int((items_embedded >= 0).sum())  # -1: a query found fewer
    written = {"translated": items, "translated+fused": items, "partial": items, "backfill": items, "cascade": embedded}
    spent = {"mapped": ("query",), "fused": ("query",), "cascade": ("query",), "translated+fused": ("gallery",)}
    if case.old is not None:
        spent["partial"] = ("gallery",)  # it joins both spaces as well
    micro = sum((times.get(direction, 0.0) for direction in spent.get(rung.name, ())), start=0.0)
    return Cost(embedded, written.get(rung.name, 0) * vector, micro)


def microseconds(adapter: Adapter, queries: np.ndarray) -> float:
    """Median time of mapping one query."""
    taken = []
    for row in range(min(TIMED, len(queries))):
        started = time.perf_counter()
        adapter.transform(queries[row : row + 1])
        taken.append(time.perf_counter() - started)
    return round(1e6 * float(np.median(taken)), 1)
