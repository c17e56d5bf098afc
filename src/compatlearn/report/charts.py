"""Which plots a report has, what each shows, and what it says to those who cannot see it."""

import numpy as np
from markupsafe import Markup

from . import plots
from .columns import percent
from .outcome import Outcome, method_of
from .plots import Dot
from .summary import Line

CURVES = 5  # methods in the plot of accuracy against k
SPOKEN = {"yes": "compatible", "undecided": "undecided", "no": "not compatible"}

Chart = tuple[str, str, Markup]  # title, caption, SVG


def charts(outcome: Outcome) -> list[Chart]:
    """The plots that there are figures for, the one that shows the verdict first."""
    if outcome.best is None:
        return []
    return [_differences(outcome), *_curves(outcome, outcome.best), *_by_class(outcome, outcome.best)]


def _differences(outcome: Outcome) -> Chart:
    dots, spoken = [], []
    for line in outcome.finished:
        if line.figures is not None:
            gain = line.figures.gain
            low, high = (gain.value if gain.half is None or end is None else end for end in (gain.low, gain.high))
            dots.append(Dot(outcome.name(line), 100 * gain.value, 100 * low, 100 * high, line.verdict))
            spoken.append(f"{outcome.name(line)} {percent(gain, signed=True)}, {SPOKEN[line.verdict]}")
    room = outcome.best.figures.room if outcome.best is not None and outcome.best.figures is not None else None
    svg = plots.differences(
        dots,
        None if room is None else 100 * room.value,
        alt=f"Cross test minus old self test in points of top-1, with 95 % intervals: {'; '.join(spoken)}.",
    )
    caption = "Right of the line at zero: better than the old model today. Whiskers: 95 % intervals."
    left, right = plots.axis_of(dots)
    if any(dot.value < left for dot in dots):
        caption += " An arrow: further to the left than the axis goes."
    if any(dot.value >= left and (dot.low < left or dot.high > right) for dot in dots):
        caption += " A whisker that ends at the edge goes on beyond it."
    return "What the new model gains in the old gallery", caption, Markup(svg)


def _curves(outcome: Outcome, best: Line) -> list[Chart]:
    """Accuracy at k: old self, independent self, and the cross tests that are best at k = 1."""
    wanted = [("old_self", best, "old self test"), ("independent_self", best, "full backfill")]
    crossed = [line for line in outcome.finished if (method := method_of(line)) is None or not method.baseline][:CURVES]
    wanted += [("cross", line, outcome.name(line)) for line in crossed]
    series = []
    for key, line, title in wanted:
        known = [row.accuracy_at_k[key] for row in line.finished if row.accuracy_at_k.get(key)]
        if known:
            series.append((title, np.mean(known, axis=0).tolist(), "method" if key == "cross" else "reference"))
    if not series:
        return []
    spoken = "; ".join(f"{title} {100 * values[0]:.1f} to {100 * values[-1]:.1f}" for title, values, _ in series)
    svg = plots.curves(series, alt=f"Accuracy in percent, from the smallest k to the largest: {spoken}.")
    mean = ", mean of the seeds" if outcome.seeds > 1 else ""
    caption = f"Cross tests of the best methods against the two self tests{mean}."
    return [("The first k answers", caption, Markup(svg))]


def _by_class(outcome: Outcome, best: Line) -> list[Chart]:
    """Cross − old self of every class, mean over the seeds, most gained first."""
    found: dict[int, list[float]] = {}
    for change in (change for row in best.finished for change in row.per_class):
        found.setdefault(change.label, []).append(change.cross - change.old_self)
    classes = outcome.classes
    named = [(str(classes[label]) if classes else f"class {label}", each) for label, each in found.items()]
    changes = sorted(((title, float(np.mean(each))) for title, each in named), key=lambda pair: -pair[1])
    if not changes:
        return []
    gained, lost = sum(change > 0 for _, change in changes), sum(change < 0 for _, change in changes)
    counted = f"{gained} of {len(changes)} classes gain, {lost} lose, {len(changes) - gained - lost} stay as they are"
    caption = f"{counted}. Most gained: {_points(*changes[0])}; least: {_points(*changes[-1])}."
    svg = plots.class_changes(changes, alt=f"Change of every class, sorted. {caption}")
    return [(f"Class by class: {outcome.name(best)}", caption, Markup(svg))]


def _points(title: str, change: float) -> str:
    return f"{title}, {f'{100 * change:+.1f}'.replace('-', '−')} points"
