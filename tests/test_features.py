"""Features in memory and in our folder: what goes in comes back, and nothing else is taken for it."""

import json
import pickle
import re
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compatlearn import arrays
from compatlearn.arrays import check_rows, check_vectors
from compatlearn.errors import DataError, FormatError, IncompatibleError
from compatlearn.features.features import Features
from compatlearn.features.folder import map_npy, strings
from test_files import largest_file


def some(rows=10, dimension=4, dtype="float32", text=False, **kwargs):
    vectors = np.random.default_rng(0).normal(size=(rows, dimension)).astype(dtype)
    ids = np.array([f"{row}-φ" if row % 2 else f"img/{row}" for row in range(rows)]) if text else np.arange(rows) * 7
    return Features(vectors, np.arange(rows) % 3, ids, **kwargs)


def same(one, other):
    assert one.vectors.dtype == other.vectors.dtype
    np.testing.assert_array_equal(one.vectors, other.vectors)
    assert (one.labels is None) == (other.labels is None)
    if one.labels is not None:
        assert one.labels.dtype == other.labels.dtype == np.int64
        np.testing.assert_array_equal(one.labels, other.labels)
    assert one.ids.dtype.kind == other.ids.dtype.kind
    np.testing.assert_array_equal(one.ids, other.ids)


def test_lists_and_tensors_become_arrays():
    features = Features(torch.ones(2, 3, dtype=torch.bfloat16), [1, 0], ["b", "a"])
    assert features.vectors.dtype == np.float32
    assert features.labels.tolist() == [1, 0]
    assert features.ids.tolist() == ["b", "a"]
    assert (len(features), features.dimension) == (2, 3)
    assert repr(features) == "Features(2 × 3 float32, labels, space='')"
    assert Features(np.ones((3, 2))).ids.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ((np.ones(3),), r"vectors must be \(rows, dimension\), both at least 1; got shape \(3,\)"),
        ((np.ones((0, 3)),), r"got shape \(0, 3\)"),
        ((np.ones((3, 2), int),), "vectors must be float16, float32 or float64, not int64"),
        (([[1.0], [1.0, 2.0]],), "give every row the same length"),
        ((np.ones((3, 2)), [0, 1]), r"labels must hold one class for each of 3 rows; got shape \(2,\)"),
        ((np.ones((3, 2)), [0.0, 1.0, 2.0]), "labels must be integers or names, not float64"),
        ((np.ones((3, 2)), [True, False, True]), "labels must be integers or names, not bool"),
        ((np.ones((3, 2)), None, [1, 2]), r"ids must hold one id for each of 3 rows; got shape \(2,\)"),
        ((np.ones((3, 2)), None, [0.5, 1.5, 2.5]), "ids must be integers or text, not float64"),
        ((np.ones((3, 2)), None, np.array([1, "a", None], object)), "ids must be integers or text, not object"),
        ((np.ones((1, 2)), None, np.array([2**63], np.uint64)), "ids must fit in 63 bits"),
    ],
)
def test_arrays_that_do_not_fit(arrays, message):
    with pytest.raises(DataError, match=message):
        Features(*arrays)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("text", [False, True])
def test_round_trip(tmp_path, dtype, text):
    features = some(dtype=dtype, text=text, space="resnet18@3f2a9c01", source="digits")
    features.save(tmp_path / "a", shard_rows=4)
    back = Features.load(tmp_path / "a", verify=True)
    same(back, features)
    assert (back.space, back.source, back.normalized) == ("resnet18@3f2a9c01", "digits", False)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["manifest.json", "rows.parquet", "vectors.npy"]
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert [(shard["first"], shard["rows"]) for shard in manifest["shards"]] == [(0, 4), (4, 4), (8, 2)]
    assert manifest | {"shards": 0, "rows_checksum": 0} == {
        "format": "compatlearn-features",
        "version": 1,
        "rows": 10,
        "dimension": 4,
        "dtype": dtype,
        "normalized": False,
        "shards": 0,
        "rows_checksum": 0,
        "space": "resnet18@3f2a9c01",
        "source": "digits",
    }


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ids=st.lists(st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"])), min_size=1),
    shard_rows=st.integers(1, 5),
)
def test_any_text_is_an_id(tmp_path, ids, shard_rows):
    Features(np.ones((len(ids), 1)), None, ids).save(tmp_path, shard_rows=shard_rows)
    back = Features.load(tmp_path, verify=True)
    assert back.ids.tolist() == ids
    assert back.labels is None


