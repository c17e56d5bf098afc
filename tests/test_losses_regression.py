"""Regression and distillation against slow references."""

import math

import numpy as np
import pytest
import torch

from compatlearn import ConfigError
from compatlearn.losses import (
    IcarlLoss,
    LwfLoss,
    RegressionLoss,
    cosine_regression_loss,
    lwf_loss,
    weakened_regression_loss,
)


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit(row: list[float]) -> list[float]:
    length = math.sqrt(sum(value * value for value in row))
    return [value / length for value in row]


def softmax(row: list[float]) -> list[float]:
    total = sum(map(math.exp, row))
    return [math.exp(value) / total for value in row]


@pytest.mark.parametrize("threshold", [0.0, 0.2, 1.3])
def test_weakened_regression_counts_only_what_is_beyond_the_threshold(threshold: float) -> None:
    features, old = numbers(7, 6), numbers(7, 4, seed=1)
    slow = 0.0
    for f, o in zip(features[:, :4].tolist(), old.tolist(), strict=True):
        slow += 10 * max(0.0, math.dist(unit(f), unit(o)) - threshold) / 7
    assert weakened_regression_loss(features, old, threshold=threshold).item() == pytest.approx(slow)
    assert weakened_regression_loss(5 * features, 0.1 * old, threshold=threshold).item() == pytest.approx(slow)


def test_weakened_regression_has_a_gradient_at_the_old_feature_itself() -> None:
    features = numbers(3, 4).requires_grad_()
    weakened_regression_loss(features, features.detach(), threshold=0.0).backward()
    assert torch.isfinite(features.grad).all()


def test_cosine_regression() -> None:
    features, old = numbers(5, 6), numbers(5, 4, seed=1)
    pairs = zip(features[:, :4].tolist(), old.tolist(), strict=True)
    slow = sum(1 - np.dot(unit(f), unit(o)) for f, o in pairs) / 5
    assert cosine_regression_loss(features, old).item() == pytest.approx(slow)
    assert cosine_regression_loss(old, old).item() == pytest.approx(0)


@pytest.mark.parametrize("loss", [weakened_regression_loss, cosine_regression_loss])
def test_cached_features_are_looked_up_by_row(loss) -> None:
    features, cache, rows = numbers(5, 6), numbers(20, 4, seed=1), torch.tensor([3, 19, 0, 7, 7])
    expected = loss(features, torch.stack([cache[int(row)] for row in rows]))
    module = RegressionLoss(cache, loss)
    torch.testing.assert_close(module(features, torch.zeros(5, dtype=torch.long), rows), expected)
    assert module.state_dict() == {}  # the cache is not for checkpoints


def test_centres_are_those_of_the_labels() -> None:
    features, centres, labels = numbers(5, 6), numbers(3, 4, seed=1), torch.tensor([2, 0, 0, 1, 2])
    slow = sum((features[i, j] - centres[labels[i], j]) ** 2 for i in range(5) for j in range(4)) / 5
    torch.testing.assert_close(IcarlLoss(centres)(features, labels), slow)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_distillation_is_the_divergence_of_softened_probabilities(temperature: float) -> None:
    features, old, classifier = numbers(5, 6), numbers(5, 4, seed=1), numbers(3, 4, seed=2)
    slow = 0.0
    for f, o in zip(features[:, :4].numpy(), old.numpy(), strict=True):
        new, target = (softmax((classifier.numpy() @ x / temperature).tolist()) for x in (f, o))
        slow += temperature**2 * sum(t * math.log(t / n) for t, n in zip(target, new, strict=True)) / 5
    assert lwf_loss(features, old, classifier, temperature=temperature).item() == pytest.approx(slow)
    module = LwfLoss(classifier, old.flip(0), temperature=temperature)
    rows = torch.arange(5).flip(0)
    assert module(features, torch.zeros(5, dtype=torch.long), rows).item() == pytest.approx(slow)


def test_distillation_survives_long_features() -> None:
    features, old, classifier = 300 * numbers(5, 4).float(), 300 * numbers(5, 4, seed=1).float(), numbers(3, 4, seed=2).float()
    features.requires_grad_()
    loss = lwf_loss(features, old, classifier)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(features.grad).all()
    with pytest.raises(ConfigError, match="temperature must be above 0; got 0"):
        LwfLoss(classifier, old, temperature=0.0)


def test_autocast_does_not_reach_the_products() -> None:
    features, old, classifier = numbers(9, 6).float(), numbers(9, 4, seed=1).float(), numbers(3, 4, seed=2).float()
    expected = lwf_loss(features, old, classifier)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(lwf_loss(features, old, classifier), expected, rtol=0, atol=0)
