"""The plots of the report as SVG that stands in a page: its text is text, its ink follows the page, light or dark."""

import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

WIDTH = 4.6  # inches: narrow, so that the type is still readable when a phone shrinks the plot
INK, GRID, GOOD, UNSURE, BAD = (f"#0{digit}0{digit}0{digit}" for digit in range(1, 6))  # stand-ins for colours of the page
PAGE = {INK: "var(--ink)", GRID: "var(--grid)", GOOD: "var(--good)", UNSURE: "var(--unsure)", BAD: "var(--bad)"}
MARKS = {  # a verdict's colour, shape and meaning
    "yes": (GOOD, "o", "compatible"),
    "undecided": (UNSURE, "D", "undecided"),
    "no": (BAD, "s", "not compatible"),
}
GAINED, LOST = "#2f7fd0", "#d1621f"
COLOURS = ("#2f7fd0", "#d1621f", "#2a9d6f", "#b05bb5", "#b8860b")  # told apart by the colour-blind; markers differ too
MARKERS = "osD^v"
TICKS = (1, 5, 10, 15, 20)
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "compatlearn",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "legend.frameon": False,
    **dict.fromkeys(("grid.color",), GRID),
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
}


@dataclass(frozen=True)
class Dot:
    """A difference with its interval, in points; an end that is not known is the value itself."""

    name: str
    value: float
    low: float
    high: float
    verdict: str


def differences(dots: Sequence[Dot], backfill: float | None, *, alt: str) -> str:
    """Dots with whiskers around a line at zero, in the order given, coloured and shaped by verdict.

    Args:
        dots: one per line of the table.
        backfill: what a full backfill gains, in points; drawn where it is within the axis.
        alt: the text for those who cannot see it.
    """
    left, right = axis_of(dots, backfill)
    with matplotlib.rc_context(STYLE):
        figure, axes = new_axes(1.25 + 0.27 * len(dots))
        axes.grid(visible=False, axis="y")
        handles: list[Any] = [(axes.axvline(0, color=INK, lw=1.2), "the old model today")]
        if backfill is not None and left < backfill < right:
            handles.append((axes.axvline(backfill, color=INK, lw=1.2, ls=":"), "a full backfill"))
        for place, dot in enumerate(dots):
            _draw(axes, place, dot, left, right)
        for verdict, (colour, marker, meaning) in MARKS.items():
            if any(dot.verdict == verdict for dot in dots):
                handles.append((axes.plot([], [], color=colour, marker=marker, ms=6, lw=1.6)[0], meaning))
        axes.set_yticks(range(len(dots)), [_short(dot.name, 34) for dot in dots])
        axes.set(xlim=(left, right), ylim=(len(dots) - 0.4, -0.6), xlabel="cross − old self, points of top-1")
        axes.tick_params(axis="y", length=0)
        add_legend(figure, handles, columns=2)
        return as_svg(figure, "differences", alt)


def axis_of(dots: Sequence[Dot], backfill: float | None = None) -> tuple[float, float]:
    """The ends of the axis, in points: zero and the best are well inside, what is far off is not.

    Values count as far as three times the best one, whiskers a little further, and a span of 2 points is the least, so
    that neither a model at chance nor noise sets the scale.
    """
    reach = 3 * max(1.0, abs(max(dot.value for dot in dots)))
    near = [dot for dot in dots if dot.value >= -reach]
    wanted = [-1.0, 1.0, *(dot.low for dot in near), *(dot.high for dot in near)]
    wanted += [] if backfill is None or backfill > reach else [backfill]
    left, right = max(min(wanted), -1.5 * reach), min(max(wanted), 1.5 * reach)
    margin = 0.05 * (right - left)
    return left - margin, right + margin


def _draw(axes: Axes, place: int, dot: Dot, left: float, right: float) -> None:
    colour, marker, _ = MARKS[dot.verdict]
    if dot.value < left:  # an arrow at the edge, and how far away it is
        axes.plot([left + 0.02 * (right - left)], [place], color=colour, marker="<", ms=7)
        text = f"{dot.value:.1f}".replace("-", "−")
        axes.annotate(text, (left, place), (14, 0), textcoords="offset points", va="center", fontsize=8, color=INK)
        return
    axes.plot([max(dot.low, left), min(dot.high, right)], [place, place], color=colour, lw=1.6, solid_capstyle="butt")
    axes.plot([dot.value], [place], color=colour, marker=marker, ms=6.5)


