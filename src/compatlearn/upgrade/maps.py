"""The maps that the rungs share: both directions fitted to pairs, and applied to the queries and items of a case."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from ..adapters.adapter import Adapter
from ..adapters.choice import Choice, Wish, choose
from ..adapters.matched import Matched, inspect
from ..adapters.methods import ADAPTERS, AUTO, GALLERY, QUERY
from ..adapters.task import Tell, silent
from ..evaluation.figures import mean_of
from ..metric import Metric
from .case import Case, Rows, directed
from .truth import AGREEING, Agreeing

FOLDS = 5  # of pairs that are translated by a fit which has not seen them
QUERIES = 1000  # pairs kept out that ask, at most
SHARE = 0.2  # of the pairs that ask
USUAL = {QUERY: "distilled", GALLERY: "kernel-ridge"}  # without labels
FUSE = 1.5  # weight of the mapped query beside the old one
FUSES = (0.5, 1.0, 3.0)
JOIN = (0.2, 0.25)  # weights of h(o(q)) beside n(q), and of the old space beside the new one
JOINS = ((0.0, 0.0), (0.1, 0.1), (0.2, 0.5), (0.4, 0.25), (0.0, 0.4))


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
    """

    query: str
    gallery: str
    fuse: float = FUSE
    join: tuple[float, float] = JOIN


@dataclass(frozen=True)
class Maps:
    """The maps applied to a case.

    Attributes:
        methods: what was fitted.
        mapped: (q, d_old) queries in the old space, g(n(q)).
        translated: (n, d_new) items in the new space, h(o(x)), none by a fit that saw the item.
        asked: (q, d_new) old queries in the new space, h(o(q)); None where the old model was not run on queries.
    """

    methods: Methods
    mapped: Rows
    translated: Rows
    asked: Rows | None

    def of(self, rows: Int[np.ndarray, " r"]) -> "Maps":
        """Those of some queries."""
        return replace(self, mapped=self.mapped[rows], asked=None if self.asked is None else self.asked[rows])


