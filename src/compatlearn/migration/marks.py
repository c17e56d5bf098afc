"""What the stamps of rows say: which have what they should have, and which are of items that have changed."""

import numpy as np
from jaxtyping import Bool, Shaped

from ..errors import IncompatibleError
from ..indexes.second import Block, digests_of, how_of, mark, mark_of, space_of

EMBEDDED = "embedded"  # how a true new vector came there
CHANGED = "changed, "  # before how a vector came there: of an item that is not what it was when it got its last one


def settled(block: Block, said: str) -> Bool[np.ndarray, " m"]:
    """(m,) whether a row has what it should have: a vector by this mark, or a true one, of the item as it is now.

    Args:
        block: some rows.
        said: the mark of a translation.

    Raises:
        IncompatibleError: a stamp names another space: two would be in one column.
    """
    found: list[str] = block.stamps.tolist()
    others = {space_of(stamp) for stamp in found if stamp} - {space_of(said)}
    if others:
        raise IncompatibleError(
            f"the second vectors are of {', '.join(map(repr, sorted(others)))}, not of {space_of(said)!r}; choose another name"
        )
    good = {said, after_change(said), mark(space_of(said), EMBEDDED)}
    return np.array([mark_of(stamp) in good for stamp in found], dtype=bool) & ~changed(block)


def changed(block: Block) -> Bool[np.ndarray, " m"]:
    """(m,) whether a row has a stamp, and another first vector than the stamp was made of."""
    found = block.stamps != ""
    if found.any():  # nothing is digested for rows that have no stamp yet
        pairs = zip(block.stamps[found].tolist(), digests_of(block.old[found]), strict=True)
        found[found] = [not stamp.endswith(f"#{digest}") for stamp, digest in pairs]
    return found


def forgotten(block: Block) -> Bool[np.ndarray, " m"]:
    """(m,) whether what is known of a row's item, such as a vector in a cache, may be of what it was before."""
    return changed(block) | np.array([how_of(stamp).startswith(CHANGED) for stamp in block.stamps.tolist()], dtype=bool)


def after_change(said: str) -> str:
    """The mark of the same translation, for items that have changed since they got their last vector."""
    return mark(space_of(said), CHANGED + how_of(said))


def new_stamps(block: Block, said: str) -> Shaped[np.ndarray, " m"]:
    """The stamps that rows get; those of changed items say so, until they are embedded."""
    again = after_change(said)
    pairs = zip(forgotten(block), digests_of(block.old), strict=True)
    return np.array([f"{again if new else said}#{digest}" for new, digest in pairs], dtype=str)
