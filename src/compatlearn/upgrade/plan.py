"""`plan`: every rung of the ladder measured on one's own data, side by side, and one of them recommended."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ..adapters.adapter import Adapter
from ..adapters.matched import OTHERS
from ..adapters.methods import GALLERY, QUERY
from ..adapters.task import Tell, silent
from ..arrays import Array
from ..evaluation.profile import Profile
from ..evaluation.relevance import Relevance
from ..features.features import Features
from ..indexes.index import Readable
from ..metric import Cluster, Metric, check_cluster, check_metric
from .advice import GOAL, check_shares, recommend
from .case import Case, Rows, directed
from .choice import TRIED, Bench, choose
from .cost import microseconds
from .curves import Curve, learning_curve, partial_curve
from .fits import keeping
from .given import Given, gather, with_classes
from .live import Live, Target, ask_index, mixtures, questions
from .maps import NEW_HEAD, OLD_HEAD, Methods, crossed, fit_maps
from .measure import ORDER, Part, examples_of, maps_for, measured, orders_of, reason_of, score
from .part import joined, judged_ids, read_part, together
from .result import Plan
from .rungs import RUNGS
from .truth import DEPTH

Vectors: TypeAlias = Features | Readable | Array


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
    cluster: Cluster = "query",
    budget: float = 0.1,
    goal: float = GOAL,
    seed: int = 0,
    items: int | None = None,
    live: Any = None,
    keep: str | Path | None = None,
    tell: Tell = silent,
) -> Plan:
    """Measure every way to upgrade and recommend the cheapest good one.

    What is chosen (methods, weights) is chosen on pairs that are kept out, by agreement with the new model's own ranking;
    the reported queries take no part in it. Where old queries are given, one half of the queries serves, unlabelled, as
    further pairs for the maps that the other half is measured with.

    Args:
        old_gallery: the index: `Features`, something that can be scanned, or (n, d_old) vectors known by row number. Of a large
            index that is scanned no more is held than what is searched: the pairs, the judged items, and others at random.
        pairs_new: new vectors of some of its items, by id; some thousands, drawn from the gallery at random.
        new_queries: (q, d_new) queries by the new model.
        old_queries: the same queries by the old model, by id.
        pairs_old: old vectors of the pairs, where the pairs are not in the gallery.
        relevance: what answers the queries, by their ids; None: what has the query's label, where both sides have labels.
            Without either the new model's own ranking is the truth: of the backfill, or among the pairs.
        backfill: new vectors of the gallery, if a trial has them: to measure what needs an encoder.
        metric: what ranks.
        cluster: what the intervals draw: "query", or "class": all queries of a class together, which needs their labels.
        budget: share of the gallery, in [0, 1], that may be embedded anew.
        goal: share of the best gain within the budget that is enough, in (0, 1].
        seed: of every draw.
        items: how many the index has, where `old_gallery` is a part of it that was drawn at random; costs are of all.
        live: the index itself (`open_index`), which old, mapped and fused queries then ask too, by exact search and as it is.
        keep: a folder of its own, where fits are kept, so that the same call resumes if this one is interrupted; delete it
            afterwards. None: nothing is kept.
        tell: takes lines of progress.

    Raises:
        DataError: too few pairs, unusable vectors, judgements of other items, or another process that uses `keep`.
        IncompatibleError: ids, dimensions or spaces that do not fit.
        ConfigError: a metric or cluster that does not exist, or a budget or goal that is no such share.

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
    fresh, given_sides = as_features(pairs_new), (sides["pairs_old"], sides["new"], sides["old"], relevance, sides["backfill"])
    gallery = old_gallery
    if not isinstance(old_gallery, Features) and isinstance(old_gallery, Readable):
        asked = None if sides["new"] is None else sides["new"].ids
        part = read_part(old_gallery, together(fresh.ids, judged_ids(relevance, asked)), seed=seed)
        gallery, items = part.features, part.items
    gallery = as_features(gallery)
    given = gather(gallery, fresh, *given_sides, metric, seed, items)
    if check_cluster(cluster) == "class":
        given = with_classes(given, sides["new"])
    with keeping(None if keep is None else Path(keep), tell) as fits:
        target = None if live is None else Target(live, gallery, sides["new"], relevance)
        raw = None if sides["new"] is None else sides["new"].vectors
        own = replace(given, pairs=replace(given.pairs, fits=fits))
        found = _plan(own, raw, metric, budget, goal, seed, tell, target)
    for name, adapter in found.adapters.items():
        adapter.space_new = gallery.space if name == OLD_HEAD else fresh.space
        adapter.space_old = fresh.space if name == NEW_HEAD else gallery.space
    profile = None if found.profile is None else replace(found.profile, space=fresh.space)
    return replace(found, profile=profile)


