"""Backfill: true new vectors in place of translated ones, those first that queries find most often, within a budget."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from ..adapters.task import Tell, silent
from ..errors import ConfigError, DataError, IncompatibleError
from ..features.cache import VectorCache
from ..features.values import Values
from ..indexes.second import Block, Second, digests_of, how_of, mark, mark_of, stamps_of
from ..upgrade.fresh import Embed, FreshVectors, WithoutContent
from .marks import EMBEDDED, forgotten, settled
from .money import Money, Purse, dollars
from .pace import Pace

NEAR = 20  # items that a query makes matter, as in the plan's order by density
TRIES = 3  # for a row that others change while its vector is made


@dataclass(frozen=True)
class Backfilled:
    """What a run of `backfill` did.

    Attributes:
        embedded: items that the model embedded now.
        cached: items whose vector was in the cache.
        written: rows that got their true vector.
        kept: rows that had it before, of those that were looked at.
        left: rows that others changed again and again; run it again.
        seconds: that it took.
        finished: every row of the index has its true vector, but for those without content.
        spent: dollars; None where no price is known.
        without: rows whose items have no content and so no true vector.
    """

    embedded: int
    cached: int
    written: int
    kept: int
    left: int
    seconds: float
    finished: bool
    spent: float | None = None
    without: int = 0

    def __str__(self) -> str:
        end = "nothing is left to embed" if self.finished else "the budget is used up"
        end += "" if self.spent is None else f"; {dollars(self.spent)} spent"
        without = f", {self.without:,} have no content" if self.without else ""
        return (
            f"{self.embedded:,} items embedded and {self.cached:,} taken from the cache in {self.seconds:.1f} s: "
            f"{self.written:,} rows written, {self.kept:,} were done before, "
            f"{self.left:,} were changed meanwhile{without}; {end}"
        )


def backfill(
    second: Second,
    embed: Embed,
    cache: VectorCache,
    *,
    order: Values | None = None,
    items: int | None = None,
    seconds: float | int | None = None,
    money: Money | None = None,
    batch: int = 256,
    tell: Tell = silent,
    watch: Callable[[int], None] | None = None,
) -> Backfilled:
    """Write n(x) beside o(x), item by item, until all are done or the budget is spent.

    A run that was killed is simply run again: what was embedded is in the cache, what was written carries a stamp. A row that
    the application changes while its vector is made is not overwritten; its item is embedded again.

    Args:
        second: where the vectors go: the column that `translate` filled, or one that `add_second` made.
        embed: function of a list of m ids: (m, d_new) floats, in the order of the ids. Items that it names in
            `WithoutContent` stay as they are.
        cache: where new vectors are kept; that of a `Cascade` serves, and saves what it has embedded.
        order: ids of the items that come first; the others follow as the store has them.
        items: most items that `embed` is asked for.
        seconds: after which no further batch is begun.
        money: what items cost, and how much may be spent; items in the cache are free.
        batch: items that are embedded and written together.
        tell: takes lines of progress.
        watch: function of the number of rows written so far, called after every batch: to measure while it goes.

    Returns:
        What was done.

    Raises:
        ConfigError: a budget below 0, or a second vector whose model nobody named.
        DataError: `embed` gave what cannot be used, or the store refuses; what was done is kept.
        IncompatibleError: a cache of another model, or stamps of another one in the same column.
        WithoutContent: `embed` names items that it was not asked for, and no others.
    """
    if min(items or 0, seconds or 0) < 0 or batch < 1:
        raise ConfigError(f"a budget is at least 0 and a batch at least 1; got {items} items, {seconds} seconds, {batch}")
    if not second.space:
        raise ConfigError(f"nobody named the model of {second!r}; call name_space with the name of the new model")
    if cache.space != second.space:
        raise IncompatibleError(f"{cache.path} holds vectors of {cache.space!r}, {second.name} is for {second.space!r}")
    purse = Purse(embed, money)
    work = _Work(second, FreshVectors(purse, cache, batch, nonzero=second.metric == "cosine"), mark(second.space, EMBEDDED))
    pace, finished = Pace(len(second), "looked at", None, tell), True
    for block in _in_order(second, order, batch):
        lacking = work.lacking(block)
        limits = (None if items is None else items - work.fresh.count, purse.affords(lacking))
        room = min((one for one in limits if one is not None), default=None)
        if (len(lacking) and room is not None and room <= 0) or (seconds is not None and pace.seconds >= seconds):
            finished = not work.todo(block).any()
            if not finished:
                break
        work.do(block, room)
        pace.went(len(block))
        if watch is not None:
            watch(work.written)
    others = sum(count for said, count in second.counts().items() if said != work.said) if finished else 0
    finished = finished and not work.left and others <= work.waiting  # a budget may have ended within the last block
    counts = work.fresh.count, work.cached, work.written, work.kept, work.left
    return Backfilled(*counts, pace.seconds, finished, purse.spent, len(work.without))


class _Work:
    """One block after the other, and what came of them."""

    def __init__(self, second: Second, fresh: FreshVectors, said: str) -> None:
        self.second, self.fresh, self.said = second, fresh, said
        self.cached = self.written = self.kept = self.left = 0
        self.without, self.waiting = set[Any](), 0  # ids without content, and how many of their rows have no true vector

    def todo(self, block: Block) -> Any:
        """(m,) which rows have no true vector of the item as it is now, and can have one."""
        embedded = np.array([how_of(stamp) == EMBEDDED for stamp in block.stamps.tolist()], dtype=bool)
        return ~(embedded & settled(block, self.said)) & self._has_content(block)

    def lacking(self, block: Block) -> Shaped[np.ndarray, " l"]:
        """(l,) ids of the rows of a block that must be embedded, in its order."""
        block = block.take(self.todo(block))
        known = self.fresh.cache.get(block.ids)[1] & ~forgotten(block)
        return block.ids[~known]

    def do(self, block: Block, room: int | None) -> None:
        """Give the rows of a block their true vectors, embedding at most `room` items."""
        rows = self.todo(block)
        self.kept += int((~rows & self._has_content(block)).sum())
        block = block.take(rows)
        stale = forgotten(block)
        if stale.any():  # the item is another one by now, and so must its vector be
            self.fresh.cache.drop(block.ids[stale])
        tries = 0
        while tries < TRIES:
            self.fresh.cache.drop_changed(block.ids, digests_of(block.old))  # also where the store has forgotten the stamp
            if room is not None:
                known = self.fresh.cache.get(block.ids)[1]
                block = block.take(known | (np.cumsum(~known) <= room))
            if not len(block):
                return
            count = self.fresh.count
            try:
                vectors, embedded = self.fresh.vectors(block.ids, self.second.dimension)
            except WithoutContent as error:
                others = self._others(block, error)
                room = None if room is None else room - (self.fresh.count - count) - (len(block) - len(others))
                block = others
                continue
            tries += 1
            wrote = self.second.write(block, vectors, stamps_of(self.said, block.old))
            self.written += wrote
            room = None if room is None else room - (self.fresh.count - count)
            self.cached += int((~embedded).sum())
            if wrote == len(block):
                return
            block = self._changed(block)
        self.left += len(block)

    def _others(self, block: Block, error: WithoutContent) -> Block:
        """The rows that have content; the error where all do."""
        self.without |= {*error.ids} & {*block.ids.tolist()}
        there = self._has_content(block)
        if there.all():
            raise error
        self.waiting += sum(mark_of(stamp) != self.said for stamp in block.stamps[~there].tolist())
        return block.take(there)

    def _has_content(self, block: Block) -> Any:
        if not self.without:
            return np.ones(len(block), dtype=bool)
        return np.array([one not in self.without for one in block.ids.tolist()], dtype=bool)

    def _changed(self, block: Block) -> Block:
        """The rows of a block that were not written, as they are now; their vectors are forgotten."""
        again = self.second.block(block.ids)
        again = again.take(self.todo(again))
        if len(again):
            self.fresh.cache.drop(again.ids)
        return again


def _in_order(second: Second, order: Values | None, batch: int) -> Iterator[Block]:
    """Blocks of the items that come first, then of all: what is done is passed by."""
    first = np.zeros(0, dtype=np.int64) if order is None else np.asarray(order)
    first = first[np.sort(np.unique(first, return_index=True)[1])]  # each once: Chroma refuses an id that is named twice
    for start in range(0, len(first), batch):
        wanted = first[start : start + batch]
        block = second.block(wanted)
        place = {item: number for number, item in enumerate(wanted.tolist())}
        yield block.take(np.argsort([place[item] for item in block.ids.tolist()]))
    yield from second.blocks(batch)


def most_found(second: Second, queries: Float[Any, "q d"], near: int = NEAR) -> Shaped[np.ndarray, " n"]:
    """The items that queries find, those first that most of them find: the plan's order by density, on the live index.

    Args:
        second: the index that is asked, through its approximate search where it has one.
        queries: (q, d_new) logged queries by the new model.
        near: first items of a query that count.

    Returns:
        (n,) ids; items that no query finds are not among them.

    Raises:
        DataError: no vector is there yet.
        IncompatibleError: queries of another dimension.
    """
    found = np.asarray(second.search(queries, near).ids)
    found = found[np.asarray(found) != ("" if found.dtype.kind == "U" else -1)]
    if not len(found):
        raise DataError(f"{second!r} has no vectors yet; translate them first")
    ids, counts = np.unique(found, return_counts=True)
    return ids[np.argsort(-counts, kind="stable")]
