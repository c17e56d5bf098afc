"""The report as one HTML page with plots and pictures that needs no network."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from ..files import write_text
from .advice import ROLLBACK, Files, advice
from .columns import columns, labelled, notes, votes
from .outcome import Outcome, is_reference, method_of
from .pictures import PictureRow, data_uri
from .sentences import details, headline, rule

MARKS = {"yes": "●", "undecided": "◆", "no": "■"}  # the shapes of the first plot: colour is never the only sign


def write_html(
    results: Mapping[str, Any], path: Path, *, pictures: Sequence[PictureRow] = (), files: Files | None = None
) -> None:
    """Write the report as one HTML file: verdict, advice, table, plots and picture rows, everything inside it.

    Args:
        results: what `results.json` holds, which is linked as a file beside the page; `classes` and `made` are used
            where they are there.
        path: the file to write, whole or not at all.
        pictures: rows from `choose_pictures`.
        files: of the best method's first run, for the commands that the page recommends.

    Raises:
        DataError: the file cannot be written.
        FormatError: a row of the results has neither figures nor an error.
    """
    write_text(path, render(Outcome.of(results), pictures, files))


def render(outcome: Outcome, pictures: Sequence[PictureRow] = (), files: Files | None = None) -> str:
    """The page as text; see `write_html`."""
    return fill("page.html.jinja", _content(outcome, pictures, files))


def fill(template: str, content: Mapping[str, Any]) -> str:
    """A page of the house: a template of this package with its style sheet; whatever is not `Markup` is escaped.

    Args:
        template: name of the file.
        content: what the template asks for.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_read(template)).render(content, style=Markup(_read("page.css").rstrip()))


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _content(outcome: Outcome, pictures: Sequence[PictureRow], run: Files | None) -> dict[str, Any]:
    from .charts import charts  # matplotlib takes a second that a terminal table need not wait for

    shown = columns(outcome)
    return {
        "verdict": outcome.verdict,
        "headline": headline(outcome),
        "rule": rule(outcome),
        "details": details(outcome),
        "advice": advice(outcome, run),
        "rollback": ROLLBACK[outcome.verdict == "yes"],
        "made": _made(outcome),
        "subject": outcome.subject,
        "facts": _facts(outcome),
        "recipe": _flat(outcome.recipe),
        "versions": outcome.versions,
        "columns": [(column.heading.replace("\nself", " self"), column.kind) for column in shown],
        "rows": [
            {
                "cells": [(column.text(line), column.kind) for column in shown],
                "best": line is outcome.best,
                "reference": is_reference(line),
                "verdict": line.verdict,
                "votes": "\n".join(votes(line)),
            }
            for line in outcome.lines
        ],
        "marks": MARKS,
        "heads": bool(labelled(outcome)),
        "notes": " ".join(notes(outcome)),
        "methods": {line.method: method.summary for line in outcome.lines if (method := method_of(line)) is not None},
        "plots": charts(outcome),
        "groups": [(*key, list(rows)) for key, rows in groupby(pictures, key=lambda row: (row.group, row.note))],
        "uri": data_uri,
    }


def _made(outcome: Outcome) -> dict[str, str]:
    """When, by which command and with which version the results were made, as far as that is known."""
    version, commit = outcome.versions.get("compatlearn"), outcome.made.get("commit")
    facts = {
        "Made": outcome.made.get("date"),
        "Command": outcome.made.get("command"),
        "Version": version and f"compatlearn {version}{f', commit {commit}' if commit else ''}",
    }
    return {key: str(value) for key, value in facts.items() if value}


def _facts(outcome: Outcome) -> dict[str, str]:
    """Data and recipe in a few lines: what a reader asks first."""
    recipe, row = outcome.recipe, outcome.first_row
    training = recipe.get("training", {})
    steps = f"{training.get('epochs')} epochs, batches of {training.get('batch_size')} images"
    facts = {
        "Data": recipe.get("data"),
        "Models": f"{recipe.get('old_backbone')} (old) → {recipe.get('new_backbone')} (new)" if recipe else None,
        "Split": recipe and _split(recipe),
        "Training": training and steps,
        "Seeds": str(outcome.seeds),
        "Queries": row and row.queries and f"{row.queries}, of which {row.queries_without_relevant or 0} have no relevant row",
    }
    return {key: str(value) for key, value in facts.items() if value}


def _split(recipe: Mapping[str, Any]) -> str:
    """Who was trained on what."""
    old = recipe.get("old_fraction", 0.0)
    new, known = recipe.get("new_fraction") or 1 - old, recipe.get("old_classes")
    unseen, clusters = recipe.get("test_classes"), recipe.get("clusters")
    whose = f"the first {known} classes" if known else "each class"
    parts = [f"{100 * old:g} % of {whose} for the old model, {100 * new:g} % of each class for the new one"]
    if unseen:
        parts.append(f"the last {unseen} classes searched for and not trained on")
    if clusters:
        parts.append(f"{clusters} clusters of old features for labels")
    if recipe.get("unit_length"):
        parts.append("old features at unit length")
    return "; ".join(parts)


def _flat(recipe: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in recipe.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": str(value)}
    return flat
