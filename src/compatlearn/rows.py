"""Rows of an array that may not fit in memory: read some at a time, widened only then."""

from collections.abc import Iterator

from torch import Tensor

from .arrays import BLOCK, Array, as_tensor, check_kind, shared, take_rows


class Rows:
    """Rows of an array, all of them or those in `order`: read a few at a time, and widened to float32 only then.

    Args:
        vectors: (n, d) float16, bfloat16, float32 or float64; NumPy, a memory map, or torch.
        order: (m,) int64 rows of `vectors`, in the order in which they are read; None is all of them.
        name: what messages call them.

    Raises:
        DataError: not two-dimensional, empty, or not floats.
    """

    def __init__(self, vectors: Array, order: Tensor | None = None, *, name: str = "vectors") -> None:
        check_kind(vectors, name)
        self.vectors = shared(vectors)  # never a copy of the whole: it may be a memory map
        self.order = order

    def __len__(self) -> int:
        return len(self.vectors if self.order is None else self.order)

    def __getitem__(self, places: slice | Tensor) -> Tensor:
        """(k, d) rows as float32, or float64 if they are stored so."""
        chosen = places if self.order is None else self.order[places]
        rows = as_tensor(self.vectors[chosen]) if isinstance(chosen, slice) else take_rows(self.vectors, chosen)
        return rows.float() if rows.element_size() < 4 else rows

    def blocks(self) -> Iterator[Tensor]:
        """All of them, some at a time."""
        return (self[first : first + BLOCK] for first in range(0, len(self), BLOCK))
