"""Tables of clicks, or of any pairs of a query and an item that answers it."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from ..data.text_files import KINDS, PARQUET, Table, read_table
from ..errors import DataError, FormatError

QUERY_COLUMNS = ("query_id", "query-id", "query", "qid")
ITEM_COLUMNS = ("item_id", "item-id", "item", "corpus-id", "doc_id", "docid", "document_id", "product_id")
COUNT_COLUMNS = ("count", "clicks", "weight", "grade", "score")


def read_clicks(path: Path) -> tuple[list[str], list[str], Float[np.ndarray, " m"]]:
    """Query, item and count of each row of a table.

    Args:
        path: CSV, TSV, JSON lines or Parquet, with a header: `query_id`, `item_id`, and perhaps `count`.

    Returns:
        m query ids and m item ids, as text, and (m,) float64 counts, finite and 0 or more; 1 where no column has them.

    Raises:
        DataError: there is no such file, it holds no row, or an id or a count that is none.
        FormatError: it cannot be read, or lacks a column.
    """
    if not path.is_file():
        raise DataError(f"there are no clicks {path}; check the path")
    if path.suffix.lower() not in (*KINDS, *PARQUET):
        raise FormatError(f"{path} is no table of clicks; write {', '.join(KINDS)} or .parquet")
    table = read_table([path], str(path), (*QUERY_COLUMNS, *ITEM_COLUMNS))
    query, item = (column_of(table, names) for names in (QUERY_COLUMNS, ITEM_COLUMNS))
    if not len(table):
        raise DataError(f"{path} holds no click; write a query id and an item id per row")
    count = next((name for name in COUNT_COLUMNS if name in table.columns), None)
    counts = np.ones(len(table)) if count is None else _counts(table, count)
    return ids_of(table, query), ids_of(table, item), counts


def column_of(table: Table, names: Sequence[str]) -> str:
    """The first of these columns that a table has.

    Args:
        table: the table.
        names: what the column may be called.

    Returns:
        Its name.

    Raises:
        FormatError: it has none of them.
    """
    found = next((name for name in names if name in table.columns), None)
    if found is None:
        have = ", ".join(map(repr, table.columns)) or "none"
        raise FormatError(f"{table.name} has no column {names[0]!r}, only: {have}{table.hint}; name one so in its header")
    return found


def ids_of(table: Table, column: str) -> list[str]:
    """Ids as text; whole numbers as their digits: files of text do not tell them from text.

    Args:
        table: the table.
        column: the column with the ids.

    Returns:
        One id per row.

    Raises:
        DataError: rows without an id.
    """
    values = table.columns[column]
    _check(table, values, lambda value: type(value) in (int, str) and value != "", f"have no id in column {column!r}")
    return [str(value).strip() for value in values]


def _counts(table: Table, column: str) -> Float[np.ndarray, " m"]:
    values = [_number(value) for value in table.columns[column]]
    _check(
        table, values, lambda value: value is not None and 0 <= value < math.inf, f"have no count of 0 or more in {column!r}"
    )
    return np.array(values, dtype=np.float64)


def _check(table: Table, values: Sequence[Any], fine: Callable[[Any], bool], fault: str) -> None:
    bad = [row for row, value in enumerate(values) if not fine(value)]
    if bad:
        raise DataError(f"{len(bad)} of {len(values)} rows of {table.name} {fault} (first: {table.place(bad[0])}); mend them")


def _number(value: Any) -> float | None:
    try:
        return None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None
