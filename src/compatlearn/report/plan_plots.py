"""The plots of a plan: quality against cost, and how quality grows with pairs and with what is embedded anew."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes

from ..evaluation.figures import Figure
from .plots import COLOURS, INK, MARKERS, STYLE, add_legend, as_svg, new_axes

SHAPES = MARKERS + "PX*"


@dataclass(frozen=True)
class Point:
    """A rung in the plot of quality against cost; figure in [0, 1]."""

    name: str
    items: int
    figure: Figure
    recommended: bool


def frontier(points: Sequence[Point], title: str, *, alt: str) -> str:
    """Quality against items to embed; a line joins those that nothing cheaper matches.

    Args:
        points: cheapest first.
        title: of the figure.
        alt: the text for those who cannot see it.
    """
    places, ticks = _places([point.items for point in points])
    with matplotlib.rc_context(STYLE):
        figure, axes = new_axes(4.2)
        axes.grid(visible=False, axis="x")
        handles: list[Any] = []
        for number, (point, place) in enumerate(zip(points, places, strict=True)):
            style: dict[str, Any] = {"color": COLOURS[number % len(COLOURS)], "marker": SHAPES[number % len(SHAPES)], "ms": 6}
            if point.recommended:
                style |= {"ms": 10, "markeredgecolor": INK, "markeredgewidth": 1.6}
            axes.plot([place, place], [100 * point.figure.low, 100 * point.figure.high], color=style["color"], lw=1.5)
            handles.append((axes.plot([place], [100 * point.figure.value], ls="", **style)[0], _named(point)))
        best = _undominated(points)
        if len(best) > 1:
            line = [places[row] for row in best], [100 * points[row].figure.value for row in best]
            handles.append((axes.plot(*line, color=INK, lw=1, ls=":", zorder=0)[0], "most for the cost"))
        axes.set_xticks(list(ticks), list(ticks.values()))
        axes.set(xlabel="items of the gallery that the new model embeds", ylabel=f"{title}, %")
        add_legend(figure, handles, columns=2)
        return as_svg(figure, "frontier", alt)


def _named(point: Point) -> str:
    return f"{point.name}{' (recommended)' if point.recommended else ''}"


def _undominated(points: Sequence[Point]) -> list[int]:
    """Rows of the points that are better than all that cost as much or less; by cost."""
    order = sorted(range(len(points)), key=lambda row: (points[row].items, -points[row].figure.value))
    found: list[int] = []
    for row in order:
        if not found or points[row].figure.value > points[found[-1]].figure.value:
            found.append(row)
    return found


def _places(items: Sequence[int]) -> tuple[list[float], dict[float, str]]:
    """Where costs lie on an axis that is logarithmic right of a zone for zero, and its ticks; equal costs side by side."""
    paid = [count for count in items if count > 0]
    first = math.floor(math.log10(min(paid))) if paid else 0
    decades = max(1, math.ceil(math.log10(max(paid))) - first) if paid else 1
    zone = 0.9 * decades  # of the axis, for what costs nothing: most rungs
    places = []
    for row, count in enumerate(items):
        alike = [other for other, cost in enumerate(items) if cost == count]
        centre = zone / 2 if count == 0 else 1.15 * zone + math.log10(count) - first
        width = (0.8 * zone if count == 0 else 0.12 * decades) * (len(alike) > 1)
        places.append(centre + width * (alike.index(row) / max(1, len(alike) - 1) - 0.5))
    ticks = {zone / 2: "none"}
    if paid:
        ticks |= {1.15 * zone + decade: f"{10 ** (first + decade):,}" for decade in range(decades + 1)}
    return places, ticks


def learning(at: Sequence[float], figures: Sequence[Figure], bend: float | None, title: str, *, alt: str) -> str:
    """Quality by number of pairs, with a line where more pairs stop paying; `at` above zero."""
    with matplotlib.rc_context(STYLE):
        figure, axes = new_axes(3.3)
        handles: list[Any] = [(_curve(axes, at, figures, 0), "translated gallery")]
        if bend is not None:
            handles.append((axes.axvline(bend, color=INK, lw=1.2, ls=":"), f"the bend: {bend:,.0f} pairs"))
        axes.set_xscale("log")
        axes.set_xticks(list(at), [f"{count:,.0f}" for count in at])
        axes.set_xticks([], minor=True)
        axes.set(xlabel="pairs", ylabel=f"{title}, %")
        add_legend(figure, handles, columns=2)
        return as_svg(figure, "learning", alt)


def partial(curves: Mapping[str, tuple[Sequence[float], Sequence[Figure]]], title: str, *, alt: str) -> str:
    """Quality by share of the gallery, in [0, 1], that is embedded anew; a curve for each order."""
    with matplotlib.rc_context(STYLE):
        figure, axes = new_axes(3.5)
        handles: list[Any] = []
        for number, (name, (at, figures)) in enumerate(curves.items()):
            shares = [100 * share for share in at]
            handles.append((_curve(axes, shares, figures, number, band=len(curves) == 1), name))
        axes.set(xlabel="share of the gallery that the new model embeds, %", ylabel=f"{title}, %")
        add_legend(figure, handles, columns=2)
        return as_svg(figure, "partial", alt)


def _curve(axes: Axes, at: Sequence[float], figures: Sequence[Figure], number: int, *, band: bool = True) -> Any:
    colour = COLOURS[number % len(COLOURS)]
    if band:
        low, high = [100 * figure.low for figure in figures], [100 * figure.high for figure in figures]
        axes.fill_between(at, low, high, color=colour, alpha=0.18, lw=0)
    values = [100 * figure.value for figure in figures]
    return axes.plot(at, values, color=colour, marker=SHAPES[number % len(SHAPES)], ms=4, lw=1.6)[0]
