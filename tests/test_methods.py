"""The table of methods: each builds the loss its name promises."""

import numpy as np
import pytest
import torch

from compatlearn import ConfigError, InfluenceLoss, RegressionLoss, mean_classifier, random_walk_classifier, trained_classifier
from compatlearn.methods import METHODS, OldKnowledge, find_method, find_methods


@pytest.fixture
def old() -> OldKnowledge:
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 4
    vectors = (generator.normal(size=(4, 6))[labels] * 2 + generator.normal(size=(60, 6))).astype(np.float32)
    options = {"temperature": 0.1, "damping": 0.5, "steps": None, "scale": None, "seed": 3}
    classifier = torch.nn.Linear(6, 4)
    return OldKnowledge(vectors, labels, 4, lambda: classifier, options)


def test_every_method_of_the_papers_table_is_there() -> None:
    assert list(METHODS) == ["independent", "l2", "trained", "mean", "normalized-mean", "random-walk", "bct"]
    assert find_methods("all") == list(METHODS)
    assert find_methods("l2, bct") == ["l2", "bct"]


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
