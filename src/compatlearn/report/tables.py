"""The tables of the terminal."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from ..evaluation.table import grid
from .columns import about_heads, columns, labelled, notes
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
    said = notes(outcome)
    said += [about_heads(outcome.name(line), line.figures) for line in labelled(outcome) if line.figures is not None]
    printed = grid(f"{outcome.subject}; figures in %, differences in points", "\n".join(said))
    shown = columns(outcome, terminal=True)
    for column in shown:
        printed.add_column(column.heading, justify="right" if column.kind == "number" else "left", no_wrap=True)
    for line in outcome.lines:
        cells = [Text(column.text(line), COLOURS[line.verdict] if column.kind == "verdict" else "") for column in shown]
        printed.add_row(*cells, style="bold" if line is outcome.best else None)
    return printed
