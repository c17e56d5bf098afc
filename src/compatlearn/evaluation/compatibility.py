"""Is the new model compatible with the old gallery? Self tests, the cross test, and the verdict."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Int

from ..arrays import as_numpy, check_rows
from ..errors import DataError, IncompatibleError
from ..features.checks import rows_at_fault
from ..features.classes import drawn_together, same_classes
from ..features.ids import FeaturesLike, Items, check_space, rows_of
from ..indexes.exact import search
from ..indexes.hits import Hits
from ..indexes.query_map import Cut, QueryMap
from ..metric import Cluster, Metric, check_cluster, check_metric
from .outcome import DEEPEST, TEN, ByAgreement, ByRelevance, Outcome, PerQuery, Truth
from .relevance import Relevance
from .result import Compatibility
from .verdict import Figures, figures_of, per_class

UNKNOWN = ("unknown_queries", "unknown_items", "unjudged")  # what judgements and features lack of each other
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
    cluster: Cluster = "query",
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

    By labels the verdict is of top-1, by judgements of nDCG@10. With neither, but with the gallery by the new model, it is of
    agreement: the share of the new model's own ten nearest items that are among the ten found; whether these are right
    answers is then not known, and nothing else is claimed.

    The intervals say how a figure would move with other queries of the same classes in the same gallery; with
    `cluster="class"`, with other classes. Another gallery is in neither.

    Args:
        old_query: `Features` of the old model: vectors (n, d_old), int64 classes (n,), unique ids (n,), and the space.
        old_gallery: what the old model left in the index; may be `old_query` itself.
        new_query: the same queries by the new model, of any dimension.
        new_gallery: the same gallery by the new model, if it was re-embedded.
        independent: the same queries by a new model trained without regard to the old one.
        independent_gallery: the same gallery by that model.
        relevance: what answers the queries, by their ids, such as `Relevance.from_qrels` reads; labels are then optional.
            None: what has the query's label; without labels, agreement.
        metric: what ranks.
        cluster: what the intervals draw: "query", or "class": all queries of a class together, which needs labels.
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
        DataError: neither labels nor judgements nor a new gallery, judgements of other items, classes without labels,
            vectors that cannot be searched, or ids that are not unique.
        IncompatibleError: other queries, other classes, or spaces and dimensions that do not fit.
        ConfigError: unknown metric or cluster.

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
    (old, gallery), fresh = pairs["old_self"], pairs.get("new_self")
    pairs["cross"] = _cross(pairs["cross"][0], gallery, adapter, pad), gallery
    own = rows_of(old, gallery)
    drawn = check_cluster(cluster) == "class"
    classes = drawn_together(old.name, old.labels, pairs["cross"][0].labels) if drawn else None
    judged = _judged(old, gallery, relevance, fresh)
    for one in {id(one.vectors): one for pair in pairs.values() for one in pair}.values():
        _check_vectors(one, nonzero=metric == "cosine")
    find = partial(_find, own=own, metric=metric, searcher=searcher)
    truth: Truth
    if judged is not None:
        truth = ByRelevance(judged, own, "top1" if judged.judged is None else "ndcg10")
        if not truth.counts.any():
            why = _why(old, gallery, judged, relevance)
            raise DataError(f"no row of {gallery.name} answers any of the {len(old)} queries: {why}")
    else:
        assert fresh is not None
        truth = ByAgreement(find(*fresh, TEN))
        pairs = {test: pairs[test] for test in ("old_self", "cross")}  # what finds its own ranking agrees with it
    outcomes = {test: truth.outcome(find(*pair, truth.depth)) for test, pair in pairs.items()}
    frozen = adapter is not None and not isinstance(adapter, Cut) and "new_self" in outcomes
    backfill = "independent_self" if "independent_self" in outcomes else "new_self" if frozen else None
    figures = figures_of(outcomes, truth.primary, backfill, seed=seed, clusters=classes)
    result = _result(old, outcomes, figures, truth, classes, metric)
    return replace(result, per_query=PerQuery(outcomes, backfill))


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


def _judged(old: Items, gallery: Items, relevance: Relevance | None, fresh: tuple[Items, Items] | None) -> Relevance | None:
    """What answers each query, by row number; None where nothing says it and the new model's own ranking must do."""
    if relevance is not None:
        return relevance.at(old.ids, gallery.ids)
    bare = [items for items in (old, gallery) if items.labels is None]
    if not bare:
        return Relevance.from_labels(old.labels, gallery.labels)
    if len(bare) == 2 and fresh is not None:
        return None
    remedy = "" if len(bare) == 1 else ", or new_gallery: the new model's own ranking then stands for the truth"
    raise DataError(
        f"{bare[0].name} has no labels, and nothing else says what answers a query; give every row a class, "
        f"or give judgements (relevance=Relevance.from_qrels(...)){remedy}"
    )


