"""Arrays as an index, what maps queries, and hits as they print."""

import numpy as np
import pytest
import torch

from compatlearn import Cut, Features, IncompatibleError, QueryMap, fit_adapter, search
from compatlearn.adapters.slerp import Mixed
from compatlearn.indexes.arrays import ArrayIndex
from compatlearn.indexes.index import Index, Readable
from compatlearn.progress import shares


def normal(rows: int, dimension: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, dimension)).astype(np.float32)


NAMES = np.array([f"p{number}" for number in range(30)])


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "dot"])
def test_hits_carry_ids_and_scores(metric: str) -> None:
    gallery, queries = normal(30, 5), normal(4, 5, 1)
    index = ArrayIndex(Features(gallery, ids=NAMES, space="m@1"), metric=metric)
    hits, rows = index.search(queries, k=3), search(queries, gallery, 3, metric)
    assert (hits.ids == NAMES[rows.indices]).all()
    exact = {"cosine": lambda q, g: q @ g / np.linalg.norm(q) / np.linalg.norm(g), "dot": lambda q, g: q @ g}
    score = exact.get(metric, lambda q, g: -np.linalg.norm(q - g))
    expected = [[score(queries[i], gallery[j]) for j in found] for i, found in enumerate(rows.indices)]
    np.testing.assert_allclose(hits.scores, expected, rtol=1e-5)
    assert (np.diff(hits.scores, axis=1) <= 0).all()
    assert (len(index), index.dimension, index.metric, index.space) == (30, 5, metric, "m@1")
    assert isinstance(index, Index)
    assert isinstance(index, Readable)


def test_an_id_is_left_out() -> None:
    gallery = normal(30, 5)
    index = ArrayIndex(gallery, ids=NAMES)
    hits = index.search(gallery[:3], k=2, exclude=np.array(["p0", "elsewhere", "p2"]))
    assert hits.ids[1, 0] == "p1"
    assert hits.ids[0, 0] != "p0"
    assert (hits.indices == search(gallery[:3], gallery, 2, exclude=np.array([0, -1, 2])).indices).all()
    by_row = ArrayIndex(gallery).search(gallery[:2], k=2, exclude=np.array([0, 99]))
    assert by_row.ids[0, 0] != 0
    assert by_row.ids[1, 0] == 1
    with pytest.raises(IncompatibleError, match=r"ids to leave out are numbers .* and those of the index text"):
        index.search(gallery[:1], exclude=np.array([0]))


@pytest.mark.parametrize("width", [4, 6])
def test_queries_of_another_dimension_are_refused(width: int) -> None:
    index = ArrayIndex(normal(30, 5), ids=NAMES)
    with pytest.raises(IncompatibleError, match=rf"^the queries have {width} dimensions and the index 5; [^\n]*adapter[^\n]*$"):
        index.search(normal(2, width, 1))
    longer = normal(2, 6, 1)
    assert (index.search(Cut(5)(longer)).ids == NAMES[search(longer, index.vectors, 10).indices]).all()


def test_too_few_items_and_numbers_for_ids() -> None:
    text = ArrayIndex(normal(2, 3), ids=["a", "b"]).search(normal(1, 3, 1), k=3)
    assert text.ids[0, 2] == ""
    assert text.scores[0, 2] == -np.inf
    numbers = ArrayIndex(torch.from_numpy(normal(2, 3)), ids=np.array([70, 80])).search(torch.from_numpy(normal(1, 3, 1)), k=3)
    assert isinstance(numbers.ids, torch.Tensor)
    assert sorted(numbers.ids[0].tolist()) == [-1, 70, 80]
    assert str(text).startswith("Hits(1 × 3, nearest first)\nquery 0: '")


def test_all_vectors_are_read_once_and_some_by_id() -> None:
    gallery = normal(30, 5)
    index = ArrayIndex(gallery, ids=NAMES, space="m@1")
    blocks = list(index.scan(batch=12))
    assert [len(block) for block in blocks] == [12, 12, 6]
    assert (np.concatenate([block.ids for block in blocks]) == NAMES).all()
    some = index.read(["p7", "p3"])
    assert (some.vectors == gallery[[7, 3]]).all()
    assert some.ids.tolist() == ["p7", "p3"]
    with pytest.raises(IncompatibleError, match=r"1 of 2 ids of the wanted ids .*first: nope"):
        index.read(["p7", "nope"])
    labelled = ArrayIndex(Features(gallery, labels=np.arange(30), ids=NAMES))
    assert labelled.read(["p7"]).labels.tolist() == [7]
    with pytest.raises(IncompatibleError, match=r"ids must be one for each of 30 rows; got shape \(2,\)"):
        ArrayIndex(gallery, ids=["a", "b"])


def test_whatever_maps_queries_is_a_query_map() -> None:
    new, old = normal(60, 6), normal(60, 4, 1)
    adapter = fit_adapter("ridge", new, old)
    for one in (adapter, Mixed(adapter, old, 0.5), Cut(4, 6)):
        assert isinstance(one, QueryMap), one
        assert (one.d_new, one.d_old) == (6, 4)
        assert one(new).shape == (60, 4)


def test_a_cut_is_what_search_does_by_itself() -> None:
    new, old = normal(9, 6), normal(20, 4, 1)
    cut = Cut(4)
    assert (search(cut(new), old).indices == search(new, old).indices).all()
    assert torch.equal(cut(torch.from_numpy(new)), torch.from_numpy(new[:, :4]))
    with pytest.raises(IncompatibleError, match="takes queries of at least 4; these have 3"):
        cut(normal(2, 3))
    with pytest.raises(IncompatibleError, match="takes queries of 6; these have 5"):
        Cut(4, 6)(normal(2, 5))


def test_long_work_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    show = shares("search 1")
    for now[0], share in ((1.0, 0.1), (6.0, 0.25), (8.0, 0.4), (20.0, 0.5), (40.0, 1.0)):
        show(share)
    assert capsys.readouterr().err == "search 1: 25%, 18 s left\nsearch 1: 50%, 20 s left\n"


def test_a_search_is_watched() -> None:
    seen: list[float] = []
    gallery = normal(500, 8)
    search(gallery, gallery, 3, exclude_self=True, watch=seen.append)
    search(normal(40, 8, 1), gallery, 3, "dot", watch=seen.append)
    assert seen
    assert seen[-1] == pytest.approx(1)
    assert all(0 < share <= 1 for share in seen)
