"""Fit an adapter between two sets of features and measure it on rows kept out; or fit several and take the best."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int64
from torch import Tensor

from ..arrays import Array, as_tensor
from ..errors import DataError
from ..features.features import Features
from ..indexes.exact import search
from .adapter import Adapter, fit_pairs
from .pairs import Pairs

TESTED = 10_000  # pairs kept out of a fit, at most, to measure it
QUERIES = 2000
NEIGHBOURS = 10
CLASSES_OUT = 0.2  # of the classes, where the gallery's are not those of the training set
CANDIDATES = ("ridge", "head", "neighbour-head", "mixed-head", "ranking-head")
UNLABELLED = ("ridge", "residual-mlp", "ranking-head", "instance-head")


@dataclass(frozen=True)
class Trial:
    """An adapter, on how many rows it was fitted and tested, and what it scored on those that were kept out.

    cosine: mean of a mapped feature with the old one of the same row; cross, old_self: top-1 accuracy of mapped and of old
    queries among the old features kept out, own row left out; agreement: share of rows whose nearest old feature, after the
    map, is of one of the ten rows that are nearest by the new model itself: what a full backfill would have found. None where
    there are too few rows, or no labels.
    """

    adapter: Adapter
    rows: int
    tested: int
    cosine: float | None = None
    agreement: float | None = None
    cross: float | None = None
    old_self: float | None = None

    def __str__(self) -> str:
        text = f"fitted on {self.rows} rows; on {self.tested} kept out"
        if self.cosine is None or self.agreement is None:
            return f"{text}: too few to test"
        if self.cross is None or self.old_self is None:
            return f"{text}: cosine {self.cosine:.3f}, {self.agreement:.1%} answered as by a backfill"
        return f"{text}: cosine {self.cosine:.3f}, top-1 {self.cross:.1%} (old queries {self.old_self:.1%})"

    @property
    def score(self) -> float:
        """What `choose_adapter` compares: accuracy, or without labels the agreement with a backfill."""
        return (self.agreement or 0.0) if self.cross is None else self.cross


@dataclass(frozen=True)
class Choice:
    """The adapter that did best, fitted again to all rows; the trials of all candidates; and what there was to choose by."""

    adapter: Adapter
    trials: dict[str, Trial]
    facts: str

    @property
    def worth_it(self) -> bool:
        """Whether the best beat the old model's own queries; without labels nobody can say, and it is taken to."""
        best = self.trials[self.adapter.method]
        return best.cross is None or best.old_self is None or best.cross > best.old_self


@dataclass(frozen=True)
class Matched:
    """New and old features of the same items, and their classes where either side knows them."""

    new: Features
    old: Features
    places: Int64[Tensor, " n"]  # row of `old` for each row of `new`
    labels: Int64[np.ndarray, " n"] | None

    @classmethod
    def by_id(cls, new: Features, old: Features) -> "Matched":
        """Raises IncompatibleError where a new row has no old one."""
        places = torch.from_numpy(old.align(new.ids, "the old features"))
        labels = new.labels if new.has_labels else old.labels[places.numpy()] if old.labels is not None else None
        return cls(new, old, places, labels)

    def facts(self) -> str:
        """What there is to choose by: rows, classes and their sizes, dimensions, lengths of the old vectors."""
        first = as_tensor(self.old.vectors[self.places[:TESTED].numpy()])
        short, long = (float(length) for length in first.float().norm(dim=1).aminmax())
        lengths = "of unit length" if self.old.normalized else f"{short:.3g} to {long:.3g} long"
        text = f"{len(self.new)} pairs, {self.new.dimension} to {self.old.dimension} dimensions, old vectors {lengths}"
        if self.labels is None:
            return f"{text}, no labels"
        sizes = np.unique(self.labels, return_counts=True)[1]
        return f"{text}, {len(sizes)} classes of {sizes.min()} to {sizes.max()} rows"

    def pairs(self, rows: Int64[Tensor, " r"]) -> Pairs:
        return Pairs(self.new.vectors, self.old.vectors, rows, self.places[rows])

    def fit(self, name: str, rows: Int64[Tensor, " r"], seed: int, options: Mapping[str, Any] | None = None) -> Adapter:
        labels = None if self.labels is None else np.unique(self.labels[rows.numpy()], return_inverse=True)[1]
        adapter = fit_pairs(name, self.pairs(rows), labels, seed=seed, options=options)
        adapter.space_new, adapter.space_old = self.new.space, self.old.space
        return adapter

    def try_out(self, name: str, kept: Int64[Tensor, " k"], out: Int64[Tensor, " t"], seed: int, **options: Any) -> Trial:
        adapter = self.fit(name, kept, seed, options)
        if len(out) < 2:
            return Trial(adapter, len(kept), len(out))
        new, old = self.pairs(out).take(slice(0, None))
        mapped, old = adapter(new), old.float()
        cosine = float(F.cosine_similarity(mapped, old).mean())
        found, backfilled = _nearest(mapped, old, 1), _nearest(new.float(), new.float(), NEIGHBOURS)
        trial = Trial(adapter, len(kept), len(out), cosine, float((found == backfilled).any(axis=1).mean()))
        if self.labels is None:
            return trial
        labels = self.labels[out.numpy()]
        cross, before = (labels[rows[:, 0]] == labels[: len(rows)] for rows in (found, _nearest(old, old, 1)))
        return replace(trial, cross=float(cross.mean()), old_self=float(before.mean()))