def curves(series: Sequence[tuple[str, Sequence[float], str]], *, alt: str) -> str:
    """Accuracy against k = 1, 2, …; each of `series` is (name, accuracies in [0, 1], "reference" or "method")."""
    with matplotlib.rc_context(STYLE):
        figure, axes = new_axes(3.5)
        drawn, references, handles = 0, 0, []
        for name, values, kind in series:
            ranks = np.arange(1, len(values) + 1)
            if kind == "reference":
                style: dict[str, Any] = {"color": INK, "ls": ("--", ":")[references % 2], "lw": 1.5}
                references += 1
            else:
                marker = MARKERS[drawn % len(MARKERS)]
                style = {"color": COLOURS[drawn % len(COLOURS)], "lw": 1.6, "marker": marker, "ms": 4}
                style["markevery"] = [rank - 1 for rank in TICKS if rank <= len(values)]
                drawn += 1
            handles.append((axes.plot(ranks, 100 * np.asarray(values), **style)[0], name))
        axes.set(xlabel="k: a hit if any of the first k has the query's label", ylabel="accuracy, %")
        axes.set_xticks(TICKS)
        add_legend(figure, handles, columns=2 if max(len(name) for name, *_ in series) < 20 else 1)
        return as_svg(figure, "curves", alt)


def class_changes(changes: Sequence[tuple[str, float]], *, alt: str) -> str:
    """Cross − old self of every class, (name, share in [−1, 1]), as sorted bars; the names only where they fit."""
    values = np.array([100 * change for _, change in changes])
    named = len(values) <= 20
    with matplotlib.rc_context(STYLE):
        figure, axes = new_axes(0.75 + 0.21 * len(values) if named else 2.9)
        colours = [GAINED if value >= 0 else LOST for value in values]
        if named:
            axes.barh(range(len(values)), values, 0.72, color=colours)
            axes.set_yticks(range(len(values)), [_short(name) for name, _ in changes])
            axes.set(ylim=(len(values) - 0.4, -0.6), xlabel="cross − old self, points of top-1")
            axes.grid(visible=False, axis="y")
            axes.tick_params(axis="y", length=0)
            axes.axvline(0, color=INK, lw=1)
        else:
            axes.bar(
                range(1, len(values) + 1), values, 1.0, color=colours, edgecolor=colours, lw=0.4
            )  # the edge hides the seams
            axes.set(xlim=(0.5, len(values) + 0.5), xlabel="classes, most gained first")
            axes.set_ylabel("cross − old self, points of top-1")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.grid(visible=False, axis="x")
            axes.axhline(0, color=INK, lw=1)
        return as_svg(figure, "classes", alt)


def new_axes(height: float) -> tuple[Figure, Axes]:
    """Empty axes as wide as a phone, `height` inches high."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.add_subplot()


def add_legend(figure: Figure, handles: list[tuple[Any, str]], columns: int = 1) -> None:
    """The names of what is drawn, below the plot."""
    if handles:
        shown, names = zip(*handles, strict=True)
        figure.legend(shown, names, loc="outside lower left", ncols=columns, fontsize=9, handlelength=2.4)


def _short(name: str, limit: int = 18) -> str:
    return (name if len(name) <= limit else name[: limit - 1] + "…").replace("$", r"\$")  # a pair would be mathematics


def as_svg(figure: Figure, name: str, alt: str) -> str:
    """The figure as an SVG element: no prolog, ids of its own, the page's type and colours, a text that stands for it."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(url\(|href=")#', rf"\1#{name}-", text)
    text = re.sub(r"(font: [^;\"]*?px) [^;\"]*", r"\1 system-ui, sans-serif", text)
    for stand_in, colour in PAGE.items():
        text = text.replace(stand_in, colour)
    box = re.search(r'viewBox="[^"]*"', text)
    opening = f'<svg {box[0] if box else ""} role="img" aria-label="{html.escape(alt)}">'
    return opening + text[text.index(">") + 1 :]
