"""Features in anyone's format; each file that is not what it should be gets one clear line."""

import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from compatlearn.errors import DataError, FormatError
from compatlearn.features.features import Features

VECTORS = np.random.default_rng(0).normal(size=(10, 4)).astype("float32")
LABELS = np.arange(10) % 3
IDS = np.arange(10) * 7
FLOAT32 = pa.float32()


def columns(vectors=VECTORS, value_type=None, **others):
    """A Parquet table of fixed-size lists."""
    values = pa.array(vectors.ravel(), value_type or pa.from_numpy_dtype(vectors.dtype))
    vector = pa.FixedSizeListArray.from_arrays(values, vectors.shape[1])
    return pa.table({"vector": vector} | others)


def lists(rows, kind=FLOAT32):
    return pa.table({"vectors": pa.array(rows, pa.list_(kind))})


def check(features, path, labels=True, ids=True):
    np.testing.assert_array_equal(features.vectors, VECTORS.astype(features.vectors.dtype))
    np.testing.assert_array_equal(features.ids, IDS if ids else np.arange(10))
    if labels:
        np.testing.assert_array_equal(features.labels, LABELS)
    assert (features.labels is not None) == labels
    assert (features.space, features.source) == ("", str(path))


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy(tmp_path, dtype, order):
    path = tmp_path / "old.npy"
    np.save(path, np.asarray(VECTORS, dtype=dtype, order=order))
    features = Features.load(path)
    check(features, path, labels=False, ids=False)
    assert features.vectors.dtype == np.dtype(dtype).newbyteorder("=")
    torch.from_numpy(features.vectors)  # neither read-only nor foreign


@pytest.mark.parametrize("names", [("vectors", "labels", "ids"), ("vector", "label", "id")])
def test_npz_safetensors_and_pt(tmp_path, names):
    arrays = dict(zip(names, (VECTORS.astype("float16"), LABELS.astype("uint8"), IDS), strict=True))
    tensors = {name: torch.from_numpy(values) for name, values in arrays.items()}
    np.savez(tmp_path / "old.npz", **arrays)
    save_file(tensors, tmp_path / "old.safetensors")
    torch.save(tensors, tmp_path / "old.pt")
    for name in ("old.npz", "old.safetensors", "old.pt"):
        features = Features.load(str(tmp_path / name))
        check(features, tmp_path / name)
        assert features.vectors.dtype == np.float16


def test_a_tensor_alone_and_bfloat16(tmp_path):
    torch.save(torch.from_numpy(VECTORS), tmp_path / "old.pt")
    check(Features.load(tmp_path / "old.pt"), tmp_path / "old.pt", labels=False, ids=False)
    save_file({"vectors": torch.ones(2, 3).bfloat16()}, tmp_path / "old.safetensors", {"space": "clip@1"})
    features = Features.load(tmp_path / "old.safetensors")
    assert (features.vectors.dtype, features.vectors.tolist(), features.space) == (np.float32, [[1.0] * 3] * 2, "clip@1")


PARQUET = {
    "fixed size": columns(label=LABELS, id=IDS),
    "float16": columns(VECTORS.astype("float16"), label=LABELS, id=IDS),
    "lists": lists(VECTORS.tolist()).append_column("labels", [LABELS]).append_column("ids", [IDS]),
    "large lists of doubles": lists(VECTORS.tolist(), pa.float64())
    .cast(pa.schema([("vectors", pa.large_list(pa.float64()))]))
    .append_column("label", [LABELS.astype("int8")])
    .append_column("id", [IDS.astype("uint32")]),
    "dictionary and more columns": columns(label=pa.array(LABELS).dictionary_encode(), url=["x"] * 10, ids=IDS),
}


@pytest.mark.parametrize("table", PARQUET.values(), ids=PARQUET)
def test_parquet(tmp_path, table):
    pq.write_table(table, tmp_path / "old.parquet", row_group_size=3)
    check(Features.load(tmp_path / "old.parquet"), tmp_path / "old.parquet")


