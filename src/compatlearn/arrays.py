"""NumPy and torch arrays in, the same kind out; checks that name the rows at fault."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .errors import DataError, first_few

Array: TypeAlias = np.ndarray | Tensor
BLOCK = 65536  # rows checked at a time


def as_tensor(values: Array) -> Tensor:
    """The same numbers as a tensor; no copy unless NumPy's memory is read-only or strided."""
    if isinstance(values, Tensor):
        return values.detach()
    values = np.asarray(values)
    return torch.from_numpy(values if values.flags.writeable and values.flags.c_contiguous else values.copy())


def as_numpy(values: Array) -> np.ndarray:
    """The same numbers in NumPy; no copy unless they are elsewhere."""
    return values if isinstance(values, np.ndarray) else as_tensor(values).cpu().numpy()


def shared(values: Array) -> Array:
    """The same memory, as a tensor where torch can share it; a read-only or strided array stays as it is, uncopied."""
    if isinstance(values, Tensor) or (values.flags.writeable and values.flags.c_contiguous):
        return as_tensor(values)
    return values


def take_rows(values: Array, rows: Tensor) -> Tensor:
    """A copy of the given rows and of no others: `values` may be a memory map."""
    values = shared(values)
    if isinstance(values, Tensor):
        return values.index_select(0, rows.to(values.device))
    return torch.from_numpy(values[rows.cpu().numpy()])


def like(result: Tensor, template: Array) -> Any:
    """`result` as the kind of array `template` is: NumPy, or torch on the template's device."""
    return result.to(template.device) if isinstance(template, Tensor) else result.cpu().numpy()


def check_vectors(vectors: Array, name: str = "vectors", *, nonzero: bool = False) -> Tensor:
    """(n, d) finite floats as a tensor: float16 widened to float32, float32 and float64 as they are.

    Raises:
        DataError: not two-dimensional, empty, not floats, NaN or infinity, or (with `nonzero`) a zero row.
    """
    check_rows(vectors, name, nonzero=nonzero)
    rows = as_tensor(vectors)
    return rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows


def check_kind(vectors: Array, name: str = "vectors") -> None:
    """Raise DataError unless these are rows of floats; none of them is read."""
    if vectors.ndim != 2 or 0 in vectors.shape:
        raise DataError(f"{name} must be (rows, dimension), both at least 1; got shape {tuple(vectors.shape)}")
    if not (vectors.is_floating_point() if isinstance(vectors, Tensor) else vectors.dtype.kind == "f"):
        raise DataError(f"{name} must be float16, float32 or float64; got {str(vectors.dtype).removeprefix('torch.')}")


def check_rows(
    vectors: Array, name: str = "vectors", *, nonzero: bool = False, told: Callable[[list[int]], str] = first_few
) -> None:
    """`check_vectors` without its result: a block of rows in memory at a time, so that a memory map is only read through.

    `told` says in a message which rows are at fault.
    """
    vectors = vectors if isinstance(vectors, Tensor) else np.asarray(vectors)
    check_kind(vectors, name)
    count, endless, zero = len(vectors), list[int](), list[int]()
    for start in range(0, count, BLOCK):
        block = as_tensor(vectors[start : start + BLOCK])
        sizes = torch.linalg.vector_norm(block, ord=1, dim=1)  # one pass that shows either fault
        suspects = (~torch.isfinite(sizes)).nonzero()[:, 0]  # or only a sum too large for its type
        endless += (suspects[~torch.isfinite(block[suspects]).all(dim=1)] + start).tolist()
        zero += ((sizes == 0).nonzero()[:, 0] + start).tolist() if nonzero else []
    for fault, bad in (("NaN or infinity", endless), ("length zero", zero)):
        if bad:
            raise DataError(
                f"{len(bad)} of {count} rows of {name} have {fault} (first: {told(bad)}); drop or extract them again"
            )


def check_labels(labels: Array, rows: int, name: str = "labels") -> Tensor:
    """(rows,) classes as an int64 tensor.

    Raises:
        DataError: not one integer a row, or a negative one (the usual mark of a missing label).
    """
    values = as_tensor(labels)
    if values.ndim != 1 or len(values) != rows:
        raise DataError(f"{name} must hold one class for each of {rows} rows; got shape {tuple(values.shape)}")
    if values.is_floating_point() or values.dtype == torch.bool:
        raise DataError(f"{name} must be integers; got {str(values.dtype).removeprefix('torch.')}")
    values = values.long()
    if (values < 0).any():
        bad = (values < 0).nonzero()[:, 0].tolist()
        raise DataError(f"{len(bad)} of {rows} {name} are negative (first rows: {first_few(bad)}); give every row a class")
    return values


def unit_rows(rows: Float[Tensor, "*n d"], length: float = 1.0, *, out: Tensor | None = None) -> Float[Tensor, "*n d"]:
    """Rows scaled to `length`; NaN for a zero row. Squares that would vanish or overflow are scaled before they are summed."""
    lengths = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    if not ((lengths > 1e-15) & (lengths < 1e15)).all():
        rows = rows / rows.abs().amax(dim=-1, keepdim=True)
        lengths = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return torch.mul(rows, length / lengths, out=out)


def unit_length(vectors: np.ndarray) -> bool:
    """Every row has length 1, within what float16 can hold."""
    wide = vectors.astype(np.float32) if vectors.dtype == np.float16 else vectors
    return bool((np.abs(np.einsum("nd,nd->n", wide, wide) - 1) < 2e-3).all())
