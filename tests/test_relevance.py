"""What answers a query: by class and by judgement, against slow loops; and files of judgements."""

import json
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compatlearn import DataError, FormatError, IncompatibleError, Relevance
from compatlearn.evaluation import lookup as module

IDS = st.sampled_from(["", "a", "b", "c", "dd", "ä", "7"])


def test_same_class() -> None:
    same = Relevance.from_labels(np.array([7, 8, 9]), np.array([7, 7, 9]))
    hits = np.array([[2, 0, 1], [1, -1, -1], [-1, -7, 99]])
    assert same.of(np.arange(3), hits).tolist() == [[False, True, True], [False, False, False], [False, False, False]]
    assert same.of(torch.arange(3), torch.from_numpy(hits)).tolist() == same.of(np.arange(3), hits).tolist()
    assert same.counts(np.arange(3)).tolist() == [2, 0, 1]
    assert same.counts(np.arange(3), exclude=np.array([0, 1, -1])).tolist() == [1, 0, 1]  # row 1 is not of class 8
    assert same.grades([0], [[0, 2]]).tolist() == [[1, 0]]
    assert same.judged_items(np.arange(3)).tolist() == []
    assert same.at(["x", "y", "z"], [1, 2, 3]) is same
    with pytest.raises(IncompatibleError, match="labels of 3 queries and 3 gallery rows do not fit 3 and 4"):
        same.at([0, 1, 2], [0, 1, 2, 3])


def slow(judgements: dict[str, dict[str, float]], query: str, item: str) -> float:
    return judgements.get(query, {}).get(item, 0.0)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_judgements_against_a_dictionary(data: st.DataObject) -> None:
    grades = st.dictionaries(IDS, st.sampled_from([-1.0, 0.0, 0.5, 2.0]), max_size=5)
    judgements = data.draw(st.dictionaries(IDS, grades, min_size=1, max_size=5).filter(lambda row: any(row.values())))
    queries = data.draw(st.lists(IDS, min_size=1, max_size=6))
    gallery = data.draw(st.lists(IDS, min_size=1, max_size=7, unique=True))
    k = data.draw(st.integers(1, 5))
    rows = np.array(data.draw(st.lists(st.lists(st.integers(-1, len(gallery) - 1), min_size=k, max_size=k), min_size=1)))
    rows = rows[: len(queries)]
    queries = queries[: len(rows)]
    exclude = np.array([data.draw(st.integers(-1, len(gallery) - 1)) for _ in queries])
    named = np.where(rows < 0, "none", np.array(gallery)[rows])
    expected = [
        [slow(judgements, query, gallery[row]) if row >= 0 else 0.0 for row in found]
        for query, found in zip(queries, rows, strict=True)
    ]
    judged = Relevance.from_dict(judgements)
    at = judged.at(queries, gallery)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "HELD", data.draw(st.integers(1, 20)))
        assert judged.grades(queries, named).tolist() == expected
        assert at.grades(np.arange(len(queries)), rows).tolist() == expected
        assert (at.of(np.arange(len(queries)), rows) == (np.array(expected) > 0)).all()
    present = [[row for row, item in enumerate(gallery) if slow(judgements, query, item) > 0] for query in queries]
    assert at.counts(np.arange(len(queries))).tolist() == [len(found) for found in present]
    left = [sum(row != out for row in found) for found, out in zip(present, exclude, strict=True)]
    assert at.counts(np.arange(len(queries)), exclude).tolist() == left
    named = {item for query in queries for item in judgements.get(query, {})}
    assert at.judged_items(np.arange(len(queries))).tolist() == [row for row, item in enumerate(gallery) if item in named]
    assert judged.counts(queries).tolist() == [sum(g > 0 for g in judgements.get(query, {}).values()) for query in queries]
    assert at.unknown_queries == len(set(judgements) - set(queries))
    wanted = {item for query in queries for item, grade in judgements.get(query, {}).items() if grade > 0}
    assert at.unknown_items == len(wanted - set(gallery))


def test_numbers_match_the_digits_of_judgements_in_text() -> None:
    at = Relevance.from_dict({"1": ["10"], "2": ["20", "30"]}).at(np.array([2, 1]), np.array([10, 20]))
    assert at.of([0, 1], [[0, 1], [0, 1]]).tolist() == [[False, True], [True, False]]
    assert (at.unknown_queries, at.unknown_items) == (0, 1)
    with pytest.raises(IncompatibleError, match="ids of the queries are text and those of the judgements numbers"):
        Relevance.from_dict({1: [2]}).at(["1"], [2])


