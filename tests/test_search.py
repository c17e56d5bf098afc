"""Search against brute force in float64: every neighbour, in order, ties by row number."""

import importlib
import inspect

import faiss
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compatlearn.errors import ConfigError, DataError, IncompatibleError
from compatlearn.indexes.bounds import Frame
from compatlearn.indexes.exact import merge, nearest, search
from compatlearn.indexes.tiles import DEFAULT, Tiles

rows_module = importlib.import_module("compatlearn.indexes.rows")
settle_module = importlib.import_module("compatlearn.indexes.settle")
exact_module = importlib.import_module("compatlearn.indexes.exact")
unchecked = inspect.unwrap(search)  # without the shape checks of the tests, so that our own errors show
METRICS = ["euclidean", "cosine", "dot"]


def small(*, height=4, across=2, group=2, blocks=1, crowd=8, spare=1, held=64, bfloat16=True):
    """Tiles so small that a few rows cross every border there is."""
    return Tiles(
        product=(height * group, height * group * across),
        group=group,
        crowd=crowd,
        spare=spare,
        cached=24,
        operand_bytes=blocks * 500,
        read=5,
        held=held * 8,
        bfloat16=bfloat16,
    )


def borders(data):
    """Drawn sizes of the tiles."""
    sizes = {"height": st.integers(1, 4), "across": st.integers(1, 3), "group": st.sampled_from([1, 2, 4])}
    return {name: data.draw(size) for name, size in (sizes | {"blocks": st.integers(1, 2)}).items()}


@pytest.fixture(params=[True, False], ids=["bfloat16", "float32"])
def small_tiles(request):
    return small(bfloat16=request.param)


def brute_force(queries, gallery, k, metric="euclidean", exclude=None):
    """Zero padding, every key, a full sort; the slow and obvious way."""
    width = max(queries.shape[1], gallery.shape[1])
    queries, gallery = (np.pad(np.float64(v), ((0, 0), (0, width - v.shape[1]))) for v in (queries, gallery))
    if metric == "cosine":
        queries, gallery = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (queries, gallery))
    indices, distances = np.full((len(queries), k), -1), np.full((len(queries), k), np.inf)
    for i, query in enumerate(queries):
        keys = -(gallery * query).sum(axis=1) if metric == "dot" else ((gallery - query) ** 2).sum(axis=1)
        rows = [row for row in np.lexsort((np.arange(len(gallery)), keys)) if exclude is None or row != exclude[i]]
        rows = rows[:k]
        indices[i, : len(rows)] = rows
        distances[i, : len(rows)] = {"euclidean": np.sqrt(np.abs(keys)), "cosine": keys / 2, "dot": keys}[metric][rows]
    return indices, distances


def assert_exact(queries, gallery, k, metric="euclidean", exclude=None, tiles=DEFAULT, **options):
    hits = search(queries, gallery, k, metric, exclude=exclude, tiles=tiles, **options)
    if options.get("exclude_self"):
        exclude = np.arange(len(queries))
    indices, distances = brute_force(queries, gallery, k, metric, exclude)
    np.testing.assert_array_equal(hits.indices, indices)
    products = metric == "dot"  # whose error is that of the lengths
    size = np.abs(distances[np.isfinite(distances)]).max(initial=0) if products else 0
    np.testing.assert_allclose(hits.distances, distances, rtol=1e-6, atol=1e-7 + 1e-6 * size)
    np.testing.assert_allclose(hits.scores, 1 - hits.distances if metric == "cosine" else -hits.distances, atol=1e-7)
    assert hits.indices.dtype == np.int64
    assert hits.ids is hits.indices
    return hits


def normal(rows, dimension, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal((rows, dimension)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("d_query", "d_gallery"), [(7, 7), (11, 7), (7, 11)])
def test_random_data(dtype, metric, d_query, d_gallery, small_tiles):
    hits = assert_exact(normal(17, d_query, 1, dtype), normal(23, d_gallery, 2, dtype), 4, metric, tiles=small_tiles)
    assert hits.distances.dtype == (np.float64 if dtype == np.float64 else np.float32)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_ties_and_odd_sizes(data):
    """Small integers: many exact ties, duplicates and zero distances, over every tile boundary."""
    q, n, d_query, d_gallery = (data.draw(st.integers(1, top)) for top in (7, 23, 4, 4))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    queries, gallery = (rng.integers(0, 3, (rows, d)) for rows, d in ((q, d_query), (n, d_gallery)))
    dtype = data.draw(st.sampled_from([np.float16, np.float32, np.float64]))
    exclude = rng.integers(-1, n, q) if data.draw(st.booleans()) else None
    tiles = small(
        **borders(data),
        crowd=data.draw(st.integers(1, 8)),
        spare=data.draw(st.integers(0, 3)),
        held=data.draw(st.integers(1, 99)),
        bfloat16=data.draw(st.booleans()),
    )
    metric = data.draw(st.sampled_from(["euclidean", "dot"]))
    queries, gallery, k = (queries - 1).astype(dtype), (gallery - 1).astype(dtype), data.draw(st.integers(1, 30))
    assert_exact(queries, gallery, k, metric, exclude=exclude, tiles=tiles)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), copies=st.integers(1, 40), scale=st.sampled_from([1.0, 2.0**-60, 2.0**60]))
