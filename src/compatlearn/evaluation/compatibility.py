"""Is the new model compatible with the old gallery? Self tests, the cross test, and the verdict."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from ..errors import IncompatibleError
from ..features.ids import FeaturesLike, Items, check_space, rows_of
from ..indexes.exact import search
from ..indexes.hits import Hits
from .figures import Figure, bootstrap
from .metrics import map_at_r, negative_flips, relevance, top_k

TESTS = {  # the four searches, and what people call them
    "old_self": "old self test",
    "cross": "cross test",
    "new_self": "new self test",
    "independent_self": "independent self test",
}
CURVE = 20  # accuracy is kept for k = 1 to this
DEEPEST = 1000  # mAP@R looks no further than this, or a few large classes would cost whole rankings


@dataclass(frozen=True)
class Scores:
    """How well one pair of query and gallery model searches; figures in [0, 1]."""

    top1: Figure
    top5: Figure
    map_r: Figure


@dataclass(frozen=True)
class ClassChange:
    """Top-1 accuracy of the queries of one class, before and after the new model asks the old gallery."""

    label: int
    queries: int
    old_self: float
    cross: float


@dataclass(frozen=True)
class Compatibility:
    """The verdict and all that it rests on; every figure with its 95 % interval.

    Attributes:
        old_self: old queries in the old gallery: the system as it is.
        cross: new queries in the old gallery: the system after the upgrade, nothing re-embedded.
        new_self: new queries in the new gallery: after a full backfill with the same model; None without a new gallery.
        independent_self: a new model trained without regard to the old one, in its own gallery; None where not given.
        gain: cross − old self, top-1, paired by query.
        update_gain: (cross − old self) / (independent self − old self), top-1, paired: 1 is as good as a full
            backfill. Unbounded where the interval of the denominator holds zero; None without an independent model.
        negative_flips: share of all queries that the old system answers right and the new one wrong, top-1.
        compatible: "yes" if the whole interval of `gain` is above zero, "no" if it is below, else "undecided";
            a model that changes nothing is "undecided".
        queries: how many.
        queries_without_relevant: how many of them have no row of their class in the gallery; each counts as a miss.
        map_r_limit: None, or the R that larger ones were cut to for mAP@R.
        per_class: top-1 by class, in order of class.
        accuracy_at_k: for each of the tests above, accuracy at k = 1, 2, …, 20.
    """

    old_self: Scores
    cross: Scores
    new_self: Scores | None
    independent_self: Scores | None
    gain: Figure
    update_gain: Figure | None
    negative_flips: Figure
    compatible: str
    queries: int
    queries_without_relevant: int
    map_r_limit: int | None
    per_class: list[ClassChange]
    accuracy_at_k: dict[str, list[float]]

    def to_dict(self) -> dict[str, Any]:
        """For JSON: plain figures, None where there is none or it is infinite, and the intervals beside them."""
        values: dict[str, Any] = {}
        intervals: dict[str, Any] = {}
        for name in TESTS:
            scores = getattr(self, name)
            values[name] = None if scores is None else {part: _plain(figure) for part, figure in vars(scores).items()}
            intervals[name] = None if scores is None else {part: _ends(figure) for part, figure in vars(scores).items()}
        for name in ("gain", "update_gain", "negative_flips"):
            figure = getattr(self, name)
            values[name], intervals[name] = (None, None) if figure is None else (_plain(figure), _ends(figure))
        return {
            **values,
            "compatible": self.compatible,
            "intervals": intervals,
            "queries": self.queries,
            "queries_without_relevant": self.queries_without_relevant,
            "map_r_limit": self.map_r_limit,
            "per_class": [dict(vars(change)) for change in self.per_class],
            "accuracy_at_k": self.accuracy_at_k,
        }


def compatibility(
    *,
    old_query: FeaturesLike,
    old_gallery: FeaturesLike,
    new_query: FeaturesLike,
    new_gallery: FeaturesLike | None = None,
    independent: FeaturesLike | None = None,
    independent_gallery: FeaturesLike | None = None,
    metric: str = "euclidean",
    seed: int = 0,
    searcher: Callable[..., Hits] = search,
    adapter: Callable[[Any], Any] | None = None,
) -> Compatibility:
    """Self tests and cross test on the same queries, each query's own row (by id) left out of every gallery.

    Rows of the new and the independent model are put in the order of the old ones, by id. Where the old queries are
    the old gallery, the new queries serve as the new gallery, and so for the independent model. Ids must name the same
    items in queries and galleries: row numbers do so only where both hold the same rows.

    Args:
        old_query: `Features` of the old model: vectors (n, d_old), int64 classes (n,), unique ids (n,), and the space.
        old_gallery: what the old model left in the index; may be `old_query` itself.
        new_query: the same queries by the new model, of any dimension.
        new_gallery: the same gallery by the new model, if it was re-embedded.
        independent: the same queries by a new model trained without regard to the old one.
        independent_gallery: the same gallery by that model.
        metric: "euclidean" or "cosine".
        seed: of the bootstrap.
        searcher: what searches, called as `search` is.
        adapter: (q, d_new) → (q, d_old), such as `load_adapter` gives: the cross test asks with mapped queries. The self tests
            stay those of the features themselves, since a frozen model is not changed.

    Raises:
        DataError: no labels, or ids that are not unique.
        IncompatibleError: other queries, other classes, or spaces and dimensions that do not fit.
        ConfigError: unknown metric.

    Source: protocol and criterion of Non-Inherent Feature Compatible Learning, section 4; update gain and empirical
    criterion: Shen et al., Towards Backward-Compatible Representation Learning, CVPR 2020.
    """
    optional = {"new_gallery": new_gallery, "independent": independent, "independent_gallery": independent_gallery}
    given = {"old_query": old_query, "old_gallery": old_gallery, "new_query": new_query} | optional
    items = {name: Items.of(features, name) for name, features in given.items() if features is not None}
    pairs = _pairs(items)
    old, gallery = pairs["old_self"]
    if adapter is not None:
        pairs["cross"] = _mapped(pairs["cross"][0], gallery, adapter), gallery
    own = rows_of(old, gallery)
    relevant = _relevant_counts(old, gallery, own)
    outcomes = {name: _outcome(*pair, own, relevant, metric, searcher) for name, pair in pairs.items()}
    scores = {name: outcome.scores(seed) for name, outcome in outcomes.items()}
    before, after = outcomes["old_self"].top1, outcomes["cross"].top1
    gain = bootstrap(lambda means: means[:, 1] - means[:, 0], np.stack([before, after], axis=1), seed=seed)
    alone = outcomes.get("independent_self")
    return Compatibility(
        old_self=scores["old_self"],
        cross=scores["cross"],
        new_self=scores.get("new_self"),
        independent_self=scores.get("independent_self"),
        gain=gain,
        update_gain=None if alone is None else _update_gain(before, after, alone.top1, seed),
        negative_flips=_mean(negative_flips(before, after), seed),
        compatible="yes" if gain.low > 0 else "no" if gain.high < 0 else "undecided",
        queries=len(old),
        queries_without_relevant=int((relevant == 0).sum()),
        map_r_limit=DEEPEST if relevant.max() > DEEPEST else None,
        per_class=_per_class(old.labels, before, after),
        accuracy_at_k={name: outcome.curve for name, outcome in outcomes.items()},
    )


def _pairs(items: dict[str, Items]) -> dict[str, tuple[Items, Items]]:
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
            raise IncompatibleError(f"{own} is given without {query}; give the queries of that model too")
        if query in items and (own in items or closed):
            target = items[own if own in items else query]
            check_space(items[query], target)
            pairs[test] = items[query].in_order_of(old), target.in_order_of(gallery)
        elif query == "independent" and query in items:
            raise IncompatibleError("independent needs independent_gallery: the gallery is not the query set; give it too")
    return pairs


def _mapped(query: Items, gallery: Items, adapter: Callable[[Any], Any]) -> Items:
    """The queries as the adapter gives them, checked against the spaces that it says it is for."""
    for items, side in ((query, "space_new"), (gallery, "space_old")):
        space = getattr(adapter, side, "")
        if space and items.space and space != items.space:
            raise IncompatibleError(
                f"the adapter's {side} is {space!r} and {items.name} is in space {items.space!r}; fit one for these two models"
            )
    vectors = adapter(query.vectors)
    wanted = len(query), gallery.vectors.shape[1]
    if tuple(vectors.shape) != wanted:
        raise IncompatibleError(
            f"the adapter gives shape {tuple(vectors.shape)} for {wanted[0]} queries of a gallery of {wanted[1]} dimensions; "
            "fit it on features of that gallery's model"
        )
    return replace(query, vectors=vectors)


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
    query: Items, gallery: Items, own: Int[np.ndarray, " q"], relevant: Int[np.ndarray, " q"], metric: str, searcher: Any
) -> _Outcome:
    counted = relevant.clip(max=DEEPEST)
    hits = searcher(query.vectors, gallery.vectors, max(CURVE, int(counted.max())), metric, exclude=own)
    right = relevance(hits.indices, query.labels, gallery.labels)  # (q, k)
    curve = [float(top_k(right, k).mean()) for k in range(1, CURVE + 1)]
    return _Outcome(top_k(right, 1), top_k(right, 5), map_at_r(right, counted), curve)


def _relevant_counts(query: Items, gallery: Items, own: Int[np.ndarray, " q"]) -> Int[np.ndarray, " q"]:
    """(q,) int64 gallery rows of each query's class, its own row not counted."""
    classes, counts = np.unique(gallery.labels, return_counts=True)
    place = np.searchsorted(classes, query.labels).clip(max=len(classes) - 1)
    total: np.ndarray = np.where(classes[place] == query.labels, counts[place], 0) - (own >= 0)
    return total


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


def _plain(figure: Figure) -> float | None:
    return figure.value if np.isfinite(figure.value) else None


def _ends(figure: Figure) -> list[float | str]:
    values = figure.to_dict()
    return [values["low"], values["high"]]
