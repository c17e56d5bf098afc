"""What came out, for people: tables in the terminal, and one page with plots and pictures that needs no network."""

from collections.abc import Sequence
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from ..files import write_atomically
from ..training.methods import METHODS
from .pictures import PictureRow, data_uri
from .sentences import best, several_methods, varying, verdict
from .summary import lines
from .tables import _columns, _interval_note, _subject


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