def test_cosine_ties_by_row(seed, copies, scale):
    """Multiples by a power of two have exactly the same unit row, also when there are more of them than spare ones."""
    rng = np.random.default_rng(seed)
    gallery = rng.standard_normal((3, 5)).repeat(copies, axis=0) * 2.0 ** rng.integers(-3, 4, (3 * copies, 1)) * scale
    gallery = gallery[rng.permutation(len(gallery))].astype(np.float32)
    assert_exact(rng.standard_normal((4, 5)).astype(np.float32), gallery, 6, "cosine")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_own_row_left_out(dtype, small_tiles):
    vectors = normal(19, 6, dtype=dtype)
    vectors[7] = vectors[3]  # the duplicate of a row is still found
    hits = assert_exact(vectors, vectors, 5, exclude_self=True, tiles=small_tiles)
    assert (hits.indices != np.arange(19)[:, None]).all()
    assert hits.indices[3, 0] == 7
    assert hits.distances[3, 0] == 0


def test_exclude_names_a_row_or_none():
    vectors = normal(9, 4)
    exclude = np.array([0, -1, 2, -1, 4, 8, 0, 1, -1])
    hits = assert_exact(vectors, vectors, 3, exclude=exclude)
    assert hits.indices[1, 0] == 1
    assert hits.indices[0, 0] != 0


@pytest.mark.parametrize("rows", [1, 2, 6])
def test_too_few_rows_fill_with_minus_one_and_infinity(rows):
    vectors = normal(rows, 3)
    hits = assert_exact(vectors, vectors, 9, exclude_self=True)
    assert (hits.indices[:, rows - 1 :] == -1).all()
    assert np.isinf(hits.distances[:, rows - 1 :]).all()
    assert np.isfinite(hits.distances[:, : rows - 1]).all()


@pytest.mark.parametrize(("offset", "spread"), [(1e4, 1e-2), (3e5, 1.0)])
def test_huge_common_offset(offset, spread):
    """‖q‖² + ‖g‖² − 2 q·g in float32 loses every digit here: the bound must send these queries on to float64."""
    queries, gallery = (np.float32(offset + spread * normal(rows, 16, rows)) for rows in (12, 200))
    naive = (queries**2).sum(1)[:, None] + (gallery**2).sum(1) - 2 * queries @ gallery.T
    hits = assert_exact(queries, gallery, 5)
    assert (naive.argsort(axis=1, kind="stable")[:, :5] != hits.indices).any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1e30])
def test_squares_beyond_float32(scale, dtype):
    assert_exact(dtype(scale * normal(5, 8)), dtype(scale * normal(70, 8, 1)), 3)
    assert_exact(dtype(scale * normal(5, 8)), dtype(scale * normal(70, 8, 1)), 3, "cosine")


def test_near_ties_in_float64():
    """Rows that differ by less than float32 can tell in a product, but not in a difference."""
    gallery = np.ones((300, 64)) + np.arange(300)[::-1, None] * 1e-12
    hits = assert_exact(np.ones((2, 64)), gallery, 4)
    assert hits.indices[0].tolist() == [299, 298, 297, 296]


def test_large_k():
    assert_exact(normal(6, 12), normal(900, 12, 1), 400)


def test_agrees_with_faiss():
    queries, gallery = normal(200, 48), normal(5000, 48, 1)
    index = faiss.IndexFlatL2(48)
    index.add(gallery)
    squared, indices = index.search(queries, 10)
    hits = search(queries, gallery, 10)
    np.testing.assert_array_equal(hits.indices, indices)
    np.testing.assert_allclose(hits.distances**2, squared, rtol=1e-4)


