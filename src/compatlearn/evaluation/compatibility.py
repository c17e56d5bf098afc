"""Is the new model compatible with the old gallery? Self tests, the cross test, and the verdict."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from ..arrays import check_rows
from ..errors import DataError, IncompatibleError
from ..features.checks import rows_at_fault
from ..features.classes import same_classes
from ..features.ids import FeaturesLike, Items, check_space, rows_of
from ..indexes.arrays import ArrayIndex
from ..indexes.exact import search
from ..indexes.hits import Hits
from ..indexes.query_map import Cut, QueryMap
from ..metric import Metric, Verdict, check_metric
from .figures import Figure, bootstrap
from .metrics import map_at_r, negative_flips, top_k
from .relevance import Relevance
from .result import ClassChange, Compatibility, Scores

CURVE = 20  # accuracy is kept for k = 1 to this
DEEPEST = 1000  # mAP@R looks no further than this, or a few large classes would cost whole rankings
Map = QueryMap | Callable[[Any], Any]


def compatibility(
    *,
    old_query: FeaturesLike,
    old_gallery: FeaturesLike,
    new_query: FeaturesLike,
    new_gallery: FeaturesLike | None = None,
    independent: FeaturesLike | None = None,
    independent_gallery: FeaturesLike | None = None,
    relevance: Relevance | None = None,
    metric: Metric = "euclidean",
    seed: int = 0,
    searcher: Callable[..., Hits] = search,
    adapter: Map | None = None,
    pad: bool = False,
    names: Mapping[str, str] | None = None,
) -> Compatibility:
    """Self tests and cross test on the same queries, each query's own row (by id) left out of every gallery.

    Rows of the new and the independent model are put in the order of the old ones, by id. Where the old queries are
    the old gallery, the new queries serve as the new gallery, and so for the independent model. Ids must name the same
    items in queries and galleries: row numbers do so only where both hold the same rows.

    The intervals say how a figure would move with other queries of the same classes in the same gallery; for other classes
    or another gallery they are far too narrow.

    Args:
        old_query: `Features` of the old model: vectors (n, d_old), int64 classes (n,), unique ids (n,), and the space.
        old_gallery: what the old model left in the index; may be `old_query` itself.
        new_query: the same queries by the new model, of any dimension.
        new_gallery: the same gallery by the new model, if it was re-embedded.
        independent: the same queries by a new model trained without regard to the old one.
        independent_gallery: the same gallery by that model.
        relevance: what answers the queries, by their ids, such as `Relevance.from_qrels` reads; labels are then optional.
            None: what has the query's label.
        metric: what ranks.
        seed: of the bootstrap.
        searcher: what searches, called as `search` is.
        adapter: (q, d_new) → (q, d_old), such as `load_adapter` gives: the cross test asks with mapped queries. The self tests
            stay those of the features themselves, since a frozen model is not changed: without an independent model the
            new self test is then what a full backfill would score.
        pad: new queries of fewer dimensions than the old gallery may ask it without an adapter, padded with zeros: only a
            model that was trained for that can be compatible.
        names: what messages call each of the features, such as {"old_query": "old.npz"}; by default as here.

    Returns:
        Figures with 95 % intervals, and the verdict; prints as a table.

    Raises:
        DataError: neither labels nor judgements, judgements of other items, vectors that cannot be searched, or ids that are
            not unique.
        IncompatibleError: other queries, other classes, or spaces and dimensions that do not fit.
        ConfigError: unknown metric.

    Source: protocol and criterion of Non-Inherent Feature Compatible Learning, section 4; update gain and empirical
    criterion: Shen et al., Towards Backward-Compatible Representation Learning, CVPR 2020.

    >>> import numpy as np
    >>> import compatlearn as cl
    >>> random, labels = np.random.default_rng(0), np.arange(200) % 10
    >>> rows = [np.eye(10)[labels] + noise * random.standard_normal((200, 10)) for noise in (0.5, 0.1)]
    >>> old, new = (cl.Features(vectors, labels) for vectors in rows)
    >>> r = cl.compatibility(old_query=old, old_gallery=old, new_query=new)
    >>> r.compatible, r.queries
    ('yes', 200)
    """
    optional = {"new_gallery": new_gallery, "independent": independent, "independent_gallery": independent_gallery}
    given = {"old_query": old_query, "old_gallery": old_gallery, "new_query": new_query} | optional
    called = {name: (names or {}).get(name, name) for name in given}
    items = {name: Items.of(features, called[name]) for name, features in given.items() if features is not None}
    items = dict(zip(items, same_classes(*items.values()), strict=True))
    metric = check_metric(metric)
    pairs = _pairs(items, called)
    old, gallery = pairs["old_self"]
    pairs["cross"] = _cross(pairs["cross"][0], gallery, adapter, pad), gallery
    own = rows_of(old, gallery)
    judged = _judged(old, gallery, relevance)
    for one in {id(one.vectors): one for pair in pairs.values() for one in pair}.values():
        _check_vectors(one, nonzero=metric == "cosine")
    relevant = judged.counts(np.arange(len(old)), exclude=own)
    if not relevant.any():
        raise DataError(f"no row of {gallery.name} answers any of the {len(old)} queries: {_why(judged, relevance)}")
    outcomes = {name: _outcome(*pair, own, judged, relevant, metric, searcher) for name, pair in pairs.items()}
    frozen = adapter is not None and not isinstance(adapter, Cut)
    backfill = outcomes.get("independent_self", outcomes.get("new_self") if frozen else None)
    return _result(old, outcomes, backfill, relevant, judged, metric, seed)


def _pairs(items: dict[str, Items], called: dict[str, str]) -> dict[str, tuple[Items, Items]]:
    """Query and gallery of each test that can be made, all in the order of the old ones."""
    old, gallery = items["old_query"], items["old_gallery"]
    check_space(old, gallery)
    closed = len(old) == len(gallery) and bool((rows_of(old, gallery) >= 0).all())
    pairs = {"old_self": (old, gallery), "cross": (items["new_query"].in_order_of(old), gallery)}
    for test, query, own in (
        ("new_self", "new_query", "new_gallery"),
        ("independent_self", "independent", "independent_gallery"),
    ):
        if own in items and query not in items:
            raise IncompatibleError(f"{called[own]} is given without {called[query]}; give the queries of that model too")
        if query in items and (own in items or closed):
            target = items[own if own in items else query]
            check_space(items[query], target)
            pairs[test] = items[query].in_order_of(old), target.in_order_of(gallery)
        elif query == "independent" and query in items:
            raise IncompatibleError(f"{called[query]} needs {called[own]}: the gallery is not the query set; give it too")
    return pairs


def _cross(query: Items, gallery: Items, adapter: Map | None, pad: bool) -> Items:
    """The new queries as they ask the old gallery: mapped, and checked against the spaces that the map says it is for."""
    widths = query.vectors.shape[1], gallery.vectors.shape[1]
    if adapter is None:
        if widths[0] < widths[1] and not pad:
            raise IncompatibleError(
                f"{query.name} has {widths[0]} dimensions and {gallery.name} {widths[1]}: without a map its queries mean "
                "nothing there; give an adapter, or pad=True if the new model was trained for zeros in the rest"
            )
        return query
    for items, side in ((query, "space_new"), (gallery, "space_old")):
        space = getattr(adapter, side, "")
        if space and items.space and space != items.space:
            raise IncompatibleError(
                f"the adapter's {side} is {space!r} and {items.name} is in space {items.space!r}; fit one for these two models"
            )
    vectors = adapter(query.vectors)
    wanted = len(query), widths[1]
    if tuple(vectors.shape) != wanted:
        raise IncompatibleError(
            f"the adapter gives shape {tuple(vectors.shape)} for {wanted[0]} queries of a gallery of {wanted[1]} dimensions; "
            "fit it on features of that gallery's model"
        )
    return replace(query, name=f"{query.name}, mapped,", vectors=vectors)


def _check_vectors(items: Items, *, nonzero: bool) -> None:
    """Before anything is searched, so that the message names the features, the row and the id."""
    check_rows(items.vectors, items.name, nonzero=nonzero, told=lambda bad: rows_at_fault(bad, items.ids_or_none))


def _judged(old: Items, gallery: Items, relevance: Relevance | None) -> Relevance:
    """What answers each query, by row number."""
    if relevance is not None:
        return relevance.at(old.ids, gallery.ids)
    labels = []
    for items in (old, gallery):
        if items.labels is None:
            raise DataError(
                f"{items.name} has no labels, and nothing else says what answers a query; give every row a class, "
                "or give judgements (relevance=Relevance.from_qrels(...))"
            )
        labels.append(items.labels)
    return Relevance.from_labels(*labels)


def _why(judged: Relevance, relevance: Relevance | None) -> str:
    if relevance is None:
        return "no class has two rows; give the labels of the same classes to queries and gallery"
    return (
        f"{judged.unknown_queries} judged queries and {judged.unknown_items} judged items are not among the ids; "
        "give judgements by the ids of these features"
    )


@dataclass(frozen=True)
class _Outcome:
    """What one test scored on every query."""

    top1: Bool[np.ndarray, " q"]
    top5: Bool[np.ndarray, " q"]
    precision: Float[np.ndarray, " q"]  # average precision at R
    curve: list[float]

    def scores(self, seed: int) -> Scores:
        return Scores(_mean(self.top1, seed), _mean(self.top5, seed), _mean(self.precision, seed))


def _outcome(
    query: Items,
    gallery: Items,
    own: Int[np.ndarray, " q"],
    judged: Relevance,
    relevant: Int[np.ndarray, " q"],
    metric: Metric,
    searcher: Callable[..., Hits],
) -> _Outcome:
    counted = relevant.clip(max=DEEPEST)
    index = ArrayIndex(gallery.vectors, metric=metric, searcher=searcher)  # rows for ids: so they are judged, and it is quick
    hits = index.search(query.vectors, max(CURVE, int(counted.max())), exclude=own)
    right = judged.of(np.arange(len(query)), hits.ids)  # (q, k)
    curve = [float(top_k(right, k).mean()) for k in range(1, CURVE + 1)]
    return _Outcome(top_k(right, 1), top_k(right, 5), map_at_r(right, counted), curve)


def _result(
    old: Items,
    outcomes: dict[str, _Outcome],
    backfill: _Outcome | None,
    relevant: Int[np.ndarray, " q"],
    judged: Relevance,
    metric: Metric,
    seed: int,
) -> Compatibility:
    scores = {name: outcome.scores(seed) for name, outcome in outcomes.items()}
    before, after = outcomes["old_self"].top1, outcomes["cross"].top1
    gain = bootstrap(lambda means: means[:, 1] - means[:, 0], np.stack([before, after], axis=1), seed=seed)
    return Compatibility(
        old_self=scores["old_self"],
        cross=scores["cross"],
        new_self=scores.get("new_self"),
        independent_self=scores.get("independent_self"),
        gain=gain,
        update_gain=None if backfill is None else _update_gain(before, after, backfill.top1, seed),
        negative_flips=_mean(negative_flips(before, after), seed),
        compatible=_verdict(gain),
        queries=len(old),
        queries_without_relevant=int((relevant == 0).sum()),
        map_r_limit=DEEPEST if relevant.max() > DEEPEST else None,
        per_class=[] if old.labels is None else _per_class(old.labels, before, after),
        accuracy_at_k={name: outcome.curve for name, outcome in outcomes.items()},
        metric=metric,
        unknown_queries=judged.unknown_queries,
        unknown_items=judged.unknown_items,
    )


def _verdict(gain: Figure) -> Verdict:
    return "yes" if gain.low > 0 else "no" if gain.high < 0 else "undecided"


def _mean(column: Bool[np.ndarray, " q"] | Float[np.ndarray, " q"], seed: int) -> Figure:
    return bootstrap(lambda means: means[:, 0], column[:, None], seed=seed)


def _update_gain(
    old: Bool[np.ndarray, " q"], cross: Bool[np.ndarray, " q"], independent: Bool[np.ndarray, " q"], seed: int
) -> Figure:
    """Gain of the cross test over that of a full backfill; nothing gained of nothing to gain is 0."""

    def ratio(means: Float[np.ndarray, "r 3"]) -> Float[np.ndarray, " r"]:
        gained, possible = means[:, 1] - means[:, 0], means[:, 2] - means[:, 0]
        unbounded = np.where(gained == 0, 0.0, np.copysign(np.inf, gained))
        share: np.ndarray = np.where(possible == 0, unbounded, gained / np.where(possible == 0, 1.0, possible))
        return share

    columns = np.stack([old, cross, independent], axis=1)
    figure = bootstrap(ratio, columns, seed=seed)
    possible = bootstrap(lambda means: means[:, 2] - means[:, 0], columns, seed=seed)
    # near a zero denominator the drawn ratios jump between both infinities: their percentiles say nothing
    return Figure(figure.value, -np.inf, np.inf) if possible.low <= 0 <= possible.high else figure


def _per_class(
    labels: Int[np.ndarray, " q"], before: Bool[np.ndarray, " q"], after: Bool[np.ndarray, " q"]
) -> list[ClassChange]:
    classes, members = np.unique(labels, return_inverse=True)
    counts = np.bincount(members)
    old, new = (np.bincount(members, weights=right) / counts for right in (before, after))
    return [ClassChange(*row) for row in zip(classes.tolist(), counts.tolist(), old.tolist(), new.tolist(), strict=True)]
