"""What `results.json` holds, typed: a row per trained model, read and written with the same keys."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from ..adapters.references import HeadReferences
from ..errors import FormatError
from ..evaluation.figures import Figure
from ..evaluation.result import TESTS, ClassChange, Compatibility, Scores
from ..metric import Verdict

VERDICTS: tuple[Verdict, ...] = ("yes", "no", "undecided")
DIFFERENCES = ("gain", "update_gain", "negative_flips")
HEADS = ("old_head", "backfill_head")  # only of maps that are fitted with labels, as are the next
HEAD_DIFFERENCES = ("gain_over_old_head", "update_gain_head")
SETTINGS = ("method", "seed", "temperature", "damping", "label_noise")
SCORES = tuple(each.name for each in fields(Scores))
COUNTS = ("queries", "queries_without_relevant", "map_r_limit")


@dataclass(frozen=True)
class Measures:
    """What one ranking says of one model; every figure with its 95 % interval over queries.

    The attributes are those of `Compatibility` and, of a map that is fitted with labels, those of `HeadReferences`.
    `update_gain` is None where it was not measured, and infinite where a full backfill gains nothing.
    """

    old_self: Scores
    cross: Scores
    new_self: Scores | None
    independent_self: Scores | None
    gain: Figure
    update_gain: Figure | None
    negative_flips: Figure
    compatible: Verdict
    old_head: Scores | None = None
    backfill_head: Scores | None = None
    gain_over_old_head: Figure | None = None
    update_gain_head: Figure | None = None

    @classmethod
    def of(cls, result: Compatibility, references: HeadReferences | None = None) -> "Measures":
        """The figures of an evaluation that a report shows."""
        own = {name: getattr(result, name) for name in (*TESTS, *DIFFERENCES, "compatible")}
        return cls(**own, **({} if references is None else vars(references)))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Measures":
        """Figures and their intervals, which the file keeps apart.

        Raises:
            FormatError: a figure is not there.
        """
        missing = [name for name in ("old_self", "cross", "gain", "negative_flips", "compatible") if values.get(name) is None]
        if missing:
            raise FormatError(f"an evaluation without {', '.join(missing)}; delete the file and evaluate again")
        ends = values.get("intervals") or {}
        tests: dict[str, Any] = {name: _scores(values.get(name), ends.get(name) or {}) for name in (*TESTS, *HEADS)}
        names = (*DIFFERENCES, *HEAD_DIFFERENCES)
        differences: dict[str, Any] = {name: _figure(values.get(name), ends.get(name)) for name in names}
        return cls(**tests, **differences, compatible=values["compatible"])

    def to_dict(self) -> dict[str, Any]:
        """With the keys of `Compatibility.to_dict`: figures, None where there is none or it is infinite; their intervals.

        The keys of `HEADS` and `HEAD_DIFFERENCES` follow where there are such figures.
        """
        headed = self.old_head is not None
        values: dict[str, Any] = {}
        intervals: dict[str, Any] = {}
        for name in (*TESTS, *(HEADS if headed else ())):
            scores = getattr(self, name)
            parts = None if scores is None else {part: each for part, each in vars(scores).items() if each is not None}
            values[name] = None if parts is None else {part: _value(figure) for part, figure in parts.items()}
            intervals[name] = None if parts is None else {part: _ends(figure) for part, figure in parts.items()}
        for name in (*DIFFERENCES, *(HEAD_DIFFERENCES if headed else ())):
            figure = getattr(self, name)
            values[name], intervals[name] = (None, None) if figure is None else (_value(figure), _ends(figure))
        return {**values, "compatible": self.compatible, "intervals": intervals}


@dataclass(frozen=True)
class Row:
    """One trained model: which one, and what its evaluation says or why there is none.

    Attributes:
        method, seed, temperature, damping, label_noise: which one.
        measures: by the recipe's metric; None if training failed.
        cosine: by cosine, where the recipe's metric is another.
        queries, queries_without_relevant, map_r_limit, per_class, accuracy_at_k: as in `Compatibility`.
        error: why there are no figures.
        others: keys that this version does not know, kept as they are.
    """

    method: str
    seed: int
    temperature: float | None = None
    damping: float | None = None
    label_noise: float | None = None
    measures: Measures | None = None
    cosine: Measures | None = None
    queries: int | None = None
    queries_without_relevant: int | None = None
    map_r_limit: int | None = None
    per_class: Sequence[ClassChange] = ()
    accuracy_at_k: Mapping[str, Sequence[float]] = field(default_factory=dict)
    error: str | None = None
    others: Mapping[str, Any] = field(default_factory=dict)

    @property
    def compatible(self) -> Verdict:
        """The verdict of this model alone; a model that failed is not compatible."""
        return "no" if self.measures is None else self.measures.compatible

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Row":
        """A row as any version has written it.

        Raises:
            FormatError: it has neither figures nor an error.
        """
        own: dict[str, Any] = dict(zip(SETTINGS, map(values.get, SETTINGS), strict=True))
        if values.get("error") is not None:
            return cls(**own, error=values["error"])
        known = {*SETTINGS, *TESTS, *DIFFERENCES, *HEADS, *HEAD_DIFFERENCES, *COUNTS}
        known |= {"compatible", "intervals", "per_class", "accuracy_at_k", "cosine"}
        counts: dict[str, Any] = {key: values.get(key) for key in COUNTS}
        return cls(
            **own,
            **counts,
            measures=Measures.from_dict(values),
            cosine=Measures.from_dict(values["cosine"]) if values.get("cosine") else None,
            per_class=[ClassChange(**each) for each in values.get("per_class", ())],
            accuracy_at_k=values.get("accuracy_at_k", {}),
            others={key: value for key, value in values.items() if key not in known},
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON; `Row.from_dict` reads it."""
        own = {key: getattr(self, key) for key in SETTINGS}
        if self.measures is None:
            return {**own, "error": self.error, "compatible": self.compatible}
        return {
            **own,
            **self.measures.to_dict(),
            **{key: getattr(self, key) for key in COUNTS},
            "per_class": [dict(vars(change)) for change in self.per_class],
            "accuracy_at_k": dict(self.accuracy_at_k),
            **({} if self.cosine is None else {"cosine": self.cosine.to_dict()}),
            **self.others,
        }


def read_rows(rows: Iterable[Mapping[str, Any]]) -> list[Row]:
    """The `rows` of `results.json`."""
    return [Row.from_dict(row) for row in rows]


def _scores(values: Mapping[str, Any] | None, ends: Mapping[str, Any]) -> Scores | None:
    if values is None:
        return None
    parts: dict[str, Any] = {part: _figure(value, ends.get(part)) for part, value in values.items() if part in SCORES}
    return Scores(**parts)


def _figure(value: float | None, ends: Sequence[Any] | None) -> Figure | None:
    if value is None and ends is None:
        return None
    low, high = (-math.inf, math.inf) if ends is None else (float(end) for end in ends)
    return Figure(math.inf if value is None else value, low, high)  # the file has no infinity; its sign is not kept


def _value(figure: Figure) -> float | None:
    return figure.value if math.isfinite(figure.value) else None


def _ends(figure: Figure) -> list[float | str]:
    ends = figure.to_dict()
    return [ends["low"], ends["high"]]