@pytest.mark.parametrize("ids", [[f"img/{i:02}" for i in range(10)], ["φ" * i for i in range(10)]])
def test_a_folder_of_parquet_shards_is_read_in_order_of_name(tmp_path, ids):
    table = columns(label=LABELS, id=ids)
    for number, (start, rows) in enumerate([(0, 4), (4, 0), (4, 5), (9, 1)]):
        pq.write_table(table.slice(start, rows), tmp_path / f"part-{number}.parquet")
    (tmp_path / ".part-3.17.tmp.parquet").write_text("a writer was killed")
    features = Features.load(tmp_path)
    np.testing.assert_array_equal(features.vectors, VECTORS)
    assert features.ids.tolist() == ids
    assert features.labels.tolist() == LABELS.tolist()


def test_shards_that_disagree(tmp_path):
    pq.write_table(columns(label=LABELS), tmp_path / "a.parquet")
    pq.write_table(columns(VECTORS[:, :3], label=LABELS), tmp_path / "b.parquet")
    with pytest.raises(FormatError, match=r"b\.parquet has vectors of 3 float32 where rows before have 4 float32"):
        Features.load(tmp_path)
    pq.write_table(columns(label=["cat"] * 10), tmp_path / "b.parquet")
    with pytest.raises(FormatError, match="has labels of several kinds; make them all integers or all text"):
        Features.load(tmp_path)
    pq.write_table(columns(), tmp_path / "b.parquet")
    with pytest.raises(FormatError, match=r"b\.parquet has not the columns of .*a\.parquet"):
        Features.load(tmp_path)


BAD_TABLES = {
    "no vectors": (pa.table({"embedding": [[1.0]], "id": [1]}), "no column 'vectors' or 'vector', only: embedding, id"),
    "ragged": (lists([[1, 2], [3, 4], [5]]), "vectors differ in length: 2 in row 0, length 1 in row 2"),
    "a null vector": (lists([[1, 2], None]), "vectors differ in length: 2 in row 0, none in row 1"),
    "a null number": (lists([[1, 2], [3, None]]), "1 numbers of the vectors are null"),
    "integers": (lists([[1, 2]], pa.int32()), r"the vectors are list<.*int32.*>, not lists of floats"),
    "text": (pa.table({"vector": ["a"]}), "the vectors are string, not lists of floats"),
    "null labels": (columns(label=[0, None, *range(8)]), "labels are null from row 1 on"),
    "labels of floats": (
        columns(label=[0.5] * 10),
        r"labels must be integers or names, not float64; number the classes from 0",
    ),
    "float ids": (columns(id=[0.5] * 10), "ids must be integers or text, not float64"),
    "no rows": (columns(label=LABELS).slice(0, 0), r"has no rows"),
}


@pytest.mark.parametrize(("table", "message"), BAD_TABLES.values(), ids=BAD_TABLES)
def test_a_table_that_holds_no_features(tmp_path, table, message):
    pq.write_table(table, tmp_path / "old.parquet")
    with pytest.raises(FormatError, match=message) as caught:
        Features.load(tmp_path / "old.parquet")
    assert str(tmp_path / "old.parquet") in str(caught.value)
    assert "\n" not in str(caught.value)


