"""Pseudo classifiers against dense float64 references, and the mathematics they rest on."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compatlearn import (
    ConfigError,
    DataError,
    mean_classifier,
    random_walk_classifier,
    random_walk_weights,
    rows,
    trained_classifier,
)
from compatlearn.arrays import check_labels
from compatlearn.pseudo import centres as pseudo
from compatlearn.pseudo import walk


def one_class(m: int, d: int, seed: int, spread: float = 1.0) -> np.ndarray:
    """(m, d) float64 features around a common direction."""
    generator = np.random.default_rng(seed)
    return generator.normal(size=d) * 2 + spread * generator.normal(size=(m, d))


def similarity(vectors: np.ndarray, temperature: float) -> np.ndarray:
    """(m, m) exp(cos / T) off the diagonal, 0 on it, up to a common factor."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    logits = unit @ unit.T / temperature
    np.fill_diagonal(logits, -np.inf)
    return np.exp(logits - logits.max())


def dense_weights(vectors: np.ndarray, temperature: float, damping: float) -> np.ndarray:
    """The closed form with the m × m inverse, as slow and plain as it can be."""
    s = similarity(vectors.astype(np.float64), temperature)
    p = s / s.sum(axis=0, keepdims=True)
    m = len(vectors)
    refined = (1 - damping) * np.linalg.inv(np.eye(m) - damping * p)  # F∞ = F₀ · this
    return refined.mean(axis=1)  # column-wise average pooling of F∞, as weights of F₀'s columns


@pytest.mark.parametrize("temperature", [1.0, 0.1, 0.05, 0.02])
@pytest.mark.parametrize("damping", [0.0, 0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_weights_are_pagerank(temperature: float, damping: float, dtype: type) -> None:
    vectors = one_class(120, 24, seed=1).astype(dtype)
    weights = random_walk_weights(vectors, temperature=temperature, damping=damping)
    assert weights.dtype == dtype
    np.testing.assert_allclose(weights, dense_weights(vectors, temperature, damping), rtol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.05])
@pytest.mark.parametrize("damping", [0.1, 0.9])
def test_equation_8_read_literally_is_a_no_op(temperature: float, damping: float) -> None:
    """Rows that sum to one: the refined mean is the plain mean. Columns that sum to one: it is not."""
    vectors = one_class(60, 16, seed=2)
    s, m = similarity(vectors, temperature), len(vectors)
    by_rows, by_columns = s / s.sum(axis=1, keepdims=True), s / s.sum(axis=0, keepdims=True)
    plain = vectors.mean(axis=0)

    def refined(p: np.ndarray) -> np.ndarray:
        return ((1 - damping) * vectors.T @ np.linalg.inv(np.eye(m) - damping * p)).mean(axis=1)

    assert np.abs(refined(by_rows) - plain).max() < 1e-12
    moved = np.linalg.norm(refined(by_columns) - plain) / np.linalg.norm(plain)
    assert moved > 1e-4
    ours = random_walk_weights(vectors, temperature=temperature, damping=damping) @ vectors
    np.testing.assert_allclose(ours, refined(by_columns), rtol=1e-6)


def test_every_refined_column_is_a_convex_combination() -> None:
    s = similarity(one_class(30, 8, seed=3), 0.05)
    p = s / s.sum(axis=0, keepdims=True)
    mixture = (1 - 0.9) * np.linalg.inv(np.eye(30) - 0.9 * p)
    assert (mixture >= 0).all()
    np.testing.assert_allclose(mixture.sum(axis=0), 1.0, rtol=1e-10)


@pytest.mark.parametrize("steps", [0, 1, 2, 7])
def test_steps_are_the_iterated_form(steps: int) -> None:
    vectors, temperature, damping = one_class(40, 12, seed=4), 0.1, 0.7
    s = similarity(vectors, temperature)
    p = s / s.sum(axis=0, keepdims=True)
    columns = first = vectors.T
    for _ in range(steps):  # Eq. 9 on the features themselves
        columns = damping * columns @ p + (1 - damping) * first
    weights = random_walk_weights(vectors, temperature=temperature, damping=damping, steps=steps)
    np.testing.assert_allclose(weights @ vectors, columns.mean(axis=1), rtol=1e-6)


def test_many_steps_reach_the_closed_form() -> None:
    vectors = one_class(50, 12, seed=5)
    np.testing.assert_allclose(random_walk_weights(vectors, steps=400), random_walk_weights(vectors), rtol=1e-6)


@settings(max_examples=30, deadline=None)
@given(
    m=st.integers(1, 40),
    d=st.integers(1, 12),
    seed=st.integers(0, 10**6),
    temperature=st.floats(0.02, 2),
    damping=st.floats(0, 0.95),
)
def test_weights_are_a_distribution_whatever_the_order_rotation_and_scale(
    m: int, d: int, seed: int, temperature: float, damping: float
) -> None:
    vectors = one_class(m, d, seed)
    generator = np.random.default_rng(seed)

    def weigh(rows: np.ndarray) -> np.ndarray:
        return random_walk_weights(rows, temperature=temperature, damping=damping)

    weights = weigh(vectors)
    assert (weights > 0).all()
    np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-9)
    assert (weights >= (1 - damping) / m * (1 - 1e-6)).all()  # the teleport alone
    order = generator.permutation(m)
    np.testing.assert_allclose(weigh(vectors[order]), weights[order], rtol=1e-5)
    rotation = np.linalg.qr(generator.normal(size=(d, d)))[0]
    np.testing.assert_allclose(weigh(vectors @ rotation), weights, rtol=1e-5)
    lengths = generator.uniform(0.1, 10, size=(m, 1))
    np.testing.assert_allclose(weigh(vectors * lengths), weights, rtol=1e-5)


