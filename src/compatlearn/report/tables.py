"""The tables of the terminal."""

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from ..evaluation.compatibility import TESTS, Compatibility
from .columns import columns, notes
from .outcome import Outcome

COLOURS = {"yes": "green", "undecided": "yellow", "no": "red"}


def table(results: Mapping[str, Any]) -> Table:
    """The terminal table: a line per method, or per setting of a sweep, best first; figures in %, for 100 columns.

    Args:
        results: what `results.json` holds.

    Returns:
        A table for `rich.print`; the best line is bold.
    """
    outcome = Outcome.of(results)
    grid = _grid(f"{outcome.subject}; figures in %, differences in points", "\n".join(notes(outcome)))
    shown = columns(outcome, terminal=True)
    for column in shown:
        grid.add_column(column.heading, justify="right" if column.kind == "number" else "left", no_wrap=True)
    for line in outcome.lines:
        cells = [Text(column.text(line), COLOURS[line.verdict] if column.kind == "verdict" else "") for column in shown]
        grid.add_row(*cells, style="bold" if line is outcome.best else None)
    return grid


def verdict_table(result: Compatibility) -> Table:
    """One evaluation in the terminal: every test with its 95 % intervals, and what follows from them."""
    without = f"; {result.queries_without_relevant} of them have no relevant row" if result.queries_without_relevant else ""
    grid = _grid(f"compatible: {result.compatible}", f"{result.queries} queries{without}; [95 % intervals]")
    for heading in ("", "top-1, %", "top-5, %", "mAP@R, %"):
        grid.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for key, title in TESTS.items():
        scores = getattr(result, key)
        if scores is not None:
            grid.add_row(title, *(_bounds(each, 100) for each in (scores.top1, scores.top5, scores.map_r)))
    grid.add_section()
    grid.add_row("cross − old self, points", _bounds(result.gain, 100, "+"))
    if result.update_gain is not None:
        grid.add_row("update gain", _bounds(result.update_gain, 1))
    grid.add_row("negative flips, %", _bounds(result.negative_flips, 100))
    return grid


def _grid(title: str, caption: str) -> Table:
    grid = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    grid.title, grid.title_justify = Text(title, style="bold"), "left"
    grid.caption, grid.caption_justify = Text(caption, style="dim"), "left"
    return grid


def _bounds(figure: Any, factor: int, sign: str = "") -> str:
    digits = 1 if factor == 100 else 2
    parts = (f"{factor * part:{sign}.{digits}f}" for part in (figure.value, figure.low, figure.high))
    value, low, high = (part.replace("-", "−").replace("inf", "∞") for part in parts)
    return f"{value} [{low}, {high}]"
