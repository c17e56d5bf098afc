"""A vector of a Qdrant collection, and a second one that is written point by point beside it."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from ...arrays import as_numpy
from ...errors import ConfigError, DataError, IncompatibleError, first_few
from ...features.features import Features
from ...features.values import Values
from ...metric import Metric, check_metric
from ..address import parts_of
from ..checks import check_queries
from ..hits import Hits
from ..second import Block
from .qdrant_server import Gone, Qdrant, connect, ids_of, known_id
from .qdrant_stamps import Stamps

FORM = "qdrant:URL_or_DIR#collection.vector"
METRICS = {"Cosine": "cosine", "Euclid": "euclidean", "Dot": "dot"}
NUMBERS = 1_000_000  # in one request: JSON takes about 20 bytes for each, and a server accepts 32 MB
QUERIES = 64  # in one request
TRIES = 5  # of a write among whose points some vanish meanwhile


def open_store(address: str, metric: str | None) -> "QdrantIndex":
    """The index at `qdrant:URL_or_DIR#collection.vector`; without a vector, the unnamed one.

    Args:
        address: of the server or folder, the collection and the vector; the key of a server is in QDRANT_API_KEY.
        metric: what ranks; the collection knows it.

    Raises:
        ConfigError: an address of another form; or as `QdrantIndex`.
        DataError: no such server, folder or collection; or as `QdrantIndex`.
    """
    place, name = parts_of(address.partition(":")[2], FORM)
    server = connect(place)
    return QdrantIndex(server, *server.parts(name), metric)


class QdrantIndex:
    """A dense vector of a Qdrant collection, as `Upgradable`.

    Args:
        server: the client.
        collection: name or alias.
        name: of the vector; "" for the unnamed one.
        metric: what ranks, if somebody wants to make sure.

    Raises:
        ConfigError: no such metric.
        DataError: no such collection or vector.
        IncompatibleError: the vector is ranked by another metric, or it is several vectors per point.

    Under cosine, Qdrant keeps vectors at unit length. In a local folder, whoever searches by cosine also changes their last
    bits (qdrant-client 1.20), so that rows may seem to have changed since they were stamped.
    """

    def __init__(self, server: Qdrant, collection: str, name: str, metric: str | None = None) -> None:
        self.server, self.collection, self.name, self.first = server, collection, name, self
        known = server.vectors(collection)
        if name not in known:
            said = f"no vector {name!r}" if name else "no unnamed vector"
            listed = first_few((f"{collection}.{one}" if one else collection for one in known), 5)
            raise DataError(f"collection {collection} at {server} has {said}; name one of: {listed}")
        self._describe(known[name], metric)

    def _describe(self, params: Any, metric: str | None = None) -> None:
        distance = str(params.distance.value)
        if distance not in METRICS or params.multivector_config is not None:
            kind = "several vectors per point" if params.multivector_config else f"vectors ranked by {distance}"
            raise IncompatibleError(f"{self._title} holds {kind}; only {', '.join(METRICS)} of one vector per point are read")
        self.params, self.dimension, self.metric = params, int(params.size), check_metric(METRICS[distance])
        if metric is not None and check_metric(metric) != self.metric:
            raise IncompatibleError(f"{self._title} is ranked by {self.metric}, not by {metric}")
        self.space = str(self._note(self.name).get("space", ""))

    metric: Metric

    def __len__(self) -> int:
        return int(self.server.ask("count", self.collection, count_filter=self.server.having(self.name), exact=True).count)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._title} at {self.server}, {self.dimension} dimensions, {self.metric})"

    def search(
        self, queries: Float[Any, "q d"], k: int = 10, exact: bool = False, exclude: Shaped[Any, " q"] | None = None
    ) -> Hits:
        """As `Index.search`: by Qdrant, through its index as it is, or exactly through all points."""
        models, asked = self.server.models, check_queries(queries, self)
        left = None if exclude is None else as_numpy(exclude).tolist()
        requests = [
            models.QueryRequest(
                query=row,
                using=self.name or None,
                limit=k + (left is not None),
                params=models.SearchParams(exact=True) if exact and not self.server.local else None,  # a folder is always exact
                with_payload=False,
                with_vector=False,
            )
            for row in asked.tolist()
        ]
        found = []
        for start in range(0, len(requests), QUERIES):
            answers = self.server.ask("query_batch_points", self.collection, requests[start : start + QUERIES])
            found += [[(hit.id, hit.score) for hit in answer.points] for answer in answers]
        if left is not None:
            found = [[hit for hit in row if hit[0] != own][:k] for row, own in zip(found, left, strict=True)]
        sign = -1.0 if self.metric == "euclidean" else 1.0  # of Euclid alone, Qdrant's score is a distance
        ids = [ids_of([hit[0] for hit in row]).tolist() for row in found]
        return Hits.named(ids, [[sign * hit[1] for hit in row] for row in found], k, self.metric)

    def scan(self, batch: int = 10_000) -> Iterator[Features]:
        """All vectors with their ids, at most `batch` at a time and fewer of long ones; there is no snapshot."""
        for points in self._pages(batch, self.name):
            yield self._features(points)

    def read(self, ids: Values) -> Features:
        """The vectors of these ids, in their order.

        Raises:
            IncompatibleError: an id that the collection lacks.
        """
        wanted = list(np.asarray(ids).tolist())
        found = {point.id: point for point in self._points(wanted)}
        rows = [found.get(known_id(one)) for one in wanted]
        missing = [one for one, row in zip(wanted, rows, strict=True) if row is None]
        if missing:
            raise IncompatibleError(f"{len(missing)} of {len(wanted)} ids are not in {self._title} (first: {missing[0]!r})")
        return self._features(rows)

    def second(self, name: str) -> "QdrantSecond | None":
        """As `Upgradable.second`."""
        return QdrantSecond(self, name) if name in self.server.vectors(self.collection) else None

    def add_second(self, name: str, dimension: int) -> "QdrantSecond":
        """As `Upgradable.add_second`: a named vector of the same distance, added to the collection as it runs (server 1.18)."""
        models = self.server.models
        if not name or any(sign in name for sign in '"[]'):
            raise ConfigError(f"a second vector needs a name without quotes and brackets; got {name!r}")
        if self.server.local and not self.name:
            raise IncompatibleError(
                f"beside a named vector, a local folder takes no unnamed ones from its application any more; "
                f"give the vector of {self.collection} a name, or let a Qdrant server hold it"
            )
        if name not in self.server.vectors(self.collection):
            dense = models.DenseVectorConfig(size=dimension, distance=self.params.distance, datatype=self.params.datatype)
            self._notes(name, {"beside": self.name})  # first: a vector without a note is somebody else's
            try:
                config = models.DenseVectorNameConfig(dense=dense)
                self.server.ask("create_vector_name", self.collection, vector_name=name, vector_name_config=config)
            except Gone as error:
                raise DataError(f"Qdrant at {self.server} adds no vector to a collection; that needs server 1.18") from error
        made = QdrantSecond(self, name)
        if made.dimension != dimension:
            raise IncompatibleError(f"{made._title} has {made.dimension} dimensions, not {dimension}")
        made.stamps.index()
        return made

    def name_space(self, space: str) -> None:
        """As `Upgradable.name_space`: in the collection's metadata, beside what others wrote there."""
        self._notes(self.name, self._note(self.name) | {"space": space})
        self.space = space

    @property
    def _title(self) -> str:
        return f"{self.collection}.{self.name}" if self.name else self.collection

    def _note(self, name: str) -> dict[str, Any]:
        metadata = self.server.ask("get_collection", self.collection).config.metadata or {}
        return dict(metadata.get(f"compatlearn:{name}") or {})

    def _notes(self, name: str, note: dict[str, Any] | None) -> None:
        self.server.ask("update_collection", self.collection, metadata={f"compatlearn:{name}": note})
        if note and self._note(name) != note:
            raise DataError(f"Qdrant at {self.server} keeps no metadata of a collection; that needs server 1.16")

    def _pages(self, batch: int, name: str) -> Iterator[list[Any]]:
        limit = max(1, min(batch, NUMBERS // self.first.dimension, NUMBERS // self.dimension))
        wanted = {"with_payload": False, "with_vectors": [name]}
        return self.server.pages(self.collection, scroll_filter=self.server.having(name), limit=limit, **wanted)

    def _points(self, ids: list[Any]) -> list[Any]:
        """The points of these ids that are there and have this vector."""
        known = [one for one in map(known_id, ids) if one is not None]
        step = max(1, NUMBERS // self.dimension)
        wanted = {"with_payload": False, "with_vectors": [self.name]}
        pages = [
            self.server.ask("retrieve", self.collection, known[i : i + step], **wanted) for i in range(0, len(known), step)
        ]
        return [point for page in pages for point in page if point.vector]

    def _vectors(self, points: list[Any]) -> Float[np.ndarray, "m d"]:
        rows = [point.vector[self.name] if isinstance(point.vector, dict) else point.vector for point in points]
        return np.array(rows, dtype=np.float32).reshape(len(points), self.dimension)

    def _features(self, points: list[Any]) -> Features:
        ids = ids_of([point.id for point in points])
        return Features(self._vectors(points), ids=ids, space=self.space, ids_from="the ids of points")

    def close(self) -> None:
        """Close the client."""
        self.server.close()


class QdrantSecond(QdrantIndex):
    """A second, named vector beside the first, as `Second`.

    Args:
        first: the vector that it stands beside.
        name: of the second.

    Raises:
        IncompatibleError: there is one that `add_second` has not made beside this vector: it is somebody else's.
    """

    def __init__(self, first: QdrantIndex, name: str) -> None:
        self.server, self.collection, self.first, self.name = first.server, first.collection, first, name
        self.stamps = Stamps(self.server, self.collection, first.name, name)
        self._describe(self.server.vectors(self.collection)[name])
        if self._note(name).get("beside") != first.name:
            raise IncompatibleError(f"{self._title} was not made here beside {first._title}; choose another name")

    def blocks(self, batch: int = 1_000) -> Iterator[Block]:
        """As `Second.blocks`: in the order of the ids, one page after the other."""
        return map(self._block, self._pages(batch, self.first.name))

    def block(self, ids: Values) -> Block:
        """As `Second.block`."""
        return self._block(self.first._points(list(np.asarray(ids).tolist())))

    def write(self, block: Block, vectors: Float[np.ndarray, "m d"], stamps: Shaped[np.ndarray, " m"]) -> int:
        """As `Second.write`, as far as Qdrant can: it has conditions on the payload, not on a vector.

        Each point gets a claim in its payload; then the old vectors are read again; those unchanged get their new vector on
        the condition that the claim is still there; then their stamp; then the claims are taken away. When the application
        upserts a point, the claim vanishes with the old payload, and a deleted point is never made again. A stamp counts only
        on a point that has a second vector and no claim: whenever this is killed, what is unfinished is not taken for done.

        One window is left: an application that changes only the old vector (`update_vectors`), or that upserts with a payload
        read while the claim was there, in the milliseconds between the second reading and the write. Such a point has a new
        vector of its former state; the digest in its stamp tells. With replicas, this holds as far as they agree.

        An upsert by the application takes the stamp away too: such a point looks like one that has never been written. That a
        cache holds a vector of its former content shows only where the cache knows what that was made from.
        """
        rows = dict(zip(block.ids.tolist(), zip(block.old, vectors, stamps.tolist(), strict=True), strict=True))
        step, ids = max(1, NUMBERS // max(self.dimension, self.first.dimension)), list(rows)
        return sum(self._write({one: rows[one] for one in ids[i : i + step]}) for i in range(0, len(ids), step))

    def _write(self, rows: dict[Any, Any]) -> int:
        ids = list(rows)
        claim = self.stamps.take(ids)
        for left in reversed(range(TRIES)):
            points = self.first._points(ids)
            pairs = zip(points, self.first._vectors(points), strict=True)
            same = [point.id for point, old in pairs if self._unchanged(old, rows[point.id][0])]
            try:
                self.stamps.put({one: rows[one][1:] for one in same}, claim)
                break
            except Gone:
                if not left:
                    raise
        self.stamps.release(ids, claim)
        written = self.stamps.of(same)
        return sum(written.get(one) == rows[one][2] for one in same)

    def _unchanged(self, now: Float[np.ndarray, " d"], then: Float[np.ndarray, " d"]) -> bool:
        scaled = self.server.local and self.first.metric == "cosine"  # by each search, which changes the last bits
        return bool(np.allclose(now, then, rtol=0, atol=1e-6) if scaled else np.array_equal(now, then))

    def counts(self) -> dict[str, int]:
        """As `Second.counts`."""
        found = self.stamps.counts()
        found[""] = len(self.first) - sum(count for said, count in found.items() if said)
        return {said: count for said, count in found.items() if count > 0}

    def drop(self) -> None:
        """As `Second.drop`: stamps first, so that one that was killed can be repeated."""
        self.stamps.clear()
        self.server.ask("delete_vector_name", self.collection, vector_name=self.name)
        self._notes(self.name, None)

    def _block(self, points: list[Any]) -> Block:
        ids = [point.id for point in points]
        known = self.stamps.of(ids)
        stamps = np.array([known.get(one, "") for one in ids], dtype=str)
        return Block(ids_of(ids), self.first._vectors(points), stamps, versions=stamps)
