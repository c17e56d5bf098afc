"""Rows of a LanceDB table written anew with a second vector, if nobody has changed them since they were read.

LanceDB's own `merge_insert` with a condition, or without all columns, holds every column that is compared or left out of the
whole table in memory, twice. So the condition is tested here: rows are read at one version, compared, and merged in full into
that very version, without a condition. Where another writer has touched one of them meanwhile, Lance refuses the commit, and
it begins again with the newest version. Only Lance's own client, pylance, can be told to refuse instead of merging again.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float, Int, Shaped

from ...errors import DataError, first_few
from ...extras import require
from ..second import SPACE, Block
from .lance_table import IDS, KEY, LanceTable, lists, literal, texts, vectors

STREAMED = 1_000  # rows that are in memory at once, whatever else is in them


def write_rows(
    table: LanceTable, first: str, second: str, block: Block, rows: Float[np.ndarray, "m d"], stamps: Shaped[np.ndarray, " m"]
) -> int:
    """Write second vectors and stamps where the first vector and the stamp are as the block has them.

    Args:
        table: to write.
        first: column of the first vectors.
        second: column of the second vectors; that of the stamps stands beside it.
        block: the rows as they were read.
        rows: (m, d) second vectors.
        stamps: (m,) texts.

    Returns:
        How many rows were written.

    Raises:
        ConfigError: pylance is not installed.
        DataError: an id that several rows have, LanceDB refuses, or others write the same rows for a minute.
    """
    require("lance")
    done = 0
    for start in range(0, len(block), IDS):
        part = slice(start, start + IDS)
        done += table.change(_Rows(table, first, second, block.take(part), rows[part], stamps[part]).merge)
    return done


class _Rows:
    """Some rows, and what becomes of them."""

    def __init__(
        self,
        table: LanceTable,
        first: str,
        second: str,
        block: Block,
        rows: Float[np.ndarray, "m d"],
        stamps: Shaped[np.ndarray, " m"],
    ) -> None:
        self.table, self.first, self.second = table, first, second
        self.block, self.rows, self.stamps = block, rows, stamps
        self.places = {one: place for place, one in enumerate(block.ids.tolist())}

    def merge(self, handle: Any) -> int:
        """Into the version that is the newest now; how many were written."""
        dataset = handle.to_lance()
        kept = self._unchanged(dataset)
        if not len(kept):
            return 0
        columns = [field.name for field in dataset.schema if not _is_blob(field)]  # what is left out stays as it is
        scanner = dataset.scanner(columns, filter=_among(self.block.ids[kept]), batch_size=STREAMED)
        source = pa.RecordBatchReader.from_batches(scanner.projected_schema, self._changed(scanner))
        merge = dataset.merge_insert(KEY).when_matched_update_all().use_index(False).conflict_retries(0)
        return int(merge.execute(source)["num_updated_rows"])

    def _unchanged(self, dataset: Any) -> Int[np.ndarray, " k"]:
        """Places in the block of the rows that nobody has changed."""
        columns = [KEY, self.first, self.second + SPACE]
        found = dataset.to_table(columns=columns, filter=_among(self.block.ids))
        found = found.filter(pc.is_valid(found[self.first]))
        places = np.array([self.places[one] for one in self.table.ids(found).tolist()], dtype=np.int64)
        if len(set(places.tolist())) < len(places):
            twice = self.block.ids[np.flatnonzero(np.bincount(places) > 1)].tolist()
            raise DataError(
                f"{len(twice)} ids stand in several rows of {self.table} (first: {first_few(twice)}); give every row its own"
            )
        same = _equal_bits(vectors(found[self.first], self.block.old.shape[1]), self.block.old[places])
        return places[same & (texts(found[self.second + SPACE]) == self.block.stamps[places])]

    def _changed(self, scanner: Any) -> Iterator[Any]:
        for batch in scanner.to_batches():
            places = [self.places[one] for one in batch.column(KEY).to_pylist()]
            new = {self.second: self.rows[places], self.second + SPACE: self.stamps[places].tolist()}
            columns = [self._column(batch, field, new) for field in batch.schema]
            yield pa.RecordBatch.from_arrays(columns, schema=batch.schema)

    def _column(self, batch: Any, field: Any, new: dict[str, Any]) -> Any:
        if field.name == self.second:
            return lists(new[field.name], field.type)
        return pa.array(new[field.name], field.type) if field.name in new else batch.column(field.name)


def _among(ids: Shaped[np.ndarray, " m"]) -> str:
    return f"`{KEY}` IN ({', '.join(map(literal, ids.tolist()))})"  # Lance takes "…" for a text, where LanceDB takes a name


def _is_blob(field: Any) -> bool:
    """Whether Lance reads where its values lie, in place of the values themselves."""
    return "blob" in str(getattr(field.type, "extension_name", "")) or b"lance-encoding:blob" in (field.metadata or {})


def _equal_bits(mine: Float[np.ndarray, "m d"], theirs: Float[np.ndarray, "m d"]) -> Bool[np.ndarray, " m"]:
    """(m,) whether rows are the same to the bit: NaN equals itself."""
    kind = f"u{mine.itemsize}"
    return (np.ascontiguousarray(mine).view(kind) == np.ascontiguousarray(theirs, mine.dtype).view(kind)).all(axis=1)