def fit_features(name: str, new: Features, old: Features, *, seed: int = 0, options: Mapping[str, Any] | None = None) -> Trial:
    """An adapter between two sets of features, matched by id, fitted on all rows but a tenth, on which it is tested.

    Raises:
        IncompatibleError: the ids do not match.
    """
    matched = Matched.by_id(new, old)
    return matched.try_out(name, *_rows_out(len(new), seed), seed, **(options or {}))


def choose_adapter(new: Features, old: Features, *, unseen_classes: bool = False, seed: int = 0) -> Choice:
    """The adapter that does best on rows kept out, of those that the data allows.

    Args:
        unseen_classes: the gallery's classes are not those of these features: whole classes are kept out, a fifth of them.

    Raises:
        IncompatibleError: the ids do not match.
        DataError: too few rows or classes to keep some out.
    """
    matched = Matched.by_id(new, old)
    kept, out = _classes_out(matched.labels, seed) if unseen_classes else _rows_out(len(new), seed)
    if len(out) < 2:
        raise DataError(f"{len(new)} rows are too few to choose an adapter on; name a method, ridge for instance")
    names = UNLABELLED if matched.labels is None else CANDIDATES
    trials = {name: matched.try_out(name, kept, out, seed) for name in names}
    best = max(trials, key=lambda name: trials[name].score)
    return Choice(matched.fit(best, torch.arange(len(new)), seed), trials, matched.facts())


def _rows_out(count: int, seed: int) -> tuple[Tensor, Tensor]:
    order = torch.from_numpy(np.random.default_rng(seed).permutation(count))
    tested = min(TESTED, count // 10)
    return order[tested:].sort().values, order[:tested].sort().values


def _classes_out(labels: Int64[np.ndarray, " n"] | None, seed: int) -> tuple[Tensor, Tensor]:
    if labels is None:
        raise DataError("keeping classes out needs labels; store them with the features, or leave --unseen-classes away")
    classes = np.unique(labels)
    count = max(2, round(CLASSES_OUT * len(classes)))
    if len(classes) - count < 2:
        raise DataError(
            f"{len(classes)} classes are too few to keep a fifth out; leave --unseen-classes away, or name a method"
        )
    out = np.isin(labels, np.random.default_rng(seed).choice(classes, count, replace=False))
    kept, rows = (torch.from_numpy(np.flatnonzero(mask)) for mask in (~out, out))
    return kept, torch.from_numpy(np.random.default_rng(seed).permutation(rows.numpy())[:TESTED])


def _nearest(query: Tensor, gallery: Array, k: int) -> Int64[np.ndarray, "q k"]:
    """The rows of the gallery nearest to each of the first queries, their own left out."""
    count = min(QUERIES, len(query))
    indices = search(query[:count], gallery, min(k, len(gallery) - 1), exclude=np.arange(count)).indices
    found: np.ndarray = as_tensor(indices).cpu().numpy()
    return found
