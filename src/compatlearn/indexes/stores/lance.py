"""A column of LanceDB: read from one version, searched by LanceDB, and a second column that is written under a condition.

LanceDB makes a version at every write and moves the rows that it changes. So a write costs a pass over the ids of the whole
table, however few rows it brings; thousands of small writes are as many versions and fragments; and rows that were moved are
searched one by one, without the vector index, until the index takes them in. Write blocks of 10,000 rows or more, and call
LanceDB's own `table.optimize()` afterwards: it joins the fragments and brings the indexes up to date. It also removes
versions that are older than a week, which others may want, so nothing here calls it.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Shaped

from ...arrays import as_numpy
from ...errors import IncompatibleError
from ...features.features import Features
from ...features.values import Values
from ...metric import Metric
from ..address import parts_of, table_and_column
from ..checks import check_metric_of, check_queries
from ..hits import Hits
from ..parts import WHOLE, Part, ranges
from ..second import SPACE, Block, mark_of
from .lance_rows import write_rows
from .lance_table import KEY, METRICS, LanceTable, identifier, literal, texts, vectors

FORM = "lancedb:DIR#table.column"
QUERIES = 64  # that LanceDB is asked at once
LEAST, MOST = 10_000, 100_000  # rows of a block, where nobody says how many
SAMPLED = 100  # ids for every part, that are looked at to find out where it begins


def open_store(address: str, metric: str | None) -> "LanceIndex":
    """The index at `lancedb:DIR#table.column`; items are told apart by the table's column `id`.

    Args:
        address: of the database, the table and the column.
        metric: what ranks, where the column has no index that says so.

    Raises:
        ConfigError: an address of another form; or as `LanceIndex`.
    """
    folder, name = parts_of(address.partition(":")[2], FORM)
    table, column = table_and_column(name, FORM)
    return LanceIndex(LanceTable(folder, table), column, metric)


class LanceIndex:
    """A column of vectors of a LanceDB table, as `Upgradable`.

    Args:
        table: that holds it.
        column: of lists of floats of a fixed size.
        metric: what ranks, where the column has no index that says so.

    Raises:
        ConfigError: the metric is not known.
        DataError: there is no such column.
        IncompatibleError: the column holds no vectors, or is ranked by another metric.
    """

    def __init__(self, table: LanceTable, column: str, metric: str | None = None) -> None:
        self.table, self.name, self.first = table, column, self
        self.dimension = table.dimension(column)
        note, known = table.note(column), table.metrics(column)
        self.space = note.get("space", "")
        noted = {note["metric"]} if "metric" in note else set()
        self.metric: Metric = check_metric_of(f"{table.name}.{column}", known or noted, metric)

    def __len__(self) -> int:
        return int(self.table.read(lambda table: table.count_rows(self._filled(self))))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name} in {self.table}, {self.dimension} dimensions, {self.metric})"

    def search(
        self, queries: Float[Any, "q d"], k: int = 10, exact: bool = False, exclude: Shaped[Any, " q"] | None = None
    ) -> Hits:
        """As `Index.search`: by LanceDB, through its index as it is, or exactly through the whole table."""
        asked, left = check_queries(queries, self), None if exclude is None else as_numpy(exclude).tolist()
        ids: list[list[Any]] = []
        scores: list[list[float]] = []
        for start in range(0, len(asked), QUERIES):
            rows = self._nearest(asked[start : start + QUERIES], k + (left is not None), exact)
            owns = [None] * len(rows) if left is None else left[start : start + QUERIES]
            kept = [[hit for hit in row if hit[0] != own][:k] for row, own in zip(rows, owns, strict=True)]
            ids += [[hit[0] for hit in row] for row in kept]
            scores += [[self._score(hit[1]) for hit in row] for row in kept]
        return Hits.named(ids, scores, k, self.metric)

    def scan(self, batch: int = 10_000) -> Iterator[Features]:
        """All vectors with their ids, of the version that is the newest now, at most `batch` at a time."""
        for rows in self.table.batches([KEY, self.name], self._filled(self), batch):
            yield self._features(rows)

    def read(self, ids: Values) -> Features:
        """The vectors of these ids, in their order.

        Raises:
            IncompatibleError: an id that the table lacks.
        """
        wanted = list(np.asarray(ids).tolist())
        rows = self.table.named([KEY, self.name], self._filled(self), ids)
        places = {one: place for place, one in enumerate(self.table.ids(rows).tolist())}
        missing = [one for one in wanted if one not in places]
        if missing:
            raise IncompatibleError(f"{len(missing)} of {len(wanted)} ids are not in {self.table} (first: {missing[0]!r})")
        return self._features(rows.take([places[one] for one in wanted]))

    def second(self, name: str) -> "LanceSecond | None":
        """As `Upgradable.second`."""
        return LanceSecond(self, name) if name in self.table.schema.names else None

    def add_second(self, name: str, dimension: int) -> "LanceSecond":
        """As `Upgradable.add_second`: a column `name`, and one for its stamps; nothing in the table is rewritten for it."""
        if self.second(name) is None:
            kind = pa.list_(self.table.schema.field(self.name).type.value_type, int(dimension))
            fields = [pa.field(name, kind), pa.field(name + SPACE, pa.string())]
            self.table.change(lambda table: table.add_columns(fields))
            self.table.noted(name, metric=self.metric)
        made = LanceSecond(self, name)
        if made.dimension != dimension:
            raise IncompatibleError(f"column {name} of {self.table} has {made.dimension} dimensions, not {dimension}")
        return made

    def name_space(self, space: str) -> None:
        """As `Upgradable.name_space`: in the column's metadata."""
        self.table.noted(self.name, space=space, metric=self.metric)
        self.space = space

    def _filled(self, column: "LanceIndex") -> str:
        return f"{identifier(column.name)} IS NOT NULL"

    def _nearest(self, queries: Float[np.ndarray, "q d"], k: int, exact: bool) -> list[list[tuple[Any, float]]]:
        metric = {ours: theirs for theirs, ours in METRICS.items()}[self.metric]

        def ask(table: Any) -> Any:
            asked = table.search(queries, vector_column_name=self.name).distance_type(metric).limit(k)
            return (asked.bypass_vector_index() if exact else asked).select([KEY, "_distance"]).to_arrow()

        found = self.table.read(ask)
        rows: list[list[tuple[Any, float]]] = [[] for _ in queries]
        numbers = found["query_index"].to_pylist() if "query_index" in found.column_names else [0] * len(found)
        for query, item, distance in zip(numbers, found[KEY].to_pylist(), found["_distance"].to_pylist(), strict=True):
            if distance is not None and distance == distance:
                rows[query].append((item, distance))
        return [sorted(row, key=lambda hit: hit[1]) for row in rows]

    def _score(self, distance: float) -> float:
        """Bigger is nearer; LanceDB has squared distances, and 1 − the cosine or the inner product."""
        return -float(np.sqrt(max(distance, 0.0))) if self.metric == "euclidean" else 1 - distance

    def _features(self, rows: Any) -> Features:
        values = vectors(rows[self.name], self.dimension)
        return Features(values, ids=self.table.ids(rows), space=self.space, ids_from=f"column {KEY!r}")


