"""Contents that are asked for by id: of a store, or of anyone's function of a list of ids."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Shaped

from ..errors import DataError
from .texts import Texts

if TYPE_CHECKING:
    from .images import Images

PAGE = 100  # ids that one call asks for
HELD = 4  # pages of pictures that are kept


@dataclass(frozen=True)
class ContentsById:
    """Texts or pictures by the ids of their items; only those that somebody asks for are read.

    Attributes:
        give: function of a list of ids → for each a text, a picture of Pillow, or None where there is none.
        name: what messages call it.
    """

    give: Callable[[list[Any]], Any]
    name: str

    def open(self, ids: Shaped[np.ndarray, " n"], ids_from: str = "") -> "Texts | Images":
        """The contents of some items.

        Args:
            ids: (n,) int64 or text, no two alike.
            ids_from: where they come from, in words.

        Returns:
            Texts, without the items that have none; or pictures, which are read when they are needed, each page of them in
            one call. Neither has labels that say anything.

        Raises:
            DataError: no item has any, the function fails, or it gives another number of contents, other things than texts or
                pictures, or both.
        """
        wanted, found = ids.tolist(), list[Any]()
        for page in _pages(wanted):
            found += self.page(page)
            if any(one is not None and not isinstance(one, str) for one in found):
                return self._pictures(ids, ids_from)
        kept = [row for row, one in enumerate(found) if one is not None and one.strip()]
        if not kept:
            first = f" (first: id {wanted[0]!r})" if wanted else ""
            raise DataError(f"{self.name} has no text for any of {len(wanted)} items{first}; name where the contents are")
        texts = Texts.of([found[row] for row in kept], ids[kept], source=self.name)
        return replace(texts, ids_from=ids_from or texts.ids_from)

    def held(self, ids: list[Any]) -> "tuple[Texts | Images | None, list[Any]]":
        """The contents of some items, all of them read now, and the items that have none.

        Args:
            ids: of the items, no two alike.

        Returns:
            Texts or pictures, None where no item has any; and the ids of the items that have none.

        Raises:
            DataError: as `open`.
        """
        from .images import Images, to_rgb

        found = [one for page in _pages(ids) for one in self.page(page)]
        has = [one is not None and not (isinstance(one, str) and not one.strip()) for one in found]
        lacking = [one for one, there in zip(ids, has, strict=True) if not there]
        names = [one for one, there in zip(ids, has, strict=True) if there]
        values = [one for one, there in zip(found, has, strict=True) if there]
        if len({isinstance(one, str) for one in values}) > 1:
            raise DataError(f"{self.name} returned texts and pictures; contents are texts, or all of them pictures of Pillow")
        if not values:
            return None, lacking
        if isinstance(values[0], str):
            return Texts.of(values, names, source=self.name), lacking
        rows = np.arange(len(values))
        return Images(
            lambda row: to_rgb(values[row]), 0 * rows, np.array(names), rows, ("item",), self.name, "the ids"
        ), lacking

    def page(self, ids: list[Any]) -> list[Any]:
        """The contents of a few items, checked.

        Args:
            ids: of the items.

        Returns:
            One for each: a text, a picture, or None.

        Raises:
            DataError: as `open`.
        """
        first = f"(first: id {ids[0]!r})"
        try:
            found = self.give(list(ids))
        except DataError:
            raise
        except Exception as error:  # anyone's function
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise DataError(f"{self.name} failed on {len(ids)} ids {first}: {reason}") from error
        if not isinstance(found, Sequence) or isinstance(found, str) or len(found) != len(ids):
            said = f"{len(found)} contents" if isinstance(found, Sequence) and not isinstance(found, str) else _kind(found)
            raise DataError(
                f"{self.name} was given {len(ids)} ids {first} and returned {said}; "
                "it must return a list with one content for each, None where there is none"
            )
        kinds = {_kind(one): row for row, one in reversed(list(enumerate(found))) if one is not None}
        odd = {kind: row for kind, row in kinds.items() if kind not in ("text", "picture")}
        if odd or len(kinds) > 1:
            kind, row = next(iter((odd or kinds).items()))
            given = f"{kind} for id {ids[row]!r}" if odd else "texts and pictures"
            raise DataError(f"{self.name} returned {given}; contents are texts, or all of them pictures of Pillow")
        return list(found)

    def _pictures(self, ids: Shaped[np.ndarray, " n"], ids_from: str) -> "Images":
        from .images import Images, to_rgb

        pages, guard = list(_pages(ids.tolist())), threading.Lock()
        page = lru_cache(HELD)(lambda number: self.page(pages[number]))

        def read(row: int) -> Any:
            with guard:  # whose function it is may not know of threads
                found = page(row // PAGE)[row % PAGE]
            if found is None or isinstance(found, str):
                raise ValueError("there is none" if found is None else "it is a text")
            return to_rgb(found)

        rows = np.arange(len(ids))
        return Images(read, np.zeros(len(ids), dtype=np.int64), ids, rows, ("item",), self.name, ids_from or "the ids")


def _pages(ids: list[Any]) -> Iterator[list[Any]]:
    return (ids[start : start + PAGE] for start in range(0, len(ids), PAGE))


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "text"
    return "picture" if type(value).__module__.partition(".")[0] == "PIL" else type(value).__name__
