"""Methods × seeds, the paper's Table 1, and the grid of Table 2: one cell is one model trained and evaluated.

A cell is done when its features of the validation set are on disk; a run that was stopped goes on with the cells that are
not. Old model, its features and the decoded images are made once a seed and shared.
"""

import itertools
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .adapter_choice import choose_adapter
from .adapters import Adapter, fit_adapter, load_adapter, save_adapter
from .arrays import Array
from .backbones import Learner
from .compatibility import compatibility
from .config import Recipe, TrainConfig
from .data import Images, Pixels, load_pixels, noisy_labels
from .errors import ConfigError, TrainingError
from .extract import embed
from .features import Features
from .files import read_json, write_atomically, write_json
from .images import check_noise
from .losses.bt2 import fitting_dimension
from .methods import AUTO, METHODS, OldKnowledge, find_method, find_methods
from .pictures import PictureRow, choose_pictures
from .pseudo import check_walk
from .report import write_html
from .runs import load_learner, refuse_changes, versions
from .search import Hits, search
from .situations import open_split, stored, told_labels, training_rows
from .summary import figures, summarise
from .train import TrainingSet, train

ADAPTER = "adapter.safetensors"


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
        settings = [f"{option}-{getattr(self, option):g}" for option in METHODS[self.method].options]
        noise = [f"noise-{self.label_noise:g}"] if self.label_noise else []
        return out / f"seed-{self.seed}" / "-".join([self.method, *settings, *noise])


def compare(recipe: Recipe, out: Path) -> dict[str, Any]:
    """Every method of the recipe, every seed: the paper's Table 1, written to `out/results.json` and returned."""
    methods = find_methods(recipe.methods)
    cells = [
        Cell(seed, method, recipe.temperature, recipe.damping, recipe.label_noise)
        for seed in _seeds(recipe)
        for method in methods
    ]
    return run_cells(recipe, cells, out)


def sweep(
    recipe: Recipe,
    out: Path,
    *,
    temperatures: Sequence[float] = (),
    dampings: Sequence[float] = (),
    label_noises: Sequence[float] = (),
    methods: Sequence[str] = ("random-walk",),
) -> dict[str, Any]:
    """A grid over the random walk's parameters and the label noise: the paper's Table 2; as `compare` in all else.

    An empty axis is the recipe's own value. A method that has no temperature or damping is trained once for all of them.
    """
    cells: dict[Cell, None] = {}  # a set that keeps its order
    for seed in _seeds(recipe):
        for method in find_methods(list(methods)):
            walks = METHODS[method].options != ()
            grid = itertools.product(
                (walks and temperatures) or [recipe.temperature],
                (walks and dampings) or [recipe.damping],
                label_noises or [recipe.label_noise],
            )
            cells |= {Cell(seed, method, *values): None for values in grid}
    return run_cells(recipe, list(cells), out)


def _seeds(recipe: Recipe) -> range:
    if recipe.seeds < 1:
        raise ConfigError(f"seeds must be at least 1; got {recipe.seeds}")
    return range(recipe.training.seed, recipe.training.seed + recipe.seeds)


