"""A FAISS file as a live index: searched as it is, read back safely, and second vectors in a folder beside it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from ...arrays import as_numpy
from ...errors import ConfigError, DataError, IncompatibleError, first_few
from ...extras import require
from ...features.features import Features
from ...features.values import Values
from ...metric import Metric
from ...progress import say_once
from ..beside import Beside, add_beside, beside
from ..checks import check_queries
from ..hits import Hits
from ..places import folder_beside, note_space, noted_space
from ..streamed import search_blocks
from .faiss_file import Opened, metric_of, opened, sample, state
from .faiss_vectors import lists_of

FORM = "faiss:FILE"
READ = 16_384  # vectors that are read together


def open_store(address: str, metric: str | None) -> "FaissIndex":
    """The index in the file `faiss:FILE`; ids of text are in `FILE.ids`, one per line, or `FILE.ids.npy`.

    Args:
        address: of the file.
        metric: what ranks, where the file does not say it.

    Raises:
        ConfigError: no file is named; or as `FaissIndex`.
        DataError: as `FaissIndex`.
        IncompatibleError: as `FaissIndex`.
    """
    file = address.partition(":")[2]
    if not file:
        raise ConfigError(f"the address of such an index is {FORM}; got {address!r}")
    return FaissIndex(Path(file), metric)


class FaissIndex:
    """A file of FAISS, as `Upgradable`; it is never written.

    Args:
        path: of the file.
        metric: what ranks, where the file does not say it: inner product over vectors from a lossy code.

    Raises:
        ConfigError: the metric is not known.
        DataError: there is no such file, or no vector in it.
        FormatError: it is no whole FAISS file, or the ids beside it are not those of its vectors.
        IncompatibleError: the file is ranked by another metric.
    """

    def __init__(self, path: Path, metric: str | None = None) -> None:
        self.path, self._opened = path, opened(path)
        self.dimension = int(self._opened.index.d)
        self.metric: Metric = metric_of(self._opened, path, metric)
        self.space = noted_space(path)

    def __len__(self) -> int:
        self.renew()
        return int(self._opened.index.ntotal)

    def __repr__(self) -> str:
        return f"FaissIndex({self.path}, {self.dimension} dimensions, {self.metric})"

    def search(
        self, queries: Float[Any, "q d"], k: int = 10, exact: bool = False, exclude: Shaped[Any, " q"] | None = None
    ) -> Hits:
        """As `Index.search`: by the index as it is, or exactly among the vectors as they are read back.

        Under cosine, queries are scaled to unit length, for the index itself ranks by inner product.
        """
        asked, left = check_queries(queries, self), None if exclude is None else as_numpy(exclude)
        if k < 1:
            raise ConfigError(f"k must be at least 1; got {k}")
        self.renew()
        now = self._opened
        if self.metric == "cosine":
            asked = asked / np.linalg.norm(asked, axis=1, keepdims=True)
        if not exact:
            return self._found(asked, k, left, now, None)
        try:
            vectors = now.stored
        except DataError:  # the lists can all be looked at, even so
            if (lists := lists_of(now.index)) is None:
                raise
            return self._found(asked, k, left, now, require("faiss").SearchParametersIVF(nprobe=lists.nlist))
        self._warn()
        blocks = (vectors.at(rows) for rows in _parts(len(now.items), READ))
        return search_blocks(vectors.through(asked), blocks, k, self.metric, now.items, left)

    def _found(self, asked: Float[np.ndarray, "q d"], k: int, left: Any, now: Opened, how: Any) -> Hits:
        values, labels = now.index.search(asked, k + (left is not None), **({"params": how} if how else {}))
        scores = -np.sqrt(values.clip(min=0)) if self.metric == "euclidean" else values
        ids, kept = [], []
        for row, (some, theirs) in enumerate(zip(labels, scores, strict=True)):
            names = now.named(some[some >= 0])
            keep = np.ones(len(names), dtype=bool) if left is None else names != left[row]
            ids.append(names[keep].tolist()[:k])
            kept.append(theirs[some >= 0][keep].tolist()[:k])
        return Hits.named(ids, kept, k, self.metric)

    def scan(self, batch: int = 10_000) -> Iterator[Features]:
        """All vectors with their ids, of the file as it is now, at most `batch` at a time.

        Raises:
            DataError: they cannot be read back.
        """
        self.renew()
        now = self._opened
        self._warn()
        for rows in _parts(len(now.items), batch):
            yield self._features(now, rows)

    def read(self, ids: Values) -> Features:
        """The vectors of these ids, in their order.

        Raises:
            DataError: they cannot be read back.
            IncompatibleError: an id that the index lacks.
        """
        self.renew()
        self._warn()
        wanted = np.asarray(ids)
        rows = self._opened.table.rows(wanted)
        if (rows < 0).any():
            few = first_few(wanted[rows < 0].tolist())
            raise IncompatibleError(f"{(rows < 0).sum()} of {len(wanted)} ids are not in {self.path} (first: {few})")
        return self._features(self._opened, rows)

    def second(self, name: str) -> Beside | None:
        """As `Upgradable.second`: in a folder beside the file."""
        return beside(self, folder_beside(self.path, name), name)

    def add_second(self, name: str, dimension: int) -> Beside:
        """As `Upgradable.add_second`."""
        return add_beside(self, folder_beside(self.path, name), name, dimension)

    def name_space(self, space: str) -> None:
        """As `Upgradable.name_space`: in a small file beside the index."""
        note_space(self.path, space)
        self.space = space

    def renew(self) -> None:
        """As `First.renew`.

        Raises:
            IncompatibleError: the new file is ranked by another metric, or has another dimension.
        """
        if state(self.path) == self._opened.state:
            return
        now = opened(self.path)
        if now.index.d != self.dimension:
            raise IncompatibleError(f"{self.path} has {now.index.d} dimensions now, not {self.dimension}; open it again")
        metric_of(now, self.path, self.metric)
        self._opened = now

    def items(self) -> Shaped[np.ndarray, " n"]:
        """As `First.items`."""
        return self._opened.items

    def vectors_at(self, rows: Int[np.ndarray, " m"]) -> Float[np.ndarray, "m d"]:
        """As `First.vectors_at`."""
        self._warn()
        return self._opened.stored.at(rows)

    def _features(self, now: Opened, rows: Int[np.ndarray, " m"]) -> Features:
        return Features(now.stored.at(rows), ids=now.items[rows], space=self.space, ids_from=f"{self.path}")

    def _warn(self) -> None:
        """Say once that vectors are not what was added, and by how much."""
        vectors = self._opened.stored
        if vectors.codecs:
            rows = vectors.at(sample(len(vectors.labels))).astype(np.float64)
            share = vectors.error / np.sqrt(np.square(rows).sum(axis=1).mean() + vectors.error**2)
            known = f"off by about {share:.2g} of their length" if share == share else ""
            said = known or "by how much they are off cannot be measured without the originals"
            say_once(
                f"{self.path}: vectors are read back from a lossy code ({', '.join(vectors.codecs)}), {said}; "
                "where the old vectors are stored as they were, give those instead"
            )


def _parts(count: int, size: int) -> Iterator[Int[np.ndarray, " m"]]:
    return (np.arange(start, min(start + size, count)) for start in range(0, count, size))
