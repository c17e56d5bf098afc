"""The walk's solver against the dense inverse in float64: any size, temperature, damping, type, tiles, padding."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compatlearn import ConfigError, random_walk_weights
from compatlearn.pseudo import walk
from compatlearn.pseudo.walk import landmark_weights, walk_weights
from compatlearn.rows import Rows
from test_pseudo import dense_weights, one_class


def solve(vectors: np.ndarray, temperature: float = 0.05, damping: float = 0.9, steps: int | None = None) -> np.ndarray:
    rows = torch.from_numpy(vectors)[None]
    return walk_weights(rows, torch.ones(1, len(vectors), dtype=torch.bool), temperature, damping, steps)[0].numpy()


def estimate(vectors: np.ndarray, temperature: float = 0.05, damping: float = 0.9, steps: int | None = None) -> np.ndarray:
    return landmark_weights(torch.from_numpy(vectors), temperature, damping, steps).numpy()


def angle(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a / np.linalg.norm(a) - b / np.linalg.norm(b)))


@settings(max_examples=150, deadline=None)
@given(
    m=st.integers(1, 60),
    d=st.integers(1, 20),
    seed=st.integers(0, 10**6),
    temperature=st.sampled_from([0.01, 0.02, 0.05, 0.1, 1.0]),
    damping=st.sampled_from([0.0, 0.5, 0.9, 0.99]),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
    kind=st.sampled_from(["plain", "duplicates", "outlier", "two groups"]),
    tile=st.tuples(st.integers(1, 20), st.integers(20, 40)),
    keep=st.booleans(),
)
def test_weights_within_the_documented_error(
    m: int, d: int, seed: int, temperature: float, damping: float, dtype: type, kind: str, tile: tuple[int, int], keep: bool
) -> None:
    vectors = one_class(m, d, seed, spread=0.5)
    if kind == "duplicates":
        vectors[: m // 2] = vectors[0]
    if kind == "outlier":
        vectors[0] = -vectors.mean(axis=0)
    if kind == "two groups":
        vectors[: m // 2] *= -1
    vectors = vectors.astype(dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(walk, "CPU_TILE", tile)
        patch.setattr(walk, "BLOCK_BYTES", 1 << 30 if keep else 0)
        weights = random_walk_weights(vectors, temperature=temperature, damping=damping)
    assert weights.dtype == (np.float64 if dtype == np.float64 else np.float32)
    expected = dense_weights(vectors, temperature, damping) if m > 1 else np.ones(1)
    np.testing.assert_allclose(weights, expected, rtol=1e-5)


@pytest.mark.parametrize("temperature", [0.05, 1e-3])
@pytest.mark.parametrize("steps", [None, 0, 1, 4])
def test_padding_counts_for_nothing(temperature: float, steps: int | None) -> None:
    sizes = [31, 1, 2, 3, 17]
    classes = [torch.from_numpy(one_class(m, 6, seed=m)) for m in sizes]
    rows, real = walk.padded(classes)
    weights = walk_weights(rows, real, temperature, 0.9, steps)
    assert real.sum(dim=1).tolist() == sizes
    assert (weights[~real] == 0).all()
    tolerance = 1e-6 if temperature == 1e-3 and steps is None else 1e-10  # plain iteration goes on for those that need more
    for m, some, ours in zip(sizes, classes, weights, strict=True):
        np.testing.assert_allclose(ours[:m], solve(some.numpy(), temperature, 0.9, steps), rtol=tolerance)


def test_memory_is_used_again_and_holds_nothing_over() -> None:
    memory: walk.Memory = {}
    places: set[int] = set()
    for m in (300, 250, 300, 40):
        vectors = one_class(m, 7, seed=m).astype(np.float32)
        everyone = torch.ones(1, m, dtype=torch.bool)
        weights = walk_weights(torch.from_numpy(vectors)[None], everyone, 0.05, 0.9, None, memory)
        np.testing.assert_array_equal(weights[0], solve(vectors))
        places.add(memory["unit"].data_ptr())
    assert len(places) == 1


def test_an_error_bound_is_proved_by_the_residual(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(5):
        vectors = one_class(80, 10, seed)
        expected = dense_weights(vectors, 0.05, 0.95)
        for tolerance in (1e-2, 1e-4, 1e-8):
            monkeypatch.setattr(walk, "TOLERANCE", tolerance)
            assert np.abs(solve(vectors, 0.05, 0.95) / expected - 1).max() <= tolerance


@pytest.mark.parametrize("temperature", [0.05, 0.01])
def test_plain_iteration_takes_over(monkeypatch: pytest.MonkeyPatch, temperature: float) -> None:
    monkeypatch.setattr(walk, "SOLVER_STEPS", 1)
    vectors = one_class(50, 8, seed=1)
    np.testing.assert_allclose(solve(vectors, temperature), dense_weights(vectors, temperature, 0.9), rtol=1e-5)


def test_undamped_steps() -> None:
    vectors = one_class(30, 6, seed=2)
    np.testing.assert_allclose(solve(vectors, 0.1, 1.0, 9), solve(vectors, 0.1, 1 - 1e-12, 9), rtol=1e-9)


@pytest.mark.parametrize("scale", [1e-200, 1e-20, 1e200])
def test_lengths_whose_squares_leave_float64(scale: float) -> None:
    vectors = one_class(20, 6, seed=3)
    np.testing.assert_allclose(random_walk_weights(scale * vectors), random_walk_weights(vectors), rtol=1e-7)


def test_a_caller_s_precision_changes_nothing() -> None:
    vectors = one_class(200, 64, seed=4).astype(np.float32)
    expected, before = random_walk_weights(vectors), torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            np.testing.assert_array_equal(random_walk_weights(vectors), expected)
    finally:
        torch.set_float32_matmul_precision(before)


# landmarks


@settings(max_examples=40, deadline=None)
@given(
    m=st.integers(2, 60),
    rows=st.integers(1, 70),
    seed=st.integers(0, 10**6),
    temperature=st.sampled_from([0.02, 0.05, 1.0]),
    damping=st.sampled_from([0.0, 0.5, 0.9]),
    steps=st.sampled_from([None, 0, 1, 5]),
)
def test_landmarks_are_exact_where_the_sample_is_the_class(
    m: int, rows: int, seed: int, temperature: float, damping: float, steps: int | None
) -> None:
    vectors = one_class(m, 8, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(walk, "ROWS", rows)
        np.testing.assert_allclose(
            estimate(vectors, temperature, damping, steps), solve(vectors, temperature, damping, steps), rtol=1e-5
        )


def test_landmarks_are_close_and_closer_the_more_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(5)
    centres, source = random.normal(size=(2, 64)), (random.random(3000) < 0.1).astype(int)  # a tenth of another class
    vectors = np.maximum(centres[source] + 1.5 * random.normal(size=(3000, 64)), 0).astype(np.float32)
    exact = solve(vectors)
    centre, error = exact @ vectors, []
    for landmarks in (100, 400, 1600):
        monkeypatch.setattr(walk, "LANDMARKS", landmarks)
        weights = estimate(vectors)
        np.testing.assert_allclose(weights.sum(), 1, rtol=1e-5)
        assert (weights >= 0.1 / 3000 * (1 - 1e-5)).all()  # the teleport alone
        np.testing.assert_array_equal(weights, estimate(vectors))
        error.append(angle(weights @ vectors, centre))
    assert error[2] < error[1] < error[0]
    assert error[2] < 0.1 * angle(centre, vectors.mean(axis=0))


def test_landmarks_read_some_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "ROWS", 50)
    monkeypatch.setattr(walk, "LANDMARKS", 80)
    vectors = torch.from_numpy(one_class(333, 8, seed=7))

    class Counted(Rows):
        def __getitem__(self, places: slice | torch.Tensor) -> torch.Tensor:
            rows = super().__getitem__(places)
            assert len(rows) <= (50 if isinstance(places, slice) else 80)
            return rows

    assert landmark_weights(Counted(vectors), 0.05, 0.9, None).shape == (333,)


def test_landmarks_refuse_a_walk_from_neighbour_to_neighbour() -> None:
    with pytest.raises(ConfigError, match=r"temperature 0\.001 is too low for a class of 20 rows"):
        estimate(one_class(20, 4, seed=8), temperature=1e-3)
