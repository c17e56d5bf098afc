"""Labelled images in Parquet files and on the Hugging Face hub, read row by row from memory-mapped Arrow tables."""

import io
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Int64
from PIL import Image

from ..errors import DataError, FormatError, first_few
from .hub import asking_hub
from .images import Images, to_rgb
from .splits import choose_split

IMAGE_COLUMNS = ("image", "img", "picture")
LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "target")
ID_COLUMNS = ("id", "ids", "image_id", "filename", "file_name")

ROWS = "row numbers"


def open_parquet(files: list[Path], every: list[Path], data: str, *, id_column: str | None = None) -> Images:
    """The rows of Parquet files, in order; labels are numbered over `every` file of the source.

    Args:
        files: to be read.
        every: all files of the source.
        data: what messages call it.
        id_column: column with the ids, where it has no usual name; "row" takes the number of each row.

    Raises:
        FormatError: they are not Parquet, or do not have the same columns.
        DataError: no images or labels in them, or no such id column.
    """
    import datasets

    datasets.disable_progress_bars()
    rows = {file: _row_count(file) for file in every}
    if not any(rows[file] for file in files):
        raise DataError(f"{data} has no rows; choose another split or write it again")
    level = datasets.logging.get_verbosity()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # what it would log is in the error
    try:
        table = datasets.load_dataset("parquet", data_files=[str(file) for file in files], split="train")
    except (datasets.exceptions.DatasetGenerationError, OSError, ValueError, TypeError) as error:
        cause = str(error.__cause__ or error).splitlines()[0]
        raise FormatError(f"{data} cannot be read as Parquet images: {cause}; give every file the same columns") from error
    finally:
        datasets.logging.set_verbosity(level)
    return _images(table, lambda column: (pq.read_table(file, columns=[column])[column] for file in every), data, id_column)


def open_hub(name: str, split: str | None, data: str, *, id_column: str | None = None) -> Images:
    """A data set of the hub, or of its cache.

    Args:
        name: of the data set.
        split: of it.
        data: what messages call it.
        id_column: as for `open_parquet`.

    Raises:
        DataError: there is none of that name, the hub cannot be reached, or it has no such id column.
    """
    import datasets

    with asking_hub(f"{name} is no file or folder here, and the hub did not give it", "check the name and the network"):
        splits = datasets.load_dataset(name)
    table = choose_split(splits, split, name)
    return _images(table, lambda column: (other.data.column(column) for other in splits.values()), data, id_column)


def _row_count(file: Path) -> int:
    """Rows of a Parquet file; one that is not whole is refused by its name, which `datasets` would not say."""
    try:
        return int(pq.read_metadata(file).num_rows)
    except (pa.ArrowException, OSError) as error:
        size = file.stat().st_size
        raise FormatError(f"{file} is not a whole Parquet file ({size} bytes); write or download it again") from error


def _images(table: Any, columns: Callable[[str], Iterable[pa.ChunkedArray]], data: str, id_column: str | None) -> Images:
    """A `datasets` table with an image, a label and perhaps an id column (which counts if its values are unique).

    columns: the column of some name in every split of the source.
    """
    import datasets

    if not len(table):
        raise DataError(f"{data} has no rows; choose another split or write it again")
    image, label = _column(table, IMAGE_COLUMNS, data, "image"), _column(table, LABEL_COLUMNS, data, "label")
    labels, classes = _labels(table, label, columns, data)
    kind = table.features[image]
    try:
        table = table.cast_column(image, datasets.Image(decode=False))
    except (TypeError, ValueError, pa.ArrowException) as error:
        raise DataError(
            f"column {image!r} of {data} is {kind}, not images; store encoded files, or struct<bytes, path>"
        ) from error
    ids, ids_from = _ids(table, id_column, data)
    taken = {image, label, *ID_COLUMNS} if ids_from.startswith(ROWS) and id_column is None else set(table.column_names)
    others = tuple(name for name in table.column_names if name not in taken and _unique(table, name) is not None)
    rows = np.arange(len(labels))
    return Images(_TableReader(table, image), labels, ids, rows, tuple(classes), data, ids_from, others)


