"""A chain of upgrades v1 → v2 → v3: do v3's queries search what v1 and v2 left in the gallery, and the mixture of both?

    python benchmarks/situations.py --data FOLDER --out runs/situations --only disjoint-data --only extended-data
    python benchmarks/chain.py --data FOLDER --situations runs/situations --out runs/chain

v1 is the old model, v2 the new one of the plain comparison, v3 a model trained on all data. Frozen: v2 and v3 are independent
models, each behind a `neighbour-head`. Trained: v2 is trained against v1 by `random-walk`, v3 against v2 in the same way.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
from cyclopts import run

from compatlearn.adapters.adapter import fit_adapter, load_adapter
from compatlearn.arrays import Array
from compatlearn.comparison.steps import load_split
from compatlearn.config import Recipe, load_recipe
from compatlearn.data.images import Images, Pixels
from compatlearn.encoders.model_file import load_learner
from compatlearn.features.features import Features
from compatlearn.files import read_json, write_json
from compatlearn.indexes.exact import search
from compatlearn.losses import InfluenceLoss
from compatlearn.pseudo.centres import random_walk_classifier
from compatlearn.report.summary import Estimate, interval
from compatlearn.training.batches import TrainingSet, embed
from compatlearn.training.train import train

WALK = "random-walk-temperature-0.05-damping-0.9"


def features(recipe: Recipe, model: Path, images: Images, pixels: Pixels | None) -> np.ndarray:
    """(n, d) of all images, by the model of a run."""
    dataset = TrainingSet(images, recipe.training.resize, pixels, recipe.training.tolerance)
    return embed(load_learner(model / "model.safetensors").embedder, dataset)[0]


def aligned(path: Path, images: Images) -> np.ndarray:
    """Saved features in the order of the images."""
    saved = Features.load(path)
    return saved.vectors[saved.align(images.ids)]


def accuracy(queries: Array, gallery: Array, labels: np.ndarray) -> float:
    """Top-1 among the first dimensions that both have, the query's own row left out."""
    hits = search(queries[:, : gallery.shape[1]], gallery[:, : queries.shape[1]], 1, exclude=np.arange(len(labels)))
    return float((labels[hits.indices[:, 0]] == labels).mean())


def galleries(v1: np.ndarray, v2: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """What the index may hold: v1's vectors, v2's, and each for a random half of the items."""
    width = min(v1.shape[1], v2.shape[1])
    upgraded = np.random.default_rng(seed).permutation(len(v1)) % 2 == 0
    return {"v1": v1, "v2": v2, "both": np.where(upgraded[:, None], v2[:, :width], v1[:, :width])}


def frozen(base: Path, extended: Path, recipe: Recipe, seed: int) -> dict[str, float]:
    """Heads on independent models; v3's is fitted to v1's vectors, to v2's, or to both."""
    (train_images, train_pixels), (val_images, _) = (load_split(recipe, extended, split) for split in ("train", "val"))
    head = load_adapter(base / f"seed-{seed}" / "neighbour-head" / "adapter.safetensors")
    v2 = head(aligned(base / f"seed-{seed}" / "independent" / "val", val_images))
    v1 = aligned(base / f"seed-{seed}" / "old-val", val_images)
    new = aligned(extended / f"seed-{seed}" / "independent" / "train", train_images)
    asked = aligned(extended / f"seed-{seed}" / "independent" / "val", val_images)
    first = aligned(extended / f"seed-{seed}" / "old-train", train_images)
    second = head(features(recipe, base / f"seed-{seed}" / "independent", train_images, train_pixels))
    labels, truth, found = train_images.labels, val_images.labels, {}
    held = galleries(v1, v2, seed)
    found["v1 → v1"], found["v2 → v2, head"] = accuracy(v1, v1, truth), accuracy(v2, v2, truth)
    found["v2 head → v1"], found["v3 → v3, no head"] = accuracy(v2, v1, truth), accuracy(asked, asked, truth)
    for name, (more, target, classes) in {
        "v1": (new, first, labels),
        "v2": (new, second, labels),
        "both": (np.concatenate([new, new]), np.concatenate([first, second]), np.concatenate([labels, labels])),
    }.items():
        query = fit_adapter("neighbour-head", more, target, classes, seed=seed)(asked)
        found |= {f"v3 head fitted to {name} → {where}": accuracy(query, gallery, truth) for where, gallery in held.items()}
    return found


def trained(base: Path, extended: Path, recipe: Recipe, seed: int, out: Path) -> dict[str, float]:
    """`random-walk` twice: v3 is trained against v2's features of all of the data, and knows nothing of v1."""
    (train_images, train_pixels), (val_images, _) = (load_split(recipe, extended, split) for split in ("train", "val"))
    target = features(recipe, base / f"seed-{seed}" / WALK, train_images, train_pixels)
    folder = out / f"seed-{seed}"
    train(
        train_images,
        replace(recipe.training, seed=seed),
        folder,
        backbone=recipe.new_backbone,
        loss=InfluenceLoss(random_walk_classifier(target, train_images.labels)),
        pixels=train_pixels,
        resume=(folder / "run.json").exists(),
        title=f"v3, seed {seed}",
    )
    v1, v2 = (aligned(base / f"seed-{seed}" / name, val_images) for name in ("old-val", f"{WALK}/val"))
    v3, truth = features(recipe, folder, *load_split(recipe, extended, "val")), val_images.labels
    held = galleries(v1, v2, seed)
    found = {"v2 trained → v2": accuracy(v2, v2, truth), "v2 trained → v1": accuracy(v2, v1, truth)}
    found["v3 trained → v3"] = accuracy(v3, v3, truth)
    return found | {f"v3 trained against v2 → {where}": accuracy(v3, gallery, truth) for where, gallery in held.items()}


def main(data: str, situations: Path, out: Path, recipe: Path = Path("recipes/tiny-imagenet.toml"), seeds: int = 3) -> None:
    """Every seed, one after another; a seed that is done is not repeated."""
    settings = load_recipe(recipe, {"data": data, "new_fraction": 1.0})
    base, extended = (situations / name for name in ("disjoint-data", "extended-data"))
    rows = []
    for seed in range(seeds):
        path = out / f"seed-{seed}.json"
        if not path.exists():
            found = frozen(base, extended, settings, seed) | trained(base, extended, settings, seed, out)
            write_json(path, found)
        rows.append(read_json(path))
    print("| queries → gallery | top-1 |\n|---|---|")
    for name in rows[0]:
        values = [row[name] for row in rows]
        print(f"| {name} | {Estimate(float(np.mean(values)), *interval(values)).percent()} |")


if __name__ == "__main__":
    run(main)
