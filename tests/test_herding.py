"""Herding and the nearest class mean against slow references."""

import numpy as np
import pytest
import torch

from compatlearn import ConfigError
from compatlearn.herding import herding, nearest_class_mean_accuracy


@pytest.mark.parametrize("count", [1, 4, 11])
def test_herding_keeps_the_running_mean_nearest_the_mean(count: int) -> None:
    rows = np.random.default_rng(0).normal(size=(11, 3))
    chosen: list[int] = []
    for _ in range(count):
        gaps = {
            i: np.linalg.norm(np.mean([rows[j] for j in [*chosen, i]], axis=0) - rows.mean(axis=0))
            for i in range(11)
            if i not in chosen
        }
        chosen.append(min(gaps, key=gaps.__getitem__))
    assert herding(rows, count).tolist() == chosen
    assert torch.equal(herding(torch.from_numpy(rows), count), torch.tensor(chosen))


def test_herding_beats_the_first_rows() -> None:
    rows = np.random.default_rng(1).normal(size=(200, 8)) + 1
    gap = np.linalg.norm(rows[herding(rows, 10)].mean(axis=0) - rows.mean(axis=0))
    assert gap < 0.3 * np.linalg.norm(rows[:10].mean(axis=0) - rows.mean(axis=0))


@pytest.mark.parametrize("count", [0, 6])
def test_more_rows_than_there_are(count: int) -> None:
    with pytest.raises(ConfigError, match=f"count must be between 1 and 5, the rows of the class; got {count}"):
        herding(np.eye(5), count)


def test_nearest_class_mean() -> None:
    generator = np.random.default_rng(0)
    gallery, labels = generator.normal(size=(30, 4)).astype(np.float32), np.arange(30) % 3
    queries, query_labels = generator.normal(size=(17, 4)).astype(np.float32), generator.integers(0, 3, 17)
    means = [np.mean([g for g, y in zip(gallery, labels, strict=True) if y == c], axis=0) for c in range(3)]
    right = sum(
        min(range(3), key=lambda c: np.linalg.norm(q - means[c])) == y for q, y in zip(queries, query_labels, strict=True)
    )
    assert nearest_class_mean_accuracy(queries, query_labels, gallery, labels) == pytest.approx(right / 17)
