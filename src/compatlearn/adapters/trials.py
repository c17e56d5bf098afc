"""Rows kept out of a fit, asked in the old gallery: by mapped queries, and beside them by the old ones."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from ..arrays import as_tensor
from ..errors import DataError
from ..evaluation.figures import Figure, mean_of, resampled
from ..evaluation.metrics import agreement
from ..evaluation.relevance import Relevance
from ..indexes.exact import search
from ..metric import Metric
from .kernel import KernelNetwork
from .matched import Matched
from .network import MapNetwork

FITTED = 20_000  # pairs a trial is fitted to, at most
SEARCHED = 200_000  # old vectors a trial searches, at most
QUERIES = 2000  # pairs kept out to choose by, and as many to report on, at most
SHARE = 0.1  # of the pairs, kept out for each of the two
WANTED = 20  # of them at least, where a fifth of the pairs are that many
DECIDING = 10  # of fewer queries an interval says nothing
CLASSES_OUT = 0.2  # of the classes, where the gallery's are not those of the pairs
NEIGHBOURS = 10
FIGURES = ("mapped", "old", "gain", "old_head")  # of a trial, each with its interval


@dataclass(frozen=True)
class Split:
    """Which pairs are fitted, which choose, which report: three sets that share none; and which old vectors are searched."""

    fitted: Int64[Tensor, " f"]
    choosing: Int64[Tensor, " c"]
    reporting: Int64[Tensor, " r"]
    gallery: Int64[Tensor, " g"]

    @classmethod
    def of(cls, matched: Matched, seed: int, *, choosing: bool, unseen_classes: bool) -> "Split":
        """At random, by rows, or by classes where the gallery's will be others than those of the pairs.

        Args:
            matched: the pairs.
            seed: of the draw.
            choosing: keep out one set to choose by, beside the one to report on.
            unseen_classes: keep whole classes out.

        Raises:
            DataError: no labels, or too few classes, to keep classes out.
        """
        random = np.random.default_rng(seed)
        parts = 2 if choosing else 1
        if unseen_classes:
            kept, *out = _classes_apart(matched.labels, parts, random)
        else:
            order = random.permutation(len(matched))
            size = min(max(int(len(order) * SHARE), min(WANTED, len(order) // 5)), QUERIES)
            kept, *out = order[parts * size :], *np.split(order[: parts * size], parts)
        out = [rows[:QUERIES] for rows in out]
        gallery = np.arange(len(matched))
        if len(gallery) > SEARCHED:
            gallery = random.choice(len(gallery), SEARCHED, replace=False)
        first = out[0] if choosing else gallery[:0]
        return cls(*(torch.from_numpy(np.sort(rows)) for rows in (kept[:FITTED], first, out[-1], gallery)))


@dataclass(frozen=True)
class Trial:
    """A method, to how many pairs it was fitted, and how it did on pairs that were kept out.

    Attributes:
        method: its name.
        fitted: pairs it was fitted to.
        tested: pairs kept out, asked as queries.
        gallery: old vectors they searched, their own left out.
        measure: "top1": the share of queries whose nearest old vector is of their class; "agreement", without labels: the
            share of the ten items that the new model itself finds nearest, as after a full backfill, which are among the ten
            that are found.
        mapped: of mapped queries; None where too few were kept out to test.
        old: of the old model's queries, the same rows.
        gain: mapped − old, paired.
        old_head: of a method that is fitted with labels: of old queries through the same kind of head, from old to old vectors,
            fitted to the same pairs. What the labels give without a new model.
        cosine: mean of a mapped vector with the old one of the same item.
        seconds: that the fit took.
    """

    method: str
    fitted: int
    tested: int
    gallery: int
    measure: str
    mapped: Figure | None = None
    old: Figure | None = None
    gain: Figure | None = None
    cosine: float | None = None
    seconds: float = 0.0
    old_head: Figure | None = None

    @property
    def worth_it(self) -> bool | None:
        """Whether mapped queries beat the old ones, by the interval of the gain; None is undecided, or not tested."""
        if self.gain is None or self.tested < DECIDING or self.gain.sign == 0:
            return None
        return self.gain.sign > 0

    def __str__(self) -> str:
        text = f"fitted on {self.fitted} pairs; on {self.tested} kept out"
        if self.mapped is None or self.old is None or self.gain is None:
            return f"{text}: too few to test"
        name = "top-1" if self.measure == "top1" else "agreement with a backfill"
        return (
            f"{text}, among {self.gallery} old vectors: {name} {self.mapped:.1%}, old queries {self.old:.1%}, "
            f"difference {_points(self.gain)}"
            + (f"; old queries through the same head {self.old_head:.1%}, with no new model" if self.old_head else "")
        )

    def brief(self) -> str:
        """The figures alone."""
        if self.mapped is None or self.old is None:
            return "too few kept out to test"
        name = "top-1" if self.measure == "top1" else "agreement with a backfill"
        return f"{name} {self.mapped.value:.1%} (old queries {self.old.value:.1%}), cosine {self.cosine:.3f}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON; figures in [0, 1], with their intervals."""
        figures = {name: getattr(self, name) for name in FIGURES}
        plain = {name: None if figure is None else figure.to_dict() for name, figure in figures.items()}
        return vars(self) | plain

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Trial":
        """The trial that `to_dict` wrote."""
        figures = {name: values.get(name) for name in FIGURES}
        read = {name: None if figure is None else Figure.from_dict(figure) for name, figure in figures.items()}
        return cls(**(values | read))


