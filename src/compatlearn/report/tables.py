"""The tables of the terminal."""

from collections.abc import Callable
from functools import partial
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from ..evaluation.compatibility import Compatibility
from ..training.methods import METHODS
from .sentences import SETTINGS, best, percent, ratio, seeds, setting, several_methods, varying
from .summary import Line, lines

Column = tuple[str, Callable[[Line], str]]  # heading, text of a line
TESTS = {
    "old_self": "old self test",
    "cross": "cross test",
    "new_self": "new self test",
    "independent_self": "independent self test",
}


def table(results: dict[str, Any]) -> Table:
    """The terminal table: a line for every method, or for every setting of a sweep; figures in %, for 100 columns."""
    shown = lines(results)
    before = next((f" Old self top-1: {percent(line.estimate('old_self', 'top1'))}." for line in shown if line.rows), "")
    grid = _grid(_subject(results), _interval_note(shown) + before)
    columns = _columns(shown, terminal=True)
    for heading, _ in columns:
        grid.add_column(heading, justify="left" if heading in ("method", "compatible") else "right", no_wrap=True)
    for line in shown:
        style = "bold" if line is best(shown) and line.compatible else None
        grid.add_row(*(Text(text(line)) for _, text in columns), style=style)
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


def _columns(shown: list[Line], *, terminal: bool = False) -> list[Column]:
    """What tells the lines apart, then figures; a terminal has no room for every interval, in a sweep for self tests."""
    own: list[Column] = [("method", lambda line: line.method)] if several_methods(shown) else []
    own += [(SETTINGS[key].replace(" ", "\n"), partial(setting, key=key)) for key in varying(shown)]
    old: Column = ("old\nself\ntop-1", lambda line: percent(line.estimate("old_self", "top1"), spread=not terminal))
    new: Column = ("new\nself\ntop-1", lambda line: percent(line.estimate("new_self", "top1"), spread=not terminal))
    selves = not (terminal and varying(shown))
    cosine = any(METHODS[line.method].metric == "cosine" and line.by_cosine for line in shown if line.method in METHODS)
    return [
        *own,
        *([old] if selves else []),
        ("cross\ntop-1", lambda line: percent(line.estimate("cross", "top1"))),
        ("cross\ntop-5", lambda line: percent(line.estimate("cross", "top5"), spread=False)),
        *([("cross\nby cosine", partial(_by_cosine, spread=not terminal))] if cosine else []),
        *([new] if selves else []),
        ("cross −\nold self", lambda line: percent(line.estimate("gain"), signed=True)),
        ("update\ngain", lambda line: ratio(line.estimate("update_gain"), spread=not terminal)),
        ("negative\nflips", lambda line: percent(line.estimate("negative_flips"), spread=not terminal)),
        ("compatible", lambda line: "\n".join(seeds(line))),
    ]


def _by_cosine(line: Line, spread: bool) -> str:
    """Top-1 and, in brackets, how far that is above the old self test by cosine."""
    other = line.by_cosine
    if other is None:
        return percent(None)
    gain = percent(other.estimate("gain"), signed=True, spread=False)
    return f"{percent(other.estimate('cross', 'top1'), spread=spread)} ({gain})"


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


def _subject(results: dict[str, Any]) -> str:
    recipe = results.get("recipe", {})
    models = f"{recipe.get('old_backbone', 'old model')} → {recipe.get('new_backbone', 'new model')}"
    return f"{recipe.get('data') or 'unnamed data'}, {models}; figures in %, differences in points"


def _interval_note(shown: list[Line]) -> str:
    count = max((line.seeds for line in shown), default=1)
    if count > 1:
        return f"±: half the 95 % interval of the mean over {count} seeds (Student's t)."
    return "One seed. ±: half the 95 % bootstrap interval over queries; the training was not repeated."
