"""Texts that are to be embedded: from JSONL, CSV, Parquet, the layout of BEIR, or the hub."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int64, Shaped

from ..errors import DataError, FormatError
from ..extras import require
from .hub import asking_hub
from .splits import choose_split
from .text_columns import ROWS, TEXT_COLUMNS, TextNames, checked_ids, checked_labels, checked_texts, choose_columns
from .text_files import KINDS, LINES, PARQUET, SEPARATED, Table, read_table

IMAGE_COLUMNS = ("image", "img", "picture")


@dataclass(frozen=True)
class Texts:
    """Texts, what they are called, and where known their classes. `Texts.of` makes them from lists.

    Attributes:
        texts: n of them, none empty.
        ids: (n,) int64 or text, no two alike.
        labels: (n,) int64 class of each text, or None where nobody gave them.
        source: where they come from, for people to read.
        ids_from: where the ids come from, in words.
        classes: the names of classes 0, 1, …, or None where classes are numbers alone.
        text_from: which columns the texts come from, in words; "" is a list.
        could_be_ids: columns that were not taken for ids and could have been.
    """

    texts: list[str]
    ids: Shaped[np.ndarray, " n"]
    labels: Int64[np.ndarray, " n"] | None = None
    source: str = ""
    ids_from: str = ROWS
    classes: tuple[str, ...] | None = None
    text_from: str = ""
    could_be_ids: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        texts: Sequence[str],
        ids: Sequence[Any] | np.ndarray | None = None,
        labels: Sequence[Any] | np.ndarray | None = None,
        *,
        source: str = "the texts",
    ) -> "Texts":
        """Checked texts.

        Args:
            texts: n of them.
            ids: one integer or text for each, no two alike; None numbers the rows.
            labels: the class of each, as integers from 0 or as names, which are numbered in their sorted order.
            source: what messages call them.

        Returns:
            The texts.

        Raises:
            DataError: a text that is empty, no text, or has NUL bytes; ids or labels that cannot be used; counts that differ.
        """
        columns: dict[str, list[Any]] = {"text": list(texts)}
        columns |= {} if ids is None else {"id": ids.tolist() if isinstance(ids, np.ndarray) else list(ids)}
        columns |= {} if labels is None else {"label": labels.tolist() if isinstance(labels, np.ndarray) else list(labels)}
        if len({len(column) for column in columns.values()}) > 1:
            counts = ", ".join(f"{len(column)} {name}s" for name, column in columns.items())
            raise DataError(f"{source}: {counts}; give every text one of each")
        return _texts(Table(source, columns, lambda row: f"row {row}"), TextNames(), listed=True)

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: Int64[np.ndarray, " k"]) -> "Texts":
        """The texts of some rows.

        Args:
            rows: (k,) row numbers, in [0, n).

        Returns:
            The k texts in that order.
        """
        labels = None if self.labels is None else self.labels[rows]
        return replace(self, texts=[self.texts[row] for row in rows.tolist()], ids=self.ids[rows], labels=labels)


def open_texts(
    data: str | Path,
    *,
    split: str | None = None,
    text_column: str | None = None,
    id_column: str | None = None,
    label_column: str | None = None,
) -> Texts:
    """Texts by what they are called.

    Args:
        data: a .jsonl, .csv, .tsv or .parquet file; a folder that holds such files, as BEIR's `corpus.jsonl` and
            `queries.jsonl`; a hub name. `:split` at its end chooses a file of a folder or a split, as `split` does.
        split: `corpus`, `queries`, `train`, `test`: the beginning of a file's name, or the split of a hub's data set.
        text_column: column or key with the texts, where it has no usual name; a `title` beside `text` is put before the
            text, as BEIR does, unless this names one of the two.
        id_column: the same for the ids; "row" takes the number of each row for its id.
        label_column: the same for the classes, which need not be there.

    Returns:
        The texts, in the order of the file.

    Raises:
        DataError: there is nothing there; no such split or column; several columns that could hold the texts; or a row whose
            text, id or label cannot be used.
        FormatError: the file is damaged, of another kind, or not UTF-8.
    """
    data = str(data)
    name, split = _name_and_split(data, split)
    names, path = TextNames(text_column, id_column, label_column), Path(name).expanduser()
    if name and path.is_file():
        return _texts(read_table([path], data, names.texts), names)
    if name and path.is_dir():
        return _texts(read_table(_chosen(_groups(path), split, path), data, names.texts), names)
    if not is_hub_name(name):
        raise DataError(
            f"there is no {name or 'data'}; give a {', '.join(KINDS)} or .parquet file, a folder of them or a hub name"
        )
    return _texts(_hub_table(name, split, data), names)


def holds_texts(data: str, *, text_column: str | None = None) -> bool:
    """Whether data is texts rather than pictures, by its kind of file or its columns.

    Args:
        data: as for `open_texts`.
        text_column: the column that somebody named, if they did: then it is texts.

    Returns:
        True if `open_texts` is the one to open it.
    """
    if text_column is not None:
        return True
    name, _ = _name_and_split(data, None)
    path = Path(name).expanduser()
    if path.suffix.lower() in KINDS and not path.is_dir():  # also where there is none: the message is about texts then
        return True
    if name and path.is_file():
        return _is_parquet(path) and _parquet_of_texts(path)
    if name and path.is_dir():
        files = _files(path)
        beside = any(one.is_dir() for one in path.iterdir())  # a list beside folders of pictures
        lines = [file for file in files if file.suffix.lower() in LINES or (file.suffix.lower() in SEPARATED and not beside)]
        return bool(lines) or any(_is_parquet(file) and _parquet_of_texts(file) for file in files[:1])
    return name != "digits" and is_hub_name(name) and _are_texts(next(iter(_hub(name).values())).column_names)


def is_hub_name(name: str) -> bool:
    """Whether a name could be one of the hub: `name` or `owner/name`, and no file.

    Args:
        name: anything.

    Returns:
        True if it could.
    """
    known = Path(name).suffix.lower() in (*KINDS, *PARQUET)
    return bool(re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name)) and not known


def _name_and_split(data: str, split: str | None) -> tuple[str, str | None]:
    match = re.fullmatch(r"(.+?):([A-Za-z_]\w*)", data, re.DOTALL)
    return (match[1], match[2]) if match and not Path(data).expanduser().exists() else (data, split)


def _files(path: Path) -> list[Path]:
    """The files of texts in a folder, Parquet ones only where there are no others; `metadata.*` is about pictures there."""
    found = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith((".", "metadata.")))
    plain = [file for file in found if file.suffix.lower() in KINDS and not file.name.endswith(".json")]
    return plain or [file for file in found if _is_parquet(file)]


def _groups(path: Path) -> Mapping[str, list[Path]]:
    """The files of a folder by what `:split` calls them."""
    files = _files(path)
    if not files:
        raise DataError(f"{path} holds no {', '.join(KINDS)} or .parquet file; name the file itself")
    groups: dict[str, list[Path]] = {}
    for file in files:
        groups.setdefault(re.split(r"-\d+-of-\d+", file.stem)[0], []).append(file)
    return groups


def _chosen(groups: Mapping[str, list[Path]], split: str | None, path: Path) -> list[Path]:
    if split is None and len(groups) > 1 and "train" not in groups:
        raise DataError(f"{path} holds {', '.join(groups)}; name one as {path}:{next(iter(groups))}")
    return choose_split(groups, split, path)


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() in PARQUET


def _parquet_of_texts(path: Path) -> bool:
    """Whether a Parquet file has a column of texts and none of pictures; False for one that cannot be read."""
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError):
        return False
    return _are_texts(schema.names)


def _hub(name: str) -> Any:
    datasets = require("datasets")

    with asking_hub(f"{name} is no file or folder here, and the hub did not give it", "check the name and the network"):
        return datasets.load_dataset(name)


def _are_texts(columns: Sequence[str]) -> bool:
    return bool({*columns} & {*TEXT_COLUMNS}) and not {*columns} & {*IMAGE_COLUMNS}


def _hub_table(name: str, split: str | None, data: str) -> Table:
    datasets = require("datasets")
    table = choose_split(_hub(name), split, name)
    columns = {column: table.data.column(column).to_pylist() for column in table.column_names}
    for column, kind in table.features.items():
        if isinstance(kind, datasets.ClassLabel):
            values = columns[column]
            columns[column] = [None if value in (None, -1) else kind.int2str(value) for value in values]
    return Table(data, columns, lambda row: f"row {row}")


def _texts(table: Table, names: TextNames, *, listed: bool = False) -> Texts:
    """A table's columns, chosen and checked; `listed` where they were lists and not somebody's file."""
    if not len(table):
        raise FormatError(f"{table.name} has no rows; write it again or choose another split")
    chosen = choose_columns(table, names)
    ids, ids_from = checked_ids(table, chosen.id, names)
    texts = checked_texts(table, chosen.texts, ids)
    labels, classes = checked_labels(table, chosen.label, ids)
    if listed:
        return Texts(texts, ids, labels, table.name, "" if chosen.id else ids_from, classes)
    others = table.could_be_ids(taken=chosen.all) if ids_from == ROWS else ()
    text_from = f"column{'s' if len(chosen.texts) > 1 else ''} {' and '.join(map(repr, chosen.texts))}"
    return Texts(texts, ids, labels, table.name, ids_from, classes, text_from, others)
