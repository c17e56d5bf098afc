"""Status: how far a live index is, and what it would cost to finish."""

from dataclasses import dataclass
from typing import Any

from ..errors import IncompatibleError
from ..indexes.second import Second, how_of, space_of
from .marks import EMBEDDED

FLOAT = 4  # bytes of a number


@dataclass(frozen=True)
class Status:
    """What the rows of a second vector are.

    Attributes:
        name: of the second vector.
        rows: of the index.
        marks: rows by what their stamps say; "" counts those without a second vector.
        dimension: of the second vector.
    """

    name: str
    rows: int
    marks: dict[str, int]
    dimension: int

    @property
    def spaces(self) -> dict[str, int]:
        """Rows by the space of their second vector."""
        found: dict[str, int] = {}
        for said, count in self.marks.items():
            if said:
                found[space_of(said)] = found.get(space_of(said), 0) + count
        return found

    @property
    def embedded(self) -> int:
        """Rows with a true new vector."""
        return sum(count for said, count in self.marks.items() if how_of(said) == EMBEDDED)

    @property
    def missing(self) -> int:
        """Rows without a second vector."""
        return self.marks.get("", 0)

    @property
    def translated(self) -> int:
        """Rows with a translated vector."""
        return self.rows - self.embedded - self.missing

    def __str__(self) -> str:
        counts = f"{self.embedded:,} embedded, {self.translated:,} translated, {self.missing:,} missing"
        lines = [f"{self.name}: {self.rows:,} rows, {counts}"]
        lines += [f"  {count:>12,}  {said or 'no vector yet'}" for said, count in sorted(self.marks.items())]
        to_finish = f"to finish: {self.missing:,} rows to translate" if self.missing else "every row has a vector"
        lines.append(f"{to_finish}; a full backfill embeds {self.rows - self.embedded:,} items more")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        facts = {name: getattr(self, name) for name in ("name", "rows", "embedded", "translated", "missing", "marks", "spaces")}
        return facts | {"bytes": (self.rows - self.missing) * self.dimension * FLOAT}


def status(second: Second) -> Status:
    """How far a second vector is.

    Args:
        second: of a live index.

    Returns:
        Rows by their stamps.
    """
    marks = {said: count for said, count in second.counts().items() if count}
    return Status(second.name, sum(marks.values()), marks, second.dimension)


def require_one_space(second: Second) -> Status:
    """The status of a second vector that may be searched.

    Args:
        second: of a live index.

    Returns:
        Its status.

    Raises:
        IncompatibleError: its rows are of two spaces, and no query can rank both.
    """
    found = status(second)
    if len(found.spaces) > 1:
        counts = ", ".join(f"{count:,} of {space!r}" for space, count in sorted(found.spaces.items()))
        raise IncompatibleError(f"{second.name} holds vectors of two models ({counts}); drop it, or write one of them anew")
    return found
