"""The neighbour and instance losses against loops, their pitfalls, and what they are for."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compatlearn.errors import ConfigError, DataError, IncompatibleError
from compatlearn.losses import NeighbourLoss, instance_loss, neighbour_loss


def drawn(seed: int, batch: int, old: int, dimension: int, classes: int) -> tuple[torch.Tensor, ...]:
    """float64 (b, d + 2) features, (b,) labels, (m, d) old features, (m,) labels, (b, m) own rows."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(batch, dimension + 2, generator=generator, dtype=torch.float64)
    vectors = torch.randn(old, dimension, generator=generator, dtype=torch.float64)
    labels, known = (torch.randint(classes, (count,), generator=generator) for count in (batch, old))
    return features, labels, vectors, known, torch.rand(batch, old, generator=generator) < 0.1


def slow(features: torch.Tensor, labels: torch.Tensor, old: torch.Tensor, known: torch.Tensor, own: torch.Tensor) -> float:
    """−log Σ_{same} e^{−d²/τ} / Σ_{all} e^{−d²/τ} with τ = 2, as it is written."""
    losses = []
    for i, feature in enumerate(features.tolist()):
        same = total = 0.0
        for j, other in enumerate(old.tolist()):
            if own[i, j]:
                continue
            closeness = math.exp(-sum((a - b) ** 2 for a, b in zip(feature, other, strict=False)) / 2)
            total += closeness
            same += closeness if labels[i] == known[j] else 0
        if same:
            losses.append(-math.log(same / total))
    return sum(losses) / len(losses) if losses else 0.0