def test_an_outlier_weighs_less_than_any_inlier() -> None:
    vectors = one_class(50, 32, seed=6, spread=0.3)
    vectors[0] = -vectors[1:].mean(axis=0)
    weights = random_walk_weights(vectors)
    assert weights[0] < weights[1:].min()
    assert weights[0] < 0.2 / len(vectors)


def test_small_and_degenerate_classes() -> None:
    assert random_walk_weights(np.array([[3.0, 4.0]])).tolist() == [1.0]
    assert random_walk_weights(np.array([[1.0, 0.0], [-1.0, 0.1]])).tolist() == [0.5, 0.5]
    duplicates = np.repeat(one_class(1, 5, seed=7), 6, axis=0)
    np.testing.assert_allclose(random_walk_weights(duplicates), 1 / 6, rtol=1e-9)


@pytest.mark.parametrize("temperature", [1e-2, 1e-3, 1e-4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_temperatures_at_which_exp_overflows(temperature: float, dtype: type) -> None:
    vectors = one_class(40, 6, seed=8).astype(dtype)  # exp(1 / 1e-4) is far beyond float64
    weights = random_walk_weights(vectors, temperature=temperature)
    assert np.isfinite(weights).all()
    unit = vectors.astype(np.float64) / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    logits = unit @ unit.T / temperature
    np.fill_diagonal(logits, -np.inf)
    p = np.exp(logits - logits.max(axis=0))
    p /= p.sum(axis=0)
    expected = np.linalg.solve(np.eye(40) - 0.9 * p, np.full(40, 0.1 / 40))
    np.testing.assert_allclose(weights, expected, rtol=1e-4)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_lengths_whose_squares_leave_float32(scale: float) -> None:
    vectors = one_class(20, 6, seed=17).astype(np.float32)
    scaled = (scale * vectors.astype(np.float64)).astype(np.float32)
    np.testing.assert_allclose(random_walk_weights(scaled), random_walk_weights(vectors), rtol=1e-4)
    labels = np.zeros(20, dtype=np.int64)
    np.testing.assert_allclose(mean_classifier(scaled, labels), mean_classifier(vectors, labels), rtol=1e-4)


def test_tiles_give_what_one_block_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = one_class(101, 16, seed=9).astype(np.float32)
    whole = random_walk_weights(vectors)
    monkeypatch.setattr(walk, "BLOCK_BYTES", 101 * 4 * 7)
    monkeypatch.setattr(walk, "CPU_TILE", (7, 40))  # seven rows at a time, the last tiles smaller
    np.testing.assert_allclose(random_walk_weights(vectors), whole, rtol=1e-5)


def labelled(classes: int, rows: int, d: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), generator.integers(0, classes, rows - classes)])
    vectors = 3 * generator.normal(size=(classes, d))[labels] + generator.normal(size=(rows, d))
    return vectors.astype(np.float32), generator.permutation(labels) if classes == 1 else labels


