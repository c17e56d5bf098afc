"""A connection to PostgreSQL that comes back after a restart, and what the catalog says of a column of vectors."""

import json
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float

from ...errors import DataError, IncompatibleError
from ...extras import require

PATIENCE = 60.0  # seconds that a lost connection is tried again
NOTE = "compatlearn "  # how the line in a column's comment begins
HEADER, END = 19, b"\xff\xff"  # of a binary copy: bytes before the first row, and after the last
KINDS = {"vector": ">f4", "halfvec": ">f2"}
CLASSES = {"l2_ops": "euclidean", "cosine_ops": "cosine", "ip_ops": "dot"}
T = TypeVar("T")

COLUMN = """
SELECT format_type(a.atttypid, -1), a.atttypmod, col_description(a.attrelid, a.attnum)
FROM pg_attribute a WHERE a.attrelid = %(table)s::regclass AND a.attname = %(column)s AND NOT a.attisdropped AND a.attnum > 0
"""
KEY = """
SELECT a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_index i
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
WHERE i.indrelid = %(table)s::regclass AND i.indisprimary
"""
OPERATORS = """
SELECT DISTINCT o.opcname FROM pg_index i
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
JOIN pg_opclass o ON o.oid = ANY (i.indclass)
WHERE i.indrelid = %(table)s::regclass AND a.attname = %(column)s
"""


@dataclass(frozen=True)
class Column:
    """What the catalog says of a column of vectors.

    Attributes:
        kind: "vector" or "halfvec".
        dimension: of its vectors; 0: not declared.
        comment: of the column; "" for none.
        metrics: of the indexes on it.
    """

    kind: str
    dimension: int
    comment: str
    metrics: tuple[str, ...]

    @property
    def note(self) -> dict[str, str]:
        """What this package has noted in the column's comment."""
        lines = [line for line in self.comment.splitlines() if line.startswith(NOTE)]
        return json.loads(lines[-1].removeprefix(NOTE)) if lines else {}

    def noted(self, **facts: str) -> str:
        """The comment with further facts; what others wrote stays."""
        lines = [line for line in self.comment.splitlines() if not line.startswith(NOTE)]
        return "\n".join([*lines, NOTE + json.dumps(self.note | facts)])


