"""The outcome of a comparison or a sweep, worked out once and handed down to table, page, charts and sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..metric import Verdict
from ..pseudo.table import CLASSIFIERS
from ..training.methods import METHODS, Method
from .results import Row, read_rows
from .summary import Line, summarise

SETTINGS = {"temperature": "T", "damping": "damping", "label_noise": "label noise"}


@dataclass(frozen=True)
class Outcome:
    """What came out.

    Attributes:
        lines: largest mean gain first; those that have no figures last.
        best: the line to recommend, see `best_line`; None if nothing finished.
        varying: the settings that a sweep varies; none in a comparison of methods.
        seeds: how many each line has, at most.
        recipe, versions, made: as in `results.json`; empty where it has none.
        classes: the names of the classes, where they are known.
    """

    lines: Sequence[Line]
    best: Line | None
    varying: Sequence[str]
    seeds: int
    recipe: Mapping[str, Any]
    versions: Mapping[str, str]
    made: Mapping[str, Any]
    classes: Sequence[str] | None

    @classmethod
    def of(cls, results: Mapping[str, Any]) -> "Outcome":
        """The outcome of what `results.json` holds, in the version of today or an earlier one.

        Raises:
            FormatError: a row has neither figures nor an error.
        """
        lines = sorted(summarise(read_rows(results.get("rows", ()))), key=lambda line: -_gain(line))
        return cls(
            lines=lines,
            best=best_line(lines),
            varying=[key for key in SETTINGS if len({line.setting(key) for line in lines}) > 1],
            seeds=max((line.seeds for line in lines), default=1),
            recipe=results.get("recipe") or {},
            versions=results.get("versions") or {},
            made=results.get("made") or {},
            classes=results.get("classes"),
        )

    @property
    def verdict(self) -> Verdict:
        """That of the best line."""
        return "no" if self.best is None else self.best.verdict

    @property
    def finished(self) -> list[Line]:
        """The lines that have figures, best first."""
        return [line for line in self.lines if line.figures is not None]

    @property
    def several_methods(self) -> bool:
        """Whether a line needs its method's name: not in a sweep of one method."""
        return len({line.method for line in self.lines}) > 1 or not self.varying

    @property
    def first_row(self) -> Row | None:
        """A row that finished: all have the same queries."""
        return next((row for line in self.finished for row in line.finished), None)

    @property
    def subject(self) -> str:
        """Which data and which models."""
        models = f"{self.recipe.get('old_backbone', 'old model')} → {self.recipe.get('new_backbone', 'new model')}"
        return f"{self.recipe.get('data') or 'unnamed data'}, {models}"

    def name(self, line: Line) -> str:
        """`random-walk`, or in a sweep `random-walk (T 0.05)`, or `T 0.05` where all lines are of one method."""
        settings = ", ".join(f"{SETTINGS[key]} {text}" for key in self.varying if (text := setting_of(line, key)) is not None)
        if not settings:
            return line.method
        return f"{line.method} ({settings})" if self.several_methods else settings


def best_line(lines: Sequence[Line]) -> Line | None:
    """The largest gain among the lines that are compatible, or among all; references only where there is nothing else."""
    finished = [line for line in lines if line.figures is not None]
    deployable = [line for line in finished if not is_reference(line)] or finished
    return max(deployable, key=lambda line: (line.verdict == "yes", _gain(line)), default=None)


def method_of(line: Line) -> Method | None:
    """The entry of the table of methods; None for a method of an earlier version."""
    return METHODS.get(line.method)


def is_reference(line: Line) -> bool:
    """Whether the method is only there to compare with."""
    method = method_of(line)
    return method is not None and method.reference


def setting_of(line: Line, key: str) -> str | None:
    """The value of a setting; None for a method that has no such parameter."""
    _, options = CLASSIFIERS.get(line.method, (None, ()))
    return f"{line.setting(key):g}" if key == "label_noise" or key in options else None


def _gain(line: Line) -> float:
    return float("-inf") if line.figures is None else line.figures.gain.value