def run_cells(recipe: Recipe, cells: list[Cell], out: Path) -> dict[str, Any]:
    """Train what is not trained yet, evaluate what is not evaluated yet, write `results.json` and `report.html`."""
    for cell in cells:  # before anything is trained
        check_walk(cell.temperature, cell.damping, recipe.steps)
        check_noise(cell.label_noise)
    kept = {key: value for key, value in recipe.to_dict().items() if key not in ("methods", "seeds", "jobs")}
    if (out / "recipe.json").exists():
        refuse_changes(out, read_json(out / "recipe.json"), kept)  # methods, seeds and jobs may grow
    else:
        write_json(out / "recipe.json", kept)
    images, _ = load_split(recipe, out, "val")
    load_split(recipe, out, "train")  # decoded once, here, before processes share it
    with _workers(recipe.jobs) as each:
        each(_train_old, [(recipe, out, seed) for seed in dict.fromkeys(cell.seed for cell in cells)])
        maps = [cell for cell in cells if METHODS[cell.method].adapter]
        later = [cell for cell in cells if METHODS[cell.method].beside]
        frozen = list(dict.fromkeys(_backfill(cell) for cell in maps + later))
        models = [cell for cell in cells if cell not in maps + later]
        each(_train_new, [(recipe, out, cell) for cell in dict.fromkeys(frozen + models)])
        each(_save_training_features, [(recipe, out, cell) for cell in frozen])
        each(_train_new, [(recipe, out, cell) for cell in later])
        each(_fit_adapter, [(recipe, out, cell) for cell in maps])
    load, searcher = cache(Features.load), _remembering_search()  # the methods of a seed share two self tests
    rows = [_evaluate(recipe, out, cell, load, searcher) for cell in cells]
    results: dict[str, Any] = {"recipe": recipe.to_dict(), "versions": versions(), "classes": images.classes}
    results |= {"rows": rows, "summary": summarise(rows)}
    write_json(out / "results.json", results)
    write_html(results, out / "report.html", pictures=_pictures(results, recipe, out))
    return results


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


def _train_old(recipe: Recipe, out: Path, seed: int) -> None:
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


def _train_new(recipe: Recipe, out: Path, cell: Cell) -> None:
    folder = cell.folder(out)
    if (folder / "val" / "manifest.json").exists() or (folder / "failed.json").exists():
        return
    images, pixels, vectors = _new_images(recipe, out, cell)
    method, config, independent = find_method(cell.method), recipe.training, None
    if method.beside:
        saved = Features.load(_backfill(cell).folder(out) / "train")
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


def _backfill(cell: Cell) -> Cell:
    """The independent model that a cell is measured by, and that an adapter maps from."""
    return replace(cell, method="independent")


def _queries(out: Path, cell: Cell) -> tuple[Path, Adapter | None]:
    """Where the new features of the validation set are, and the map that they go through before they search."""
    if METHODS[cell.method].adapter:
        return _backfill(cell).folder(out) / "val", load_adapter(cell.folder(out) / ADAPTER)
    return cell.folder(out) / "val", None


def _save_training_features(recipe: Recipe, out: Path, cell: Cell) -> None:
    """The features that a model gives the images it was trained on, for adapters."""
    folder = cell.folder(out)
    if (folder / "train" / "manifest.json").exists() or (folder / "failed.json").exists():
        return
    images, pixels, _ = _new_images(recipe, out, cell)
    learner = load_learner(folder / "model.safetensors")
    _features(learner, recipe, images, pixels, folder.name).save(folder / "train")


def _fit_adapter(recipe: Recipe, out: Path, cell: Cell) -> None:
    folder, frozen = cell.folder(out), _backfill(cell).folder(out)
    if (folder / ADAPTER).exists() or (folder / "failed.json").exists():
        return
    if (frozen / "failed.json").exists():
        write_json(folder / "failed.json", {"error": "the independent model failed"})
        return
    new, old = Features.load(frozen / "train"), Features.load(out / f"seed-{cell.seed}" / "old-train")
    try:
        if cell.method == AUTO:
            adapter = choose_adapter(new, old, unseen_classes=recipe.test_classes is not None, seed=cell.seed).adapter
        else:
            adapter = fit_adapter(cell.method, new.vectors, old.vectors[old.align(new.ids)], new.labels, seed=cell.seed)
    except TrainingError as error:
        write_json(folder / "failed.json", {"error": str(error)})
        return
    save_adapter(adapter, folder / ADAPTER)


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


