"""Methods × seeds, the paper's Table 1, and the grid of Table 2: one cell is one model trained and evaluated.

A cell is done when its features of the validation set are on disk; a run that was stopped goes on with the cells that are
not (`cells` has the steps). Old model, its features and the decoded images are made once a seed and shared.
"""

import itertools
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import Array
from ..config import Recipe
from ..errors import ConfigError
from ..evaluation.compatibility import compatibility
from ..features.features import Features
from ..files import read_json, remove_all_leftovers, write_json
from ..indexes.exact import Hits, search
from ..locks import locked
from ..pseudo.centres import check_walk
from ..report.page import write_html
from ..report.pictures import PictureRow, choose_pictures
from ..report.summary import figures, summarise
from ..training.arithmetic import choose_arithmetic
from ..training.methods import METHODS, find_methods
from ..training.runs import refuse_changes, versions
from .pool import Pool
from .situations import check_noise, open_split
from .steps import Cell, backfill, fit_cell_adapter, load_split, queries, save_training_features, train_new, train_old


def compare(recipe: Recipe, out: Path) -> dict[str, Any]:
    """Every method of the recipe, every seed: the paper's Table 1, written to `out/results.json` and returned."""
    methods = find_methods(recipe.methods)
    cells = [
        Cell(seed, method, recipe.temperature, recipe.damping, recipe.label_noise)
        for seed in _seeds(recipe)
        for method in methods
    ]
    return run_cells(recipe, cells, out)


def sweep(
    recipe: Recipe,
    out: Path,
    *,
    temperatures: Sequence[float] = (),
    dampings: Sequence[float] = (),
    label_noises: Sequence[float] = (),
    methods: Sequence[str] = ("random-walk",),
) -> dict[str, Any]:
    """A grid over the random walk's parameters and the label noise: the paper's Table 2; as `compare` in all else.

    An empty axis is the recipe's own value. A method that has no temperature or damping is trained once for all of them.
    """
    cells: dict[Cell, None] = {}  # a set that keeps its order
    for seed in _seeds(recipe):
        for method in find_methods(list(methods)):
            walks = METHODS[method].options != ()
            grid = itertools.product(
                (walks and temperatures) or [recipe.temperature],
                (walks and dampings) or [recipe.damping],
                label_noises or [recipe.label_noise],
            )
            cells |= {Cell(seed, method, *values): None for values in grid}
    return run_cells(recipe, list(cells), out)


def _seeds(recipe: Recipe) -> range:
    if recipe.seeds < 1:
        raise ConfigError(f"seeds must be at least 1; got {recipe.seeds}")
    return range(recipe.training.seed, recipe.training.seed + recipe.seeds)


def run_cells(recipe: Recipe, cells: list[Cell], out: Path) -> dict[str, Any]:
    """Train what is not trained yet, evaluate what is not evaluated yet, write `results.json` and `report.html`."""
    for cell in cells:  # before anything is trained
        check_walk(cell.temperature, cell.damping, recipe.steps)
        check_noise(cell.label_noise)
        if cell.method == "bct" and recipe.clusters is not None:
            raise ConfigError("method 'bct' needs classes that the old model knew, not clusters; leave one of the two out")
    choose_arithmetic(recipe.training.precision)
    with locked(out):
        return _run_locked(recipe, cells, out)


def _run_locked(recipe: Recipe, cells: list[Cell], out: Path) -> dict[str, Any]:
    for folder in (out / "pixels", *(cell.folder(out) for cell in cells)):
        remove_all_leftovers(folder)
    kept = {key: value for key, value in recipe.to_dict().items() if key not in ("methods", "seeds", "jobs")}
    if (out / "recipe.json").exists():
        refuse_changes(out, read_json(out / "recipe.json"), kept)  # methods, seeds and jobs may grow
    else:
        write_json(out / "recipe.json", kept)
    images, _ = load_split(recipe, out, "val")
    load_split(recipe, out, "train")  # decoded once, here, before processes share it
    _train_cells(recipe, cells, out)
    load, searcher = cache(Features.load), _remembering_search()  # the methods of a seed share two self tests
    rows = [_evaluate(recipe, out, cell, load, searcher) for cell in cells]
    results: dict[str, Any] = {"recipe": recipe.to_dict(), "versions": versions(), "classes": images.classes}
    results |= {"rows": rows, "summary": summarise(rows)}
    write_json(out / "results.json", results)
    write_html(results, out / "report.html", pictures=_pictures(results, recipe, out))
    return results


