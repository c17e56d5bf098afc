"""Who sees what in a comparison: rows and classes of each model, the labels the new one is told, and refusals."""

import importlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compatlearn import Adapter, ConfigError, DataError, Features, InfluenceLoss, load_adapter
from compatlearn.comparison.compare import compare
from compatlearn.comparison.situations import cluster_labels, open_split, stored, told_labels, training_rows
from compatlearn.comparison.steps import load_split
from compatlearn.config import Recipe, bundled_recipe, load_recipe
from compatlearn.encoders.model_file import load_learner
from compatlearn.training.knowledge import OldKnowledge
from compatlearn.training.methods import find_method


def digits(**keys: object) -> Recipe:
    small = {"epochs": 1, "seeds": 1, "jobs": 1, "methods": "independent,bct,ridge", "metric": "euclidean", "scale": None}
    small |= {"old_backbone": "small_resnet4", "new_backbone": "small_resnet4", "old_fraction": 0.3}
    return load_recipe(bundled_recipe("digits"), {**small, **keys})


@given(
    sizes=st.lists(st.integers(2, 30), min_size=1, max_size=6),
    old=st.floats(0.05, 0.95),
    new=st.floats(0.01, 1),
    known=st.integers(1, 6),
    seed=st.integers(0, 5),
)
def test_each_model_has_its_share_of_every_class_and_they_meet_only_when_they_must(
    sizes: list[int], old: float, new: float, known: int, seed: int
) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    plain, rest = training_rows(digits(old_fraction=old), labels, seed)
    assert sorted([*plain, *rest]) == list(range(len(labels)))
    old_rows, new_rows = training_rows(digits(old_fraction=old, new_fraction=new, old_classes=known), labels, seed)
    assert set(old_rows) == {row for row in plain if labels[row] < known}
    assert list(new_rows) == sorted(set(new_rows))
    for label, size in enumerate(sizes):
        asked = max(1, round(new * size))
        mine = set(new_rows[labels[new_rows] == label])
        unseen = set(rest[labels[rest] == label])
        assert len(mine) == asked
        assert mine <= unseen if asked <= len(unseen) else mine >= unseen
    assert np.array_equal(training_rows(digits(new_fraction=1.0), labels, seed)[1], np.arange(len(labels)))


