"""Plot what the benchmarks stored with --json-file, as docs/images/benchmarks.png.

python benchmarks/plot.py runs/bench docs/images/benchmarks.png
"""

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from cyclopts import run
from matplotlib.axes import Axes


def lines(axes: Axes, points: list[dict[str, Any]], x: str, series: dict[str, str], title: str, label: str) -> None:
    """Draw one panel: each series against x, both axes logarithmic; dashed lines are floors."""
    points = sorted(points, key=lambda point: point[x])
    for key, name in series.items():
        floor = "floor" in key
        axes.plot(
            [point[x] for point in points],
            [point[key] for point in points],
            marker=None if floor else "o",
            linestyle="--" if floor else "-",
            color="grey" if floor else None,
            label=name,
        )
    axes.set(xscale="log", yscale="log", title=title, xlabel=label, ylabel="seconds")
    axes.set_xticks([point[x] for point in points], [f"{point[x]:,}" for point in points], rotation=30)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)


def main(results: Path, picture: Path) -> None:
    """Draw one picture with a panel per sweep."""
    search = json.loads((results / "search.json").read_text())
    pseudo = json.loads((results / "pseudo.json").read_text())
    features = json.loads((results / "features.json").read_text())
    figure, panels = plt.subplots(2, 4, figsize=(16, 7.5), layout="constrained")
    ours = {"ours": "search", "faiss": "faiss IndexFlatL2", "floor": "floor: the product"}
    by_rows = [line for line in search if line["name"].startswith("rows")]
    by_dimension = [line for line in search if line["name"].startswith("dimension")]
    lines(panels[0, 0], by_rows, "rows", ours, "self test, 512 dimensions", "rows")
    lines(panels[0, 1], by_dimension, "d_gallery", ours, "self test, 10,000 rows", "dimensions")
    opening = [point for point in features if point["name"].startswith("open")]
    for name in sorted({point["name"] for point in opening}):
        mine = sorted((point for point in opening if point["name"] == name), key=lambda point: point["x"])
        panels[0, 2].plot([point["x"] for point in mine], [point["seconds"] for point in mine], marker="o", label=name)
    panels[0, 2].set(xscale="log", yscale="log", title="opening a folder of features", xlabel="rows", ylabel="seconds")
    panels[0, 2].grid(alpha=0.3)
    panels[0, 2].legend(frameon=False)
    memory = {"memory": "search, at most", "file": "the gallery's file"}
    lines(panels[0, 3], [line for line in search if line["name"] == "memory"], "rows", memory, "gallery from disk", "rows")
    panels[0, 3].set_ylabel("GiB of memory")
    walk = {"seconds": "random walk", "floor_seconds": "floor: the Gram products"}
    for axes, name in zip(panels[1, :3], ("rows", "classes", "dimensions"), strict=True):
        points = [point for point in pseudo if point["name"] == name]
        lines(axes, points, "x", walk, f"pseudo classifier by {name}", name if name != "rows" else "rows of a class")
    panels[1, 3].set_axis_off()
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    run(main)
