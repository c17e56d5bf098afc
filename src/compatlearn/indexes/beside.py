"""A second vector beside an index that cannot hold one itself: a folder of plain files, written while the index lives on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from ..arrays import as_numpy, check_rows
from ..errors import ConfigError, IncompatibleError, first_few
from ..features.features import Features
from ..features.values import Values
from ..locks import PATIENCE, locked
from ..metric import Metric, check_metric
from .checks import check_queries
from .hits import Hits
from .parts import WHOLE, Part, ranges
from .second import Block
from .slots import MANIFEST, Slots, create, discard
from .streamed import search_blocks

READ = 16_384  # rows that are read together
TURN = 60.0  # seconds that one of several writers waits for the others


@runtime_checkable
class First(Protocol):
    """What the first vectors must tell: those of a file, as the file is now."""

    @property
    def dimension(self) -> int: ...
    @property
    def metric(self) -> Metric: ...

    def renew(self) -> None:
        """Read the file again if somebody has written it since."""

    def items(self) -> Shaped[np.ndarray, " n"]:
        """(n,) ids in the order of the rows; the same array until `renew` finds another file."""

    def vectors_at(self, rows: Int[np.ndarray, " m"]) -> Float[np.ndarray, "m d"]:
        """The vectors of these rows."""


class Table:
    """Ids in some order, and the row of each.

    Args:
        ids: (n,) int64 or text, each once.
        name: what messages call their owner.
    """

    def __init__(self, ids: Shaped[np.ndarray, " n"], name: str) -> None:
        self.ids, self.name = ids, name
        self.order = None if (ids[1:] > ids[:-1]).all() else np.argsort(ids, kind="stable")
        self.ordered = ids if self.order is None else ids[self.order]

    def rows(self, wanted: Shaped[np.ndarray, " m"]) -> Int[np.ndarray, " m"]:
        """(m,) rows; -1 where an id is not there. Unlike `rows_of` it does not look at all rows each time it is asked.

        Raises:
            IncompatibleError: numbers among texts, or texts among numbers.
        """
        if (wanted.dtype.kind == "U") != (self.ids.dtype.kind == "U") and len(wanted):
            kinds = ("text" if ids.dtype.kind == "U" else "numbers" for ids in (wanted, self.ids))
            raise IncompatibleError(f"the wanted ids are {next(kinds)} and those of {self.name} are {next(kinds)}")
        place = np.searchsorted(self.ordered, wanted).clip(max=len(self.ids) - 1)
        found = place if self.order is None else self.order[place]
        return np.where(self.ordered[place] == wanted, found, -1)


class Beside:
    """Second vectors in a folder beside an index, as `Second`; the index itself is never written.

    Args:
        first: the index.
        folder: that `add_beside` made.
        name: as users call it.

    Raises:
        FormatError: the folder cannot be read.
        IncompatibleError: it was made for other items.
    """

    def __init__(self, first: First, folder: Path, name: str) -> None:
        self.first, self.folder, self.name, self.patience = first, folder, name, PATIENCE
        self.slots = Slots(folder)
        self.metric: Metric = check_metric(self.slots.facts["metric"])
        self.dimension = int(self.slots.facts["dimension"])
        if self._slot_table.ids.dtype.kind != self.first.items().dtype.kind or not (self._places() >= 0).any():
            raise IncompatibleError(f"{folder} is of other items than {first!r} holds; choose another name, or remove it")

    @property
    def space(self) -> str:
        """The model that makes the second vectors; "" until somebody names it."""
        return str(self.slots.facts["space"])

    def name_space(self, space: str) -> None:
        """As `Upgradable.name_space`: in the manifest of the folder."""
        with locked(self.folder):
            self.slots.renew()
            self.slots.note(space=space)

    def __len__(self) -> int:
        return int(self._filled().sum())

    def __repr__(self) -> str:
        return f"Beside({self.folder}, {self.dimension} dimensions, {self.metric})"

    def search(
        self, queries: Float[Any, "q d"], k: int = 10, exact: bool = True, exclude: Shaped[Any, " q"] | None = None
    ) -> Hits:
        """As `Index.search`: exactly, among the rows that have a second vector."""
        asked = check_queries(queries, self)
        if k < 1:
            raise ConfigError(f"k must be at least 1; got {k}")
        filled = self._filled()
        slots, left = self._places()[filled], None if exclude is None else as_numpy(exclude)
        blocks = (self.slots.vectors[slots[start : start + READ]] for start in range(0, len(slots), READ))
        return search_blocks(asked, blocks, k, self.metric, self.first.items()[filled], left)

    def scan(self, batch: int = 10_000) -> Iterator[Features]:
        """All second vectors with their ids, at most `batch` at a time."""
        filled = self._filled()
        ids, slots = self.first.items()[filled], self._places()[filled]
        for start in range(0, len(ids), batch):
            part = slice(start, start + batch)
            yield Features(self.slots.vectors[slots[part]], ids=ids[part], space=self.space)

    def read(self, ids: Values) -> Features:
        """The second vectors of these ids, in their order.

        Raises:
            IncompatibleError: an id that has none.
        """
        wanted = np.asarray(ids)
        self._renew()
        slots = np.where(self._row_table.rows(wanted) < 0, -1, self._slot_table.rows(wanted))
        missing = (slots < 0) | (self.slots.codes[slots] == 0)
        if missing.any():
            few = first_few(wanted[missing].tolist())
            raise IncompatibleError(f"{missing.sum()} of {len(wanted)} ids have no vector in {self.folder} (first: {few})")
        return Features(self.slots.vectors[slots], ids=wanted, space=self.space)

    def blocks(self, batch: int = READ, part: Part = WHOLE) -> Iterator[Block]:
        """As `Second.blocks`: of the ids that are there at the beginning, each block as the file is when it is read.

        Whoever takes a part is one of several writers, and waits until the others are done with their blocks.
        """
        self.patience = PATIENCE if part == WHOLE else TURN
        self.first.renew()
        ids = self.first.items()[part.first : part.last]
        for start in range(0, len(ids), batch):
            found = self.block(ids[start : start + batch])
            if len(found):
                yield found

    def parts(self, count: int) -> list[Part]:
        """As `Divisible.parts`: ranges of row numbers."""
        rows = len(self.first.items())
        return ranges([place * rows // count for place in range(1, count)])

    def block(self, ids: Values) -> Block:
        """As `Second.block`."""
        self._renew()
        wanted = np.asarray(ids)
        rows = self._row_table.rows(wanted)
        wanted, rows = wanted[rows >= 0], rows[rows >= 0]
        codes = self._codes(wanted)
        return Block(wanted, self.first.vectors_at(rows), self.slots.stamps(codes), codes)

    def write(self, block: Block, vectors: Float[np.ndarray, "m d"], stamps: Shaped[np.ndarray, " m"]) -> int:
        """As `Second.write`: a row is written if its first vector in the file, and its stamp, are what the block has.

        Raises:
            DataError: vectors that are not finite, a full disk, or another process that writes here.
            IncompatibleError: vectors of another dimension.
        """
        if not len(block):
            return 0
        check_rows(vectors, "the second vectors", nonzero=self.metric == "cosine")
        if vectors.shape != (len(block), self.dimension):
            raise IncompatibleError(f"{self.folder} takes ({len(block)}, {self.dimension}) vectors here, not {vectors.shape}")
        with locked(self.folder, self.patience):
            self.slots.renew()
            self.slots.recover()
            kept = np.flatnonzero(self._unchanged(block))
            ids = block.ids[kept]
            slots = self._slot_table.rows(ids)
            if (slots < 0).any():  # items that have come since
                self.slots.grow(ids[slots < 0])
                slots = self._slot_table.rows(ids)
            if len(kept):
                self.slots.put(slots, vectors[kept], stamps[kept])
        return len(kept)

    def counts(self) -> dict[str, int]:
        """As `Second.counts`."""
        self._renew()
        return self.slots.counts(self._places())

    def drop(self) -> None:
        """As `Second.drop`: the folder is removed."""
        discard(self.folder)

    def _unchanged(self, block: Block) -> Bool[np.ndarray, " m"]:
        self._renew()
        rows = self._row_table.rows(block.ids)
        same = (rows >= 0) & (self._codes(block.ids) == block.versions)
        same[same] = (self.first.vectors_at(rows[same]) == block.old[same]).all(axis=1)
        return same

    def _codes(self, ids: Shaped[np.ndarray, " m"]) -> Any:
        slots = self._slot_table.rows(ids)
        return np.where(slots < 0, np.uint64(0), self.slots.codes[slots])

    def _filled(self) -> Bool[np.ndarray, " n"]:
        """(n,) which items, as the index is now, have a second vector."""
        self._renew()
        slots = self._places()
        return (slots >= 0) & (self.slots.codes[slots] != 0)

    def _renew(self) -> None:
        self.first.renew()
        self.slots.renew()

    def _places(self) -> Int[np.ndarray, " n"]:
        """(n,) the slot of each item of the index; -1 for an item that has come since."""
        known = self.__dict__.get("_known")
        key = (self.first.items(), self.slots.ids)
        if known is None or known[0] is not key[0] or known[1] is not key[1]:
            same = np.array_equal(*key)
            self._known = (*key, np.arange(len(key[0])) if same else self._slot_table.rows(key[0]))
        return self._known[2]

    @property
    def _row_table(self) -> Table:
        return self._table("_rows", self.first.items(), "the index")

    @property
    def _slot_table(self) -> Table:
        return self._table("_slots", self.slots.ids, str(self.folder))

    def _table(self, attribute: str, ids: Shaped[np.ndarray, " n"], name: str) -> Table:
        table = self.__dict__.get(attribute)
        if table is None or table.ids is not ids:
            table = self.__dict__[attribute] = Table(ids, name)
        return table


def beside(first: First, folder: Path, name: str) -> Beside | None:
    """The second vectors in a folder, where there are some.

    Raises:
        IncompatibleError: the folder, or file, is something else.
    """
    if not folder.exists():
        return None
    if not (folder / MANIFEST).is_file():
        raise IncompatibleError(f"{folder} was not made here: there is no {MANIFEST} in it; choose another name")
    return Beside(first, folder, name)


def add_beside(first: First, folder: Path, name: str, dimension: int) -> Beside:
    """The second vectors in a folder, made now if it is not there.

    Args:
        first: the index.
        folder: where to.
        name: as users call it.
        dimension: of the second vectors.

    Raises:
        DataError: it cannot be written.
        IncompatibleError: something else has that name, or another dimension.
    """
    found = beside(first, folder, name)
    if found is None:
        first.renew()
        ids = first.items()
        kind = np.dtype(np.float16 if first.vectors_at(np.arange(1)).dtype == np.float16 else np.float32)
        create(folder, ids, dimension, kind, metric=first.metric, space="", source=repr(first))
        found = Beside(first, folder, name)
    if found.dimension != dimension:
        raise IncompatibleError(f"{folder} has {found.dimension} dimensions, not {dimension}")
    return found
