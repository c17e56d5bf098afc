"""What a plan is given: pairs matched by id, the gallery without them, queries in one order, and what is right."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int

from ..errors import DataError, IncompatibleError
from ..evaluation.relevance import Relevance
from ..features.classes import drawn_together
from ..features.features import Features
from ..features.ids import Items, check_space, require_rows, rows_of
from ..metric import Metric
from .case import Case, Rows, directed
from .maps import Pairs
from .sample import sample_items
from .truth import AGREEING, Agreeing, Judged, Truth

FEWEST = 30  # pairs: of fewer nothing is left to fit once some are kept out to choose by
HALF = 0.5  # of a gallery, at most, serve as pairs; the others are known answers of a backfill
SEARCHED = 200_000  # items that a plan searches, at most


@dataclass(frozen=True)
class Given:
    """Everything a plan measures with.

    Attributes:
        pairs: what the maps are fitted to.
        case: queries and gallery without the pairs, with a truth; None where nothing says what is right.
        new_queries: (q, d_new) new vectors of the queries; None where there are none.
        items: how many the whole gallery has.
        paid: how many of them have their new vector already, as pairs.
        notes: what a reader should know, one line each.
        old_queries: (q, d_old) old vectors of the queries, in the order of the new ones; None where there are none.
    """

    pairs: Pairs
    case: Case | None
    new_queries: np.ndarray | None
    items: int
    paid: int
    notes: tuple[str, ...]
    old_queries: np.ndarray | None = None


def gather(
    old_gallery: Features,
    pairs_new: Features,
    pairs_old: Features | None,
    new_queries: Features | None,
    old_queries: Features | None,
    relevance: Relevance | None,
    backfill: Features | None,
    metric: Metric,
    seed: int,
    items: int | None = None,
) -> Given:
    """Match everything by id and leave the pairs out of what is searched; `items` are those of the index, if there are more.

    Raises:
        DataError: too few pairs, or vectors of length zero where directions count.
        IncompatibleError: ids that do not match, or spaces that differ.
    """
    gallery = Items.of(old_gallery, "the old gallery")
    fresh = Items.of(pairs_new, "the new pairs")
    queries = None if new_queries is None else Items.of(new_queries, "the new queries")
    if queries is not None:
        _check_widths(queries, fresh, "new")
    stored = gallery if pairs_old is None else Items.of(pairs_old, "the old pairs")
    _check_widths(stored, gallery, "old")
    check_space(stored, gallery)
    places = require_rows(fresh, stored)
    notes: list[str] = []
    chosen = _not_asked(fresh, queries, notes)
    if len(chosen) < FEWEST:
        raise DataError(f"{len(chosen)} pairs cannot tell one map from another; give {FEWEST} at least, better thousands")
    own = rows_of(fresh, gallery)  # -1 for a pair that is not in the gallery
    known = np.full(len(gallery), -1)  # row of the pairs that holds an item's true new vector
    known[own[own >= 0]] = np.flatnonzero(own >= 0)
    limit = int(HALF * len(gallery))
    if (inside := int((own[chosen] >= 0).sum())) > limit:
        chosen = np.sort(np.random.default_rng(seed).permutation(chosen)[: max(FEWEST, limit)])
        notes.append(
            f"{inside} of {len(gallery)} items of the gallery are pairs: {len(chosen)} of them, drawn at random, serve as "
            "pairs, and the others are searched"
        )
    left = np.ones(len(gallery), dtype=bool)
    left[own[chosen][own[chosen] >= 0]] = False
    rest = np.flatnonzero(left)
    whole = max(len(gallery), items or 0)
    if len(rest) > SEARCHED or whole > len(gallery):
        rest = _part(rest, _judged_items(gallery, queries, relevance), whole - len(gallery), seed, notes)
    new_rows = _new_vectors(rest, known, fresh, gallery, backfill, metric)
    labels = pairs_new.labels if pairs_new.has_labels else None
    pairs = Pairs(
        _rows(fresh, chosen, metric),
        _rows(stored, places[chosen], metric),
        None if labels is None else labels[chosen],
    )
    case = asked = old = None
    if queries is not None:
        asked, old = _rows(queries, None, metric), _old_queries(old_queries, queries, gallery, metric)
        case = _case(old_gallery, gallery, rest, new_rows, queries, old, relevance, metric, notes)
    return Given(pairs, case, asked, whole, int((own >= 0).sum()), tuple(notes), old)


def _judged_items(gallery: Items, queries: Items | None, relevance: Relevance | None) -> Int[np.ndarray, " k"]:
    """Rows of the gallery that were judged for a query."""
    if relevance is None or queries is None:
        return np.zeros(0, dtype=np.int64)
    return relevance.at(queries.ids, gallery.ids).judged_items(np.arange(len(queries)))


def _part(
    rest: Int[np.ndarray, " n"], judged: Int[np.ndarray, " k"], unread: int, seed: int, notes: list[str]
) -> Int[np.ndarray, " m"]:
    """Of very many items, those that are searched: all that were judged, so that none is missing where it should be found."""
    judged, every = np.intersect1d(judged, rest), len(rest) + unread
    part = sample_items(judged, np.random.default_rng(seed).permutation(rest), SEARCHED)
    if len(judged):
        notes.append(
            f"{len(part):,} of {every:,} items are searched: the {len(judged):,} that were judged, and others drawn at "
            "random; with fewer wrong answers about, every rung, the old queries too, scores higher than in the whole gallery"
        )
    else:
        notes.append(
            f"{len(part):,} of {every:,} items, drawn at random, are searched; the figures are of this part, not of the "
            "whole gallery"
        )
    return part


def _not_asked(fresh: Items, queries: Items | None, notes: list[str]) -> Int[np.ndarray, " m"]:
    """Numbers of the pairs that are no queries: a map must not be measured with what it was fitted to."""
    rows = np.arange(len(fresh))
    if queries is None or queries.ids.dtype.kind != fresh.ids.dtype.kind or not _same_ids(queries, fresh):
        return rows
    kept = rows[~np.isin(fresh.ids, queries.ids)]
    if len(kept) < len(rows):
        notes.append(f"{len(rows) - len(kept)} of {len(rows)} pairs are queries as well and are not fitted")
    return kept


def _new_vectors(
    rest: Int[np.ndarray, " n"],
    known: Int[np.ndarray, " g"],
    fresh: Items,
    gallery: Items,
    backfill: Features | None,
    metric: Metric,
) -> Rows | None:
    """True new vectors of the items that are searched, from a backfill or from pairs that do not serve as such."""
    if backfill is not None:
        whole = Items.of(backfill, "the backfill")
        _check_widths(whole, fresh, "new")
        labels = None if gallery.labels is None else gallery.labels[rest]
        return _rows(whole, require_rows(replace(gallery, ids=gallery.ids[rest], labels=labels), whole), metric)
    if len(rest) and (known[rest] >= 0).all():
        return _rows(fresh, known[rest], metric)
    return None


def _rows(items: Items, rows: Int[np.ndarray, " n"] | None, metric: Metric) -> Rows:
    """Some vectors, or all, as the metric sees them; DataError naming the side, row and id of one that cannot be used."""
    rows = np.arange(len(items)) if rows is None else rows
    vectors = np.asarray(items.vectors[rows], dtype=np.float32)
    faults = {"NaN or infinity": ~np.isfinite(vectors).all(axis=1)}
    if metric == "cosine":
        faults["length zero"] = (vectors == 0).all(axis=1)
    for fault, mask in faults.items():
        if bad := rows[mask].tolist():
            where = f"row {bad[0]}" if items.ids_or_none is None else f"row {bad[0]}, id {items.ids[bad[0]].item()!r}"
            raise DataError(
                f"{len(bad)} of {len(rows)} vectors of {items.name} have {fault} (first: {where}); drop or extract them again"
            )
    return directed(vectors, metric)


def _check_widths(one: Items, other: Items, model: str) -> None:
    widths = one.vectors.shape[1], other.vectors.shape[1]
    if widths[0] != widths[1]:
        have = "has" if one.name == "the backfill" else "have"
        raise IncompatibleError(
            f"{one.name} {have} {widths[0]} dimensions and {other.name} {widths[1]}; both must be of the {model} model"
        )


def _old_queries(old_queries: Features | None, queries: Items, gallery: Items, metric: Metric) -> Rows | None:
    """Vectors of the queries by the old model, in the order of the new ones."""
    if old_queries is None:
        return None
    others = Items.of(old_queries, "the old queries")
    _check_widths(others, gallery, "old")
    check_space(others, gallery)
    return _rows(others.in_order_of(queries), None, metric)


def _case(
    old_gallery: Features,
    gallery: Items,
    rest: Int[np.ndarray, " n"],
    fresh: Rows | None,
    queries: Items,
    old: Rows | None,
    relevance: Relevance | None,
    metric: Metric,
    notes: list[str],
) -> Case | None:
    """The users' queries, if anything says what answers them."""
    if len(rest) == 0:
        raise DataError("every item of the gallery is a pair, so nothing is left to search; give fewer pairs")
    items = Items.of(old_gallery.take(rest), "the old gallery")
    own = rows_of(queries, items) if queries.ids.dtype.kind == items.ids.dtype.kind and _same_ids(queries, items) else None
    own = np.full(len(queries), -1) if own is None else own
    new = _rows(queries, None, metric)
    what = f"{len(queries)} queries, {len(items)} items; the pairs are left out"
    nobody = Agreeing(np.empty((0, 0), dtype=np.int64))
    vectors = _rows(gallery, rest, metric)
    case = Case(new, old, vectors, fresh, own, nobody, metric, queries.ids, items.ids, what)
    truth: Truth
    if relevance is not None:
        judged = relevance.at(queries.ids, items.ids)
        answered = int((judged.counts(np.arange(len(queries))) > 0).sum())
        if answered == 0:
            raise DataError(
                f"no item of the gallery answers any of the {len(queries)} queries: {judged.unknown_queries} judged queries "
                f"and {judged.unknown_items} judged items are not among the ids; give judgements by the ids of these features"
            )
        if answered < len(queries):
            notes.append(
                f"{len(queries) - answered} of {len(queries)} queries have no relevant item left to find; each is a miss"
            )
        truth = Judged(judged, own, "ndcg10")
    elif queries.labels is not None and items.labels is not None:
        truth = Judged(Relevance.from_labels(queries.labels, items.labels), own, "top1")
    elif fresh is not None:
        truth = Agreeing(case.search(new, fresh, case.rows, min(AGREEING, len(items) - 1)))
    else:
        return None
    return replace(case, truth=truth)


def _same_ids(queries: Items, items: Items) -> bool:
    """Whether ids of queries and items name the same things: row numbers do not."""
    return not (queries.ids_from.startswith("row") or items.ids_from.startswith("row"))


def with_classes(given: Given, new_queries: Features | None) -> Given:
    """The same, with intervals that draw whole classes of queries.

    Raises:
        DataError: queries without labels or of one class, or none that can be judged.
    """
    if given.case is None or new_queries is None:
        raise DataError(
            "cluster='class' draws classes of the new queries, and pairs ask in their place, for nothing says what answers a "
            "query; give queries with labels or judgements, or cluster='query'"
        )
    return replace(given, case=replace(given.case, clusters=drawn_together("the new queries", new_queries.labels)))
