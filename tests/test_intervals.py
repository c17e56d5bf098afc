"""What an interval covers: new queries of the same classes, or new classes; by simulation, where the truth is known."""

import inspect
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from compatlearn.errors import DataError, IncompatibleError
from compatlearn.evaluation.figures import Figure, bootstrap, resampled

SETS, CLASSES = 600, 50
WITHIN = (0.93, 0.97)


def mean(means):
    return means[:, 0]


def difference(means):
    return means[:, 1] - means[:, 0]


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


def coverage(queries: int, difficulty: float, effect: float) -> list[float]:
    """How many 95 % intervals of a gain hold the true one, over queries and over classes.

    A class is answered right with log odds of N(0, difficulty²) before; N(0.3, effect²) is added to them by the upgrade. Each
    data set has 50 new classes of `queries` queries each.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    weights /= weights.sum()
    before = sigmoid(difficulty * nodes)
    after = sigmoid(difficulty * nodes[:, None] + 0.3 + effect * nodes)
    truth = weights @ after @ weights - weights @ before
    random, labels, held = np.random.default_rng(0), np.repeat(np.arange(CLASSES), queries), [0, 0]
    for seed in range(SETS):
        odds = difficulty * random.standard_normal(CLASSES)
        chances = sigmoid(np.stack([odds, odds + 0.3 + effect * random.standard_normal(CLASSES)], axis=1))[labels]
        right = random.random(chances.shape) < chances
        for which, clusters in enumerate((None, labels)):
            figure = bootstrap(difference, right, resamples=500, seed=seed, clusters=clusters)
            held[which] += figure.low <= truth <= figure.high
    return [count / SETS for count in held]


def test_without_a_class_effect_queries_cover_the_gain() -> None:
    by_query, by_class = coverage(queries=20, difficulty=0.5, effect=0.0)
    assert WITHIN[0] <= by_query <= WITHIN[1]
    assert WITHIN[0] <= by_class <= WITHIN[1]  # classes cost nothing where they do not matter


def test_with_a_class_effect_only_classes_cover_the_gain() -> None:
    by_query, by_class = coverage(queries=45, difficulty=0.0, effect=0.5)
    assert by_query < 0.85  # far too narrow
    assert WITHIN[0] <= by_class <= WITHIN[1]


def test_few_units_give_the_width_of_students_t() -> None:
    """Plain percentiles of the mean of eight are too narrow by a factor of √(7/8) · 1.96/2.36."""
    random = np.random.default_rng(0)
    ratios = []
    for seed in range(50):
        drawn = random.standard_normal((8, 1))
        ours = bootstrap(mean, drawn, seed=seed)
        low, high = scipy.stats.t.interval(0.95, 7, loc=drawn.mean(), scale=scipy.stats.sem(drawn[:, 0]))
        ratios.append((ours.high - ours.low) / (high - low))
    assert np.mean(ratios) == pytest.approx(1, abs=0.12)


def test_clusters_of_one_are_queries() -> None:
    scores = np.random.default_rng(0).random((400, 2))
    alone = bootstrap(difference, scores, clusters=np.arange(400))
    plain = bootstrap(difference, scores)
    assert alone.value == plain.value
    assert alone.high - alone.low == pytest.approx(plain.high - plain.low, rel=0.1)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.floats(0, 1)), min_size=2, max_size=30), st.integers(0, 9))
def test_facts_of_clusters(rows, seed: int) -> None:
    clusters, scores = np.array([row[0] for row in rows]), np.array([[row[1]] for row in rows])
    if len(np.unique(clusters)) < 2:
        with pytest.raises(DataError, match="queries are of one cluster"):
            bootstrap(mean, scores, clusters=clusters)
        return
    figure = bootstrap(mean, scores, resamples=100, seed=seed, clusters=clusters)
    means = [scores[clusters == each].mean() for each in np.unique(clusters)]
    assert figure.value == pytest.approx(scores.mean())
    assert min(means) - 1e-12 <= figure.low <= figure.high <= max(means) + 1e-12
    assert figure == bootstrap(mean, scores, resamples=100, seed=seed, clusters=clusters.astype(str))
    order = np.random.default_rng(seed).permutation(len(rows))
    shuffled = bootstrap(mean, scores[order], resamples=100, seed=seed, clusters=clusters[order])
    assert (shuffled.low, shuffled.high) == pytest.approx((figure.low, figure.high))


def test_many_columns_are_drawn_together() -> None:
    """Wide columns go another way than a pair of them; both give the same width."""
    scores = np.random.default_rng(0).random((300, 9)) < 0.4
    wide = resampled(scores)
    for first, second in ((0, 1), (7, 8)):
        together = wide.figure(lambda means, i=first, j=second: means[:, j] - means[:, i])
        alone = bootstrap(difference, scores[:, [first, second]])
        assert together.value == pytest.approx(alone.value)
        assert together.high - together.low == pytest.approx(alone.high - alone.low, rel=0.1)


def test_sign() -> None:
    figures = (Figure(0.1, 0.01, 0.2), Figure(-0.1, -0.2, -0.01), Figure(0.1, 0.0, 0.2), Figure(0.0, -math.inf, math.inf))
    assert [figure.sign for figure in figures] == [1, -1, 0, 0]


def test_other_clusters() -> None:
    with pytest.raises(IncompatibleError, match="clusters must be one for each of 3 queries; got 2"):
        inspect.unwrap(resampled)(np.ones((3, 1)), clusters=np.arange(2))
