"""FAISS files: every type is read back as it lies there, through none of the calls that crash or lie."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compatlearn import progress
from compatlearn.errors import ConfigError, DataError, FormatError, IncompatibleError
from compatlearn.indexes.exact import search
from compatlearn.indexes.open import open_index
from compatlearn.indexes.second import mark, stamps_of
from compatlearn.indexes.stores import faiss_file
from compatlearn.indexes.stores.faiss_file import write_faiss

faiss = pytest.importorskip("faiss")
N, D = 600, 8
OWN = 10**12 + 3 * np.arange(N)  # ids of the application's, far from row numbers


def normal(n: int = N, d: int = D, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def write(path: Path, recipe: str, vectors: np.ndarray, ids: np.ndarray | None = None, metric: int = faiss.METRIC_L2) -> str:
    index = faiss.index_factory(vectors.shape[1], recipe, metric)
    index.train(vectors)
    _ = index.add(vectors) if ids is None else index.add_with_ids(vectors, ids)
    faiss.write_index(index, str(path))
    return f"faiss:{path}"


EXACT = {
    "Flat": False,
    "IDMap,Flat": True,
    "IDMap2,Flat": True,
    "IVF8,Flat": True,
    "IDMap,IVF8,Flat": True,
    "HNSW8": False,
    "IDMap,HNSW8": True,
    "NSG8,Flat": False,
    "OPQ4_8,IVF8,Flat": True,
    "PCA8,IVF8,Flat": True,
    "SQ4,RFlat": False,
}
"""Recipe → whether the index takes ids of its own."""


@pytest.mark.parametrize("recipe", EXACT)
def test_vectors_come_back_with_their_ids(recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vectors, ids = normal(), OWN if EXACT[recipe] else np.arange(N)
    index = open_index(write(tmp_path / "i.faiss", recipe, vectors, OWN if EXACT[recipe] else None))
    blocks = list(index.scan(batch=250))
    assert [len(block) for block in blocks] == [250, 250, 100]
    found = np.concatenate([block.ids for block in blocks])
    rows = np.concatenate([block.vectors for block in blocks])[np.argsort(found)]
    assert sorted(found.tolist()) == ids.tolist()
    if "PQ" in recipe or "PCA" in recipe:  # a rotation and back
        np.testing.assert_allclose(rows, vectors, atol=1e-5)
    else:
        assert (rows == vectors).all()
    some = index.read(ids[[77, 3]])
    np.testing.assert_allclose(some.vectors, vectors[[77, 3]], atol=1e-5)
    queries = normal(9, seed=1)
    hits = index.search(queries, k=5, exact=True)
    assert (hits.ids == ids[search(queries, vectors, 5).indices]).all()
    assert "lossy" not in capsys.readouterr().err


@pytest.mark.parametrize("recipe", ["Flat", "IDMap,HNSW8", "IVF8,Flat"])
def test_large_files_are_mapped_not_read(recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faiss_file, "MAPPED", 0)
    ids = OWN if EXACT[recipe] else np.arange(N)
    index = open_index(write(tmp_path / "i.faiss", recipe, normal(), OWN if EXACT[recipe] else None))
    assert (index.read(ids).vectors == normal()).all()
    write(tmp_path / "new", recipe, -normal(), OWN if EXACT[recipe] else None)
    (tmp_path / "new").replace(tmp_path / "i.faiss")  # as an application must
    assert (index.read(ids).vectors == -normal()).all()
    assert (index.search(-normal()[:9], 1, exact=True).ids[:, 0] == ids[:9]).all()


LOSSY = {"SQ8": 0.02, "SQfp16": 0.001, "PQ4x4": 0.9, "IVF8,SQ8": 0.02, "IVF8,PQ4x4": 0.9, "HNSW8,SQ8": 0.02, "PCA4,Flat": 0.8}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("recipe", LOSSY)
def test_a_lossy_code_says_once_how_far_it_is_off(
    recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "said", set())
    vectors = normal()
    index = open_index(write(tmp_path / "i.faiss", recipe, vectors, OWN if "IVF" in recipe else None))
    ids = OWN if "IVF" in recipe else np.arange(N)
    rows = index.read(ids).vectors
    off = np.sqrt(np.square(rows - vectors).sum(axis=1).mean()) / np.linalg.norm(vectors, axis=1).mean()
    assert 0 < off < LOSSY[recipe]
    list(index.scan())
    lines = capsys.readouterr().err.splitlines()
    said = [line for line in lines if "lossy code" in line]
    assert len(said) == 1
    assert said[0].endswith("where the old vectors are stored as they were, give those instead")
    if "PQ" in recipe:
        assert "cannot be measured" in said[0]
    else:  # the figure is the true one, within a third
        told = float(said[0].partition("off by about ")[2].split()[0])
        assert off / 1.34 < told < off * 1.34
    hits = index.search(normal(5, seed=1), k=3, exact=True)
    assert (hits.ids == ids[search(normal(5, seed=1), rows, 3).indices]).mean() > 0.9


@pytest.mark.parametrize(("recipe", "own"), [("LSH", False), ("IVF8,PQ4x4fs", True)])
def test_types_that_cannot_be_read_back_are_searched_all_the_same(recipe: str, own: bool, tmp_path: Path) -> None:
    index = open_index(write(tmp_path / "i.faiss", recipe, normal(), OWN if own else None))
    assert index.search(normal(2, seed=1), k=3).ids.shape == (2, 3)
    for attempt in (lambda: next(index.scan()), lambda: index.read([0]), lambda: index.add_second("v2", 4)):
        with pytest.raises(DataError, match=r"^[^\n]*(cannot be read back|cannot read vectors)[^\n]*$"):
            attempt()
    if own:  # every list is looked at
        assert index.search(normal(2, seed=1), k=3, exact=True).ids.shape == (2, 3)


def test_the_index_as_it_is_and_exactly_are_two_searches(tmp_path: Path) -> None:
    vectors, queries = normal(2000), normal(40, seed=1)
    index = open_index(write(tmp_path / "i.faiss", "IVF64,Flat", vectors))  # FAISS looks at one list of 64
    true = search(queries, vectors, 10)
    exact, near = index.search(queries, 10, exact=True), index.search(queries, 10)
    assert (exact.ids == true.indices).all()
    np.testing.assert_allclose(exact.scores, true.scores, rtol=1e-5)
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(near.ids.tolist(), exact.ids.tolist(), strict=True)])
    assert 0.1 < recall < 0.9
    assert (near.ids[:, 0] == exact.ids[:, 0]).mean() < 1
    np.testing.assert_allclose(near.scores[near.ids == exact.ids], exact.scores[near.ids == exact.ids], rtol=1e-3)


def test_inner_product_over_unit_vectors_is_cosine(tmp_path: Path) -> None:
    product = faiss.METRIC_INNER_PRODUCT
    index = open_index(write(tmp_path / "unit", "Flat", unit(normal()), metric=product))
    assert index.metric == "cosine"
    queries = 7 * normal(5, seed=1)
    np.testing.assert_allclose(index.search(queries, 3).scores, search(queries, normal(), 3, "cosine").scores, rtol=1e-4)
    assert open_index(write(tmp_path / "dot", "Flat", normal(), metric=product)).metric == "dot"
    with pytest.raises(IncompatibleError, match=r"ranked by euclidean .*not by cosine"):
        open_index(write(tmp_path / "l2", "Flat", normal()), metric="cosine")
    short = write(tmp_path / "codes", "PQ4x4", unit(normal()), metric=product)
    with pytest.raises(ConfigError, match="name the metric: cosine or dot"):
        open_index(short)
    assert open_index(short, metric="cosine").metric == "cosine"
    index = faiss.IndexFlat(D, faiss.METRIC_L1)
    index.add(normal())
    faiss.write_index(index, str(tmp_path / "l1"))
    with pytest.raises(IncompatibleError, match="L2 and inner product can be used"):
        open_index(f"faiss:{tmp_path / 'l1'}")


def test_files_that_are_none_get_one_line(tmp_path: Path) -> None:
    address = write(tmp_path / "i.faiss", "IVF8,Flat", normal())
    path, whole = tmp_path / "i.faiss", (tmp_path / "i.faiss").read_bytes()
    for part in (b"", whole[:3], whole[:40], whole[: len(whole) // 2], whole[:-1], b"no index at all" * 9):
        path.write_bytes(part)
        with pytest.raises(FormatError, match=r"^[^\n]*i\.faiss is no whole FAISS index[^\n]*$"):
            open_index(address)
    with pytest.raises(DataError, match="there is no file"):
        open_index(f"faiss:{tmp_path / 'nowhere'}")
    faiss.write_index(faiss.IndexFlatL2(3), str(path))
    with pytest.raises(DataError, match="holds no vectors"):
        open_index(address)
    twice = faiss.IndexIDMap(faiss.IndexFlatL2(D))
    twice.add_with_ids(normal(), np.zeros(N, dtype=np.int64))
    faiss.write_index(twice, str(path))
    with pytest.raises(DataError, match="occur more than once"):
        open_index(address).read([0])


def test_ids_beside_the_file(tmp_path: Path) -> None:
    address = write(tmp_path / "i.faiss", "IVF8,Flat", normal())
    names = np.array([f"ä {row}" for row in range(N)])
    np.save(tmp_path / "i.faiss.ids.npy", names)
    index = open_index(address)
    assert index.search(normal()[[5]], 1).ids.tolist() == [["ä 5"]]
    assert (index.read(["ä 9"]).vectors == normal()[[9]]).all()
    assert index.search(normal()[[5]], 1, exclude=np.array(["ä 5"])).ids.tolist() != [["ä 5"]]
    np.save(tmp_path / "i.faiss.ids.npy", names[1:])
    with pytest.raises(FormatError, match="600 vectors, and beside it are 599 ids"):
        open_index(address)
    np.save(tmp_path / "i.faiss.ids.npy", names)
    write(tmp_path / "i.faiss", "IVF8,Flat", normal(), OWN)
    with pytest.raises(FormatError, match="ids of its own, and others beside it"):
        open_index(address).search(normal()[[5]], 1)


@pytest.mark.parametrize("name", [str, int])
def test_a_finished_second_vector_becomes_an_index(name: Callable[[Any], Any], tmp_path: Path) -> None:
    vectors, new = normal(), normal(N, 5, 3)
    path = tmp_path / "i.faiss"
    address = write(path, "IDMap,Flat", vectors, OWN) if name is int else write(path, "Flat", vectors)
    if name is str:
        path.with_name("i.faiss.ids").write_text("\n".join(f"p{row}" for row in range(N)))
    index = open_index(address)
    second = index.add_second("v2", 5)
    blocks = list(second.blocks(batch=N // 2))
    row = {one: place for place, one in enumerate(index.items().tolist())}
    for done, block in enumerate(blocks):
        with pytest.raises(IncompatibleError, match=rf"not finished: {N - done * N // 2} without a vector"):
            write_faiss(second, tmp_path / "new.faiss")
        second.write(block, new[[row[one] for one in block.ids.tolist()]], stamps_of(mark("m@2", "embedded"), block.old))
    second.name_space("m@2")
    assert write_faiss(second, tmp_path / "new.faiss") == N
    made = open_index(f"faiss:{tmp_path / 'new.faiss'}")
    assert (made.metric, made.space, made.dimension) == ("euclidean", "m@2", 5)
    hits, expected = made.search(new[:7], 3), second.search(new[:7], 3)
    assert (hits.ids == expected.ids).all()
    np.testing.assert_allclose(hits.scores, expected.scores, atol=1e-3)
