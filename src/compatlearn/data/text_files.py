"""Tables of anyone's texts: JSON lines, comma- or tab-separated values, Parquet. Each row keeps the place it came from."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import FormatError, first_few

LINES = (".jsonl", ".ndjson", ".json")
SEPARATED = (".csv", ".tsv")
KINDS = (*LINES[:2], *SEPARATED, LINES[2])
PARQUET = (".parquet", ".pq")
NAMES = {",": "comma", "\t": "tab", ";": "semicolon", "|": "bar"}
WHOLE = re.compile(r"0|-?[1-9][0-9]{0,18}")
ABSENT = object()  # a key that a line of JSON does not have


@dataclass(frozen=True)
class Table:
    """Columns of the same length.

    Attributes:
        name: what messages call it.
        columns: name → n values.
        place: row → "line 7", "row 6": where it is in the file.
        hint: what to add where a column is missing: the delimiter that was found.
    """

    name: str
    columns: dict[str, list[Any]]
    place: Callable[[int], str]
    hint: str = ""

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))

    def could_be_ids(self, taken: Sequence[str]) -> tuple[str, ...]:
        """Columns, other than those that are taken, with another integer or short text in every row."""
        found = []
        for name, values in self.columns.items():
            kinds = {type(value) for value in values}
            short = kinds == {int} or (kinds == {str} and max(map(len, values)) < 100)
            if name not in taken and short and len(values) > 1 and len(set(values)) == len(values):
                found.append(name)
        return tuple(found)


def read_table(files: Sequence[Path], name: str, wanted: Sequence[str]) -> Table:
    """The rows of files, one file after the other.

    Args:
        files: of one kind.
        name: what messages call all of them.
        wanted: names of columns with texts: a header with one of them is split by the right delimiter.

    Returns:
        The table; a single file keeps its own name and line numbers.

    Raises:
        FormatError: a file is damaged, of another kind, not UTF-8, or has other columns than the first.
    """
    tables = [_read(file, wanted) for file in files]
    if len(tables) == 1:
        return Table(name, tables[0].columns, tables[0].place, tables[0].hint)
    columns: dict[str, list[Any]] = {column: [] for column in tables[0].columns}
    places: list[tuple[Path, Callable[[int], str], int]] = []
    for file, table in zip(files, tables, strict=True):
        if set(table.columns) != set(columns):
            raise FormatError(
                f"{file} has the columns {', '.join(table.columns)}, but {files[0]} has {', '.join(columns)}; "
                "give every file the same columns"
            )
        for column, values in table.columns.items():
            columns[column].extend(values)
        places.extend((file, table.place, row) for row in range(len(table)))
    return Table(name, columns, lambda row: f"{places[row][0].name}, {places[row][1](places[row][2])}")


def _read(path: Path, wanted: Sequence[str]) -> Table:
    suffix = path.suffix.lower()
    if suffix in PARQUET:
        return _parquet(path)
    if suffix in LINES:
        return _json_lines(path)
    if suffix in SEPARATED:
        return _separated(path, wanted)
    raise FormatError(
        f"{path} is a {suffix or 'nameless'} file, and texts are read from {', '.join(KINDS)} and .parquet; write one of these"
    )


def _content(path: Path) -> str:
    """The text of a file, without a byte-order mark."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise FormatError(f"cannot read {path}: {error.strerror or error}; check its permissions") from error
    if not raw.strip():
        raise FormatError(f"{path} is empty ({len(raw)} bytes); write it again")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        kind = "UTF-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "not UTF-8"
        raise FormatError(
            f"{path} is {kind} (line {line}, byte {raw[error.start]:#04x}); save it as UTF-8, for example with iconv"
        ) from error


def _json_lines(path: Path) -> Table:
    rows, lines = [], []
    for number, line in enumerate(_content(path).split("\n"), 1):
        if line.strip():
            rows.append(_json_object(line, path, number))
            lines.append(number)
    keys = dict.fromkeys(key for row in rows for key in row)
    columns = {key: [row.get(key, ABSENT) for row in rows] for key in keys}
    return Table(str(path), columns, lambda row: f"line {lines[row]}")


