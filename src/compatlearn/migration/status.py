"""Status: how far a live index is, and what it would cost to finish."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import IncompatibleError
from ..indexes.second import Second, how_of, space_of
from .marks import EMBEDDED
from .money import dollars

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
        lines.append(f"{self.missing:,} rows are to be translated" if self.missing else "every row has a vector")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        facts = {name: getattr(self, name) for name in ("name", "rows", "embedded", "translated", "missing", "marks", "spaces")}
        return facts | {"bytes": (self.rows - self.missing) * self.dimension * FLOAT}


@dataclass(frozen=True)
class ToFinish:
    """What a full backfill would take from here.

    Attributes:
        translate: rows without a second vector, which `translate` gives one.
        embed: items that the model has not embedded yet.
        cached: items that it has embedded, and whose vectors are not written yet.
        minutes: at the rate of the last run that embedded something; None where there was none.
        dollars: at the price given, else at what the last such run spent per item; None where neither is known.
    """

    translate: int
    embed: int
    cached: int
    minutes: float | None
    dollars: float | None

    def __str__(self) -> str:
        parts = [f"{self.embed:,} items to embed"]
        parts += [f"{self.cached:,} more from the cache"] if self.cached else []
        parts += [] if self.minutes is None else [f"about {self.minutes:,.1f} minutes at the rate of the last run"]
        parts += [] if self.dollars is None else [f"about {dollars(self.dollars)}"]
        return f"a full backfill: {', '.join(parts)}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def to_finish(
    now: Status, known: int = 0, runs: Sequence[Mapping[str, Any]] = (), price: float | int | None = None
) -> ToFinish:
    """What a full backfill would take from here.

    Args:
        now: how far the index is.
        known: vectors in the cache of the backfill, those that are written included.
        runs: what earlier runs did, as `backfill.json` has them under `runs`.
        price: dollars per item; None: what the last run spent.

    Returns:
        Items, minutes and money.
    """
    left = now.rows - now.embedded
    cached = min(left, max(0, known - now.embedded))
    embed = left - cached
    last = next((run for run in reversed(runs) if run["embedded"]), None)
    minutes = None
    if last is not None:
        seconds = max(0.0, last["seconds"] - last.get("measuring_seconds", 0.0))
        minutes = embed * seconds / last["embedded"] / 60
        spent = last.get("spent")
        price = spent / last["embedded"] if price is None and spent is not None else price
    return ToFinish(now.missing, embed, cached, minutes, None if price is None else embed * price)


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
