"""A part of a large index, drawn while it is read once: items at random, and those that must not be missing."""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Shaped, UInt64

from ..errors import DataError, IncompatibleError, first_few
from ..evaluation import lookup
from ..evaluation.relevance import Relevance
from ..features.features import Features
from ..indexes.index import Readable
from . import given

SPARE = 1.25  # times as many rows are held before those that lost the draw are let go


@dataclass(frozen=True)
class Part:
    """Some items of an index, or all of them.

    Attributes:
        features: their vectors, by ascending id.
        items: how many the index has.
    """

    features: Features
    items: int


def read_part(
    index: Readable, keep: Shaped[np.ndarray, " k"], *, among: Shaped[np.ndarray, " a"] | None = None, seed: int = 0
) -> Part:
    """Read an index once, and hold no more of it than a plan searches, beside the items that are kept.

    An item is drawn by a hash of its id: the same items are drawn in whatever order a store gives them.

    Args:
        index: whose vectors are read.
        keep: (k,) ids of items that are held in any case; ids that the index lacks are passed over.
        among: (a,) ids of the items that may be held; None: all.
        seed: of the draw.

    Returns:
        The part; all items, where they are no more than a plan searches.

    Raises:
        DataError: the index is empty.
        IncompatibleError: it lacks one of those that may be held, or its ids are text and these numbers, or the other way.
    """
    wanted, allowed = np.unique(keep), None if among is None else np.unique(among)
    seen = np.zeros(0 if allowed is None else len(allowed), dtype=bool)
    held, items = _Held(given.SEARCHED, seed), 0
    for block in index.scan():
        items += len(block)
        inside = np.ones(len(block), dtype=bool)
        if allowed is not None:
            places = places_of(allowed, block.ids)
            inside, seen[places[places >= 0]] = places >= 0, True
        held.add(block, places_of(wanted, block.ids) >= 0, inside)
    if allowed is not None and not seen.all():
        if items and allowed.dtype.kind != block.ids.dtype.kind:
            kinds = ["text" if ids.dtype.kind == "U" else "numbers" for ids in (allowed, block.ids)]
            raise IncompatibleError(
                f"the ids of the items are {kinds[0]} (first: {first_few(allowed.tolist())}) and those of the index {kinds[1]} "
                f"(first: {first_few(block.ids.tolist())}); give both the same kind of id"
            )
        raise IncompatibleError(
            f"{(~seen).sum()} of {len(seen)} ids of the items are not in the index (first: "
            f"{first_few(allowed[~seen].tolist())}); give the items that the index holds"
        )
    if not held.blocks:
        raise DataError(f"{index!r} is empty")
    return Part(held.features(), items)


class _Held:
    """Rows that are in the draw so far: those with the smallest keys, and those that are kept whatever their key is."""

    def __init__(self, most: int, seed: int) -> None:
        self.most, self.seed = most, seed
        self.limit = np.uint64(np.iinfo(np.uint64).max)
        self.blocks: list[Features] = []
        self.keys: list[UInt64[np.ndarray, " m"]] = []

    def add(self, block: Features, kept: Bool[np.ndarray, " m"], inside: Bool[np.ndarray, " m"]) -> None:
        """Take from a block what may stay; at most `SPARE` times the wanted rows are held, those that are kept not counted."""
        keys = np.where(kept, np.uint64(0), keys_of(block.ids, self.seed))
        stay = inside & (keys <= self.limit)
        if stay.any():
            self.blocks.append(block if stay.all() else block.take(stay))
            self.keys.append(keys[stay])
        if sum(int((one > 0).sum()) for one in self.keys) > SPARE * self.most:
            self._draw()

    def features(self) -> Features:
        """All that is held, by ascending id."""
        self._draw()
        block, order = self.blocks[0], np.argsort(self.blocks[0].ids, kind="stable")
        return block.take(order)

    def _draw(self) -> None:
        keys = np.concatenate(self.keys)
        drawn = np.sort(keys[keys > 0])
        if len(drawn) > self.most:
            self.limit = drawn[self.most - 1]
        stay = keys <= self.limit
        starts = np.cumsum([0, *map(len, self.blocks)])
        masks = [stay[start : start + len(one)] for one, start in zip(self.blocks, starts[:-1], strict=True)]
        parts = [one.take(mask) for one, mask in zip(self.blocks, masks, strict=True) if mask.any()]
        self.blocks, self.keys = [joined(parts)], [keys[stay]]


def joined(blocks: list[Features]) -> Features:
    """Blocks of an index as one; labels only where all of them have some.

    Args:
        blocks: at least one.
    """
    labels = [block.labels for block in blocks]
    known: Any = None if any(one is None for one in labels) else np.concatenate(labels)  # type: ignore[arg-type]
    ids = np.concatenate([block.ids for block in blocks])
    vectors = np.concatenate([block.vectors for block in blocks])
    return Features(vectors, known, ids, blocks[0].space, ids_from="the index", classes=blocks[0].classes)


def keys_of(ids: Shaped[np.ndarray, " n"], seed: int) -> UInt64[np.ndarray, " n"]:
    """A number for each id, in [1, 2⁶⁴), as if drawn at random.

    Args:
        ids: (n,) int64 or text.
        seed: of the draw.

    Source: numbers: the finaliser of SplitMix64, Steele, Lea and Flood, 2014; text: BLAKE2b.
    """
    salt = blake2b(str(seed).encode(), digest_size=8).digest()
    if ids.dtype.kind == "U":
        digests = b"".join(blake2b(one.encode(), digest_size=8, key=salt).digest() for one in ids.tolist())
        return np.maximum(np.frombuffer(digests, dtype=np.uint64), np.uint64(1))
    with np.errstate(over="ignore"):
        keys = (ids.astype(np.int64).view(np.uint64) ^ np.frombuffer(salt, dtype=np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.maximum(keys ^ (keys >> np.uint64(31)), np.uint64(1))


def places_of(known: Shaped[np.ndarray, " k"], ids: Shaped[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Where each id stands among known ones, -1 where it is none; numbers meet text by their digits, as in judgements.

    Args:
        known: (k,) ascending, no two alike.
        ids: (n,) int64 or text.
    """
    if not len(known):
        return np.full(len(ids), -1)
    if ids.dtype.kind != known.dtype.kind:
        if known.dtype.kind != "U":
            return np.full(len(ids), -1)
        ids = ids.astype(str)
    return lookup.places_of(known, ids)


def judged_ids(relevance: Relevance | None, query_ids: Shaped[np.ndarray, " q"] | None) -> Shaped[np.ndarray, " j"]:
    """Ids of the items that somebody judged for any of these queries; none by labels, or without queries.

    Args:
        relevance: by ids, as it was given; or None.
        query_ids: (q,) or None.
    """
    if relevance is None or query_ids is None or relevance.judged is None or relevance.item_ids is None:
        return np.zeros(0, dtype=np.int64)
    here = relevance.at(query_ids, relevance.item_ids)
    return relevance.item_ids[here.judged_items(np.arange(len(query_ids)))]


def together(*ids: Shaped[np.ndarray, " _"]) -> Shaped[np.ndarray, " m"]:
    """All of several ids: numbers, or text where some are text."""
    some = [one for one in ids if len(one)]
    kinds = {one.dtype.kind for one in some}
    return np.concatenate([one.astype(str) if len(kinds) > 1 else one for one in some] or [np.zeros(0, dtype=np.int64)])