def as_features(vectors: Vectors) -> Features:
    """Features as they are; all of an index, in memory; arrays with their row numbers as ids."""
    if isinstance(vectors, Features):
        return vectors
    if isinstance(vectors, Readable):
        return joined(list(vectors.scan()))
    return Features(vectors)


def _plan(
    given: Given, raw: Any, metric: Metric, budget: float, goal: float, seed: int, tell: Tell, target: Target | None = None
) -> Plan:
    case, pairs, bench = given.case, given.pairs, None
    if case is None:
        tell("nothing says what answers a query: pairs kept out ask, and the new model's own ranking is the truth")
        bench = Bench.of(pairs, metric, seed)
        case = replace(bench.case, fresh=pairs.new, depth=DEPTH)
    fitted = pairs if bench is None else pairs.take(bench.inside)
    others = _others(case, seed) if bench is None else None
    methods, trials = choose(fitted, metric, seed, others, tell)
    if bench is None:
        parts, adapters = maps_for(case, fitted, methods, seed, others, tell)
        known = fitted.some(TRIED, seed) if case.fresh is not None else fitted
        crossing = crossed(known, methods, metric, seed) if case.fresh is not None else known.new
    else:
        tell("fitting the maps")
        maps = bench.maps(methods)
        known, crossing = fitted, maps.translated[bench.inside]
        parts, adapters = [Part(case.rows, maps)], fit_maps(pairs, methods, metric, seed)
    orders = orders_of(case, parts, known, crossing, seed)
    tell("searching")
    sides = {OLD_HEAD: case.items, GALLERY: case.items}
    times = {name: microseconds(adapter, sides.get(name, case.new)) for name, adapter in adapters.items()}
    able = [rung for rung in RUNGS if not reason_of(rung, case, OLD_HEAD in adapters)]
    scored = {rung.name: score(rung, case, parts, orders[ORDER], budget) for rung in able}
    rungs = tuple(measured(rung, case, scored, methods, given, budget, times, seed) for rung in RUNGS)
    profile = Profile.of(pairs.new, pairs.old, raw, metric, mapped=_mapped(parts) if bench is None else None, seed=seed)
    live = None if target is None else _asked(target, given, case, parts, methods, adapters, seed, tell)
    tell("curves")
    learning = learning_curve(case, fitted, methods, seed) if bench is None else Curve((), ())
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
        profile.share_far,
        learning,
        partial,
        (*given.notes, *([] if live is None else live.notes())),
        examples_of(case, scored, name),
        adapters,
        case.scale,
        profile,
        live,
    )


def _mapped(parts: list[Part]) -> Rows:
    """(q, d_old) all queries mapped, each by maps that were not fitted to it."""
    order = np.argsort(np.concatenate([part.rows for part in parts]))
    return np.concatenate([part.maps.mapped for part in parts])[order]


def _asked(
    target: Target,
    given: Given,
    case: Case,
    parts: list[Part],
    methods: Methods,
    adapters: Mapping[str, Adapter],
    seed: int,
    tell: Tell,
) -> Live | None:
    """The live index, asked with the queries; with those of the plan's own maps where nothing says what answers them."""
    if given.new_queries is None:
        return None
    tell("asking the live index")
    if given.case is not None:
        return target.ask(case, questions(case, parts, methods), seed)
    mapped = directed(adapters[QUERY].transform(given.new_queries), case.metric)
    return ask_index(target.index, target.gallery, mixtures(given.old_queries, mapped, methods, case.metric), seed=seed)


def _others(case: Case, seed: int) -> Rows:
    rows = np.random.default_rng(seed).permutation(len(case.items))[:OTHERS]
    return case.items[np.sort(rows)]
