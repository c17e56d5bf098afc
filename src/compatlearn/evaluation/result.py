"""The verdict, and all that it rests on."""

import io
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..metric import Metric, Primary, Verdict
from .figures import Figure
from .outcome import PerQuery
from .table import bounds, grid

TESTS = {  # the four searches, and what people call them
    "old_self": "old self test",
    "cross": "cross test",
    "new_self": "new self test",
    "independent_self": "independent self test",
}


FIGURES = {  # and what people call them, in rows of three
    "top1": "top-1",
    "top5": "top-5",
    "map_r": "mAP@R",
    "ndcg10": "nDCG@10",
    "recall100": "Recall@100",
    "mrr10": "MRR@10",
    "agreement": "agreement@10",
}
FEW_CLASSES = 10  # an interval over fewer is a rough one


@dataclass(frozen=True)
class Scores:
    """How well one pair of query and gallery model searches; figures in [0, 1].

    Attributes:
        top1: share of the queries whose first hit is relevant.
        top5: share of those with a relevant one among the first five.
        map_r: mean average precision at R, the number of relevant rows.
        ndcg10: normalised discounted cumulative gain of the first ten, by the grades.
        recall100: share of the relevant rows that are among the first hundred.
        mrr10: mean of one over the rank of the first relevant hit, 0 beyond the tenth.
        agreement: share of the ten items that the new model finds nearest in its own gallery that are among the first ten;
            only where nothing says what is relevant, and then the only figure.
    """

    top1: Figure | None = None
    top5: Figure | None = None
    map_r: Figure | None = None
    ndcg10: Figure | None = None
    recall100: Figure | None = None
    mrr10: Figure | None = None
    agreement: Figure | None = None

    def known(self) -> dict[str, Figure]:
        """Those that there are, by name."""
        return {name: figure for name, figure in vars(self).items() if figure is not None}


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

    The intervals say how a figure would move with other queries of the same classes in the same gallery, or, where `classes`
    were drawn, with other classes. Another gallery is in neither.

    Attributes:
        old_self: old queries in the old gallery: the system as it is.
        cross: new queries in the old gallery: the system after the upgrade, nothing re-embedded.
        new_self: new queries in the new gallery: after a full backfill with the same model; None without a new gallery.
        independent_self: a new model trained without regard to the old one, in its own gallery; None where not given.
        gain: cross − old self of the primary figure, paired by query.
        update_gain: (cross − old self) / (backfill − old self) of the primary figure, paired: 1 is as good as a full
            backfill. The backfill is the independent self test; without an independent model, and where a map leaves the new
            model as it was, the new self test. Unbounded where the interval of the denominator holds zero; None where no
            backfill is known, and by agreement.
        negative_flips: share of all queries that the old system answers right and the new one wrong: a relevant first hit is
            lost; by agreement, a first hit that is one of the new model's ten.
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
        queries_without_judgement: how many of these queries nobody judged; each counts as a miss. 0 without judgements.
        primary: what the verdict is of: "top1" by labels, "ndcg10" by judgements, else "agreement".
        classes: how many classes the intervals draw from; None where they draw queries.
        per_query: what every query scored, for figures of some of them; not in `to_dict`.
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
    queries_without_judgement: int = 0
    primary: Primary = "top1"
    classes: int | None = None
    per_query: PerQuery | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        console = Console(file=io.StringIO(), width=120, color_system=None)
        with console.capture() as printed:
            console.print(self)
        return "\n".join(line.rstrip() for line in printed.get().splitlines())

    def __rich__(self) -> Table:
        """Every test with its 95 % intervals, and what follows from them."""
        by = "" if self.primary == "top1" else f", by {FIGURES[self.primary]}"
        table = grid(f"compatible: {self.compatible}{by}", self._note())
        tests = {title: scores.known() for test, title in TESTS.items() if (scores := getattr(self, test)) is not None}
        first, *others = self._blocks()
        for heading in ("", *(f"{FIGURES[name]}, %" for name in first)):
            table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
        for block in (first, *others):
            if block != first:
                table.add_section()
                table.add_row("", *(Text(f"{FIGURES[name]}, %", style="bold") for name in block))
            for title, figures in tests.items():
                table.add_row(title, *(bounds(figures[name], 100) for name in block))
        table.add_section()
        table.add_row("cross − old self, points", bounds(self.gain, 100, "+"))
        if self.update_gain is not None:
            table.add_row("update gain", bounds(self.update_gain, 1))
        table.add_row("negative flips, %", bounds(self.negative_flips, 100))
        return table

    def _blocks(self) -> list[tuple[str, ...]]:
        """Figures side by side, those of the verdict first: more than three do not fit a terminal."""
        names = [name for name in FIGURES if name in self.old_self.known()]
        blocks = [tuple(names[start : start + 3]) for start in range(0, len(names), 3)]
        return sorted(blocks, key=lambda block: self.primary not in block)

    def _note(self) -> str:
        without, unjudged = self.queries_without_relevant, self.queries_without_judgement
        parts = [f"{self.queries} queries" + (f"; {without} of them have no relevant row" if without else "")]
        if unjudged:
            parts[0] += f", {unjudged} no judgement at all"
        if self.unknown_queries or self.unknown_items:
            parts.append(f"judged but unknown: {self.unknown_queries} queries, {self.unknown_items} items")
        if self.primary == "agreement":
            parts.append("no labels and no judgements: agreement with the new model's own ranking, right or wrong")
        drawn = "" if self.classes is None else f" over {self.classes} classes"
        few = ", too few to rely on" if self.classes is not None and self.classes < FEW_CLASSES else ""
        return "; ".join([*parts, f"[95 % intervals{drawn}{few}]"])

    def to_dict(self) -> dict[str, Any]:
        """For JSON: plain figures, None where there is none or it is infinite, and the intervals beside them."""
        values: dict[str, Any] = {}
        intervals: dict[str, Any] = {}
        for name in TESTS:
            scores = getattr(self, name)
            values[name] = None if scores is None else {part: _plain(figure) for part, figure in scores.known().items()}
            intervals[name] = None if scores is None else {part: _ends(figure) for part, figure in scores.known().items()}
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
            "queries_without_judgement": self.queries_without_judgement,
            "primary": self.primary,
            "classes": self.classes,
        }


def _plain(figure: Figure) -> float | None:
    return figure.value if np.isfinite(figure.value) else None


def _ends(figure: Figure) -> list[float | str]:
    values = figure.to_dict()
    return [values["low"], values["high"]]
