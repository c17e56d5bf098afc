"""The live index itself asked with a plan's queries: by a look at every vector, and through its index as it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from ..arrays import as_numpy
from ..evaluation.figures import Figure, mean_of
from ..evaluation.relevance import Relevance
from ..features.features import Features
from ..indexes.index import Index, Readable
from ..indexes.recall import nearest_in_one_pass, shared
from ..metric import Metric
from .advice import TITLES
from .case import Case, Rows, mixed
from .maps import Methods
from .measure import Part
from .part import places_of
from .truth import AGREEING, Judged

ASKED = 200  # queries, at most
LITTLE = 0.01  # recall that may be lost without a word
FEW = 0.9  # recall below which there is a word where no old queries can be compared


@dataclass(frozen=True)
class OnIndex:
    """What queries of one rung find in the live index.

    Attributes:
        rung: old, mapped or fused.
        recall: share of the exact ten nearest that the index finds as it is.
        exact: the plan's figure of the exact ten; None where nothing says what is right among all items.
        as_is: the same of what the index finds as it is.
        change: as_is − exact, paired.
        loses: whether the index finds surely less of these than of the old queries; without old ones, less than 90 %.
    """

    rung: str
    recall: Figure
    exact: Figure | None
    as_is: Figure | None
    change: Figure | None
    loses: bool = False

    def to_dict(self) -> dict[str, Any]:
        """For JSON; figures in [0, 1]."""
        figures = {name: getattr(self, name) for name in ("exact", "as_is", "change", "recall")}
        known = {name: None if one is None else one.to_dict() for name, one in figures.items()}
        return {"name": self.rung, **known, "loses": self.loses}


@dataclass(frozen=True)
class Live:
    """The live index, asked.

    Attributes:
        queries: how many asked.
        primary: the figure that is measured; None where it cannot be.
        unknown: share of the first hits of which nobody knows the class; each counts as wrong.
        rungs: those that ask the first vectors.
    """

    queries: int
    primary: str | None
    unknown: float
    rungs: tuple[OnIndex, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        facts = {"queries": self.queries, "primary": self.primary, "unknown": self.unknown}
        return facts | {"rungs": [one.to_dict() for one in self.rungs]}

    def notes(self) -> list[str]:
        """In words, one line per rung, and one about recall that is lost."""
        title = TITLES.get(self.primary or "", "")
        lines = []
        for one in self.rungs:
            said = f"the index as it is finds {one.recall.value:.1%} of the ten nearest of {one.rung} queries"
            if one.exact is not None and one.as_is is not None:
                said += f"; {title} {one.as_is:.1%}, and {one.exact:.1%} by exact search"
            lines.append(said)
        by_name = {one.rung: one for one in self.rungs}
        if losing := [one for one in self.rungs if one.loses]:
            worst = min(losing, key=lambda one: one.recall.value)
            old = f", and {by_name['old'].recall.value:.0%} of those of old queries" if "old" in by_name else ""
            lines.append(
                f"{' and '.join(one.rung for one in losing)} queries lose recall on this index: it finds "
                f"{worst.recall.value:.0%} of their ten nearest{old}. It was built on old vectors: let it search deeper "
                "(ef_search, probes, nprobes) before you send mapped queries, and measure again"
            )
        if self.unknown:
            lines.append(f"{self.unknown:.1%} of the first hits in the live index have no known class and count as wrong")
        return lines


@dataclass(frozen=True)
class Answers:
    """What is right among all items of the index, as far as they are known.

    Attributes:
        relevance: by row numbers of queries and items.
        ids: (n,) of the items.
        own: (q,) the item that is the query itself, or -1.
        primary: the figure that is measured.
        every: whether an item that is not among them may be right too.
    """

    relevance: Relevance
    ids: Shaped[np.ndarray, " n"]
    own: Int[np.ndarray, " q"]
    primary: str
    every: bool

    def scores(self, rows: Int[np.ndarray, " q"], found: Shaped[np.ndarray, "q k"]) -> tuple[Float[np.ndarray, " q"], float]:
        """What queries score with the ids that they found, and the share of first hits that nobody knows."""
        order = np.argsort(self.ids, kind="stable")
        places = places_of(self.ids[order], found.ravel()).reshape(found.shape)
        items = np.where(places < 0, -1, order[places])
        unknown = float((items[:, 0] < 0).mean()) if self.every else 0.0
        return Judged(self.relevance, self.own, self.primary).scores(rows, items)[self.primary], unknown


@dataclass(frozen=True)
class Target:
    """A live index that a plan is made for.

    Attributes:
        index: `Index` and `Readable`.
        gallery: what was read of it, with labels where they are known.
        queries: the new queries; None: there are none, and nothing is asked.
        relevance: judgements, or None.
    """

    index: Any
    gallery: Features
    queries: Features | None
    relevance: Relevance | None

    def ask(self, case: Case, asked: Mapping[str, Rows], seed: int) -> Live:
        """Ask with a case's queries, which are these in their order.

        Args:
            case: with what is right.
            asked: rung → (q, d_old) queries.
            seed: of the draws.
        """
        own = np.where(case.own < 0, "" if case.item_ids.dtype.kind == "U" else -1, case.item_ids[case.own])
        left = own if (case.own >= 0).any() else None
        return ask_index(self.index, self.gallery, asked, left, self._answers(case, own), case.clusters, seed)

    def _answers(self, case: Case, own: Shaped[np.ndarray, " q"]) -> Answers | None:
        if not isinstance(case.truth, Judged) or self.queries is None:
            return None
        ids, relevance = self.gallery.ids, self.relevance
        if relevance is not None:
            relevance = relevance.at(self.queries.ids, ids)
        elif self.queries.labels is not None and self.gallery.labels is not None:
            relevance = Relevance.from_labels(self.queries.labels, self.gallery.labels)
        if relevance is None:
            return None
        order = np.argsort(ids, kind="stable")
        places = places_of(ids[order], own)
        return Answers(relevance, ids, np.where(places < 0, -1, order[places]), case.truth.primary, self.relevance is None)


def questions(case: Case, parts: list[Part], methods: Methods) -> dict[str, Rows]:
    """What the rungs that ask the first vectors ask, each query by maps that were not fitted to it.

    Args:
        case: queries and items.
        parts: of the queries, with their maps.
        methods: of the maps, for the weight of the mixture.
    """
    mapped = np.zeros((len(case), case.items.shape[1]), dtype=np.float32)
    for part in parts:
        mapped[part.rows] = part.maps.mapped
    return mixtures(case.old, mapped, methods, case.metric)


def mixtures(old: Rows | None, mapped: Rows, methods: Methods, metric: Metric) -> dict[str, Rows]:
    """Old, mapped and fused queries; of these the mapped ones alone, where there are no old ones.

    Args:
        old: (q, d_old), or None.
        mapped: (q, d_old).
        methods: with the weight of the mixture.
        metric: what ranks.
    """
    if old is None:
        return {"mapped": mapped}
    return {"old": old, "mapped": mapped, "fused": mixed(old, mapped, methods.fuse, metric)}


def ask_index(
    index: Any,
    gallery: Features,
    asked: Mapping[str, Rows],
    own: Shaped[np.ndarray, " q"] | None = None,
    answers: Answers | None = None,
    clusters: Int[np.ndarray, " q"] | None = None,
    seed: int = 0,
) -> Live:
    """Ask a live index with the queries of some rungs, exactly and as it is; the pairs are in it, as they are in service.

    Args:
        index: `Index` and `Readable`.
        gallery: what was read of it; where that is all, it is not read again.
        asked: rung → (q, d_old) queries.
        own: (q,) id of the item that is the query itself; None: no query is an item.
        answers: what is right; None where nobody knows it of all items.
        clusters: (q,) groups of queries that intervals draw as a whole; None: single queries.
        seed: of the draws.

    Returns:
        What at most `ASKED` queries, drawn at random, find.
    """
    assert isinstance(index, Index)
    assert isinstance(index, Readable)
    count = len(next(iter(asked.values())))
    rows = np.sort(np.random.default_rng(seed).permutation(count)[:ASKED])
    k = AGREEING + (own is not None)
    blocks = [gallery] if len(gallery) == len(index) else index.scan()
    every, there = nearest_in_one_pass(np.concatenate([one[rows] for one in asked.values()]), blocks, k, index.metric)
    groups, recalls, found, unknown = None if clusters is None else clusters[rows], dict[str, np.ndarray](), [], 0.0
    for place, (name, queries) in enumerate(asked.items()):
        left = None if own is None else own[rows]
        near = as_numpy(index.search(queries[rows], AGREEING, exact=False, exclude=left).ids)
        ids, real = (one[place * len(rows) : (place + 1) * len(rows)] for one in (every, there))
        if left is not None:
            ids, real = _without(ids, real, left)
        recalls[name] = shared(near, ids, real) / np.maximum(1, real.sum(axis=1))
        exact = as_is = change = None
        if answers is not None:
            right, _ = answers.scores(rows, np.where(real, ids, "" if ids.dtype.kind == "U" else -1))
            mine, lost = answers.scores(rows, near)
            unknown = max(unknown, lost)
            exact, as_is, change = (mean_of(some, seed=seed, clusters=groups) for some in (right, mine, mine - right))
        recall = mean_of(recalls[name], seed=seed, clusters=groups)
        found.append(OnIndex(name, recall, exact, as_is, change, _loses(name, recall, recalls, seed)))
    return Live(len(rows), None if answers is None else answers.primary, unknown, tuple(found))


def _loses(name: str, recall: Figure, recalls: Mapping[str, np.ndarray], seed: int) -> bool:
    if name == "old":
        return False
    if "old" not in recalls:
        return recall.value < FEW
    lost = mean_of(recalls[name] - recalls["old"], seed=seed)
    return lost.high < 0 and lost.value < -LITTLE


def _without(
    ids: Shaped[np.ndarray, "q m"], there: Shaped[np.ndarray, "q m"], own: Shaped[np.ndarray, " q"]
) -> tuple[np.ndarray, np.ndarray]:
    """The first k of k + 1 neighbours that are not the query itself."""
    order = np.argsort(ids == own[:, None], axis=1, kind="stable")[:, :-1]
    same = np.take_along_axis(ids == own[:, None], order, axis=1)
    return np.take_along_axis(ids, order, axis=1), np.take_along_axis(there, order, axis=1) & ~same