def test_a_strided_selection_is_saved_in_its_order(tmp_path):
    features = some(10)
    part = Features(np.asfortranarray(features.vectors)[::-2], features.labels[::-2], features.ids[::-2])
    part.save(tmp_path, shard_rows=2)
    same(Features.load(tmp_path, verify=True), features.take(np.arange(9, 0, -2)))


def test_vectors_are_mapped_and_never_written(tmp_path):
    some().save(tmp_path)
    before = (tmp_path / "vectors.npy").read_bytes()
    features = Features.load(tmp_path)
    with warnings.catch_warnings(action="error"):  # torch warns about read-only memory
        torch.from_numpy(features.vectors).zero_()
        torch.from_numpy(features.labels)
        torch.from_numpy(features.ids)
    assert (features.vectors == 0).all()
    assert (tmp_path / "vectors.npy").read_bytes() == before


def test_vectors_larger_than_memory_open(tmp_path):
    path = tmp_path / "huge.npy"
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False, "shape": (10_000_000_000, 512)})
        try:
            file.truncate(file.tell() + 10_000_000_000 * 1024)  # a hole of 10 TB: takes no room
        except OSError:
            pytest.skip("this file system has no files of 10 TB")
    features = Features.load(path)
    assert (len(features), features.dimension) == (10_000_000_000, 512)
    assert features.vectors[-1].tolist() == [0.0] * 512


def ruin(path, name):
    """Overwrite one column of a Parquet file; its schema stays."""
    group = pq.read_metadata(path).row_group(0)
    [column] = [group.column(i) for i in range(group.num_columns) if group.column(i).path_in_schema == name]
    first = column.dictionary_page_offset or column.data_page_offset
    data = bytearray(path.read_bytes())
    data[first : first + column.total_compressed_size] = bytes(column.total_compressed_size)
    path.write_bytes(data)


@pytest.mark.parametrize(("name", "other"), [("label", "ids"), ("id", "labels")])
def test_a_column_is_read_when_it_is_asked_for(tmp_path, name, other):
    some(10, text=True).save(tmp_path)
    ruin(tmp_path / "rows.parquet", name)
    features = Features.load(tmp_path)
    assert repr(features) == "Features(10 × 4 float32, labels, space='')"
    assert features.has_labels
    assert getattr(features, other).tolist() == getattr(some(10, text=True), other).tolist()
    for _ in range(2):
        with pytest.raises(FormatError, match=r"rows\.parquet cannot be read \(.+\); extract it again") as caught:
            getattr(features, f"{name}s")
        assert "\n" not in str(caught.value)


def test_columns_that_are_read_late_are_those_of_the_file_that_was_opened(tmp_path):
    some(10, text=True).save(tmp_path)
    early, copied = Features.load(tmp_path), pickle.loads(pickle.dumps(Features.load(tmp_path)))
    Features(np.ones((3, 2)), ids=[5, 6, 7]).save(tmp_path)
    same(early, some(10, text=True))
    same(copied, some(10, text=True))
    late = Features.load(tmp_path)
    assert (late.has_labels, late.labels, late.ids.tolist()) == (False, None, [5, 6, 7])


def test_labels_and_ids_that_are_neither(tmp_path):
    some(10).save(tmp_path)
    path = tmp_path / "rows.parquet"
    table = pq.read_table(path)
    for name, values in (("label", ["cat"] * 10), ("id", [0.5] * 10)):
        pq.write_table(table.set_column(table.schema.get_field_index(name), name, [values]), path)
        with pytest.raises(FormatError, match=r"rows\.parquet cannot be read \(label is .*, id is .*\); extract it again"):
            Features.load(tmp_path)
    pq.write_table(table.set_column(0, "label", [[None, *range(9)]]), path)
    with pytest.raises(FormatError, match=r"rows\.parquet has 1 rows without label; extract it again"):
        _ = Features.load(tmp_path).labels


