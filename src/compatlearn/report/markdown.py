"""A verdict and its gates as Markdown: the summary of a pull request."""

import re
from pathlib import Path

from ..evaluation.figures import Figure
from ..evaluation.gates import Check, Checks
from ..evaluation.result import FIGURES, TESTS, Compatibility
from ..evaluation.table import bounds
from ..files import write_text
from .gates import figure_of, limit_of, note_of

MARK = "<!-- compatlearn evaluate -->"  # by which `--markdown` knows a report of its own
MOST = 200  # groups of a gate that are listed: a job's summary on GitHub holds a megabyte
SIGNS = {"met": "✅", "undecided": "❔", "not met": "❌", "too few queries": "➖"}


def write_markdown(path: Path, result: Compatibility, checks: Checks | None) -> None:
    """Write the verdict, the gates, the groups that fail, and every figure with its interval.

    Args:
        path: the file.
        result: the verdict.
        checks: its gates; None: none were asked.

    Raises:
        DataError: it cannot be written.
    """
    lines = [MARK, f"## compatible: {result.compatible}, by {FIGURES[result.primary]}", ""]
    if checks is not None:
        lines += [f"**{'All gates are met' if checks.met else 'Not all gates are met'}.**", "", *_gates(checks), ""]
    lines += [*_figures(result), "", f"{result.queries} queries; 95 % intervals in brackets."]
    write_text(path, "\n".join(lines) + "\n")


def _gates(checks: Checks) -> list[str]:
    whole = [check for check in checks.checks if check.group is None]
    failed = [check for check in checks.failed if check.group is not None]
    others = [check for check in checks.checks if check.group is not None and check.met is not False]
    lines = _table(whole, "")
    if failed:
        lines += ["", f"**Groups that fail: {len(failed)}, worst first**", "", *_table(failed, "group")]
    if others:
        summary = f"<details><summary>{len(others)} other checks of groups</summary>"
        lines += ["", summary, "", *_table(others, "group"), "", "</details>"]
    return [*lines, "", f"What counts: {note_of(checks)}."]


def _table(checks: list[Check], group: str) -> list[str]:
    headings = ["gate", *([group] if group else []), "figure", "asked", "queries", ""]
    rows = [
        [
            f"`{check.gate.name}`",
            *([escaped(check.group or "")] if group else []),
            figure_of(check),
            limit_of(check),
            str(check.queries),
            f"{SIGNS[check.state]} {check.state}",
        ]
        for check in checks[:MOST]
    ]
    lines = [_row(headings), _row(["---"] * len(headings)), *map(_row, rows)]
    return [*lines, "", f"… and {len(checks) - MOST} more"] if len(checks) > MOST else lines


def _figures(result: Compatibility) -> list[str]:
    tests = {title: scores.known() for test, title in TESTS.items() if (scores := getattr(result, test)) is not None}
    names = [name for name in FIGURES if name in result.old_self.known()]
    rows = [[title, *(bounds(figures[name], 100) for name in names)] for title, figures in tests.items()]
    others: list[tuple[str, Figure | None, int]] = [
        ("cross − old self, points", result.gain, 100),
        ("update gain", result.update_gain, 1),
        ("negative flips, %", result.negative_flips, 100),
    ]
    lines = [_row(["%", *(FIGURES[name] for name in names)]), _row(["---"] * (len(names) + 1)), *map(_row, rows), ""]
    return lines + [f"- {title}: {bounds(figure, factor)}" for title, figure, factor in others if figure is not None]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def escaped(text: str) -> str:
    """Any text as it is within a table: nothing in it is taken for Markdown or HTML.

    Args:
        text: such as the name of a group.
    """
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("@", "&#64;")
    return re.sub(r"([\\`*_{}\[\]()#+!|~-])", r"\\\1", text)