def _why(old: Items, gallery: Items, judged: Relevance, relevance: Relevance | None) -> str:
    """Why nothing is relevant, in words; with ids of both sides where they have none in common."""
    if relevance is None or relevance.query_ids is None or relevance.item_ids is None:
        return "no class has two rows; give the labels of the same classes to queries and gallery"
    example = ""
    for known, items, lost, kind in (
        (relevance.query_ids, old, judged.unknown_queries, "queries"),
        (relevance.item_ids, gallery, judged.unknown_items, "items"),
    ):
        if lost and not np.isin(known, items.ids.astype(known.dtype)).any():
            few, given = (", ".join(map(repr, ids[:3].tolist())) for ids in (known, items.ids))
            example = example or f" (judged {kind}: {few}; {items.name}: {given})"
    return (
        f"{judged.unknown_queries} judged queries and {judged.unknown_items} judged items are not among the ids{example}; "
        "give judgements by the ids of these features"
    )


def _find(
    query: Items,
    gallery: Items,
    k: int,
    *,
    own: Int[np.ndarray, " q"],
    metric: Metric,
    searcher: Callable[..., Hits],
) -> Int[np.ndarray, "q k"]:
    """(q, k) nearest rows; a new query that is longer than the old gallery asks with its first dimensions."""
    return as_numpy(searcher(query.vectors, gallery.vectors, k, metric, exclude=own).indices)


def _result(
    old: Items,
    outcomes: dict[str, Outcome],
    figures: Figures,
    truth: Truth,
    classes: Int[np.ndarray, " q"] | None,
    metric: Metric,
) -> Compatibility:
    counts = truth.counts if isinstance(truth, ByRelevance) else np.ones(len(old), dtype=np.int64)
    known = {name: getattr(truth.relevance, name) for name in UNKNOWN} if isinstance(truth, ByRelevance) else {}
    labelled = old.labels is not None and isinstance(truth, ByRelevance)
    return Compatibility(
        old_self=figures.scores["old_self"],
        cross=figures.scores["cross"],
        new_self=figures.scores.get("new_self"),
        independent_self=figures.scores.get("independent_self"),
        gain=figures.gain,
        update_gain=figures.update_gain,
        negative_flips=figures.negative_flips,
        compatible=figures.verdict,
        queries=len(old),
        queries_without_relevant=int((counts == 0).sum()),
        map_r_limit=DEEPEST if counts.max() > DEEPEST else None,
        per_class=per_class(old.labels, outcomes["old_self"].right, outcomes["cross"].right) if labelled else [],
        accuracy_at_k={test: outcome.curve for test, outcome in outcomes.items() if outcome.curve},
        metric=metric,
        unknown_queries=known.get("unknown_queries", 0),
        unknown_items=known.get("unknown_items", 0),
        queries_without_judgement=known.get("unjudged", 0),
        primary=truth.primary,
        classes=None if classes is None else len(np.unique(classes)),
    )
