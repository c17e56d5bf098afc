"""The plots of the report as SVG that stands in a page: its text is text, its ink follows the page, light or dark."""

import html
import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .summary import Line

WIDTH = 4.6  # inches: narrow, so that the type is still readable when a phone shrinks the plot
INK, GRID = "#010101", "#020202"  # stand-ins that the page's own colours replace
CROSS, SELF, GAINED, LOST = "#2f7fd0", "#8d99a6", "#2f7fd0", "#d1621f"
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


def bars(lines: Sequence[tuple[str, Line]], references: dict[str, float], *, alt: str) -> str:
    """Cross and self test of every line, best cross test first, with intervals; `references` are levels to compare with.

    Args:
        lines: (name, line), without those that have no figures.
        references: what it is → top-1 accuracy in [0, 1]; at most two.
        alt: the text for those who cannot see it.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes(1.1 + 0.46 * len(lines))
        axes.grid(visible=False, axis="y")
        handles: list[Any] = []
        for name, colour, offset, title in (
            ("cross", CROSS, -0.19, "cross test: new query, old gallery"),
            ("new_self", SELF, 0.19, "new self test: after a backfill"),
        ):
            found = [(place, line.estimate(name, "top1")) for place, (_, line) in enumerate(lines)]
            drawn = [(place, estimate) for place, estimate in found if estimate is not None]
            places = [place + offset for place, _ in drawn]
            halves = [100 * (estimate.half or 0) for _, estimate in drawn]
            container = axes.barh(places, [100 * each.value for _, each in drawn], 0.36, color=colour)
            axes.errorbar([100 * each.value for _, each in drawn], places, xerr=halves, fmt="none", ecolor=INK, lw=1)
            handles += [(container, title)] if drawn else []
        for (name, level), dashes in zip(references.items(), ("--", ":"), strict=False):
            handles.append((axes.axvline(100 * level, color=INK, lw=1.3, ls=dashes), name))
        axes.set_yticks(range(len(lines)), [name for name, _ in lines])
        axes.set(xlim=(0, _ceiling(axes)), ylim=(len(lines) - 0.45, -0.55), xlabel="top-1 accuracy, %")
        axes.tick_params(axis="y", length=0)
        _legend(figure, handles)
        return _svg(figure, "bars", alt)


def curves(series: Sequence[tuple[str, Sequence[float], str]], *, alt: str) -> str:
    """Accuracy against k = 1, 2, …; each of `series` is (name, accuracies in [0, 1], "reference" or "method")."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes(3.5)
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
        _legend(figure, handles, columns=2 if max(len(name) for name, *_ in series) < 20 else 1)
        return _svg(figure, "curves", alt)


def class_changes(changes: Sequence[tuple[str, float]], *, alt: str) -> str:
    """Cross − old self of every class, (name, share in [−1, 1]), as sorted bars; the names only where they fit."""
    values = np.array([100 * change for _, change in changes])
    named = len(values) <= 20
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes(0.75 + 0.21 * len(values) if named else 2.9)
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
        return _svg(figure, "classes", alt)


def _axes(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.add_subplot()


def _ceiling(axes: Axes) -> float:
    return min(100.0, 1.04 * float(axes.dataLim.x1))


def _legend(figure: Figure, handles: list[tuple[Any, str]], columns: int = 1) -> None:
    if handles:
        shown, names = zip(*handles, strict=True)
        figure.legend(shown, names, loc="outside lower left", ncols=columns, fontsize=9, handlelength=2.4)


def _short(name: str, limit: int = 18) -> str:
    return (name if len(name) <= limit else name[: limit - 1] + "…").replace("$", r"\$")  # a pair would be mathematics


def _svg(figure: Figure, name: str, alt: str) -> str:
    """The figure as an SVG element: no prolog, ids of its own, the page's type and colours, a text that stands for it."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(url\(|href=")#', rf"\1#{name}-", text)
    text = re.sub(r"(font: [^;\"]*?px) [^;\"]*", r"\1 system-ui, sans-serif", text)
    text = text.replace(INK, "var(--ink)").replace(GRID, "var(--grid)")
    box = re.search(r'viewBox="[^"]*"', text)
    opening = f'<svg {box[0] if box else ""} role="img" aria-label="{html.escape(alt)}">'
    return opening + text[text.index(">") + 1 :]
