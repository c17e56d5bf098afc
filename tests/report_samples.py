"""Rows as a comparison writes them, and what the tests of the report read of a page or a terminal."""

import io
from html.parser import HTMLParser
from typing import Any

import numpy as np
from rich.console import Console

from compatlearn.report.results import read_rows
from compatlearn.report.summary import summarise

METHODS = ("independent", "l2", "trained", "mean", "normalized-mean", "random-walk", "bct")
CROSS = dict(zip(METHODS, (0.011, 0.402, 0.498, 0.471, 0.508, 0.519, 0.526), strict=True))
SELF = dict(zip(METHODS, (0.604, 0.431, 0.571, 0.552, 0.579, 0.583, 0.588), strict=True))
OLD, FULL = 0.423, 0.604
CLASSES = [f"class name {number}" for number in range(10)]
CLASSES[5], CLASSES[2] = "<b>&", 'the "least"'  # the ends of the sorted bars
MADE = {
    "date": "2026-01-02 03:04 UTC",
    "command": "compatlearn compare --out runs/x --methods paper --seeds 3",
    "commit": "abc1234",
}


def scores(top1: float) -> dict[str, float]:
    return {"top1": top1, "top5": min(1.0, top1 + 0.2), "map_r": top1 / 2}


def around(value: float, half: float) -> list[float]:
    return [value - half, value + half]


def bounds(top1: float) -> dict[str, list[float]]:
    return {part: around(value, 0.012) for part, value in scores(top1).items()}


def curve(start: float, end: float) -> list[float]:
    return [round(start + (end - start) * (1 - 0.8**k), 4) for k in range(20)]


def row(
    method: str,
    seed: int,
    *,
    cross: float | None = None,
    full: float = FULL,
    temperature: float = 0.05,
    damping: float = 0.9,
    label_noise: float = 0.0,
    classes: int = 10,
) -> dict[str, Any]:
    """A row as `compatlearn compare` writes it; the seeds differ by a point or so."""
    shift = 0.008 * (seed - 1)
    cross = (CROSS[method] if cross is None else cross) + shift
    old, own, full = OLD - shift / 2, SELF.get(method, FULL) + shift, full + shift
    gain = cross - old
    wave = np.cos(np.arange(classes) + seed) * 0.2
    tests = {"old_self": old, "cross": cross, "new_self": own, "independent_self": full}
    figures = {"gain": gain, "update_gain": gain / (full - old), "negative_flips": 0.061 - shift}
    return {
        "method": method,
        "seed": seed,
        "temperature": temperature,
        "damping": damping,
        "label_noise": label_noise,
        **{name: scores(value) for name, value in tests.items()},
        **figures,
        "compatible": "yes" if gain > 0.01 else "no" if gain < -0.01 else "undecided",
        "intervals": {name: bounds(value) for name, value in tests.items()}
        | {name: around(value, 0.015) for name, value in figures.items()},
        "queries": 2000,
        "queries_without_relevant": 3,
        "map_r_limit": None,
        "per_class": [
            {"label": k, "queries": 200, "old_self": 0.4, "cross": float(0.4 + gain + wave[k])} for k in range(classes)
        ],
        "accuracy_at_k": {name: curve(value, min(1.0, value + 0.3)) for name, value in tests.items()},
    }


def with_heads(one: dict[str, Any], old_head: float = 0.45, backfill_head: float = 0.65) -> dict[str, Any]:
    """The row of a map that is fitted with labels."""
    heads = {"old_head": old_head, "backfill_head": backfill_head}
    cross, old = one["cross"]["top1"], one["old_self"]["top1"]
    figures = {"gain_over_old_head": cross - old_head, "update_gain_head": (cross - old) / (backfill_head - old)}
    tests = {name: scores(value) for name, value in heads.items()}
    ends = {name: bounds(value) for name, value in heads.items()} | {k: around(v, 0.015) for k, v in figures.items()}
    return one | tests | figures | {"intervals": one["intervals"] | ends}


def failed(method: str, seed: int) -> dict[str, Any]:
    settings = {"temperature": 0.05, "damping": 0.9, "label_noise": 0.0}
    return {"method": method, "seed": seed, **settings, "error": "training diverged in epoch 3", "compatible": "no"}


def results(rows: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """What `results.json` holds of them."""
    recipe = {
        "data": "tiny-imagenet",
        "old_backbone": "resnet18",
        "new_backbone": "resnet50",
        "old_fraction": 0.3,
        "training": {"epochs": 90, "batch_size": 1024},
    }
    versions = {"compatlearn": "0.1.0", "torch": "2.6.0"}
    return {"recipe": recipe, "versions": versions, "made": MADE, "rows": rows, "summary": entries(rows), **more}


def entries(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The summary of `results.json`."""
    return [line.to_dict() for line in summarise(read_rows(rows))]


def comparison() -> dict[str, Any]:
    """Seven methods, three seeds, one model diverged."""
    rows = [failed(m, s) if (m, s) == ("mean", 2) else row(m, s) for s in range(3) for m in METHODS]
    return results(rows, classes=CLASSES)


def sweep() -> dict[str, Any]:
    """Nine settings of the random walk, and a method that has none of them; three seeds."""
    walks = [
        row("random-walk", s, cross=0.5 + 0.01 * d - 0.005 * t, temperature=t, damping=d)
        for t in (1.0, 0.1, 0.05)
        for d in (0.1, 0.5, 0.9)
        for s in range(3)
    ]
    return results(walks + [row("normalized-mean", s) for s in range(3)])


class Page(HTMLParser):
    """Tags with their attributes, and the text outside of styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.style = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.style = tag == "style"

    def handle_data(self, data: str) -> None:
        if not self.style:
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def printed(renderable: object, width: int = 100) -> str:
    file = io.StringIO()
    Console(width=width, file=file, color_system=None).print(renderable)
    return file.getvalue()
