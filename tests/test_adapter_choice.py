"""Adapters measured on what was kept out of their fit, and the choice between them."""

import numpy as np
import pytest
import torch

from compatlearn.adapters.choice import CANDIDATES, UNLABELLED, choose_adapter, fit_features
from compatlearn.errors import DataError
from compatlearn.features.features import Features
from compatlearn.indexes.exact import search


def system(classes: int = 10, rows: int = 600, noise: float = 1.0, seed: int = 0) -> tuple[Features, Features]:
    """A new model that knows the classes well, an old one that knows them badly; other ids in another order."""
    random = np.random.default_rng(seed)
    labels = np.arange(rows) % classes
    new = 3 * random.normal(size=(classes, 12))[labels] + 0.3 * random.normal(size=(rows, 12))
    old = random.normal(size=(classes, 6))[labels] + noise * random.normal(size=(rows, 6))
    ids, order = np.arange(rows) + 100, random.permutation(rows)
    return Features(new.astype(np.float32), labels, ids), Features(old.astype(np.float32), labels, ids).take(order)


def test_figures_are_of_rows_that_were_kept_out() -> None:
    new, old = system()
    tried = fit_features("ridge", new, old, seed=1)
    assert (tried.rows, tried.tested) == (540, 60)
    out = np.sort(np.random.default_rng(1).permutation(600)[:60])
    gallery = old.vectors[old.align(new.ids)][out]
    labels = new.labels[out] if new.labels is not None else out
    mapped = tried.adapter(new.vectors[out])
    for query, figure in ((mapped, tried.cross), (gallery, tried.old_self)):
        nearest = search(query, gallery, 1, exclude_self=True).indices[:, 0]
        assert figure == pytest.approx((labels[nearest] == labels).mean())
    assert "top-1" in str(tried)


def test_the_neighbour_head_beats_the_old_queries_and_ridge_does_not() -> None:
    new, old = system(classes=20, rows=2000, noise=1.5)
    head, ridge = (fit_features(name, new, old) for name in ("neighbour-head", "ridge"))
    assert head.cross is not None
    assert head.old_self is not None
    assert head.cross > head.old_self + 0.1 > (ridge.cross or 0)


def test_auto_takes_the_best_and_fits_it_to_all() -> None:
    new, old = system(rows=400)
    choice = choose_adapter(new, old)
    adapter, trials = choice.adapter, choice.trials
    assert tuple(trials) == CANDIDATES
    assert choice.worth_it
    assert adapter.method == max(trials, key=lambda name: trials[name].cross or 0)
    assert not torch.equal(
        torch.from_numpy(adapter(new.vectors[:4])), torch.from_numpy(trials[adapter.method].adapter(new.vectors[:4]))
    )


def test_auto_keeps_whole_classes_out() -> None:
    new, old = system(rows=300)
    trials = choose_adapter(new, old, unseen_classes=True).trials
    assert {(trial.rows, trial.tested) for trial in trials.values()} == {(240, 60)}  # two of ten classes


def test_auto_without_labels_looks_for_what_a_backfill_finds() -> None:
    new, old = system(rows=300, noise=0.1)
    bare = [Features(features.vectors, None, features.ids) for features in (new, old)]
    choice = choose_adapter(*bare)
    adapter, trials = choice.adapter, choice.trials
    assert choice.worth_it  # nobody can say
    assert choice.facts.endswith("no labels")
    assert tuple(trials) == UNLABELLED
    assert adapter.method == max(trials, key=lambda name: trials[name].agreement or 0)
    assert all(trial.cross is None for trial in trials.values())
    assert "answered as by a backfill" in str(trials["ridge"])


def test_agreement_is_that_of_the_nearest_old_row_with_the_new_models_ten() -> None:
    new, old = system(rows=400)
    tried = fit_features("ridge", new, old, seed=2)
    out = np.sort(np.random.default_rng(2).permutation(400)[:40])
    queries, gallery = new.vectors[out], old.vectors[old.align(new.ids)][out]
    first = search(tried.adapter(queries), gallery, 1, exclude_self=True).indices
    ten = search(queries, queries, 10, exclude_self=True).indices
    assert tried.agreement == pytest.approx(np.mean([first[i, 0] in ten[i] for i in range(40)]))


def test_auto_says_what_it_chose_by() -> None:
    new, old = system(rows=205, classes=4)
    facts = choose_adapter(new, old).facts
    lengths = np.linalg.norm(old.vectors, axis=1)
    lengths_told = f"{lengths.min():.3g} to {lengths.max():.3g} long"
    assert facts == (f"205 pairs, 12 to 6 dimensions, old vectors {lengths_told}, 4 classes of 51 to 52 rows")
    unit = Features(old.vectors / lengths[:, None], old.labels, old.ids)
    assert "old vectors of unit length" in choose_adapter(new, unit).facts


def test_auto_says_when_the_old_queries_are_best() -> None:
    random = np.random.default_rng(0)
    new, old = system(rows=400, noise=0.1)
    useless = Features(random.normal(size=(400, 12)).astype(np.float32), new.labels, new.ids)
    assert not choose_adapter(useless, old).worth_it


def test_refusals() -> None:
    new, old = system(rows=12, classes=3)
    with pytest.raises(DataError, match="12 rows are too few"):
        choose_adapter(new, old)
    with pytest.raises(DataError, match="3 classes are too few"):
        choose_adapter(new, old, unseen_classes=True)
    with pytest.raises(DataError, match="needs labels"):
        choose_adapter(Features(new.vectors, None, new.ids), Features(old.vectors, None, old.ids), unseen_classes=True)
