"""Losses about the classes of the old space (LCE, MixBCT, AdvBCT, UniBCT) against slow references."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compatlearn import ConfigError, DataError, influence_loss, random_walk_classifier
from compatlearn.losses import AdvbctLoss, LceLoss, MixbctLoss, UnibctLoss, lce_loss, mixbct_loss, unibct_classifier
from compatlearn.losses.literature.advbct import advbct_loss, reverse_gradient
from compatlearn.losses.literature.boundaries import credible_rows, least_cosines, radii
from compatlearn.losses.literature.mixbct import mixture

ROWS, CLASSES = 40, 3
LABELS = np.arange(ROWS) % CLASSES


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cache() -> torch.Tensor:
    """(40, 4) old features around one direction a class."""
    return 2 * numbers(CLASSES, 4, seed=5)[torch.from_numpy(LABELS)] + numbers(ROWS, 4, seed=6)


def unit(rows: torch.Tensor) -> torch.Tensor:
    return rows / rows.square().sum(dim=-1, keepdim=True).sqrt()


def batch(seed: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rows = torch.tensor([0, 7, 8, 20, 29, 39, 13])
    return numbers(7, 6, seed=seed), torch.from_numpy(LABELS)[rows], rows


def slow_farthest(values: list[float]) -> float:
    low, high = np.quantile(values, [0.25, 0.75])
    return max(value for value in values if value <= high + 1.5 * (high - low))


def test_boundaries_are_those_of_the_farthest_row_that_is_no_outlier() -> None:
    rows, labels = unit(cache()), torch.from_numpy(LABELS)
    rows[0] = -unit(sum(rows[i] for i in range(3, ROWS, 3)))  # opposite to its class
    centres = torch.stack([rows[labels == c].mean(dim=0) for c in range(CLASSES)])
    cosines, reach = least_cosines(rows, labels, centres), radii(rows, labels, centres)
    for c in range(CLASSES):
        members = [row for row, label in zip(rows, LABELS, strict=True) if label == c]
        assert cosines[c].item() == pytest.approx(-slow_farthest([-float(m @ unit(centres[c])) for m in members]))
        assert reach[c].item() == pytest.approx(slow_farthest([float((m - centres[c]).norm()) for m in members]))
    assert cosines[0] > rows[0] @ unit(centres[0])


def test_credible_rows_are_the_nearest_nine_tenths() -> None:
    rows, labels = cache(), torch.from_numpy(LABELS)
    centres = torch.stack([rows[labels == c].mean(dim=0) for c in range(CLASSES)])
    credible = credible_rows(rows, labels, centres)
    for c in range(CLASSES):
        distances = sorted((float((rows[i] - centres[c]).norm()), i) for i in range(ROWS) if LABELS[i] == c)
        nearest = {i for _, i in distances[: int(0.9 * len(distances))]}
        assert {i for i in range(ROWS) if LABELS[i] == c and credible[i]} == nearest
    assert credible_rows(rows[:3], labels[:3], centres).all()  # one a class: nobody else speaks for it


def test_lce() -> None:
    features, labels, rows = batch()
    loss = LceLoss(cache(), LABELS, CLASSES)
    centres = unit(torch.stack([unit(cache())[c == LABELS].mean(dim=0) for c in range(CLASSES)]))
    torch.testing.assert_close(loss.centres, centres)
    classifier = numbers(CLASSES, 4, seed=9)
    with torch.no_grad():
        loss.classifier.copy_(classifier)
    slow = influence_loss(features, labels, classifier).item()
    slow += 100 * sum((unit(classifier)[c, j] - centres[c, j]).item() ** 2 for c in range(CLASSES) for j in range(4)) / 12
    for f, y in zip(features[:, :4], labels.tolist(), strict=True):
        slow += max(0.0, float(loss.boundaries[y] - unit(f) @ centres[y])) / 7
    assert loss(features, labels, rows).item() == pytest.approx(slow)
    assert set(loss.state_dict()) == {"classifier", "centres", "boundaries"}


def test_lce_in_cosine_mode_sees_directions_only() -> None:
    features, labels, _ = batch()
    loss = LceLoss(cache(), LABELS, CLASSES, scale=16.0)
    torch.testing.assert_close(loss(3 * features, labels), loss(features, labels))
    assert lce_loss(features, labels, loss.classifier, loss.centres, loss.boundaries) != loss(features, labels)


@settings(max_examples=25, deadline=None)
@given(margin=st.floats(0.0, 1.0), seed=st.integers(0, 99))
def test_margin_softmax(margin: float, seed: int) -> None:
    features, classifier, labels = numbers(5, 3, seed=seed), numbers(4, 3, seed=seed + 1), torch.tensor([0, 3, 1, 1, 2])
    slow = 0.0
    for f, y in zip(unit(features), labels.tolist(), strict=True):
        logits = [8 * float(f @ row) for row in unit(classifier)]
        angle = math.acos(logits[y] / 8)
        beyond = angle + margin >= math.pi
        logits[y] = 8 * (math.cos(angle) - margin * math.sin(margin) if beyond else math.cos(angle + margin))
        slow += (math.log(sum(map(math.exp, logits))) - logits[y]) / 5
    value = mixbct_loss(features, labels, classifier, scale=8.0, margin=margin)
    assert value.item() == pytest.approx(slow, rel=1e-4)
    longer = mixbct_loss(7 * features, labels, 0.3 * classifier, scale=8.0, margin=margin)
    assert longer.item() == pytest.approx(value.item())


def test_margin_softmax_has_a_gradient_at_its_classifier_itself() -> None:
    classifier = numbers(3, 4).float()
    features = classifier.clone().requires_grad_()
    mixbct_loss(features, torch.arange(3), classifier).backward()
    assert torch.isfinite(features.grad).all()


def test_the_mixture_has_one_length_and_its_old_rows_are_fixed() -> None:
    features, old = 9 * numbers(6, 4), 0.2 * numbers(6, 4, seed=1)
    replaced = torch.tensor([True, False, False, True, False, False])
    features.requires_grad_()
    mixed = mixture(features, old, replaced)
    torch.testing.assert_close(mixed.norm(dim=1), torch.ones(6, dtype=torch.float64))
    torch.testing.assert_close(mixed[replaced], unit(old[replaced]))
    mixed[:, 0].sum().backward()
    assert ((features.grad != 0).any(dim=1) == ~replaced).all()


def test_mixbct_replaces_a_share_of_the_batch_by_credible_rows() -> None:
    loss = MixbctLoss(cache(), LABELS, CLASSES)
    rows = torch.randperm(ROWS, generator=torch.Generator().manual_seed(0))[:23]
    drawn = []
    for _ in range(20):
        replaced = loss.replaced(rows)
        assert replaced.sum() == 6  # ⌊0.3 · 23⌋
        assert loss.credible[rows[replaced]].all()
        drawn.append(replaced)
        features, labels = numbers(23, 6), torch.from_numpy(LABELS)[rows]
        mixed = torch.stack(
            [unit(cache())[r] if one else unit(f[:4]) for one, r, f in zip(replaced, rows, features, strict=True)]
        )
        torch.testing.assert_close(loss(features, labels, rows), mixbct_loss(mixed, labels, loss.classifier))
    assert (torch.stack(drawn).any(dim=0) == loss.credible[rows]).all()  # every credible one has its turn
    assert not loss.credible.all()
    loss.credible.zero_()
    assert not loss.replaced(rows).any()


def test_boundaries_reach_from_their_radius_to_the_mean_radius() -> None:
    features, labels, _ = batch()
    centres, radius, elastic = 0.5 * numbers(CLASSES, 4), torch.tensor([0.5, 1.6, 1.2]).double(), numbers(CLASSES, seed=3)
    mean, outside = radius.mean().item(), []
    for f, y in zip(features[:, :4], labels.tolist(), strict=True):
        r, way = radius[y].item(), 1 / (1 + math.exp(-elastic[y]))
        reach = r + abs(r - mean) * way if r < mean else r - abs(r - mean) * way
        distance = float((unit(f) - centres[y]).norm())
        outside += [distance - reach] if distance > reach else []
    assert len(outside) not in (0, 7)
    value = advbct_loss(features[:, :4], labels, centres, radius, elastic)
    assert value.item() == pytest.approx(sum(outside) / len(outside))
    inside = unit(features[:, :4])
    centred = advbct_loss(inside, torch.arange(7), inside, torch.ones(7).double(), torch.zeros(7).double())
    assert centred.item() == 0


def test_gradients_are_reversed() -> None:
    values = numbers(3, 2).requires_grad_()
    reversed_ = reverse_gradient(values, 0.25)
    assert torch.equal(reversed_, values)
    reversed_.square().sum().backward()
    torch.testing.assert_close(values.grad, -0.25 * 2 * values.detach())


def test_advbct_fades_and_grows_with_the_images_seen() -> None:
    features, labels, rows = batch()
    loss = AdvbctLoss(cache(), LABELS, CLASSES, epochs=4)
    assert loss.weights() == (1.0, 0.0)
    for images, weight, strength in ((39, 1.0, 39 / 160), (40, 0.75, 0.25), (159, 0.25, 159 / 160), (170, 0.25, 1.0)):
        loss.images.fill_(images)
        assert loss.weights() == pytest.approx((weight, 2 / (1 + math.exp(-10 * strength)) - 1), rel=1e-4)
    loss.images.fill_(90)
    told = loss.discriminator(torch.cat([unit(cache()[rows]), unit(features[:, :4])]))[:, 0]
    is_new = torch.tensor([0.0] * 7 + [1.0] * 7).double()
    expected = advbct_loss(features[:, :4], labels, loss.centres, loss.radius, loss.elastic)
    expected = expected + 0.5 * nn.functional.binary_cross_entropy_with_logits(told, is_new)
    torch.testing.assert_close(loss(features, labels, rows), expected)
    assert loss.images == 97
    with pytest.raises(ConfigError, match="epochs must be at least 1; got 0"):
        AdvbctLoss(cache(), LABELS, CLASSES, epochs=0)


def test_the_discriminator_sees_no_lengths_and_learns_against_the_features() -> None:
    features, labels, rows = batch()
    losses = [AdvbctLoss(scale * cache(), LABELS, CLASSES, epochs=4) for scale in (1, 50)]
    values = [loss(scale * features, labels, rows) for loss, scale in zip(losses, (1, 0.01), strict=True)]
    torch.testing.assert_close(values[0], values[1])
    loss = losses[0]
    loss.images.fill_(100)
    free = features.clone().requires_grad_()
    told = loss(free, labels, rows) - advbct_loss(free[:, :4], labels, loss.centres, loss.radius, loss.elastic)
    gradient = torch.autograd.grad(told, free)[0]
    loss.images.fill_(100)
    with torch.no_grad():  # along its own gradient reversed, what the discriminator loses falls: it rises along −gradient
        before = loss(features, labels, rows)
        loss.images.fill_(100)
        after = loss(features - 1e-3 * gradient, labels, rows)
        shift = advbct_loss((features - 1e-3 * gradient)[:, :4], labels, loss.centres, loss.radius, loss.elastic)
        shift = shift - advbct_loss(features[:, :4], labels, loss.centres, loss.radius, loss.elastic)
    assert after - before - shift > 0


@pytest.mark.parametrize("name", ["lce", "mixbct", "advbct"])
def test_what_a_loss_owns_is_trained(name: str) -> None:
    made = {
        "lce": lambda: LceLoss(cache(), LABELS, CLASSES),
        "mixbct": lambda: MixbctLoss(cache(), LABELS, CLASSES),
        "advbct": lambda: AdvbctLoss(cache(), LABELS, CLASSES, epochs=2),
    }
    loss = made[name]()
    features, labels, rows = batch()
    before = [value.detach().clone() for value in loss.parameters()]
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        loss(features, labels, rows).backward()
        optimizer.step()
    assert before
    for old, new in zip(before, loss.parameters(), strict=True):
        assert not torch.equal(old, new)


@pytest.mark.parametrize("make", [MixbctLoss, LceLoss])
def test_a_class_without_rows_is_refused(make) -> None:
    with pytest.raises(DataError, match="1 of 4 classes"):
        make(cache(), LABELS, 4)


def test_building_a_loss_leaves_the_draws_of_the_model_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    AdvbctLoss(cache(), LABELS, CLASSES, epochs=2)
    assert torch.equal(torch.rand(1), expected)


def test_the_refreshed_classifier_walks_the_new_features_and_weighs_the_old() -> None:
    new, old, labels, before = numbers(12, 5), numbers(12, 5, seed=1), torch.arange(12) % 3, numbers(4, 5, seed=2)
    rows = unibct_classifier(new, old, labels, before, temperature=0.5, damping=0.8)
    for c in range(3):
        members = [i for i in range(12) if i % 3 == c]
        count = len(members)
        similar = np.array(
            [[0.0 if i == j else math.exp(float(unit(new[i]) @ unit(new[j])) / 0.5) for j in members] for i in members]
        )
        pages = similar / similar.sum(axis=0)
        weights = np.linalg.solve(np.eye(count) - 0.8 * pages, np.full(count, 0.2 / count))
        centre = sum(weight * old[i] for weight, i in zip(weights, members, strict=True))
        torch.testing.assert_close(rows[c], unit(centre), rtol=1e-5, atol=1e-6)
    assert torch.equal(rows[3], before[3])
    same = unibct_classifier(old, old, labels, before[:3])
    torch.testing.assert_close(same, torch.as_tensor(random_walk_classifier(old, labels)))


def test_unibct_weighs_nothing_before_the_first_epoch_has_passed() -> None:
    loss = UnibctLoss(cache(), LABELS, CLASSES, temperature=0.5)
    features, labels = numbers(ROWS, 6), torch.from_numpy(LABELS)
    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(0))
    free = features.clone().requires_grad_()
    for rows in order[:36].split(12):  # as a loader that drops the last batch
        value = loss(free[rows], labels[rows], rows)
        value.backward()
        assert value.item() == 0
    assert (free.grad == 0).all()
    rows = order[5:17]
    value = loss(free[rows], labels[rows], rows)
    passed = order[:36]
    expected = unibct_classifier(features[passed, :4], cache()[passed], labels[passed], loss.classifier, temperature=0.5)
    torch.testing.assert_close(loss.classifier, expected)
    torch.testing.assert_close(value, influence_loss(free[rows], labels[rows], expected))
    assert loss.seen.nonzero()[:, 0].tolist() == sorted(rows.tolist())
    value.backward()
    assert (free.grad != 0).any()


def test_unibct_goes_on_after_a_checkpoint() -> None:
    made = [UnibctLoss(cache(), LABELS, CLASSES) for _ in range(2)]
    features, labels, rows = batch()
    made[0](features, labels, rows)
    made[1].load_state_dict(made[0].state_dict())
    values = [loss(features, labels, rows) for loss in made]
    assert values[0] == values[1] != 0
    assert set(made[0].state_dict()) == {"memory", "seen", "classifier", "ready"}
