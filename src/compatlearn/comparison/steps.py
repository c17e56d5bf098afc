"""The steps of a comparison, each of one model: train it, embed with it, fit a map to it. What is on disk is not done again."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ..adapters.adapter import Adapter, fit_adapter, load_adapter, save_adapter
from ..adapters.methods import ADAPTERS, AUTO
from ..adapters.references import with_head
from ..arrays import Array
from ..config import Recipe, TrainConfig
from ..data.images import Images, Pixels, load_pixels
from ..encoders.model_file import load_learner
from ..encoders.networks import Learner
from ..errors import DataError, TrainingError
from ..features.features import Features
from ..files import read_json, write_atomically, write_json
from ..losses.literature.bt2 import fitting_dimension
from ..training.batches import TrainingSet, embed
from ..training.knowledge import OldKnowledge
from ..training.methods import Frozen, find_method, find_trained
from ..training.train import train
from .situations import noisy_labels, open_split, stored, told_labels, training_rows

ADAPTER = "adapter.safetensors"
HEADS = ("old-head.safetensors", "backfill-head.safetensors")  # the references of a map that is fitted with labels


@dataclass(frozen=True)
class Cell:
    """One model to train: what varies between the models of a comparison or a sweep."""

    seed: int
    method: str
    temperature: float
    damping: float
    label_noise: float

    def folder(self, out: Path) -> Path:
        """Where its run lives: named by what the method depends on."""
        settings = [f"{option}-{getattr(self, option):g}" for option in find_method(self.method).options]
        noise = [f"noise-{self.label_noise:g}"] if self.label_noise else []
        return out / f"seed-{self.seed}" / "-".join([self.method, *settings, *noise])


def load_split(recipe: Recipe, out: Path, split: str) -> tuple[Images, Pixels | None]:
    """The images of a split and their pixels, decoded into `out/pixels` by whoever comes first; None if they would not fit."""
    images = open_split(recipe, split)
    path = out / "pixels" / f"{split}.npy"
    if not path.exists():
        kept, pixels, skipped = load_pixels(images, recipe.training.resize, tolerance=recipe.training.tolerance)
        if pixels is None:
            return images, None
        write_json(path.with_suffix(".json"), {"skipped": skipped, "ids": kept.ids})
        write_atomically(path, lambda temporary: np.save(temporary, pixels))
    record = read_json(path.with_suffix(".json"))
    if record["skipped"]:
        images = images.take(np.flatnonzero(np.isin(images.ids, np.array(record["ids"]))))
    return images, np.load(path, mmap_mode="r")


def train_old(recipe: Recipe, out: Path, seed: int) -> None:
    """The old model of a seed, on its share of the images; its features of the new training set, with the labels that the
    new models are told, and of the validation set."""
    folder = out / f"seed-{seed}"
    if (folder / "old-val" / "manifest.json").exists():
        return
    images, pixels = load_split(recipe, out, "train")
    old_rows, new_rows = training_rows(recipe, images.labels, seed)
    known = images.take(old_rows).first_classes(recipe.old_classes)
    config = replace(recipe.training, dimension=None)
    learner = _train(config, folder / "old", recipe.old_backbone, known, _rows(pixels, old_rows), seed, None)
    told = _features(learner, recipe, images.take(new_rows), _rows(pixels, new_rows), folder.name)
    searched = _features(learner, recipe, *load_split(recipe, out, "val"), folder.name)
    told_labels(stored(told, recipe), recipe, seed).save(folder / "old-train")
    stored(searched, recipe).save(folder / "old-val")


def _new_images(recipe: Recipe, out: Path, cell: Cell) -> tuple[Images, Pixels | None, Array]:
    """What the new models of a cell are trained on: images with the labels that they are told, pixels, old features."""
    images, pixels = load_split(recipe, out, "train")
    rows = training_rows(recipe, images.labels, cell.seed)[1]
    images, old = images.take(rows), Features.load(out / f"seed-{cell.seed}" / "old-train")
    order = old.align(images.ids, "old features")
    told = old.require_labels()[order]
    classes = images.classes if recipe.clusters is None else tuple(map(str, range(told.max() + 1)))
    told = noisy_labels(told, cell.label_noise, len(classes), cell.seed)
    return replace(images, labels=told, classes=classes), _rows(pixels, rows), old.vectors[order]


def train_new(recipe: Recipe, out: Path, cell: Cell) -> None:
    folder = cell.folder(out)
    if (folder / "val" / "manifest.json").exists() or (folder / "failed.json").exists():
        return
    images, pixels, vectors = _new_images(recipe, out, cell)
    method, config, independent = find_trained(cell.method), recipe.training, None
    if method.beside:
        if _independent_failed(out, cell):
            return
        saved = Features.load(backfill(cell).folder(out) / "train")
        independent = saved.vectors[saved.align(images.ids)]
        config = replace(config, dimension=fitting_dimension(vectors.shape[1], saved.dimension))
    loss = method.loss(
        OldKnowledge(
            vectors,
            images.labels,
            len(images.classes),
            lambda: load_learner(out / f"seed-{cell.seed}" / "old" / "model.safetensors").classifier,
            {
                "temperature": cell.temperature,
                "damping": cell.damping,
                "steps": recipe.steps,
                "seed": cell.seed,
                "scale": recipe.training.scale,
                "epochs": recipe.training.epochs,
            },
            independent,
        )
    )
    try:
        learner = _train(config, folder, recipe.new_backbone, images, pixels, cell.seed, loss)
    except TrainingError as error:  # a result, not a fault: the un-normalised mean may diverge
        write_json(folder / "failed.json", {"error": str(error)})
        return
    _features(learner, recipe, *load_split(recipe, out, "val"), folder.name).save(folder / "val")


def backfill(cell: Cell) -> Cell:
    """The independent model that a cell is measured by, and that an adapter maps from."""
    return replace(cell, method="independent")


def queries(out: Path, cell: Cell) -> tuple[Path, Adapter | None]:
    """Where the new features of the validation set are, and the map that they go through before they search."""
    if isinstance(find_method(cell.method), Frozen):
        return backfill(cell).folder(out) / "val", load_adapter(cell.folder(out) / ADAPTER)
    return cell.folder(out) / "val", None


def save_training_features(recipe: Recipe, out: Path, cell: Cell) -> None:
    """The features that a model gives the images it was trained on, for adapters."""
    folder = cell.folder(out)
    if (folder / "train" / "manifest.json").exists() or (folder / "failed.json").exists():
        return
    images, pixels, _ = _new_images(recipe, out, cell)
    learner = load_learner(folder / "model.safetensors")
    _features(learner, recipe, images, pixels, folder.name).save(folder / "train")


def fit_cell_adapter(recipe: Recipe, out: Path, cell: Cell) -> None:
    folder, frozen = cell.folder(out), backfill(cell).folder(out)
    if (folder / ADAPTER).exists() or (folder / "failed.json").exists() or _independent_failed(out, cell):
        return
    new, old = Features.load(frozen / "train"), Features.load(out / f"seed-{cell.seed}" / "old-train")
    try:
        if cell.method == AUTO:
            unseen, told = recipe.test_classes is not None, Features(old.vectors, None, old.ids, old.space)
            adapter = Adapter(metric=recipe.metric, seed=cell.seed, unseen_classes=unseen)
            adapter.fit_features(new, told)  # with the labels of the new features: noise may have changed them
        else:
            adapter = fit_adapter(cell.method, new.vectors, old.vectors[old.align(new.ids)], new.labels, seed=cell.seed)
    except TrainingError as error:
        write_json(folder / "failed.json", {"error": str(error)})
        return
    save_adapter(adapter, folder / ADAPTER)


def labelled(out: Path, cell: Cell) -> Cell | None:
    """The cell beside whose map the two heads are kept that it is compared with; None where no labels were fitted to."""
    path = cell.folder(out) / ADAPTER
    if not isinstance(find_method(cell.method), Frozen) or not path.exists():
        return None
    method = load_adapter(path).method_  # what auto chose
    return replace(cell, method=method) if ADAPTERS[method].needs_labels else None


def fit_heads(recipe: Recipe, out: Path, cell: Cell) -> None:
    """The heads of `HEADS`, fitted to old and to new vectors with the labels that the map was fitted to."""
    folder = cell.folder(out)
    if all((folder / name).exists() for name in HEADS) or (folder / "heads-failed.json").exists():
        return
    new, old = Features.load(backfill(cell).folder(out) / "train"), Features.load(out / f"seed-{cell.seed}" / "old-train")
    try:
        for name, vectors in zip(HEADS, (old.vectors[old.align(new.ids)], new.vectors), strict=True):
            head = with_head(cell.method, vectors, new.require_labels(), seed=cell.seed)
            save_adapter(head, folder / name)
    except (DataError, TrainingError) as error:  # such as a new vector of length zero, which `head` cannot be fitted to
        write_json(folder / "heads-failed.json", {"error": str(error)})


def load_heads(out: Path, cell: Cell) -> tuple[Adapter, Adapter] | None:
    """The heads that a map is compared with; None where it needs none, or where they could not be fitted."""
    home = labelled(out, cell)
    paths = [] if home is None else [path for name in HEADS if (path := home.folder(out) / name).exists()]
    if len(paths) < len(HEADS):
        return None
    old_head, new_head = map(load_adapter, paths)
    return old_head, new_head


def _independent_failed(out: Path, cell: Cell) -> bool:
    """Whether there is nothing to build on; the cell then fails as well."""
    failed = (backfill(cell).folder(out) / "failed.json").exists()
    if failed:
        write_json(cell.folder(out) / "failed.json", {"error": "the independent model failed"})
    return failed


def _train(
    config: TrainConfig,
    folder: Path,
    backbone: str,
    images: Images,
    pixels: Pixels | None,
    seed: int,
    loss: torch.nn.Module | None,
) -> Learner:
    return train(
        images,
        replace(config, seed=seed),
        folder,
        backbone=backbone,
        loss=loss,
        pixels=pixels,
        resume=(folder / "run.json").exists(),
        title=str(folder.relative_to(folder.parent.parent)),
    )


def _rows(pixels: Pixels | None, rows: np.ndarray) -> Pixels | None:
    return None if pixels is None else pixels[rows]


def _features(learner: Learner, recipe: Recipe, images: Images, pixels: Pixels | None, space: str) -> Features:
    dataset = TrainingSet(images, recipe.training.resize, pixels, recipe.training.tolerance)
    vectors, rows = embed(learner.embedder, dataset, workers=recipe.training.workers)
    return Features(vectors, images.labels[rows], images.ids[rows], space)
