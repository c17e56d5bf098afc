"""A comparison and a sweep on digits: what is shared, what is resumed, and that the figures are those of the files."""

import importlib
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from compatlearn import ConfigError, Features, compatibility, fit_adapter, load_adapter, search
from compatlearn.adapters.methods import ADAPTERS
from compatlearn.comparison.compare import compare, sweep
from compatlearn.comparison.situations import noisy_labels
from compatlearn.comparison.steps import Cell, backfill, fit_cell_adapter, load_split
from compatlearn.config import Recipe, bundled_recipe, load_recipe
from compatlearn.data.splits import split_rows
from compatlearn.encoders.model_file import load_learner
from compatlearn.errors import FormatError
from compatlearn.report.results import read_rows
from compatlearn.report.summary import summarise
from compatlearn.report.tables import table
from compatlearn.training.methods import find_methods

METHODS = "independent,l2,random-walk"
FIGURES = {"top1", "top5", "map_r", "ndcg10", "recall100", "mrr10"}


@pytest.fixture(scope="module", autouse=True)
def threads() -> Iterator[None]:
    """As many threads as each of two jobs gets: sums in another order would train another model."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // 2))
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    overrides = {"epochs": 2, "methods": METHODS, "seeds": 1, "jobs": 1, "batch_size": 32, "old_fraction": 0.3}
    overrides |= {"old_backbone": "small_resnet4", "new_backbone": "small_resnet4", "metric": "euclidean", "scale": None}
    return load_recipe(bundled_recipe("digits"), overrides)


@pytest.fixture(scope="module")
def finished(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("compare")
    compare(recipe, out)
    return out


def page_of(results: dict[str, Any]) -> str:
    console = Console(width=200, record=True, file=StringIO())
    console.print(table(results))
    return console.export_text().replace("\n", " ")


def test_rows_have_the_contracts_keys_and_ranges(finished: Path) -> None:
    results = json.loads((finished / "results.json").read_text())
    assert [row["method"] for row in results["rows"]] == METHODS.split(",")
    for row in results["rows"]:
        for name in ("old_self", "cross", "new_self", "independent_self"):
            assert set(row[name]) == FIGURES
            assert all(0 <= value <= 1 for value in row[name].values())
        assert isinstance(row["negative_flips"], float)
        assert row["compatible"] in ("yes", "no", "undecided")
        assert row["seed"] == 0
    assert len({json.dumps(row["old_self"]) for row in results["rows"]}) == 1  # one old model for all
    independent = results["rows"][0]
    assert independent["independent_self"] == independent["new_self"]
    assert len(results["summary"]) == 3


def test_figures_are_those_of_the_features_on_disk(finished: Path) -> None:
    row = json.loads((finished / "results.json").read_text())["rows"][2]
    seed = finished / "seed-0"
    old, new = (
        Features.load(seed / "old-val", verify=True),
        Features.load(seed / "random-walk-temperature-0.05-damping-0.9" / "val", verify=True),
    )
    independent = Features.load(seed / "independent" / "val")
    result = compatibility(old_query=old, old_gallery=old, new_query=new, independent=independent)
    assert row["cross"]["top1"] == result.cross.top1.value
    assert row["update_gain"] == pytest.approx(result.update_gain.value if result.update_gain else None)
    distances = ((new.vectors[:, None, : old.dimension] - old.vectors[None]) ** 2).sum(axis=2)  # slow and plain
    np.fill_diagonal(distances, np.inf)
    assert row["cross"]["top1"] == pytest.approx((old.labels[distances.argmin(axis=1)] == old.labels).mean(), abs=2 / len(old))


def test_the_other_metric_stands_beside_the_recipes_own(recipe: Recipe, finished: Path) -> None:
    results = json.loads((finished / "results.json").read_text())
    seed = finished / "seed-0"
    old, new = Features.load(seed / "old-val"), Features.load(seed / "l2" / "val")
    by_cosine = compatibility(old_query=old, old_gallery=old, new_query=new, metric="cosine")
    row = results["rows"][1]
    assert row["cosine"]["cross"]["top1"] == by_cosine.cross.top1.value != row["cross"]["top1"]
    assert row["cosine"]["gain"] == by_cosine.gain.value
    line = summarise(read_rows(results["rows"]))[1]
    assert line.by_cosine is not None
    assert line.by_cosine.gain.half == pytest.approx((by_cosine.gain.high - by_cosine.gain.low) / 2)
    assert "by cosine" not in page_of(results)  # none of these methods is meant for it
    results["rows"][1]["method"] = "cosine-regression"
    assert "by cosine" in page_of(results)


def test_old_and_new_training_rows_are_disjoint_and_old_features_are_of_the_new_ones(recipe: Recipe, finished: Path) -> None:
    images, _ = load_split(recipe, finished, "train")
    old_rows, new_rows = split_rows(images.labels, recipe.old_fraction, 0)
    assert not set(old_rows) & set(new_rows)
    np.testing.assert_array_equal(Features.load(finished / "seed-0" / "old-train").ids, images.ids[new_rows])
    assert json.loads((finished / "seed-0" / "old" / "run.json").read_text())["rows"] == len(old_rows)


def test_finished_cells_are_not_repeated_and_lost_ones_are_made_again_alike(recipe: Recipe, finished: Path) -> None:
    before = json.loads((finished / "results.json").read_text())["rows"]
    stamps = {path: path.stat().st_mtime_ns for path in finished.rglob("model.safetensors")}
    assert len(stamps) == 4
    lost = finished / "seed-0" / "l2"
    shutil.rmtree(lost)
    after = compare(recipe, finished)["rows"]
    assert json.dumps(after) == json.dumps(before)
    for path, stamp in stamps.items():
        assert (path.stat().st_mtime_ns == stamp) == (lost not in path.parents)


def test_update_gain_comes_with_the_independent_model(recipe: Recipe, finished: Path) -> None:
    shutil.copytree(finished, alone := finished.with_name("alone"))
    for name in ("independent", "l2"):
        shutil.rmtree(alone / "seed-0" / name)
    (alone / "seed-0" / "random-walk-temperature-0.05-damping-0.9" / "result.json").unlink()
    assert compare(replace(recipe, methods="random-walk"), alone)["rows"][0]["update_gain"] is None
    both = compare(replace(recipe, methods="independent,random-walk"), alone)["rows"]
    before = json.loads((finished / "results.json").read_text())["rows"]
    assert both[1]["update_gain"] == before[2]["update_gain"] is not None


def test_another_recipe_does_not_mix_with_the_cells_that_are_there(recipe: Recipe, finished: Path) -> None:
    with pytest.raises(ConfigError, match=r"old_fraction was 0.3, is 0.5"):
        compare(replace(recipe, old_fraction=0.5), finished)


def test_two_jobs_give_the_cells_of_one(recipe: Recipe, finished: Path, tmp_path: Path) -> None:
    results = compare(replace(recipe, jobs=2), tmp_path)
    alone = json.loads((finished / "results.json").read_text())["rows"]
    assert json.dumps(results["rows"]) == json.dumps(alone)


def test_sweep_shares_the_old_model_and_trains_each_setting_once(recipe: Recipe, finished: Path) -> None:
    stamp = (finished / "seed-0" / "old" / "model.safetensors").stat().st_mtime_ns
    results = sweep(
        recipe,
        finished,
        temperatures=[1.0, 0.05],
        dampings=[0.9],
        label_noises=[0.0, 0.4],
        methods=["normalized-mean", "random-walk"],
    )
    settings = [(row["method"], row["temperature"], row["label_noise"]) for row in results["rows"]]
    assert len(settings) == len(set(settings)) == 2 + 4  # the mean has no temperature
    assert (finished / "seed-0" / "old" / "model.safetensors").stat().st_mtime_ns == stamp
    assert len(results["summary"]) == 6
    noisy = next(row for row in results["rows"] if row["method"] == "random-walk" and row["label_noise"] == 0.4)
    clean = next(row for row in results["rows"] if row["method"] == "random-walk" and row["label_noise"] == 0.0)
    assert noisy["new_self"] != clean["new_self"]


def test_a_diverged_cell_is_a_row_and_not_the_end(recipe: Recipe, tmp_path: Path) -> None:
    wild = load_recipe(
        bundled_recipe("digits"), {"epochs": 1, "methods": "l2", "seeds": 1, "jobs": 1, "influence_weight": 1e38}
    )
    results = compare(wild, tmp_path)
    assert "diverged" in results["rows"][0]["error"]
    assert results["rows"][0]["compatible"] == "no"
    assert "diverged" in (tmp_path / "report.html").read_text()


def test_report_shows_pictures_of_the_best_method(recipe: Recipe, finished: Path) -> None:
    compare(recipe, finished)
    page = (finished / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= 6
    assert "random-walk" in page


def test_results_say_when_and_by_which_command_they_were_made(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = json.loads((finished / "results.json").read_text())["made"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", made["date"])
    assert made["command"] is None  # a call from Python
    assert made["date"] in (finished / "report.html").read_text()
    module = importlib.import_module("compatlearn.comparison.evaluate")
    for program in ("/usr/bin/compatlearn", "/lib/compatlearn/__main__.py"):
        monkeypatch.setattr(sys, "argv", [program, "compare", "--out", "my runs"])
        assert module._made()["command"] == "compatlearn compare --out 'my runs'"


def test_the_commands_of_the_page_name_files_that_are_there(finished: Path) -> None:
    module = importlib.import_module("compatlearn.comparison.evaluate")
    files = module._files(finished, Cell(0, "l2", 0.05, 0.9, 0.0))
    assert files.adapter is None
    assert (finished / files.new / "manifest.json").exists()
    assert (finished / files.old / "manifest.json").exists()
    mapped = module._files(finished, Cell(0, "ridge", 0.05, 0.9, 0.0))
    assert (mapped.new, mapped.adapter) == ("seed-0/independent/val", "seed-0/ridge/adapter.safetensors")
    assert (finished / mapped.old_training / "manifest.json").exists()


def test_a_result_that_lacks_figures_is_named(recipe: Recipe, tmp_path: Path) -> None:
    module = importlib.import_module("compatlearn.comparison.evaluate")
    cell = Cell(0, "l2", 0.05, 0.9, 0.0)
    path = cell.folder(tmp_path) / "result.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"independent_self": null}')
    with pytest.raises(FormatError, match=rf"{re.escape(str(path))}: an evaluation without old_self, cross"):
        module.evaluate(recipe, tmp_path, cell, Features.load)


def test_label_noise_is_exact_and_never_the_own_class() -> None:
    labels = np.arange(1000) % 7
    noisy = noisy_labels(labels, 0.2, 7, seed=1)
    assert (noisy != labels).sum() == 200
    assert set(np.unique(noisy)) <= set(range(7))
    np.testing.assert_array_equal(noisy, noisy_labels(labels, 0.2, 7, seed=1))
    assert (noisy_labels(labels, 0.2, 7, seed=2) != noisy).any()


def test_cells_of_a_sweep_have_folders_of_their_own(tmp_path: Path) -> None:
    cells = [Cell(0, "random-walk", t, d, n) for t in (1.0, 0.05) for d in (0.1, 0.9) for n in (0.0, 0.2)]
    assert len({cell.folder(tmp_path) for cell in cells}) == len(cells)


def test_the_same_arrays_are_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The methods of a seed share the old and the independent self test."""
    module = importlib.import_module("compatlearn.comparison.evaluate")
    asked: list[int] = []
    monkeypatch.setattr(module, "search", lambda *given, **named: asked.append(given[2]) or search(*given, **named))
    random = np.random.default_rng(0)
    old, new = (Features(random.normal(size=(30, 4)), np.arange(30) % 3) for _ in range(2))
    searcher = module.remembering_search()
    results = [compatibility(old_query=old, old_gallery=old, new_query=new, searcher=searcher) for _ in range(3)]
    assert len(asked) == 3  # old self, cross, new self
    assert results[0] == results[1] == results[2] == compatibility(old_query=old, old_gallery=old, new_query=new)