def _train_cells(recipe: Recipe, cells: list[Cell], out: Path) -> None:
    maps = [cell for cell in cells if METHODS[cell.method].adapter]
    later = [cell for cell in cells if METHODS[cell.method].beside]
    frozen = [backfill(cell) for cell in maps + later]
    models = [cell for cell in cells if cell not in maps + later]

    def tasks(some: list[Cell]) -> dict[str, tuple[Recipe, Path, Cell]]:
        return {str(cell.folder(Path())): (recipe, out, cell) for cell in some}

    with Pool(recipe.jobs) as pool:
        pool.each(train_old, {f"seed-{cell.seed}/old": (recipe, out, cell.seed) for cell in cells})
        pool.each(train_new, tasks(frozen + models))
        pool.each(save_training_features, tasks(frozen))
        pool.each(train_new, tasks(later))
        pool.each(fit_cell_adapter, tasks(maps))


def _remembering_search() -> Callable[..., Hits]:
    """`search` that answers from memory where the same arrays come again."""
    known: dict[tuple[Any, ...], tuple[Any, Any, Hits]] = {}

    def remembered(queries: Array, gallery: Array, k: int, metric: str, *, exclude: Array) -> Hits:
        key = id(queries), id(gallery), k, metric
        if key not in known:  # with the arrays, or their identities could come again for others
            known[key] = queries, gallery, search(queries, gallery, k, metric, exclude=exclude)
        return known[key][2]

    return remembered


def _evaluate(
    recipe: Recipe, out: Path, cell: Cell, load: Callable[[Path], Features], searcher: Callable[..., Hits]
) -> dict[str, Any]:
    """The cell's row of `results.json`; the full evaluation stays in the cell's own `result.json`."""
    folder, path = cell.folder(out), cell.folder(out) / "result.json"
    identity = {"method": cell.method, "seed": cell.seed}
    identity |= {"temperature": cell.temperature, "damping": cell.damping, "label_noise": cell.label_noise}
    if (folder / "failed.json").exists():
        return {**identity, "error": read_json(folder / "failed.json")["error"], "compatible": "no"}
    alone = backfill(cell).folder(out)
    known = (alone / "val" / "manifest.json").exists()
    before = read_json(path) if path.exists() else {}
    if not before or (known and before["independent_self"] is None):  # independent was trained since
        place, adapter = queries(out, cell)
        judge = partial(
            compatibility,
            old_query=(old := load(out / f"seed-{cell.seed}" / "old-val")),
            old_gallery=old,
            new_query=load(place),
            independent=load(alone / "val") if known else None,
            searcher=searcher,
            adapter=adapter,
        )
        result = judge(metric=recipe.metric).to_dict()
        if recipe.metric != "cosine":
            result["cosine"] = figures(judge(metric="cosine").to_dict())
        write_json(path, result)
    return {**identity, **read_json(path)}


def _pictures(results: dict[str, Any], recipe: Recipe, out: Path) -> list[PictureRow]:
    rows = [row for row in results["rows"] if not METHODS[row["method"]].reference and "error" not in row]
    if not rows:
        return []
    best = max(rows, key=lambda row: (row["seed"] == rows[0]["seed"], row["cross"]["top1"]))
    cell = Cell(*(best[name] for name in ("seed", "method", "temperature", "damping", "label_noise")))
    old = Features.load(out / f"seed-{cell.seed}" / "old-val")
    place, adapter = queries(out, cell)
    new = Features.load(place).vectors
    new = new if adapter is None else adapter(new)
    images = open_split(recipe, "val")
    images = images.take(np.flatnonzero(np.isin(images.ids, old.ids)))  # the unreadable ones have no feature
    before, after = (search(query, old.vectors, 5, recipe.metric, exclude_self=True).indices for query in (old.vectors, new))
    return choose_pictures(before, after, images.labels, images.picture, classes=images.classes)
