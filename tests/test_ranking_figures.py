"""nDCG, recall, reciprocal rank and agreement: against trec_eval, against slow loops, by hand."""

import inspect

import numpy as np
import pytest
import pytrec_eval
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compatlearn import ConfigError, IncompatibleError, Relevance
from compatlearn.evaluation import lookup, metrics
from compatlearn.evaluation.metrics import agreement, ndcg, recall_at_k, reciprocal_rank

MEASURES = ("ndcg_cut_10", "recall_100", "recip_rank")


def ours(judged: Relevance, rankings: np.ndarray, items: int, exclude: np.ndarray | None = None) -> np.ndarray:
    """(q, 3) nDCG@10, Recall@100, MRR@10 of rows of a gallery, -1 filling up, through `Relevance.at`."""
    queries = np.arange(len(rankings))
    at = judged.at([f"q{query}" for query in queries], [f"d{item}" for item in range(items)])
    hits = np.full((len(rankings), 130), -1)
    hits[:, : rankings.shape[1]] = rankings
    right, grades = at.of(queries, hits), at.grades(queries, hits)
    counts = at.counts(queries, exclude)
    return np.stack([ndcg(grades, at.ideal(queries, 10, exclude)), recall_at_k(right, counts), reciprocal_rank(right)], axis=1)


def theirs(judgements: dict[str, dict[str, int]], scores: dict[str, dict[str, float]]) -> np.ndarray:
    """The same by trec_eval, which knows no cut of the reciprocal rank: that is of the ten best. Without judgements: 0."""
    whole = pytrec_eval.RelevanceEvaluator(judgements, {"ndcg_cut_10", "recall_100"}).evaluate(scores)
    best = {q: dict(sorted(run.items(), key=lambda pair: -pair[1])[:10]) for q, run in scores.items()}
    cut = pytrec_eval.RelevanceEvaluator(judgements, {"recip_rank"}).evaluate(best)
    return np.array([[{**whole.get(q, {}), **cut.get(q, {})}.get(name, 0.0) for name in MEASURES] for q in scores])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 130), st.integers(1, 6), st.floats(0, 0.6), st.booleans(), st.integers(0, 10**6))
def test_equals_trec_eval(items: int, queries: int, share: float, leave_out: bool, seed: int) -> None:
    """Random graded judgements: below zero, zero, above; of many items or none; queries that nobody judged."""
    random = np.random.default_rng(seed)
    rankings = np.stack([random.permutation(items) for _ in range(queries)])  # scores fall with the rank: no ties
    judgements: dict[str, dict[str, int]] = {
        f"q{query}": {f"d{item}": int(random.integers(-2, 4)) for item in range(items) if random.random() < share}
        for query in range(queries)
        if random.random() < 0.8
    } | {"elsewhere": {"d0": 1}}
    own = random.integers(-1, items, queries) if leave_out else None
    shown = [[row for row in found if own is None or row != own[query]] for query, found in enumerate(rankings)]
    scores = {f"q{query}": {f"d{row}": -float(rank) for rank, row in enumerate(found)} for query, found in enumerate(shown)}
    present = {
        q: {d: grade for d, grade in row.items() if own is None or q == "elsewhere" or d != f"d{own[int(q[1:])]}"}
        for q, row in judgements.items()
    }
    hits = np.array([found + [-1] * (items - len(found)) for found in shown])
    judged = Relevance.from_dict(judgements)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lookup, "HELD", 500)
        values = ours(judged, hits, items, own)
    safe = {q: row for q, row in present.items() if max(row.values(), default=-1) >= 0}  # trec_eval crashes on the others
    np.testing.assert_allclose(values, theirs(safe, scores), atol=1e-6)


def test_ties_stand_in_the_order_of_rows_and_in_trec_eval_by_id_descending() -> None:
    judged = {"q0": {"d0": 1}}
    tied = {"q0": {"d0": 0.5, "d1": 0.5}}
    assert theirs(judged, tied)[0, 2] == 0.5  # d1 is first there, and so it is by any order of the run
    assert ours(Relevance.from_dict(judged), np.array([[0, 1]]), 2)[0, 2] == 1.0  # row 0 is first here


def test_items_outside_the_gallery_are_not_held_against_a_ranking() -> None:
    judged = Relevance.from_dict({"q0": {"d0": 1, "gone": 3, "gone too": 3}})
    assert ours(judged, np.array([[0, 1]]), 2).tolist() == [[1, 1, 1]]


