"""Translate: every stored vector through the gallery's map, into a second vector beside it."""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from jaxtyping import Float

from ..adapters.adapter import Adapter
from ..adapters.methods import GALLERY
from ..adapters.task import Tell, silent
from ..errors import ConfigError, DataError, IncompatibleError
from ..indexes.second import Block, Second, Upgradable, mark, mark_of
from .marks import after_change, new_stamps, settled
from .pace import Pace

PASSES = 5  # over the index: what the application inserts or changes during one is done in the next
SAMPLE = 100  # rows that are read back
TRIES = 5  # to read rows back that an application deletes meanwhile
CLOSE = {"float32": 1e-4, "float16": 5e-3}  # of a vector's length, between what was written and what is read back


@dataclass(frozen=True)
class Translated:
    """What a run of `translate` did.

    Attributes:
        written: rows that this run wrote.
        kept: rows that had their vector already: translated by this map before, or embedded.
        left: rows that were changed by others again and again, and have none yet; run it again.
        seconds: that it took.
        checked: rows that were read back and compared.
    """

    written: int
    kept: int
    left: int
    seconds: float
    checked: int

    def __str__(self) -> str:
        rate = self.written / max(self.seconds, 1e-9)
        return (
            f"{self.written:,} rows translated in {self.seconds:.1f} s ({rate:,.0f} per second), "
            f"{self.kept:,} were done before, {self.left:,} are left; {self.checked:,} were read back and are right"
        )


def translate(
    index: Upgradable,
    adapter: Adapter,
    name: str,
    *,
    space: str = "",
    batch: int | None = None,
    rate: float | int | None = None,
    tell: Tell = silent,
) -> Translated:
    """Write h(o(x)) beside o(x) for every row of an index, while the application goes on.

    The first vectors are not touched. Every second vector carries a stamp that names its space, the map, and a digest of
    the vector that it was made from; what is stamped is not made again, so a run that was killed is simply run again. A row
    that the application changes meanwhile is not overwritten but made in the next pass. True new vectors stay.

    Args:
        index: whose vectors are translated.
        adapter: a map with direction "gallery", old to new.
        name: of the second vector; it is made if it is not there.
        space: the new model, where the adapter does not say it.
        batch: rows that are read and written together; None: as the store likes it.
        rate: most rows per second, to be gentle to a store in production.
        tell: takes lines of progress.

    Returns:
        What was done.

    Raises:
        ConfigError: an adapter of the other direction, or nobody named the new model.
        DataError: the store refuses, or what is read back is not what was written.
        IncompatibleError: an adapter for vectors of another dimension or model, or a second vector of another one.
    """
    second, said = opened(index, adapter, name, space)
    pace, written, kept, left = Pace(len(index), "translated", rate, tell), 0, 0, 0
    for _ in range(PASSES):
        done, kept, left = translate_rows(
            second, adapter, said, second.blocks() if batch is None else second.blocks(batch), pace
        )
        written += done
        left = max(left, second.counts().get("", 0))  # what was inserted while the pass went on is left too
        if not left:
            break
    checked = check(second, adapter, said)
    return Translated(written, max(0, kept - (written - done)), left, pace.seconds, checked)


def translate_rows(second: Second, adapter: Adapter, said: str, blocks: Iterable[Block], pace: Pace) -> tuple[int, int, int]:
    """One pass over some rows: those that are not settled get their vector and stamp.

    Args:
        second: where to.
        adapter: the map.
        said: its mark.
        blocks: the rows.
        pace: counts them, and holds them up where they go too fast.

    Returns:
        How many rows were written, were settled before, and were changed by others meanwhile.
    """
    written = kept = left = 0
    for block in blocks:
        todo = ~settled(block, said)
        kept += int((~todo).sum())
        if todo.any():
            some = block.take(todo)
            count = second.write(some, adapter.transform(some.old), new_stamps(some, said))
            written += count
            left += len(some) - count
            pace.went(count)
    return written, kept, left


