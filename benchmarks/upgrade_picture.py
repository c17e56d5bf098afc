"""The README's picture: the system of docs/upgrade.md before, after, and with everything embedded again.

Run: python benchmarks/upgrade_picture.py docs/images/upgrade.png
"""

import re
import sys
import tempfile
from contextlib import chdir
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

import compatlearn as cl

PAGE = Path(__file__).parents[1] / "docs" / "upgrade.md"


def system() -> dict[str, Any]:
    """What the first Python block of the page defines: the two models, the rows of the gallery and of the queries."""
    names: dict[str, Any] = {}
    block = re.search(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    if block is None:
        raise SystemExit(f"{PAGE} has no Python block that makes the system")
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        exec(block[1], names)
        return names | {file.stem: cl.Features.load(file).take(slice(None)) for file in Path().glob("*.npz")}


def measure(made: dict[str, Any]) -> cl.Compatibility:
    index, pairs = made["index"], made["new-pairs"]
    adapter = cl.fit_adapter("ridge", pairs.vectors, index.vectors[index.align(pairs.ids)])
    gallery = made["new_model"](made["gallery"])
    return cl.compatibility(
        old_query=made["old-queries"],
        old_gallery=index,
        new_query=made["new-queries"],
        new_gallery=cl.Features(gallery, index.labels, index.ids),
        adapter=adapter,
    )


def draw(verdict: cl.Compatibility, path: Path) -> None:
    rows = (
        ("old queries, old index\n(today)", verdict.old_self.top1, "#8b97a5"),
        ("new queries through the map,\nold index, nothing re-embedded", verdict.cross.top1, "#2f7fd0"),
        ("new queries, everything\nembedded again", verdict.new_self.top1, "#2a9d6f"),
    )
    figure, axes = plt.subplots(figsize=(7.2, 2.4), dpi=150)
    for place, (_, score, colour) in enumerate(rows):
        ends = [[100 * (score.value - score.low)], [100 * (score.high - score.value)]]
        axes.errorbar(100 * score.value, -place, xerr=ends, fmt="o", color=colour, markersize=9, capsize=4, linewidth=2)
        axes.annotate(
            f"{100 * score.value:.0f} %", (100 * score.value, -place), (0, 9), textcoords="offset points", ha="center"
        )
    axes.set_yticks(-np.arange(3), [name for name, _, _ in rows])
    axes.set_ylim(-2.5, 0.75)
    axes.set_xticks(range(80, 101, 5))
    axes.set_xlabel("first answer right, %, with its 95 % interval")
    axes.grid(axis="x", color="#dddddd")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
    figure.tight_layout()
    figure.savefig(path)


if __name__ == "__main__":
    draw(measure(system()), Path(sys.argv[1]))
