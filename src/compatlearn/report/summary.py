"""From rows, one per trained model, to lines, one per method and setting: means over the seeds, and the verdict."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import sem
from scipy.stats import t as student

from ..evaluation.figures import LEVEL, Figure
from ..evaluation.result import TESTS, Scores
from ..metric import Verdict
from .results import DIFFERENCES, HEAD_DIFFERENCES, HEADS, VERDICTS, Measures, Row

PARTS = ("top1", "top5", "map_r")
KEYS = ("method", "temperature", "damping", "label_noise")  # what makes a line; the seed is what it averages over
LEAST_ROOM = 0.05  # a full backfill that gains less is too little to divide by


@dataclass(frozen=True)
class Estimate:
    """A figure as a report shows it: a mean, and the ends of its 95 % interval (None where they are not known).

    The interval is that of the mean over the seeds or, where one seed has the figure, that seed's over queries.
    """

    value: float
    low: float | None = None
    high: float | None = None
    seeds: int = 1

    @property
    def half(self) -> float | None:
        """Half the interval; None where that is unbounded or unknown."""
        if self.low is None or self.high is None or not math.isfinite(self.high - self.low):
            return None
        return (self.high - self.low) / 2

    def percent(self, *, signed: bool = False, spread: bool = True) -> str:
        """`51.2 ± 0.8`, `+9.2 ± 1.1`: in % or points."""
        return self._text(100, 1, signed, spread)

    def plain(self, *, spread: bool = True) -> str:
        """`0.50 ± 0.06`: a ratio."""
        return self._text(1, 2, False, spread)

    def to_dict(self) -> dict[str, float | int | None]:
        """For JSON, which keeps intervals over seeds only: those over queries stand in the rows."""
        low, high = (self.low, self.high) if self.seeds > 1 else (None, None)
        return {"mean": self.value, "low": low, "high": high, "seeds": self.seeds}

    def _text(self, factor: int, digits: int, signed: bool, spread: bool) -> str:
        value = round(factor * self.value, digits) + 0.0  # no minus zero
        text = f"{value:{'+' if signed else ''}.{digits}f}".replace("-", "−")
        return f"{text} ± {factor * self.half:.{digits}f}" if spread and self.half is not None else text


@dataclass(frozen=True)
class ScoreEstimates:
    """One test, averaged over the seeds; figures in [0, 1]."""

    top1: Estimate
    top5: Estimate
    map_r: Estimate


@dataclass(frozen=True)
class Estimates:
    """All figures of a line, averaged over the seeds that have them; None where no seed does.

    The attributes are those of `Measures`, and `room`: what a full backfill gains, independent self − old self.
    """

    old_self: ScoreEstimates
    cross: ScoreEstimates
    new_self: ScoreEstimates | None
    independent_self: ScoreEstimates | None
    gain: Estimate
    update_gain: Estimate | None
    negative_flips: Estimate
    room: Estimate | None
    old_head: ScoreEstimates | None
    backfill_head: ScoreEstimates | None
    gain_over_old_head: Estimate | None
    update_gain_head: Estimate | None

    @classmethod
    def of(cls, models: Sequence[Measures]) -> "Estimates | None":
        """None without any model."""
        if not models:
            return None
        tests: dict[str, Any] = {name: _average_scores([getattr(model, name) for model in models]) for name in (*TESTS, *HEADS)}
        names = (*DIFFERENCES, *HEAD_DIFFERENCES)
        differences: dict[str, Any] = {name: _average(getattr(model, name) for model in models) for name in names}
        return cls(**tests, **differences, room=_average(map(_room, models)))

    @property
    def share(self) -> Estimate | None:
        """The update gain where it means something: a full backfill surely gains, and 5 points or more."""
        room, share = self.room, self.update_gain
        if share is None or room is None or room.value < LEAST_ROOM:
            return None
        surely = room.low > 0 if room.seeds > 1 and room.low is not None else share.half is not None
        return share if surely else None

    def to_dict(self) -> dict[str, Any]:
        """Figures as `{"mean", "low", "high", "seeds"}`; None where there is none. References only where they were measured."""
        headed = self.old_head is not None
        tests = {name: getattr(self, name) for name in (*TESTS, *(HEADS if headed else ()))}
        scores = {
            name: None if test is None else {part: getattr(test, part).to_dict() for part in PARTS}
            for name, test in tests.items()
        }
        figures = {name: getattr(self, name) for name in (*DIFFERENCES, *(HEAD_DIFFERENCES if headed else ()))}
        return scores | {name: None if figure is None else figure.to_dict() for name, figure in figures.items()}


@dataclass(frozen=True)
class Line:
    """One line of a report: the models of all seeds that share method and settings.

    Attributes:
        rows: one per seed, at least one; models that failed included.
        figures: means over the seeds that finished; None if none did.
        by_cosine: the same models, ranked by cosine; None where that was not measured beside another metric.
    """

    rows: Sequence[Row]
    figures: Estimates | None
    by_cosine: Estimates | None

    @classmethod
    def of(cls, rows: Sequence[Row]) -> "Line":
        models = [row.measures for row in rows if row.measures is not None]
        return cls(rows, Estimates.of(models), Estimates.of([row.cosine for row in rows if row.cosine is not None]))

    @property
    def method(self) -> str:
        return self.rows[0].method

    @property
    def finished(self) -> list[Row]:
        return [row for row in self.rows if row.measures is not None]

    @property
    def failed(self) -> int:
        return len(self.rows) - len(self.finished)

    @property
    def seeds(self) -> int:
        return len(self.rows)

    @property
    def verdict(self) -> Verdict:
        """By the 95 % interval of the mean gain over the seeds (one seed: over its queries), all above or all below zero.

        A method is never surely compatible if one of its runs failed.
        """
        gain = None if self.figures is None else self.figures.gain
        if gain is None or (gain.high is not None and gain.high < 0):
            return "no"
        return "yes" if gain.low is not None and gain.low > 0 and not self.failed else "undecided"

    @property
    def verdicts(self) -> dict[str, int]:
        """How often each verdict came out, seed by seed; a model that failed counts as "no"."""
        return {verdict: sum(row.compatible == verdict for row in self.rows) for verdict in VERDICTS}

    def setting(self, key: str) -> Any:
        """The value of one of `KEYS`."""
        return getattr(self.rows[0], key)

    def to_dict(self) -> dict[str, Any]:
        """An entry of the summary in `results.json`."""
        empty = dict.fromkeys((*TESTS, *DIFFERENCES))
        return {
            **{key: self.setting(key) for key in KEYS},
            "seeds": self.seeds,
            "failed": self.failed,
            **(empty if self.figures is None else self.figures.to_dict()),
            "verdict": self.verdict,
            "compatible": self.verdicts,
            "cosine": None if self.by_cosine is None else self.by_cosine.to_dict(),
        }


def summarise(rows: Iterable[Row]) -> list[Line]:
    """A line for each method, temperature, damping and label noise, in order of appearance."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(getattr(row, key) for key in KEYS), []).append(row)
    return [Line.of(group) for group in groups.values()]


