"""Open what holds the old vectors by its address."""

import importlib
from pathlib import Path
from typing import Any

from ..errors import IncompatibleError, unknown
from ..features.features import Features
from ..metric import check_metric
from .arrays import ArrayIndex

STORES = {
    "postgresql": "pgvector",
    "postgres": "pgvector",
    "lancedb": "lance",
    "qdrant": "qdrant",
    "chroma": "chroma",
    "faiss": "faiss",
}
"""How an address begins → the module that opens it, which has `open_store(address, metric)`."""


def open_index(address: Any, *, metric: str | None = None, space: str = "") -> Any:
    """An index where it lives: metric, dimension, counts and ids are the store's own.

    Args:
        address: `postgresql://…#table.column`, `lancedb:DIR#table.column`, `qdrant:URL_or_DIR#collection.vector`,
            `chroma:DIR#collection`, `faiss:FILE`, or a folder or file of features; or `Features`, or an (n, d) array.
        metric: what ranks, where the store does not say it.
        space: the model that made the vectors, where the store does not say it.

    Returns:
        An index that can be searched and read; those of a store can hold a second vector too (`Upgradable`).

    Raises:
        ConfigError: an address or a metric that does not exist, a metric that nobody named, or a client that is not installed.
        DataError: there is no such store, table, column, collection or file.
        IncompatibleError: the store says another metric or another space than what is given.

    >>> import numpy as np
    >>> import compatlearn as cl
    >>> index = cl.open_index(np.eye(3), metric="cosine")
    >>> len(index), index.dimension, index.metric
    (3, 3, 'cosine')
    """
    if not isinstance(address, str | Path):
        return ArrayIndex(address, metric=check_metric(metric or "euclidean"), space=space)
    scheme, separator, _ = str(address).partition(":")
    if not separator or (scheme not in STORES and Path(str(address)).exists()):
        path = Path(str(address))
        return ArrayIndex(Features.load(path), metric=check_metric(metric or "euclidean"), space=space, path=path)
    if scheme not in STORES:
        raise unknown("kind of index", scheme, STORES)
    found = importlib.import_module(f"{__package__}.stores.{STORES[scheme]}").open_store(str(address), metric)
    if space and found.space not in ("", space):
        raise IncompatibleError(f"{address} holds vectors of space {found.space!r}, not {space!r}; name the one that it has")
    found.space = space or found.space
    return found
