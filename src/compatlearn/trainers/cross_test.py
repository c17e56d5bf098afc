"""The cross test of a model that is still in training: everything is checked before it begins, nothing of it after."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from ..errors import IncompatibleError
from ..evaluation.compatibility import compatibility
from ..evaluation.relevance import Relevance
from ..evaluation.result import TESTS, Compatibility
from ..features.features import Features
from ..metric import Metric

Encode: TypeAlias = Callable[[Sequence[Any]], Any]


@dataclass(frozen=True, eq=False)
class CrossTest:
    """Asks the old gallery with queries of the model as it is now, as often as it is called.

    The old model is not needed, only what it left: features of the gallery and of the queries. What answers a query is said by
    their labels or by `relevance`; without either, by agreement, which needs `items`. All of it is checked at once, by a
    comparison of the old model with itself, so that nothing fails after the first hour of training.

    Attributes:
        queries: q inputs of the new model, such as texts, one per row of `old_query`.
        old_gallery: features of the old model, as the index holds them.
        old_query: the same queries by the old model; None: the queries are the gallery's items, each left out of its own
            search.
        items: n inputs, one per row of `old_gallery`, for the new self test; None: it is left out where queries are not
            the gallery's items.
        relevance: what answers the queries, by their ids; None: what has the query's label.
        metric: what ranks.
        independent: queries by a new model trained without regard to the old one, for the update gain.
        independent_gallery: the gallery by that model.
        pad: the new model may have fewer dimensions than the old one, and was trained for zeros in the rest.

    Raises:
        DataError: nothing says what answers a query, or vectors that cannot be searched.
        IncompatibleError: inputs and features differ in number, or features do not fit together.
        ConfigError: unknown metric.

    Examples:
        >>> import numpy as np
        >>> labels = np.arange(40) % 4
        >>> old = Features(np.eye(4)[labels] + 0.5 * np.random.default_rng(0).standard_normal((40, 4)), labels)
        >>> test = CrossTest(labels.tolist(), old)
        >>> after = test(lambda queries: torch.eye(4)[queries])  # your model; it has learned the old space
        >>> after.compatible, after.cross.top1.value
        ('yes', 1.0)
    """

    queries: Sequence[Any]
    old_gallery: Features
    old_query: Features | None = None
    items: Sequence[Any] | None = None
    relevance: Relevance | None = None
    metric: Metric = "euclidean"
    independent: Features | None = None
    independent_gallery: Features | None = None
    pad: bool = False

    def __post_init__(self) -> None:
        _check_count(self.queries, self._asked, "queries", "old_gallery" if self.old_query is None else "old_query")
        if self.items is not None:
            _check_count(self.items, self.old_gallery, "items", "old_gallery")
        self._compare(self._asked, None if self.items is None else self.old_gallery)

    def __call__(self, encode: Encode, encode_items: Encode | None = None) -> Compatibility:
        """The figures of the model as it is now.

        Args:
            encode: q queries → (q, d_new) vectors, NumPy or torch; called without gradients. Put a network into evaluation mode
                yourself.
            encode_items: the same for the gallery's items; None: `encode`.

        Returns:
            Figures with 95 % intervals, and the verdict; `to_metrics` makes plain numbers of them.

        Raises:
            IncompatibleError: not one vector per input, or fewer dimensions than the old gallery has.
            DataError: NaN or infinity in the vectors.
        """
        with torch.no_grad():
            query = _features(encode(self.queries), self._asked, "queries")
            encode_items = encode_items or encode
            gallery = None if self.items is None else _features(encode_items(self.items), self.old_gallery, "items")
        return self._compare(query, gallery)

    @property
    def _asked(self) -> Features:
        return self.old_gallery if self.old_query is None else self.old_query

    def _compare(self, query: Features, gallery: Features | None) -> Compatibility:
        return compatibility(
            old_query=self._asked,
            old_gallery=self.old_gallery,
            new_query=query,
            new_gallery=gallery,
            independent=self.independent,
            independent_gallery=self.independent_gallery,
            relevance=self.relevance,
            metric=self.metric,
            pad=self.pad,
        )


def to_metrics(result: Compatibility) -> dict[str, float]:
    """Plain numbers for a log.

    Args:
        result: of a cross test.

    Returns:
        `cross_top1`, `old_self_ndcg10` and so on, one per test and figure; `gain`, `update_gain` and `negative_flips`; the ends
        of the intervals of `gain` and of the cross test's primary figure as `…_low` and `…_high`; `compatible`, 1 for yes, 0
        for undecided and −1 for no. What is unknown or infinite is left out.
    """
    found = {
        f"{test}_{name}": figure.value
        for test in TESTS
        if (scores := getattr(result, test)) is not None
        for name, figure in scores.known().items()
    }
    primary = result.cross.known()[result.primary]
    for name, figure in (("gain", result.gain), (f"cross_{result.primary}", primary)):
        found |= {name: figure.value, f"{name}_low": figure.low, f"{name}_high": figure.high}
    if result.update_gain is not None and math.isfinite(result.update_gain.value):
        found["update_gain"] = result.update_gain.value
    return found | {"negative_flips": result.negative_flips.value, "compatible": float(result.gain.sign)}


def _check_count(inputs: Sequence[Any], features: Features, name: str, what: str) -> None:
    if len(inputs) != len(features):
        raise IncompatibleError(
            f"{len(inputs)} {name} and {len(features)} rows of {what}; give one input per row, in its order"
        )


def _features(vectors: Any, like: Features, name: str) -> Features:
    """What the new model gave, under the ids and labels of the old features."""
    if len(vectors) != len(like):
        raise IncompatibleError(f"encode gave {len(vectors)} vectors for {len(like)} {name}; return one per input, in order")
    return Features(vectors, like.labels, like.ids, source=name, ids_from=like.ids_from, classes=like.classes)