class Evil:
    """Marks the disk if anybody unpickles it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("name", ["old.pkl", "old.pickle", "old.npy", "old.npz", "old.pt", "old.pth"])
def test_a_pickle_is_refused_and_never_run(tmp_path, name):
    path, mark = tmp_path / name, tmp_path / "mark"
    path.write_bytes(pickle.dumps(Evil(mark)))
    with pytest.raises(FormatError, match=r"is a pickle"):
        Features.load(path)
    assert not mark.exists()


def test_pickles_inside_numpy_and_torch_files(tmp_path):
    mark = tmp_path / "mark"
    np.save(tmp_path / "old.npy", np.array([Evil(mark)], object))
    np.savez(tmp_path / "old.npz", vectors=np.array([Evil(mark)], object))
    torch.save({"vectors": Evil(mark)}, tmp_path / "old.pt")
    for name in ("old.npy", "old.npz", "old.pt"):
        with pytest.raises(FormatError, match=r"is a pickle"):
            Features.load(tmp_path / name)
    assert not mark.exists()


def whole(folder, name):
    path = folder / name
    arrays = {"vectors": VECTORS, "labels": LABELS, "ids": IDS}
    tensors = {key: torch.from_numpy(values) for key, values in arrays.items()}
    match path.suffix:
        case ".npy":
            np.save(path, VECTORS)
        case ".npz":
            np.savez(path, **arrays)
        case ".safetensors":
            save_file(tensors, path)
        case ".pt":
            torch.save(tensors, path)
        case ".parquet":
            pq.write_table(columns(label=LABELS, id=IDS), path)
    return path


NAMES = ["old.npy", "old.npz", "old.safetensors", "old.pt", "old.parquet"]


@pytest.mark.filterwarnings("ignore")  # torch's, about files it does not know
@pytest.mark.parametrize("name", NAMES)
def test_a_cut_file_is_never_taken_for_a_whole_one(tmp_path, name):
    path = whole(tmp_path, name)
    data = path.read_bytes()
    path.write_bytes(b"")
    with pytest.raises(FormatError, match=r"is empty \(0 bytes\)"):
        Features.load(path)
    for size in {*range(1, len(data), 1 + len(data) // 40), len(data) - 1}:
        path.write_bytes(data[:size])
        with pytest.raises(FormatError) as caught:
            Features.load(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_a_scrambled_file_gives_features_or_one_clear_line(tmp_path, name):
    path = whole(tmp_path, name)
    data = path.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(60):
        scrambled = bytearray(data)
        start = random.integers(len(data))
        scrambled[start : start + 8] = random.bytes(8)
        path.write_bytes(scrambled)
        try:
            Features.load(path)
        except FormatError as error:
            assert "\n" not in str(error)  # noqa: PT017


@pytest.mark.parametrize("name", NAMES)
def test_foreign_bytes(tmp_path, name):
    path = tmp_path / name
    path.write_text("<html>404: not found</html>\n" * 40)
    with pytest.raises(FormatError) as caught:
        Features.load(path)
    assert str(path) in str(caught.value)


def test_paths_that_hold_no_features(tmp_path):
    with pytest.raises(DataError, match=r"there is no .*gone; check the path"):
        Features.load(tmp_path / "gone")
    with pytest.raises(FormatError, match=r"holds no features: neither manifest\.json nor \.parquet files"):
        Features.load(tmp_path)
    (tmp_path / "old.csv").write_text("1,2\n")
    with pytest.raises(
        FormatError, match=r"old\.csv is text, and features are numbers in binary; save its columns as \.parquet or \.npz"
    ):
        Features.load(tmp_path / "old.csv")
    np.savez(tmp_path / "old.npz", embeddings=VECTORS)
    with pytest.raises(FormatError, match=r"old\.npz has no key 'vectors' or 'vector', only: embeddings; name the one with"):
        Features.load(tmp_path / "old.npz")
    np.save(tmp_path / "old.npy", np.ones((10, 4), int))
    with pytest.raises(FormatError, match=r"old\.npy: vectors must be float16, float32 or float64, not int64"):
        Features.load(tmp_path / "old.npy")
    np.save(tmp_path / "old.npy", np.ones(10))
    with pytest.raises(FormatError, match=r"old\.npy: vectors must be \(rows, dimension\).* got shape \(10,\)"):
        Features.load(tmp_path / "old.npy")
    torch.save([1, 2], tmp_path / "old.pt")
    with pytest.raises(FormatError, match=r"old\.pt holds a list; save a tensor, or a dict of tensors"):
        Features.load(tmp_path / "old.pt")