class Postgres:
    """One connection that threads share, made anew where it was lost.

    Args:
        url: as libpq takes it; the password may come from PGPASSWORD or a password file.

    Raises:
        DataError: nobody answers there, or not to this user.
    """

    def __init__(self, url: str) -> None:
        self.psycopg: Any = require("psycopg")
        self._url, self._guard = url, threading.RLock()
        self._connections: list[Any] = []
        weakref.finalize(self, _close, self._connections)

    def __repr__(self) -> str:
        facts = self.psycopg.conninfo.conninfo_to_dict(self._url)
        return f"{facts.get('host', 'localhost')}/{facts.get('dbname', '')}"

    def run(self, work: Callable[[Any], T]) -> T:
        """Do something in one transaction; a second time if the connection breaks meanwhile.

        Args:
            work: function of a cursor, which does no harm if it runs twice.

        Returns:
            What it returned.

        Raises:
            DataError: PostgreSQL refuses, or does not come back within a minute.
        """
        with self._guard:
            deadline = time.monotonic() + PATIENCE
            while True:
                try:
                    connection = self._connected()
                    with connection.transaction(), connection.cursor(binary=True) as cursor:
                        return work(cursor)
                except (self.psycopg.errors.InsufficientPrivilege, self.psycopg.errors.ReadOnlySqlTransaction) as error:
                    raise DataError(f"PostgreSQL at {self} does not allow it: {_line(error)}; use a role that may") from error
                except self.psycopg.OperationalError as error:  # a restart, a cut line, a lock not to be had
                    if not self._connections and deadline - time.monotonic() > PATIENCE - 1:
                        raise DataError(f"cannot connect to PostgreSQL at {self}: {_line(error)}") from error
                    if time.monotonic() > deadline or "disk" in str(error).lower():
                        raise DataError(f"PostgreSQL at {self} failed: {_line(error)}") from error
                    time.sleep(0.2)
                except self.psycopg.Error as error:
                    raise DataError(f"PostgreSQL at {self} refuses: {_line(error)}") from error

    @contextmanager
    def snapshot(self) -> Iterator[Any]:
        """A cursor of its own connection, which sees the tables as they are now, to the end."""
        with self._own() as connection:
            connection.isolation_level = self.psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
            with connection.cursor("compatlearn", binary=True) as cursor:
                yield cursor

    def copied(self, statement: Any, row: np.dtype[Any], batch: int) -> Iterator[np.ndarray]:
        """Rows of equal size of one query, and so of one snapshot, as PostgreSQL copies them: its fastest way.

        Args:
            statement: COPY (…) TO STDOUT (FORMAT BINARY).
            row: what a row is, with its lengths.
            batch: most rows at a time.

        Yields:
            Structured arrays.

        Raises:
            DataError: the connection is lost.
        """
        with self._own() as connection, connection.cursor() as cursor, cursor.copy(statement) as copy:
            held = bytearray()
            head = HEADER
            for part in copy:
                held += part
                if len(held) - head >= batch * row.itemsize:
                    yield np.frombuffer(bytes(held[head : head + batch * row.itemsize]), dtype=row)
                    del held[: head + batch * row.itemsize]
                    head = 0
            rows = (len(held) - head - len(END)) // row.itemsize
            if rows:
                yield np.frombuffer(bytes(held[head : head + rows * row.itemsize]), dtype=row)

    def column(self, table: str, column: str) -> Column:
        """What the catalog says.

        Args:
            table: name, perhaps with its schema.
            column: name.

        Raises:
            DataError: there is no such table or column.
            IncompatibleError: the column holds something else than vectors.
        """
        names = {"table": quoted(table), "column": column}
        found: Any = self.run(lambda cursor: cursor.execute(COLUMN, names).fetchone())
        if found is None:
            raise DataError(f"table {table} at {self} has no column {column!r}")
        kind, dimension, comment = found
        kind = kind.rpartition(".")[2]
        if kind not in KINDS:
            raise IncompatibleError(f"column {table}.{column} holds {kind}; vectors are of pgvector's type vector or halfvec")
        classes = self.run(lambda cursor: cursor.execute(OPERATORS, names).fetchall())
        metrics = {CLASSES[name.partition("_")[2]] for (name,) in classes if name.partition("_")[2] in CLASSES}
        return Column(kind, max(0, dimension), comment or "", tuple(sorted(metrics)))

    def has_column(self, table: str, column: str) -> bool:
        """Whether the table has a column of that name."""
        names = {"table": quoted(table), "column": column}
        return self.run(lambda cursor: cursor.execute(COLUMN, names).fetchone()) is not None

    def key(self, table: str) -> tuple[str, str]:
        """Name and type of the primary key; DataError unless it is one column."""
        found = self.run(lambda cursor: cursor.execute(KEY, {"table": quoted(table)}).fetchall())
        if len(found) != 1:
            raise DataError(f"table {table} at {self} has a primary key of {len(found)} columns; items need a key of one")
        return found[0]

    def close(self) -> None:
        """Close the connection; a later call opens one again."""
        with self._guard:
            _close(self._connections)

    def _connected(self) -> Any:
        if not self._connections or self._connections[0].closed:
            self._connections.clear()
            self._connections.append(self._prepared())
        return self._connections[0]

    def _prepared(self) -> Any:
        connection = self.psycopg.connect(self._url, autocommit=True, connect_timeout=10, application_name="compatlearn")
        require("pgvector.psycopg").register_vector(connection)
        for kind in KINDS:  # vectors come as they are sent: one array for all rows is made of them
            found = connection.execute("SELECT to_regtype(%s)::oid::int", [kind]).fetchone()
            if found and found[0]:
                connection.adapters.register_loader(found[0], _raw(self.psycopg))
        return connection

    @contextmanager
    def _own(self) -> Iterator[Any]:
        try:
            with self._prepared() as connection:
                connection.autocommit = False
                yield connection
        except self.psycopg.Error as error:
            raise DataError(f"PostgreSQL at {self} failed: {_line(error)}") from error


def vectors_of(raw: list[bytes], kind: str, dimension: int) -> Float[np.ndarray, "m d"]:
    """float32 (float16 of halfvec) rows from what PostgreSQL sends: two numbers of two bytes, then the vector."""
    size = np.dtype(KINDS[kind]).itemsize
    rows = np.frombuffer(b"".join(raw), dtype=np.uint8).reshape(len(raw), -1 if dimension < 0 else 4 + size * dimension)
    return np.ascontiguousarray(rows[:, 4:]).view(KINDS[kind]).astype(KINDS[kind][1:])


def quoted(table: str) -> str:
    """A table's name for ::regclass, every part of it quoted."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in table.split("."))


def _close(connections: list[Any]) -> None:
    while connections:
        connections.pop().close()


def _raw(psycopg: Any) -> Any:
    class Raw(psycopg.adapt.Loader):  # type: ignore[misc]
        format = psycopg.pq.Format.BINARY

        def load(self, data: Any) -> bytes:
            return bytes(data)

    return Raw


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
