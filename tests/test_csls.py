"""CSLS against the formula written out, and what it is for: hubs go back."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import compatlearn as cl
from compatlearn.errors import ConfigError, DataError, IncompatibleError
from compatlearn.indexes.arrays import ArrayIndex
from compatlearn.indexes.csls import hubness, reranked

METRICS = ["cosine", "euclidean", "dot"]


def vectors(rows: int, seed: int, width: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, width)) + 0.3


def score(query: np.ndarray, item: np.ndarray, metric: str) -> float:
    """Bigger is nearer, of one query and one item."""
    if metric == "euclidean":
        return -float(np.sqrt(((query - item) ** 2).sum()))
    product = float((query * item).sum())
    return product if metric == "dot" else product / float(np.sqrt((query**2).sum() * (item**2).sum()))


def slow_hubness(items: np.ndarray, queries: np.ndarray, metric: str, k: int, exclude: list[int]) -> list[float]:
    found = []
    for item, own in zip(items, exclude, strict=True):
        scores = [score(query, item, metric) for number, query in enumerate(queries) if number != own]
        nearest = sorted(scores, reverse=True)[:k]
        found.append(sum(nearest) / len(nearest))
    return found


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("own", [True, False])
def test_all_items_are_ranked_by_the_formula(metric: str, own: bool) -> None:
    items, asked, queries = vectors(30, 0), vectors(12, 1), vectors(5, 2)
    exclude = [number if own and number < 12 else -1 for number in range(30)]
    far = hubness(items, asked, metric, 3, exclude=np.array(exclude))
    np.testing.assert_allclose(far, slow_hubness(items, asked, metric, 3, exclude), rtol=1e-9)
    found = reranked(cl.search(queries, items, 30, metric), far)
    for row, query in enumerate(queries):
        wanted = [2 * score(query, item, metric) - r for item, r in zip(items, far, strict=True)]
        assert found.indices[row].tolist() == sorted(range(30), key=lambda place: -wanted[place])
        np.testing.assert_allclose(found.scores[row], sorted(wanted, reverse=True), rtol=1e-9)
    np.testing.assert_array_equal(found.distances, -found.scores)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(METRICS), st.integers(0, 999), st.floats(-5, 5))
def test_what_is_the_same_for_all_items_changes_nothing(metric: str, seed: int, constant: float) -> None:
    items = vectors(20, seed)
    hits = cl.search(vectors(4, seed + 1), items, 8, metric)
    np.testing.assert_array_equal(reranked(hits, np.full(20, constant)).indices, hits.indices)
    far = hubness(items, vectors(9, seed + 2), metric)
    np.testing.assert_array_equal(reranked(hits, far + constant).indices, reranked(hits, far).indices)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999), st.integers(1, 12))
def test_it_keeps_what_was_found_and_knows_no_order_of_items_and_queries(seed: int, k: int) -> None:
    items, asked, queries = vectors(20, seed), vectors(9, seed + 1), vectors(4, seed + 2)
    hits, far = cl.search(queries, items, 12, "cosine"), hubness(items, asked, "cosine", 4)
    found = reranked(hits, far)
    np.testing.assert_array_equal(np.sort(found.indices), np.sort(hits.indices))
    np.testing.assert_array_equal(reranked(hits, far, k).indices, found.indices[:, :k])
    order = np.random.default_rng(seed).permutation(20)
    np.testing.assert_allclose(hubness(items[order], asked[::-1].copy(), "cosine", 4), far[order], rtol=1e-9)


@pytest.mark.parametrize("metric", METRICS)
def test_a_hub_goes_back(metric: str) -> None:
    topics = 2 * np.eye(5) + 1
    middle = topics.mean(axis=0)
    items = np.concatenate([topics, 1.4 * middle[None] if metric == "dot" else middle[None]])
    queries = {"cosine": topics + 3, "euclidean": middle + 0.4 * (topics - middle), "dot": topics}[metric]
    hits = cl.search(queries, items, 6, metric)
    found = reranked(hits, hubness(items, queries, metric, 3))
    assert (hits.indices[:, 0] == 5).all()
    np.testing.assert_array_equal(found.indices[:, 0], np.arange(5))


def test_one_more_dimension_of_an_index_of_inner_products_ranks_the_same() -> None:
    items, asked, queries = vectors(25, 0), vectors(12, 1), vectors(5, 2)
    far = hubness(items, asked, "dot", 3)
    longer = np.concatenate([items, far[:, None] / 2], axis=1)
    one = cl.search(np.concatenate([queries, -np.ones((5, 1))], axis=1), longer, 25, "dot")
    np.testing.assert_array_equal(reranked(cl.search(queries, items, 25, "dot"), far).indices, one.indices)


def test_an_empty_place_stays_last() -> None:
    items = vectors(3, 0)
    hits = cl.search(items, items, 3, "cosine", exclude_self=True)
    found = reranked(hits, np.array([-9.0, 9.0, 9.0]))
    assert (found.indices[:, 2] == -1).all()
    assert (found.indices[:, :2] >= 0).all()
    assert (found.scores[:, 2] == -np.inf).all()


def test_the_ids_of_an_index_stay_with_its_items() -> None:
    index = ArrayIndex(np.eye(3), ids=["a", "b", "c"], metric="dot")
    hits = index.search(np.array([[0.3, 0.2, 0.1]]), k=3)
    found = reranked(hits, np.array([0.9, 0.0, 0.5]), k=2)
    assert found.ids.tolist() == [["b", "c"]]
    with pytest.raises(IncompatibleError, match="does not fit an index of 3 items"):
        reranked(hits, np.zeros(4))


def test_tensors_come_back_as_tensors() -> None:
    items = torch.from_numpy(vectors(6, 0)).float()
    far = hubness(items, items[:4], "cosine")
    found = reranked(cl.search(items[:2], items, 5, "cosine"), far)
    assert isinstance(far, torch.Tensor)
    assert far.dtype == torch.float32
    assert isinstance(found.indices, torch.Tensor)
    assert found.scores.dtype == torch.float32


def test_fewer_queries_than_neighbours_all_count() -> None:
    items, asked = vectors(6, 0), vectors(3, 1)
    np.testing.assert_allclose(hubness(items, asked, "dot"), (items @ asked.T).mean(axis=1), rtol=1e-9)


def test_what_cannot_be_used_is_refused() -> None:
    items = vectors(6, 0)
    hits = cl.search(items, items, 3, "dot")
    with pytest.raises(IncompatibleError, match="the queries have 3 dimensions and the items 4; map the queries"):
        hubness(items, items[:, :3], "dot")
    with pytest.raises(DataError, match="1 queries leave none to compare"):
        hubness(items, items[:1], "dot", exclude=np.zeros(6, dtype=np.int64))
    with pytest.raises(ConfigError, match="k must be at least 1; got 0"):
        hubness(items, items, "dot", 0)
    with pytest.raises(ConfigError, match="k must be at least 1; got 0"):
        reranked(hits, np.zeros(6), 0)
    with pytest.raises(IncompatibleError, match="at least 6 items"):
        reranked(hits, np.zeros(5))
    with pytest.raises(DataError, match="hubness of row 2 of 6 is not finite"):
        reranked(hits, np.array([0, 0, np.nan, 0, 0, 0]))
