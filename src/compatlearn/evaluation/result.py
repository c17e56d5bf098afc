"""The verdict, and all that it rests on."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from ..metric import Metric, Verdict
from .figures import Figure
from .table import bounds, grid

TESTS = {  # the four searches, and what people call them
    "old_self": "old self test",
    "cross": "cross test",
    "new_self": "new self test",
    "independent_self": "independent self test",
}


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
    """The verdict and all that it rests on; every figure with its 95 % interval; prints as a table.

    The intervals are over queries: they say how a figure would move with other queries of the same classes in the same
    gallery. For other classes, or another gallery, they are far too narrow.

    Attributes:
        old_self: old queries in the old gallery: the system as it is.
        cross: new queries in the old gallery: the system after the upgrade, nothing re-embedded.
        new_self: new queries in the new gallery: after a full backfill with the same model; None without a new gallery.
        independent_self: a new model trained without regard to the old one, in its own gallery; None where not given.
        gain: cross − old self, top-1, paired by query.
        update_gain: (cross − old self) / (backfill − old self), top-1, paired: 1 is as good as a full backfill. The backfill is
            the independent self test; without an independent model, and where a map leaves the new model as it was, the new
            self test. Unbounded where the interval of the denominator holds zero; None where no backfill is known.
        negative_flips: share of all queries that the old system answers right and the new one wrong, top-1.
        compatible: "yes" if the whole interval of `gain` is above zero, "no" if it is below, else "undecided";
            a model that changes nothing is "undecided".
        queries: how many.
        queries_without_relevant: how many of them nothing in the gallery answers; each counts as a miss.
        map_r_limit: None, or the R that larger ones were cut to for mAP@R.
        per_class: top-1 by class, in order of class; empty without labels.
        accuracy_at_k: for each of the tests above, accuracy at k = 1, 2, …, 20.
        metric: what ranked.
        unknown_queries: judged queries that are none of these queries; 0 without judgements.
        unknown_items: items judged relevant to one of these queries that are not in the gallery; 0 without judgements.
    """

    old_self: Scores
    cross: Scores
    new_self: Scores | None
    independent_self: Scores | None
    gain: Figure
    update_gain: Figure | None
    negative_flips: Figure
    compatible: Verdict
    queries: int
    queries_without_relevant: int
    map_r_limit: int | None
    per_class: list[ClassChange]
    accuracy_at_k: dict[str, list[float]]
    metric: Metric = "euclidean"
    unknown_queries: int = 0
    unknown_items: int = 0

    def __str__(self) -> str:
        console = Console(file=io.StringIO(), width=120, color_system=None)
        with console.capture() as printed:
            console.print(self)
        return "\n".join(line.rstrip() for line in printed.get().splitlines())

    def __rich__(self) -> Table:
        """Every test with its 95 % intervals, and what follows from them."""
        table = grid(f"compatible: {self.compatible}", self._note())
        for heading in ("", "top-1, %", "top-5, %", "mAP@R, %"):
            table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
        for key, title in TESTS.items():
            scores: Scores | None = getattr(self, key)
            if scores is not None:
                table.add_row(title, *(bounds(each, 100) for each in (scores.top1, scores.top5, scores.map_r)))
        table.add_section()
        table.add_row("cross − old self, points", bounds(self.gain, 100, "+"))
        if self.update_gain is not None:
            table.add_row("update gain", bounds(self.update_gain, 1))
        table.add_row("negative flips, %", bounds(self.negative_flips, 100))
        return table

    def _note(self) -> str:
        without = self.queries_without_relevant
        parts = [f"{self.queries} queries" + (f"; {without} of them have no relevant row" if without else "")]
        if self.unknown_queries or self.unknown_items:
            parts.append(f"judged but unknown: {self.unknown_queries} queries, {self.unknown_items} items")
        return "; ".join([*parts, "[95 % intervals]"])

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
            "metric": self.metric,
            "unknown_queries": self.unknown_queries,
            "unknown_items": self.unknown_items,
        }


def _plain(figure: Figure) -> float | None:
    return figure.value if np.isfinite(figure.value) else None


def _ends(figure: Figure) -> list[float | str]:
    values = figure.to_dict()
    return [values["low"], values["high"]]