def opened(index: Upgradable, adapter: Adapter, name: str, space: str = "") -> tuple[Second, str]:
    """The second vector that an adapter's vectors go to, and the mark that they get there.

    Args:
        index: the live index.
        adapter: a map with direction "gallery".
        name: of the second vector.
        space: the new model, where the adapter does not say it.

    Returns:
        The second vector, made if it was not there, and the mark.

    Raises:
        ConfigError: an adapter of the other direction, or nobody named the new model.
        IncompatibleError: an adapter for vectors of another dimension or model, or a second vector of another one.
    """
    if adapter.direction != GALLERY:
        raise ConfigError("this adapter maps queries; a translation needs one of old vectors to new ones (direction 'gallery')")
    if adapter.d_old != index.dimension:
        raise IncompatibleError(f"the adapter takes {adapter.d_old} dimensions, {index!r} has {index.dimension}")
    if adapter.space_old and index.space and adapter.space_old != index.space:
        raise IncompatibleError(
            f"the adapter is for vectors of {adapter.space_old!r}, the index holds vectors of {index.space!r}; fit one to these"
        )
    if space and adapter.space_new and space != adapter.space_new:
        raise IncompatibleError(f"the adapter leads to {adapter.space_new!r}, not to {space!r}")
    new = space or adapter.space_new
    if not new:
        raise ConfigError("nobody named the new model, and its vectors must carry its name; pass space")
    said = mark(new, f"translated by {adapter.method_} {fingerprint(adapter)}")
    second = index.add_second(name, adapter.d_new)
    if second.space not in ("", new):
        raise IncompatibleError(f"{name} holds vectors of {second.space!r}, not of {new!r}; choose another name")
    if not second.space:
        second.name_space(new)
    return second, said


def _read_back(second: Second, block: Block) -> tuple[Block, Float[np.ndarray, "m d"]]:
    """Second vectors of the rows of a block that the application neither changes nor deletes while they are read."""
    for _ in range(TRIES):
        try:
            written = second.read(block.ids).vectors
        except IncompatibleError:  # one of them has just been deleted
            block = _unchanged(second, block)
            continue
        kept = _unchanged(second, block)
        return kept, written[np.isin(block.ids, kept.ids)]
    return block.take(np.zeros(len(block), dtype=bool)), np.zeros((0, second.dimension), dtype=np.float32)


def _unchanged(second: Second, block: Block) -> Block:
    """The rows of a block that are still as they were, in its order."""
    now = second.block(block.ids)
    places = {item: place for place, item in enumerate(now.ids.tolist())}
    same = [
        item in places and now.stamps[places[item]] == stamp and bool((now.old[places[item]] == old).all())
        for item, stamp, old in zip(block.ids.tolist(), block.stamps.tolist(), block.old, strict=True)
    ]
    return block.take(np.array(same, dtype=bool))


def check(second: Second, adapter: Adapter, said: str) -> int:
    """Read some rows back and compare them with the map of their first vectors.

    Args:
        second: what was written.
        adapter: the map.
        said: its mark.

    Returns:
        How many were compared.

    Raises:
        DataError: one is not what the map gives.
    """
    for block in second.blocks(SAMPLE):
        marks = [mark_of(stamp) in (said, after_change(said)) for stamp in block.stamps.tolist()]
        rows = np.array(marks, dtype=bool) & settled(block, said)
        if rows.any():
            some, written = _read_back(second, block.take(rows))
            if not len(some):
                continue
            differ = distance(adapter.transform(some.old), written, second.metric)
            if differ.max() > max(CLOSE.values()):
                worst = int(differ.argmax())
                raise DataError(
                    f"row {some.ids[worst].item()!r} of {second!r} is not what was written (off by {differ[worst]:.3g} of its "
                    "length); was it changed by something else?"
                )
            return len(some)
    return 0


def distance(made: Float[np.ndarray, "m d"], stored: Float[np.ndarray, "m d"], metric: str) -> Float[np.ndarray, " m"]:
    """(m,) how far stored vectors are from those that were made, as a share of their length; of directions under cosine."""
    made, stored = made.astype(np.float64), stored.astype(np.float64)
    if metric == "cosine":
        made, stored = (side / np.linalg.norm(side, axis=1, keepdims=True).clip(1e-30) for side in (made, stored))
    return np.linalg.norm(made - stored, axis=1) / np.linalg.norm(made, axis=1).clip(1e-30)


def fingerprint(adapter: Adapter) -> str:
    """Eight digits that tell this map from another."""
    digest = blake2b(digest_size=4)
    for name, tensor in sorted(adapter.network_.state_dict().items()):
        digest.update(name.encode() + np.ascontiguousarray(tensor.cpu().numpy()).tobytes())
    return digest.hexdigest()