def test_many_hits_are_quick() -> None:
    """A tenth of them here; 10⁵ queries × 1000 hits take ten times as long."""
    random = np.random.default_rng(0)
    queries, gallery = 10_000, 100_000
    hits = random.integers(0, gallery, (queries, 1000))
    judged = Relevance.from_dict({query: random.integers(0, gallery, 50).tolist() for query in range(queries)})
    at, started = judged.at(np.arange(queries), np.arange(gallery)), time.process_time()
    right = at.of(np.arange(queries), hits)
    assert time.process_time() - started < 15
    assert right.mean() == pytest.approx(50 / gallery, rel=0.2)


BEIR = "query-id\tcorpus-id\tscore\nq 1\td1\t2\nq 1\td2\t0\n\nq2\td2\t1\n"
TREC = "q1 0 d1 2\nq1 0 d2 0\nq2\tQ0\td2\t1\n"


@pytest.mark.parametrize(("text", "first"), [(BEIR, "q 1"), (BEIR.split("\n", 1)[1], "q 1"), ("\ufeff" + TREC, "q1")])
def test_files(tmp_path: Path, text: str, first: str) -> None:
    path = tmp_path / "test.tsv"
    path.write_text(text, encoding="utf-8")
    judged = Relevance.from_qrels(path)
    assert judged.grades([first, "q2"], [["d1", "d2"], ["d1", "d2"]]).tolist() == [[2, 0], [0, 1]]
    assert repr(judged) == "Relevance(3 judgements: 2 queries, 2 items)"


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("query-id\tcorpus-id\tscore\nq1\td1\n", FormatError, r"line 2 of .*test.tsv is no judgement \('q1\\td1'\)"),
        (TREC + "q3 0 d1 yes\n", FormatError, "line 4 of .* is no judgement"),
        (TREC + "q1 0 d1 1\n", FormatError, "lines 1 and 4 of .* give item 'd1' of query 'q1' the grades 2 and 1"),
        ("query-id\tcorpus-id\tscore\n", DataError, "holds no judgement"),
        ("a b c d e f\n", FormatError, "line 1 of"),
    ],
)
def test_files_that_are_none(tmp_path: Path, text: str, error: type[Exception], message: str) -> None:
    path = tmp_path / "test.tsv"
    path.write_text(text)
    with pytest.raises(error, match=message):
        Relevance.from_qrels(path)


def test_no_file_and_no_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there are no judgements .*none\.tsv"):
        Relevance.from_qrels(tmp_path / "none.tsv")
    (tmp_path / "bytes.tsv").write_bytes(b"q1\t\xff\t1\n")
    with pytest.raises(FormatError, match=r"is not text in UTF-8 .* at byte 3"):
        Relevance.from_qrels(tmp_path / "bytes.tsv")


