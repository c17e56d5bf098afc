"""Maps between frozen models, against slow references; what they recover; their file and commands."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes

from compatlearn.adapters.adapter import fit_adapter, load_adapter, save_adapter
from compatlearn.adapters.heads import orthogonal_penalty
from compatlearn.adapters.linear import ridge
from compatlearn.adapters.methods import ADAPTERS
from compatlearn.adapters.pairs import Pairs
from compatlearn.adapters.slerp import slerp
from compatlearn.errors import ConfigError, DataError, FormatError, IncompatibleError
from compatlearn.evaluation.compatibility import compatibility
from compatlearn.features.features import Features

LABELLED = [name for name, method in ADAPTERS.items() if method.needs_labels]


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def system(d_new: int, d_old: int, *, classes: int = 5, rows: int = 400, turn: bool = True) -> tuple[np.ndarray, ...]:
    """A good new model and a noisy old one of the same classes, in spaces that share nothing."""
    random = np.random.default_rng(3)
    labels = np.arange(rows) % classes
    new = random.normal(size=(classes, d_new))[labels] + 0.4 * random.normal(size=(rows, d_new))
    old = 2 * (random.normal(size=(classes, d_old))[labels] + 0.8 * random.normal(size=(rows, d_old)))
    return new.astype(np.float32), old.astype(np.float32), labels


@given(d_new=st.integers(1, 7), d_old=st.integers(1, 7), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_procrustes_is_scipys_of_padded_unit_vectors(d_new: int, d_old: int, seed: int) -> None:
    new, old = normal(40, d_new, seed=seed), normal(40, d_old, seed=seed + 1)
    width = max(d_new, d_old)
    n, o = (np.pad(unit(rows), ((0, 0), (0, width - rows.shape[1]))).astype(float) for rows in (new, old))
    rotation, value = orthogonal_procrustes(n, o)
    mapped = fit_adapter("procrustes", new, unit(old))(new)
    turned = new @ rotation[:d_new, :d_old]
    if value > 1e-3:  # else any rotation is as good
        score = (unit(new) @ rotation[:d_new, :d_old] * unit(old)).sum()
        weight = fit_adapter("procrustes", new, unit(old)).network_.linear.weight.numpy()
        assert (unit(new) @ weight.T * unit(old)).sum() == pytest.approx(score, rel=1e-4)
    assert mapped.shape == turned.shape


def test_procrustes_finds_a_rotation_and_the_scale_of_a_raw_space() -> None:
    rotation = np.linalg.qr(normal(6, 6, seed=4))[0]
    new = normal(50, 6)
    adapter = fit_adapter("procrustes", new, 3 * new @ rotation)
    np.testing.assert_allclose(adapter(new), 3 * new @ rotation, atol=1e-4)
    np.testing.assert_allclose(adapter.network_.linear.weight.numpy(), 3 * rotation.T, atol=1e-4)
    np.testing.assert_allclose(fit_adapter("procrustes", new, unit(new @ rotation))(new), unit(new @ rotation), atol=1e-5)


def test_the_scale_of_procrustes_is_that_of_least_squares() -> None:
    new, old = normal(50, 4), normal(50, 3, seed=1) + 1
    mapped = fit_adapter("procrustes", new, old)(new)
    errors = [((factor * mapped - old) ** 2).sum() for factor in (0.98, 1.0, 1.02)]
    assert errors[1] < min(errors[0], errors[2])


@given(d_new=st.integers(1, 6), d_old=st.integers(1, 6), strength=st.floats(1e-3, 10))
@settings(max_examples=30, deadline=None)
def test_ridge_is_the_normal_equations(d_new: int, d_old: int, strength: float) -> None:
    new, old = normal(33, d_new) + 2, normal(33, d_old, seed=1) - 1
    x, y = (new - new.mean(axis=0)).astype(float), (old - old.mean(axis=0)).astype(float)
    damping = strength * x.var(axis=0).mean() * len(x)
    weight = np.linalg.solve(x.T @ x + damping * np.eye(d_new), x.T @ y)
    mapped = fit_adapter("ridge", new, old, options={"strength": strength})(new)
    np.testing.assert_allclose(mapped, x @ weight + old.mean(axis=0), rtol=1e-3, atol=1e-4)


def test_ridge_chooses_more_strength_where_there_is_more_noise() -> None:
    new, signal = normal(60, 30), normal(30, 4, seed=1)
    clean, noise = new @ signal, normal(60, 4, seed=2)
    sizes = []
    for old in (clean, clean + 30 * noise):
        rows = torch.arange(60)
        loose = ridge(Pairs(new, old, rows, rows), strength=1e-8)[0]
        sizes.append(float(ridge(Pairs(new, old, rows, rows))[0].norm() / loose.norm()))
    assert sizes[1] < 0.7 < 0.99 < sizes[0]


def test_the_orthogonal_penalty_is_its_formula() -> None:
    for shape in ((3, 5), (5, 3)):
        weight = torch.from_numpy(normal(*shape)).double()
        gram = weight @ weight.T if shape[0] < shape[1] else weight.T @ weight
        distance = math.sqrt(sum((float(gram[i, j]) - (i == j)) ** 2 for i in range(3) for j in range(3)))
        expected = distance / (1 + math.exp(-2.0 * (distance - 1.5)))
        assert float(orthogonal_penalty(weight, 1.5, 2.0)) == pytest.approx(expected)
    identity = torch.eye(4, requires_grad=True)
    orthogonal_penalty(identity, 1.0, 10.0).backward()
    assert torch.isfinite(identity.grad).all()


def test_lambda_keeps_the_map_near_a_rotation() -> None:
    new, old, _ = system(6, 6)
    distances = []
    for threshold in (0.0, 100.0):
        network = fit_adapter("lambda-orthogonal", new, old, options={"threshold": threshold, "epochs": 60}).network_
        weight = network.linear.weight
        distances.append(float((weight @ weight.T - torch.eye(6)).norm()))
    assert distances[0] < 0.5 * distances[1]


@given(angle=st.floats(0.01, 3.1), weight=st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_slerp_is_its_formula(angle: float, weight: float) -> None:
    o, m = np.array([[2.0, 0.0]]), 3 * np.array([[math.cos(angle), math.sin(angle)]])
    length = 2 * (1 - weight) + 3 * weight
    expected = length * np.array([[math.cos(weight * angle), math.sin(weight * angle)]])
    np.testing.assert_allclose(slerp(o, m, weight), expected, atol=1e-6)


def test_slerp_of_parallel_and_opposite_vectors() -> None:
    o = normal(5, 4)
    for weight in (0.0, 0.3, 0.5, 1.0):
        np.testing.assert_allclose(slerp(o, 2 * o, weight), (1 + weight) * o, rtol=1e-5)
        np.testing.assert_allclose(slerp(o, -o, weight), o if weight < 0.5 else -o, rtol=1e-5)
    with pytest.raises(ConfigError, match=r"in \[0, 1\]; got 1.5"):
        slerp(o, o, 1.5)
    with pytest.raises(IncompatibleError, match="the same queries"):
        slerp(o, o[:3], 0.5)


@pytest.mark.parametrize("name", ADAPTERS)
@pytest.mark.parametrize(("d_new", "d_old"), [(7, 4), (4, 7)])
def test_any_dimensions_kinds_and_lengths(name: str, d_new: int, d_old: int) -> None:
    new, old, labels = system(d_new, d_old, rows=100)
    raw = fit_adapter(name, new, old, labels)
    assert raw(new).shape == (100, d_old)
    assert raw(new).dtype == np.float32
    half = fit_adapter(name, new.astype(np.float16), unit(old).astype(np.float16), labels)
    np.testing.assert_allclose(np.linalg.norm(half(new), axis=1), 1, atol=1e-5)
    tensors = fit_adapter(name, torch.from_numpy(new), torch.from_numpy(old), torch.from_numpy(labels))
    mapped = tensors(torch.from_numpy(new))
    assert isinstance(mapped, torch.Tensor)
    assert torch.equal(mapped, torch.from_numpy(raw(new)))  # the same seed, the same map


@pytest.mark.parametrize("name", ADAPTERS)
def test_what_nothing_can_be_fitted_to_is_refused(name: str) -> None:
    new, old, labels = system(3, 2, rows=12)
    assert np.isfinite(fit_adapter(name, new[:10], old[:10], labels[:10])(new)).all()
    with pytest.raises(DataError, match="9 pairs cannot tell one map from another; give 10"):
        fit_adapter(name, new[:9], old[:9], labels[:9])
    with pytest.raises(DataError, match="1 pair cannot"):
        fit_adapter(name, new[:1], old[:1], labels[:1])
    with pytest.raises(DataError, match="all 12 vectors of the new features are the same"):
        fit_adapter(name, np.ones_like(new), old, labels)
    with pytest.raises(DataError, match=r"12 of 12 vectors of the old features have length zero \(first: row 0 of"):
        fit_adapter(name, new, np.zeros_like(old), labels)
    new[7, 1] = np.nan
    with pytest.raises(DataError, match=r"1 of 12 vectors of the new features have NaN .*first: row 7"):
        fit_adapter(name, new, old, labels)


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_zero_vector_is_a_fault_only_where_directions_count(name: str) -> None:
    new, old, labels = system(3, 2, rows=20)
    old[4] = 0
    if ADAPTERS[name].needs_directions:
        with pytest.raises(DataError, match=rf"length zero \(first: row 4 of the old features\), and {name} compares"):
            fit_adapter(name, new, old, labels)
    else:
        assert np.isfinite(fit_adapter(name, new, old, labels)(new)).all()


@pytest.mark.parametrize("name", ["residual-mlp", "rbt", "head", "lambda-orthogonal"])
def test_every_parameter_is_trained(name: str) -> None:
    new, old, labels = system(6, 4, rows=100)
    options = {"hidden": 8} if name == "head" else {}
    short, long = (fit_adapter(name, new, old, labels, options={"epochs": n, **options}).network_ for n in (1, 4))
    moved = {key for key, value in short.named_parameters() if not torch.equal(value, long.get_parameter(key))}
    expected = {key for key, _ in short.named_parameters()} - ({"linear.bias"} if name == "lambda-orthogonal" else set())
    assert moved == expected
    assert len(expected) == {"residual-mlp": 6, "rbt": 10, "head": 6, "lambda-orthogonal": 1}[name]


def test_a_head_is_trained_by_any_loss() -> None:
    new, old, labels = system(6, 4, rows=100)
    seen = []

    def loss(features: torch.Tensor, classes: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        assert (classes.numpy() == labels[rows.numpy()]).all()
        seen.extend(rows.tolist())
        return (features - 5).square().mean()

    mapped = fit_adapter("head", new, old, labels, options={"loss": loss, "epochs": 60})(new)
    assert sorted(seen[:100]) == list(range(100))
    before = fit_adapter("ridge", new, old)(new)
    assert np.abs(mapped - 5).mean() < 0.9 * np.abs(before - 5).mean()


def test_a_curved_map_is_followed_where_ridge_cannot() -> None:
    new = normal(2000, 3)
    old = np.abs(new)
    straight, curved = fit_adapter("ridge", new, old), fit_adapter("residual-mlp", new, old, options={"epochs": 20})
    assert ((curved(new) - old) ** 2).mean() < 0.5 * ((straight(new) - old) ** 2).mean()


def test_the_cross_test_asks_with_mapped_queries_and_the_self_test_does_not() -> None:
    random = np.random.default_rng(1)
    labels, directions = np.arange(1200) % 12, random.normal(size=(12, 8))
    new = (random.normal(size=(12, 16))[labels] + 0.9 * random.normal(size=(1200, 16))).astype(np.float32)
    old = (directions[labels] + 1.2 * random.normal(size=(1200, 8))).astype(np.float32)
    old /= np.linalg.norm(old, axis=1, keepdims=True)
    train, test = slice(0, 800), slice(800, None)
    sets = [Features(rows[test], labels[test]) for rows in (old, new)]
    scores = {}
    for name in ("procrustes", "head"):
        adapter = fit_adapter(name, new[train], old[train], labels[train])
        scores[name] = compatibility(old_query=sets[0], old_gallery=sets[0], new_query=sets[1], adapter=adapter)
    plain = compatibility(old_query=sets[0], old_gallery=sets[0], new_query=sets[1])
    assert plain.cross.top1.value < 0.2  # spaces that share nothing
    for result in scores.values():
        assert result.cross.top1.value > 0.3
        assert (result.new_self, result.old_self) == (plain.new_self, plain.old_self)


def test_refusals() -> None:
    new, old, labels = system(6, 4, rows=30)
    for name in LABELLED:
        with pytest.raises(DataError, match=f"{name} needs the class of each of 30 rows"):
            fit_adapter(name, new, old)
    with pytest.raises(ConfigError, match="did you mean 'ridge'"):
        fit_adapter("rigde", new, old)
    with pytest.raises(ConfigError, match="ridge has no option 'epochs'; it has strength"):
        fit_adapter("ridge", new, old, options={"epochs": 3})
    with pytest.raises(IncompatibleError, match="30 new and 29 old"):
        fit_adapter("ridge", new, old[:29])
    adapter = fit_adapter("ridge", new, old)
    with pytest.raises(IncompatibleError, match="maps 6 dimensions, the new features have 4"):
        adapter(old)
    sets = Features(old, labels, space="a"), Features(new, labels, space="b")
    with pytest.raises(ConfigError, match="did you mean 'auto'"):
        fit_adapter("atuo", new, old)
    adapter.space_old = "c"
    with pytest.raises(IncompatibleError, match="space_old is 'c' and old_gallery is in space 'a'"):
        compatibility(old_query=sets[0], old_gallery=sets[0], new_query=sets[1], adapter=adapter)
    with pytest.raises(IncompatibleError, match=r"gives shape \(30, 6\) for 30 queries of a gallery of 4"):
        compatibility(old_query=sets[0], old_gallery=sets[0], new_query=sets[1], adapter=lambda rows: rows)


@pytest.mark.parametrize("name", ADAPTERS)
def test_the_file_gives_the_same_map(tmp_path: Path, name: str) -> None:
    new, old, labels = system(6, 4, rows=60)
    adapter = fit_adapter(name, new, unit(old), labels)
    adapter.space_new, adapter.space_old = "n@1", "o@2"
    save_adapter(adapter, tmp_path / "a.safetensors")
    again = load_adapter(tmp_path / "a.safetensors")
    assert (again(new) == adapter(new)).all()
    assert (again.method_, again.space_new, again.space_old) == (name, "n@1", "o@2")
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(DataError, match="there is no adapter"):
        load_adapter(path)
    torch.save({"a": torch.ones(2)}, path)
    with pytest.raises(FormatError, match="not a whole safetensors file"):
        load_adapter(path)
    save_adapter(fit_adapter("ridge", normal(30, 3), normal(30, 2)), path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(FormatError, match="not a whole safetensors file"):
        load_adapter(path)
