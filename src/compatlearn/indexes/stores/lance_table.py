"""A table of LanceDB: read from one version, written under a condition, and what it says of its columns."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Shaped

from ...errors import CompatlearnError, ConfigError, DataError, IncompatibleError
from ...extras import require
from ...features.values import Values

KEY = "id"  # the column whose values tell items apart
NOTE = "compatlearn."  # how the keys begin that this package leaves in a column's metadata
METRICS = {"l2": "euclidean", "cosine": "cosine", "dot": "dot"}
PATIENCE = 60.0  # seconds that a write is tried again which others' writes came before
IDS = 10_000  # that one condition names
LINE = 500  # letters of what LanceDB says; it repeats a condition of 10,000 ids
T = TypeVar("T")


class LanceTable:
    """A handle of our own on a table: it sees every version at once, and moves nobody else's handle.

    Args:
        folder: of the database, or its URI in an object store.
        name: of the table.

    Raises:
        ConfigError: the table has no column `id`, or LanceDB is not installed.
        DataError: there is no such folder or table.
        IncompatibleError: ids that are neither integers nor text.
    """

    def __init__(self, folder: str, name: str) -> None:
        lancedb: Any = require("lancedb")
        if "://" not in folder and not Path(folder).is_dir():  # LanceDB would make it
            raise DataError(f"there is no folder {folder}, where a LanceDB database should be")
        self.folder, self.name = folder, name
        with self._plainly("cannot be opened"):
            self._table = lancedb.connect(folder, read_consistency_interval=timedelta(0)).open_table(name)
        names = self.schema.names
        if KEY not in names:
            raise ConfigError(f"{self} has no column {KEY!r} that tells its items apart; it has {', '.join(names)}")
        kind = self.schema.field(KEY).type
        self.text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        if not self.text and not pa.types.is_integer(kind):
            raise IncompatibleError(f"column {KEY!r} of {self} holds {kind}; ids are integers or text")

    def __repr__(self) -> str:
        return f"table {self.name} of {self.folder}"

    @property
    def schema(self) -> Any:
        """The columns as they are now."""
        return self._table.schema

    def dimension(self, column: str) -> int:
        """Length of the vectors in a column.

        Raises:
            DataError: there is no such column.
            IncompatibleError: it holds something else than vectors.
        """
        if column not in self.schema.names:
            raise DataError(f"{self} has no column {column!r}; it has {', '.join(self.schema.names)}")
        kind = self.schema.field(column).type
        if not pa.types.is_fixed_size_list(kind) or not pa.types.is_floating(kind.value_type):
            raise IncompatibleError(f"column {column!r} of {self} holds {kind}; vectors are lists of floats of a fixed size")
        return int(kind.list_size)

    def metrics(self, column: str) -> set[str]:
        """What the vector indexes on a column rank by."""
        mine = [one.name for one in self._table.list_indices() if column in one.columns]
        said = {getattr(self._table.index_stats(name), "distance_type", None) for name in mine}
        return {METRICS[metric] for metric in said if metric in METRICS}

    def note(self, column: str) -> dict[str, str]:
        """What this package has noted in a column's metadata."""
        facts = {key.decode(): value.decode() for key, value in (self.schema.field(column).metadata or {}).items()}
        return {key.removeprefix(NOTE): value for key, value in facts.items() if key.startswith(NOTE)}

    def noted(self, column: str, **facts: str) -> None:
        """Note facts in a column's metadata, beside what others have there."""
        update = {"path": column, "metadata": {NOTE + key: value for key, value in facts.items()}}
        self.change(lambda table: table.update_field_metadata(update))

    def read(self, work: Callable[[Any], T]) -> T:
        """What a function of the table returns; DataError if LanceDB cannot."""
        with self._plainly("cannot be read"):
            return work(self._table)

    def change(self, work: Callable[[Any], T]) -> T:
        """Change the table; once more where a writer of another kind was faster than LanceDB's own repetitions.

        Args:
            work: function of the table, which does no harm if it runs twice.

        Returns:
            What it returned.

        Raises:
            DataError: LanceDB refuses, or others write without a pause for a minute.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with self._plainly("cannot be written"):
                    return work(self._table)
            except DataError as error:
                if not any(word in str(error).lower() for word in ("conflict", "concurrent")) or time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def batches(self, columns: list[str], where: str, batch: int) -> Iterator[Any]:
        """Rows of the version that is the newest now, while others go on writing: `batch` at a time, the last ones fewer.

        Args:
            columns: names.
            where: condition on the rows.
            batch: rows that are in memory at once, beside the few that LanceDB reads ahead.

        Yields:
            Tables of pyarrow.

        Raises:
            DataError: the version was cleaned away meanwhile.
        """
        with self._plainly("cannot be read"):
            kept: list[Any] = []
            for part in self._table.search().select(columns).where(where).to_batches(batch):
                kept.append(part)
                while sum(map(len, kept)) >= batch:  # fragments may be small: many parts become one batch
                    table = pa.Table.from_batches(kept)
                    yield table.slice(0, batch)
                    kept = table.slice(batch).to_batches()
            if sum(map(len, kept)):
                yield pa.Table.from_batches(kept)

    def named(self, columns: list[str], where: str, ids: Values) -> Any:
        """Rows with these ids, as one table of pyarrow; those that are gone are left out."""
        wanted, head = list(np.asarray(ids).tolist()), f"{where} AND {identifier(KEY)} IN "
        tables = []
        for start in range(0, max(1, len(wanted)), IDS):
            some = head + f"({', '.join(map(literal, wanted[start : start + IDS])) or 'NULL'})"
            with self._plainly("cannot be read"):
                tables.append(self._table.search().where(some).select(columns).to_arrow())
        return pa.concat_tables(tables)

    def ids(self, rows: Any) -> Shaped[np.ndarray, " m"]:
        """The ids of a table of pyarrow."""
        return texts(rows[KEY]) if self.text else rows[KEY].to_numpy()

    @contextmanager
    def _plainly(self, what: str) -> Iterator[None]:
        try:
            yield
        except CompatlearnError:
            raise
        except Exception as error:  # LanceDB has no class of its own for what its Rust part says
            line = (str(error).strip().splitlines() or [type(error).__name__])[0].partition(", /")[0]
            raise DataError(f"{self} {what}: {line[:LINE]}") from error


def vectors(column: Any, dimension: int) -> Float[np.ndarray, "m d"]:
    """A column of pyarrow as rows of numbers."""
    parts = [chunk.flatten().to_numpy() for chunk in column.chunks]
    if not parts:
        return np.zeros((0, dimension), dtype=column.type.value_type.to_pandas_dtype())
    return (parts[0] if len(parts) == 1 else np.concatenate(parts)).reshape(-1, dimension)


def texts(column: Any) -> Shaped[np.ndarray, " m"]:
    """A column of pyarrow as text; "" where there is none."""
    return np.array([one or "" for one in column.to_pylist()], dtype=str)


def lists(rows: Float[np.ndarray, "m d"], kind: Any) -> Any:
    """Rows as an array of pyarrow, of the type of their column."""
    flat = pa.array(np.ascontiguousarray(rows, dtype=kind.value_type.to_pandas_dtype()).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, type=kind)


def identifier(name: str) -> str:
    """A column's name, quoted."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: Any) -> str:
    """An id or a text, quoted."""
    return str(value) if isinstance(value, int) else "'" + str(value).replace("'", "''") + "'"
