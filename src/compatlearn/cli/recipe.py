"""`compatlearn recipe`."""

from dataclasses import fields
from pathlib import Path

from ..config import Recipe, TrainConfig, load_recipe


def recipe(name: Path | None = None, /) -> int:
    """Every key of a recipe with its value: the defaults, or those of a recipe that is named.

    ```
    compatlearn recipe digits
    compatlearn recipe my-recipe.toml
    ```

    Args:
        name: digits, tiny-imagenet, imagenet or places365, or a TOML file; without one, the defaults.
    """
    settings = load_recipe(name)
    for entry in fields(Recipe):
        if entry.name != "training":
            print(f"{entry.name} = {getattr(settings, entry.name)!r}")
    print("[training]")
    for entry in fields(TrainConfig):
        print(f"{entry.name} = {getattr(settings.training, entry.name)!r}")
    return 0