@contextmanager
def _workers(jobs: int) -> Iterator[Callable[[Callable[..., None], list[tuple[Any, ...]]], None]]:
    """Calls a function with each of many arguments: here, or in `jobs` processes that share the cores."""
    options: dict[str, Any] = {"mp_context": multiprocessing.get_context("spawn"), "initializer": torch.set_num_threads}
    options["initargs"] = (max(1, (os.cpu_count() or 1) // jobs),)
    with ProcessPoolExecutor(jobs, **options) if jobs > 1 else nullcontext() as pool:

        def each(work: Callable[..., None], arguments: list[tuple[Any, ...]]) -> None:
            started = [pool.submit(work, *one).result if pool else partial(work, *one) for one in arguments]
            for result in started:
                result()

        yield each


def _remembering_search() -> Callable[..., Hits]:
    """`search` that answers from memory where the same arrays come again."""
    known: dict[tuple[Any, ...], tuple[Any, Any, Hits]] = {}

    def remembered(queries: Array, gallery: Array, k: int, metric: str, *, exclude: Array) -> Hits:
        key = id(queries), id(gallery), k, metric
        if key not in known:  # with the arrays, or their identities could come again for others
            known[key] = queries, gallery, search(queries, gallery, k, metric, exclude=exclude)
        return known[key][2]

    return remembered


def _evaluate(
    recipe: Recipe, out: Path, cell: Cell, load: Callable[[Path], Features], searcher: Callable[..., Hits]
) -> dict[str, Any]:
    """The cell's row of `results.json`; the full evaluation stays in the cell's own `result.json`."""
    folder, path = cell.folder(out), cell.folder(out) / "result.json"
    identity = {"method": cell.method, "seed": cell.seed}
    identity |= {"temperature": cell.temperature, "damping": cell.damping, "label_noise": cell.label_noise}
    if (folder / "failed.json").exists():
        return {**identity, "error": read_json(folder / "failed.json")["error"], "compatible": "no"}
    backfill = _backfill(cell).folder(out)
    known = (backfill / "val" / "manifest.json").exists()
    before = read_json(path) if path.exists() else {}
    if not before or (known and before["independent_self"] is None):  # independent was trained since
        place, adapter = _queries(out, cell)
        judge = partial(
            compatibility,
            old_query=(old := load(out / f"seed-{cell.seed}" / "old-val")),
            old_gallery=old,
            new_query=load(place),
            independent=load(backfill / "val") if known else None,
            searcher=searcher,
            adapter=adapter,
        )
        result = judge(metric=recipe.metric).to_dict()
        if recipe.metric != "cosine":
            result["cosine"] = figures(judge(metric="cosine").to_dict())
        write_json(path, result)
    return {**identity, **read_json(path), "cost": _cost(folder, backfill)}


def _cost(folder: Path, backfill: Path) -> float | None:
    """Time for an image in training, as a multiple of the independent model's; None for what is not trained on images."""
    logs = [run / "log.jsonl" for run in (backfill, folder)]
    if not all(log.exists() for log in logs):
        return None
    rates = [np.median([json.loads(line)["images_per_second"] for line in log.read_text().splitlines()]) for log in logs]
    return float(rates[0] / rates[1])


def _pictures(results: dict[str, Any], recipe: Recipe, out: Path) -> list[PictureRow]:
    rows = [row for row in results["rows"] if not METHODS[row["method"]].reference and "error" not in row]
    if not rows:
        return []
    best = max(rows, key=lambda row: (row["seed"] == rows[0]["seed"], row["cross"]["top1"]))
    cell = Cell(*(best[name] for name in ("seed", "method", "temperature", "damping", "label_noise")))
    old = Features.load(out / f"seed-{cell.seed}" / "old-val")
    place, adapter = _queries(out, cell)
    new = Features.load(place).vectors
    new = new if adapter is None else adapter(new)
    images = open_split(recipe, "val")
    images = images.take(np.flatnonzero(np.isin(images.ids, old.ids)))  # the unreadable ones have no feature
    before, after = (search(query, old.vectors, 5, recipe.metric, exclude_self=True).indices for query in (old.vectors, new))
    return choose_pictures(before, after, images.labels, images.picture, classes=images.classes)
