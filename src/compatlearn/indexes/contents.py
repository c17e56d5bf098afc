"""What a store keeps of its items beside their vectors: the texts of a column, read by id."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..errors import ConfigError, DataError, IncompatibleError, first_few
from ..features.values import Values

Found = Mapping[Any, Any]  # id → what the store has
DOCUMENT = "document"  # what Chroma keeps of an item beside its metadata
PAGE = 5_000  # items that a store is asked for at once
TYPES = "S"  # the category of PostgreSQL's types of text, other people's too


def contents_of(index: Any, ids: Values, column: str) -> list[str | None]:
    """Texts that the store of an index keeps of some items; nothing else is read.

    Args:
        index: a live index that `open_index` has opened.
        ids: of the items.
        column: a column of text in pgvector or LanceDB, a key of the payload in Qdrant, in Chroma a key of the metadata or
            `document`.

    Returns:
        One for each id, in their order; None where the item is gone, or has no text there.

    Raises:
        ConfigError: such an index keeps vectors alone.
        DataError: there is no such column, or the store cannot be read.
        IncompatibleError: the column holds something else than texts.
    """
    read = STORES.get(type(index).__module__.rpartition(".")[2])
    if read is None:
        raise ConfigError(f"{index!r} keeps vectors and no contents; give a file of the contents by id, or a function of ids")
    wanted = list(np.asarray(ids).tolist())
    found: dict[Any, Any] = {}
    try:
        for start in range(0, len(wanted), PAGE):
            found |= read(index, wanted[start : start + PAGE], column)
    except DataError as error:
        raise error if column in str(error) else DataError(f"{column!r} cannot be read: {error}") from error
    odd = [one for one, value in found.items() if value is not None and not isinstance(value, str)]
    if odd:
        kind = type(found[odd[0]]).__name__
        raise IncompatibleError(
            f"{len(odd)} of {len(wanted)} items hold no text in {column!r} (first: id {odd[0]!r}, {kind}); name one of texts"
        )
    return [found.get(one) for one in wanted]


def _of_pgvector(index: Any, ids: list[Any], column: str) -> Found:
    statement = (
        "SELECT {t}.{k}, {t}.{c}::text, y.typname, y.typcategory FROM {t} JOIN pg_type y ON y.oid = pg_typeof({t}.{c}) "
        "WHERE {t}.{k} = ANY (%s::text[]::{key}[])"
    )
    asked = index._sql(statement, column), [list(map(str, ids))]
    rows = index.server.run(lambda cursor: cursor.execute(*asked).fetchall())
    if rows and rows[0][3] != TYPES:
        raise IncompatibleError(f"column {index.table}.{column} holds {rows[0][2]}; contents are read from columns of text")
    return {index._id(row): row[1] for row in rows}


def _of_lance(index: Any, ids: list[Any], column: str) -> Found:
    import pyarrow as pa

    from .stores.lance_table import KEY

    schema = index.table.schema
    if column not in schema.names:
        raise DataError(f"{index.table} has no column {column!r}; it has {first_few(schema.names, 8)}")
    kind = schema.field(column).type
    if not pa.types.is_string(kind) and not pa.types.is_large_string(kind):
        raise IncompatibleError(f"column {column!r} of {index.table} holds {kind}; contents are read from columns of text")
    rows = index.table.named(list(dict.fromkeys([KEY, column])), index._filled(index), ids)
    return dict(zip(index.table.ids(rows).tolist(), rows[column].to_pylist(), strict=True))


def _of_qdrant(index: Any, ids: list[Any], column: str) -> Found:
    from .stores.qdrant_server import known_id

    asked = {one: known for one in ids if (known := known_id(one)) is not None}
    points = index.server.ask("retrieve", index.collection, list(asked.values()), with_payload=[column], with_vectors=False)
    found = {point.id: (point.payload or {}).get(column) for point in points}
    return {one: found.get(known) for one, known in asked.items()}


def _of_chroma(index: Any, ids: list[Any], column: str) -> Found:
    what = "documents" if column == DOCUMENT else "metadatas"
    found = index._ask(index.rows.get, ids=[one for one in ids if isinstance(one, str)], include=[what])
    values = found[what] if column == DOCUMENT else [(one or {}).get(column) for one in found[what]]
    return dict(zip(found["ids"], values, strict=True))


STORES: Mapping[str, Callable[[Any, list[Any], str], Found]] = {
    "pgvector": _of_pgvector,
    "lance": _of_lance,
    "qdrant": _of_qdrant,
    "chroma": _of_chroma,
}
"""The module of a store → its function(index, ids, column)."""