def test_longer_query_ranks_as_its_head_and_reports_padded_distances():
    queries, gallery = normal(8, 20), normal(40, 12, 1)
    whole, head = search(queries, gallery, 6), search(queries[:, :12], gallery, 6)
    np.testing.assert_array_equal(whole.indices, head.indices)
    tail = (queries[:, 12:] ** 2).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(whole.distances**2, head.distances**2 + tail, rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_same_rows_on_both_sides(data):
    """Each tile of the symmetric matrix serves both sides, whatever the borders, ties and duplicates."""
    n, d, k = (data.draw(st.integers(1, top)) for top in (60, 5, 9))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    spread = data.draw(st.sampled_from([2, 50]))
    vectors = rng.integers(-spread, spread, (n, d)).astype(data.draw(st.sampled_from([np.float16, np.float32, np.float64])))
    equal = vectors.copy() if data.draw(st.booleans()) else vectors
    tiles = small(**borders(data), spare=data.draw(st.integers(0, 3)))
    metric = data.draw(st.sampled_from(["euclidean", "dot"]))
    assert_exact(vectors, equal, k, metric, exclude_self=data.draw(st.booleans()), tiles=tiles)


def normalized(rows, dimension):
    values = normal(rows, dimension, rows)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@pytest.mark.parametrize("metric", ["euclidean", "dot"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_the_first_type_settles_usual_vectors(dtype, metric, monkeypatch):
    """The bounds are tight enough to be of use: hardly a query is searched twice."""
    seen = []
    settle, tiles = settle_module.settle, Tiles(bfloat16=dtype == torch.bfloat16)
    monkeypatch.setattr(exact_module, "settle", lambda *given: seen.append((given[2], settle(*given))) or seen[-1][1])
    queries, gallery = normalized(64, 512), normalized(6000, 512)
    if dtype == torch.float64:
        queries, gallery = queries.astype(np.float64), gallery.astype(np.float64)
    search(queries, gallery, 5, metric, tiles=tiles)
    search(gallery, gallery, 5, metric, exclude_self=True, tiles=tiles)
    for name, left in (seen[0], next(entry for entry in seen[1:] if entry[0] == dtype)):
        assert name == dtype
        assert len(left) < 0.05 * (64 if left is seen[0][1] else 6000)


def test_a_type_that_settles_little_is_left_early(monkeypatch):
    """Classes that have collapsed to points: bounds in bfloat16 cannot tell their members apart, so float32 takes over."""
    rng = np.random.default_rng(0)
    vectors = (rng.standard_normal((20, 64))[np.arange(4000) % 20] + 1e-3 * rng.standard_normal((4000, 64))).astype(np.float32)
    seen = []
    settle = settle_module.settle
    monkeypatch.setattr(exact_module, "settle", lambda *given: seen.append((given[2], len(given[1]))) or settle(*given))
    hits = search(vectors, vectors, 3, exclude_self=True, tiles=Tiles(bfloat16=True))
    assert seen[:2] == [(torch.bfloat16, 4000), (torch.float32, 4000)]
    indices, _ = brute_force(vectors[:50], vectors, 3, exclude=np.arange(50))
    np.testing.assert_array_equal(hits.indices[:50], indices)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_bound_is_below_its_distance(data):
    """Operands of any rows, in each type: the product is at most the halved squared distance, and not far below it."""
    dtype = data.draw(st.sampled_from([torch.bfloat16, torch.float32, torch.float64]))
    d = data.draw(st.integers(1, 300))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    offset, scale = data.draw(st.sampled_from([0.0, 1.0, 1e3])), data.draw(st.sampled_from([1e-30, 1e-3, 1.0, 1e15]))
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    rows = (torch.from_numpy(scale * (offset + rng.standard_normal((n, d)))).to(wide) for n in (7, 41))
    queries, gallery = rows
    frame = Frame.of(gallery, dtype, unit=False)
    (left, ours), (right, theirs) = frame.operand(queries, query=True), frame.operand(gallery, query=False)
    bounds = (left @ right.T)[:7, :41].double()
    exact = (queries.double()[:, None] - gallery.double()).square().sum(dim=2) / 2 * frame.scale**2
    width = frame.spread(ours.repeat_interleave(41, dim=0), theirs.repeat(7, 1)).view(7, 41)
    assert (bounds - frame.rounding * bounds.abs() <= exact * (1 + 1e-14)).all()
    assert (bounds + frame.rounding * bounds.abs() + width + frame.least >= exact * (1 - 1e-14)).all()
    assert (left @ right.T)[:, 41:].isfinite().all()
    assert ((left @ right.T)[7:] > 1e12).all()  # what fills a tile up is no neighbour
    same = frame.operand(gallery, query=True)[0]
    torch.testing.assert_close(frame.mirrored(same), right, rtol=0, atol=0)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_bound_is_below_its_product(data):
    """The same for inner products, of queries and gallery whose sizes have nothing to do with each other."""
    dtype = data.draw(st.sampled_from([torch.bfloat16, torch.float32, torch.float64]))
    d, rng = data.draw(st.integers(1, 300)), np.random.default_rng(data.draw(st.integers(0, 2**32)))
    offset, scales = data.draw(st.sampled_from([0.0, 1.0, 1e3])), st.sampled_from([1e-30, 1e-3, 1.0, 1e15])
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    queries = torch.from_numpy(data.draw(scales) * rng.standard_normal((7, d))).to(wide)
    gallery = torch.from_numpy(data.draw(scales) * (offset + rng.standard_normal((41, d)))).to(wide)
    frame = Frame.of(gallery, dtype, unit=False, queries=queries)
    (left, ours), (right, theirs) = frame.operand(queries, query=True), frame.operand(gallery, query=False)
    bounds = (left @ right.T)[:7, :41].double()
    exact = -(queries.double() @ (gallery.double() - frame.centre.double()).T) * frame.query_scale * frame.scale
    rounded = 1e-14 * ours[:, :1] * theirs[:, 0]
    width = frame.spread(ours.repeat_interleave(41, dim=0), theirs.repeat(7, 1)).view(7, 41)
    assert (bounds - frame.rounding * bounds.abs() <= exact + rounded).all()
    assert (bounds + frame.rounding * bounds.abs() + width + frame.least >= exact - rounded).all()
    assert (width <= 0.05 * ours[:, :1] * theirs[:, 0]).all()
    assert ((left @ right.T)[7:] > 1e12).all()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_inner_products(data):
    """Rows of very different lengths, duplicates, common offsets, near ties and zero rows, against brute force."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    q, n, d = (data.draw(st.integers(1, top)) for top in (9, 80, 20))
    dtype = data.draw(st.sampled_from([np.float16, np.float32, np.float64]))
    queries, gallery = rng.standard_normal((q, d)), rng.standard_normal((n, d))
    gallery *= 10.0 ** rng.integers(-3, data.draw(st.sampled_from([-2, 3])), (n, 1))
    gallery += data.draw(st.sampled_from([0, 10, 1000]))
    gallery[rng.integers(0, n, n // 3)] = gallery[0]
    queries[rng.integers(0, q, q // 3)] = 0
    gallery[rng.integers(0, n, n // 8)] = 0
    queries = np.round(queries, data.draw(st.sampled_from([0, 8])))
    queries, gallery = queries.astype(dtype), gallery.astype(dtype)
    tiles = small(**borders(data), spare=data.draw(st.integers(0, 3)), bfloat16=data.draw(st.booleans()))
    exclude = rng.integers(-1, n, q) if data.draw(st.booleans()) else None
    k = data.draw(st.integers(1, 12))
    hits = search(queries, gallery, k, "dot", exclude=exclude, tiles=tiles)
    products = torch.from_numpy(np.float64(gallery)) * torch.from_numpy(np.float64(queries))[:, None]
    products = products.sum(dim=2).numpy()  # summed in the same order: near ties are told apart by the last bit
    for i in range(q):
        rows = [row for row in np.lexsort((np.arange(n), -products[i])) if exclude is None or row != exclude[i]][:k]
        assert hits.indices[i, : len(rows)].tolist() == rows
        assert (hits.indices[i, len(rows) :] == -1).all()
        np.testing.assert_allclose(hits.scores[i, : len(rows)], products[i, rows], rtol=1e-6)
        assert (hits.scores[i, len(rows) :] == -np.inf).all()


def test_rows_beyond_the_frame_go_to_the_next_type():
    vectors = normal(400, 16)
    vectors[350:] *= 1e12
    assert_exact(vectors, vectors, 5, exclude_self=True)
    assert_exact(normal(3, 16, 1), vectors, 380)


@pytest.mark.parametrize("metric", METRICS)
def test_parts_of_a_gallery_merge_to_the_whole(metric):
    rng = np.random.default_rng(0)
    gallery, queries = (rng.integers(0, 3, (n, 4)).astype(np.float32) + 0.5 for n in (50, 20))
    skip = torch.from_numpy(rng.integers(-1, 50, 20))
    parts = []
    for start, stop in ((0, 3), (3, 30), (30, 50)):  # the first has fewer rows than are asked for
        inside = torch.where((skip >= start) & (skip < stop), skip - start, -1)
        indices, squared = nearest(queries, gallery[start:stop], 7, metric, inside)
        parts.append((torch.where(indices < 0, -1, indices + start), squared))
    indices, squared = merge(parts, 7)
    whole = nearest(queries, gallery, 7, metric, skip)
    torch.testing.assert_close(indices, whole[0], rtol=0, atol=0)
    torch.testing.assert_close(squared, whole[1], rtol=0, atol=0)


def test_memory_map_is_read_in_tiles(tmp_path, monkeypatch, small_tiles):
    path = tmp_path / "gallery.npy"
    np.save(path, normal(43, 6, 1))
    gallery = np.load(path, mmap_mode="r")
    longest = []
    tensor = rows_module.as_tensor
    monkeypatch.setattr(rows_module, "as_tensor", lambda values: longest.append(len(values)) or tensor(values))
    hits = search(gallery, gallery, 4, exclude_self=True, tiles=small_tiles)
    np.testing.assert_array_equal(hits.indices, search(np.array(gallery), np.array(gallery), 4, exclude_self=True).indices)
    assert max(longest[: longest.index(43)] if 43 in longest else longest) <= 16
    assert not isinstance(hits.indices, np.memmap)


def test_same_kind_comes_back():
    queries, gallery = torch.from_numpy(normal(4, 6)).requires_grad_(), torch.from_numpy(normal(9, 6, 1)).half()
    hits = search(queries, gallery, 2)
    assert isinstance(hits.indices, torch.Tensor)
    assert hits.indices.dtype == torch.int64
    assert hits.distances.dtype == torch.float32
    assert not hits.distances.requires_grad
    np.testing.assert_array_equal(hits.indices, search(queries.detach().numpy(), gallery.numpy(), 2).indices)


@pytest.mark.parametrize("precision", ["highest", "medium"])
def test_global_precision_and_autocast_do_not_matter(precision):
    queries, gallery = normal(20, 64), normal(400, 64, 1)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(precision)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert_exact(queries, gallery, 5)
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)


A, B = normal(3, 4), normal(5, 4)
ZERO, NAN = A * [[1], [0], [1]], np.where(np.eye(3, 4) > 0, np.nan, 1)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"metric": "euclidian"}, ConfigError, "unknown metric 'euclidian'; did you mean 'euclidean'?"),
        ({"k": 0}, ConfigError, "k must be at least 1; got 0"),
        ({"exclude_self": True}, IncompatibleError, "got 3 queries and 5 gallery rows; use exclude"),
        ({"exclude_self": True, "exclude": np.zeros(3, int)}, ConfigError, "give one of them"),
        ({"exclude": np.zeros(2, int)}, IncompatibleError, "one integer for each of 3 queries"),
        ({"exclude": np.zeros(3)}, IncompatibleError, "one integer for each of 3 queries"),
        ({"exclude": np.array([0, 5, -1])}, IncompatibleError, "rows from 0 to 4, or -1; got -1 to 5"),
        ({"exclude": np.array([0, 4, -2])}, IncompatibleError, "rows from 0 to 4, or -1; got -2 to 4"),
        ({"queries": A[0]}, DataError, r"queries must be \(rows, dimension\), both at least 1; got shape \(4,\)"),
        ({"gallery": B[:0]}, DataError, r"gallery must be .* got shape \(0, 4\)"),
        ({"gallery": B.astype(int)}, DataError, r"gallery\[0:5\] must be float16, float32 or float64; got int64"),
        ({"queries": NAN}, DataError, r"3 of 3 rows of queries\[0:3\] have NaN or infinity"),
        ({"gallery": NAN}, DataError, r"3 of 3 rows of gallery\[0:3\] have NaN or infinity"),
        (
            {"queries": ZERO, "metric": "cosine"},
            DataError,
            r"1 of 3 rows of queries\[0:3\] have length zero \(first: 1\)",
        ),
        ({"gallery": ZERO, "metric": "cosine"}, DataError, r"1 of 3 rows of gallery\[0:3\] have length zero"),
        (
            {"gallery": np.float64(B) * 1e200},
            DataError,
            r"rows of gallery\[0:5\] have a length beyond 1e±150 \(first: 0, 1, 2, …\)",
        ),
        ({"queries": np.float64(A) * 1e-200, "metric": "cosine"}, DataError, "scale the vectors"),
    ],
)
def test_errors(given, error, message):
    with pytest.raises(error, match=message):
        unchecked(**{"queries": A, "gallery": B, "k": 2} | given)