def test_the_best_grades() -> None:
    judged = Relevance.from_dict({"a": {"x": 2, "y": 3, "z": 0, "w": -1}, "b": {"x": 1}, "c": {}})
    assert judged.ideal(["a", "b", "c", "?"], 3).tolist() == [[3, 2, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert judged.ideal(["a", "a", "a", "a"], 1, exclude=["x", "y", "z", "?"]).tolist() == [[3], [2], [3], [3]]
    assert judged.ideal(["a"], 2, exclude=["y"]).tolist() == [[2, 0]]
    assert judged.at(["a", "b"], ["x", "x2"]).ideal([0, 1], 2).tolist() == [[2, 0], [1, 0]]
    same = Relevance.from_labels([7, 8, 9], [7, 7, 8])
    assert same.ideal([0, 1, 2], 2).tolist() == [[1, 1], [1, 0], [0, 0]]
    assert same.ideal([0, 1, 2], 2, exclude=[1, 1, 0]).tolist() == [[1, 0], [1, 0], [0, 0]]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_best_grades_against_sorting(data: st.DataObject) -> None:
    ids = st.sampled_from(["a", "b", "c", "d", "e"])
    graded = st.dictionaries(ids, st.sampled_from([-1.0, 0.0, 0.5, 2.0, 3.0]), max_size=5)
    judgements = data.draw(st.dictionaries(ids, graded, min_size=1).filter(lambda rows: any(rows.values())))
    gallery = data.draw(st.lists(ids, min_size=1, unique=True))
    queries, k = data.draw(st.lists(ids, min_size=1, max_size=4)), data.draw(st.integers(1, 6))
    out = [data.draw(st.integers(-1, len(gallery) - 1)) for _ in queries]
    at = Relevance.from_dict(judgements).at(queries, gallery)
    for query, own, best in zip(queries, out, at.ideal(np.arange(len(queries)), k, np.array(out)), strict=True):
        left = [item for row, item in enumerate(gallery) if row != own]
        gains = sorted((max(judgements.get(query, {}).get(item, 0.0), 0.0) for item in left), reverse=True)
        assert best.tolist() == (gains + [0.0] * k)[:k]


def test_by_hand() -> None:
    grades = np.array([[0, 2, 1], [0, 0, 0], [-3, 0, 1]])
    ideal = np.array([[2.0, 1.0, 0.0], [0, 0, 0], [1, 0, 0]])
    best = 2 + 1 / np.log2(3)
    np.testing.assert_allclose(ndcg(grades, ideal, 3), [(2 / np.log2(3) + 0.5) / best, 0, 0.5])
    np.testing.assert_allclose(ndcg(torch.tensor(grades), torch.tensor(ideal), 2), [2 / np.log2(3) / best, 0, 0])
    assert recall_at_k(grades > 0, np.array([4, 0, 1]), 3).tolist() == [0.5, 0, 1]
    assert reciprocal_rank(grades > 0, 3).tolist() == [0.5, 0, 1 / 3]
    assert reciprocal_rank(grades > 0, 1).tolist() == [0, 0, 0]


def test_agreement(monkeypatch: pytest.MonkeyPatch) -> None:
    found = np.array([[1, 2, 3, 9], [1, 2, 3, 9], [-1, -1, -1, -1], [4, 5, 6, 7]])
    reference = np.array([[3, 2, 1], [7, 9, -1], [-1, -1, -1], [4, -1, -1]])
    assert agreement(found, reference, 3).tolist() == [1, 0, 0, 1]
    text = np.array(["", "a", "b"])
    assert agreement(text[[[1, 0]]], text[[[2, 1]]], 2).tolist() == [0.5]
    random = np.random.default_rng(0)
    found, reference = (np.stack([random.permutation(30)[:10] for _ in range(50)]) for _ in range(2))
    expected = [len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), reference.tolist(), strict=True)]
    monkeypatch.setattr(metrics, "HELD", 700)
    np.testing.assert_allclose(agreement(found, reference), expected)


R = np.ones((2, 3), dtype=bool)
GRADES, COUNTS = np.ones((2, 3)), np.full(2, 3)


@pytest.mark.parametrize(
    "call", [lambda k: ndcg(GRADES, GRADES, k), lambda k: recall_at_k(R, COUNTS, k), lambda k: reciprocal_rank(R, k)]
)
@pytest.mark.parametrize("k", [0, 4])
def test_depth(call, k: int) -> None:
    with pytest.raises(ConfigError, match=f"k must be from 1 to the 3 neighbours searched; got {k}"):
        call(k)


def test_other_queries() -> None:
    with pytest.raises(IncompatibleError, match="both must be of the same queries; got 2 and 1"):
        inspect.unwrap(ndcg)(GRADES, GRADES[:1], 3)