def _labels(
    table: Any, column: str, columns: Callable[[str], Iterable[pa.ChunkedArray]], data: str
) -> tuple[Int64[np.ndarray, " n"], list[str]]:
    """(n,) classes in [0, c), and their c names."""
    import datasets

    values = table.data.column(column).to_pylist()
    missing = [row for row, value in enumerate(values) if value is None or value == -1]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(values)} rows of {data} have no label (first: {first_few(missing)}); "
            "drop them or choose another split"
        )
    kinds = {type(value) for value in values}
    if kinds not in ({int}, {str}):
        raise DataError(f"labels of {data} are {table.features[column]}; they must be integers or text, one a row")
    if isinstance(table.features[column], datasets.ClassLabel):
        names = list(table.features[column].names)
    else:
        names = _names(columns(column), data)
        places = {name: place for place, name in enumerate(names)}
        values = values if kinds == {int} else [places[value] for value in values]
    bad = [row for row, value in enumerate(values) if not 0 <= value < len(names)]
    if bad:
        raise DataError(
            f"{len(bad)} of {len(values)} labels of {data} are not in [0, {len(names)}) (first rows: {first_few(bad)}); "
            "give every row a class in range"
        )
    return np.array(values, dtype=np.int64), names


def _names(columns: Iterable[pa.ChunkedArray], data: str) -> list[str]:
    """The classes of labels that are not named: the text itself in order, or the numbers up to the largest."""
    rows, found = 0, set[Any]()
    for column in columns:
        rows += len(column)
        found.update(column.unique().to_pylist())
    found -= {None}
    if all(isinstance(value, str) for value in found):
        return sorted(found)
    largest = max(value for value in found if isinstance(value, int))
    if largest >= rows:
        raise DataError(
            f"labels of {data} reach {largest}, but there are only {rows} rows; number the classes from 0, or use names"
        )
    return [str(number) for number in range(largest + 1)]


def _ids(table: Any, id_column: str | None, data: str) -> tuple[np.ndarray, str]:
    """(n,) ids, and where they come from."""
    rows = np.arange(len(table))
    if id_column == "row":
        return rows, f"{ROWS}, as asked"
    if id_column is not None and id_column not in table.column_names:
        have = ", ".join(table.column_names)
        raise DataError(f"{data} has no column {id_column!r} for id_column, only: {have}; name one of these")
    present = [name for name in ([id_column] if id_column else ID_COLUMNS) if name in table.column_names]
    for name in present:
        if (ids := _unique(table, name)) is not None:
            return ids, f"column {name!r}"
    if id_column is not None:
        values = len(set(table.data.column(id_column).to_pylist()))
        raise DataError(
            f"column {id_column!r} of {data} cannot be the ids: it must hold an integer or a text in every row, no two alike; "
            f"it is {table.features[id_column]} with {values} values in {len(table)} rows; name another"
        )
    return rows, f"{ROWS}, because column {' and '.join(map(repr, present))} repeats a value" if present else ROWS


def _unique(table: Any, name: str) -> np.ndarray | None:
    """(n,) values of a column that could be ids: integers or text, at least two, no two alike; None of any other."""
    column = table.data.column(name)
    kinds = (pa.types.is_integer, pa.types.is_string, pa.types.is_large_string)
    if column.null_count or not any(is_kind(column.type) for is_kind in kinds):
        return None
    if len(column) < 2 and name not in ID_COLUMNS:
        return None
    return np.array(column.to_pylist()) if pc.count_distinct(column).as_py() == len(column) else None


def _column(table: Any, names: Sequence[str], data: str, what: str) -> str:
    for name in names:
        if name in table.column_names:
            return name
    have = ", ".join(table.column_names)
    raise DataError(f"{data} has no {what} column ({', '.join(names)}), only {have}; rename the one with the {what}s")


class _TableReader:
    """One column of encoded images, read from its Arrow buffers: the formatting of `datasets` takes ten times as long."""

    def __init__(self, table: Any, column: str) -> None:
        self.table, self.column = table, column
        chunks = table.data.column(column).chunks
        names = [field.name for field in chunks[0].type]
        self.chunks = [dict(zip(names, chunk.flatten(), strict=True)) for chunk in chunks]
        self.starts = [0, *accumulate(map(len, chunks))]

    def __reduce__(self) -> tuple[Any, ...]:
        return _TableReader, (self.table, self.column)  # the table is pickled as the name of its file

    def __call__(self, row: int) -> Image.Image:
        chunk = bisect_right(self.starts, row) - 1
        fields, place = self.chunks[chunk], row - self.starts[chunk]
        content, path = fields["bytes"][place].as_py(), fields["path"][place].as_py()
        if not content and not path:
            raise ValueError("it is empty")
        with Image.open(io.BytesIO(content) if content else path) as picture:
            return to_rgb(picture)
