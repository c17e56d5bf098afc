"""`compatlearn compare` and `compatlearn sweep`."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..config import load_recipe
from .output import show


def compare(*, out: Path, recipe: Path | None = None, json: bool = False, **overrides: str) -> int:
    """Methods × seeds: the paper's Table 1. Run again, it goes on where it was stopped.

    Args:
        out: folder of the run: results.json, report.html, and a folder for every model.
        recipe: TOML file, or the name of a recipe that comes with the package: see `compatlearn recipe`.
        json: the results as JSON on stdout instead of a table.
        overrides: any key of a recipe, such as --epochs 10 or --data FOLDER.
    """
    from ..comparison.compare import compare as run
    from ..report.tables import table

    settings = load_recipe(recipe, overrides)
    results = run(settings, out)
    show(results if json else table(results))
    print(f"{out / 'results.json'}  {out / 'report.html'}", file=sys.stderr)
    return 0


def sweep(
    *,
    out: Path,
    recipe: Path | None = None,
    temperatures: Annotated[list[float] | None, Parameter(consume_multiple=True)] = None,
    dampings: Annotated[list[float] | None, Parameter(consume_multiple=True)] = None,
    label_noises: Annotated[list[float] | None, Parameter(consume_multiple=True)] = None,
    methods: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    json: bool = False,
    **overrides: str,
) -> int:
    """A grid over temperature, damping and label noise: the paper's Table 2. Run again, it goes on where it was stopped.

    Args:
        out: folder of the run.
        recipe: TOML file, or the name of a recipe that comes with the package: see `compatlearn recipe`.
        temperatures: T of the random walk; by default the recipe's.
        dampings: λ of the random walk; by default the recipe's.
        label_noises: shares of wrong labels in the new training data; by default the recipe's.
        methods: by default random-walk.
        json: the results as JSON on stdout instead of a table.
        overrides: any key of a recipe, such as --epochs 10 or --data FOLDER.
    """
    from ..comparison.compare import sweep as run
    from ..report.tables import table

    settings = load_recipe(recipe, overrides)
    axes = {"temperatures": temperatures or (), "dampings": dampings or (), "label_noises": label_noises or ()}
    results = run(settings, out, methods=methods or ("random-walk",), **axes)
    show(results if json else table(results))
    return 0