def fit(
    pairs: Pairs,
    method: str,
    direction: str,
    metric: Metric,
    seed: int,
    others: Rows | None = None,
    log: Pairs | None = None,
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
    """
    options: dict[str, Any] = {}
    if log is not None and not ADAPTERS[method].needs_labels:
        options = {"drawing": len(pairs)} if "drawing" in ADAPTERS[method].options else {}
        pairs = pairs + log
    return Adapter(method, direction, seed, metric, options=options).fit(pairs.new, pairs.old, pairs.labels, others=others)


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
    return {QUERY: query, GALLERY: fit(pairs, methods.gallery, GALLERY, metric, seed, log=log)}


def apply_maps(
    case: Case,
    pairs: Pairs,
    methods: Methods,
    seed: int,
    others: Rows | None = None,
    log: Pairs | None = None,
) -> tuple[Maps, dict[str, Adapter]]:
    """Both maps, fitted to pairs that are none of the queries or items, and applied to them.

    Args:
        case: queries and items.
        pairs: what is fitted.
        methods: of each direction.
        seed: of training.
        others: further items of the gallery, as for `fit`.
        log: logged queries, as for `fit`; none of the queries that are measured with these maps.

    Returns:
        The maps, and the adapters by direction.
    """
    adapters = fit_maps(pairs, methods, case.metric, seed, others, log)
    query, gallery = adapters[QUERY], adapters[GALLERY]
    asked = None if case.old is None else directed(gallery.transform(case.old), case.metric)
    mapped = directed(query.transform(case.new), case.metric)
    maps = Maps(methods, mapped, directed(gallery.transform(case.items), case.metric), asked)
    return maps, adapters


def kept_out(pairs: Pairs, metric: Metric, seed: int, count: int | None = None) -> tuple[Case, Int[np.ndarray, " f"]]:
    """Some pairs as queries, all of them as items, and the new model's own ranking as truth.

    Args:
        pairs: m of them.
        metric: what ranks.
        seed: of the draw.
        count: how many ask; by default a fifth, at most 1,000.

    Returns:
        The case, and (f,) the numbers of the pairs that maps may be fitted to, which none of the queries is.
    """
    order = np.random.default_rng(seed).permutation(len(pairs))
    size = count or max(2, min(QUERIES, int(SHARE * len(pairs))))
    out, inside = np.sort(order[:size]), np.sort(order[size:])
    new, old = directed(pairs.new, metric), directed(pairs.old, metric)
    unknown = Agreeing(np.empty((0, 0), dtype=np.int64))
    ids = np.arange(len(pairs))
    case = Case(new[out], old[out], old, new, out, unknown, metric, ids[out], ids, "pairs kept out, among all pairs")
    wanted = case.search(case.new, new, case.rows, min(AGREEING, len(pairs) - 1))
    return replace(case, truth=Agreeing(wanted)), inside


def apply_crossed(
    case: Case, pairs: Pairs, inside: Int[np.ndarray, " f"], methods: Methods, seed: int, others: Rows | None = None
) -> Maps:
    """`apply_maps` where the items are the pairs themselves: each is translated by a fit that saw neither it nor a query.

    Args:
        case: as `kept_out` gives it.
        pairs: all pairs, which are the case's items.
        inside: (f,) those that may be fitted.
        methods: what is fitted.
        seed: of training, and of the folds.
        others: further items, as for `fit`.
    """
    fitted = pairs.take(inside)
    maps, _ = apply_maps(case, fitted, methods, seed, others)
    translated = maps.translated.copy()
    translated[inside] = crossed(fitted, methods.gallery, case.metric, seed)
    return replace(maps, translated=translated)


def crossed(pairs: Pairs, method: str, metric: Metric, seed: int) -> Rows:
    """(m, d_new) the pairs' old vectors, each translated by a fit that has not seen it."""
    folds = np.random.default_rng(seed).permutation(len(pairs)) % FOLDS
    translated = np.empty_like(pairs.new)
    for fold in range(FOLDS):
        adapter = fit(pairs.take(folds != fold), method, GALLERY, metric, seed)
        translated[folds == fold] = directed(adapter.transform(pairs.old[folds == fold]), metric)
    return translated


def choose_methods(
    pairs: Pairs, metric: Metric, seed: int, others: Rows | None = None, tell: Tell = silent
) -> tuple[Methods, dict[str, Any]]:
    """The method of each direction: the usual one, unless another surely does better in `Adapter`'s trials on pairs kept out.

    Returns:
        Their names, with the usual weights, and the trials of both directions for people and for JSON.
    """
    names, trials = {}, {}
    for direction in (QUERY, GALLERY):
        turned = direction == GALLERY
        matched = Matched.by_row(pairs.new, pairs.old, None if turned else pairs.labels)
        seen = inspect(matched, directions=metric == "cosine")
        facing = matched.turned() if turned else matched
        further = None if others is None else torch.from_numpy(others)
        wish = Wish(AUTO, {}, metric, seed, False, direction, further)
        choice = choose(facing, seen[0 if turned else 1], wish, tested=True, tell=tell, refit=False)
        names[direction] = _usual(choice, USUAL[direction])
        trials[direction] = {name: trial.to_dict() for name, trial in choice.trials.items()}
    return Methods(names[QUERY], names[GALLERY]), trials


def _usual(choice: Choice, usual: str) -> str:
    """The method that is usually best, unless another surely does better on the pairs that chose."""
    best, known = choice.trials[choice.method].mapped, choice.trials.get(usual)
    if known is None or known.mapped is None or best is None or best.low > known.mapped.value:
        return choice.method
    return usual


Measure = Callable[[Case, Maps], Float[np.ndarray, " q"]]


def choose_weights(case: Case, maps: Maps, fused: Measure, joined: Measure, seed: int) -> Methods:
    """The usual weights, unless others surely do better on pairs kept out.

    Args:
        case: as `kept_out` gives it.
        maps: fitted to the other pairs.
        fused: what each query scores with its mapped and its old vector mixed.
        joined: what each query scores in both spaces.
        seed: of the bootstrap.
    """

    def with_fuse(weight: float) -> Maps:
        return replace(maps, methods=replace(maps.methods, fuse=weight))

    def with_join(weights: tuple[float, float]) -> Maps:
        return replace(maps, methods=replace(maps.methods, join=weights))

    fuse = _better([FUSE, *FUSES], lambda weight: fused(case, with_fuse(weight)), seed)
    join = _better([JOIN, *JOINS], lambda weights: joined(case, with_join(weights)), seed)
    return replace(maps.methods, fuse=fuse, join=join)


def _better(options: list[Any], score: Callable[[Any], Float[np.ndarray, " q"]], seed: int) -> Any:
    """The first option, unless the best one's gain over it is above zero by its interval."""
    scores = [score(option) for option in options]
    best = max(range(len(options)), key=lambda number: float(scores[number].mean()))
    gain = mean_of(scores[best] - scores[0], seed=seed)
    return options[best] if gain.low > 0 else options[0]
