"""Which plots a report has, what each shows, and what it says to those who cannot see it."""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from . import plots
from .sentences import best, name, percent
from .summary import Line

CURVES = 5  # methods in the plot of accuracy against k

Chart = tuple[str, str, Markup]  # title, caption, SVG


def charts(shown: list[Line], classes: Sequence[str] | None = None) -> list[Chart]:
    """The plots that there are figures for; `classes` are the names of the classes, where they are known."""
    chosen = best(shown)
    if chosen is None:
        return []
    finished = sorted((line for line in shown if line.rows), key=lambda line: -line.entry["cross"]["top1"]["mean"])
    return [_bars(finished, chosen, shown), *_curves(finished, chosen, shown), *_by_class(chosen, shown, classes)]


def _bars(finished: list[Line], chosen: Line, shown: list[Line]) -> Chart:
    levels = {
        title: estimate.value
        for key, title in (("old_self", "old self test: today"), ("independent_self", "full backfill, independent model"))
        if (estimate := chosen.estimate(key, "top1")) is not None
    }
    spoken = "; ".join(f"{name(line, shown)} {percent(line.estimate('cross', 'top1'))}" for line in finished)
    spoken += "".join(f"; {title} {100 * level:.1f}" for title, level in levels.items())
    svg = plots.bars(
        [(name(line, shown), line) for line in finished], levels, alt=f"Cross test top-1 accuracy in percent: {spoken}."
    )
    return "The first answer", "Right of the dashed line: better than today. Whiskers: 95 % intervals.", Markup(svg)


def _curves(finished: list[Line], chosen: Line, shown: list[Line]) -> list[Chart]:
    """Accuracy at k: old self, independent self, and the cross tests that are best at k = 1."""
    wanted = [("old_self", chosen, "old self test"), ("independent_self", chosen, "full backfill")]
    crossed = [line for line in finished if line.method != "independent"][:CURVES]
    wanted += [("cross", line, name(line, shown)) for line in crossed]
    series = []
    for key, line, title in wanted:
        known = [row["accuracy_at_k"][key] for row in line.rows if row.get("accuracy_at_k", {}).get(key)]
        if known:
            series.append((title, np.mean(known, axis=0).tolist(), "method" if key == "cross" else "reference"))
    if not series:
        return []
    spoken = "; ".join(f"{title} {100 * values[0]:.1f} to {100 * values[-1]:.1f}" for title, values, _ in series)
    svg = plots.curves(series, alt=f"Accuracy in percent, from the smallest k to the largest: {spoken}.")
    mean = ", mean of the seeds" if chosen.seeds > 1 else ""
    caption = f"Cross tests of the best methods against the two self tests{mean}."
    return [("The first k answers", caption, Markup(svg))]


def _by_class(chosen: Line, shown: list[Line], classes: Sequence[str] | None) -> list[Chart]:
    """Cross − old self of every class, mean over the seeds, most gained first."""
    found: dict[int, list[float]] = {}
    for row in chosen.rows:
        for each in row.get("per_class", []):
            found.setdefault(each["label"], []).append(each["cross"] - each["old_self"])
    named = [(str(classes[label]) if classes else f"class {label}", each) for label, each in found.items()]
    changes = sorted(((title, float(np.mean(each))) for title, each in named), key=lambda pair: -pair[1])
    if not changes:
        return []
    gained, lost = sum(change > 0 for _, change in changes), sum(change < 0 for _, change in changes)
    told = f"{gained} of {len(changes)} classes gain, {lost} lose, {len(changes) - gained - lost} stay as they are"
    caption = f"{told}. Most gained: {_points(*changes[0])}; least: {_points(*changes[-1])}."
    svg = plots.class_changes(changes, alt=f"Change of every class, sorted. {caption}")
    return [(f"Class by class: {name(chosen, shown)}", caption, Markup(svg))]


def _points(title: str, change: float) -> str:
    return f"{title}, {f'{100 * change:+.1f}'.replace('-', '−')} points"