def interval(values: Iterable[float]) -> tuple[float | None, float | None]:
    """The 95 % interval of the mean of independent values, by Student's t; (None, None) for fewer than two."""
    drawn = np.array(list(values), dtype=np.float64)
    if len(drawn) < 2:
        return None, None
    if np.ptp(drawn) == 0:  # scipy gives NaN for a spread of zero
        return float(drawn[0]), float(drawn[0])
    low, high = student.interval(LEVEL, len(drawn) - 1, loc=drawn.mean(), scale=sem(drawn))
    return float(low), float(high)


def _room(model: Measures) -> Figure | None:
    alone = model.independent_self
    if alone is None or alone.top1 is None or model.old_self.top1 is None:
        return None
    return Figure(alone.top1.value - model.old_self.top1.value, -math.inf, math.inf)


def _average_scores(tests: Sequence[Scores | None]) -> ScoreEstimates | None:
    known = [test for test in tests if test is not None]
    parts: dict[str, Any] = {part: _average(getattr(test, part) for test in known) for part in PARTS}
    return ScoreEstimates(**parts) if known else None


def _average(figures: Iterable[Figure | None]) -> Estimate | None:
    known = [figure for figure in figures if figure is not None and math.isfinite(figure.value)]
    if not known:
        return None
    if len(known) == 1:
        return Estimate(known[0].value, known[0].low, known[0].high)
    return Estimate(float(np.mean([figure.value for figure in known])), *interval(figure.value for figure in known), len(known))
