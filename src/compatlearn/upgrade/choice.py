"""The methods and weights of a plan, chosen on pairs kept out: the usual ones, unless others surely do better."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ..adapters.kernel import KernelNetwork
from ..adapters.methods import ADAPTERS, CANDIDATES, DISTILLING, GALLERY, QUERY, TRANSLATING, UNLABELLED
from ..adapters.task import Tell, silent
from ..errors import TrainingError
from ..evaluation.figures import mean_of
from ..evaluation.relevance import Relevance
from ..metric import Metric
from .case import Case, Rows, directed
from .maps import FUSE, JOIN, Maps, Methods, Pairs, crossed, fit, fit_gallery, sampled
from .order import NONE
from .rungs import Found, Search, ask_fused, ask_joined, ask_mapped, ask_old, ask_translated
from .truth import AGREEING, Agreeing, Judged

TRIED = 3000  # pairs that methods are tried on, at most
QUERIES = 1000  # pairs kept out that ask, at most
SHARE = 0.2  # of the pairs that ask
USUAL = {QUERY: "distilled", GALLERY: "kernel-ridge"}  # without labels
FUSES = (FUSE, 0.5, 1.0, 3.0)
JOINS = (JOIN, (0.0, 0.0), (0.1, 0.1), (0.2, 0.5), (0.4, 0.25), (0.0, 0.4))


def kept_out(pairs: Pairs, metric: Metric, seed: int) -> tuple[Case, Int[np.ndarray, " f"]]:
    """Some pairs as queries, all of them as items, and the new model's own ranking as truth.

    Args:
        pairs: m of them.
        metric: what ranks.
        seed: of the draw.

    Returns:
        The case, and (f,) the numbers of the pairs that maps may be fitted to, which none of the queries is.
    """
    order = np.random.default_rng(seed).permutation(len(pairs))
    size = max(2, min(QUERIES, int(SHARE * len(pairs))))
    out, inside = np.sort(order[:size]), np.sort(order[size:])
    new, old = directed(pairs.new, metric), directed(pairs.old, metric)
    unknown = Agreeing(np.empty((0, 0), dtype=np.int64))
    ids = np.arange(len(pairs))
    case = Case(new[out], old[out], old, new, out, unknown, metric, ids[out], ids, "pairs kept out, among all pairs")
    wanted = case.search(case.new, new, case.rows, min(AGREEING, len(pairs) - 1))
    return replace(case, truth=Agreeing(wanted)), inside


@dataclass(frozen=True)
class Bench:
    """Pairs kept out, which ask, and all pairs, which are searched: what methods are tried on.

    Attributes:
        case: as `kept_out` gives it.
        pairs: all of them, the items of the case.
        inside: (f,) those that are fitted.
        seed: of training and of the folds.
        others: further items of the gallery, for the methods that learn from them.
    """

    case: Case
    pairs: Pairs
    inside: Int[np.ndarray, " f"]
    seed: int
    others: Rows | None = None

    @classmethod
    def of(cls, pairs: Pairs, metric: Metric, seed: int, others: Rows | None = None) -> "Bench":
        """Draw the pairs that ask."""
        case, inside = kept_out(pairs, metric, seed)
        return cls(replace(case, depth=AGREEING), pairs, inside, seed, others)

    def maps(self, methods: Methods, directions: tuple[str, ...] = (QUERY, GALLERY)) -> Maps:
        """The case mapped; an item that is fitted is translated by a fit that saw neither it nor a query.

        Args:
            methods: what is fitted.
            directions: of the maps that are wanted; without one the old vectors stay as they are, and so do new queries.
        """
        case, fitted = self.case, self.pairs.take(self.inside)
        assert case.old is not None
        maps = Maps(methods, case.new, case.items, case.old)
        if QUERY in directions:
            adapter = fit(fitted, methods.query, QUERY, case.metric, self.seed, self.others)
            own = np.full(len(case.items), -1)
            own[self.inside] = np.arange(len(self.inside))
            sample = sampled(fitted.new, own, adapter, case.metric)
            maps = replace(maps, mapped=directed(adapter.transform(case.new), case.metric), sample=sample)
        if GALLERY in directions:
            adapter = fit_gallery(fitted, methods, case.metric, self.seed)
            if isinstance(adapter.network_, KernelNetwork):
                methods = replace(methods, settled=adapter.network_.settled)
            translated = directed(adapter.transform(case.items), case.metric)
            translated[self.inside] = crossed(fitted, methods, case.metric, self.seed)
            asked = directed(adapter.transform(case.old), case.metric)
            maps = replace(maps, methods=methods, translated=translated, asked=asked)
        return maps

    def scores(self, ask: Search, maps: Maps) -> Float[np.ndarray, " q"]:
        """What every query scores."""
        return self.judged(ask(self.case, maps, self.case.rows, NONE))

    def judged(self, found: Found) -> Float[np.ndarray, " q"]:
        """What every query scores by what it found."""
        return self.case.truth.scores(self.case.rows, found)[self.case.truth.primary]

    def labelled(self) -> "Bench":
        """The same with the labels as truth, where there are labels."""
        labels = self.pairs.labels
        if labels is None:
            return self
        relevance = Relevance.from_labels(labels[self.case.own], labels)
        return replace(self, case=replace(self.case, truth=Judged(relevance, self.case.own, "top1")))


@dataclass(frozen=True)
class Tried:
    """A method on pairs kept out: its maps, what every query scored, and the seconds that its fit took."""

    maps: Maps
    scores: Float[np.ndarray, " q"]
    seconds: float

    def to_dict(self, fitted: int, seed: int) -> dict[str, Any]:
        """For JSON: the mean score with its interval."""
        return {"fitted": fitted, "score": mean_of(self.scores, seed=seed).to_dict(), "seconds": self.seconds}


def choose(
    pairs: Pairs, metric: Metric, seed: int, others: Rows | None = None, tell: Tell = silent
) -> tuple[Methods, dict[str, Any]]:
    """Methods and weights by agreement with the new model's own ranking; query maps by labels where there are labels.

    Args:
        pairs: what may be known; of many, some.
        metric: what ranks.
        seed: of every draw.
        others: further items of the gallery, for the methods that learn from them.
        tell: takes lines of progress.

    Returns:
        What to fit, and the trials of both directions for JSON.

    Raises:
        TrainingError: no method of a direction could be fitted.
    """
    pairs = pairs.some(TRIED, seed)
    bench = Bench.of(pairs, metric, seed, others)
    free = UNLABELLED if others is None else DISTILLING
    roads = {
        QUERY: (bench.labelled(), free if pairs.labels is None else CANDIDATES, ask_mapped),
        GALLERY: (bench, TRANSLATING, ask_translated),
    }
    before = ask_old(bench.case, bench.maps(Methods("", ""), ()), bench.case.rows, NONE)
    taken: dict[str, Maps] = {}
    trials: dict[str, Any] = {}
    for direction, (judge, names, ask) in roads.items():
        tried = _try(judge, direction, names, ask, before, tell)
        best = _best({name: one.scores for name, one in tried.items()}, USUAL[direction], seed)
        taken[direction] = tried[best].maps
        trials[direction] = {name: one.to_dict(len(bench.inside), seed) for name, one in tried.items()}
    query, maps = taken[QUERY], taken[GALLERY]
    methods = replace(maps.methods, query=query.methods.query)
    methods = _weighed(bench, replace(maps, mapped=query.mapped, methods=methods), seed)
    tell(f"chosen: {methods.query} for queries, {methods.gallery} for the gallery")
    return methods, trials


def _try(bench: Bench, direction: str, names: tuple[str, ...], ask: Search, before: Found, tell: Tell) -> dict[str, Tried]:
    """Every method of a direction that can be fitted; `before` is what old queries find.

    Raises:
        TrainingError: there is none.
    """
    what = "top-1" if bench.case.truth.primary == "top1" else "agreement with a backfill"
    old = bench.judged(before).mean()
    zero = not np.linalg.norm(bench.pairs.old, axis=1).all()
    tried: dict[str, Tried] = {}
    for name in names:
        if ADAPTERS[name].needs_directions and zero:
            tell(f"{name}: left out, some old vectors have length zero")
            continue
        started = time.monotonic()
        try:
            maps = bench.maps(Methods(name, name), (direction,))
        except TrainingError as error:
            tell(f"{name}: left out, {error}")
            continue
        one = tried[name] = Tried(maps, bench.scores(ask, maps), round(time.monotonic() - started, 2))
        tell(f"{name}: {one.seconds:.1f} s, {what} {one.scores.mean():.1%} (old queries {old:.1%})")
    if not tried:
        raise TrainingError("no method could be fitted to these pairs; look at the vectors")
    return tried


def _weighed(bench: Bench, maps: Maps, seed: int) -> Methods:
    """The usual weights of what is mixed, unless others surely do better."""

    def scores_of(ask: Search, name: str, weights: Iterable[Any]) -> dict[Any, Float[np.ndarray, " q"]]:
        weighed = {weight: replace(maps, methods=replace(maps.methods, **{name: weight})) for weight in weights}
        return {weight: bench.scores(ask, one) for weight, one in weighed.items()}

    fuse = _best(scores_of(ask_fused, "fuse", FUSES), FUSE, seed)
    join = _best(scores_of(ask_joined, "join", JOINS), JOIN, seed)
    return replace(maps.methods, fuse=fuse, join=join)


def _best(scores: Mapping[Any, Float[np.ndarray, " q"]], usual: Any, seed: int) -> Any:
    """The usual one, unless the best one's gain over it is above zero by its interval; the best one where it is missing."""
    best = max(scores, key=lambda name: float(scores[name].mean()))
    if usual not in scores or mean_of(scores[best] - scores[usual], seed=seed).low > 0:
        return best
    return usual