@pytest.mark.parametrize("in_order", [False, True])
def test_classifiers_against_loops_over_classes(in_order: bool) -> None:
    vectors, labels = labelled(7, 150, 10, seed=10)
    if in_order:
        vectors, labels = vectors[np.argsort(labels)], np.sort(labels)
    for c in range(7):
        rows = vectors[labels == c].astype(np.float64)
        mean = rows.mean(axis=0)
        np.testing.assert_allclose(mean_classifier(vectors, labels, normalize=False)[c], mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(mean_classifier(vectors, labels)[c], mean / np.linalg.norm(mean), rtol=1e-4, atol=1e-5)
        centre = dense_weights(rows, 0.05, 0.9) @ rows
        ours = random_walk_classifier(vectors, labels)[c]
        np.testing.assert_allclose(ours, centre / np.linalg.norm(centre), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cache", [0, 1 << 30])
@pytest.mark.parametrize(
    ("temperature", "damping", "steps"), [(0.05, 0.9, None), (0.05, 0.9, 3), (0.02, 0.99, None), (1e-3, 0.5, None)]
)
def test_classes_of_any_size_are_walked_together(
    monkeypatch: pytest.MonkeyPatch, cache: int, temperature: float, damping: float, steps: int | None
) -> None:
    sizes = [1, 40, 2, 13, 3, 40, 1, 25]
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    vectors = np.concatenate([one_class(len(labels), 9, seed=18)])
    vectors += np.random.default_rng(1).normal(size=(len(sizes), 9))[labels]
    batches: list[int] = []
    walk_weights = pseudo.walk_weights

    def counted(rows: torch.Tensor, *arguments: object) -> torch.Tensor:
        batches.append(len(rows))
        return walk_weights(rows, *arguments)

    monkeypatch.setattr(pseudo, "CACHE_BYTES", cache)
    monkeypatch.setattr(pseudo, "walk_weights", counted)
    options = {"temperature": temperature, "damping": damping, "steps": steps}
    ours = random_walk_classifier(vectors, labels, **options)
    assert batches == ([len(sizes)] if cache else [1] * len(sizes))
    for c in range(len(sizes)):
        rows = vectors[labels == c]
        centre = random_walk_weights(rows, **options) @ rows
        np.testing.assert_allclose(ours[c], centre / np.linalg.norm(centre), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("in_order", [False, True])
@pytest.mark.parametrize("mode", ["r", "c"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("function", [mean_classifier, random_walk_classifier, partial(trained_classifier, epochs=1)])
def test_a_memory_map_is_read_a_class_at_a_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, function: Callable[..., Any], dtype: type, mode: str, in_order: bool
) -> None:
    vectors, labels = labelled(6, 200, 8, seed=19)
    if in_order:
        vectors, labels = vectors[np.argsort(labels)], np.sort(labels)
    vectors = vectors.astype(dtype)
    expected = function(vectors, labels)
    np.save(tmp_path / "vectors.npy", vectors)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode=mode)
    most = max(np.bincount(labels).max(), 32)
    read, copied = rows.Rows.__getitem__, rows.as_tensor

    def some(self: rows.Rows, places: slice | torch.Tensor) -> torch.Tensor:
        part = read(self, places)
        assert len(part) <= most
        assert part.dtype == torch.float32
        return part

    def little(values: np.ndarray | torch.Tensor) -> torch.Tensor:
        assert len(values) <= most or isinstance(values, torch.Tensor) or values.flags.writeable  # or it would be copied
        return copied(values)

    monkeypatch.setattr(rows, "BLOCK", 32)
    monkeypatch.setattr(pseudo, "CACHE_BYTES", 0)
    monkeypatch.setattr(rows.Rows, "__getitem__", some)
    monkeypatch.setattr(rows, "as_tensor", little)
    found = function(mapped, labels)
    assert isinstance(found, np.ndarray)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(np.load(tmp_path / "vectors.npy"), vectors)
    broken = vectors.copy()
    broken[[3, 150], 1] = np.nan
    np.save(tmp_path / "broken.npy", broken)
    with pytest.raises(DataError, match=r"2 of 200 rows of vectors have NaN or infinity \(first: 3, 150\)"):
        function(np.load(tmp_path / "broken.npy", mmap_mode=mode), labels)


@pytest.mark.parametrize("in_order", [False, True])
def test_a_class_beyond_the_limit_is_estimated(monkeypatch: pytest.MonkeyPatch, in_order: bool) -> None:
    sizes = [30, 170, 8]
    labels = np.repeat(np.arange(3), sizes)
    labels = labels if in_order else np.random.default_rng(2).permutation(labels)
    vectors = one_class(len(labels), 12, seed=20).astype(np.float32)
    exact, weights = random_walk_classifier(vectors, labels), random_walk_weights(vectors)
    monkeypatch.setattr(pseudo, "LARGEST", 100)
    monkeypatch.setattr(rows, "BLOCK", 64)
    np.testing.assert_allclose(random_walk_classifier(vectors, labels), exact, rtol=1e-5, atol=1e-6)  # the sample is the class
    np.testing.assert_allclose(random_walk_weights(vectors), weights, rtol=1e-5)
    monkeypatch.setattr(walk, "LANDMARKS", 60)
    estimate = random_walk_classifier(vectors, labels)
    np.testing.assert_array_equal(estimate[[0, 2]], exact[[0, 2]])
    assert 1e-5 < np.linalg.norm(estimate[1] - exact[1]) < 0.05
    np.testing.assert_array_equal(random_walk_classifier(vectors, labels), estimate)
    broken = vectors.copy()
    broken[np.flatnonzero(labels == 1)[50]] = 0
    with pytest.raises(DataError, match="1 of 208 rows of vectors have length zero"):
        random_walk_classifier(broken, labels)


def test_trained_classifier_fits_like_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    vectors, labels = labelled(5, 600, 8, seed=11)
    ours = trained_classifier(vectors, labels)
    reference = LogisticRegression(fit_intercept=False, C=1e4, max_iter=2000).fit(vectors, labels)
    accuracy = ((vectors @ ours.T).argmax(axis=1) == labels).mean()
    assert accuracy >= reference.score(vectors, labels) - 0.01
    assert accuracy > 0.9


def test_trained_classifier_is_seeded_and_free_of_scale() -> None:
    vectors, labels = labelled(4, 200, 6, seed=12)
    first = trained_classifier(vectors, labels, seed=3)
    np.testing.assert_array_equal(first, trained_classifier(vectors, labels, seed=3))
    assert np.abs(first - trained_classifier(vectors, labels, seed=4)).max() > 0
    np.testing.assert_allclose(trained_classifier(100 * vectors, labels, seed=3) * 100, first, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("function", [mean_classifier, random_walk_classifier, trained_classifier])
def test_the_same_kind_of_array_comes_back(function: object) -> None:
    vectors, labels = labelled(3, 30, 5, seed=13)
    assert callable(function)
    reference = function(vectors, labels)
    assert isinstance(reference, np.ndarray)
    for dtype, expected in ((torch.float16, torch.float32), (torch.float32, torch.float32), (torch.float64, torch.float64)):
        result = function(torch.from_numpy(vectors).to(dtype), torch.from_numpy(labels))
        assert isinstance(result, torch.Tensor)
        assert result.dtype == expected
        np.testing.assert_allclose(result.numpy(), reference, rtol=0.05, atol=0.02)


def test_bad_features_are_named() -> None:
    vectors, labels = labelled(3, 30, 5, seed=14)
    broken = vectors.copy()
    broken[[4, 17], 2] = [np.nan, np.inf]
    with pytest.raises(DataError, match=r"2 of 30 rows of vectors have NaN or infinity \(first: 4, 17\)"):
        mean_classifier(broken, labels)
    zero = vectors.copy()
    zero[9] = 0
    with pytest.raises(DataError, match=r"1 of 30 rows of vectors have length zero \(first: 9\)"):
        random_walk_classifier(zero, labels)
    with pytest.raises(DataError, match=r"1 of 4 classes have no feature \(first: 3\)"):
        mean_classifier(vectors, labels, classes=4)
    with pytest.raises(DataError, match=r"labels are not in \[0, 2\)"):
        mean_classifier(vectors, labels, classes=2)
    with pytest.raises(DataError, match="labels are negative"):
        mean_classifier(vectors, labels - 1)
    with pytest.raises(DataError, match="one class for each of 30 rows"):
        check_labels(labels[:-1], 30)
    with pytest.raises(DataError, match="cancel out"):
        mean_classifier(np.array([[1.0, 2.0], [-1.0, -2.0]]), np.array([0, 0]))
    with pytest.raises(DataError, match=r"2 of 30 rows of vectors have NaN or infinity \(first: 4, 17\)"):
        trained_classifier(broken, labels)
    with pytest.raises(DataError, match=r"1 of 30 rows of class_vectors have length zero \(first: 9\)"):
        random_walk_weights(zero)
    with pytest.raises(DataError, match=r"1 of 30 rows of vectors have length zero \(first: 9\)"):
        random_walk_classifier(zero, np.arange(30))  # alone in its class
    for function in (mean_classifier, random_walk_classifier, trained_classifier):
        with pytest.raises(DataError, match=r"vectors must be \(rows, dimension\), both at least 1; got shape \(30, 0\)"):
            function(vectors[:, :0], labels)
    with pytest.raises(DataError, match=r"got shape \(30,\)"):
        rows.Rows(np.ones(30))
    with pytest.raises(DataError, match="points must be float16, float32 or float64; got int64"):
        rows.Rows(np.ones((30, 2), dtype=np.int64), name="points")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"damping": 1.0}, "damping"),
        ({"damping": -0.1}, "damping"),
        ({"steps": -1}, "steps"),
    ],
)
def test_parameters_out_of_range(options: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        random_walk_weights(one_class(5, 3, seed=15), **options)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_gpu_gives_what_the_cpu_gives() -> None:
    vectors, labels = labelled(5, 400, 32, seed=16)
    there = random_walk_classifier(torch.from_numpy(vectors).cuda(), torch.from_numpy(labels).cuda())
    assert there.is_cuda
    np.testing.assert_allclose(there.cpu().numpy(), random_walk_classifier(vectors, labels), rtol=1e-4, atol=1e-5)
