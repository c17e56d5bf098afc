"""Trained cells become rows of `results.json` and a page: evaluated once each, written together."""

import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ..adapters.references import HeadReferences, head_references
from ..arrays import Array
from ..config import Recipe
from ..errors import FormatError
from ..evaluation.compatibility import compatibility
from ..evaluation.result import Compatibility
from ..features.features import Features
from ..files import read_json, write_json
from ..indexes.exact import search
from ..indexes.hits import Hits
from ..metric import Metric
from ..report.advice import Files
from ..report.outcome import Outcome, is_reference
from ..report.page import write_html
from ..report.pictures import PictureRow, choose_pictures
from ..report.results import Measures, Row
from ..report.summary import summarise
from ..training.methods import Frozen, find_method
from ..training.runs import versions
from .situations import open_split
from .steps import ADAPTER, Cell, backfill, load_heads, queries


def write_results(recipe: Recipe, cells: Sequence[Cell], out: Path, classes: Sequence[str]) -> dict[str, Any]:
    """Evaluate what is not evaluated yet; write `results.json` and `report.html`.

    Args:
        recipe: of the comparison.
        cells: trained or failed, see `steps`.
        out: its folder.
        classes: the names of the classes.

    Returns:
        What `results.json` holds.
    """
    load, searcher = cache(Features.load), remembering_search()  # the methods of a seed share two self tests
    rows = [evaluate(recipe, out, cell, load, searcher) for cell in cells]
    results: dict[str, Any] = {"recipe": recipe.to_dict(), "versions": versions(), "made": _made(), "classes": classes}
    results |= {"rows": [row.to_dict() for row in rows], "summary": [line.to_dict() for line in summarise(rows)]}
    write_json(out / "results.json", results)
    best = _best_cell(Outcome.of(results))
    pictures = [] if best is None else _pictures(recipe, out, best)
    write_html(results, out / "report.html", pictures=pictures, files=None if best is None else _files(out, best))
    return results


def evaluate(
    recipe: Recipe, out: Path, cell: Cell, load: Callable[[Path], Features], searcher: Callable[..., Hits] = search
) -> Row:
    """The cell's row; the full evaluation stays in the cell's own `result.json`.

    Args:
        recipe: of the comparison.
        out: its folder.
        cell: trained or failed.
        load: reads features.
        searcher: what searches, see `compatibility`.

    Raises:
        FormatError: `result.json` lacks figures.
    """
    folder, path = cell.folder(out), cell.folder(out) / "result.json"
    if (folder / "failed.json").exists():
        return Row(**vars(cell), error=read_json(folder / "failed.json")["error"])
    alone = backfill(cell).folder(out)
    known = (alone / "val" / "manifest.json").exists()
    before = read_json(path) if path.exists() else {}
    since = known and before.get("independent_self") is None  # independent was trained since, or heads were fitted
    if not before or since or ("old_head" not in before and load_heads(out, cell) is not None):
        before = _judge(recipe, out, cell, load, searcher)
        write_json(path, before)
    try:
        return Row.from_dict({**vars(cell), **before})
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from error


def _judge(
    recipe: Recipe, out: Path, cell: Cell, load: Callable[[Path], Features], searcher: Callable[..., Hits]
) -> dict[str, Any]:
    """What `result.json` holds."""
    place, adapter = queries(out, cell)
    alone, heads = backfill(cell).folder(out) / "val", load_heads(out, cell)
    asked: dict[str, Any] = {"old_query": (old := load(out / f"seed-{cell.seed}" / "old-val")), "old_gallery": old}
    asked |= {"new_query": load(place), "adapter": adapter, "searcher": searcher}
    independent = load(alone) if (alone / "manifest.json").exists() else None

    def judge(metric: Metric) -> tuple[Compatibility, HeadReferences | None]:
        # pad: some methods train models that are narrower than the old one
        result = compatibility(**asked, independent=independent, metric=metric, pad=True)
        return result, heads and head_references(**asked, old_head=heads[0], new_head=heads[1], metric=metric)

    result, references = judge(recipe.metric)
    found = result.to_dict() | Measures.of(result, references).to_dict()
    if recipe.metric != "cosine":
        found["cosine"] = Measures.of(*judge("cosine")).to_dict()
    return found


def remembering_search() -> Callable[..., Hits]:
    """`search` that answers from memory where the same arrays come again."""
    known: dict[tuple[Any, ...], tuple[Any, Any, Hits]] = {}

    def remembered(queries: Array, gallery: Array, k: int, metric: Metric, *, exclude: Array) -> Hits:
        key = id(queries), id(gallery), k, metric
        if key not in known:  # with the arrays, or their identities could come again for others
            known[key] = queries, gallery, search(queries, gallery, k, metric, exclude=exclude)
        return known[key][2]

    return remembered


def _best_cell(outcome: Outcome) -> Cell | None:
    """The first run of the method that the page recommends; None if that is only there to compare with."""
    if outcome.best is None or is_reference(outcome.best):
        return None
    row = outcome.best.finished[0]
    return Cell(row.seed, row.method, *(outcome.best.setting(key) for key in ("temperature", "damping", "label_noise")))


def _files(out: Path, cell: Cell) -> Files:
    folder, frozen = cell.folder(out).relative_to(out), backfill(cell).folder(out).relative_to(out)
    adapter = str(folder / ADAPTER) if isinstance(find_method(cell.method), Frozen) else None
    new = frozen if adapter else folder
    seed = Path(f"seed-{cell.seed}")
    return Files(str(seed / "old-train"), str(frozen / "train"), str(seed / "old-val"), str(new / "val"), adapter)


def _pictures(recipe: Recipe, out: Path, cell: Cell) -> list[PictureRow]:
    old = Features.load(out / f"seed-{cell.seed}" / "old-val")
    place, adapter = queries(out, cell)
    new = Features.load(place).vectors
    new = new if adapter is None else adapter(new)
    images = open_split(recipe, "val")
    images = images.take(np.flatnonzero(np.isin(images.ids, old.ids)))  # the unreadable ones have no feature
    before, after = (search(query, old.vectors, 5, recipe.metric, exclude_self=True).indices for query in (old.vectors, new))
    return choose_pictures(before, after, images.labels, images.picture, classes=images.classes)


def _made() -> dict[str, str | None]:
    """When, by which command (None from Python) and from which commit (None unless this code is a checkout)."""
    program = Path(sys.argv[0])
    ours = program.stem == "compatlearn" or program.parts[-2:] == ("compatlearn", "__main__.py")
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": shlex.join(["compatlearn", *sys.argv[1:]]) if ours else None,
        "commit": _commit(),
    }


def _commit() -> str | None:
    here = Path(__file__)

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", here.parent, *words], capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)  # else an environment inside somebody else's repository
        return git("describe", "--always", "--dirty", "--exclude", "*")
    except (OSError, subprocess.SubprocessError):
        return None