def test_bt2_is_trained_beside_the_independent_model_with_room_for_both(recipe: Recipe, tmp_path: Path) -> None:
    compare(replace(recipe, methods="bt2", new_backbone="small_resnet8"), tmp_path)
    seed = tmp_path / "seed-0"
    images, _ = load_split(recipe, tmp_path, "train")
    rows = split_rows(images.labels, recipe.old_fraction, 0)[1]
    np.testing.assert_array_equal(Features.load(seed / "independent" / "train").ids, images.ids[rows])
    assert load_learner(seed / "independent" / "model.safetensors").embedder.dimension == 32
    assert load_learner(seed / "bt2" / "model.safetensors").embedder.dimension == 32 + 16  # no more than the old 16


def test_an_adapter_maps_from_the_independent_model_and_is_fitted_once(recipe: Recipe, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "adapters"
    shutil.copytree(finished, out)
    shutil.rmtree(out / "seed-0" / "independent")  # as if it had not been asked for
    row = compare(replace(recipe, methods="ridge"), out)["rows"][0]
    assert row["new_self"] == row["independent_self"]  # the new model is not changed
    seed = out / "seed-0"
    old, new = Features.load(seed / "old-val"), Features.load(seed / "independent" / "val")
    mapped = load_adapter(seed / "ridge" / "adapter.safetensors")(new.vectors)
    distances = ((mapped[:, None] - old.vectors[None]) ** 2).sum(axis=2)
    np.fill_diagonal(distances, np.inf)
    assert row["cross"]["top1"] == pytest.approx((old.labels[distances.argmin(axis=1)] == old.labels).mean(), abs=2 / len(old))
    fitted = (seed / "ridge" / "adapter.safetensors").stat().st_mtime_ns
    (seed / "ridge" / "result.json").unlink()
    again = compare(replace(recipe, methods="independent,ridge"), out)["rows"][1]
    assert again["cross"] == row["cross"]
    assert (seed / "ridge" / "adapter.safetensors").stat().st_mtime_ns == fitted


def test_a_map_with_labels_stands_beside_heads_with_the_same_labels(
    recipe: Recipe, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ADAPTERS, "head", replace(ADAPTERS["head"], home="closed.ridge_map"))
    out = tmp_path / "heads"
    shutil.copytree(finished, out)
    asked = replace(recipe, methods="head,ridge")
    row, free = compare(asked, out)["rows"]
    seed = out / "seed-0"
    told, new_told = Features.load(seed / "old-train"), Features.load(seed / "independent" / "train")
    old, new = Features.load(seed / "old-val"), Features.load(seed / "independent" / "val")
    old_head, new_head = (fit_adapter("ridge", one.vectors, one.vectors) for one in (told, new_told))
    without = compatibility(old_query=old, old_gallery=old, new_query=old, adapter=old_head)
    backfill = compatibility(old_query=new, old_gallery=new, new_query=new, adapter=new_head)
    assert row["old_head"] == without.to_dict()["cross"]
    assert row["backfill_head"] == backfill.to_dict()["cross"]
    assert row["gain_over_old_head"] == pytest.approx(row["cross"]["top1"] - row["old_head"]["top1"])
    room = row["backfill_head"]["top1"] - row["old_self"]["top1"]
    assert row["update_gain_head"] == pytest.approx((row["cross"]["top1"] - row["old_self"]["top1"]) / room)
    assert set(row["cosine"]["old_head"]) == FIGURES
    assert row["cosine"]["old_head"] != row["old_head"]
    assert not [key for key in free if key.endswith("_head")]  # ridge is told no labels
    results = json.loads((out / "results.json").read_text())
    assert results["rows"][0]["intervals"]["backfill_head"]["top1"] == backfill.to_dict()["intervals"]["cross"]["top1"]
    assert results["summary"][0]["old_head"]["top1"]["mean"] == row["old_head"]["top1"]
    assert "head is fitted with labels. Through a head fitted with the same labels, old queries alone reach" in " ".join(
        page_of(results).split()
    )
    page = (out / "report.html").read_text()
    assert "backfill\n+ head" in page
    (seed / "head" / "backfill-head.safetensors").unlink()  # as an earlier version left it
    kept = json.loads((seed / "head" / "result.json").read_text())
    lacking = {key: value for key, value in kept.items() if not key.endswith("_head")}
    (seed / "head" / "result.json").write_text(json.dumps(lacking))
    assert compare(asked, out)["rows"][0] == row


def test_the_demo_has_something_to_gain_for_a_method_that_is_safe() -> None:
    """Its figures are in docs/results.md; here is what makes them: a weak old model, wide layers, every kind of map."""
    recipe = load_recipe("digits")
    widths = [int(name.removeprefix("small_resnet")) for name in (recipe.old_backbone, recipe.new_backbone)]
    assert min(widths) >= 8  # narrower ones may not use the faster memory format
    assert recipe.old_fraction <= 0.1
    assert {"independent", "random-walk", "ridge", "procrustes"} <= set(find_methods(recipe.methods))


def test_auto_is_told_the_noisy_labels_and_the_metric(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    clean = np.arange(80) % 4
    vectors = (np.eye(4, 6)[clean] + 0.3 * random.normal(size=(80, 6))).astype(np.float32)
    Features(vectors, clean, np.arange(80), "old").save(tmp_path / "seed-0" / "old-train")
    cell = Cell(0, "auto", 0.05, 0.9, 0.2)
    noisy = np.where(np.arange(80) < 16, (clean + 1) % 4, clean)
    Features(vectors[:, :5], noisy, np.arange(80), "new").save(backfill(cell).folder(tmp_path) / "train")
    fit_cell_adapter(load_recipe("digits", {"metric": "cosine"}), tmp_path, cell)
    record = load_adapter(cell.folder(tmp_path) / "adapter.safetensors").record_
    assert (record.metric, record.rows) == ("cosine", 80)
