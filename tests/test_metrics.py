"""Figures against slow loops, and the facts that an interval must keep."""

import inspect
import json
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from compatlearn.errors import ConfigError, DataError, IncompatibleError
from compatlearn.evaluation import metrics
from compatlearn.evaluation.figures import Figure, bootstrap
from compatlearn.evaluation.metrics import map_at_r, negative_flips, top_k


def mean(means):
    return means[:, 0]


def difference(means):
    return means[:, 1] - means[:, 0]


def test_top_k():
    relevant = np.array([[False, True, True], [False, False, False]])
    assert top_k(relevant, 1).tolist() == [False, False]
    assert top_k(relevant, 2).tolist() == [True, False]


def slow_map_at_r(relevant, count):
    total, seen = 0.0, 0
    for i in range(count):
        if relevant[i]:
            seen += 1
            total += seen / (i + 1)
    return total / count if count else 0.0


@given(
    relevant=st.integers(1, 12).flatmap(
        lambda k: st.lists(st.lists(st.booleans(), min_size=k, max_size=k), min_size=1, max_size=6)
    ),
    data=st.data(),
)
def test_map_at_r(relevant, data):
    counts = [data.draw(st.integers(0, len(relevant[0]))) for _ in relevant]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "HELD", data.draw(st.integers(1, 40)))
        values = map_at_r(np.array(relevant), np.array(counts))
    np.testing.assert_allclose(values, [slow_map_at_r(*pair) for pair in zip(relevant, counts, strict=True)])


def test_map_at_r_by_hand():
    relevant = np.array([[1, 0, 1, 1], [1, 1, 0, 0], [0, 0, 0, 1], [1, 1, 1, 1]], dtype=bool)
    values = map_at_r(relevant, np.array([3, 2, 3, 0]))
    np.testing.assert_allclose(values, [(1 + 2 / 3) / 3, 1, 0, 0])  # beyond R counts nothing; R = 0 is a miss


def test_negative_flips():
    old, new = np.array([1, 1, 0, 0], dtype=bool), np.array([1, 0, 1, 0], dtype=bool)
    assert negative_flips(old, new).tolist() == [False, True, False, False]


def test_figure_prints_and_survives_json():
    figure = Figure(0.1634, 0.1551, 0.1709)
    assert str(figure) == f"{figure}" == "0.163 [0.155, 0.171]"
    assert f"{figure:.1%}" == "16.3% [15.5%, 17.1%]"
    for one in (figure, Figure(0.5, -math.inf, math.inf)):
        assert Figure.from_dict(json.loads(json.dumps(one.to_dict(), allow_nan=False))) == one


@pytest.mark.parametrize("shares", [0.5, 0.05])
def test_bootstrap_agrees_with_theory(shares):
    """Right and wrong answers: the interval is value ± 1.96 √(p (1 − p) / q), for 0/1 and for distinct values alike."""
    right = np.zeros((10_000, 1))
    right[: int(10_000 * shares)] = 1
    half = 1.96 * math.sqrt(shares * (1 - shares) / 10_000)
    jittered = right + np.random.default_rng(0).uniform(-1e-6, 1e-6, right.shape)  # no two rows alike
    for figure in (bootstrap(mean, right), bootstrap(mean, jittered, resamples=1000)):
        assert figure.value == pytest.approx(shares, abs=1e-6)
        assert figure.high - shares == pytest.approx(half, rel=0.2)
        assert shares - figure.low == pytest.approx(half, rel=0.2)


def test_bootstrap_covers_the_truth():
    """95 % of intervals should hold the true share; 200 experiments of 200 queries."""
    random = np.random.default_rng(1)
    figures = [bootstrap(mean, random.random((200, 1)) < 0.3, resamples=300, seed=i) for i in range(200)]
    covered = np.mean([figure.low <= 0.3 <= figure.high for figure in figures])
    assert 0.89 <= covered <= 0.99


def test_bootstrap_agrees_with_scipy():
    """The same paired percentile interval of a difference of means, but for the draws."""
    random = np.random.default_rng(3)
    columns = (random.random((1500, 2)) < [0.4, 0.45]) | (random.random((1500, 1)) < 0.2)
    ours = bootstrap(difference, columns, resamples=4000)
    theirs = scipy.stats.bootstrap(
        (columns[:, 0] * 1.0, columns[:, 1] * 1.0),
        lambda old, new, axis: new.mean(axis=axis) - old.mean(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=4000,
        method="percentile",
        rng=np.random.default_rng(4),
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.06 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.06 * width)


def test_pairs_are_kept_together():
    """Two systems that fail on the same queries: the paired interval of their difference is far narrower."""
    random = np.random.default_rng(2)
    hard = random.random(2000)
    old, new = hard < 0.60, hard < 0.62
    paired = bootstrap(difference, np.stack([old, new], axis=1))
    unpaired = bootstrap(difference, np.stack([old, random.permutation(new)], axis=1))
    assert paired.value == pytest.approx(unpaired.value)
    assert paired.low > 0
    assert unpaired.low < 0
    assert (paired.high - paired.low) * 3 < unpaired.high - unpaired.low


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40), st.booleans())
def test_bootstrap_facts(rows, constant):
    columns = np.array(rows, dtype=float)
    if constant:
        columns[:] = columns[0]
    figure = bootstrap(difference, columns, resamples=100)
    assert figure == bootstrap(difference, columns, resamples=100)  # seeded
    assert figure.low <= figure.high
    assert min(rows_difference := columns[:, 1] - columns[:, 0]) <= figure.low
    assert figure.high <= max(rows_difference)
    if constant:
        assert figure.low == pytest.approx(figure.high)
    shifted = bootstrap(lambda means: difference(means) + 3, columns, resamples=100)
    assert shifted.low == pytest.approx(figure.low + 3)


def test_blocks_do_not_change_what_is_drawn(monkeypatch):
    scores = np.random.default_rng(0).random((50, 2))
    whole = bootstrap(difference, scores, resamples=64)
    monkeypatch.setattr(metrics, "HELD", 700)
    assert bootstrap(difference, scores, resamples=64) == whole


def test_infinite_values_give_an_unbounded_interval():
    def ratio(means):
        return np.where(means[:, 0] > 0.5, np.inf, -np.inf)

    figure = bootstrap(ratio, np.arange(100.0)[:, None] % 2)
    assert (figure.low, figure.high) == (-math.inf, math.inf)


A = np.ones((2, 3), dtype=bool)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: top_k(A, 0), ConfigError, "k must be from 1 to the 3 neighbours searched; got 0"),
        (lambda: top_k(A, 4), ConfigError, "from 1 to the 3 neighbours searched; got 4"),
        (lambda: map_at_r(A, np.array([2, 5])), DataError, r"1 of 2 queries \(first: 1\); search with k = 5"),
        (lambda: bootstrap(mean, np.array([[np.nan]])), DataError, "no NaN"),
        (lambda: bootstrap(mean, np.zeros((0, 1))), DataError, "at least one query and no NaN; got 0 queries"),
        (
            lambda: inspect.unwrap(negative_flips)(A[0], A[0, :2]),
            IncompatibleError,
            "must answer the same queries; got 3 and 2",
        ),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()
