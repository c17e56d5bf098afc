"""What a plan is given: pairs matched by id, the gallery without them, queries in one order, and what is right."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int

from ..errors import DataError, IncompatibleError
from ..evaluation.relevance import Relevance
from ..features.features import Features
from ..features.ids import Items, check_space, require_rows, rows_of
from ..metric import Metric
from .case import Case, directed
from .maps import Pairs
from .truth import AGREEING, Agreeing, Judged, Truth

FEWEST = 10  # pairs
HALF = 0.5  # of a gallery, at most, serve as pairs; the others are known answers of a backfill
SEARCHED = 200_000  # items that a plan searches, at most


@dataclass(frozen=True)
class Given:
    """Everything a plan measures with.

    Attributes:
        pairs: what the maps are fitted to.
        pair_ids: (m,) their ids.
        case: queries and gallery without the pairs, with a truth; None where nothing says what is right.
        new_queries: (q, d_new) new vectors of the queries; None where there are none.
        items: how many the whole gallery has.
        notes: what a reader should know, one line each.
    """

    pairs: Pairs
    pair_ids: np.ndarray
    case: Case | None
    new_queries: np.ndarray | None
    items: int
    notes: tuple[str, ...]


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
) -> Given:
    """Match everything by id and leave the pairs out of what is searched.

    Raises:
        DataError: too few pairs, or vectors of length zero where directions count.
        IncompatibleError: ids that do not match, or spaces that differ.
    """
    gallery = Items.of(old_gallery, "the old gallery")
    fresh = Items.of(pairs_new, "the new pairs")
    stored = gallery if pairs_old is None else Items.of(pairs_old, "the old pairs")
    check_space(gallery, stored)
    places = require_rows(fresh, stored)
    notes: list[str] = []
    if len(fresh) < FEWEST:
        raise DataError(f"{len(fresh)} pairs cannot tell one map from another; give {FEWEST} at least, better thousands")
    own = rows_of(fresh, gallery)  # -1 for a pair that is not in the gallery
    known = np.full(len(gallery), -1)  # row of the pairs that holds an item's true new vector
    known[own[own >= 0]] = np.flatnonzero(own >= 0)
    chosen = np.arange(len(fresh))
    limit = int(HALF * len(gallery))
    if (inside := int((own >= 0).sum())) > limit:
        chosen = np.sort(np.random.default_rng(seed).permutation(len(fresh))[: max(FEWEST, limit)])
        notes.append(
            f"{inside} of {len(gallery)} items of the gallery are pairs: {len(chosen)} of them, drawn at random, serve as "
            "pairs, and the others are searched"
        )
    left = np.ones(len(gallery), dtype=bool)
    left[own[chosen][own[chosen] >= 0]] = False
    rest = np.flatnonzero(left)
    if len(rest) > SEARCHED:
        rest = np.sort(np.random.default_rng(seed).permutation(rest)[:SEARCHED])
        notes.append(f"{SEARCHED} of {int(left.sum())} items, drawn at random, are searched")
    new_rows = _new_vectors(rest, known, pairs_new, gallery, backfill)
    labels = pairs_new.labels if pairs_new.has_labels else None
    pairs = Pairs(
        directed(pairs_new.vectors[chosen], metric),
        directed(np.asarray(stored.vectors[places[chosen]]), metric),
        None if labels is None else labels[chosen],
    )
    case = None
    if new_queries is not None:
        case = _case(old_gallery, rest, new_rows, new_queries, old_queries, relevance, metric, notes)
    asked = None if new_queries is None else directed(new_queries.vectors, metric)
    return Given(pairs, fresh.ids[chosen], case, asked, len(gallery), tuple(notes))


def _new_vectors(
    rest: Int[np.ndarray, " n"], known: Int[np.ndarray, " g"], pairs_new: Features, gallery: Items, backfill: Features | None
) -> np.ndarray | None:
    """True new vectors of the items that are searched, from a backfill or from pairs that do not serve as such."""
    if backfill is not None:
        whole = Items.of(backfill, "the backfill")
        wanted = replace(gallery, ids=gallery.ids[rest], labels=None)
        return np.asarray(whole.vectors[require_rows(wanted, whole)], dtype=np.float32)
    if len(rest) and (known[rest] >= 0).all():
        return np.asarray(pairs_new.vectors[known[rest]], dtype=np.float32)
    return None


def _case(
    old_gallery: Features,
    rest: Int[np.ndarray, " n"],
    fresh: np.ndarray | None,
    new_queries: Features,
    old_queries: Features | None,
    relevance: Relevance | None,
    metric: Metric,
    notes: list[str],
) -> Case | None:
    """The users' queries, if anything says what answers them."""
    queries = Items.of(new_queries, "the new queries")
    if len(rest) == 0:
        raise DataError("every item of the gallery is a pair, so nothing is left to search; give fewer pairs")
    items = Items.of(old_gallery.take(rest), "the old gallery")
    old = None
    if old_queries is not None:
        others = Items.of(old_queries, "the old queries")
        check_space(others, items)
        old = directed(np.asarray(others.in_order_of(queries).vectors), metric)
    own = rows_of(queries, items) if queries.ids.dtype.kind == items.ids.dtype.kind and _same_ids(queries, items) else None
    own = np.full(len(queries), -1) if own is None else own
    new = directed(new_queries.vectors, metric)
    true = None if fresh is None else directed(fresh, metric)
    what = f"{len(queries)} queries, {len(items)} items; the pairs are left out"
    nobody = Agreeing(np.empty((0, 0), dtype=np.int64))
    vectors = directed(np.asarray(items.vectors), metric)
    case = Case(new, old, vectors, true, own, nobody, metric, queries.ids, items.ids, what)
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
    elif true is not None:
        truth = Agreeing(case.search(new, true, case.rows, min(AGREEING, len(items) - 1)))
    else:
        return None
    return replace(case, truth=truth)


def _same_ids(queries: Items, items: Items) -> bool:
    """Whether ids of queries and items name the same things: row numbers do not."""
    return not (queries.ids_from.startswith("row") or items.ids_from.startswith("row"))


def check_queries(new_queries: Features | None, pairs_new: Features) -> None:
    """Refuse queries of another dimension than the pairs.

    Raises:
        IncompatibleError: they differ.
    """
    if new_queries is not None and new_queries.dimension != pairs_new.dimension:
        raise IncompatibleError(
            f"the new queries have {new_queries.dimension} dimensions and the new pairs {pairs_new.dimension}; "
            "both must be of the new model"
        )
