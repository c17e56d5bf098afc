"""Rows of a large array, read some at a time, as a search wants them: checked, of one width, of unit length or as they are."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ..arrays import Array, as_tensor, check_vectors, take_rows
from ..errors import DataError, first_few

LONGEST, SHORTEST = 1e150, 1e-150  # lengths whose square is still an ordinary float64


@dataclass(frozen=True)
class Rows:
    """Rows read some at a time, checked; of unit length for the cosine metric, cut or zero-padded to `width`."""

    values: Array
    name: str
    unit: bool
    width: int
    device: torch.device

    def __len__(self) -> int:
        return len(self.values)

    def tile(self, start: int, stop: int, dtype: torch.dtype = torch.float64) -> Float[Tensor, "m d"]:
        """Rows [start, stop)."""
        block = as_tensor(self.values[start:stop]).to(self.device)
        if not block.is_floating_point():
            check_vectors(block, self._name(start, stop))
        lengths = torch.linalg.vector_norm(block, dim=1, dtype=torch.float64)
        ordinary = (lengths > SHORTEST if self.unit else lengths >= 0) & (lengths < LONGEST)  # and neither NaN nor infinite
        if not bool(ordinary.all()):
            check_vectors(block, self._name(start, stop), nonzero=self.unit)
            bad = (~ordinary).nonzero()[:, 0].tolist()
            raise DataError(
                f"{len(bad)} rows of {self._name(start, stop)} have a length beyond 1e±150 (first: {first_few(bad)}); "
                "scale the vectors"
            )
        return self._fit((block / lengths[:, None] if self.unit else block).to(dtype))

    def take(self, rows: Int[Tensor, " m"], dtype: torch.dtype | None = torch.float64) -> Float[Tensor, "m d"]:
        """The given rows, which a tile has checked before; None leaves them in the type they have."""
        block = take_rows(self.values, rows).to(self.device)
        lengths = torch.linalg.vector_norm(block, dim=1, keepdim=True, dtype=torch.float64) if self.unit else None
        block = block if lengths is None else block / lengths
        return self._fit(block if dtype is None else block.to(dtype))

    def tail(self, start: int, stop: int) -> Float[Tensor, " m"]:
        """Squared lengths of rows [start, stop), which a tile has checked before, beyond `width`."""
        block = as_tensor(self.values[start:stop]).to(self.device)
        squares = torch.linalg.vector_norm(block[:, self.width :], dim=1, dtype=torch.float64).square()
        return squares / torch.linalg.vector_norm(block, dim=1, dtype=torch.float64).square() if self.unit else squares

    def _fit(self, block: Float[Tensor, "m d_own"]) -> Float[Tensor, "m d"]:
        return F.pad(block, (0, self.width - block.shape[1])) if block.shape[1] != self.width else block

    def _name(self, start: int, stop: int) -> str:
        return f"{self.name}[{start}:{min(stop, len(self))}]"