def test_classes_kept_for_the_search_are_not_trained_on() -> None:
    recipe = digits(test_classes=4)
    train, val = open_split(recipe, "train"), open_split(recipe, "val")
    assert set(train.labels) == set(range(6))
    assert len(train.classes) == 6
    assert set(val.labels) == {6, 7, 8, 9}
    everything = open_split(digits(), "val")
    assert set(val.ids) == set(everything.ids[everything.labels >= 6])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"test_classes": 10}, "test_classes must be below 10, the classes there are; got 10"),
        ({"test_classes": 4, "old_classes": 7}, "old_classes must be at most 6, the classes that are trained on; got 7"),
        ({"new_fraction": 0.0}, "new_fraction must be above 0 and at most 1; got 0.0"),
        ({"clusters": 1}, "clusters must be at least 2; got 1"),
    ],
)
def test_situations_that_cannot_be_are_refused_in_one_line(keys: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_split(digits(**keys), "val")
    assert str(caught.value).startswith(message)


def test_clusters_are_of_nearest_means_and_take_the_place_of_classes() -> None:
    random = np.random.default_rng(0)
    truth = np.repeat(np.arange(5), 40)
    vectors = (20 * random.normal(size=(5, 12))[truth] + random.normal(size=(200, 12))).astype(np.float32)
    labels = cluster_labels(vectors, 5, seed=3)
    means = np.stack([vectors[labels == cluster].mean(axis=0) for cluster in range(5)])
    assert np.array_equal(labels, ((vectors[:, None] - means) ** 2).sum(axis=2).argmin(axis=1))
    assert np.array_equal(labels, cluster_labels(vectors, 5, seed=3))
    old = Features(vectors, truth, space="old")
    assert told_labels(old, digits(), 3) is old
    told = told_labels(old, digits(clusters=5), 3)
    assert np.array_equal(told.require_labels(), labels)
    assert told.space == "old"
    with pytest.raises(DataError, match="200 old features cannot make 201 clusters"):
        cluster_labels(vectors, 201, seed=0)


def test_identical_rows_leave_no_label_without_a_row() -> None:
    labels = cluster_labels(np.repeat(np.eye(3, 4, dtype=np.float32), 10, axis=0), 6, seed=0)
    assert set(labels) == set(range(labels.max() + 1))
    assert labels.max() < 6


def test_unit_length_is_what_is_stored() -> None:
    old = Features(np.array([[3.0, 4.0], [0.5, 0.0]], dtype=np.float32), np.array([0, 1]), space="old")
    assert stored(old, digits()) is old
    np.testing.assert_allclose(stored(old, digits(unit_length=True)).vectors, [[0.6, 0.8], [1.0, 0.0]], atol=1e-6)
    with pytest.raises(DataError):
        stored(Features(np.zeros((1, 2), dtype=np.float32)), digits(unit_length=True))


def test_old_model_that_knows_half_of_the_classes(tmp_path: Path) -> None:
    recipe = digits(old_classes=5, dimension=24)
    results = compare(recipe, tmp_path)
    seed = tmp_path / "seed-0"
    old, new = load_learner(seed / "old" / "model.safetensors"), load_learner(seed / "bct" / "model.safetensors")
    assert old.classifier.weight.shape == (5, 16)  # the dimension that is asked for is the new model's
    assert new.classifier.weight.shape == (10, 24)
    told = Features.load(seed / "old-train")
    assert set(told.require_labels()) == set(range(10))  # its features of all classes are there, by true label
    images, _ = load_split(recipe, tmp_path, "train")
    assert set(told.ids) == set(images.ids[training_rows(recipe, images.labels, 0)[1]])
    assert {row["label"] for row in results["rows"][0]["per_class"]} == set(range(10))


def test_clusters_are_what_new_models_and_adapters_are_told(tmp_path: Path) -> None:
    recipe = digits(clusters=14, label_noise=0.5, methods="independent,head")
    compare(recipe, tmp_path)
    seed = tmp_path / "seed-0"
    clusters = Features.load(seed / "old-train").require_labels()
    assert set(clusters) == set(range(14))
    frozen = seed / "independent-noise-0.5"
    told = Features.load(frozen / "train").require_labels()
    assert (told != clusters).mean() == pytest.approx(0.5, abs=0.01)
    assert load_learner(frozen / "model.safetensors").classifier.weight.shape[0] == 14
    searched = Features.load(frozen / "val")
    assert np.array_equal(searched.require_labels(), load_split(recipe, tmp_path, "val")[0].labels)


def test_clusters_have_no_old_classifier(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'bct' needs classes that the old model knew"):
        compare(digits(clusters=5), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_situation_does_not_mix_with_another(tmp_path: Path) -> None:
    recipe = digits(methods="independent", test_classes=5)
    compare(recipe, tmp_path)
    row = json.loads((tmp_path / "results.json").read_text())["rows"][0]
    assert {entry["label"] for entry in row["per_class"]} == {5, 6, 7, 8, 9}
    with pytest.raises(ConfigError, match="test_classes was 5, is 4"):
        compare(replace(recipe, test_classes=4), tmp_path)


def test_an_old_classifier_without_the_new_classes_is_completed() -> None:
    random = np.random.default_rng(0)
    vectors, labels = random.normal(size=(40, 6)).astype(np.float32), np.repeat(np.arange(4), 10)
    classifier = torch.nn.Linear(6, 2)
    loss = find_method("bct").loss(OldKnowledge(vectors, labels, 4, lambda: classifier))
    assert isinstance(loss, InfluenceLoss)
    length = float(classifier.weight.detach().norm(dim=1).mean())
    for label in (2, 3):
        units = vectors[labels == label].mean(axis=0)
        expected = units / np.linalg.norm(units) * length
        np.testing.assert_allclose(loss.classifier[label], expected, rtol=1e-5)
    assert torch.equal(loss.classifier[:2], classifier.weight.detach())
    assert loss.bias is not None
    assert torch.allclose(loss.bias[2:], classifier.bias.detach().mean())


def test_auto_is_chosen_on_classes_kept_out_where_the_searched_ones_are_new(tmp_path: Path) -> None:
    for keys, unseen in (({"test_classes": 4}, True), ({}, False)):
        out = tmp_path / str(unseen)
        compare(digits(methods="auto", **keys), out)
        new, old = Features.load(out / "seed-0" / "independent" / "train"), Features.load(out / "seed-0" / "old-train")
        expected = Adapter(unseen_classes=unseen).fit_features(new, old)
        written = load_adapter(out / "seed-0" / "auto" / "adapter.safetensors")
        assert written.method_ == expected.method_
        np.testing.assert_allclose(written(new.vectors[:5]), expected(new.vectors[:5]), rtol=1e-4, atol=1e-4)


def test_the_table_of_situations_trains_the_independent_model_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    root = Path(__file__).parents[1]
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    situations = importlib.import_module("situations")
    changes = {"epochs": 1, "seeds": 1, "jobs": 1, "old_fraction": 0.3, "metric": "euclidean", "scale": None}
    results = {
        name: situations.one(name, root / "recipes" / "digits.toml", "digits", tmp_path, "independent,ridge", changes)
        for name in ("disjoint-data", "unit-length", "label-noise")
    }
    plain, unit = (tmp_path / name / "seed-0" / "independent" for name in ("disjoint-data", "unit-length"))
    assert (plain / "model.safetensors").samefile(unit / "model.safetensors")
    assert not (plain / "result.json").samefile(unit / "result.json")
    assert results["unit-length"]["rows"][0]["cross"] != results["disjoint-data"]["rows"][0]["cross"]
    heading, _, *rows = situations.matrix(results).splitlines()
    assert heading == "| situation | old self | independent self | `independent` | `ridge` |"
    assert [row.split("|")[1].strip() for row in rows] == list(results)
    cross = results["label-noise"]["rows"][1]["cross"]["top1"]
    assert rows[2].split("|")[-2].strip().startswith(f"{100 * cross:.1f}")
