"""`plan`: every rung of the ladder measured on one's own data, side by side, and one of them recommended."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Int
from rich.table import Table

from ..adapters.adapter import Adapter
from ..adapters.task import Tell, silent
from ..arrays import Array
from ..evaluation.figures import Figure, bootstrap
from ..evaluation.relevance import Relevance
from ..features.features import Features
from ..indexes.index import Readable
from ..metric import Metric, check_metric
from .advice import GOAL, Measured, check_shares, recommend
from .case import Case, Rows
from .cost import Cost, cost_of, microseconds
from .curves import Curve, learning_curve, partial_curve
from .given import Given, check_queries, gather
from .maps import Maps, Methods, Pairs, apply_crossed, apply_maps, choose_methods, choose_weights, crossed, kept_out
from .order import Order, order_of
from .rungs import RUNGS, Rung, ask_fused, ask_joined
from .table import as_table, as_text
from .truth import Scores

OTHERS = 4000  # items that the methods may learn from
TRIED = 3000  # pairs that methods are tried on, at most
LOGGED = 0.05  # of the pairs: fewer logged queries are not worth fitting the maps twice
ORDER = "density"  # of a partial backfill

Vectors: TypeAlias = Features | Readable | Array


@dataclass(frozen=True)
class Plan:
    """Every rung, measured or with the reason why not, and the one to take; prints as a table.

    Attributes:
        rungs: cheapest first.
        recommended: name of the rung to take; "old": keep the old model.
        why: in one sentence.
        primary: the figure that gains are of.
        measured: in words, what was asked and searched.
        items: of the gallery.
        pairs: that the maps were fitted to.
        budget: share of the gallery that may be embedded anew.
        metric: what ranks.
        methods: that were chosen, with their weights.
        trials: of each direction, on pairs kept out.
        far: share of the new queries that lie farther from all pairs than 99 % of the pairs do from each other; None
            without queries.
        learning: the translated gallery by number of pairs.
        partial: the partial backfill by share and order.
        notes: what a reader should know.
        examples: some queries with what they found before and after.
        adapters: the fitted maps, by direction.
    """

    rungs: tuple[Measured, ...]
    recommended: str
    why: str
    primary: str
    measured: str
    items: int
    pairs: int
    budget: float
    metric: Metric
    methods: Methods
    trials: dict[str, Any]
    far: float | None
    learning: Curve
    partial: dict[str, Curve]
    notes: tuple[str, ...]
    examples: tuple[dict[str, Any], ...] = ()
    adapters: dict[str, Adapter] = field(default_factory=dict)

    def rung(self, name: str) -> Measured:
        """The rung of that name."""
        return next(rung for rung in self.rungs if rung.name == name)

    def __str__(self) -> str:
        return as_text(self.__rich__())

    def __rich__(self) -> Table:
        """Every rung, what it gains and what it costs."""
        return as_table(self.rungs, self.recommended, self.primary, [self.why, self.measured, *self.notes])

    def to_dict(self) -> dict[str, Any]:
        """For JSON: what `plan.json` holds."""
        return {
            "rungs": [rung.to_dict() for rung in self.rungs],
            "recommended": self.recommended,
            "why": self.why,
            "primary": self.primary,
            "measured": self.measured,
            "items": self.items,
            "pairs": self.pairs,
            "budget": self.budget,
            "metric": self.metric,
            "methods": vars(self.methods),
            "trials": self.trials,
            "far_queries": self.far,
            "learning_curve": self.learning.to_dict(),
            "partial_curve": {name: curve.to_dict() for name, curve in self.partial.items()},
            "notes": list(self.notes),
            "examples": list(self.examples),
        }


def plan(
    *,
    old_gallery: Vectors,
    pairs_new: Vectors,
    new_queries: Vectors | None = None,
    old_queries: Vectors | None = None,
    pairs_old: Vectors | None = None,
    relevance: Relevance | None = None,
    backfill: Vectors | None = None,
    metric: Metric = "cosine",
    budget: float = 0.1,
    goal: float = GOAL,
    seed: int = 0,
    tell: Tell = silent,
) -> Plan:
    """Measure every way to upgrade and recommend the cheapest good one.

    What is chosen (methods, weights) is chosen on pairs that are kept out, by agreement with the new model's own ranking;
    the reported queries take no part in it. Where old queries are given, one half of the queries serves, unlabelled, as
    further pairs for the maps that the other half is measured with.

    Args:
        old_gallery: the index: `Features`, something that can be scanned, or (n, d_old) vectors known by row number.
        pairs_new: new vectors of some of its items, by id; some thousands, drawn from the gallery at random.
        new_queries: (q, d_new) queries by the new model.
        old_queries: the same queries by the old model, by id.
        pairs_old: old vectors of the pairs, where the pairs are not in the gallery.
        relevance: what answers the queries, by their ids; None: what has the query's label, where both sides have labels.
            Without either the new model's own ranking is the truth: of the backfill, or among the pairs.
        backfill: new vectors of the gallery, if a trial has them: to measure what needs an encoder.
        metric: what ranks.
        budget: share of the gallery, in [0, 1], that may be embedded anew.
        goal: share of the best gain within the budget that is enough, in (0, 1].
        seed: of every draw.
        tell: takes lines of progress.

    Raises:
        DataError: too few pairs, unusable vectors, or judgements of other items.
        IncompatibleError: ids, dimensions or spaces that do not fit.
        ConfigError: a metric that does not exist, or a budget or goal that is no such share.

    >>> import numpy as np
    >>> import compatlearn as cl
    >>> random = np.random.default_rng(0)
    >>> labels = random.integers(0, 8, 500)
    >>> new = np.eye(8)[labels] + 0.2 * random.normal(size=(500, 8))
    >>> old = new[:, :4] + 0.3 * random.normal(size=(500, 4))
    >>> gallery, queries = cl.Features(old[:400], labels[:400]), cl.Features(new[400:], labels[400:])
    >>> found = cl.plan(old_gallery=gallery, pairs_new=new[:200], new_queries=queries, old_queries=old[400:])
    >>> found.rung("old").figures["top1"].value < found.rung("translated").figures["top1"].value
    True
    """
    metric = check_metric(metric)
    check_shares(budget, goal)
    sides = {
        name: None if one is None else as_features(one)
        for name, one in {"pairs_old": pairs_old, "new": new_queries, "old": old_queries, "backfill": backfill}.items()
    }
    gallery, fresh = as_features(old_gallery), as_features(pairs_new)
    check_queries(sides["new"], fresh)
    given = gather(gallery, fresh, sides["pairs_old"], sides["new"], sides["old"], relevance, sides["backfill"], metric, seed)
    return _plan(given, metric, budget, goal, seed, tell)


def as_features(vectors: Vectors) -> Features:
    """Features as they are; all of an index, in memory; arrays with their row numbers as ids."""
    if isinstance(vectors, Features):
        return vectors
    if isinstance(vectors, Readable):
        blocks = list(vectors.scan())
        labels = [block.labels for block in blocks]
        known: Any = None if any(one is None for one in labels) else np.concatenate(labels)  # type: ignore[arg-type]
        ids = np.concatenate([block.ids for block in blocks])
        return Features(np.concatenate([block.vectors for block in blocks]), known, ids, blocks[0].space, ids_from="the index")
    return Features(vectors)


def _plan(given: Given, metric: Metric, budget: float, goal: float, seed: int, tell: Tell) -> Plan:
    case, pairs, inside = given.case, given.pairs, None
    if case is None:
        tell("nothing says what answers a query: pairs kept out ask, and the new model's own ranking is the truth")
        case, inside = kept_out(pairs, metric, seed)
        case = replace(case, fresh=pairs.new)
    fitted = pairs if inside is None else pairs.take(inside)
    others = _others(case, seed) if inside is None else None
    methods, trials = _chosen(fitted, metric, seed, others, tell)
    tell("fitting the maps")
    if inside is None:
        parts, adapters = _measured_with(case, fitted, methods, seed, others)
        crossing = crossed(fitted, methods.gallery, metric, seed) if case.fresh is not None else fitted.new
    else:
        maps = apply_crossed(case, pairs, inside, methods, seed, others)
        parts, crossing = [(case.rows, maps)], maps.translated[inside]
        _, adapters = apply_maps(case, pairs, methods, seed, others)
    orders = _orders(case, parts, fitted, crossing, seed)
    tell("searching")
    times = {name: microseconds(adapter, case.new if name == "query" else case.items) for name, adapter in adapters.items()}
    scored = {rung.name: _scores(rung, case, parts, orders[ORDER], budget) for rung in RUNGS if not _reason(rung, case)}
    rungs = tuple(_measured(rung, case, parts, scored, methods, given, budget, times, seed) for rung in RUNGS)
    tell("curves")
    learning = learning_curve(case, fitted, methods, seed) if inside is None else Curve((), ())
    partial = partial_curve(case, parts, orders, seed) if case.fresh is not None else {}
    name, why = recommend(rungs, case.truth.primary, given.items, budget, goal)
    return Plan(
        rungs,
        name,
        why,
        case.truth.primary,
        case.what,
        given.items,
        len(pairs),
        budget,
        metric,
        methods,
        trials,
        far_queries(given.new_queries, pairs.new),
        learning,
        partial,
        given.notes,
        _examples(case, scored, name),
        adapters,
    )


def _others(case: Case, seed: int) -> Rows:
    rows = np.random.default_rng(seed).permutation(len(case.items))[:OTHERS]
    return case.items[np.sort(rows)]


def _chosen(pairs: Pairs, metric: Metric, seed: int, others: Rows | None, tell: Tell) -> tuple[Methods, dict[str, Any]]:
    """Methods and weights, chosen on pairs kept out."""
    if len(pairs) > TRIED:
        pairs = pairs.take(np.sort(np.random.default_rng(seed).permutation(len(pairs))[:TRIED]))
    methods, trials = choose_methods(pairs, metric, seed, others, tell)
    tell(f"chosen: {methods.query} for queries, {methods.gallery} for the gallery")
    trial, inside = kept_out(pairs, metric, seed + 1)
    maps = apply_crossed(trial, pairs, inside, methods, seed, others)

    def scoring(ask: Callable[..., Any]) -> Callable[[Case, Maps], Any]:
        return lambda case, maps: case.truth.scores(case.rows, ask(case, maps, case.rows, Order.none()))["agreement"]

    return choose_weights(trial, maps, scoring(ask_fused), scoring(ask_joined), seed), trials


Part: TypeAlias = tuple[Int[np.ndarray, " r"], Maps]  # some queries, and maps that none of them was fitted to


def _measured_with(
    case: Case, pairs: Pairs, methods: Methods, seed: int, others: Rows | None
) -> tuple[list[Part], dict[str, Adapter]]:
    """Maps for the queries: one for all, or for each half one that was fitted to the other half as well."""
    if case.old is None or len(case) < LOGGED * 2 * len(pairs):
        maps, adapters = apply_maps(case, pairs, methods, seed, others)
        return [(case.rows, maps)], adapters
    order = np.random.default_rng(seed).permutation(len(case))
    halves = [np.sort(half) for half in np.array_split(order, 2)]
    parts = []
    for rows, rest in (halves, halves[::-1]):
        log = Pairs(case.new[rest], case.old[rest])
        maps, adapters = apply_maps(case, pairs, methods, seed, others, log)
        parts.append((rows, maps.of(rows)))
    return parts, adapters


def _orders(case: Case, parts: list[Part], pairs: Pairs, crossing: Rows, seed: int) -> dict[str, list[np.ndarray]]:
    """For each order, the rows of the items for each part of the queries."""
    if case.fresh is None:
        return {ORDER: [np.zeros(0, dtype=np.int64)] * len(parts)}
    found: dict[str, list[np.ndarray]] = {}
    for name in ("random", "error", ORDER, "density×error"):
        for rows, maps in parts:
            rest = np.setdiff1d(case.rows, rows)
            log = case.new[rest] if len(rest) else pairs.new
            found.setdefault(name, []).append(order_of(name, case, maps.translated, pairs, crossing, log, seed))
    return found


@dataclass(frozen=True)
class Scored:
    """What every query scored on a rung, whether its first hit was right, and what it found."""

    scores: Scores
    right: np.ndarray
    found: np.ndarray


def _scores(rung: Rung, case: Case, parts: list[Part], order: list[np.ndarray], budget: float) -> Scored:
    found: np.ndarray | None = None
    for (rows, maps), items in zip(parts, order, strict=True):
        first = Order(ORDER, items[: round(budget * len(items))])
        hits = rung.search(case, maps, rows, first)
        found = np.full((len(case), hits.shape[1]), -1) if found is None else found
        found[rows] = hits
    assert found is not None
    return Scored(case.truth.scores(case.rows, found), case.truth.first_right(case.rows, found), found)


def _reason(rung: Rung, case: Case) -> str:
    if rung.old_queries and case.old is None:
        return "needs the queries by the old model as well"
    if rung.fresh and case.fresh is None:
        return "needs the new vectors of the gallery to be measured; give a backfill of some of it"
    return ""


def _measured(
    rung: Rung,
    case: Case,
    parts: list[Part],
    scored: dict[str, Scored],
    methods: Methods,
    given: Given,
    budget: float,
    times: dict[str, float],
    seed: int,
) -> Measured:
    method = method_of(rung.name, methods)
    if reason := _reason(rung, case):
        cost = Cost(0, 0, 0.0) if rung.fresh and rung.name == "cascade" else _cost(rung, case, None, given, budget, times)
        return Measured(rung.name, method, {}, None, None, None, cost, rung.needs, reason)
    mine, old, full = scored[rung.name], scored.get("old"), scored.get("backfill")
    figures = {name: _figure(column, seed) for name, column in mine.scores.items()}
    primary = case.truth.primary
    gain = flips = share = None
    if old is not None:
        gain = _figure(mine.scores[primary] - old.scores[primary], seed)
        flips = _figure((old.right & ~mine.right).astype(np.float64), seed)
        if full is not None and (possible := float((full.scores[primary] - old.scores[primary]).mean())) > 0:
            share = gain.value / possible
    cost = _cost(rung, case, parts, given, budget, times)
    return Measured(rung.name, method, figures, gain, share, flips, cost, rung.needs)


def _cost(rung: Rung, case: Case, parts: list[Part] | None, given: Given, budget: float, times: dict[str, float]) -> Cost:
    touched = None if parts is None else [(rows, maps) for rows, maps in parts]
    return cost_of(rung, case, touched, given.items, len(given.pairs), budget, times)


def method_of(rung: str, methods: Methods) -> str:
    """What a rung runs, in words."""
    share, weight = methods.join
    return {
        "mapped": methods.query,
        "fused": f"{methods.query}, weight {methods.fuse:g}",
        "translated": methods.gallery,
        "translated+fused": f"{methods.gallery}, weights {share:g} and {weight:g}",
        "cascade": f"of fused ({methods.query})",
        "partial": f"{methods.gallery}, order by {ORDER} of queries",
    }.get(rung, "")


def _figure(column: np.ndarray, seed: int) -> Figure:
    return bootstrap(lambda means: means[:, 0], column[:, None], seed=seed)


def far_queries(queries: Rows | None, pairs: Rows) -> float | None:
    """Share of the queries that lie farther from all pairs than 99 % of the pairs do from the other pairs.

    Args:
        queries: (q, d) new vectors, or None.
        pairs: (m, d) new vectors.
    """
    if queries is None:
        return None
    some = pairs[:TRIED]

    def nearest(rows: Rows, own: bool) -> np.ndarray:
        squares = np.square(rows).sum(axis=1)[:, None] + np.square(some).sum(axis=1) - 2 * rows @ some.T
        if own:
            np.fill_diagonal(squares, np.inf)
        return squares.min(axis=1)

    return float((nearest(queries, False) > np.quantile(nearest(some, True), 0.99)).mean())


def _examples(case: Case, scored: dict[str, Scored], name: str) -> tuple[dict[str, Any], ...]:
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
            "before": case.item_ids[before.found[row, :5]].tolist(),
            "after": case.item_ids[after.found[row, :5]].tolist(),
        }
        for kind, row in rows
    )
