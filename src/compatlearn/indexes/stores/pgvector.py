"""A column of pgvector: read in a snapshot, searched by PostgreSQL, and a second column that is written row by row."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from ...arrays import as_numpy
from ...errors import DataError, IncompatibleError
from ...extras import require
from ...features.features import Features
from ...features.values import Values
from ...metric import Metric
from ..address import parts_of, table_and_column
from ..checks import check_metric_of, check_queries
from ..hits import Hits
from ..parts import WHOLE, Part, ranges
from ..second import SPACE, Block
from .postgres import KINDS, Postgres, quoted, vectors_of

FORM = "postgresql://USER@HOST/DATABASE#table.column"
LOCK = "3s"  # that a change of the table waits for others, before it lets them pass and tries again
PAGES = 4096  # of a table, that are looked at to find out where its parts begin
ROWS = "compatlearn_rows"
UPDATE = f"""
WITH free AS (
    SELECT t.{{k}} AS k, r.v, r.s FROM {{t}} t JOIN {ROWS} r ON t.{{k}} = r.k::{{key}}
    WHERE t.xmin::text = r.x FOR UPDATE OF t SKIP LOCKED
)
UPDATE {{t}} SET {{c}} = free.v, {{s}} = free.s FROM free WHERE {{t}}.{{k}} = free.k
"""
INTEGERS = {"bigint": ">i8", "integer": ">i4", "smallint": ">i2"}  # keys whose rows are of one size when they are copied
OPERATORS = {"euclidean": "<->", "cosine": "<=>", "dot": "<#>"}


def open_store(address: str, metric: str | None) -> "PgIndex":
    """The index at `postgresql://…#table.column`; the table may have its schema before it.

    Args:
        address: of the server, the table and the column.
        metric: what ranks, where the column has no index that says so.

    Raises:
        ConfigError: an address of another form; or as `PgIndex`.
    """
    url, name = parts_of(address, FORM)
    table, column = table_and_column(name, FORM)
    return PgIndex(url, table, column, metric)


class PgIndex:
    """A column of vectors of a PostgreSQL table, as `Upgradable`.

    Args:
        url: as libpq takes it; the password may come from PGPASSWORD.
        table: name, perhaps with its schema.
        column: of pgvector's type vector or halfvec.
        metric: what ranks, where the column has no index that says so.

    Raises:
        ConfigError: the metric is not known.
        DataError: no such table or column, no primary key of one column, or nobody answers.
        IncompatibleError: the column holds no vectors, or is ranked by another metric.
    """

    def __init__(self, url: str, table: str, column: str, metric: str | None = None) -> None:
        self.server, self.table, self.name, self.first = Postgres(url), table, column, self
        self.key, self.key_type = self.server.key(table)
        facts = self.server.column(table, column)
        self.kind, self.space = facts.kind, facts.note.get("space", "")
        noted = {facts.note["metric"]} if "metric" in facts.note else set()
        self.metric: Metric = check_metric_of(f"{table}.{column}", set(facts.metrics) or noted, metric)
        self.dimension = facts.dimension or self._first_dimension()

    def __len__(self) -> int:
        return int(self._all("SELECT count(*) FROM {t} WHERE {c} IS NOT NULL")[0][0])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.table}.{self.name} at {self.server}, {self.dimension} dimensions, {self.metric})"

    def search(
        self, queries: Float[Any, "q d"], k: int = 10, exact: bool = False, exclude: Shaped[Any, " q"] | None = None
    ) -> Hits:
        """As `Index.search`: by PostgreSQL, through its index as it is, or exactly through the whole table."""
        asked, left = check_queries(queries, self), None if exclude is None else as_numpy(exclude).tolist()
        more = k + (left is not None)
        statement = self._sql(
            "SELECT {k}, {c} {o} %(query)s FROM {t} WHERE {c} IS NOT NULL ORDER BY {c} {o} %(query)s LIMIT %(k)s"
        )

        def ask(cursor: Any) -> list[list[tuple[Any, float]]]:
            if exact:
                cursor.execute("SELECT set_config('enable_indexscan', 'off', true)")
            elif more > 40:  # what HNSW looks at unless it is told otherwise
                cursor.execute("SELECT set_config('hnsw.ef_search', %s, true)", [str(min(more, 1000))])
            found = []
            for query in asked:
                cursor.execute(statement, {"query": self._vector(query), "k": more})
                found.append([(item, float(distance)) for item, distance in cursor.fetchall() if distance == distance])
            return found

        rows = self.server.run(ask)
        if left is not None:
            rows = [[hit for hit in row if hit[0] != own][:k] for row, own in zip(rows, left, strict=True)]
        one = 1.0 if self.metric == "cosine" else 0.0
        ids, scores = ([[pick(hit) for hit in row] for row in rows] for pick in (self._id, lambda hit: one - hit[1]))
        return Hits.named(ids, scores, k, self.metric)

    def scan(self, batch: int = 10_000) -> Iterator[Features]:
        """All vectors with their ids, in one snapshot of the table, at most `batch` at a time."""
        statement = "SELECT {k}, {c} FROM {t} WHERE {c} IS NOT NULL"
        if self.key_type in INTEGERS:
            key = [("fields", ">i2"), ("size", ">i4"), ("id", INTEGERS[self.key_type])]
            vector = [("bytes", ">i4"), ("width", ">i4"), ("vector", KINDS[self.kind], (self.dimension,))]
            copy = self._sql(f"COPY ({statement}) TO STDOUT (FORMAT BINARY)")
            for rows in self.server.copied(copy, np.dtype([*key, *vector]), batch):
                if (rows["width"] >> 16 != self.dimension).any():
                    raise DataError(f"not all vectors of {self.table}.{self.name} have {self.dimension} dimensions")
                vectors = rows["vector"].astype(KINDS[self.kind][1:])
                yield Features(vectors, ids=rows["id"].astype(np.int64), space=self.space, ids_from=f"key {self.key!r}")
            return
        with self.server.snapshot() as cursor:
            cursor.itersize = batch
            cursor.execute(self._sql(statement))
            while found := cursor.fetchmany(batch):
                yield self._features(found)

    def read(self, ids: Values) -> Features:
        """The vectors of these ids, in their order.

        Raises:
            IncompatibleError: an id that the table lacks.
        """
        wanted = list(np.asarray(ids).tolist())
        statement = "SELECT {k}, {c} FROM {t} WHERE {k} = ANY (%s::text[]::{key}[]) AND {c} IS NOT NULL"
        rows = self._all(statement, list(map(str, wanted)))
        found = {self._id(row): row for row in rows}
        missing = [one for one in wanted if one not in found]
        if missing:
            raise IncompatibleError(f"{len(missing)} of {len(wanted)} ids are not in {self.table} (first: {missing[0]!r})")
        return self._features([found[one] for one in wanted])

    def second(self, name: str) -> "PgSecond | None":
        """As `Upgradable.second`."""
        try:
            self.server.column(self.table, name)
        except DataError:
            return None
        return PgSecond(self, name)

    def add_second(self, name: str, dimension: int) -> "PgSecond":
        """As `Upgradable.add_second`: a column `name`, and one for its stamps; nothing in the table is rewritten for it."""
        if self.second(name) is None:
            kind = f"{self.kind}({int(dimension)})"
            self._change(f"ALTER TABLE {{t}} ADD COLUMN {{c}} {kind}, ADD COLUMN {{s}} text", name)
            self._note(name, metric=self.metric)
        made = PgSecond(self, name)
        if made.dimension != dimension:
            raise IncompatibleError(f"column {self.table}.{name} has {made.dimension} dimensions, not {dimension}")
        return made

    def name_space(self, space: str) -> None:
        """As `Upgradable.name_space`: in the column's comment, beside what others wrote there."""
        self._note(self.name, space=space, metric=self.metric)
        self.space = space

    def _sql(self, statement: str, column: str = "") -> Any:
        """A statement with every name quoted: table, key, column, its stamps, and the first column; never text of a user's."""
        sql, column = self.server.psycopg.sql, column or self.name
        names = {"k": self.key, "c": column, "s": column + SPACE, "f": self.first.name}
        quoted = {short: sql.Identifier(name) for short, name in names.items()}
        table, operator = sql.Identifier(*self.table.split(".")), sql.SQL(OPERATORS[self.metric])
        return sql.SQL(statement).format(t=table, o=operator, key=sql.SQL(self.key_type), **quoted)

    def _all(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        return self.server.run(lambda cursor: cursor.execute(self._sql(statement), values).fetchall())

    def _change(self, statement: str, column: str) -> None:
        """Change the table, never in the way of others for long."""

        def change(cursor: Any) -> None:
            cursor.execute("SELECT set_config('lock_timeout', %s, true)", [LOCK])
            cursor.execute(self._sql(statement, column))

        self.server.run(change)

    def _note(self, column: str, **facts: str) -> None:
        comment = self.server.column(self.table, column).noted(**facts)
        sql = self.server.psycopg.sql
        statement = sql.SQL("COMMENT ON COLUMN {}.{} IS {}").format(
            sql.Identifier(*self.table.split(".")), sql.Identifier(column), sql.Literal(comment)
        )
        self.server.run(lambda cursor: cursor.execute(statement))

    def _features(self, rows: list[tuple[Any, ...]]) -> Features:
        vectors = vectors_of([row[1] for row in rows], self.kind, self.dimension)
        return Features(vectors, ids=np.array([self._id(row) for row in rows]), space=self.space, ids_from=f"key {self.key!r}")

    def _vector(self, row: Float[np.ndarray, " d"]) -> Any:
        values = require("pgvector")
        return values.HalfVector(row) if self.kind == "halfvec" else values.Vector(row)

    def _first_dimension(self) -> int:
        rows = self._all("SELECT {c} FROM {t} WHERE {c} IS NOT NULL LIMIT 1")
        if not rows:
            raise DataError(f"column {self.table}.{self.name} declares no dimension and is empty")
        return vectors_of([rows[0][0]], self.kind, -1).shape[1]

    @staticmethod
    def _id(row: Sequence[Any]) -> Any:
        return row[0] if isinstance(row[0], int) else str(row[0])

    def close(self) -> None:
        """Close the connection."""
        self.server.close()


class PgSecond(PgIndex):
    """A second column of vectors beside the first, as `Second`.

    Args:
        first: the column that it stands beside.
        name: of the second.

    Raises:
        DataError: no such column.
        IncompatibleError: there is one, and no column of stamps beside it: it is somebody else's.
    """

    def __init__(self, first: PgIndex, name: str) -> None:  # of what is known already
        self.first, self.server, self.table, self.name = first, first.server, first.table, name
        self.key, self.key_type, self.metric = first.key, first.key_type, first.metric
        facts = self.server.column(self.table, name)
        if not self.server.has_column(self.table, name + SPACE):
            raise IncompatibleError(
                f"column {self.table}.{name} was not made here: there is no {name + SPACE} beside it; choose another name"
            )
        self.kind, self.space, self.dimension = facts.kind, facts.note.get("space", ""), facts.dimension

    def blocks(self, batch: int = 1_000, part: Part = WHOLE) -> Iterator[Block]:
        """As `Second.blocks`: in the order of the key, one page after the other; the bounds of a part are keys as text."""
        page = "SELECT {k}, {f}, coalesce({s}, ''), xmin::text FROM {t} WHERE {f} IS NOT NULL"
        page += "" if part.last is None else " AND {k} < %s::text::{key}"
        begin = "" if part.first is None else " AND {k} >= %s::text::{key}"
        last = [] if part.last is None else [part.last]
        first = [] if part.first is None else [part.first]
        while rows := self._all(page + begin + " ORDER BY {k} LIMIT %s", *last, *first, batch):
            yield self._block(rows)
            begin, first = " AND {k} > %s::text::{key}", [str(rows[-1][0])]

    def parts(self, count: int) -> list[Part]:
        """As `Divisible.parts`: between quantiles of the key, in a sample of the table's pages."""
        [[pages]] = self._all("SELECT pg_relation_size(%s::regclass) / current_setting('block_size')::int", quoted(self.table))
        shares = [place / count for place in range(1, count)]
        statement = "SELECT percentile_disc(%s::float8[]) WITHIN GROUP (ORDER BY {k})::text[] FROM {t} TABLESAMPLE SYSTEM (%s)"
        [[bounds]] = self._all(statement, shares, min(100.0, 100 * PAGES / max(1, pages)))
        return ranges(bounds or [])

    def block(self, ids: Values) -> Block:
        """As `Second.block`."""
        statement = (
            "SELECT {k}, {f}, coalesce({s}, ''), xmin::text FROM {t} WHERE {f} IS NOT NULL AND {k} = ANY (%s::text[]::{key}[])"
        )
        return self._block(self._all(statement, [str(one) for one in np.asarray(ids).tolist()]))

    def write(self, block: Block, vectors: Float[np.ndarray, "m d"], stamps: Shaped[np.ndarray, " m"]) -> int:
        """As `Second.write`: rows that others hold or have changed are passed by, so nobody waits for anybody."""
        rows = list(zip(map(str, block.ids.tolist()), vectors, stamps.tolist(), block.versions.tolist(), strict=True))
        table = f"CREATE TEMP TABLE IF NOT EXISTS {ROWS} (k text, v {self.kind}, s text, x text) ON COMMIT DELETE ROWS"

        def write(cursor: Any) -> int:
            cursor.execute(table)
            with cursor.copy(f"COPY {ROWS} FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(["text", self.kind, "text", "text"])
                for item, vector, *rest in rows:
                    copy.write_row((item, self._vector(vector), *rest))
            return int(cursor.execute(self._sql(UPDATE)).rowcount)

        return self.server.run(write)

    def _block(self, rows: list[tuple[Any, ...]]) -> Block:
        old = vectors_of([row[1] for row in rows], self.first.kind, self.first.dimension)
        stamps, versions = (np.array([row[place] for row in rows], dtype=str) for place in (2, 3))
        return Block(np.array([self._id(row) for row in rows]), old, stamps, versions)

    def counts(self) -> dict[str, int]:
        """As `Second.counts`."""
        return dict(
            self._all("SELECT split_part(coalesce({s}, ''), '#', 1), count(*) FROM {t} WHERE {f} IS NOT NULL GROUP BY 1")
        )

    def drop(self) -> None:
        """As `Second.drop`."""
        self._change("ALTER TABLE {t} DROP COLUMN {c}, DROP COLUMN {s}", self.name)
