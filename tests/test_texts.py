"""Texts from files of every kind, and the one line that says what is wrong with them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compatlearn.data.texts import Texts, holds_texts, open_texts
from compatlearn.errors import DataError, FormatError

MIXED = [
    "plain",
    "日本語と emoji 😀👩‍🚀",
    "עברית العربية",
    "a\u0301 ß \u2028 line separator",
    'quotes " and, commas; here\nnew line',
]


def lines(path: Path, *rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    return path


def as_jsonl(folder: Path) -> Path:
    return lines(folder / "t.jsonl", *({"id": f"i{n}", "text": text, "label": "ba"[n % 2]} for n, text in enumerate(MIXED)))


def as_csv(folder: Path, delimiter: str = ",", start: str = "", end: str = "\n", suffix: str = "csv") -> Path:
    quoted = ('"' + text.replace('"', '""') + '"' for text in MIXED)
    rows = ["id,text,label".replace(",", delimiter)]
    rows += [delimiter.join((f"i{n}", text, "ba"[n % 2])) for n, text in enumerate(quoted)]
    (folder / f"t.{suffix}").write_bytes((start + end.join(rows) + end).encode())
    return folder / f"t.{suffix}"


def as_parquet(folder: Path) -> Path:
    columns = {"id": [f"i{n}" for n in range(5)], "text": MIXED, "label": ["ba"[n % 2] for n in range(5)]}
    pq.write_table(pa.table(columns), folder / "t.parquet")
    return folder / "t.parquet"


@pytest.mark.parametrize(
    "write",
    [
        as_jsonl,
        as_csv,
        as_parquet,
        lambda folder: as_csv(folder, start="\ufeff", end="\r\n"),
        lambda folder: as_csv(folder, ";"),
        lambda folder: as_csv(folder, "|"),
        lambda folder: as_csv(folder, "\t", suffix="tsv"),
        lambda folder: as_csv(folder, "\t", suffix="csv"),
    ],
)
def test_every_kind_of_file_gives_the_same_texts(write: Callable[[Path], Path], tmp_path: Path) -> None:
    path = write(tmp_path)
    texts = open_texts(path)
    assert texts.texts == MIXED
    assert texts.ids.tolist() == ["i0", "i1", "i2", "i3", "i4"]
    assert texts.labels is not None
    assert (texts.labels.tolist(), texts.classes) == ([1, 0, 1, 0, 1], ("a", "b"))
    assert (texts.source, texts.ids_from, texts.text_from) == (str(path), "column 'id'", "column 'text'")
    assert holds_texts(str(path))


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=1, max_size=5))
def test_any_text_survives_json_lines(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    texts = [text + "x" for text in texts]
    path = lines(tmp_path_factory.mktemp("any") / "t.jsonl", *({"text": text} for text in texts))
    assert open_texts(path).texts == texts


def test_a_megabyte_is_a_text_too(tmp_path: Path) -> None:
    text = "word " * 200_000
    (tmp_path / "t.csv").write_text(f"id,text\n1,{text}\n2,short\n")
    lines(tmp_path / "t.jsonl", {"text": text}, {"text": "short"})
    assert [len(one) for one in open_texts(tmp_path / "t.csv").texts] == [1_000_000, 5]
    assert [len(one) for one in open_texts(tmp_path / "t.jsonl").texts] == [1_000_000, 5]


def test_beir_joins_title_and_text(tmp_path: Path) -> None:
    lines(
        tmp_path / "corpus.jsonl", {"_id": "d1", "title": "Title", "text": "body"}, {"_id": "d2", "title": "", "text": "alone"}
    )
    lines(tmp_path / "queries.jsonl", {"_id": "q1", "text": "what?", "metadata": {"a": [1]}})
    (tmp_path / "qrels").mkdir()
    corpus, queries = open_texts(f"{tmp_path}:corpus"), open_texts(tmp_path, split="queries")
    assert (corpus.texts, corpus.ids.tolist(), corpus.ids_from) == (["Title body", "alone"], ["d1", "d2"], "column '_id'")
    assert corpus.text_from == "columns 'title' and 'text'"
    assert open_texts(f"{tmp_path}:corpus", text_column="text").texts == ["body", "alone"]
    assert queries.texts == ["what?"]
    assert corpus.labels is None
    assert holds_texts(str(tmp_path))
    with pytest.raises(DataError, match=rf"{tmp_path} holds corpus, queries; name one as {tmp_path}:corpus"):
        open_texts(tmp_path)
    with pytest.raises(DataError, match="has no split 'test', only corpus, queries"):
        open_texts(f"{tmp_path}:test")


def test_a_folder_of_splits(tmp_path: Path) -> None:
    lines(tmp_path / "train.jsonl", {"id": 1, "text": "a"})
    lines(tmp_path / "test.jsonl", {"id": 2, "text": "b"})
    assert open_texts(tmp_path).texts == ["a"]
    assert open_texts(f"{tmp_path}:test").texts == open_texts(f"{tmp_path}:val").texts == ["b"]


def test_parquet_in_parts_is_one_table(tmp_path: Path) -> None:
    for part in range(2):
        pq.write_table(pa.table({"text": [f"{part}"], "id": [part]}), tmp_path / f"train-0000{part}-of-00002.parquet")
    pq.write_table(pa.table({"text": ["t"], "id": [5]}), tmp_path / "test-00000-of-00001.parquet")
    assert open_texts(tmp_path).texts == ["0", "1"]
    assert holds_texts(str(tmp_path))
    pq.write_table(pa.table({"text": [""], "id": [1]}), tmp_path / "train-00001-of-00002.parquet")
    with pytest.raises(DataError, match=r"\(first: train-00001-of-00002.parquet, row 0, id 1\)"):
        open_texts(tmp_path)


def test_columns_by_any_name(tmp_path: Path) -> None:
    path = lines(tmp_path / "t.jsonl", {"sku": 7, "name": "a", "kind": "x"}, {"sku": 8, "name": "b", "kind": "y"})
    texts = open_texts(path, text_column="name", id_column="sku", label_column="kind")
    assert (texts.texts, texts.ids.tolist(), texts.classes) == (["a", "b"], [7, 8], ("x", "y"))
    assert open_texts(path, text_column="name").could_be_ids == ("sku", "kind")
    assert open_texts(path, text_column="name", id_column="row").ids_from == "row numbers, as asked"
    assert open_texts(lines(tmp_path / "q.jsonl", {"question": "a", "qid": 3})).ids.tolist() == [3]


def test_numbers_in_csv_are_numbers(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,text,label\n10,1,0\n9,2,1\n")
    texts = open_texts(tmp_path / "t.csv")
    assert (texts.ids.dtype, texts.texts, texts.classes) == (np.int64, ["1", "2"], None)
    (tmp_path / "t.csv").write_text("id,text\n010,1\n9,2\n")
    assert open_texts(tmp_path / "t.csv").ids.tolist() == ["010", "9"]


BAD: dict[str, tuple[bytes, type[DataError], str]] = {
    "empty.jsonl": (
        b'{"id": 1, "text": "a"}\n\n{"id": 2, "text": " "}',
        DataError,
        r"1 of 2 rows of .* are empty \(first: line 3, id 2\); mend",
    ),
    "nul.jsonl": (
        b'{"id": "x", "text": "a\\u0000b"}',
        DataError,
        r"1 of 1 rows of .* hold NUL bytes \(first: line 1, id 'x'\)",
    ),
    "half.jsonl": (
        b'{"id": "x", "text": "\\ud83d"}',
        DataError,
        r"half of a character \(a lone surrogate\) \(first: line 1, id 'x'\)",
    ),
    "number.jsonl": (
        b'{"id": 1, "text": "a"}\n{"id": 2, "text": 3.5}',
        DataError,
        r"are not texts in column 'text', but float \(first: line 2, id 2\)",
    ),
    "absent.jsonl": (
        b'{"id": 1, "text": "a"}\n{"id": 2}',
        DataError,
        r"are not texts in column 'text', but nothing \(first: line 2, id 2\)",
    ),
    "twice.jsonl": (
        b'{"id": "x", "text": "a"}\n{"id": "y", "text": "b"}\n{"id": "x", "text": "c"}',
        DataError,
        r"1 of 3 rows of .* repeat an id of column 'id' \(first: 'x' in line 1 and line 3\); .*id_column='row'",
    ),
    "mixed.jsonl": (
        b'{"id": 1, "text": "a"}\n{"id": "1", "text": "b"}',
        DataError,
        r"mix numbers and texts in the ids of column 'id' \(first: line 2\)",
    ),
    "floats.jsonl": (
        b'{"id": 1.5, "text": "a"}',
        DataError,
        r"have an id that is no integer or text in column 'id' \(first: line 1\)",
    ),
    "large.jsonl": (
        b'{"id": 9223372036854775808, "text": "a"}',
        DataError,
        r"have an id of more than 63 bits \(first: line 1\)",
    ),
    "null.jsonl": (
        b'{"id": 1, "text": "a"}\n{"id": null, "text": "b"}',
        DataError,
        r"have no id in column 'id' \(first: line 2\)",
    ),
    "broken.jsonl": (
        b'{"id": 1, "text": "a"}\n{"id": 2, "text": ',
        FormatError,
        r"line 2, column 19 is not JSON: Expecting value; mend it",
    ),
    "list.jsonl": (b'[{"text": "a"}]', FormatError, r"line 1 is a JSON list, not one object; write JSON lines"),
    "document.json": (b'[\n  {"text": "a"}\n]', FormatError, r"is one JSON document, not one object a line; write JSON lines"),
    "string.jsonl": (b'"text"', FormatError, r"line 1 is not a JSON object"),
    "latin.csv": (
        "id,text\n1,a\n2,café\n".encode("latin-1"),
        FormatError,
        r"is not UTF-8 \(line 3, byte 0xe9\); save it as UTF-8",
    ),
    "utf16.csv": ("id,text\n1,a\n".encode("utf-16"), FormatError, r"is UTF-16 \(line 1, byte 0xff\); save it as UTF-8"),
    "nothing.csv": (b"\n \n", FormatError, r"is empty \(3 bytes\); write it again"),
    "zero.jsonl": (b"", FormatError, r"is empty \(0 bytes\); write it again"),
    "header.csv": (b"id,text\n", FormatError, r"has no rows; write it again or choose another split"),
    "delimiter.csv": (
        b"id^text^label\n1^a^x\n",
        DataError,
        r"has no column 'text', only: 'id\^text\^label' \(split at the comma; known are comma, tab, .* and bar\); name",
    ),
    "ragged.csv": (
        b"id,text\n1,a\n2,b, and c\n",
        FormatError,
        r"line 3 has 3 fields and the header 2 \(id, text\); quote texts that hold",
    ),
    "quote.csv": (b'id,text\n1,"a\n2,b\n', FormatError, r"line 3: unexpected end of data; mend the quotes"),
    "columns.csv": (b"text,text\n1,a\n", FormatError, r"has two columns of the same name \(text, text\); rename one"),
    "several.csv": (
        b"question,body\na,b\n",
        DataError,
        r"no column 'text', and several that could hold the texts: question, body; name one",
    ),
    "label.jsonl": (
        b'{"text": "a", "label": 1}\n{"text": "b"}',
        DataError,
        r"have no label in column 'label' \(first: line 2, id 1\); .*label_column='none'",
    ),
    "score.jsonl": (
        b'{"text": "a", "label": 0.5}',
        DataError,
        r"have a label that is no integer or text .* in column 'label' \(first: line 1",
    ),
    "minus.jsonl": (b'{"text": "a", "label": -1}', DataError, r"have a label below 0 or above 63 bits in column 'label'"),
    "t.parquet": (b"PAR1 and then nothing", FormatError, r"is not a whole Parquet file \(21 bytes\)"),
    "t.docx": (b"PK", FormatError, r"is a .docx file, and texts are read from .jsonl, .ndjson, .csv, .tsv, .json and .parquet"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line(name: str, tmp_path: Path) -> None:
    content, kind, line = BAD[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(kind, match=line) as caught:
        open_texts(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


def test_names_that_are_not_there(tmp_path: Path) -> None:
    path, empty = lines(tmp_path / "t.jsonl", {"text": "a", "label": 0.5}), tmp_path / "empty"
    empty.mkdir()
    for keyword in ("text_column", "id_column", "label_column"):
        with pytest.raises(DataError, match=f"has no column 'nope' for {keyword}, only: 'text', 'label'; name one of these"):
            open_texts(path, **{keyword: "nope"})
    assert open_texts(path, label_column="none").labels is None
    with pytest.raises(DataError, match=r"there is no .*/nothing.jsonl; give a .jsonl,"):
        open_texts(tmp_path / "nothing.jsonl")
    with pytest.raises(DataError, match=r"holds no \.jsonl"):
        open_texts(empty)


def test_lists_become_texts() -> None:
    texts = Texts.of(["a", "b", "c"], labels=["y", "x", "y"])
    assert (texts.ids.tolist(), texts.ids_from, texts.classes) == ([0, 1, 2], "row numbers", ("x", "y"))
    part = texts.take(np.array([2, 0]))
    assert part.labels is not None
    assert (part.texts, part.ids.tolist(), part.labels.tolist(), len(part)) == (["c", "a"], [2, 0], [1, 1], 2)
    with pytest.raises(DataError, match="the texts: 2 texts, 1 ids; give every text one of each"):
        Texts.of(["a", "b"], [1])
    with pytest.raises(DataError, match=r"1 of 2 rows of queries are empty \(first: row 1, id 'b'\)"):
        Texts.of(["a", ""], np.array(["a", "b"]), source="queries")
    with pytest.raises(FormatError, match="the texts has no rows"):
        Texts.of([])


def test_pictures_are_not_texts(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [b""], "text": ["caption"]}), tmp_path / "pictures.parquet")
    pq.write_table(pa.table({"photo": [b""], "label": ["x"]}), tmp_path / "unknown.parquet")
    (tmp_path / "folder" / "train" / "cat").mkdir(parents=True)
    (tmp_path / "folder" / "labels.csv").write_text("a,b\n")
    lines(tmp_path / "folder" / "metadata.jsonl", {"file_name": "a.png"})
    for data in ("digits", "digits:val", *(str(tmp_path / name) for name in ("pictures.parquet", "unknown.parquet", "folder"))):
        assert not holds_texts(data), data
        assert holds_texts(data, text_column="text")


def test_a_data_set_of_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]})
    table = table.cast_column("label", datasets.ClassLabel(names=["bad", "good"]))
    monkeypatch.setattr(datasets, "load_dataset", lambda name: datasets.DatasetDict(train=table, test=table.select([1])))
    monkeypatch.setattr("compatlearn.data.hub.reachable", lambda address: True)
    texts = open_texts("owner/reviews")
    assert texts.labels is not None
    assert (texts.texts, texts.labels.tolist(), texts.classes) == (["a", "b"], [1, 0], ("bad", "good"))
    assert open_texts("owner/reviews:test").texts == ["b"]
    assert holds_texts("owner/reviews")
