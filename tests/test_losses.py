"""Losses against slow references, and the promise of three lines in a foreign loop."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from compatlearn import IncompatibleError, InfluenceLoss, RegressionLoss, influence_loss, regression_loss


def slow_cross_entropy(logits: list[list[float]], labels: list[int]) -> float:
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        total += math.log(sum(math.exp(value) for value in row)) - row[label]
    return total / len(labels)


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(5, 7) new features, (5,) labels, (3, 4) classifier."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(5, 7, generator=generator, dtype=torch.float64)
    classifier = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    return features, torch.tensor([0, 2, 1, 1, 0]), classifier


def test_influence_is_cross_entropy_of_the_first_dimensions() -> None:
    features, labels, classifier = batch()
    logits = [[sum(f[i] * p[i] for i in range(4)) for p in classifier.tolist()] for f in features.tolist()]
    assert influence_loss(features, labels, classifier).item() == pytest.approx(slow_cross_entropy(logits, labels.tolist()))


def test_the_dimensions_beyond_the_old_ones_are_free() -> None:
    features, labels, classifier = batch()
    features.requires_grad_()
    influence_loss(features, labels, classifier).backward()
    assert features.grad is not None
    assert (features.grad[:, :4] != 0).all()
    assert (features.grad[:, 4:] == 0).all()


def test_cosine_mode_sees_directions_only() -> None:
    features, labels, classifier = batch()
    loss = influence_loss(features, labels, classifier, scale=16.0)
    assert influence_loss(3 * features, labels, 5 * classifier, scale=16.0).item() == pytest.approx(loss.item())
    f, p = features[:, :4].numpy(), classifier.numpy()
    cos = (f @ p.T) / np.linalg.norm(f, axis=1)[:, None] / np.linalg.norm(p, axis=1)
    assert loss.item() == pytest.approx(slow_cross_entropy((16 * cos).tolist(), labels.tolist()))
    assert influence_loss(2 * features, labels, classifier).item() != pytest.approx(
        influence_loss(features, labels, classifier).item()
    )


def test_bias_belongs_to_the_old_classifier() -> None:
    features, labels, classifier = batch()
    bias = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    expected = slow_cross_entropy((features[:, :4] @ classifier.T + bias).tolist(), labels.tolist())
    assert influence_loss(features, labels, classifier, bias=bias).item() == pytest.approx(expected)


def test_regression_is_the_mean_squared_distance() -> None:
    features, _, _ = batch()
    old = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    slow = sum(sum((features[i, j].item() - old[i, j].item()) ** 2 for j in range(4)) for i in range(5)) / 5
    assert regression_loss(features, old).item() == pytest.approx(slow)
    cache = torch.zeros(20, 4, dtype=torch.float64)
    rows = torch.tensor([3, 19, 0, 7, 7])
    cache[rows] = old
    cache[7] = old[3]
    loss = RegressionLoss(cache)(features, torch.zeros(5, dtype=torch.long), rows)
    assert loss.item() == pytest.approx(regression_loss(features, cache[rows]).item())


def test_reduced_precision_features_are_compared_in_float32() -> None:
    features, labels, classifier = batch()
    low = influence_loss(features.bfloat16(), labels, classifier.float())
    assert low.dtype == torch.float32
    exact = influence_loss(features.bfloat16().double(), labels, classifier)
    assert low.item() == pytest.approx(exact.item(), rel=1e-5)


def test_fewer_dimensions_than_the_old_features() -> None:
    features, labels, classifier = batch()
    with pytest.raises(IncompatibleError, match="old features have 4 dimensions, the new model gives 3"):
        influence_loss(features[:, :3], labels, classifier)
    with pytest.raises(IncompatibleError, match="dimension=4"):
        regression_loss(features[:, :3], classifier[[0, 1, 2, 0, 1]])


def test_the_classifier_is_frozen_and_follows_the_module() -> None:
    features, labels, classifier = batch()
    loss = InfluenceLoss(classifier.numpy())
    assert list(loss.parameters()) == []
    assert set(loss.state_dict()) == {"classifier"}
    assert loss.half().classifier.dtype == torch.float16
    other = InfluenceLoss(torch.zeros_like(classifier))
    other.load_state_dict({"classifier": classifier})
    assert other(features, labels).item() == pytest.approx(influence_loss(features, labels, classifier).item())


def test_three_lines_in_a_foreign_loop_pull_the_new_features_to_the_old_classes() -> None:
    generator = torch.Generator().manual_seed(2)
    labels = torch.randint(0, 3, (120,), generator=generator)
    inputs = torch.randn(3, 10, generator=generator)[labels] + 0.3 * torch.randn(120, 10, generator=generator)
    classifier = torch.nn.functional.normalize(torch.randn(3, 4, generator=generator), dim=1)
    torch.manual_seed(0)
    model, head = nn.Linear(10, 6), nn.Linear(6, 3)
    influence = InfluenceLoss(classifier)
    optimizer = torch.optim.SGD([*model.parameters(), *head.parameters()], lr=0.1)
    before = influence(model(inputs), labels).item()
    for _ in range(100):
        features = model(inputs)
        loss = nn.functional.cross_entropy(head(features), labels) + influence(features, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert influence(model(inputs), labels).item() < 0.2 * before
    assert ((model(inputs)[:, :4] @ classifier.T).argmax(dim=1) == labels).float().mean() > 0.95
    torch.testing.assert_close(influence.classifier, classifier)  # and the old space did not move