@given(seed=st.integers(0, 999), batch=st.integers(1, 5), old=st.integers(1, 9), d=st.integers(1, 4), classes=st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_the_loss_is_its_formula(seed: int, batch: int, old: int, d: int, classes: int) -> None:
    features, labels, vectors, known, own = drawn(seed, batch, old, d, classes)
    loss = neighbour_loss(features, labels, vectors, known, temperature=2.0, own=own)
    assert loss.item() == pytest.approx(slow(features, labels, vectors, known, own), abs=1e-9)


def test_the_instance_loss_is_that_of_a_class_of_one() -> None:
    features, _, vectors, _, _ = drawn(0, 4, 7, 3, 1)
    own = torch.arange(4)[:, None] == torch.arange(7)
    expected = neighbour_loss(features, torch.arange(4), vectors, torch.arange(7), temperature=2.0)
    assert instance_loss(features, vectors[:4], vectors, temperature=2.0, own=own).item() == pytest.approx(expected.item())


def test_images_without_a_neighbour_of_their_class_cost_nothing_and_give_no_nan() -> None:
    features, _, vectors, _, _ = drawn(1, 3, 6, 2, 1)
    features.requires_grad_()
    known = torch.zeros(6, dtype=torch.int64)
    some = neighbour_loss(features, torch.tensor([0, 5, 0]), vectors, known, temperature=0.01)
    none = neighbour_loss(features, torch.tensor([5, 5, 5]), vectors, known, temperature=0.01)
    (some + none).backward()
    assert none.item() == 0
    assert features.grad is not None
    assert features.grad.isfinite().all()


def test_a_feature_that_was_right_and_one_that_was_not() -> None:
    old, known = torch.tensor([[0.0, 0.0], [4.0, 0.0]]), torch.tensor([0, 1])
    near, far = (neighbour_loss(torch.tensor([[x, 0.0]]), torch.tensor([0]), old, known, temperature=1.0) for x in (0.0, 4.0))
    assert near < 1e-6
    assert far.item() == pytest.approx(16, abs=1e-3)


def test_half_precision_is_computed_in_single() -> None:
    features, labels, vectors, known, own = drawn(2, 4, 8, 3, 2)
    half = neighbour_loss(features.bfloat16(), labels, vectors.float(), known, temperature=0.01, own=own)
    full = neighbour_loss(features.bfloat16().float(), labels, vectors.float(), known, temperature=0.01, own=own)
    assert half.dtype == torch.float32
    assert half.item() == full.item()


def test_a_sample_of_all_is_exact_and_leaves_the_own_row_out() -> None:
    features, labels, _, _, _ = drawn(3, 5, 1, 3, 2)
    old = torch.randn(9, 3, generator=torch.Generator().manual_seed(4))
    known, rows = torch.arange(9) % 2, torch.tensor([0, 3, 8, 1, 2])
    loss = NeighbourLoss(old, known, temperature=0.5, sample=100)
    expected = neighbour_loss(
        features.float(),
        labels,
        old,
        known,
        temperature=0.5 * old.square().sum(dim=1).mean().item(),
        own=rows[:, None] == torch.arange(9),
    )
    assert loss(features.float(), labels, rows).item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_sample_estimates_the_whole_and_is_drawn_anew() -> None:
    generator = torch.Generator().manual_seed(5)
    old, known = torch.randn(4000, 4, generator=generator), torch.arange(4000) % 5
    features, labels, rows = torch.randn(8, 4, generator=generator), torch.arange(8) % 5, torch.arange(8)
    whole = NeighbourLoss(old, known, sample=4000)(features, labels, rows).item()
    torch.manual_seed(0)
    parts = [NeighbourLoss(old, known, sample=800)(features, labels, rows).item() for _ in range(20)]
    assert len(set(parts)) == 20
    assert np.mean(parts) == pytest.approx(whole, rel=0.05)


def test_every_class_has_room_in_the_sample() -> None:
    assert NeighbourLoss(torch.randn(5000, 2), torch.arange(5000) % 1000, sample=10).sample == 4000


def test_unit_spaces_see_directions_only() -> None:
    old = torch.nn.functional.normalize(torch.randn(9, 3, generator=torch.Generator().manual_seed(6)), dim=1)
    features, labels, rows = torch.randn(4, 3), torch.tensor([0, 1, 0, 1]), torch.arange(4)
    loss = NeighbourLoss(old, torch.arange(9) % 2, unit=True, instance=0.5)
    assert loss(7 * features, labels, rows).item() == pytest.approx(loss(features, labels, rows).item(), rel=1e-5)


def test_the_gradient_is_that_of_differences() -> None:
    features, labels, vectors, known, own = drawn(7, 3, 6, 2, 2)
    own[:] = False
    features.requires_grad_()

    def loss(values: torch.Tensor) -> torch.Tensor:
        return neighbour_loss(values, labels, vectors, known, temperature=1.5) + instance_loss(
            values, vectors[:3], vectors, temperature=1.5
        )

    assert torch.autograd.gradcheck(loss, (features,))


def test_refusals() -> None:
    old, known = torch.randn(4, 3), torch.tensor([0, 1, 0, 1])
    with pytest.raises(ConfigError, match="temperature must be above 0"):
        NeighbourLoss(old, known, temperature=0.0)
    with pytest.raises(ConfigError, match="without labels"):
        NeighbourLoss(old, None)
    with pytest.raises(DataError, match="NaN"):
        NeighbourLoss(old.clone().fill_(math.nan), known)
    with pytest.raises(IncompatibleError, match="dimension=3"):
        NeighbourLoss(old, known)(torch.randn(2, 2), known[:2], torch.arange(2))


def test_unit_spaces_have_a_temperature_of_their_own() -> None:
    old = torch.nn.functional.normalize(torch.randn(20, 4), dim=1)
    labels = torch.arange(20) % 3
    assert NeighbourLoss(old, labels).temperature == pytest.approx(0.2)
    assert NeighbourLoss(old, labels, unit=True).temperature == pytest.approx(0.1)
    assert NeighbourLoss(old, labels, unit=True, temperature=0.3).temperature == pytest.approx(0.3)
