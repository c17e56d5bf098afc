"""The ladder on images: every rung, by `compatlearn plan` from pictures that neither model was trained on.

    compatlearn compare --recipe recipes/tiny-imagenet.toml --data FOLDER --new-fraction 0.5 --methods independent \\
        --seeds 3 --out runs/ladder
    python benchmarks/ladder_images.py --data FOLDER --runs runs/ladder --out runs/plans [--pairs 2000]

Of each class, the old model of a seed has seen 30 % of the training images and the new one another 50 %; the other 20 % are
the gallery here, and the validation images are the queries. The pairs have no labels, the plan of `LABELLED` the
same pairs with theirs. Plans that are there are not made again.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from cyclopts import run

import compatlearn as cl
from compatlearn.cli.app import run as command
from compatlearn.comparison.situations import open_split, training_rows
from compatlearn.config import Recipe, load_recipe
from compatlearn.data.images import Images
from compatlearn.report.summary import Estimate, interval
from compatlearn.upgrade.carry import save_plan
from compatlearn.upgrade.sample import sample_pairs

LABELLED = "labelled"
QUERIES = 1_000_000  # their ids begin here: above those of the items


def write_pictures(images: Images, rows: np.ndarray, files: Path, path: Path, first: int = 0) -> None:
    """Some images of a split as one Parquet file, with the row in their file as id and the name of their class."""
    table = pq.read_table(files)
    places = images.rows[rows]
    named = [images.classes[label] for label in images.labels[rows].tolist()]
    columns = {"image": table["image"].take(pa.array(places)), "label": pa.array(named), "id": pa.array(first + places)}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def prepare(recipe: Recipe, data: Path, out: Path, seed: int) -> tuple[Path, Path]:
    """The gallery's pictures of a seed, and the queries'."""
    items, queries = out / f"items-{seed}.parquet", out / "queries.parquet"
    train, val = open_split(recipe, "train"), open_split(recipe, "val")
    held = np.setdiff1d(np.arange(len(train)), np.concatenate(training_rows(recipe, train.labels, seed)))
    write_pictures(train, held, data / "train.parquet", items)
    write_pictures(val, np.arange(len(val)), data / "val.parquet", queries, QUERIES)
    return items, queries


def make(recipe: Recipe, data: Path, runs: Path, out: Path, pairs: int, seed: int) -> Path:
    """Both plans of a seed, as far as they are not there; returns the folder of the first."""
    folder = out / f"{pairs}-pairs-seed-{seed}"
    if not (folder / "plan.json").exists():
        items, queries = prepare(recipe, data, out, seed)
        models = ["--new-model", runs / f"seed-{seed}/independent", "--old-model", runs / f"seed-{seed}/old"]
        flags = ["--pairs", pairs, "--embed-gallery", "--seed", seed, "--out", folder]
        if code := command([str(one) for one in ["plan", "--items", items, "--queries", queries, *models, *flags]]):
            raise SystemExit(code)
    if not (folder / LABELLED / "plan.json").exists():
        with_labels(folder, pairs, seed)
    return folder


def with_labels(folder: Path, pairs: int, seed: int) -> None:
    """The plan of `folder` once more, with the labels of its pairs."""
    names = "gallery-old", "gallery-new", "queries-old", "queries-new"
    old, new, asked_old, asked_new = (cl.Features.load(folder / "features" / name) for name in names)
    found = cl.plan(
        old_gallery=old,
        pairs_new=new.take(sample_pairs(pairs, old.vectors, seed=seed)),
        new_queries=asked_new,
        old_queries=asked_old,
        backfill=new,
        seed=seed,
        tell=lambda line: print(line, flush=True),
    )
    save_plan(found, folder / LABELLED, {"seed": seed})


def table(plans: list[dict[str, Any]]) -> list[str]:
    """A line for each rung: top-1 and update gain, mean ± half the 95 % t-interval over the seeds."""
    lines = []
    for rung in plans[0]["rungs"]:
        same = [next(one for one in plan["rungs"] if one["name"] == rung["name"]) for plan in plans]
        if any(one["reason"] for one in same):
            continue
        figures = [_mean([one["figures"]["top1"]["value"] for one in same]).percent()]
        if rung["name"] == "old":
            figures += ["–", "–"]
        else:
            figures += [_mean([one["update_gain"] for one in same]).plain()]
            figures += [_mean([one["negative_flips"]["value"] for one in same]).percent()]
        methods = ", ".join(dict.fromkeys(one["method"] for one in same))
        lines.append(f"| `{rung['name']}` | {' | '.join(figures)} | {methods} |")
    return [*lines, "recommended: " + ", ".join(plan["recommended"] for plan in plans)]


def _mean(values: list[float]) -> Estimate:
    return Estimate(float(np.mean(values)), *interval(values), len(values))


def main(
    data: Path, runs: Path, out: Path, recipe: Path = Path("recipes/tiny-imagenet.toml"), pairs: int = 2000, seeds: int = 3
) -> None:
    """Make the plans of every seed, and print one table without labels and one with them."""
    settings = load_recipe(recipe, {"data": str(data), "new_fraction": "0.5"})
    plans: dict[str, list[dict[str, Any]]] = {"unlabelled": [], LABELLED: []}
    for seed in range(seeds):
        folder = make(settings, data, runs, out, pairs, seed)
        for name, where in (("unlabelled", folder), (LABELLED, folder / LABELLED)):
            plans[name].append(json.loads((where / "plan.json").read_text()))
    for name, made in plans.items():
        print(f"\n{pairs} pairs, {name}; {made[0]['measured']}")
        print("\n".join(table(made)))


if __name__ == "__main__":
    run(main)
