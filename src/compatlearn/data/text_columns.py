"""Which column holds the texts, which the ids, which the classes; and whether what they hold can be used."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64, Shaped

from ..errors import DataError, first_few
from .text_files import ABSENT, Table

TEXT, TITLE = "text", "title"
TEXT_COLUMNS = (
    TEXT, "texts", "sentence", "content", "question", "query", "body", "document", "passage", "abstract", "description",
)  # fmt: skip
ID_COLUMNS = ("id", "_id", "ids", "doc_id", "docid", "query_id", "qid", "uid", "uuid")
LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "target")
ROWS = "row numbers"
ROW, NONE = "row", "none"  # as the name of the id column: the number of the row; as that of the labels: there are none


@dataclass(frozen=True)
class TextNames:
    """The names of columns that somebody gave; None is a usual one."""

    text: str | None = None
    id: str | None = None
    label: str | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """Those that a header with texts has one of."""
        return TEXT_COLUMNS if self.text is None else (self.text,)


@dataclass(frozen=True)
class Chosen:
    """The columns that are used: one or two with texts, and perhaps ids and labels."""

    texts: tuple[str, ...]
    id: str | None
    label: str | None

    @property
    def all(self) -> tuple[str, ...]:
        return (*self.texts, *filter(None, (self.id, self.label)))


def choose_columns(table: Table, names: TextNames) -> Chosen:
    """Which column is which.

    Args:
        table: anyone's.
        names: those that somebody gave.

    Returns:
        The columns.

    Raises:
        DataError: one that was given is not there; none, or several, could hold the texts.
    """
    have = list(table.columns)
    for keyword, given in (("text_column", names.text), ("id_column", names.id), ("label_column", names.label)):
        if given is not None and given not in have and (keyword, given) not in (("id_column", ROW), ("label_column", NONE)):
            raise DataError(f"{table.name} has no column {given!r} for {keyword}, only: {_list(table)}; name one of these")
    id_column = None if names.id == ROW else names.id or next((name for name in ID_COLUMNS if name in have), None)
    label = None if names.label == NONE else names.label or next((name for name in LABEL_COLUMNS if name in have), None)
    if names.text is not None:
        return Chosen((names.text,), id_column, label)
    if TEXT in have:
        return Chosen((TITLE, TEXT) if TITLE in have else (TEXT,), id_column, label)
    found = [name for name in TEXT_COLUMNS if name in have and name not in (id_column, label)]
    if not found:
        raise DataError(f"{table.name} has no column {TEXT!r}, only: {_list(table)}; name the one with the texts (text_column)")
    if len(found) > 1:
        raise DataError(
            f"{table.name} has no column {TEXT!r}, and several that could hold the texts: {', '.join(found)}; "
            f"name one of these (text_column)"
        )
    return Chosen((found[0],), id_column, label)


def checked_texts(table: Table, columns: tuple[str, ...], ids: Shaped[np.ndarray, " n"]) -> list[str]:
    """The texts of a table.

    Args:
        table: n rows.
        columns: of the texts; where there are two, what they hold is joined by a space.
        ids: (n,) for messages.

    Returns:
        n texts, none of them empty.

    Raises:
        DataError: a value that is no text, or a text that is empty or holds NUL bytes or half of a character.
    """
    for column in columns:
        values = table.columns[column]
        allowed = (str, type(None), type(ABSENT)) if column == TITLE and len(columns) > 1 else (str,)
        wrong = [row for row, value in enumerate(values) if type(value) not in allowed]
        if wrong:
            kinds = first_few(dict.fromkeys(_kind(values[row]) for row in wrong))
            raise _refusal(
                table, wrong, ids, f"are not texts in column {column!r}, but {kinds}", "write texts there, or drop them"
            )
    texts: list[str] = table.columns[columns[-1]]
    if len(columns) > 1:
        titles = (title if isinstance(title, str) else "" for title in table.columns[columns[0]])
        texts = [f"{title} {text}".strip() if title.strip() else text for title, text in zip(titles, texts, strict=True)]
    faults: tuple[tuple[Callable[[str], bool], str], ...] = (
        (lambda text: not text or text.isspace(), "are empty"),
        (lambda text: "\0" in text, "hold NUL bytes"),
        (_is_broken, "hold half of a character (a lone surrogate)"),
    )
    for is_at_fault, fault in faults:
        if wrong := [row for row, text in enumerate(texts) if is_at_fault(text)]:
            raise _refusal(table, wrong, ids, fault, "mend them, or drop these rows")
    return texts


def checked_ids(table: Table, column: str | None, names: TextNames) -> tuple[Shaped[np.ndarray, " n"], str]:
    """The ids of a table.

    Args:
        table: n rows.
        column: of the ids; None numbers the rows.
        names: what somebody asked for.

    Returns:
        (n,) int64 or text, no two alike; and where they come from, in words.

    Raises:
        DataError: ids that are missing, neither integers nor text, of both kinds, too large, or there twice.
    """
    rows = np.arange(len(table))
    if column is None:
        return rows, f"{ROWS}, as asked" if names.id == ROW else ROWS
    values, remedy = table.columns[column], f"mend them, or number the rows (id_column={ROW!r})"
    checks: tuple[tuple[Callable[[Any], bool], str], ...] = (
        (lambda value: value is None or value is ABSENT or value == "", f"have no id in column {column!r}"),
        (lambda value: type(value) not in (int, str), f"have an id that is no integer or text in column {column!r}"),
        (lambda value: type(value) is not type(values[0]), f"mix numbers and texts in the ids of column {column!r}"),
        (lambda value: isinstance(value, int) and not -(1 << 63) <= value < 1 << 63, "have an id of more than 63 bits"),
        (lambda value: isinstance(value, str) and ("\0" in value or _is_broken(value)), "have broken characters in the id"),
    )  # fmt: skip
    for is_at_fault, fault in checks:
        if wrong := [row for row, value in enumerate(values) if is_at_fault(value)]:
            raise _refusal(table, wrong, None, fault, remedy)
    first: dict[Any, int] = {}
    again = [row for row, value in enumerate(values) if first.setdefault(value, row) != row]
    if again:
        one = values[again[0]]
        raise DataError(
            f"{len(again)} of {len(table)} rows of {table.name} repeat an id of column {column!r} (first: {one!r} in "
            f"{table.place(first[one])} and {table.place(again[0])}); give every text its own, or number the rows "
            f"(id_column={ROW!r})"
        )
    return np.array(values), f"column {column!r}"


def checked_labels(
    table: Table, column: str | None, ids: Shaped[np.ndarray, " n"]
) -> tuple[Int64[np.ndarray, " n"] | None, tuple[str, ...] | None]:
    """The classes of a table.

    Args:
        table: n rows.
        column: of the labels, or None.
        ids: (n,) for messages.

    Returns:
        (n,) classes and their names; None twice where there are no labels, and no names where they are numbers.

    Raises:
        DataError: labels in some of the rows only, of both kinds, or neither integers from 0 nor text.
    """
    values = [] if column is None else table.columns[column]
    absent = [row for row, value in enumerate(values) if value is None or value is ABSENT or value == ""]
    if len(absent) == len(values):
        return None, None
    remedy = f"mend them, or read no labels (label_column={NONE!r})"
    if absent:
        raise _refusal(table, absent, ids, f"have no label in column {column!r}", remedy)
    odd = [row for row, value in enumerate(values) if type(value) not in (int, str) or type(value) is not type(values[0])]
    if odd:
        raise _refusal(table, odd, ids, f"have a label that is no integer or text like the others in column {column!r}", remedy)
    if isinstance(values[0], str):
        names = sorted(set(values))
        places = {name: place for place, name in enumerate(names)}
        return np.array([places[value] for value in values], dtype=np.int64), tuple(names)
    if odd := [row for row, value in enumerate(values) if not 0 <= value < 1 << 63]:
        raise _refusal(table, odd, ids, f"have a label below 0 or above 63 bits in column {column!r}", remedy)
    return np.array(values, dtype=np.int64), None


def _refusal(table: Table, rows: list[int], ids: Shaped[np.ndarray, " n"] | None, fault: str, remedy: str) -> DataError:
    """The line about rows at fault; the first of them by its place and its id."""
    row = rows[0]
    named = "" if ids is None else f", id {ids[row].item()!r}"
    return DataError(f"{len(rows)} of {len(table)} rows of {table.name} {fault} (first: {table.place(row)}{named}); {remedy}")


def _list(table: Table) -> str:
    return f"{', '.join(map(repr, table.columns)) or 'none'}{table.hint}"


def _kind(value: Any) -> str:
    return "nothing" if value is None or value is ABSENT else type(value).__name__


def _is_broken(text: str) -> bool:
    """Whether a text has a lone surrogate, which no service and no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
