"""`compatlearn recipe`."""

from dataclasses import fields
from pathlib import Path

from ..config import Recipe, TrainConfig, load_recipe


def recipe_keys(path: Path | None = None) -> int:
    """Every key of a recipe with its value: the defaults, or those of a TOML file."""
    settings = load_recipe(path)
    for entry in fields(Recipe):
        if entry.name != "training":
            print(f"{entry.name} = {getattr(settings, entry.name)!r}")
    print("[training]")
    for entry in fields(TrainConfig):
        print(f"{entry.name} = {getattr(settings.training, entry.name)!r}")
    return 0
