"""Methods × seeds, the paper's Table 1, and the grid of Table 2: one cell is one model trained and evaluated.

A cell is done when its features of the validation set are on disk; a run that was stopped goes on with the cells that are
not (`steps` has what is done for each). Old model, its features and the decoded images are made once a seed and shared.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..config import Recipe
from ..errors import ConfigError
from ..extras import require
from ..files import read_json, remove_all_leftovers, write_json
from ..locks import locked
from ..pseudo.centres import check_walk
from ..training.arithmetic import choose_arithmetic
from ..training.methods import Frozen, Trained, find_method, find_methods, find_trained
from ..training.runs import refuse_changes
from .evaluate import write_results
from .pool import Pool
from .situations import check_noise
from .steps import (
    Cell,
    backfill,
    fit_cell_adapter,
    fit_heads,
    labelled,
    load_split,
    save_training_features,
    train_new,
    train_old,
)


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
            walks = find_method(method).options != ()
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
        method = find_method(cell.method)
        if isinstance(method, Trained) and method.oracle and recipe.clusters is not None:
            raise ConfigError(
                f"method {cell.method!r} needs classes that the old model knew, not clusters; leave one of the two out"
            )
    for library in ("accelerate", "matplotlib"):
        require(library)  # now, not after hours of training
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
    return write_results(recipe, cells, out, images.classes)


def _train_cells(recipe: Recipe, cells: list[Cell], out: Path) -> None:
    maps = [cell for cell in cells if isinstance(find_method(cell.method), Frozen)]
    later = [cell for cell in cells if cell not in maps and find_trained(cell.method).beside]
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
        pool.each(fit_heads, tasks([home for cell in maps if (home := labelled(out, cell)) is not None]))
