"""The table of rungs: what each does, what it costs and what it needs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Int

from ..indexes.among import nearest_among
from ..indexes.csls import hubness, reranked
from ..indexes.exact import search
from .case import Case, Rows, joined, mixed
from .maps import Maps
from .order import NONE, Embedded

CANDIDATES = 100  # items that a cascade embeds for a query, or that CSLS ranks
OLD_QUERIES, CONTENTS, SPACE = "old model on queries", "item contents", "room for vectors of the new dimension"
LABELS = "labels of the pairs"
NUMBER = "one number per item, kept beside the index"

Found = Int[np.ndarray, "q k"]
Search: TypeAlias = Callable[[Case, Maps, Int[np.ndarray, " q"], Embedded], Found]


@dataclass(frozen=True)
class Rung:
    """One way to upgrade.

    Attributes:
        name: what people call it.
        summary: the score of query q and item x.
        search: function(case, maps, rows, first items that are embedded) → what those queries find.
        needs: what it takes to run, in words.
        old_queries: it asks with old queries too.
        fresh: it can be measured only where the items' true new vectors are known.
        labels: it can be fitted only where the pairs have labels.
    """

    name: str
    summary: str
    search: Search
    needs: tuple[str, ...] = ()
    old_queries: bool = False
    fresh: bool = False
    labels: bool = False


def ask_old(case: Case, maps: Maps, rows: Int[np.ndarray, " q"], first: Embedded) -> Found:
    """o(q) · o(x)."""
    return case.search(_old(case)[rows], case.items, rows)


def ask_old_head(case: Case, maps: Maps, rows: Int[np.ndarray, " q"], first: Embedded) -> Found:
    """k(o(q)) · o(x): what the labels give without a new model."""
    assert maps.old_head is not None  # the table says that it needs labels and old queries
    return case.search(maps.old_head, case.items, rows)


def ask_mapped(case: Case, maps: Maps, rows: Int[np.ndarray, " q"], first: Embedded) -> Found:
    """g(n(q)) · o(x)."""
    return case.search(maps.mapped, case.items, rows)


def ask_fused(case: Case, maps: Maps, rows: Int[np.ndarray, " q"], first: Embedded) -> Found:
    """(o(q) + w g(n(q))) · o(x)."""
    return case.search(mixed(_old(case)[rows], maps.mapped, maps.methods.fuse, case.metric), case.items, rows)


def ask_mapped_csls(case: Case, maps: Maps, rows: Int[np.ndarray, " q"], first: Embedded) -> Found:
    """2 g(n(q)) · o(x) − r(x) among the first hits of an untouched index."""
    assert maps.sample is not None  # wherever queries are mapped
    away = hubness(case.items, maps.sample.mapped, case.metric, exclude=maps.sample.own)
    hits = search(maps.mapped, case.items, min(CANDIDATES, len(case.items)), case.metric, exclude=case.own[rows])
    return np.asarray(reranked(hits, away, case.depth).indices)


def ask_translated(case: Case, maps: Maps, rows: Int[np.ndarray, " q"], first: Embedded) -> Found:
    """n(q) · h(o(x))."""
    return case.search(case.new[rows], maps.translated, rows)


def ask_joined(case: Case, maps: Maps, rows: Int[np.ndarray, " q"], first: Embedded) -> Found:
    """(n(q) + a h(o(q))) · h(o(x)) + w o(q) · o(x)."""
    return case.search(*_joined(case, maps, rows, maps.translated), rows)


def ask_cascade(case: Case, maps: Maps, rows: Int[np.ndarray, " q"], first: Embedded) -> Found:
    """n(q) · n(x) among the first hits of the fused query, or of the mapped one where there are no old queries."""
    candidates = proposed(case, maps, rows)
    return nearest_among(case.new[rows], _fresh(case), candidates, candidates.shape[1], case.metric)[0].numpy()


def proposed(case: Case, maps: Maps, rows: Int[np.ndarray, " q"]) -> Found:
    """(q, 100) the items that a cascade embeds."""
    ask = ask_mapped if case.old is None else ask_fused
    return ask(case, maps, rows, NONE)[:, :CANDIDATES]


def ask_partial(case: Case, maps: Maps, rows: Int[np.ndarray, " q"], first: Embedded) -> Found:
    """`ask_joined`, or `ask_translated` without old queries, where some items have their true new vector."""
    items = maps.translated.copy()
    items[first] = _fresh(case)[first]
    if case.old is None:
        return case.search(case.new[rows], items, rows)
    return case.search(*_joined(case, maps, rows, items), rows)


def ask_backfill(case: Case, maps: Maps, rows: Int[np.ndarray, " q"], first: Embedded) -> Found:
    """n(q) · n(x)."""
    return case.search(case.new[rows], _fresh(case), rows)


def ask_backfill_head(case: Case, maps: Maps, rows: Int[np.ndarray, " q"], first: Embedded) -> Found:
    """k(n(q)) · n(x): what a backfill gives with the labels."""
    assert maps.new_head is not None  # the table says that it needs labels
    return case.search(maps.new_head, _fresh(case), rows)


def _joined(case: Case, maps: Maps, rows: Int[np.ndarray, " q"], items: Rows) -> tuple[Rows, Rows]:
    """Queries and items of both spaces side by side."""
    assert maps.asked is not None  # the table says that it needs old queries
    share, weight = maps.methods.join
    queries = mixed(case.new[rows], maps.asked, share, case.metric)
    weight *= case.scale
    return joined(queries, _old(case)[rows], weight), joined(items, case.items, weight)


def _old(case: Case) -> Rows:
    assert case.old is not None  # the table says that it needs old queries
    return case.old


def _fresh(case: Case) -> Rows:
    assert case.fresh is not None  # the table says that it needs the true new vectors
    return case.fresh


RUNGS = (  # cheapest first
    Rung("old", "o(q) · o(x)", ask_old, (OLD_QUERIES,), old_queries=True),
    Rung("old+head", "k(o(q)) · o(x)", ask_old_head, (OLD_QUERIES, LABELS), old_queries=True, labels=True),
    Rung("mapped", "g(n(q)) · o(x)", ask_mapped),
    Rung("mapped+csls", f"2 g(n(q)) · o(x) − r(x) among {CANDIDATES}", ask_mapped_csls, (NUMBER,)),
    Rung("fused", "(o(q) + w g(n(q))) · o(x)", ask_fused, (OLD_QUERIES,), old_queries=True),
    Rung("translated", "n(q) · h(o(x))", ask_translated, (SPACE,)),
    Rung(
        "translated+fused",
        "(n(q) + a h(o(q))) · h(o(x)) + w o(q) · o(x)",
        ask_joined,
        (OLD_QUERIES, SPACE),
        old_queries=True,
    ),
    Rung("cascade", f"n(q) · n(x) among {CANDIDATES}", ask_cascade, (CONTENTS + " at query time",), fresh=True),
    Rung("partial", "translated, a share re-embedded", ask_partial, (CONTENTS, SPACE), fresh=True),
    Rung("backfill", "n(q) · n(x)", ask_backfill, (CONTENTS, SPACE), fresh=True),
    Rung("backfill+head", "k(n(q)) · n(x)", ask_backfill_head, (CONTENTS, SPACE, LABELS), fresh=True, labels=True),
)
