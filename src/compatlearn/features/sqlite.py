"""The SQLite file of a cache: opened, made, one transaction at a time; what goes wrong becomes one line."""

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from ..errors import CompatlearnError, DataError, FormatError, IncompatibleError, first_few
from ..files import writing

OURS, VERSION = 0x434C5643, 1  # the file's application_id ("CLVC") and user_version
PATIENCE = 60.0  # seconds that one process waits for the writing of others
POLL = 0.02
BUSY = ("SQLITE_BUSY", "SQLITE_LOCKED")
BROKEN = ("SQLITE_NOTADB", "SQLITE_CORRUPT")
INHERITED: list[sqlite3.Connection] = []  # opened before a fork: SQLite forbids to use them here, and to close them
TABLES = (
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID",
    "CREATE TABLE vectors (place INTEGER PRIMARY KEY, id NOT NULL UNIQUE, vector BLOB NOT NULL)",  # an id keeps its type
)
# what vectors were made from, in files of which that was asked; others, of older versions too, lack it
SOURCES = "CREATE TABLE IF NOT EXISTS sources (id NOT NULL PRIMARY KEY, said TEXT NOT NULL) WITHOUT ROWID"
SOME = 900  # ids of one question: older builds of SQLite take 999


class Database:
    """A connection that threads share and that a fork renews, to a file that outlives a crash: every commit is on the disk.

    Args:
        path: the file; it is made if it is not there.

    Raises:
        DataError: it cannot be opened or written.
        FormatError: it is something else, damaged, or of a later version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._begin()

    @contextmanager
    def held(self) -> Iterator[sqlite3.Connection]:
        """The connection, for one thread at a time; errors of SQLite become those of this package."""
        if self._process != os.getpid():
            INHERITED.append(self._connection)
            self._begin()
        with self._guard, told(self.path):
            yield self._connection

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """The same in a transaction: all of it is kept, on the disk, or none."""
        with self.held() as connection:
            connection.execute("BEGIN IMMEDIATE")  # a reader that begins to write could not wait for others
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Close the file; of the last process that does, it takes `-wal` and `-shm` away."""
        if self._process == os.getpid():
            with self._guard, told(self.path):
                self._connection.close()

    def _begin(self) -> None:
        with writing(self.path), told(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                str(self.path.absolute()), timeout=PATIENCE, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare()
            except BaseException:
                self._connection.close()
                raise
        self._process, self._guard = os.getpid(), threading.RLock()

    def _prepare(self) -> None:
        """Make sure that the file is ours before anything in it is changed."""
        self._connection.execute("BEGIN")  # one look: another process may be making the tables
        empty = self._is_empty()
        self._connection.execute("COMMIT")
        self._connection.execute("PRAGMA synchronous = FULL")  # builds of SQLite differ in their default
        _patiently(self._connection, "PRAGMA journal_mode = WAL")
        if empty:
            self._connection.execute("BEGIN IMMEDIATE")
            if self._is_empty():  # still, and no other process can make the tables now
                for statement in (*TABLES, f"PRAGMA application_id = {OURS}", f"PRAGMA user_version = {VERSION}"):
                    self._connection.execute(statement)
            self._connection.execute("COMMIT")

    def _is_empty(self) -> bool:
        """Whether nothing is in the file yet; FormatError if what is there is not ours. In a transaction."""
        owner, version = (
            self._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
        )
        if owner == OURS:
            if version > VERSION:
                raise FormatError(
                    f"{self.path} is a vector cache of format {version}, this version reads {VERSION}; upgrade compatlearn"
                )
            return False
        if owner or self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise FormatError(f"{self.path} is a database of something else, and no vector cache; choose another file")
        return True


def fact(connection: sqlite3.Connection, name: str) -> Any:
    """What the file says about all of its vectors; None where it says nothing yet."""
    found = connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
    return None if found is None else found[0]


def agree(connection: sqlite3.Connection, path: Path, name: str, given: int | str, told: str) -> None:
    """Let the file say this of all of its vectors from now on.

    Args:
        connection: in a transaction.
        path: the file, for the message.
        name: of the fact.
        given: what it must be.
        told: the two values, in words, for the message.

    Raises:
        IncompatibleError: it says something else.
    """
    connection.execute("INSERT OR IGNORE INTO facts (name, value) VALUES (?, ?)", (name, given))
    stored = fact(connection, name)
    if stored != given:
        raise IncompatibleError(f"{path} holds {told.format(stored, given)}; keep these in another file")


def noted(connection: sqlite3.Connection, keys: list[Any]) -> Iterator[tuple[Any, str]]:
    """What the vectors of these ids were made from, where that was noted.

    Args:
        connection: to a file that has the table of `SOURCES`.
        keys: ids, as `keys_of` gives them.

    Yields:
        The id, and what was noted.
    """
    for start in range(0, len(keys), SOME):
        some = keys[start : start + SOME]
        yield from connection.execute(f"SELECT id, said FROM sources WHERE id IN ({','.join('?' * len(some))})", some)


def keys_of(ids: Shaped[np.ndarray, " n"]) -> list[Any]:
    """Ids as SQLite takes them.

    Args:
        ids: (n,) int64 or text.

    Returns:
        n Python ints or texts.

    Raises:
        DataError: text with half of a surrogate pair.
    """
    keys: list[Any] = ids.tolist()
    bad = [key for key in keys if isinstance(key, str) and not _is_unicode(key)]
    if bad:
        raise DataError(f"{len(bad)} of {len(keys)} ids are no valid text (first: {first_few(map(ascii, bad))}); mend them")
    return keys


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Whatever SQLite raises becomes one line.

    Args:
        path: the file, for the message.

    Raises:
        DataError: the file is locked, closed, cannot be written, or the disk is full.
        FormatError: it is no database, or damaged.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise _explained(path, error) from error


def _explained(path: Path, error: sqlite3.Error) -> CompatlearnError:
    name = str(getattr(error, "sqlite_errorname", ""))
    if name.startswith(BROKEN):
        return FormatError(f"{path} is no vector cache, or a damaged one ({error}); restore it, or move it away and begin anew")
    if name.startswith(BUSY):
        return DataError(f"{path} was locked by another process for {PATIENCE:.0f} seconds; end that one, or wait for it")
    if not name:  # Python's own: of a connection that is closed
        return DataError(f"{path} cannot be used: {error}; open it again")
    return DataError(f"cannot use {path}: {error}; free some space, or check the path and its permissions")


def _patiently(connection: sqlite3.Connection, statement: str) -> None:
    """Run what SQLite does not wait for by itself while others begin with the same file."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            connection.execute(statement)
        except sqlite3.OperationalError as error:
            if not error.sqlite_errorname.startswith(BUSY) or time.monotonic() > deadline:
                raise
            time.sleep(POLL)
        else:
            return
