"""A plan as a table for a terminal."""

import io
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from ..evaluation.table import bounds, grid
from .advice import TITLES, Measured


def as_table(rungs: Sequence[Measured], recommended: str, primary: str, notes: Sequence[str]) -> Table:
    """Every rung with its primary figure, gain, flips and cost; the recommended one is marked.

    Args:
        rungs: cheapest first.
        recommended: name of one.
        primary: the figure that gains are of.
        notes: lines below the table.
    """
    table = grid(f"recommended: {recommended}", "\n".join([*notes, *_reasons(rungs), "[95 % intervals]"]))
    title = TITLES[primary]
    for heading in (
        "",
        f"{title}, %",
        "gain, points",
        "of a backfill",
        "negative flips, %",
        "embedded",
        "MB written",
        "µs a query",
    ):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for rung in rungs:
        mark = "→ " if rung.name == recommended else "  "
        table.add_row(mark + rung.name, *_cells(rung, primary))
    return table


def _reasons(rungs: Sequence[Measured]) -> list[str]:
    """Why some were not measured, one line a reason."""
    reasons = dict.fromkeys(rung.reason for rung in rungs if rung.reason)
    return [f"{', '.join(rung.name for rung in rungs if rung.reason == reason)}: {reason}" for reason in reasons]


def _cells(rung: Measured, primary: str) -> list[str]:
    if rung.reason:
        return ["not measured"]
    share = "" if rung.update_gain is None else f"{rung.update_gain:.2f}"
    cost = rung.cost
    return [
        bounds(rung.figures[primary], 100),
        "" if rung.gain is None or rung.name == "old" else bounds(rung.gain, 100, "+"),
        "" if rung.name == "old" else share,
        "" if rung.negative_flips is None or rung.name == "old" else bounds(rung.negative_flips, 100),
        f"{cost.encoder_items:,}",
        f"{cost.bytes_written / 1e6:,.1f}",
        f"{cost.query_microseconds:,.0f}",
    ]


def as_text(table: Table) -> str:
    """A table as plain text."""
    console = Console(file=io.StringIO(), width=160, color_system=None)
    with console.capture() as printed:
        console.print(table)
    return "\n".join(line.rstrip() for line in printed.get().splitlines())
