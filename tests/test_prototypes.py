"""Perturbed prototypes against a slow reference."""

import math

import numpy as np
import pytest
import torch

from compatlearn import ConfigError, mean_classifier
from compatlearn.pseudo.prototype_perturbation import perturb, prototype_perturbation_classifier
from compatlearn.pseudo.table import build_classifier


def unit(row: np.ndarray) -> np.ndarray:
    return row / math.sqrt(sum(value * value for value in row))


def slow(centres: np.ndarray, strength: float) -> np.ndarray:
    count = len(centres)
    pairs = [float(centres[i] @ centres[j]) for i in range(count) for j in range(count) if i != j]
    mean = sum(pairs) / len(pairs)
    threshold = mean + math.sqrt(sum((value - mean) ** 2 for value in pairs) / (len(pairs) - 1))
    result = []
    for i in range(count):
        crowd = [centres[j] for j in range(count) if j != i and centres[i] @ centres[j] > threshold]
        result.append(unit(centres[i] + strength * (centres[i] - sum(crowd) / len(crowd))) if crowd else centres[i])
    return np.stack(result)


@pytest.mark.parametrize("classes", [3, 7, 30])
def test_crowded_centres_are_pushed_from_their_crowd(classes: int) -> None:
    generator = np.random.default_rng(classes)
    labels = np.arange(5 * classes) % classes
    vectors = generator.normal(size=(classes, 6))[labels] + 0.1 * generator.normal(size=(5 * classes, 6))
    centres = mean_classifier(vectors, labels)
    np.testing.assert_allclose(prototype_perturbation_classifier(vectors, labels, strength=0.7), slow(centres, 0.7), atol=1e-12)
    np.testing.assert_allclose(prototype_perturbation_classifier(vectors, labels, strength=0.0), centres, atol=1e-12)
    by_name = build_classifier("prototype-perturbation", vectors, labels, options={"seed": 1})
    np.testing.assert_array_equal(by_name, prototype_perturbation_classifier(vectors, labels))
    np.testing.assert_allclose(np.linalg.norm(by_name, axis=1), 1)


def test_the_nearest_pair_gets_farther_apart_and_who_has_room_stays() -> None:
    centres = torch.eye(6, dtype=torch.float64)
    centres[1] = torch.nn.functional.normalize(centres[0] + 0.2 * centres[1], dim=0)
    moved = perturb(centres, 0.5)
    assert moved[0] @ moved[1] < centres[0] @ centres[1]
    assert torch.equal(moved[2:], centres[2:])


def test_two_classes_and_kinds_of_arrays() -> None:
    vectors, labels = torch.randn(6, 3), torch.arange(6) % 2
    torch.testing.assert_close(
        prototype_perturbation_classifier(vectors, labels), torch.as_tensor(mean_classifier(vectors, labels))
    )
    with pytest.raises(ConfigError, match=r"strength must be 0 or more; got -1\.0"):
        prototype_perturbation_classifier(vectors, labels, strength=-1.0)
