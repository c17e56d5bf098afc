"""A case measured: maps for its queries, what every rung scores, and what it costs."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Int

from ..adapters.adapter import Adapter
from ..adapters.task import Tell, silent
from ..evaluation.metrics import negative_flips
from ..indexes.csls import NEIGHBOURS
from .advice import Measured
from .case import Case, Rows, directed
from .cost import cost_of
from .given import Given
from .maps import Maps, Methods, Pairs, apply_maps, fit_gallery, fit_heads, fit_maps, head_method
from .order import ORDERS, order_of
from .rungs import Rung
from .truth import Scores

LOGGED = 0.05  # of the pairs: fewer logged queries are not worth fitting the maps twice
ORDER = "density"  # of a partial backfill

REFITTED = 10_000  # pairs and re-embedded items that the map of a partial backfill is fitted to again, at most


@dataclass(frozen=True)
class Part:
    """Some queries, and maps that none of them was fitted to.

    Attributes:
        rows: (r,) numbers of the queries.
        maps: for these queries.
        pairs: that the maps were fitted to; None where the items themselves are the pairs.
        log: logged queries that the maps were fitted to as well.
        seed: of the fit.
    """

    rows: Int[np.ndarray, " r"]
    maps: Maps
    pairs: Pairs | None = None
    log: Pairs | None = None
    seed: int = 0

    def refitted(self, case: Case, first: Int[np.ndarray, " p"]) -> Maps:
        """The maps after some items were embedded anew: these are pairs now, and the gallery's map learns from them.

        Args:
            case: the items, with their true new vectors.
            first: (p,) the items that were embedded.
        """
        if self.pairs is None or case.fresh is None or not 0 < len(first) <= REFITTED - len(self.pairs):
            return self.maps
        pairs = replace(self.pairs, labels=None) + Pairs(case.fresh[first], case.items[first])
        gallery = fit_gallery(pairs, self.maps.methods, case.metric, self.seed, self.log)
        asked = None if case.old is None else directed(gallery.transform(case.old[self.rows]), case.metric)
        return replace(self.maps, translated=directed(gallery.transform(case.items), case.metric), asked=asked)


def maps_for(
    case: Case, pairs: Pairs, methods: Methods, seed: int, others: Rows | None, tell: Tell = silent
) -> tuple[list[Part], dict[str, Adapter]]:
    """Maps for the queries: one for all, or for each half one that was fitted to the other half as well.

    Args:
        case: queries and items.
        pairs: that are fitted, none of the queries or items.
        methods: of each direction.
        seed: of training, and of the halves.
        others: further items of the gallery, as for `fit`.
        tell: takes lines of progress.

    Returns:
        The parts, and the adapters of the last one.
    """
    heads = fit_heads(pairs, methods, seed)
    if case.old is None or len(case) < LOGGED * 2 * len(pairs):
        tell("fitting the maps")
        adapters = fit_maps(pairs, methods, case.metric, seed, others) | heads
        return [Part(case.rows, apply_maps(case, methods, adapters, pairs), pairs, None, seed)], adapters
    order = np.random.default_rng(seed).permutation(len(case))
    halves = [np.sort(half) for half in np.array_split(order, 2)]
    parts = []
    for number, (rows, rest) in enumerate((halves, halves[::-1]), 1):
        tell(f"fitting the maps, {number} of 2")
        log = Pairs(case.new[rest], case.old[rest])
        adapters = fit_maps(pairs, methods, case.metric, seed, others, log) | heads
        parts.append(Part(rows, apply_maps(case, methods, adapters, pairs, rest).of(rows), pairs, log, seed))
    return parts, adapters


def orders_of(case: Case, parts: list[Part], pairs: Pairs, crossing: Rows, seed: int) -> dict[str, list[np.ndarray]]:
    """For each order, the rows of the items for each part of the queries."""
    if case.fresh is None:
        return {ORDER: [np.zeros(0, dtype=np.int64)] * len(parts)}
    found: dict[str, list[np.ndarray]] = {name: [] for name in ORDERS}
    for part in parts:
        rest = np.setdiff1d(case.rows, part.rows)
        log = case.new[rest] if len(rest) else pairs.new
        for name, orders in found.items():
            same = orders[:1] if name != "density" else []  # the others know neither the part's maps nor its log
            orders += same or [order_of(name, case, part.maps.translated, pairs, crossing, log, seed)]
    return found


@dataclass(frozen=True)
class Scored:
    """What every query scored on a rung, whether its first hit was right, and what it found."""

    scores: Scores
    right: np.ndarray
    found: np.ndarray


def score(rung: Rung, case: Case, parts: list[Part], order: list[np.ndarray], budget: float) -> Scored:
    found: np.ndarray | None = None
    for part, items in zip(parts, order, strict=True):
        first = items[: round(budget * len(items))]
        maps = part.refitted(case, first) if rung.name == "partial" else part.maps
        hits = rung.search(case, maps, part.rows, first)
        found = np.full((len(case), hits.shape[1]), -1) if found is None else found
        found[part.rows] = hits
    assert found is not None
    return Scored(case.truth.scores(case.rows, found), case.truth.first_right(case.rows, found), found)


def reason_of(rung: Rung, case: Case, labelled: bool) -> str:
    if rung.labels and not labelled:
        return "needs the labels of the pairs"
    if rung.old_queries and case.old is None:
        return "needs the queries by the old model as well"
    if rung.fresh and case.fresh is None:
        return "needs the new vectors of all items that are searched to be measured; give them as backfill"
    return ""


def measured(
    rung: Rung,
    case: Case,
    scored: dict[str, Scored],
    methods: Methods,
    given: Given,
    budget: float,
    times: dict[str, float],
    seed: int,
) -> Measured:
    method, reason = method_of(rung.name, methods), reason_of(rung, case, given.pairs.labels is not None)
    mine, old, full = (scored.get(name) for name in (rung.name, "old", "backfill"))
    found = None if mine is None or rung.name != "cascade" else mine.found
    cost = cost_of(rung, case, found, given, budget, times)
    if mine is None:
        return Measured(rung.name, method, {}, None, None, None, cost, rung.needs, reason)
    figures = {name: case.mean(column, seed) for name, column in mine.scores.items()}
    primary = case.truth.primary
    gain = flips = share = None
    if old is not None:
        gain = case.mean(mine.scores[primary] - old.scores[primary], seed)
        flips = case.mean(negative_flips(old.right, mine.right), seed)
        possible = None if full is None else case.mean(full.scores[primary] - old.scores[primary], seed)
        if possible is not None and possible.low > 0:  # a share of a gain that may be none says nothing
            share = gain.value / possible.value
    return Measured(rung.name, method, figures, gain, share, flips, cost, rung.needs)


def method_of(rung: str, methods: Methods) -> str:
    """What a rung runs, in words."""
    share, weight = methods.join
    return {
        "old+head": head_method(methods),
        "mapped": methods.query,
        "fused": f"{methods.query}, weight {methods.fuse:g}",
        "mapped+csls": f"{methods.query}, CSLS of {NEIGHBOURS}",
        "translated": methods.gallery,
        "translated+fused": f"{methods.gallery}, weights {share:g} and {weight:g}",
        "cascade": f"of fused ({methods.query})",
        "partial": f"{methods.gallery}, order by {ORDER} of queries",
        "backfill+head": head_method(methods),
    }.get(rung, "")


def examples_of(case: Case, scored: dict[str, Scored], name: str) -> tuple[dict[str, Any], ...]:
    """Some queries that the recommended rung answers otherwise, with their first five items before and after."""
    if "old" not in scored or name not in scored or name == "old":
        return ()
    before, after = scored["old"], scored[name]
    changed = [("gained", ~before.right & after.right), ("lost", before.right & ~after.right)]
    rows = [(kind, row) for kind, mask in changed for row in np.flatnonzero(mask)[:4].tolist()]
    return tuple(
        {
            "query": case.query_ids[row].item(),
            "change": kind,
            "before": _named(case, before.found[row, :5]),
            "after": _named(case, after.found[row, :5]),
        }
        for kind, row in rows
    )


def _named(case: Case, found: Int[np.ndarray, " k"]) -> list[Any]:
    """Ids of the items that were found."""
    names: list[Any] = case.item_ids[found[found >= 0]].tolist()
    return names