@pytest.mark.parametrize(
    ("judgements", "message"),
    [
        ({}, "there is no judgement"),
        ({"q": {}}, "there is no judgement"),
        ({"q": {"a": "good"}}, "grades must be numbers"),
        ({"q": {"a": float("nan")}}, "1 of 1 grades are not finite"),
        ({"q": ["a", 1]}, "some item ids are numbers and some text"),
        ({"q": ["a"], 1: ["a"]}, "some query ids are numbers and some text"),
        ({"q": [0.5]}, "item ids must be whole numbers or text; got float64"),
    ],
)
def test_judgements_that_are_none(judgements: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Relevance.from_dict(judgements)


def test_labels_of_two_kinds() -> None:
    with pytest.raises(IncompatibleError, match="labels of the queries are <U3 and those of the gallery int64"):
        Relevance.from_labels(["cat"], [1])


def test_pairs_add_up() -> None:
    clicked = Relevance.from_pairs(["q", "q", "r", "q"], ["a", "b", "a", "a"], [2, 1, 0, 0.5])
    assert clicked.grades(["q", "r"], [["a", "b"], ["a", "b"]]).tolist() == [[2.5, 1], [0, 0]]
    assert clicked.counts(["q", "r"]).tolist() == [2, 0]
    assert Relevance.from_pairs(np.array([1, 1]), np.array([7, 7])).grades([1], [[7]]).tolist() == [[2]]
    assert repr(clicked) == "Relevance(3 judgements: 2 queries, 2 items)"


def test_queries_that_nobody_judged_are_counted() -> None:
    at = Relevance.from_dict({"a": {"x": 1}, "b": {"x": 0}, "c": {}}).at(["a", "b", "c", "d"], ["x"])
    assert at.unjudged == 2  # b was judged, and nothing answers it
    assert at.counts(np.arange(4)).tolist() == [1, 0, 0, 0]


CLICKS = [("q1", "7", 2), ("q1", "8", 1), ("q2", "7", 1), ("q1", "7", 3)]


@pytest.mark.parametrize(
    "kind", ["comma.csv", "tab.csv", "semicolon.csv", "bom.csv", "tab.tsv", "lines.jsonl", "numbers.parquet"]
)
def test_tables_of_clicks(tmp_path: Path, kind: str) -> None:
    path, delimiter = tmp_path / kind, {"tab": "\t", "semicolon": ";"}.get(kind.split(".")[0], ",")
    if path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(dict(zip(("query_id", "item_id", "count"), row, strict=True))) for row in CLICKS))
    elif path.suffix == ".parquet":
        queries, items, counts = zip(*CLICKS, strict=True)
        pq.write_table(pa.table({"query": queries, "item": [int(item) for item in items], "clicks": counts}), path)
    else:
        rows = [("query_id", "item_id", "count"), *CLICKS]
        text = "\n".join(delimiter.join(map(str, row)) for row in rows)
        path.write_text(text, encoding="utf-8-sig" if kind == "bom.csv" else "utf-8")
    clicked = Relevance.from_clicks(path)
    assert clicked.grades(["q1", "q2"], [["7", "8"], ["7", "8"]]).tolist() == [[5, 1], [1, 0]]
    assert clicked.at(["q1"], np.array([8, 7])).grades([0], [[0, 1]]).tolist() == [[1, 5]]  # numbers by their digits


def test_clicks_without_counts(tmp_path: Path) -> None:
    path = tmp_path / "clicks.tsv"
    path.write_text("user\tquery_id\titem_id\nu\tq\ta\nv\tq\ta\n")
    assert Relevance.from_clicks(path).grades(["q"], [["a"]]).tolist() == [[2]]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("q1,a\nq1,b\n", FormatError, r"clicks.csv has no column 'query_id', only: 'q1', 'a' .*; name one so in its header"),
        ("query_id,document\nq1,a\n", FormatError, "has no column 'item_id', only: 'query_id', 'document'"),
        (
            "query_id,item_id,count\nq1,a,many\n",
            DataError,
            r"1 of 1 rows .* no count of 0 or more in 'count' \(first: line 2\)",
        ),
        ("query_id,item_id,count\nq1,a,1\nq1,b,-2\n", DataError, r"1 of 2 rows .* \(first: line 3\)"),
        ("query_id,item_id,count\nq1,a,nan\n", DataError, "no count of 0 or more"),
        ("query_id,item_id\nq1,\n", DataError, r"1 of 1 rows of .* have no id in column 'item_id' \(first: line 2\)"),
        ("query_id,item_id\n", DataError, "holds no click"),
        ("query_id,item_id\nq1,a,b\n", FormatError, "line 2 has 3 fields and the header 2"),
        ("", FormatError, "is empty"),
    ],
)
def test_clicks_that_are_none(tmp_path: Path, text: str, error: type[Exception], message: str) -> None:
    path = tmp_path / "clicks.csv"
    path.write_text(text)
    with pytest.raises(error, match=message):
        Relevance.from_clicks(path)


def test_no_clicks(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there are no clicks .*none\.csv"):
        Relevance.from_clicks(tmp_path / "none.csv")
    (tmp_path / "clicks.xlsx").touch()
    with pytest.raises(FormatError, match=r"clicks.xlsx is no table of clicks; write .*\.csv.* or \.parquet"):
        Relevance.from_clicks(tmp_path / "clicks.xlsx")
    with pytest.raises(DataError, match=r"1 of 2 weights are below 0 \(first: 1\)"):
        Relevance.from_pairs(["a", "a"], ["b", "c"], [1, -1])
    with pytest.raises(IncompatibleError, match="a query, an item and a weight; got 2, 1 and 2"):
        Relevance.from_pairs(["a", "b"], ["b"])
