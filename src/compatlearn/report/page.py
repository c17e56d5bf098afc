"""What came out, for people: tables in the terminal, and one page with plots and pictures that needs no network."""

from collections.abc import Callable, Sequence
from functools import partial
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from rich import box
from rich.table import Table
from rich.text import Text

from ..evaluation.compatibility import Compatibility
from ..files import write_atomically
from ..training.methods import METHODS
from .pictures import PictureRow, choose_pictures, data_uri
from .sentences import SETTINGS, best, percent, ratio, seeds, setting, several_methods, varying, verdict
from .summary import Line, lines

__all__ = ["PictureRow", "choose_pictures", "table", "verdict_table", "write_html"]

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


def write_html(results: dict[str, Any], path: Path, *, pictures: Sequence[PictureRow] = ()) -> None:
    """The report as one HTML file: verdict, table, plots and picture rows, everything inside it.

    Args:
        results: what `results.json` holds; `classes`, the names of the classes, is used where it is there.
        path: the file to write, whole or not at all.
        pictures: rows from `choose_pictures`.

    Raises:
        DataError: the file cannot be written.
    """
    template = files(__package__).joinpath("page.html.jinja").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(template).render(_content(results, pictures))

    def write(temporary: Path) -> None:
        temporary.write_text(page, encoding="utf-8")

    write_atomically(path, write)


def _content(results: dict[str, Any], pictures: Sequence[PictureRow]) -> dict[str, Any]:
    from .charts import charts  # matplotlib takes a second that a terminal table need not wait for

    shown = lines(results)
    columns = _columns(shown)
    return {
        "verdict": verdict(results),
        "compatible": any(line.compatible for line in shown),
        "subject": _subject(results),
        "facts": _facts(results),
        "recipe": _flat(results.get("recipe", {})),
        "versions": results.get("versions", {}),
        "headings": [heading.replace("\nself", " self") for heading, _ in columns],
        "labels": several_methods(shown) + len(varying(shown)),
        "rows": [([text(line) for _, text in columns], line is best(shown) and line.compatible) for line in shown],
        "note": _interval_note(shown),
        "methods": {line.method: METHODS[line.method].summary for line in shown if line.method in METHODS},
        "plots": charts(shown, results.get("classes")),
        "groups": [(*key, list(rows)) for key, rows in groupby(pictures, key=lambda row: (row.group, row.note))],
        "uri": data_uri,
    }


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


def _facts(results: dict[str, Any]) -> dict[str, str]:
    """Data and recipe in a few lines: what a reader asks first."""
    recipe = results.get("recipe", {})
    training = recipe.get("training", {})
    row: dict[str, Any] = next((row for row in results["rows"] if "error" not in row), {})
    steps = f"{training.get('epochs')} epochs of {training.get('batch_size')} images a step"
    without = f"{row.get('queries')}, of which {row.get('queries_without_relevant', 0)} have no relevant row"
    facts = {
        "Data": recipe.get("data"),
        "Models": f"{recipe.get('old_backbone')} (old) → {recipe.get('new_backbone')} (new)" if recipe else None,
        "Split": recipe and _split(recipe),
        "Training": training and steps,
        "Seeds": str(max((line.seeds for line in lines(results)), default=0)),
        "Queries": row.get("queries") and without,
    }
    return {key: str(value) for key, value in facts.items() if value}


def _split(recipe: dict[str, Any]) -> str:
    """Who was trained on what."""
    old = recipe.get("old_fraction", 0.0)
    new, known = recipe.get("new_fraction") or 1 - old, recipe.get("old_classes")
    unseen, clusters = recipe.get("test_classes"), recipe.get("clusters")
    whose = f"the first {known} classes" if known else "each class"
    said = {
        f"{100 * old:g} % of {whose} for the old model, {100 * new:g} % of each class for the new one": True,
        f"the last {unseen} classes searched for and not trained on": unseen,
        f"{clusters} clusters of old features for labels": clusters,
        "old features at unit length": recipe.get("unit_length"),
    }
    return "; ".join(text for text, holds in said.items() if holds)


def _flat(recipe: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in recipe.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": str(value)}
    return flat
