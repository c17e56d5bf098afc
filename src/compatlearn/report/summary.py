"""From rows of `results.json`, one a model, to one line a method: the mean over seeds and how sure it is."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import t as student

LEVEL = 0.95
KEYS = ("method", "temperature", "damping", "label_noise")  # what makes a line; the seed is what it averages over
TESTS = ("old_self", "cross", "new_self", "independent_self")
PARTS = ("top1", "top5", "map_r")
SINGLE = ("gain", "update_gain", "negative_flips")
VERDICTS = ("yes", "no", "undecided")


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean over the seeds of every figure, with its 95 % interval where there are two seeds or more.

    One entry for each method, temperature, damping and label noise, in order of appearance: how many seeds there are
    and how many of them failed, each figure as `{"mean", "low", "high", "seeds"}`, and how often each verdict came out.
    A model that failed has no figures and is not compatible. A figure that no seed has is None; `seeds` counts those
    that have it.
    """
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row.get(key) for key in KEYS), []).append(row)
    return [_entry(dict(zip(KEYS, key, strict=True)), group) for key, group in groups.items()]


def interval(values: Iterable[float]) -> tuple[float | None, float | None]:
    """The 95 % interval of the mean of independent values, by Student's t; (None, None) for fewer than two."""
    drawn = np.array(list(values), dtype=np.float64)
    if len(drawn) < 2:
        return None, None
    half = student.ppf((1 + LEVEL) / 2, len(drawn) - 1) * drawn.std(ddof=1) / math.sqrt(len(drawn))
    return float(drawn.mean() - half), float(drawn.mean() + half)


def figures(result: dict[str, Any]) -> dict[str, Any]:
    """Only the figures of an evaluation that a line shows, and their intervals: what is kept of one by another metric."""
    return {name: result[name] for name in (*TESTS, *SINGLE, "compatible", "intervals")}


def _entry(identity: dict[str, Any], group: list[dict[str, Any]]) -> dict[str, Any]:
    finished = [row for row in group if "error" not in row]
    other = [row["cosine"] for row in finished if "cosine" in row]
    return {
        **identity,
        "seeds": len(group),
        "failed": len(group) - len(finished),
        **_means(finished),
        "compatible": {verdict: sum(row["compatible"] == verdict for row in group) for verdict in VERDICTS},
        "cosine": _means(other) if other else None,
    }


def _means(rows: list[dict[str, Any]]) -> dict[str, Any]:
    tests = {name: [row.get(name) or {} for row in rows] for name in TESTS}
    means = {name: {part: _mean(scores, part) for part in PARTS} if any(scores) else None for name, scores in tests.items()}
    return means | {name: _mean(rows, name) for name in SINGLE}


def _mean(rows: list[dict[str, Any]], key: str) -> dict[str, float | int | None] | None:
    values = [row[key] for row in rows if row.get(key) is not None]
    if not values:
        return None
    low, high = interval(values)
    return {"mean": float(np.mean(values)), "low": low, "high": high, "seeds": len(values)}


@dataclass(frozen=True)
class Estimate:
    """A figure as a report shows it: its value and half its 95 % interval (None where that is unbounded or unknown)."""

    value: float
    half: float | None

    def percent(self, *, signed: bool = False, spread: bool = True) -> str:
        """`51.2 ± 0.8`, `+9.2 ± 1.1`: in % or points."""
        return self._text(100, 1, signed, spread)

    def plain(self, *, spread: bool = True) -> str:
        """`0.50 ± 0.06`: a ratio."""
        return self._text(1, 2, False, spread)

    def _text(self, factor: int, digits: int, signed: bool, spread: bool) -> str:
        value = round(factor * self.value, digits) + 0.0  # no minus zero
        text = f"{value:{'+' if signed else ''}.{digits}f}".replace("-", "−")
        return f"{text} ± {factor * self.half:.{digits}f}" if spread and self.half is not None else text


@dataclass(frozen=True)
class Line:
    """One line of a report: an entry of the summary, and the rows of the seeds that finished."""

    entry: dict[str, Any]
    rows: list[dict[str, Any]]

    @property
    def method(self) -> str:
        return str(self.entry["method"])

    @property
    def seeds(self) -> int:
        return int(self.entry["seeds"])

    @property
    def failed(self) -> int:
        return int(self.entry["failed"])

    @property
    def compatible(self) -> bool:
        """In every seed."""
        return bool(self.entry["compatible"]["yes"] == self.seeds)

    @property
    def by_cosine(self) -> "Line | None":
        """The same models, ranked by cosine; None where it was not measured beside another metric."""
        if not self.entry.get("cosine"):
            return None
        return Line(self.entry | self.entry["cosine"], [row["cosine"] for row in self.rows if "cosine" in row])

    def estimate(self, name: str, part: str | None = None) -> Estimate | None:
        """A figure with the interval over seeds or, where one seed has it, that seed's bootstrap over queries."""
        figure = self.entry[name] if part is None or self.entry[name] is None else self.entry[name][part]
        if figure is None:
            return None
        ends = figure["low"], figure["high"]
        if figure.get("seeds", 1) == 1:
            found = (row["intervals"].get(name) for row in self.rows if row.get(name) is not None)
            known = next((each for each in found if each is not None), None)
            ends = (None, None) if known is None else known if part is None else known[part]
        return Estimate(figure["mean"], _half(*ends))


def lines(results: dict[str, Any]) -> list[Line]:
    """What `results.json` holds, a line for each method and setting, in its order."""
    rows = results["rows"]
    entries = results.get("summary") or summarise(rows)
    return [
        Line(
            entry,
            [row for row in rows if "error" not in row and all(row.get(key) == entry.get(key) for key in KEYS)],
        )
        for entry in entries
    ]


def _half(low: float | str | None, high: float | str | None) -> float | None:
    if low is None or high is None:
        return None
    half = (float(high) - float(low)) / 2  # JSON holds infinity as text
    return half if math.isfinite(half) else None
