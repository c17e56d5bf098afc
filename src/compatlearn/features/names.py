"""Which column of anyone's file holds the vectors, which the labels, which the ids."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from ..errors import FormatError
from .ids import ROWS

ROW = "row"  # as the name of the id column: the number of the row
USUAL = {"vectors": ("vectors", "vector"), "labels": ("labels", "label"), "ids": ("ids", "id")}


@dataclass(frozen=True)
class Names:
    """The names that somebody gave; None is a usual one.

    Attributes:
        vectors: of the vectors.
        ids: of the ids; "row" numbers the rows.
        labels: of the labels.
    """

    vectors: str | None = None
    ids: str | None = None
    labels: str | None = None

    def choose(self, names: Iterable[str], path: Path, kind: str, vectors: Iterable[str] = ()) -> dict[str, str]:
        """Which part of a file is which.

        Args:
            names: the parts that the file has.
            path: the file.
            kind: what it calls its parts: "column", "key".
            vectors: those parts that could hold vectors, for the message.

        Returns:
            {"vectors": the name that the file uses, ...}, without what the file lacks.

        Raises:
            FormatError: a name that was given is not there, or no vectors are.
        """
        names, have = list(names), ", ".join(names) or "none"
        chosen = {ours: theirs for ours, usual in USUAL.items() for theirs in reversed(usual) if theirs in names}
        for field in fields(self):
            given, keyword = getattr(self, field.name), f"{field.name.removesuffix('s')}_column"
            if field.name == "ids" and given == ROW:
                chosen.pop("ids", None)
            elif given is not None and given not in names:
                raise FormatError(f"{path} has no {kind} {given!r} for {keyword}, only: {have}; name one of these")
            elif given is not None:
                chosen[field.name] = given
        if "vectors" not in chosen:
            found = list(vectors)
            remedy = f"pass vector_column={found[0]!r}" if len(found) == 1 else "name the one with the vectors (vector_column)"
            raise FormatError(f"{path} has no {kind} 'vectors' or 'vector', only: {have}; {remedy}")
        return chosen

    def ids_from(self, chosen: dict[str, str], kind: str) -> str:
        """Where the ids of a file come from, in words."""
        if "ids" in chosen:
            return f"{kind} {chosen['ids']!r}"
        return f"{ROWS}, as asked" if self.ids == ROW else ROWS

    def refuse_unknown_ids(self, candidates: Iterable[str], path: Path, kind: str) -> None:
        """Refuse a file without known ids but with a part that could be: integers or text, no two alike.

        Args:
            candidates: the names of such parts.
            path: the file.
            kind: what it calls its parts.

        Raises:
            FormatError: there is such a part; pairing rows by number would then go wrong without a word.
        """
        if found := list(candidates):
            several = f" or {', '.join(map(repr, found[1:]))}" if found[1:] else ""
            raise FormatError(
                f"{path} has no {kind} 'ids' or 'id', but {kind} {found[0]!r}{several} has another value in every row; "
                f"pass id_column={found[0]!r} to take it for the ids, or id_column={ROW!r} to number the rows"
            )


def could_be_ids(values: np.ndarray) -> bool:
    """Whether values are one-dimensional integers or texts, several and no two alike."""
    return values.ndim == 1 and values.dtype.kind in "iuU" and len(values) > 1 and len(np.unique(values)) == len(values)
