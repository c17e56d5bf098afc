"""VectorCache: vectors by id, kept as they are computed, in one file that several processes share and no crash tears."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped

from ..arrays import check_rows
from ..errors import DataError, FormatError, IncompatibleError, first_few
from .checks import rows_at_fault
from .features import Features
from .ids import check_unique
from .sqlite import SOME, SOURCES, Database, agree, fact, keys_of, noted
from .values import Values, to_ids, to_vectors

KINDS = {"U": "text", "i": "numbers"}


class VectorCache:
    """Vectors of one model by the ids of their items, in an SQLite file (WAL; float32, little-endian).

    When `add` returns, what it was given is on the disk; a process that is killed leaves all of a batch or nothing. Several
    threads, and several processes of one machine, may read and write at once. While a file is open, two more lie beside it
    (`-wal`, `-shm`); copy it after closing it.

    Args:
        path: the file; it is made if `space` is given.
        space: the model that makes the vectors, such as "all-MiniLM-L6-v2@3f2a9c01"; it may be left out for a file that is
            there.

    Attributes:
        path: the file.
        space: the model.

    Raises:
        DataError: there is no such file and no space to make it with, or it cannot be opened.
        FormatError: it is something else, or damaged.
        IncompatibleError: it holds the vectors of another space.

    Example:
        >>> import numpy as np, tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> with VectorCache(f"{folder.name}/new.vectors", space="model@1") as cache:
        ...     cache.add(["a", "b"], np.eye(2, 3))
        ...     vectors, known = cache.get(["b", "c"])
        2
        >>> vectors[known], known
        (array([[0., 1., 0.]], dtype=float32), array([ True, False]))
        >>> folder.cleanup()
    """

    def __init__(self, path: str | os.PathLike[str], space: str = "") -> None:
        self.path = Path(path)
        if not space and not self.path.exists():
            raise DataError(
                f"there is no vector cache {self.path}; to make it, name the model whose vectors it will hold (space)"
            )
        self._database = Database(self.path)
        try:
            self.space = self._agree_on_space(space)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "VectorCache":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __len__(self) -> int:
        with self._database.held() as database:
            return int(database.execute("SELECT count(*) FROM vectors").fetchone()[0])

    def __repr__(self) -> str:
        return f"VectorCache({str(self.path)!r}, space={self.space!r})"

    @property
    def dimension(self) -> int | None:
        """Of its vectors; None as long as there never was one."""
        with self._database.held() as database:
            return fact(database, "dimension")

    def add(self, ids: Values, vectors: Values) -> int:
        """Keep vectors. An id that is known keeps the vector it has; `drop` it first if the item has changed.

        Args:
            ids: (n,) different ids, int or text.
            vectors: (n, d) finite floats, kept as float32.

        Returns:
            How many ids are new.

        Raises:
            DataError: NaN or infinity (the message has the ids), ids that are not one for each row or come twice, or the
                disk is full.
            IncompatibleError: another dimension, or kind of id, than the file has.
        """
        rows = to_vectors(vectors)
        known = to_ids(ids, len(rows))
        check_unique(known, f"the vectors for {self.path}")
        with np.errstate(over="ignore"):
            rows = rows.astype("<f4")  # infinite where that is too small
        check_rows(rows, f"the vectors for {self.path}", told=lambda bad: rows_at_fault(bad, known))
        keys = keys_of(known)
        with self._database.transaction() as database:
            agree(database, self.path, "dimension", rows.shape[1], "vectors of {} dimensions; these have {}")
            agree(database, self.path, "ids", KINDS[known.dtype.kind], "ids that are {}; these are {}")
            before = database.total_changes
            pairs = zip(keys, (row.tobytes() for row in rows), strict=True)
            database.executemany("INSERT OR IGNORE INTO vectors (id, vector) VALUES (?, ?)", pairs)
            return database.total_changes - before

    def get(self, ids: Values) -> tuple[Float[np.ndarray, "n d"], Bool[np.ndarray, " n"]]:
        """The vectors that are known.

        Args:
            ids: (n,) ids, an id perhaps several times.

        Returns:
            (n, d) float32, NaN where an id is not known (d is 0 as long as there never was a vector), and (n,) whether it is.

        Raises:
            IncompatibleError: another kind of id than the file has.
        """
        wanted = self._wanted(ids)
        keys, width = keys_of(wanted), self.dimension
        vectors, known = np.full((len(keys), width or 0), np.nan, dtype=np.float32), np.zeros(len(keys), dtype=bool)
        for start in range(0, 0 if width is None else len(keys), SOME):  # another process may add the first vector just now
            some = keys[start : start + SOME]
            question = f"SELECT id, vector FROM vectors WHERE id IN ({','.join('?' * len(some))})"
            with self._database.held() as database:
                found = dict(database.execute(question, some))
            for row, key in enumerate(some, start):
                if key in found:
                    vectors[row], known[row] = self._vector(key, found[key], width), True
        return vectors, known

    def drop(self, ids: Values) -> int:
        """Forget vectors: of items that have changed, or are gone.

        Args:
            ids: (n,) ids; those that are not known are passed over.

        Returns:
            How many were known.

        Raises:
            DataError: the disk is full.
            IncompatibleError: another kind of id than the file has.
        """
        keys = keys_of(self._wanted(ids))
        with self._database.transaction() as database:
            before = database.total_changes
            database.executemany("DELETE FROM vectors WHERE id = ?", ((key,) for key in keys))
            return database.total_changes - before

    def drop_changed(self, ids: Values, made_of: Sequence[str]) -> int:
        """Forget vectors of items that are not what they were when this was last asked of them, and note what they are now.

        An item that was never asked of keeps its vector: nothing is known of what it was made from.

        Args:
            ids: (n,) different ids, int or text.
            made_of: (n,) what tells an item from what it was before, such as a digest of its old vector.

        Returns:
            How many vectors were forgotten.

        Raises:
            DataError: the disk is full.
            IncompatibleError: another kind of id than the file has.
        """
        keys = keys_of(self._wanted(ids))
        now = dict(zip(keys, made_of, strict=True))
        with self._database.transaction() as database:
            database.execute(SOURCES)
            other = [key for key, said in noted(database, keys) if said != now[key]]
            before = database.total_changes
            database.executemany("DELETE FROM vectors WHERE id = ?", ((key,) for key in other))
            dropped = database.total_changes - before
            database.executemany("INSERT OR REPLACE INTO sources (id, said) VALUES (?, ?)", now.items())
        return dropped

    def scan(self, batch: int = 10_000) -> Iterator[Features]:
        """All vectors with their ids, in the order in which they came, at most `batch` at a time.

        Args:
            batch: rows in memory at a time.

        Yields:
            Features; what is added meanwhile is not among them.
        """
        with self._database.held() as database:
            last, width = database.execute("SELECT max(place) FROM vectors").fetchone()[0] or 0, fact(database, "dimension")
        place = 0
        while place < last:
            question = "SELECT place, id, vector FROM vectors WHERE place > ? AND place <= ? ORDER BY place LIMIT ?"
            with self._database.held() as database:
                found = database.execute(question, (place, last, batch)).fetchall()
            if not found:
                return
            place = found[-1][0]
            vectors = np.stack([self._vector(key, blob, width) for _, key, blob in found])
            yield self._features(vectors, np.array([key for _, key, _ in found]))

    def read(self, ids: Sequence[Any] | Shaped[np.ndarray, " n"]) -> Features:
        """The vectors of these ids, in their order.

        Args:
            ids: (n,) ids, at least one.

        Returns:
            Features, float32.

        Raises:
            IncompatibleError: an id that is not known.
        """
        wanted = self._wanted(ids)
        vectors, known = self.get(wanted)
        if not known.all():
            raise IncompatibleError(
                f"{(~known).sum()} of {len(known)} ids are not in {self.path} (first: {first_few(wanted[~known])}); "
                "embed these items first"
            )
        return self._features(vectors, wanted)

    def features(self) -> Features:
        """Everything, in memory: pairs for a plan, the first rows of a backfill, or what `save` writes as a folder.

        Returns:
            Features, float32, in the order in which the vectors came.

        Raises:
            DataError: there is no vector yet.
        """
        blocks = list(self.scan())
        if not blocks:
            raise DataError(f"{self.path} holds no vectors yet; add some first")
        return self._features(
            *(np.concatenate(column) for column in zip(*((one.vectors, one.ids) for one in blocks), strict=True))
        )

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _features(self, vectors: Float[np.ndarray, "n d"], ids: Shaped[np.ndarray, " n"]) -> Features:
        return Features(vectors, ids=ids, space=self.space, source=str(self.path), ids_from=f"the cache {self.path}")

    def _vector(self, key: Any, blob: bytes, width: int | None) -> Float[np.ndarray, " d"]:
        if not isinstance(blob, bytes) or len(blob) != 4 * (width or 0):
            raise FormatError(f"{self.path} has no vector of {width} dimensions for id {key!r}; drop that id and add it again")
        return np.frombuffer(blob, dtype="<f4").astype(np.float32)

    def _agree_on_space(self, space: str) -> str:
        with self._database.transaction() as database:
            if not space and fact(database, "space") is None:  # a process was killed before it could say
                raise DataError(f"{self.path} is empty; name the model whose vectors it will hold (space)")
            if space:
                agree(database, self.path, "space", space, "vectors of space {!r}, not {!r}")
            return str(fact(database, "space"))

    def _wanted(self, ids: Any) -> Shaped[np.ndarray, " n"]:
        """Ids of the kind that the file has."""
        wanted = to_ids(ids, len(ids)) if len(ids) else np.zeros(0, dtype=np.int64)
        with self._database.held() as database:
            kind = fact(database, "ids")
        if len(wanted) and kind not in (None, KINDS[wanted.dtype.kind]):
            raise IncompatibleError(
                f"the ids of {self.path} are {kind} and the wanted ones {KINDS[wanted.dtype.kind]} "
                f"(first: {first_few(wanted)}); give both the same kind of id"
            )
        return wanted
