"""The table of methods: each builds the loss its name promises."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from compatlearn import (
    ConfigError,
    IncompatibleError,
    InfluenceLoss,
    RegressionLoss,
    mean_classifier,
    random_walk_classifier,
    trained_classifier,
)
from compatlearn.losses import Bt2Loss
from compatlearn.pseudo.table import build_classifier
from compatlearn.training.knowledge import OldKnowledge
from compatlearn.training.methods import METHODS, Trained, find_method, find_methods


@pytest.fixture
def old() -> OldKnowledge:
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 4
    vectors = (generator.normal(size=(4, 6))[labels] * 2 + generator.normal(size=(60, 6))).astype(np.float32)
    options = {"temperature": 0.1, "damping": 0.5, "steps": None, "scale": None, "seed": 3, "epochs": 5}
    classifier = torch.nn.Linear(6, 4)
    return OldKnowledge(vectors, labels, 4, lambda: classifier, options)


def test_every_method_of_the_papers_table_is_there() -> None:
    paper = ["independent", "l2", "trained", "mean", "normalized-mean", "random-walk", "bct"]
    assert list(METHODS)[:7] == find_methods("paper") == paper
    assert find_methods("all") == list(METHODS)
    assert find_methods("l2, bct") == ["l2", "bct"]


def test_a_family_is_its_methods_and_each_comes_once() -> None:
    families = {method.family for method in METHODS.values()}
    assert not families & {*METHODS, "all"}
    assert find_methods("regression") == ["weakened-l2", "cosine-regression"]
    assert find_methods(["ract", "contrastive", "l2"])[0] == "ract"
    chosen = find_methods("ract, contrastive, l2")
    assert len(chosen) == len(set(chosen))
    assert set(chosen) == {name for name, method in METHODS.items() if method.family == "contrastive"} | {"l2"}


LOSSES = [name for name, each in METHODS.items() if isinstance(each, Trained) and not (each.beside or each.baseline)]


@pytest.mark.parametrize("name", LOSSES)
def test_losses_that_see_directions_only_are_for_ranking_by_cosine(old: OldKnowledge, name: str) -> None:
    rows = torch.arange(0, 30)
    features = torch.randn(30, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = torch.from_numpy(old.labels)[rows]
    values = []
    for scale in (1, 3):
        loss = find_method(name).loss(old)
        assert loss is not None
        for _ in range(2):  # those that remember say nothing the first time
            torch.manual_seed(0)
            value = loss(scale * features, labels, rows)
        values.append(value)
    assert torch.isclose(*values) == (METHODS[name].metric == "cosine")
    gradient = torch.autograd.grad(values[0], features)[0]
    assert (gradient[:, :6] != 0).any()
    assert (gradient[:, 6:] == 0).all()  # the tail is free
    with pytest.raises(IncompatibleError, match="the old features have 6 dimensions, the new model gives 5"):
        find_method(name).loss(old)(features[:, :5], labels, rows)


def test_bt2_takes_the_features_of_an_independent_model(old: OldKnowledge) -> None:
    with pytest.raises(ConfigError, match="'bt2' needs an independently trained model's features"):
        find_method("bt2").loss(old)
    loss = find_method("bt2").loss(replace(old, independent=np.ones((60, 8), dtype=np.float32)))
    assert isinstance(loss, Bt2Loss)
    centres = build_classifier("normalized-mean", old.vectors, old.labels)
    np.testing.assert_allclose(loss.classifier, centres, rtol=1e-5)


def test_advbct_must_know_the_length_of_the_training(old: OldKnowledge) -> None:
    del old.options["epochs"]
    with pytest.raises(ConfigError, match="'advbct' fades over the training"):
        find_method("advbct").loss(old)


def test_defaults_are_the_losses_own(old: OldKnowledge) -> None:
    assert find_method("unibct").loss(old).temperature == 0.1
    bare = OldKnowledge(old.vectors, old.labels, 4)
    assert find_method("unibct").loss(bare).temperature == 0.05
    assert find_method("nccl").loss(bare).seed == 0


def test_influence_methods_hold_their_classifier(old: OldKnowledge) -> None:
    expected = {
        "trained": trained_classifier(old.vectors, old.labels, seed=3),
        "mean": mean_classifier(old.vectors, old.labels, normalize=False),
        "normalized-mean": mean_classifier(old.vectors, old.labels),
        "random-walk": random_walk_classifier(old.vectors, old.labels, temperature=0.1, damping=0.5),
        "bct": old.classifier().weight.detach().numpy(),
    }
    for name, rows in expected.items():
        loss = find_method(name).loss(old)
        assert isinstance(loss, InfluenceLoss)
        np.testing.assert_array_equal(loss.classifier.numpy(), rows)
        assert (loss.bias is not None) == (name == "bct")
    assert find_method("independent").loss(old) is None
    assert len({array.tobytes() for array in map(np.asarray, expected.values())}) == 5


def test_l2_looks_up_the_old_feature_of_the_row(old: OldKnowledge) -> None:
    loss = find_method("l2").loss(old)
    assert isinstance(loss, RegressionLoss)
    rows = torch.tensor([5, 41])
    features = torch.from_numpy(old.vectors[[5, 41]])
    labels = torch.tensor([0, 1])
    assert loss(torch.nn.functional.pad(features, (0, 3)), labels, rows).item() == 0.0
    assert loss(features, labels, rows.flip(0)).item() > 0


def test_options_reach_the_loss(old: OldKnowledge) -> None:
    old.options["scale"] = 16.0
    loss = find_method("normalized-mean").loss(old)
    assert isinstance(loss, InfluenceLoss)
    assert loss.scale == 16.0


def test_an_unknown_method_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown method 'random_walk'; did you mean 'random-walk'\?"):
        find_methods("l2,random_walk")


def test_bct_without_the_old_classifier_is_refused(old: OldKnowledge) -> None:
    with pytest.raises(ConfigError, match="'bct' needs the old model's own classifier"):
        find_method("bct").loss(OldKnowledge(old.vectors, old.labels, 4))
