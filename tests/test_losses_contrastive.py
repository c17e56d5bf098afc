"""Losses that look across the batch or into the cache, against slow references."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from compatlearn import ConfigError, DataError
from compatlearn.losses import (
    AsymmetricLoss,
    NcclLoss,
    RactLoss,
    asymmetric_contrastive_loss,
    asymmetric_triplet_loss,
    nccl_loss,
)
from compatlearn.losses.literature.nccl import class_entropy, sure_rows

PARTS = [asymmetric_contrastive_loss, asymmetric_triplet_loss]


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(a @ b / a.norm() / b.norm())


def mean(values: list[float]) -> float:
    return sum(values) / max(1, len(values))


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a / a.norm() - b / b.norm()).norm())


def slow_negatives(feature, label: int, old, labels, count: int) -> list[float]:
    """Distances to the nearest rows of the nearest other classes."""
    found: dict[int, float] = {}
    for row, other in zip(old, labels.tolist(), strict=True):
        if other != label:
            found[other] = min(found.get(other, math.inf), distance(feature, row))
    return sorted(found.values())[:count]


def slow_contrastive(features, old, labels, count=5) -> float:
    near, far = [], []
    for i in range(len(features)):
        near += [distance(features[i], old[j]) ** 2 / 2 for j in range(len(old)) if labels[i] == labels[j] and i != j]
        negatives = slow_negatives(features[i], int(labels[i]), old, labels, count)
        far += [sum(max(0.0, 0.7 - each) ** 2 / 2 for each in negatives)] if negatives else []
    return mean(near) + mean(far)


def slow_triplet(features, old, labels, count=5) -> float:
    sums = []
    for i in range(len(features)):
        negatives = slow_negatives(features[i], int(labels[i]), old, labels, count)
        for p in range(len(features)):
            if labels[i] == labels[p] and i != p:
                near = distance(features[i], old[p]) ** 2
                sums.append(sum(max(0.0, near - each**2 + 0.1) for each in negatives))
    return mean(sums)


@pytest.mark.parametrize(("loss", "slow"), [(PARTS[0], slow_contrastive), (PARTS[1], slow_triplet)])
@settings(max_examples=15, deadline=None)
@given(count=st.integers(1, 12), classes=st.integers(1, 9), seed=st.integers(0, 99))
def test_asymmetric_losses(loss, slow, count: int, classes: int, seed: int) -> None:
    features, old = numbers(count, 3, seed=seed), numbers(count, 3, seed=seed + 1)
    labels = torch.randint(0, classes, (count,), generator=torch.Generator().manual_seed(seed))
    assert loss(features, old, labels).item() == pytest.approx(slow(features, old, labels))
    module = AsymmetricLoss(old.flip(0), loss)
    value = module(torch.nn.functional.pad(features, (0, 2)), labels, torch.arange(count).flip(0))
    assert value.item() == pytest.approx(slow(features, old, labels))
    assert loss(features, old, labels, negatives=2).item() == pytest.approx(slow(features, old, labels, count=2))


def test_a_new_feature_at_an_old_one_has_a_gradient() -> None:
    old = numbers(4, 3).float()
    features = old.clone().requires_grad_()
    asymmetric_contrastive_loss(features, old.flip(0), torch.tensor([0, 1, 2, 3])).backward()
    assert torch.isfinite(features.grad).all()


@pytest.mark.parametrize("loss", PARTS)
@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2]], ids=["one class", "no positive"])
def test_asymmetric_losses_where_pairs_are_missing(loss, labels: list[int]) -> None:
    features = numbers(3, 4).requires_grad_()
    loss(features, numbers(3, 4, seed=1), torch.tensor(labels)).backward()
    assert torch.isfinite(features.grad).all()


def test_losses_of_pytorch_metric_learning_take_old_features_as_references() -> None:
    library = pytest.importorskip("pytorch_metric_learning.losses")
    from compatlearn.training.knowledge import OldKnowledge
    from compatlearn.training.methods import find_method, find_methods

    old, labels, rows = numbers(20, 4, seed=1).float(), np.arange(20) % 3, torch.tensor([0, 3, 4, 8, 12])
    features = numbers(5, 6).float().requires_grad_()
    for name in ("TripletMarginLoss", "ContrastiveLoss", "MultiSimilarityLoss"):
        assert find_methods(f"l2, pml:{name}") == ["l2", f"pml:{name}"]
        method = find_method(f"pml:{name}")
        assert method.metric == "cosine"
        value = method.loss(OldKnowledge(old, labels, 3))(features, torch.from_numpy(labels)[rows], rows)
        y = torch.from_numpy(labels)[rows]
        torch.testing.assert_close(value, getattr(library, name)()(features[:, :4], y, ref_emb=old[rows], ref_labels=y))
        assert torch.autograd.grad(value, features)[0].abs().sum() > 0
    with pytest.raises(ConfigError, match="did you mean 'TripletMarginLoss'"):
        find_methods("pml:TripletMarginLos")
    with pytest.raises(ConfigError, match="'pml:ArcFaceLoss' cannot be made without arguments"):
        find_methods("pml:ArcFaceLoss")


def slow_ract(features, labels, old, cache, cache_labels, temperature) -> float:
    total = 0.0
    for i in range(len(features)):
        others = sorted(cosine(features[i], o) for o, y in zip(cache, cache_labels, strict=True) if y != labels[i])[-10:]
        others += [cosine(features[i], features[k]) for k in range(len(features)) if labels[k] != labels[i]]
        own = cosine(features[i], old[i])
        total += math.log(sum(math.exp((value - own) / temperature) for value in [own, *others]))
    return total / len(features)


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 5), rows=st.integers(9, 150), classes=st.integers(1, 7), seed=st.integers(0, 99))
@example(count=3, rows=500, classes=2, seed=1)  # more groups of its own class than are looked into
@example(count=3, rows=500, classes=60, seed=1)  # more groups of others
def test_ract_finds_the_hardest_of_the_whole_cache(count: int, rows: int, classes: int, seed: int) -> None:
    cache_labels = np.random.default_rng(seed).integers(0, classes, rows)
    cache = numbers(rows, 4, seed=seed) + 2 * numbers(classes, 4, seed=seed + 2)[torch.from_numpy(cache_labels)]
    chosen = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))[:count]
    features, labels = numbers(count, 6, seed=seed + 1), torch.from_numpy(cache_labels)[chosen]
    features[:, :4] += cache[chosen]
    loss = RactLoss(cache, cache_labels, temperature=0.5)(features, labels, chosen)
    slow = slow_ract(features[:, :4], labels, cache[chosen], cache, cache_labels, 0.5)
    assert loss.item() == pytest.approx(slow)


def test_ract_in_half_precision_at_its_temperature() -> None:
    cache, labels = numbers(60, 4).float(), np.arange(60) % 3
    rows = torch.arange(7)
    for dtype in (torch.float16, torch.bfloat16):
        features = (40 * numbers(7, 4, seed=1)).to(dtype).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            loss = RactLoss(cache, labels)(features, rows % 3, rows)
        loss.backward()
        assert loss.dtype == torch.float32
        exact = slow_ract(features.detach().double(), rows % 3, cache[rows].double(), cache.double(), labels, 0.01)
        assert loss.item() == pytest.approx(exact, rel=1e-4)
        assert torch.isfinite(features.grad).all()


def test_ract_with_one_class_has_nothing_to_tell_apart() -> None:
    cache = numbers(30, 4)
    features = numbers(5, 4, seed=1).requires_grad_()
    loss = RactLoss(cache, np.zeros(30, int))(features, torch.zeros(5, dtype=torch.long), torch.arange(5))
    loss.backward()
    assert loss.item() == 0
    assert (features.grad == 0).all()


def test_ract_pulls_through_the_batch_as_well() -> None:
    """A feature that is no anchor of its own still has the gradient of those it is a negative of."""
    cache, labels, rows = numbers(8, 4), np.arange(8) % 2, torch.arange(8)
    features = numbers(8, 4, seed=2).requires_grad_()
    whole = torch.autograd.grad(RactLoss(cache, labels, temperature=0.5)(features, rows % 2, rows), features)[0]
    direction, step = numbers(8, 4, seed=3), 1e-6
    with torch.no_grad():
        up, down = (
            RactLoss(cache, labels, temperature=0.5)(features + sign * step * direction, rows % 2, rows) for sign in (1, -1)
        )
    assert (whole * direction).sum().item() == pytest.approx(((up - down) / (2 * step)).item(), rel=1e-5)


def slow_consensus(features, labels, old, memory, memory_labels, temperature) -> float:
    values = []
    for f, o, y in zip(features, old, labels, strict=True):
        total = sum(math.exp(cosine(f, m) / temperature) for m in memory)
        near = [m for m, z in zip(memory, memory_labels, strict=True) if z == y]
        weights = [(cosine(o, m) + 1) / 2 for m in near]
        if near:
            logs = [math.log(math.exp(cosine(f, m) / temperature) / total) for m in near]
            values.append(-sum(w * log for w, log in zip(weights, logs, strict=True)) / sum(weights))
    return mean(values)


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 6), size=st.integers(1, 30), classes=st.integers(1, 5), seed=st.integers(0, 99))
def test_consensus(count: int, size: int, classes: int, seed: int) -> None:
    features, old, memory = (numbers(n, 4, seed=seed + n) for n in (count, count + 50, size))
    old = old[:count]
    labels, memory_labels = torch.arange(count) % classes, torch.arange(size) % classes + 1
    unit = torch.nn.functional.normalize(memory, dim=1)
    value = nccl_loss(features, labels, old, unit, memory_labels, temperature=0.3)
    assert value.item() == pytest.approx(slow_consensus(features, labels, old, memory, memory_labels, 0.3))


def test_entropy_filter_leaves_out_the_least_sure_tenth() -> None:
    centres = torch.eye(3, dtype=torch.float64)
    vectors = torch.cat([centres.repeat(6, 1), torch.ones(2, 3, dtype=torch.float64)])
    entropy = class_entropy(vectors, centres, temperature=0.5)
    p = [math.exp(2), 1.0, 1.0]
    assert entropy[0].item() == pytest.approx(-sum(v / sum(p) * math.log(v / sum(p)) for v in p))
    assert entropy[-1].item() == pytest.approx(math.log(3))
    assert sure_rows(entropy).tolist() == list(range(18))


def test_consensus_loss_draws_from_the_whole_cache_and_goes_on_after_a_checkpoint() -> None:
    cache, labels, rows = numbers(50, 4), np.arange(50) % 3, torch.tensor([1, 8, 30])
    features = numbers(3, 6, seed=1)
    whole = NcclLoss(cache, labels)
    unit = torch.nn.functional.normalize(cache, dim=1)
    kept = whole.kept
    assert len(kept) == 45
    expected = nccl_loss(features[:, :4], rows % 3, cache[rows], unit[kept], torch.from_numpy(labels)[kept])
    torch.testing.assert_close(whole(features, rows % 3, rows), expected)
    sampled, resumed = NcclLoss(cache, labels, sample=20), NcclLoss(cache, labels, sample=20)
    values = [sampled(features, rows % 3, rows).item() for _ in range(3)]
    assert len(set(values)) == 3
    resumed(features, rows % 3, rows)
    state = resumed.state_dict()
    assert set(state) == {"batches"}
    resumed = NcclLoss(cache, labels, sample=20)
    resumed.load_state_dict(state)
    assert resumed(features, rows % 3, rows).item() == values[1]


def test_directions_need_a_length() -> None:
    cache = numbers(6, 4)
    cache[2] = 0
    for make in (lambda: RactLoss(cache, np.arange(6) % 2), lambda: AsymmetricLoss(cache, PARTS[0])):
        with pytest.raises(DataError, match=r"1 of 6 rows of old features have length zero \(first: 2\)"):
            make()
    with pytest.raises(ConfigError, match="temperature must be above 0"):
        NcclLoss(numbers(6, 4), np.arange(6) % 2, temperature=0.0)
