"""`compatlearn compare` and `compatlearn sweep`."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..config import load_recipe
from .out import check_out_folder
from .output import show

Axis = Annotated[list[float] | None, Parameter(consume_multiple=True, negative=())]
Names = Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())]
Switch = Annotated[bool, Parameter(negative=())]


def compare(*, out: Path, recipe: Path | None = None, json: Switch = False, **overrides: str) -> int:
    """Methods × seeds: the paper's Table 1. The same command resumes an interrupted run.

    ```
    compatlearn compare --recipe digits --methods paper,neighbour-head --seeds 3 --out runs/digits
    compatlearn compare --data images/ --epochs 30 --methods random-walk,l2 --out runs/mine
    ```

    Args:
        out: folder of the run: results.json, report.html, and a folder for every model.
        recipe: TOML file, or the name of a recipe that comes with the package: see `compatlearn recipe`.
        json: print the results as JSON on stdout instead of a table.
        overrides: any key of a recipe, such as --epochs 10 or --data FOLDER.
    """
    check_out_folder(out, {"--data": overrides.get("data"), "--recipe": recipe}, "comparison")
    settings = load_recipe(recipe, overrides)
    from ..comparison.compare import compare as run
    from ..report.tables import table

    results = run(settings, out)
    show(results if json else table(results))
    print(f"{out / 'results.json'}  {out / 'report.html'}", file=sys.stderr)
    return 0


def sweep(
    *,
    out: Path,
    recipe: Path | None = None,
    temperatures: Axis = None,
    dampings: Axis = None,
    label_noises: Axis = None,
    methods: Names = None,
    json: Switch = False,
    **overrides: str,
) -> int:
    """A grid over temperature, damping and label noise: the paper's Table 2. The same command resumes an interrupted run.

    ```
    compatlearn sweep --recipe digits --temperatures 1 0.1 0.05 --dampings 0.1 0.9 --out runs/sweep
    ```

    Args:
        out: folder of the run.
        recipe: TOML file, or the name of a recipe that comes with the package: see `compatlearn recipe`.
        temperatures: T of the random walk; by default the recipe's.
        dampings: λ of the random walk; by default the recipe's.
        label_noises: shares of wrong labels in the new training data; by default the recipe's.
        methods: by default random-walk.
        json: print the results as JSON on stdout instead of a table.
        overrides: any key of a recipe, such as --epochs 10 or --data FOLDER.
    """
    check_out_folder(out, {"--data": overrides.get("data"), "--recipe": recipe}, "comparison")
    settings = load_recipe(recipe, overrides)
    from ..comparison.compare import sweep as run
    from ..report.tables import table

    axes = {"temperatures": temperatures or (), "dampings": dampings or (), "label_noises": label_noises or ()}
    results = run(settings, out, methods=methods or ("random-walk",), **axes)
    show(results if json else table(results))
    return 0