def _json_object(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        if number == 1 and line.strip() in ("[", "{", "[{"):
            raise FormatError(f"{path} is one JSON document, not one object a line; write JSON lines (jq -c '.[]')") from error
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply"
        column = f", column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        raise FormatError(f"{path}, line {number}{column} is not JSON: {reason}; mend it or write the file again") from error
    if isinstance(row, list):
        raise FormatError(f"{path}, line {number} is a JSON list, not one object; write JSON lines (jq -c '.[]')")
    if not isinstance(row, dict):
        raise FormatError(f'{path}, line {number} is not a JSON object; write lines such as {{"id": "a", "text": "…"}}')
    return row


def _separated(path: Path, wanted: Sequence[str]) -> Table:
    content = _content(path)
    delimiter = _delimiter(content, path, wanted)
    before = csv.field_size_limit(max(len(content), csv.field_size_limit()))  # a text may have a megabyte
    try:
        header, rows, lines = _fields(content, delimiter, path)
    finally:
        csv.field_size_limit(before)
    columns: dict[str, list[Any]] = {
        name: [row[place] for row in rows] if name in wanted else _numbers([row[place] for row in rows])
        for place, name in enumerate(header)
    }
    said = NAMES[delimiter] + ("; known are comma, tab, semicolon and bar" if len(header) == 1 else "")
    return Table(str(path), columns, lambda row: f"line {lines[row]}", f" (split at the {said})")


def _fields(content: str, delimiter: str, path: Path) -> tuple[list[str], list[list[str]], list[int]]:
    """The header, the rows, and the line that each row begins in."""
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        header = [name.strip() for name in next(reader)]
        line = reader.line_num + 1
        for row in reader:
            if row and len(row) != len(header):
                raise FormatError(
                    f"{path}, line {line} has {len(row)} fields and the header {len(header)} ({first_few(header, 8)}); "
                    "quote texts that hold the delimiter or a line break"
                )
            if row:
                rows.append(row)
                lines.append(line)
            line = reader.line_num + 1
    except csv.Error as error:
        raise FormatError(f"{path}, line {reader.line_num}: {error}; mend the quotes or write the file again") from error
    if len(set(header)) < len(header):
        raise FormatError(f"{path} has two columns of the same name ({', '.join(header)}); rename one")
    return header, rows, lines


def _delimiter(content: str, path: Path, wanted: Sequence[str]) -> str:
    """The delimiter whose header has a column of texts, and of these the one that gives the most columns."""

    def rank(delimiter: str) -> tuple[bool, int, bool]:
        header = _header(content, delimiter)
        known = any(name in wanted for name in header)
        return known, len(header), delimiter == ("\t" if path.suffix.lower() == ".tsv" else ",")

    return max(NAMES, key=rank)


def _header(content: str, delimiter: str) -> list[str]:
    lines: Iterator[str] = iter(content.splitlines(keepends=True))
    try:
        return [name.strip() for name in next(csv.reader(lines, delimiter=delimiter))]
    except (csv.Error, StopIteration):
        return []


def _numbers(values: list[str]) -> list[Any]:
    """Integers where every value is written as one, as in other kinds of files; texts otherwise."""
    return [int(value) for value in values] if values and all(WHOLE.fullmatch(value) for value in values) else values


def _parquet(path: Path) -> Table:
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        size = path.stat().st_size
        raise FormatError(f"{path} is not a whole Parquet file ({size} bytes); write or download it again") from error
    flat = [field.name for field in table.schema if not pa.types.is_nested(field.type) and not pa.types.is_binary(field.type)]
    columns = {name: table[name].to_pylist() for name in flat}
    return Table(str(path), columns, lambda row: f"row {row}")