@given(parts=st.lists(st.lists(st.text(st.characters(min_codepoint=1, max_codepoint=127), max_size=9)), min_size=1))
def test_ascii_in_chunks_is_the_text_that_numpy_makes_of_it(parts):
    chunks = [pa.array(["before", *part, "after"], pa.string()).slice(1, len(part)) for part in parts]
    found, expected = strings(pa.chunked_array(chunks)), [text for part in parts for text in part]
    assert found.tolist() == expected
    assert found.dtype == np.array(expected, dtype=str).dtype


LABELS = st.one_of(st.integers(0, 3), st.sampled_from([-1, 65535, 65536, 2**40]))


@given(labels=st.lists(LABELS, min_size=1), ordered=st.booleans())
def test_rows_of_class_are_those_with_its_label(labels, ordered):
    labels = np.array(sorted(labels) if ordered else labels)
    features = Features(np.ones((len(labels), 1)), labels)
    for label in {*labels.tolist(), 2, -1, 65536}:
        rows = features.rows_of_class(label)
        np.testing.assert_array_equal(rows, np.flatnonzero(labels == label))
        rows[:] = -1  # the caller's own
    with pytest.raises(DataError, match=r"has no labels \(3 rows\)"):
        Features(np.ones((3, 1))).rows_of_class(0)


def resident(path):
    """Bytes of a mapped file that this process has touched, with what the kernel maps around them."""
    [of_file] = re.findall(rf" {re.escape(str(path))}\n.*?^Rss: +(\d+) kB", Path("/proc/self/smaps").read_text(), re.M | re.S)
    return int(of_file) * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("ordered", [False, True])
def test_a_class_is_read_without_the_others(tmp_path, ordered):
    labels = np.random.default_rng(0).integers(0, 40_000, 400_000)
    labels = np.sort(labels) if ordered else labels
    path = tmp_path / "vectors.npy"
    vectors = np.lib.format.open_memmap(path, "w+", np.float32, (400_000, 1024))  # a row a page; 1.6 GB, nearly all a hole
    vectors[labels == 7, 0] = np.flatnonzero(labels == 7)
    del vectors
    features = Features(map_npy(path), labels)
    rows = features.rows_of_class(7)
    assert features.vectors[rows][:, 0].tolist() == rows.tolist()
    assert 4096 * len(rows) <= resident(path) < 4_000_000 * len(rows)  # the kernel maps some pages around each
    assert features.vectors[::-1][:20_000].max() >= 0
    assert resident(path) > 80_000_000


def test_normalized_is_stored(tmp_path):
    features = some()
    unit = Features(features.vectors / np.linalg.norm(features.vectors, axis=1, keepdims=True))
    assert (features.normalized, unit.normalized) == (False, True)
    unit.vectors[7] *= 1.01
    assert not Features(unit.vectors).normalized
    unit.vectors[7] /= 1.01
    for dtype in ("float16", "float32"):
        Features(unit.vectors.astype(dtype)).save(tmp_path, shard_rows=3)
        assert Features.load(tmp_path).known_normalized is True
    features.save(tmp_path, shard_rows=3)
    assert Features.load(tmp_path).known_normalized is False


def test_saving_replaces_even_the_features_it_reads(tmp_path):
    some(10, space="a").save(tmp_path)
    part = Features.load(tmp_path).take(slice(2, 5))
    part.save(tmp_path)
    same(Features.load(tmp_path, verify=True), some(10).take(np.array([2, 3, 4])))


def test_a_save_that_fails_leaves_no_manifest(tmp_path):
    some(10).save(tmp_path)
    with largest_file(10_000), pytest.raises(DataError, match=r"cannot write .*vectors\.npy: File too large; free some"):
        some(2000).save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.parquet", "vectors.npy"]
    with pytest.raises(FormatError, match=r"has no manifest\.json: writing it was not finished"):
        Features.load(tmp_path)


def rewrite(folder, **changes):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


