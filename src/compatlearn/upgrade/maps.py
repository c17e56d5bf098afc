"""The maps that the rungs share: both directions fitted to pairs, and applied to the queries and items of a case."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Int

from ..adapters.adapter import Adapter
from ..adapters.folds import cross_fitted
from ..adapters.methods import ADAPTERS, GALLERY, QUERY
from ..adapters.references import with_head
from ..metric import Metric
from .case import Case, Rows, directed

FUSE = 1.5  # weight of the mapped query beside the old one
JOIN = (0.2, 0.25)  # weights of h(o(q)) beside n(q), and of the old space beside the new one
SAMPLED = 1000  # known queries that hubness is measured with, at most
ENOUGH = 100  # logged queries, of which an item's ten nearest are near
HEAD = "neighbour-head"  # the head of old+head and backfill+head, unless the query map is one itself
OLD_HEAD, NEW_HEAD = "old-head", "new-head"


@dataclass(frozen=True)
class Pairs:
    """New and old vectors of the same items: what the maps are fitted to.

    Attributes:
        new: (m, d_new) float32.
        old: (m, d_old) float32.
        labels: (m,) int64 classes, or None.
    """

    new: Rows
    old: Rows
    labels: Int[np.ndarray, " m"] | None = None

    def __len__(self) -> int:
        return len(self.new)

    def take(self, rows: Any) -> "Pairs":
        """Some of them, by number or mask."""
        return Pairs(self.new[rows], self.old[rows], None if self.labels is None else self.labels[rows])

    def some(self, most: int, seed: int) -> "Pairs":
        """All of them, or as many drawn at random."""
        if len(self) <= most:
            return self
        return self.take(np.sort(np.random.default_rng(seed).permutation(len(self))[:most]))

    def __add__(self, other: "Pairs") -> "Pairs":
        """Both; labels only where both have them."""
        labelled = self.labels is not None and other.labels is not None
        labels = np.concatenate([self.labels, other.labels]) if labelled else None
        return Pairs(np.concatenate([self.new, other.new]), np.concatenate([self.old, other.old]), labels)


@dataclass(frozen=True)
class Methods:
    """What is fitted: a method of each direction, and the weights of what is mixed.

    Attributes:
        query: name in `ADAPTERS`, of new to old.
        gallery: name in `ADAPTERS`, of old to new.
        fuse: weight of the mapped query beside the old one.
        join: weights of the translated old query beside the new one, and of the old space beside the new one.
        settled: options of the gallery's method that the trials have settled, so that no later fit chooses them again.
    """

    query: str
    gallery: str
    fuse: float = FUSE
    join: tuple[float, float] = JOIN
    settled: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"query": self.query, "gallery": self.gallery, "fuse": self.fuse, "join": list(self.join)}


@dataclass(frozen=True)
class Sample:
    """Mapped queries that are known beforehand: of the log, or of the pairs.

    Attributes:
        mapped: (s, d_old) in the old space, g(n).
        own: (n,) for each item the one that is the item itself, -1 for none.
    """

    mapped: Rows
    own: Int[np.ndarray, " n"]


@dataclass(frozen=True)
class Maps:
    """The maps applied to a case.

    Attributes:
        methods: what was fitted.
        mapped: (q, d_old) queries in the old space, g(n(q)).
        translated: (n, d_new) items in the new space, h(o(x)), none by a fit that saw the item.
        asked: (q, d_new) old queries in the new space, h(o(q)); None where the old model was not run on queries.
        old_head: (q, d_old) old queries through a head of the old space; None without labels or old queries.
        new_head: (q, d_new) new queries through a head of the new space; None without labels.
        sample: queries that hubness is measured with; None where no query was mapped.
    """

    methods: Methods
    mapped: Rows
    translated: Rows
    asked: Rows | None
    old_head: Rows | None = None
    new_head: Rows | None = None
    sample: Sample | None = None

    def of(self, rows: Int[np.ndarray, " r"]) -> "Maps":
        """Those of some queries."""
        asked, old_head, new_head = (
            None if side is None else side[rows] for side in (self.asked, self.old_head, self.new_head)
        )
        return replace(self, mapped=self.mapped[rows], asked=asked, old_head=old_head, new_head=new_head)


def fit(
    pairs: Pairs,
    method: str,
    direction: str,
    metric: Metric,
    seed: int,
    others: Rows | None = None,
    log: Pairs | None = None,
    options: Mapping[str, Any] | None = None,
) -> Adapter:
    """One map, without trials.

    Args:
        pairs: what it is fitted to.
        method: a name in `ADAPTERS`.
        direction: "query" or "gallery".
        metric: what ranks.
        seed: of training.
        others: (g, d_old) further items of the gallery, for the methods that learn from them.
        log: logged queries by both models, which are pairs too; methods that need labels do without.
        options: of the method.
    """
    given = dict(options or {})
    if log is not None and not ADAPTERS[method].needs_labels:
        given |= {"drawing": len(pairs)} if "drawing" in ADAPTERS[method].options else {}
        pairs = pairs + log
    return Adapter(method, direction, seed, metric, options=given).fit(pairs.new, pairs.old, pairs.labels, others=others)


def fit_gallery(pairs: Pairs, methods: Methods, metric: Metric, seed: int, log: Pairs | None = None) -> Adapter:
    """The map from old to new; arguments as for `fit`."""
    return fit(pairs, methods.gallery, GALLERY, metric, seed, log=log, options=methods.settled)


def fit_maps(
    pairs: Pairs,
    methods: Methods,
    metric: Metric,
    seed: int,
    others: Rows | None = None,
    log: Pairs | None = None,
) -> dict[str, Adapter]:
    """Both maps, by direction; arguments as for `fit`."""
    query = fit(pairs, methods.query, QUERY, metric, seed, others, log)
    return {QUERY: query, GALLERY: fit_gallery(pairs, methods, metric, seed, log)}


def head_method(methods: Methods) -> str:
    """What the heads of old+head and backfill+head are: as the query map, where that is a head."""
    return methods.query if ADAPTERS[methods.query].needs_labels else HEAD


def fit_heads(pairs: Pairs, methods: Methods, seed: int) -> dict[str, Adapter]:
    """A head from each space to itself: what the labels alone give; empty without labels."""
    if pairs.labels is None:
        return {}
    method = head_method(methods)
    sides = {OLD_HEAD: pairs.old, NEW_HEAD: pairs.new}
    return {name: with_head(method, side, pairs.labels, seed=seed) for name, side in sides.items()}


def apply_maps(
    case: Case, methods: Methods, adapters: Mapping[str, Adapter], pairs: Pairs, log: Int[np.ndarray, " l"] | None = None
) -> Maps:
    """What the rungs need of a case.

    Args:
        case: queries and items, none of them among the pairs that were fitted.
        methods: what was fitted.
        adapters: as `fit_maps` gives them, with those of `fit_heads` where there are any.
        pairs: that were fitted.
        log: (l,) numbers of the queries that were fitted as well.
    """

    def through(name: str, vectors: Rows | None) -> Rows | None:
        if vectors is None or name not in adapters:
            return None
        return directed(adapters[name].transform(vectors), case.metric)

    mapped, translated = through(QUERY, case.new), through(GALLERY, case.items)
    assert mapped is not None
    assert translated is not None
    heads = through(OLD_HEAD, case.old), through(NEW_HEAD, case.new)
    sample = sampled(*known_queries(case, pairs, log), adapters[QUERY], case.metric)
    return Maps(methods, mapped, translated, through(GALLERY, case.old), *heads, sample=sample)


def known_queries(case: Case, pairs: Pairs, log: Int[np.ndarray, " l"] | None = None) -> tuple[Rows, Int[np.ndarray, " n"]]:
    """What hubness is measured with: logged queries, which are what will be asked; the pairs too where these are few.

    Args:
        case: queries and items.
        pairs: none of them an item.
        log: (l,) numbers of the queries that are known beforehand.

    Returns:
        New vectors, and (n,) for each item the one that is the item itself, -1 for none.
    """
    asked = np.zeros(0, dtype=np.int64) if log is None else log
    first = 0 if len(asked) >= ENOUGH else len(pairs)
    places = np.full(len(case.items) + 1, -1)  # the last is that of "none"
    places[case.own[asked]] = first + np.arange(len(asked))
    return np.concatenate([pairs.new[:first], case.new[asked]]), places[:-1]


def sampled(known: Rows, own: Int[np.ndarray, " n"], adapter: Adapter, metric: Metric) -> Sample:
    """Some thousand known queries, mapped: hubness changes little with more.

    Args:
        known: (m, d_new) logged queries or pairs.
        own: (n,) for each item the one that is the item itself, -1 for none.
        adapter: of the query direction.
        metric: what ranks.
    """
    rows = np.sort(np.random.default_rng(0).permutation(len(known))[:SAMPLED])
    places = np.full(len(known) + 1, -1)  # the last is that of "none"
    places[rows] = np.arange(len(rows))
    return Sample(directed(adapter.transform(known[rows]), metric), places[own])


def crossed(pairs: Pairs, methods: Methods, metric: Metric, seed: int) -> Rows:
    """(m, d_new) the pairs' old vectors, each translated by a fit that has not seen it."""

    def translate(fitted: Int[np.ndarray, " i"], others: Int[np.ndarray, " o"]) -> Rows:
        return directed(fit_gallery(pairs.take(fitted), methods, metric, seed).transform(pairs.old[others]), metric)

    return cross_fitted(len(pairs), translate, seed)