@dataclass(frozen=True)
class KeptOut:
    """Pairs kept out, and the items that they search; what the old model answers is looked up once.

    Attributes:
        matched: all pairs, the side that is mapped first.
        rows: (q,) the pairs kept out.
        gallery: (g,) the pairs that are searched.
        metric: what ranks.
        turned: the gallery is mapped and not the queries.
    """

    matched: Matched
    rows: Int64[Tensor, " q"]
    gallery: Int64[Tensor, " g"]
    metric: Metric
    turned: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    def try_out(
        self,
        method: str,
        network: MapNetwork | KernelNetwork,
        fitted: int,
        seconds: float,
        seed: int,
        translated: Float[Tensor, "g d"] | None = None,
        old_head: MapNetwork | KernelNetwork | None = None,
    ) -> Trial:
        """What the map scores, and the old queries beside it.

        Args:
            method: its name.
            network: its map, fitted to none of these pairs.
            fitted: pairs it was fitted to.
            seconds: that took.
            seed: of the bootstrap.
            translated: (g, d) the mapped gallery where `turned`, no item mapped by a fit that saw it.
            old_head: the same kind of map from old to old vectors, fitted to the same pairs.
        """
        measure = "agreement" if self.matched.labels is None else "top1"
        about = (method, fitted, len(self), len(self.gallery), measure)
        if len(self) < 2:
            return Trial(*about, seconds=seconds)
        source, target = self.matched.at(self.rows).take(slice(0, None))
        mapped = apply(network, source)
        cosine = float(F.cosine_similarity(mapped, target.float()).mean())
        after = self.right(mapped, self._galleries[1]) if translated is None else self.right(target, translated)
        scores = np.stack([after, self._old_right], axis=1).astype(np.float64)
        draws = resampled(scores, seed=seed)
        asked, before = draws.figure(lambda means: means[:, 0]), draws.figure(lambda means: means[:, 1])
        gain = draws.figure(lambda means: means[:, 0] - means[:, 1])
        without = None
        if old_head is not None:
            without = mean_of(self.right(apply(old_head, target), self._galleries[1]), seed=seed)
        return Trial(*about, mapped=asked, old=before, gain=gain, cosine=cosine, seconds=seconds, old_head=without)

    def right(self, queries: Float[Tensor, "q d"], gallery: Float[Tensor, "g d"]) -> Float[np.ndarray, " q"]:
        """Whether the nearest item is of the query's class; without labels, how much of a backfill's answer is found."""
        if self.matched.labels is None:
            wanted = self._backfilled
            return agreement(self._nearest(queries, gallery, NEIGHBOURS), wanted, k=wanted.shape[1])
        labels = self.matched.labels
        found = self._nearest(queries, gallery, 1)
        relevance = Relevance.from_labels(labels[self.rows.numpy()], labels[self.gallery.numpy()])
        return relevance.of(np.arange(len(found)), found)[:, 0].astype(np.float64)

    @cached_property
    def _old_right(self) -> Float[np.ndarray, " q"]:
        side = 0 if self.turned else 1
        return self.right(self.matched.at(self.rows).take(slice(0, None))[side], self._galleries[side])

    @cached_property
    def _backfilled(self) -> Int64[np.ndarray, "q k"]:
        side = 1 if self.turned else 0
        return self._nearest(self.matched.at(self.rows).take(slice(0, None))[side], self._galleries[side], NEIGHBOURS)

    @cached_property
    def _galleries(self) -> tuple[Tensor, Tensor]:
        return self.matched.at(self.gallery).take(slice(0, None))

    @cached_property
    def _own(self) -> Int64[np.ndarray, " q"]:
        place = torch.searchsorted(self.gallery, self.rows).clamp(max=len(self.gallery) - 1)
        return torch.where(self.gallery[place] == self.rows, place, -1).numpy()

    def _nearest(self, queries: Tensor, gallery: Tensor, k: int) -> Int64[np.ndarray, "q k"]:
        hits = search(queries, gallery, min(k, len(gallery) - 1), self.metric, exclude=self._own)
        found: np.ndarray = as_tensor(hits.indices).cpu().numpy()
        return found


def apply(network: MapNetwork | KernelNetwork, vectors: Float[Tensor, "n d"]) -> Float[Tensor, "n e"]:
    """(n, e) float32 what a map gives, some rows at a time."""
    with torch.no_grad():
        return torch.cat([network(block.float()) for block in vectors.split(QUERIES)])


def _points(figure: Figure) -> str:
    value, low, high = (f"{100 * number:+.1f}" for number in (figure.value, figure.low, figure.high))
    return f"{value} [{low}, {high}] points"


def _classes_apart(labels: Int64[np.ndarray, " n"] | None, parts: int, random: np.random.Generator) -> list[np.ndarray]:
    """Rows of most classes, and in random order those of the others, whose classes are dealt to `parts` sets."""
    if labels is None:
        raise DataError("keeping classes out needs labels; give labels, or do not ask for unseen classes")
    classes = np.unique(labels)
    count = max(2, round(CLASSES_OUT * len(classes)))
    if len(classes) - count < 2:
        raise DataError(
            f"{len(classes)} classes are too few to keep a fifth out; do not ask for unseen classes, or name a method"
        )
    out = random.choice(classes, count, replace=False)
    kept = random.permutation(np.flatnonzero(~np.isin(labels, out)))
    dealt = [random.permutation(np.flatnonzero(np.isin(labels, out[part::parts]))) for part in range(parts)]
    return [kept, *dealt]
