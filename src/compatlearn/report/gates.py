"""Gates in words: a line for each that is not met, and the table for a terminal."""

import math

from rich.table import Table
from rich.text import Text

from ..evaluation.gates import TITLES, Check, Checks, Gate
from ..evaluation.table import grid

NAMED = 10  # groups that a line names
SHOWN = 20  # groups that a table shows


def percent(value: float) -> str:
    """A share in percent, with as many digits as it needs: `1%`, `0.25%`."""
    return f"{100 * value:.6g}%"


def limit_of(check: Check) -> str:
    """What is asked, in words: `at most 1%`."""
    gate = check.gate
    if gate.figure == "compatible":
        return "surely above 0" if check.group is None else "not surely below 0"
    return f"at {'most' if gate.at_most else 'least'} {_limit(gate)}"


def _limit(gate: Gate) -> str:
    return f"{gate.limit:g}" if gate.figure == "update_gain" else percent(gate.limit)


def figure_of(check: Check) -> str:
    """A figure and its interval: `2.4% [1.1%, 4.0%]`; gains in points, an update gain as a ratio."""
    parts = check.figure.value, check.figure.low, check.figure.high
    if check.gate.figure == "update_gain":
        texts = [f"{part:.2f}" for part in parts]
    elif check.gate.figure == "compatible":
        texts = [f"{100 * part:+.1f}" for part in parts]
    else:
        digits = 1 if abs(check.beyond) >= 0.0005 else 3  # 1.0% that is not at most 1% would puzzle
        texts = [f"{part:.{digits}%}" for part in parts]
    value, low, high = (text.replace("-", "−").replace("inf", "∞") for text in texts)
    return f"{value} [{low}, {high}]" + (" points" if check.gate.figure == "compatible" else "")


def reason(check: Check) -> str:
    """Why one check is as it is, in a line: what is measured, on how many queries, and what is asked."""
    nothing = ""
    if check.gate.figure == "update_gain" and math.isinf(check.figure.low):
        nothing = "; a full backfill is not surely better than the old queries, so there is no gain to measure"
    measured = f"{TITLES[check.gate.figure]} {figure_of(check)} of {check.queries} queries"
    return f"{measured}, asked: {limit_of(check)}{nothing}"


def failed_lines(checks: Checks) -> list[str]:
    """One line for each gate that is not met; the groups that fail are named, worst first.

    Args:
        checks: all gates.

    Returns:
        As many lines as gates that are not met.
    """
    lines = []
    for gate in dict.fromkeys(check.gate for check in checks.failed):
        failed = [check for check in checks.failed if check.gate == gate]
        parts = [reason(check) for check in failed if check.group is None]
        groups = [check for check in failed if check.group is not None]
        if groups:
            asked = sum(check.gate == gate and check.group is not None and check.met is not None for check in checks.checks)
            named = [f"{one.group!r} {figure_of(one)} of {one.queries} queries" for one in groups[:NAMED]]
            more = [f"{len(groups) - NAMED} more"] if len(groups) > NAMED else []
            parts.append(f"{len(groups)} of {asked} groups, worst first: {', '.join(named + more)}")
        flag = f"--{gate.name}" + ("" if gate.figure == "compatible" else f" {_limit(gate)}")
        lines.append(f"{flag} is not met: {'; '.join(parts)}")
    return lines


def note_of(checks: Checks) -> str:
    """What decides, and what the intervals hold for."""
    decides = "the whole interval decides" if checks.strict else "over all queries the figure decides"
    if checks.tail is None:
        return decides
    groups = "in every group alike" if checks.strict else "of a group the whole interval, and those of all groups hold together"
    return f"{decides}, {groups}; groups of fewer than {checks.fewest} queries are not gated"


def gates_table(checks: Checks) -> Table:
    """All gates for a terminal; of many groups those that fail, worst first, and some of the others.

    Args:
        checks: all gates.
    """
    table = grid(f"gates: {'met' if checks.met else 'not met'}", note_of(checks))
    for heading in ("gate", "group", "queries", "figure", "asked", ""):
        table.add_column(heading, justify="right" if heading in ("queries", "figure") else "left", overflow="fold")
    for gate in dict.fromkeys(check.gate for check in checks.checks):
        rows = [check for check in checks.checks if check.gate == gate]
        for check in rows[: SHOWN + 1]:
            name = "all queries" if check.group is None else check.group
            cells = (gate.name, name, str(check.queries), figure_of(check), limit_of(check), check.state)
            table.add_row(*map(_plain, cells))
        if len(rows) > SHOWN + 1:
            failed = sum(check.met is False for check in rows[SHOWN + 1 :])
            table.add_row(gate.name, f"{len(rows) - SHOWN - 1} more groups, {failed} of them not met")
    return table


def _plain(text: str) -> Text:
    return Text(text)
