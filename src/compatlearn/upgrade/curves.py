"""How quality grows: with the number of pairs, and with the share of the gallery that is embedded anew."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..evaluation.figures import Figure
from .case import Case, directed
from .maps import Methods, Pairs, fit_gallery
from .measure import Part
from .rungs import ask_partial
from .sample import sample_items
from .truth import AGREEING

SHARES = (0.0, 0.1, 0.2, 0.5, 1.0)  # of the gallery, embedded anew
PARTS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)  # of the pairs
FEWEST = 20  # pairs that a point of the curve needs
ITEMS, QUERIES = 10_000, 500  # that a curve of pairs is measured on, at most
CLOSE = 0.01  # of what all pairs reach: from there on more pairs are not worth much


@dataclass(frozen=True)
class Curve:
    """Figures along a scale.

    Attributes:
        at: numbers of pairs, or shares of the gallery.
        figures: the primary figure at each.
        bend: where more stops paying; None where it has not been reached.
    """

    at: tuple[float, ...]
    figures: tuple[Figure, ...]
    bend: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"at": list(self.at), "figures": [figure.to_dict() for figure in self.figures], "bend": self.bend}


def learning_curve(case: Case, pairs: Pairs, methods: Methods, seed: int) -> Curve:
    """The translated gallery with a sixteenth of the pairs, an eighth, …, all of them.

    Args:
        case: queries and items; of many, parts that hold what answers the queries.
        pairs: that maps are fitted to.
        methods: the method of the gallery.
        seed: of the draws.
    """
    random = np.random.default_rng(seed)
    drawn_items = random.permutation(len(case.items))
    rows = np.sort(random.permutation(len(case))[:QUERIES])
    items = sample_items(case.truth.answers(rows), drawn_items, ITEMS)
    order = random.permutation(len(pairs))
    places = np.full(len(case.items) + 1, -1)  # of every item among those drawn; the last is that of "none"
    places[items] = np.arange(len(items))
    drawn = replace(case, own=places[case.own], depth=AGREEING)
    sizes = [size for part in PARTS if (size := int(part * len(pairs))) >= FEWEST]
    if drawn.clusters is not None:
        drawn = replace(drawn, clusters=drawn.clusters[rows])
    figures = []
    for size in sizes:
        adapter = fit_gallery(pairs.take(np.sort(order[:size])), methods, case.metric, seed)
        translated = directed(adapter.transform(case.items[items]), case.metric)
        found = drawn.search(case.new[rows], translated, rows)
        scores = case.truth.scores(rows, np.where(found < 0, -1, items[found]))[case.truth.primary]
        figures.append(drawn.mean(scores, seed))
    enough = [size for size, figure in zip(sizes, figures, strict=True) if figure.value >= figures[-1].value - CLOSE]
    bend = float(enough[0]) if enough and enough[0] < sizes[-1] else None
    return Curve(tuple(map(float, sizes)), tuple(figures), bend)


def partial_curve(case: Case, parts: list[Part], orders: dict[str, list[np.ndarray]], seed: int) -> dict[str, Curve]:
    """The partial backfill by share, for each order.

    Args:
        case: queries and items with their true new vectors.
        parts: queries and the maps for them.
        orders: by name, the rows of the items for each part.
        seed: of the bootstrap.
    """
    case = replace(case, depth=AGREEING)

    def at(share: float, order: list[np.ndarray]) -> Figure:
        scores = np.zeros(len(case))
        for part, items in zip(parts, order, strict=True):
            first = items[: round(share * len(items))]
            maps = part.refitted(case, first) if share < 1 else part.maps  # of all items no translation is left
            scores[part.rows] = case.truth.scores(part.rows, ask_partial(case, maps, part.rows, first))[case.truth.primary]
        return case.mean(scores, seed)

    ends = {share: at(share, next(iter(orders.values()))) for share in (SHARES[0], SHARES[-1])}  # the same in any order
    return {
        name: Curve(SHARES, tuple(ends[share] if share in ends else at(share, order) for share in SHARES))
        for name, order in orders.items()
    }
