"""A Chroma collection, and a second collection of the same ids that is written row by row."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from ...arrays import as_numpy
from ...errors import DataError, IncompatibleError, first_few
from ...extras import require
from ...features.features import Features
from ...features.values import Values
from ...metric import Metric, check_metric
from ..address import parts_of
from ..checks import check_queries
from ..exact import search
from ..hits import Hits
from ..second import SPACE, Block, mark_of

FORM = "chroma:DIR#collection"
METRICS = {"l2": "euclidean", "cosine": "cosine", "ip": "dot"}
PAGE = 5_461  # what Chroma takes at a time
NUMBERS = 4_000_000  # in one page
NOTE = "compatlearn_"  # how the keys begin that this package adds to a collection's metadata


def open_store(address: str, metric: str | None) -> "ChromaIndex":
    """The index at `chroma:DIR#collection`.

    Args:
        address: of the folder and the collection.
        metric: what ranks; the collection knows it.

    Raises:
        ConfigError: an address of another form, or the client is not installed.
        DataError: no such folder; or as `ChromaIndex`.
    """
    place, name = parts_of(address.partition(":")[2], FORM)
    chromadb = require("chromadb")
    if not (Path(place) / "chroma.sqlite3").is_file():
        raise DataError(f"no Chroma folder at {place}: it has no chroma.sqlite3")
    try:
        client = chromadb.PersistentClient(place)
    except (ValueError, OSError, chromadb.errors.ChromaError) as error:
        raise DataError(f"cannot open the Chroma folder {place}: {_line(error)}") from error
    return ChromaIndex(client, name, metric)


class ChromaIndex:
    """A Chroma collection, as `Upgradable`. One process at a time may work in its folder.

    Args:
        client: of the official library.
        name: of the collection.
        metric: what ranks, if somebody wants to make sure.

    Raises:
        ConfigError: no such metric.
        DataError: no such collection, or it is empty.
        IncompatibleError: it is ranked by another metric.
    """

    def __init__(self, client: Any, name: str, metric: str | None = None) -> None:
        self.client, self.name, self.first = client, name, self
        found = self._found(name)
        if found is None:
            known = sorted(one.name for one in self._ask(client.list_collections))
            raise DataError(f"there is no Chroma collection {name!r}; there is {first_few(known, 5) or 'none'}")
        self._describe(found)
        rows = self._ask(found.get, limit=1, include=["embeddings"])["embeddings"]
        if not len(rows):
            raise DataError(f"the Chroma collection {name} is empty")
        self.dimension = len(rows[0])
        if metric is not None and check_metric(metric) != self.metric:
            raise IncompatibleError(f"collection {name} is ranked by {self.metric}, not by {metric}")

    dimension: int
    metric: Metric

    def __len__(self) -> int:
        return int(self._ask(self.rows.count))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name}, {self.dimension} dimensions, {self.metric})"

    def search(
        self, queries: Float[Any, "q d"], k: int = 10, exact: bool = False, exclude: Shaped[Any, " q"] | None = None
    ) -> Hits:
        """As `Index.search`: by Chroma's HNSW; exactly, which Chroma cannot, by reading the whole collection in pages."""
        asked, left = check_queries(queries, self), None if exclude is None else as_numpy(exclude).tolist()
        more = k + (left is not None)
        rows = self._exact(asked, more) if exact else self._near(asked, more)
        if left is not None:
            rows = [[hit for hit in row if hit[0] != own][:k] for row, own in zip(rows, left, strict=True)]
        return Hits.named([[hit[0] for hit in row] for row in rows], [[hit[1] for hit in row] for row in rows], k, self.metric)

    def scan(self, batch: int = 10_000) -> Iterator[Features]:
        """All vectors with their ids: those that are there as it begins, unless they are deleted before their turn."""
        for ids in self._pages(self._ids(), batch):
            if found := self._vectors(ids):
                yield self._features(found)

    def read(self, ids: Values) -> Features:
        """The vectors of these ids, in their order.

        Raises:
            IncompatibleError: an id that the collection lacks.
        """
        wanted = list(np.asarray(ids).tolist())
        known = [one for one in wanted if isinstance(one, str)]
        found = {one: row for page in self._pages(known) for one, row in self._vectors(page).items()}
        missing = [one for one in wanted if one not in found]
        if missing:
            raise IncompatibleError(f"{len(missing)} of {len(wanted)} ids are not in {self.name} (first: {missing[0]!r})")
        return self._features({one: found[one] for one in wanted})

    def second(self, name: str) -> "ChromaSecond | None":
        """As `Upgradable.second`."""
        return None if self._found(name) is None else ChromaSecond(self, name)

    def add_second(self, name: str, dimension: int) -> "ChromaSecond":
        """As `Upgradable.add_second`: a collection of the same metric."""
        if self._found(name) is None:
            note = {f"{NOTE}beside": self.name, f"{NOTE}dimension": int(dimension)}
            space = next(one for one, metric in METRICS.items() if metric == self.metric)
            like = {"configuration": {"hnsw": {"space": space}}, "embedding_function": None}
            self._ask(self.client.create_collection, name, metadata=note, **like)
        made = ChromaSecond(self, name)
        if made.dimension != dimension:
            raise IncompatibleError(f"collection {name} has {made.dimension} dimensions, not {dimension}")
        return made

    def name_space(self, space: str) -> None:
        """As `Upgradable.name_space`: in the collection's metadata, beside what others wrote there.

        Chroma refuses keys that begin with `hnsw:` there once a collection is made; its configuration holds the same.
        """
        found = self._found(self.name)
        kept = {key: value for key, value in (found.metadata or {}).items() if not key.startswith("hnsw:")}
        self._ask(found.modify, metadata=kept | {f"{NOTE}space": space})
        self.space = space

    def _describe(self, found: Any) -> None:
        said = found.configuration_json  # `configuration` warns of collections without an embedding function
        kind = said.get("hnsw") or said.get("spann") or {}
        self.rows, self.metric = found, check_metric(METRICS[kind.get("space", "l2")])
        self.space = str((found.metadata or {}).get(f"{NOTE}space", ""))

    def _found(self, name: str) -> Any:
        try:
            return self.client.get_collection(name, embedding_function=None)
        except require("chromadb.errors").NotFoundError:
            return None
        except Exception as error:
            raise DataError(f"Chroma refuses: {_line(error)}") from error

    def _ask(self, call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        try:
            return call(*arguments, **named)
        except Exception as error:  # Chroma's own, SQLite's, and those of its Rust core
            raise DataError(f"Chroma refuses: {_line(error)}") from error

    def _ids(self) -> list[str]:
        """All ids at once: pages by offset would miss some while others are deleted."""
        return list(self._ask(self.rows.get, include=[])["ids"])

    def _pages(self, ids: list[str], batch: int = PAGE) -> Iterator[list[str]]:
        step = max(1, min(batch, PAGE, NUMBERS // self.first.dimension, NUMBERS // self.dimension))
        return (ids[start : start + step] for start in range(0, len(ids), step))

    def _vectors(self, ids: list[str]) -> dict[str, Float[np.ndarray, " d"]]:
        """Id → vector of those that are there, in the order of the ids."""
        found = self._ask(self.rows.get, ids=ids, include=["embeddings"]) if ids else {"ids": [], "embeddings": []}
        rows = dict(zip(found["ids"], np.asarray(found["embeddings"], dtype=np.float32), strict=True))
        return {one: rows[one] for one in ids if one in rows}

    def _features(self, rows: dict[str, Float[np.ndarray, " d"]]) -> Features:
        return Features(
            np.stack(list(rows.values())), ids=np.array(list(rows)), space=self.space, ids_from="the collection's ids"
        )

    def _near(self, asked: Float[np.ndarray, "q d"], k: int) -> list[list[tuple[str, float]]]:
        found = self._ask(self.rows.query, query_embeddings=asked, n_results=k, include=["distances"])
        root = self.metric == "euclidean"  # whose distances come squared
        scores = [[-(max(far, 0.0) ** 0.5) if root else 1.0 - far for far in row] for row in found["distances"]]
        return [list(zip(*pair, strict=True)) for pair in zip(found["ids"], scores, strict=True)]

    def _exact(self, asked: Float[np.ndarray, "q d"], k: int) -> list[list[tuple[str, float]]]:
        ids, scores = np.zeros((len(asked), 0), dtype=object), np.zeros((len(asked), 0), dtype=np.float32)
        for block in self.scan():
            hits = search(asked, block.vectors, k, self.metric)
            ids = np.concatenate([ids, block.ids.astype(object)[hits.indices]], axis=1)
            scores = np.concatenate([scores, hits.scores], axis=1)
            order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
            ids, scores = np.take_along_axis(ids, order, axis=1), np.take_along_axis(scores, order, axis=1)
        pairs = zip(ids.tolist(), scores.tolist(), strict=True)
        return [[hit for hit in zip(*pair, strict=True) if hit[1] > -np.inf] for pair in pairs]

    def close(self) -> None:
        """Close the client."""
        self.client.close()


class ChromaSecond(ChromaIndex):
    """A second collection with the ids of the first, as `Second`; rows that the first has no more count for nothing.

    Args:
        first: the collection that it stands beside.
        name: of the second.

    Raises:
        IncompatibleError: there is one that `add_second` has not made beside the first: it is somebody else's.
    """

    def __init__(self, first: ChromaIndex, name: str) -> None:
        self.client, self.name, self.first, self.key = first.client, name, first, name + SPACE
        found = self._found(name)
        note = found.metadata or {}
        if note.get(f"{NOTE}beside") != first.name:
            raise IncompatibleError(f"collection {name} was not made here beside {first.name}; choose another name")
        self._describe(found)
        self.dimension = int(note[f"{NOTE}dimension"])

    def __len__(self) -> int:
        return len(self._ids())

    def blocks(self, batch: int = 1_000) -> Iterator[Block]:
        """As `Second.blocks`: the rows that are there as it begins."""
        return (self.block(ids) for ids in self._pages(self.first._ids(), batch))

    def block(self, ids: Values) -> Block:
        """As `Second.block`."""
        rows = self.first._vectors([one for one in np.asarray(ids).tolist() if isinstance(one, str)])
        known = self._stamps(list(rows))
        stamps = np.array([known.get(one, "") for one in rows], dtype=str)
        old = np.array(list(rows.values()), dtype=np.float32).reshape(len(rows), self.first.dimension)
        return Block(np.array(list(rows), dtype=str), old, stamps, versions=stamps)

    def write(self, block: Block, vectors: Float[np.ndarray, "m d"], stamps: Shaped[np.ndarray, " m"]) -> int:
        """As `Second.write`, as far as Chroma can: it has no conditions.

        The old vectors are read again right before; only rows that are there and unchanged get their new vector, which comes
        with its stamp in one call. They are read once more right after: what has changed by then is not counted, and the digest
        in its stamp tells, as it does whenever an item changes later. One that is deleted is no longer met: searches, scans
        and counts leave out what the first collection lacks.
        """
        then = dict(zip(block.ids.tolist(), zip(block.old, vectors, stamps.tolist(), strict=True), strict=True))
        return sum(self._write({one: then[one] for one in ids}) for ids in self._pages(list(then)))

    def _write(self, then: dict[str, Any]) -> int:
        if not (same := self._unchanged(then)):
            return 0
        rows, said = [then[one][1] for one in same], [{self.key: then[one][2]} for one in same]
        self._ask(self.rows.upsert, same, embeddings=np.array(rows, dtype=np.float32), metadatas=said)
        return len(self._unchanged({one: then[one] for one in same}))

    def _unchanged(self, then: dict[str, Any]) -> list[str]:
        return [one for one, row in self.first._vectors(list(then)).items() if np.array_equal(row, then[one][0])]

    def counts(self) -> dict[str, int]:
        """As `Second.counts`."""
        ids = self.first._ids()
        stamps = [stamp for page in self._pages(ids) for stamp in self._stamps(page).values()]
        found = Counter(map(mark_of, stamps))
        found[""] += len(ids) - len(stamps)
        return {said: count for said, count in found.items() if count}

    def drop(self) -> None:
        """As `Second.drop`."""
        self._ask(self.client.delete_collection, self.name)

    def _stamps(self, ids: list[str]) -> dict[str, str]:
        found = self._ask(self.rows.get, ids=ids, include=["metadatas"]) if ids else {"ids": [], "metadatas": []}
        return {one: str((said or {}).get(self.key, "")) for one, said in zip(found["ids"], found["metadatas"], strict=True)}

    def _ids(self) -> list[str]:
        known = set(self.first._ids())
        return [one for one in super()._ids() if one in known]

    def _near(self, asked: Float[np.ndarray, "q d"], k: int) -> list[list[tuple[str, float]]]:
        """As many as are wanted of those that the first collection still has."""
        everything, more = int(self._ask(self.rows.count)), k
        while True:
            found = super()._near(asked, min(more, max(1, everything)))
            ids = sorted({one for row in found for one, _ in row})
            here = {one for page in self._pages(ids) for one in self._ask(self.first.rows.get, ids=page, include=[])["ids"]}
            kept = [[hit for hit in row if hit[0] in here][:k] for row in found]
            if more >= everything or min(map(len, kept)) >= k:
                return kept
            more *= 2


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
