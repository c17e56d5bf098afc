"""The ranking loss against loops, its pitfalls, and what it is for."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compatlearn import search
from compatlearn.adapters.adapter import fit_adapter
from compatlearn.errors import ConfigError, IncompatibleError
from compatlearn.losses import RankingLoss, instance_loss, ranking_loss


def drawn(seed: int, batch: int, items: int) -> tuple[torch.Tensor, ...]:
    """float64 (b, 5) mapped queries, (m, 3) old, (b, 4) and (m, 4) new features, (b, m) own rows."""
    generator = torch.Generator().manual_seed(seed)
    shapes = (batch, 5), (items, 3), (batch, 4), (items, 4)
    tensors = [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]
    return *tensors, torch.rand(batch, items, generator=generator) < 0.2


def slow(mapped: list, old: list, new: list, others: list, own: list) -> float:  # type: ignore[type-arg]
    """−Σ_j p_ij log q_ij as it is written, τ = 2 and τ_new = 3; a query with no other item adds nothing."""
    total = 0.0
    for i in range(len(mapped)):
        rest = [j for j in range(len(old)) if not own[i][j]]
        p = [math.exp(-sum((a - b) ** 2 for a, b in zip(new[i], others[j], strict=True)) / 3) for j in rest]
        q = [math.exp(-sum((a - b) ** 2 for a, b in zip(mapped[i], old[j], strict=False)) / 2) for j in rest]
        total -= sum(x / sum(p) * math.log(y / sum(q)) for x, y in zip(p, q, strict=True))
    return total / len(mapped)


@given(seed=st.integers(0, 999), batch=st.integers(1, 5), items=st.integers(1, 8))
@settings(max_examples=60, deadline=None)
def test_the_loss_is_its_formula(seed: int, batch: int, items: int) -> None:
    mapped, old, new, others, own = drawn(seed, batch, items)
    loss = ranking_loss(mapped, old, new, others, temperature=2.0, new_temperature=3.0, own=own)
    assert loss.item() == pytest.approx(slow(*(each.tolist() for each in (mapped, old, new, others, own))), abs=1e-9)


def test_the_same_ranking_is_the_minimum_and_gives_no_gradient() -> None:
    _, _, new, others, own = drawn(0, 4, 8)
    rotation = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))[0]
    old, mapped = others @ rotation + 5, (new @ rotation + 5).requires_grad_()  # an old space that is the new one, turned

    def loss(query: torch.Tensor) -> torch.Tensor:
        return ranking_loss(query, old, new, others, temperature=3.0, new_temperature=3.0, own=own)

    here = loss(mapped)
    here.backward()
    assert mapped.grad is not None
    assert mapped.grad.abs().max() < 1e-12
    assert all(loss(mapped.detach() + 0.1 * torch.randn_like(new)) > here for _ in range(10))


def test_queries_that_are_alone_give_no_nan() -> None:
    mapped, old, new, others, _ = drawn(2, 3, 1)
    mapped.requires_grad_()
    own = torch.tensor([[True], [False], [True]])
    loss = ranking_loss(mapped, old, new, others, temperature=1e-3, new_temperature=1e-3, own=own)
    loss.backward()
    assert loss.item() == 0  # one other item: it is drawn for sure
    assert mapped.grad is not None
    assert torch.isfinite(mapped.grad).all()


def test_the_module_is_both_losses_over_all_items_without_the_own() -> None:
    generator = torch.Generator().manual_seed(3)
    new, old, mapped = (torch.randn(n, d, generator=generator) for n, d in ((9, 4), (9, 3), (2, 3)))
    rows = torch.tensor([7, 2])
    loss = RankingLoss(new, old, instance=0.5)
    temperature, sharpness = 0.2 * float(old.square().sum(1).mean()), 0.1 * float((new - new.mean(0)).square().sum(1).mean())
    own = rows[:, None] == torch.arange(9)
    expected = ranking_loss(mapped, old, new[rows], new, temperature=temperature, new_temperature=sharpness, own=own)
    expected = expected + 0.5 * instance_loss(mapped, old[rows], old, temperature=temperature, own=own)
    assert loss(mapped, rows, rows).item() == pytest.approx(expected.item(), rel=1e-5)
    assert not loss.state_dict()  # nothing of the cache in a checkpoint


def test_refusals() -> None:
    with pytest.raises(IncompatibleError, match="9 new and 8 old features"):
        RankingLoss(torch.randn(9, 4), torch.randn(8, 3))
    with pytest.raises(ConfigError, match=r"instance must be 0 or more.*got -1"):
        RankingLoss(torch.randn(9, 4), torch.randn(9, 3), instance=-1.0)
    with pytest.raises(IncompatibleError, match="have 3 dimensions"):
        RankingLoss(torch.randn(9, 4), torch.randn(9, 3))(torch.randn(2, 2), torch.arange(2), torch.arange(2))


def test_it_carries_over_to_other_classes_without_a_label() -> None:
    """Classes that nobody trained on: the new model tells them apart, the old one hardly."""
    random = np.random.default_rng(0)
    labels = np.arange(3000) % 60
    new = 2 * random.normal(size=(60, 16))[labels] + random.normal(size=(3000, 16))
    old = np.maximum(new @ random.normal(size=(16, 8)) / 4 + 1.5 * random.normal(size=(3000, 8)), 0)
    new, old = new.astype(np.float32), old.astype(np.float32)
    known, truth = labels < 40, labels[labels >= 40]

    def accuracy(queries: np.ndarray) -> float:
        nearest = search(queries, old[~known], 1, exclude_self=True).indices[:, 0]
        return float((truth[nearest] == truth).mean())

    mapped = fit_adapter("ranking-head", new[known], old[known])(new[~known])
    assert accuracy(mapped) > accuracy(old[~known]) + 0.1
