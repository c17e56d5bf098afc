"""Method × situation: a comparison for each situation, and the table of update gains and cross tests they make.

    python benchmarks/situations.py --data FOLDER --out runs/situations
    python benchmarks/situations.py --data FOLDER --out runs/situations --only open-classes --only small-new --epochs 6

A situation differs from the recipe in the keys that `SITUATIONS` gives it and in nothing else. Run again, it goes on.
"""

import itertools
import os
from pathlib import Path
from typing import Any

from cyclopts import run
from torch import nn

from compatlearn.comparison.compare import compare
from compatlearn.config import load_recipe
from compatlearn.files import write_json
from compatlearn.report.results import read_rows
from compatlearn.report.summary import Line, ScoreEstimates, summarise

SITUATIONS: dict[str, dict[str, Any]] = {
    "disjoint-data": {},
    "extended-data": {"new_fraction": 1.0},
    "extended-classes": {"old_classes": 50},
    "open-classes": {"test_classes": 50},
    "other-backbone": {"old_backbone": "situations:plain_network"},
    "label-noise": {"label_noise": 0.2},
    "unlabelled": {"clusters": 100},
    "small-new": {"new_fraction": 0.3},
    "unit-length": {"unit_length": True, "scale": 16.0, "metric": "cosine"},
    "wide-old": {"old_backbone": "small_resnet64", "dimension": 256},
}
OLD = {"old_backbone", "old_classes", "unit_length", "scale", "metric"}  # keys that an independent new model does not depend on
METHODS = "independent,random-walk,procrustes,ridge,rbt,head,neighbour-head,mixed-head,ranking-head"


def plain_network() -> nn.Module:
    """An old model of another family: four convolutions with pooling and no shortcut, (b, 3, s, s) → (b, 64)."""
    widths = (3, 16, 32, 64, 64)
    layers: list[nn.Module] = []
    for width_in, width in itertools.pairwise(widths):
        layers += [nn.Conv2d(width_in, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def share_independent(base: Path, out: Path, seeds: int) -> None:
    """The independent models of the plain comparison, where a situation changes the old model alone."""
    for model in [base / f"seed-{seed}" / "independent" for seed in range(seeds)]:
        link = out / model.relative_to(base)
        if (model / "train" / "manifest.json").exists() and not link.exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            for file in model.rglob("*"):
                if file.is_file() and file.name != "result.json":  # that one tells of the old model too
                    (link / file.relative_to(model)).parent.mkdir(parents=True, exist_ok=True)
                    os.link(file, link / file.relative_to(model))


def one(name: str, recipe: Path, data: str, out: Path, methods: str, changes: dict[str, Any]) -> dict[str, Any]:
    """`results.json` of one situation."""
    settings = load_recipe(recipe, {"data": data, "methods": methods, **changes, **SITUATIONS[name]})
    if SITUATIONS[name].keys() <= OLD and name != "disjoint-data":
        share_independent(out / "disjoint-data", out / name, settings.seeds)
    return compare(settings, out / name)


def matrix(results: dict[str, dict[str, Any]]) -> str:
    """Markdown: a line per situation, old and independent self test, then the cross test of every method."""
    lines = {name: {line.method: line for line in summarise(read_rows(result["rows"]))} for name, result in results.items()}
    methods = list(dict.fromkeys(method for found in lines.values() for method in found))
    text = ["| situation | old self | independent self | " + " | ".join(f"`{method}`" for method in methods) + " |"]
    text.append("|---" * (3 + len(methods)) + "|")
    for name, found in lines.items():
        first = next(iter(found.values()))
        cells = [_top1(first, "old_self"), _top1(first, "independent_self")]
        cells += [_top1(found[method], "cross") if method in found else "–" for method in methods]
        text.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(text)


def _top1(line: Line, test: str) -> str:
    """Mean top-1 of one of the tests, in %, with its interval; a dash where it was not made."""
    scores: ScoreEstimates | None = None if line.figures is None else getattr(line.figures, test)
    return "–" if scores is None else scores.top1.percent()


def main(
    data: str,
    out: Path,
    recipe: Path = Path("recipes/tiny-imagenet.toml"),
    only: list[str] | None = None,
    methods: str = METHODS,
    seeds: int = 3,
    epochs: int | None = None,
) -> None:
    """Run what is asked for; the table so far is written after every situation."""
    changes = {"seeds": seeds} | ({"epochs": epochs} if epochs else {})
    results = {}
    for name in only or SITUATIONS:
        results[name] = one(name, recipe, data, out, methods, changes)
        write_json(out / "situations.json", {name: result["summary"] for name, result in results.items()})
        print(matrix(results), flush=True)


if __name__ == "__main__":
    run(main)
