"""Rows of real pictures: what a query finds in the old gallery when the old model asks, and when the new one does."""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Int

from ..arrays import Array, as_numpy
from ..errors import IncompatibleError
from ..evaluation.relevance import Relevance
from ..extras import require

if TYPE_CHECKING:
    from PIL import Image
else:
    Image = require("PIL.Image")

Found = list[tuple[Image.Image, str, bool]]
LARGEST = 112  # pixels of the longer side in the page
GROUPS = (
    ("Gained", "wrong with the old model's query, right with the new one's"),
    ("Lost", "right with the old model's query, wrong with the new one's (negative flips)"),
    ("Both wrong", "wrong with either query"),
)


@dataclass(frozen=True)
class PictureRow:
    """A query and its nearest gallery images, nearest first: (picture, label, right) for the old and the new model.

    group: the heading that consecutive rows share; note: what the group is and how its rows were chosen.
    """

    query: Image.Image
    query_label: str
    old: Found
    new: Found
    group: str = ""
    note: str = ""


def choose_pictures(
    old_indices: Int[Array, "q k"],
    new_indices: Int[Array, "q k"],
    query_labels: Int[Array, " q"],
    query_picture: Callable[[int], Image.Image],
    *,
    classes: Sequence[str],
    gallery_labels: Int[Array, " n"] | None = None,
    gallery_picture: Callable[[int], Image.Image] | None = None,
    each: int = 3,
    depth: int = 5,
) -> list[PictureRow]:
    """A few queries that the new model gained, lost, and that both get wrong (top-1), with the count of each kind.

    Nobody picks them by their looks: of every kind, `each` are taken at even distances in the order of the queries.

    Args:
        old_indices: (q, k) rows of the old gallery that old queries find (`Hits.indices`).
        new_indices: (q, k) those that new queries find.
        query_labels: (q,) class of each query, a position in `classes`.
        query_picture: row of a query → its picture.
        classes: the names of the classes.
        gallery_labels: (n,) class of each gallery row; None where the queries are the gallery.
        gallery_picture: row of the gallery → its picture; None where the queries are the gallery.
        each: rows of every kind at most.
        depth: neighbours shown at most.
    """
    labels = as_numpy(query_labels)
    shelf = labels if gallery_labels is None else as_numpy(gallery_labels)
    fetch = gallery_picture or query_picture
    old, new = as_numpy(old_indices)[:, :depth], as_numpy(new_indices)[:, :depth]
    if not len(old) == len(new) == len(labels):
        raise IncompatibleError(f"pictures need the same queries; got {len(old)}, {len(new)} and {len(labels)} labels")
    right_old, right_new = (Relevance.from_labels(labels, shelf).of(np.arange(len(labels)), rows) for rows in (old, new))

    def found(rows: Int[np.ndarray, " k"], right: Bool[np.ndarray, " k"]) -> Found:
        pairs = zip(rows.tolist(), right.tolist(), strict=True)
        return [(fetch(row), str(classes[shelf[row]]), hit) for row, hit in pairs if row >= 0]

    before, after = right_old[:, 0], right_new[:, 0]
    chosen = []
    for (group, meaning), kind in zip(GROUPS, (~before & after, before & ~after, ~before & ~after), strict=True):
        members = np.flatnonzero(kind)
        rows = _spread(members, each)
        note = f"{len(members)} of {len(labels)} queries are {meaning}; {len(rows)} of them shown, evenly spaced."
        for row in rows.tolist():
            old_found, new_found = found(old[row], right_old[row]), found(new[row], right_new[row])
            label = str(classes[labels[row]])
            chosen.append(PictureRow(query_picture(row), label, old_found, new_found, group, note))
    return chosen


def data_uri(picture: Image.Image) -> str:
    """The picture, no side longer than 112 pixels, inside its own address: small ones as PNG, photographs as JPEG."""
    small = picture.convert("RGB")
    small.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    kind = "png" if max(small.size) <= 40 else "jpeg"
    buffer = io.BytesIO()
    small.save(buffer, kind, optimize=True, **({"quality": 85} if kind == "jpeg" else {}))
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _spread(members: Int[np.ndarray, " m"], count: int) -> Int[np.ndarray, " c"]:
    """At most `count` of them: the middle of each of as many equal parts."""
    count = min(count, len(members))
    places = ((np.arange(count) + 0.5) * len(members) / max(count, 1)).astype(np.int64)
    taken: np.ndarray = members[places]
    return taken
