"""New vectors of items: from a cache, or embedded now, a batch at a time, and kept."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped

from ..errors import DataError, IncompatibleError, first_few
from ..features.cache import VectorCache
from ..features.values import to_numpy

Embed = Callable[[list[Any]], Any]  # m ids → (m, d) floats


class WithoutContent(DataError):
    """What an `embed` raises, before it embeds any, where some of the items have nothing to be embedded.

    Args:
        message: one line.
        ids: of these items; whoever can do without them asks again for the others.
    """

    def __init__(self, message: str, ids: Sequence[Any]) -> None:
        super().__init__(message)
        self.ids = list(ids)


class FreshVectors:
    """Vectors by id that are embedded when they are first asked for; one thread embeds at a time.

    Args:
        embed: function of a list of m different ids: (m, d) floats, in the order of the ids.
        cache: where they are kept, batch by batch.
        batch: most ids that one call of `embed` is given.
        nonzero: whether a vector of length zero is a fault.

    Attributes:
        count: items embedded by this object.
    """

    def __init__(self, embed: Embed, cache: VectorCache, batch: int, *, nonzero: bool) -> None:
        self.embed, self.cache, self.batch, self.nonzero = embed, cache, batch, nonzero
        self.count = 0
        self._guard = threading.Lock()

    def vectors(self, ids: Shaped[np.ndarray, " n"], width: int) -> tuple[Float[np.ndarray, "n d"], Bool[np.ndarray, " n"]]:
        """Vectors of items, and which of these were embedded now.

        Args:
            ids: (n,) of items; the first are embedded first.
            width: d, which `embed` must give.

        Returns:
            (n, d) float32, and (n,) whether `embed` was called for it.

        Raises:
            DataError: what `embed` gave cannot be used; what it gave before, and what can be used, is kept.
            IncompatibleError: it gave another dimension.
            WithoutContent: `embed` raised it; what it gave before is kept.
        """
        vectors, known = self.cache.get(ids)
        embedded = np.zeros(len(ids), dtype=bool)
        if not known.all():
            with self._guard:
                missing = np.flatnonzero(~self.cache.get(ids)[1])  # another thread may have embedded some meanwhile
                missing = missing[np.sort(np.unique(ids[missing], return_index=True)[1])]  # each id once
                for start in range(0, len(missing), self.batch):
                    self._add(ids[missing[start : start + self.batch]], width)
                embedded[missing] = True
            vectors, known = self.cache.get(ids)  # not what `embed` gave: another process may have come first
        bad = ids[~known | (self.nonzero & ~vectors.any(axis=1))]
        if len(bad):
            raise DataError(
                f"{len(bad)} of {len(ids)} vectors of {self.cache.path} have length zero, or were dropped just now "
                f"(first: id {bad[0].item()!r}); drop these ids and search again"
            )
        return vectors, embedded

    def _add(self, ids: Shaped[np.ndarray, " m"], width: int) -> None:
        """Embed items and keep what can be used; then complain of the others."""
        vectors, named = to_numpy(self.embed(ids.tolist())), f"first: id {ids[0].item()!r}"
        if vectors.ndim != 2 or len(vectors) != len(ids) or vectors.dtype.kind != "f":
            raise DataError(
                f"embed gave {vectors.dtype} of shape {vectors.shape} for {len(ids)} ids ({named}); "
                "it must give a vector of floats for each"
            )
        if vectors.shape[1] != width:
            raise IncompatibleError(
                f"embed gave vectors of {vectors.shape[1]} dimensions ({named}), the new queries have {width}; "
                "both must be by one model"
            )
        with np.errstate(over="ignore"):
            vectors = vectors.astype(np.float32)
        good = np.isfinite(vectors).all(axis=1) & (vectors.any(axis=1) | (not self.nonzero))
        if good.any():
            self.cache.add(ids[good], vectors[good])
            self.count += int(good.sum())
        if not good.all():
            fault = "NaN, infinity or length zero" if self.nonzero else "NaN or infinity"
            raise DataError(
                f"embed gave {fault} for {(~good).sum()} of {len(ids)} ids "
                f"(first: {first_few(map(repr, ids[~good].tolist()))}); check the model on these items"
            )
