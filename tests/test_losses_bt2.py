"""BT² against the paper's way of making the embedding, and what the loss learns."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from compatlearn.errors import IncompatibleError
from compatlearn.losses import Bt2Loss, bt2_loss
from compatlearn.losses.literature.bt2 import fitting_dimension


def rotation(d: int, generator: torch.Generator) -> Tensor:
    return torch.linalg.qr(torch.randn(d, d, dtype=torch.float64, generator=generator))[0]


def cosine(a: list[float], b: list[float]) -> float:
    return float(np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))


@given(seed=st.integers(0, 999), d_old=st.integers(2, 5), d_star=st.integers(2, 6), k=st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_the_loss_is_that_of_an_embedding_made_as_in_the_paper(seed: int, d_old: int, d_star: int, k: int) -> None:
    k = min(max(k, d_old - d_star), d_old)
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, dtype=torch.float64, generator=generator)  # noqa: E731
    a, h, old, star, classifier = draw(3, k), draw(3, d_star), draw(3, d_old), draw(3, d_star), draw(4, d_old)
    first, second, labels = rotation(d_old, generator), rotation(d_star, generator), torch.tensor([1, 0, 3])
    embedding, expected = [], 0.0
    for i in range(3):
        z = second @ h[i]  # forward: R_p h, then R_o on the first d_old of (a, z)
        both = torch.cat([a[i], z])
        e = first @ both[:d_old]
        embedding.append(torch.cat([e, both[d_old:]]))
        logits = (classifier @ e).tolist()
        entropy = np.log(np.exp(logits).sum()) - logits[labels[i]]
        away, apart = 1 - cosine(h[i].tolist(), star[i].tolist()), 1 - cosine(e.tolist(), old[i].tolist())
        expected += (away + 10 * entropy + 5 * apart) / 3
    loss = bt2_loss(torch.stack(embedding), labels, old, star, classifier, first, second)
    assert loss.item() == pytest.approx(expected, rel=1e-9)


def cached() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(n, d, generator=generator) for n, d in ((40, 6), (40, 8), (4, 6)))  # type: ignore[return-value]


def test_both_turns_are_learned_and_stay_orthogonal() -> None:
    torch.manual_seed(0)
    old, star, classifier = cached()
    loss = Bt2Loss(old, star, F.normalize(classifier, dim=1))
    labels, rows = torch.arange(40) % 4, torch.arange(40)
    embedding = torch.nn.Parameter(torch.randn(40, 11))
    optimizer = torch.optim.SGD([embedding, *loss.parameters()], lr=0.05, momentum=0.9)
    values = []
    for _ in range(60):
        value = loss(embedding, labels, rows)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < values[0] - 3
    for turn in (loss.first.weight, loss.second.weight):
        assert isinstance(turn, Tensor)
        eye = torch.eye(len(turn))
        assert torch.allclose(turn @ turn.T, eye, atol=1e-4)
        assert not torch.allclose(turn, eye, atol=1e-2)
    assert torch.equal(loss.old, old)


def test_a_checkpoint_restores_the_value_and_holds_no_features() -> None:
    old, star, classifier = cached()
    loss, other = Bt2Loss(old, star, classifier), Bt2Loss(old, star, classifier)
    with torch.no_grad():
        loss.first.parametrizations.weight.original.add_(torch.randn(6, 6))  # type: ignore[union-attr, operator]
    batch = torch.randn(5, 11), torch.tensor([0, 1, 2, 3, 0]), torch.tensor([3, 1, 4, 15, 9])
    assert loss(*batch) != other(*batch)
    state = loss.state_dict()
    assert not {"old", "independent"} & set(state)
    other.load_state_dict(state)
    assert loss(*batch) == other(*batch)


def test_autocast_changes_nothing() -> None:
    old, star, classifier = cached()
    loss = Bt2Loss(old, star, classifier)
    batch = torch.randn(5, 11), torch.tensor([0, 1, 2, 3, 0]), torch.arange(5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert loss(*batch).item() == pytest.approx(loss(*batch).item())
        inside = loss(*batch).item()
    assert inside == loss(*batch).item()


@pytest.mark.parametrize(("d", "d_old", "d_star"), [(8, 6, 8), (5, 6, 4), (12, 3, 8)])
def test_an_embedding_without_room_for_both_is_refused_with_one_that_fits(d: int, d_old: int, d_star: int) -> None:
    classifier = torch.randn(2, d_old)
    loss = Bt2Loss(torch.randn(4, d_old), torch.randn(4, d_star), classifier)
    labels, rows = torch.tensor([0, 1]), torch.tensor([0, 1])
    fitting = fitting_dimension(d_old, d_star)
    with pytest.raises(IncompatibleError, match=f"got {d}: pass --dimension {fitting}$"):
        loss(torch.randn(2, d), labels, rows)
    assert torch.isfinite(loss(torch.randn(2, fitting), labels, rows))


def test_features_of_other_rows_are_refused() -> None:
    with pytest.raises(IncompatibleError, match="4 old and 5 independent features"):
        Bt2Loss(torch.randn(4, 3), torch.randn(5, 3), torch.randn(2, 3))


def test_features_are_looked_up_by_row() -> None:
    old, star, classifier = cached()
    loss = Bt2Loss(old, star, classifier)
    batch, labels, rows = torch.randn(5, 11), torch.tensor([0, 1, 2, 3, 0]), torch.tensor([39, 1, 4, 15, 9])
    expected = bt2_loss(batch, labels, old[rows], star[rows], classifier, torch.eye(6), torch.eye(8))
    torch.testing.assert_close(loss(batch, labels, rows), expected)
    torch.testing.assert_close(loss(batch.double(), labels, rows).float(), expected)


def test_in_cosine_mode_the_length_of_the_embedding_plays_no_part() -> None:
    old, star, classifier = cached()
    loss = Bt2Loss(old, star, classifier, scale=16.0)
    batch, labels, rows = torch.randn(5, 11), torch.tensor([0, 1, 2, 3, 0]), torch.arange(5)
    torch.testing.assert_close(loss(3 * batch, labels, rows), loss(batch, labels, rows))
    raw = Bt2Loss(old, star, classifier)
    assert not torch.isclose(raw(3 * batch, labels, rows), raw(batch, labels, rows))