class LanceSecond(LanceIndex):
    """A second column of vectors beside the first, as `Second`.

    Args:
        first: the column that it stands beside.
        name: of the second.

    Raises:
        IncompatibleError: there is such a column, and none of stamps beside it: it is somebody else's.
    """

    def __init__(self, first: LanceIndex, name: str) -> None:  # of what is known already
        self.first, self.table, self.name, self.metric = first, first.table, name, first.metric
        if name + SPACE not in self.table.schema.names:
            raise IncompatibleError(
                f"column {name} of {self.table} was not made here: there is no {name + SPACE} beside it; choose another name"
            )
        self.dimension, self.space = self.table.dimension(name), self.table.note(name).get("space", "")

    def blocks(self, batch: int | None = None, part: Part = WHOLE) -> Iterator[Block]:
        """As `Second.blocks`: of one version, which holds nobody up; what changes meanwhile is for the next round.

        A write costs a pass over the table, so blocks are a tenth of it unless `batch` says otherwise, up to 100,000 rows.
        """
        rows = batch or min(MOST, max(LEAST, self.table.read(lambda table: table.count_rows()) // 10))
        for found in self.table.batches(self._columns(), self._filled(self.first) if part == WHOLE else _within(part), rows):
            filled = found.filter(found[self.first.name].is_valid())  # asked for this, LanceDB reads all vectors of the table
            if len(filled):
                yield self._block(filled)

    def parts(self, count: int) -> list[Part]:
        """As `Divisible.parts`: between quantiles of the ids, in a sample of them."""
        step = max(1, len(self.first) // (SAMPLED * count))
        some = [self.table.ids(rows)[::step] for rows in self.table.batches([KEY], f"{KEY} IS NOT NULL", 100_000)]
        ids = np.sort(np.concatenate(some)) if some else np.zeros(0)
        return ranges([ids[place * len(ids) // count].item() for place in range(1, count)] if len(ids) else [])

    def block(self, ids: Values) -> Block:
        """As `Second.block`."""
        return self._block(self.table.named(self._columns(), self._filled(self.first), ids))

    def write(self, block: Block, vectors: Float[np.ndarray, "m d"], stamps: Shaped[np.ndarray, " m"]) -> int:
        """As `Second.write`: a row counts as unchanged while its first vector and its stamp are as they were.

        Its other columns are not looked at, and stay as they are at that moment.
        """
        return write_rows(self.table, self.first.name, self.name, block, vectors, stamps)

    def counts(self) -> dict[str, int]:
        """As `Second.counts`."""
        found: Counter[str] = Counter()
        for rows in self.table.batches([self.name + SPACE], self._filled(self.first), 100_000):
            found.update(map(mark_of, texts(rows[self.name + SPACE]).tolist()))
        return dict(found)

    def drop(self) -> None:
        """As `Second.drop`."""
        self.table.change(lambda table: table.drop_columns([self.name, self.name + SPACE]))

    def _columns(self) -> list[str]:
        return [KEY, self.first.name, self.name + SPACE]

    def _block(self, rows: Any) -> Block:
        stamps = texts(rows[self.name + SPACE])
        return Block(self.table.ids(rows), vectors(rows[self.first.name], self.first.dimension), stamps, stamps)


def _within(part: Part) -> str:
    """The condition of the rows of a part."""
    ends = ((">=", part.first), ("<", part.last))
    return " AND ".join(f"{identifier(KEY)} {sign} {literal(end)}" for sign, end in ends if end is not None)