DAMAGE = {
    "vectors cut": (lambda d: cut(d / "vectors.npy", 200), r"vectors\.npy is truncated: 200 of 288 bytes"),
    "vectors cut in the header": (lambda d: cut(d / "vectors.npy", 50), r"vectors\.npy is not a whole \.npy file"),
    "vectors gone": (lambda d: (d / "vectors.npy").unlink(), r"cannot read .*vectors\.npy: No such file"),
    "other vectors": (
        lambda d: np.save(d / "vectors.npy", np.ones((10, 5), "f4")),
        r"vectors\.npy is \(10, 5\) float32, but its manifest says \(10, 4\) float32; extract it again",
    ),
    "other dtype": (lambda d: np.save(d / "vectors.npy", np.ones((10, 4))), r"float64, but its manifest says \(10, 4\)"),
    "rows cut": (lambda d: cut(d / "rows.parquet", 300), r"rows\.parquet cannot be read"),
    "rows gone": (lambda d: (d / "rows.parquet").unlink(), r"rows\.parquet cannot be read"),
    "other rows": (
        lambda d: pq.write_table(pq.read_table(d / "rows.parquet").slice(0, 9), d / "rows.parquet"),
        r"rows\.parquet has 9 rows, but its manifest says 10",
    ),
    "no ids": (
        lambda d: pq.write_table(pq.read_table(d / "rows.parquet").drop_columns("id"), d / "rows.parquet"),
        r"rows\.parquet cannot be read",
    ),
    "newer version": (lambda d: rewrite(d, version=2), "has version 2, this compatlearn reads version 1; upgrade"),
    "foreign manifest": (lambda d: rewrite(d, format="other"), "is not a manifest of compatlearn features"),
    "a list": (lambda d: (d / "manifest.json").write_text("[]"), "is not a manifest of compatlearn features"),
    "no json": (lambda d: cut(d / "manifest.json", 30), r"manifest\.json is not JSON"),
    "a key gone": (lambda d: rewrite(d, dtype=None), r"manifest\.json has no usable dtype"),
    "shards that miss rows": (
        lambda d: rewrite(d, shards=[{"first": 0, "rows": 4, "checksum": "crc32:00000000"}]),
        "lists shards that do not add up to its 10 rows",
    ),
    "shards of nothing": (lambda d: rewrite(d, shards=[{}]), "lists shards that do not add up"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_folder_is_refused_without_reading_it_all(tmp_path, damage, message):
    some(10).save(tmp_path, shard_rows=4)
    damage(tmp_path)
    with pytest.raises(FormatError, match=message) as caught:
        Features.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_checksums_name_the_first_bad_shard(tmp_path):
    some(10).save(tmp_path, shard_rows=4)
    vectors = np.load(tmp_path / "vectors.npy", mmap_mode="r+")
    vectors[5, 3] += 1
    vectors[9, 0] += 1
    vectors.flush()
    Features.load(tmp_path)
    with pytest.raises(FormatError) as caught:
        Features.load(tmp_path, verify=True)
    expected = f"shard 1 (rows 4 to 7) of {tmp_path} does not match its checksum; extract it again"
    assert str(caught.value) == expected


def test_checksum_of_the_rows(tmp_path):
    features = some(10)
    features.save(tmp_path / "a")
    Features(features.vectors, features.labels[::-1], features.ids).save(tmp_path / "b")
    shutil.copy(tmp_path / "b" / "rows.parquet", tmp_path / "a")
    Features.load(tmp_path / "a")
    with pytest.raises(FormatError, match=r"rows\.parquet does not match its checksum"):
        Features.load(tmp_path / "a", verify=True)


def test_take_by_number_and_mask():
    features = some(10, space="a")
    chosen = features.take(np.array([9, 0, 0]))
    assert (chosen.ids.tolist(), chosen.labels.tolist(), chosen.space) == ([63, 0, 0], [0, 0, 0], "a")
    np.testing.assert_array_equal(chosen.vectors, features.vectors[[9, 0, 0]])
    assert features.take(features.labels == 1).ids.tolist() == [7, 28, 49]


@given(order=st.permutations(range(12)), wanted=st.lists(st.integers(0, 11)), text=st.booleans())
def test_align_finds_every_id(order, wanted, text):
    features = some(12, text=text).take(np.array(order))
    ids = some(12, text=text).ids[np.array(wanted, dtype=int)]
    np.testing.assert_array_equal(features.ids[features.align(ids)], ids)


def test_align_refuses_what_it_cannot_find():
    features = some(10).take(np.arange(10)[::-1])
    with pytest.raises(IncompatibleError) as caught:
        features.align(np.array([7, 8, 63, -1, 64, 1000]), "the old gallery")
    assert str(caught.value) == (
        "4 of 6 ids of the items are not in the old gallery (first: 8, -1, 64, …); extract the same rows with both models"
    )
    with pytest.raises(
        IncompatibleError,
        match=r"the ids of the items are text \(first: 7\) and those of the features numbers \(first: 63, 56, 49, …\)",
    ):
        features.align(np.array(["7"]))
    twice = features.take(np.array([0, 1, 1, 2, 3, 3]))
    with pytest.raises(DataError, match=r"2 ids of the features occur more than once \(first: 42, 56\)"):
        twice.align(np.array([63]))


def test_check_names_the_rows_at_fault():
    features = some(10)
    features.check()
    features.check(3)
    with pytest.raises(DataError) as caught:
        features.check(2, "the old query")
    assert str(caught.value) == (
        "3 of 10 labels of the old query are out of range [0, 2) (first: 2, 2, 2 in rows 2 (id 14), 5 (id 35), 8 (id 56)); "
        "give every row a class in range"
    )
    with pytest.raises(DataError, match=r"1 of 2 labels of the features are negative \(first: -1 in rows 1\)"):
        Features(np.ones((2, 2)), [0, -1]).check()
    features.vectors[3, 1], features.vectors[8, 0] = np.nan, -np.inf
    with pytest.raises(
        DataError, match=r"2 of 10 rows of the features have NaN or infinity \(first: 3 \(id 21\), 8 \(id 56\)\)"
    ):
        features.check()


def test_labels_may_be_missing_until_they_are_needed():
    features = Features(np.ones((3, 2)))
    features.check()
    message = (
        r"the old gallery has no labels \(3 rows\); store labels beside the vectors \(\.npz, \.parquet\), or name their column"
    )
    with pytest.raises(DataError, match=message):
        features.require_labels("the old gallery")
    with pytest.raises(DataError, match=message):
        features.check(2, "the old gallery")
    assert Features(np.ones((3, 2)), [2, 1, 0]).require_labels().tolist() == [2, 1, 0]


ROWS = st.sampled_from([[0.0, 0.0], [1.0, -2.0], [0.0, np.nan], [np.inf, 1.0], [6e4, 6e4], [6e-8, 0.0]])


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(ROWS, min_size=1, max_size=9), dtype=st.sampled_from(["float16", "float32", "float64"]), nonzero=st.booleans()
)
def test_vectors_are_checked_in_blocks_and_widened(monkeypatch, rows, dtype, nonzero):
    vectors = np.array(rows).astype(dtype)
    vectors.flags.writeable = False
    longest, tensor = [], arrays.as_tensor
    monkeypatch.setattr(arrays, "BLOCK", 2)
    monkeypatch.setattr(arrays, "as_tensor", lambda values: longest.append(len(values)) or tensor(values))
    endless = np.flatnonzero(~np.isfinite(vectors).all(axis=1)).tolist()
    zero = np.flatnonzero((vectors == 0).all(axis=1)).tolist() if nonzero else []
    bad = endless or zero
    if bad:
        fault = "NaN or infinity" if endless else "length zero"
        first = ", ".join(map(str, bad[:3])) + (", …" if len(bad) > 3 else "")
        with pytest.raises(DataError) as caught:
            check_rows(vectors, nonzero=nonzero)
        expected = f"{len(bad)} of {len(rows)} rows of vectors have {fault} (first: {first}); drop or extract them again"
        assert str(caught.value) == expected
    else:
        check_rows(vectors, nonzero=nonzero)
        assert max(longest) <= 2  # a memory map is never copied as a whole
        for given_rows in (vectors, tensor(vectors)):
            checked = check_vectors(given_rows, nonzero=nonzero)
            assert checked.dtype == (torch.float64 if dtype == "float64" else torch.float32)
            np.testing.assert_array_equal(checked.numpy(), vectors)
