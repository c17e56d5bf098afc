"""Kernel ridge regression against slow references: dense inverses in float64, loops, refits without a row."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from compatlearn import Adapter, load_adapter
from compatlearn.adapters import kernel
from compatlearn.adapters.agreement import overlap
from compatlearn.adapters.closed import adjoint_map, centred_procrustes_map
from compatlearn.adapters.kernel import KERNELS, Kernel, KernelNetwork, drawn, kernel_ridge_map
from compatlearn.adapters.linear import ridge
from compatlearn.adapters.pairs import Pairs
from compatlearn.adapters.task import Task

SHAPES = [(0.25, 0.6), (0.5, 0.8), (0.0, 0.4)]


def vectors(rows: int = 40, d_new: int = 6, d_old: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """New vectors, and old ones that are a smooth function of them which is not linear."""
    random = np.random.default_rng(seed)
    new = random.normal(size=(rows, d_new)) + 1
    old = np.tanh(new @ random.normal(size=(d_new, d_old))) + 0.1 * random.normal(size=(rows, d_old)) + 2
    return new.astype(np.float32), old.astype(np.float32)


def task_of(new: np.ndarray, old: np.ndarray, unit: bool = False) -> Task:
    rows = torch.arange(len(new))
    return Task(Pairs(new, old, rows, rows), unit=unit)


def slow_kernel(inputs: np.ndarray, x: np.ndarray, z: np.ndarray, whitening: float, temperature: float) -> float:
    """k of two vectors, for the mean and covariance of some inputs."""
    inputs, x, z = inputs.astype(float), x.astype(float), z.astype(float)
    mean, size = inputs.mean(axis=0), inputs.shape[1]
    spread = np.mean([np.sum((row - mean) ** 2) for row in inputs])
    if whitening == 0:
        scale = np.sqrt(np.mean([np.sum(row**2) for row in inputs]))
        phi, psi = x / scale, z / scale
    else:
        values, basis = np.linalg.eigh(sum(np.outer(row - mean, row - mean) for row in inputs) / len(inputs))
        damped = np.maximum(values, 0) + 0.1 * values.sum() / size
        root = basis @ np.diag(damped**-whitening) @ basis.T
        phi, psi = ((root @ (one - mean)) / np.linalg.norm(root @ (one - mean)) for one in (x, z))
    return float(np.exp(-np.sum((phi - psi) ** 2) / (2 * temperature)) + (x - mean) @ (z - mean) / spread)


def slow_gram(inputs: np.ndarray, ones: np.ndarray, others: np.ndarray, shape: tuple[float, float]) -> np.ndarray:
    return np.array([[slow_kernel(inputs, one, other, *shape) for other in others] for one in ones])


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_kernel_ridge_regression(shape: tuple[float, float]) -> None:
    new, old = vectors(25)
    asked = vectors(7, seed=1)[0]
    weights = np.linalg.inv(slow_gram(new, new, new, shape) + 0.3 * np.eye(25)) @ (old - old.mean(axis=0))
    wanted = slow_gram(new, asked, new, shape) @ weights + old.mean(axis=0)
    found = kernel_ridge_map(task_of(new, old), whitening=shape[0], temperature=shape[1], strength=0.3, neighbours=0)
    np.testing.assert_allclose(found(torch.from_numpy(asked)).numpy(), wanted, rtol=1e-4, atol=1e-4)


def test_landmarks_are_nystroms() -> None:
    new, old = vectors(30)
    asked, shape = vectors(5, seed=1)[0], (0.25, 0.6)
    chosen = torch.randperm(30, generator=torch.Generator().manual_seed(0))[:12].sort().values.numpy()
    few, cross = slow_gram(new, new[chosen], new[chosen], shape), slow_gram(new, new[chosen], new, shape)
    weights = np.linalg.inv(cross @ cross.T + 0.3 * few) @ cross @ (old - old.mean(axis=0))
    wanted = slow_gram(new, asked, new[chosen], shape) @ weights + old.mean(axis=0)
    network = kernel_ridge_map(task_of(new, old), whitening=0.25, strength=0.3, neighbours=0, landmarks=12)
    np.testing.assert_allclose(network(torch.from_numpy(asked)).numpy(), wanted, rtol=1e-3, atol=1e-3)
    assert network.targets.shape == (12, 4)


def test_all_pairs_as_landmarks_are_the_exact_solution(monkeypatch: pytest.MonkeyPatch) -> None:
    new, old = (torch.from_numpy(side).double() for side in vectors(30))
    one = Kernel.of(new, 0.25, 0.6)
    exact = kernel._solved(one, new, old, torch.arange(30), 0.1)
    monkeypatch.setattr(kernel, "BLOCK", 7)
    twice = kernel._solved(one, torch.cat([new, new]), torch.cat([old, old]), torch.arange(30), 0.2)  # (2KK + 2λK)⁻¹ 2KY
    torch.testing.assert_close(twice, exact, rtol=1e-4, atol=1e-5)
    asked = torch.from_numpy(vectors(5, seed=1)[0])
    task = task_of(*vectors(30))
    for landmarks in (None, 30, 99):
        found = kernel_ridge_map(task, whitening=0.25, landmarks=landmarks)(asked)
        torch.testing.assert_close(found, kernel_ridge_map(task, whitening=0.25)(asked))


def test_of_many_pairs_some_are_landmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "EXACT", 20)
    monkeypatch.setattr(kernel, "LANDMARKS", 8)
    assert len(kernel_ridge_map(task_of(*vectors(20))).weights) == 20
    assert len(kernel_ridge_map(task_of(*vectors(21))).weights) == 8


@settings(max_examples=20, deadline=None)
@given(st.integers(10, 18), st.integers(1, 5), st.sampled_from(SHAPES), st.floats(0.01, 2.0), st.integers(0, 99))
def test_leaving_one_out_is_a_refit_without_it(
    rows: int, width: int, shape: tuple[float, float], strength: float, seed: int
) -> None:
    new, old = (torch.from_numpy(side).double() for side in vectors(rows, width, 2, seed))
    one, mean = Kernel.of(new, *shape), old.mean(dim=0)
    inverse = torch.linalg.inv(one.gram(new, new) + strength * torch.eye(rows))
    closed = old - inverse @ (old - mean) / inverse.diagonal()[:, None]
    for row in range(rows):
        rest = torch.arange(rows) != row
        weights = kernel._solved(one, new[rest], old[rest] - mean, torch.arange(rows - 1), strength)
        torch.testing.assert_close(one.gram(new[row : row + 1], new[rest]) @ weights + mean, closed[row : row + 1])


def slow_drawn(found: np.ndarray, targets: np.ndarray, own: np.ndarray, count: int, draw: float, unit: bool) -> np.ndarray:
    results = []
    for row, result in enumerate(found.astype(float)):
        if unit:
            result = result / np.linalg.norm(result)
        order = sorted((place for place in range(len(targets)) if not own[row, place]),
                       key=lambda place: np.sum((targets[place] - result) ** 2))  # fmt: skip
        mean = targets[order[:count]].mean(axis=0)
        if unit:
            result = result + draw * mean / np.linalg.norm(mean)
            results.append(result / np.linalg.norm(result))
        else:
            results.append((result + draw * mean) / (1 + draw))
    return np.array(results)


@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("count", [1, 3, 50])
def test_results_are_drawn_towards_the_targets_nearest_to_them(unit: bool, hidden: bool, count: int) -> None:
    random = np.random.default_rng(0)
    found, targets = random.normal(size=(8, 4)), random.normal(size=(8, 4))
    if unit:
        targets /= np.linalg.norm(targets, axis=1, keepdims=True)
    own = np.eye(8, dtype=bool) if hidden else np.zeros((8, 8), dtype=bool)
    mine = drawn(
        torch.from_numpy(found),
        torch.from_numpy(targets),
        neighbours=count,
        draw=0.4,
        unit=unit,
        own=torch.from_numpy(own) if hidden else None,
    )
    np.testing.assert_allclose(mine.numpy(), slow_drawn(found, targets, own, count, 0.4, unit))


def test_nothing_is_drawn_without_neighbours_or_weight() -> None:
    found, targets = torch.randn(3, 4), torch.randn(5, 4)
    for neighbours, draw in ((0, 0.4), (5, 0.0)):
        assert torch.equal(drawn(found, targets, neighbours=neighbours, draw=draw, unit=False), found)
        lengths = drawn(found, targets, neighbours=neighbours, draw=draw, unit=True).norm(dim=1)
        torch.testing.assert_close(lengths, torch.ones(3))


def test_only_the_first_pairs_draw_where_others_are_queries() -> None:
    new, old = vectors(30)
    network = kernel_ridge_map(task_of(new, old), whitening=0.25, drawing=20)
    torch.testing.assert_close(network.targets, torch.from_numpy(old[:20]))
    none = kernel_ridge_map(task_of(new, old), whitening=0.25, drawing=0)
    plain = kernel_ridge_map(task_of(new, old), whitening=0.25, neighbours=0)
    torch.testing.assert_close(none(torch.from_numpy(new)), plain(torch.from_numpy(new)))


def test_the_kernel_that_retrieves_best_on_pairs_kept_out_is_taken() -> None:
    new, old = (torch.from_numpy(side).double() for side in vectors(40))
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    asking, fitted = order[:8], order[8:]
    gallery = old[torch.cat([asking, fitted])]
    scores = []
    for shape in KERNELS:
        one, mean = Kernel.of(new[fitted], *shape), old[fitted].mean(dim=0)

        def mapped(rows: Tensor, kept: Tensor, one: Kernel = one, mean: Tensor = mean) -> Tensor:
            weights = kernel._solved(one, new[kept], old[kept] - mean, torch.arange(len(kept)), 0.05)
            found = one.gram(new[rows], new[kept]) @ weights + mean
            return drawn(found, old[kept], neighbours=5, draw=0.4, unit=False)

        alone = [mapped(row[None], fitted[fitted != row]) for row in fitted]
        scores.append(float(overlap(old[asking], torch.cat([mapped(asking, fitted), *alone]), gallery).mean()))
    task = task_of(*vectors(40))
    assert kernel._best_kernel(new, old, task, 0.05, 5, 0.4) == KERNELS[int(np.argmax(scores))]


def test_agreement_counts_the_true_neighbours_that_are_found() -> None:
    random = np.random.default_rng(0)
    true, mapped = random.normal(size=(15, 3)), random.normal(size=(15, 3))
    shares = []
    for row in range(4):
        near = [np.argsort(((items - true[row]) ** 2).sum(axis=1) + 1e9 * (np.arange(15) == row))[:10] for items in (true, mapped)]
        shares.append(len(set(near[0]) & set(near[1])) / 10)
    found = overlap(torch.from_numpy(true[:4]), torch.from_numpy(mapped), torch.from_numpy(true))
    np.testing.assert_allclose(found.numpy(), shares)
    assert overlap(*(torch.from_numpy(side) for side in (true[:4], true, true))).tolist() == [1.0] * 4


@pytest.mark.parametrize("direction", ["query", "gallery"])
@pytest.mark.parametrize("unit", [False, True])
def test_a_saved_map_is_the_same_map(tmp_path: Path, direction: str, unit: bool) -> None:
    new, old = vectors(40)
    if unit:
        new, old = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (new, old))
    adapter = Adapter("kernel-ridge", direction).fit(new, old)
    adapter.save(tmp_path / "map.safetensors")
    again = load_adapter(tmp_path / "map.safetensors")
    asked, wide = (new, 4) if direction == "query" else (old, 6)
    mapped = adapter.transform(asked)
    assert (mapped.shape, mapped.dtype) == ((40, wide), np.float32)
    np.testing.assert_array_equal(again.transform(asked), mapped)
    assert (again.d_new, again.d_old, again.direction) == (6, 4, direction)
    assert isinstance(again.network_, KernelNetwork)
    if unit:
        np.testing.assert_allclose(np.linalg.norm(mapped, axis=1), 1, atol=1e-5)


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    new, old = vectors(40)
    network = kernel_ridge_map(task_of(new, old))
    whole = network(torch.from_numpy(new))
    monkeypatch.setattr(kernel, "BLOCK", 7)
    torch.testing.assert_close(network(torch.from_numpy(new)), whole)


def test_half_precision_is_widened() -> None:
    new, old = vectors(40)
    half = Adapter("kernel-ridge").fit(new.astype(np.float16), old.astype(np.float16))
    full = Adapter("kernel-ridge").fit(new.astype(np.float16).astype(np.float32), old.astype(np.float16).astype(np.float32))
    found = half.transform(new.astype(np.float16))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, full.transform(new.astype(np.float16)), atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_constant_dimension_changes_little(shape: tuple[float, float]) -> None:
    new, old = vectors(60)
    wide = np.concatenate([new, np.full((60, 1), 7, dtype=np.float32)], axis=1)
    found = kernel_ridge_map(task_of(wide, old), whitening=shape[0], temperature=shape[1])(torch.from_numpy(wide))
    assert torch.isfinite(found).all()
    assert float((found - torch.from_numpy(old)).square().mean()) < 0.3 * old.var()


@pytest.mark.parametrize("rows", [10, 11])
def test_ten_pairs_are_enough(rows: int) -> None:
    new, old = vectors(rows)
    for direction in ("query", "gallery"):
        mapped = Adapter("kernel-ridge", direction).fit(new, old).transform(new if direction == "query" else old)
        assert np.isfinite(mapped).all()


def test_it_learns_what_no_matrix_can() -> None:
    new, old = vectors(600)
    errors = {
        name: np.square(Adapter(name).fit(new[:400], old[:400]).transform(new[400:]) - old[400:]).mean()
        for name in ("ridge", "kernel-ridge")
    }
    assert errors["kernel-ridge"] < 0.9 * errors["ridge"]


def test_centred_procrustes_is_a_rotation_around_the_means() -> None:
    random = np.random.default_rng(0)
    rotation = np.linalg.qr(random.normal(size=(5, 5)))[0]
    new = random.normal(size=(50, 5)).astype(np.float32)
    old = ((new - new.mean(axis=0)) @ rotation + 3).astype(np.float32)
    network = centred_procrustes_map(task_of(new, old))
    np.testing.assert_allclose(network(torch.from_numpy(new)).numpy(), old, atol=1e-4)


def test_the_adjoint_gives_the_scores_of_the_other_directions_map() -> None:
    new, old = vectors(50)
    task = task_of(new, old)
    weight, _ = ridge(task.pairs.turned(), task.seed)  # old → new
    mapped = adjoint_map(task)(torch.from_numpy(new)).double()
    scores = torch.from_numpy(new).double() @ (torch.from_numpy(old).double() @ weight.T).T
    torch.testing.assert_close(mapped @ torch.from_numpy(old).double().T, scores, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("width", [4, 6])
def test_distilled_learns_from_further_items_of_the_gallery(width: int) -> None:
    new, old = vectors(80, d_old=width)
    options = {"epochs": 2, "hidden": 8}
    fits = [Adapter("distilled", options=options).fit(new[:40], old[:40], others=others) for others in (old[40:], None)]
    mapped = [fit.transform(new) for fit in fits]
    assert mapped[0].shape == (80, width)
    assert not np.allclose(mapped[0], mapped[1])


@pytest.mark.parametrize("width", [4, 6])
def test_a_map_of_the_gallery_takes_no_further_items_for_targets(width: int) -> None:
    new, old = vectors(80, d_old=width)
    options = {"epochs": 2, "hidden": 8}
    with_others, without = (
        Adapter("distilled", "gallery", options=options).fit(new[:40], old[:40], others=others).transform(old)
        for others in (old[40:], None)
    )
    np.testing.assert_array_equal(with_others, without)
