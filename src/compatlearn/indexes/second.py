"""A second vector for every item of a live index, beside the first: written row by row while both are searched."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Shaped

from ..errors import IncompatibleError
from ..features.values import Values
from .index import Index, Readable

SPACE = "_space"  # the stamps of column `embedding_v2` stand in `embedding_v2_space`
DIGEST = 8  # hexadecimal digits of what a second vector was made from


@dataclass(frozen=True)
class Block:
    """Some rows of a live index, as they were when they were read.

    Attributes:
        ids: (m,) int64 or text.
        old: (m, d_old) their first vectors.
        stamps: (m,) what was written beside the second vector; "" where there is none yet.
        versions: (m,) what the store tells an unchanged row by; its own business.
    """

    ids: Shaped[np.ndarray, " m"]
    old: Float[np.ndarray, "m d_old"]
    stamps: Shaped[np.ndarray, " m"]
    versions: Shaped[np.ndarray, " m"]

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Any) -> "Block":
        """Some of the rows, by number or mask."""
        return replace(self, ids=self.ids[rows], old=self.old[rows], stamps=self.stamps[rows], versions=self.versions[rows])


@runtime_checkable
class Second(Index, Readable, Protocol):
    """A second vector beside the first: an index of its own, whose rows are written while the application goes on.

    Attributes:
        name: of the column, named vector, collection or file.
    """

    @property
    def name(self) -> str: ...

    def blocks(self, batch: int = 1_000) -> Iterator[Block]:
        """All rows of the index with their first vectors, at most `batch` at a time; no lock and no snapshot is held."""

    def block(self, ids: Values) -> Block:
        """These rows, in any order; ids that are gone meanwhile are left out."""

    def write(self, block: Block, vectors: Float[np.ndarray, "m d"], stamps: Shaped[np.ndarray, " m"]) -> int:
        """Write second vectors with their stamps, each only if nobody has changed its row since the block was read.

        Args:
            block: the rows, as `blocks` or `block` gave them.
            vectors: (m, d) of the new space.
            stamps: (m,) texts.

        Returns:
            How many rows were written; the others have changed or are gone.
        """

    def counts(self) -> dict[str, int]:
        """How many rows carry which mark (a stamp without its digest); "" counts the rows without a second vector."""

    def name_space(self, space: str) -> None:
        """As `Upgradable.name_space`."""

    def drop(self) -> None:
        """Take all second vectors and their stamps away; the index is as it was before the first of them."""


@runtime_checkable
class Upgradable(Index, Readable, Protocol):
    """An index that can hold a second vector beside the first."""

    def second(self, name: str) -> Second | None:
        """The second vector of that name, where there is one that was made by `add_second`."""

    def add_second(self, name: str, dimension: int) -> Second:
        """The second vector of that name, made now if it is not there.

        Args:
            name: of the column, named vector, collection or file.
            dimension: of its vectors.

        Raises:
            IncompatibleError: something else has that name, or another dimension.
        """

    def name_space(self, space: str) -> None:
        """Let the store remember by which model the vectors of this column were made."""


def mark(space: str, how: str) -> str:
    """What a stamp says of a vector: the space that it lives in, and how it came there.

    Args:
        space: the new model.
        how: "embedded", or "translated by …".

    Raises:
        IncompatibleError: a name that a stamp cannot hold.
    """
    if "|" in space + how or "#" in space + how or not space:
        raise IncompatibleError(f"a space needs a name without | and #; got {space!r}")
    return f"{space}|{how}"


def stamps_of(said: str, old: Float[np.ndarray, "m d_old"]) -> Shaped[np.ndarray, " m"]:
    """Stamps: a mark, and a digest of the old vector that tells later whether the item is still the same.

    Args:
        said: as `mark` gives it.
        old: (m, d_old) first vectors of the rows.

    Returns:
        (m,) texts.
    """
    return np.array([f"{said}#{digest}" for digest in digests_of(old)], dtype=str)


def digests_of(old: Float[np.ndarray, "m d_old"]) -> list[str]:
    """What stamps remember of first vectors: m texts of eight hexadecimal digits."""
    rows = np.ascontiguousarray(old, dtype=np.float32)
    return [blake2b(row.tobytes(), digest_size=DIGEST // 2).hexdigest() for row in rows]


def mark_of(stamp: str) -> str:
    """The mark of a stamp; "" of none."""
    return stamp.partition("#")[0]


def space_of(said: str) -> str:
    """The space that a mark or a stamp names; "" of none."""
    return said.partition("|")[0]


def how_of(said: str) -> str:
    """How the vector came there: the second part of a mark or a stamp; "" of none."""
    return mark_of(said).partition("|")[2]
