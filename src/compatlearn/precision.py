"""How far a matrix product may be from the truth, and the switches that keep it from going further."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """No TF32, bfloat16 or autocast in here, whatever the caller has set: products are what their type says."""
    with torch.autocast(device.type, enabled=False):
        if not hasattr(torch.backends.cuda.matmul, "fp32_precision"):  # before torch 2.9
            precision = torch.get_float32_matmul_precision()
            torch.set_float32_matmul_precision("highest")
            try:
                yield
            finally:
                torch.set_float32_matmul_precision(precision)
            return
        backends = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
        before = [backend.fp32_precision for backend in backends]
        try:
            for backend in backends:
                backend.fp32_precision = "ieee"
            yield
        finally:
            for backend, value in zip(backends, before, strict=True):
                backend.fp32_precision = value


def squared_distance_error(
    lengths: Float[Tensor, " b"], reach: Float[Tensor, ""], dimension: int, dtype: torch.dtype
) -> Float[Tensor, " b"]:
    """Largest difference between ‖q‖² + 2 (‖g‖²/2 − q·g), the bracket in `dtype`, and Σ (q_i − g_i)² in float64.

    Args:
        lengths: (b,) float64 lengths of the queries q.
        reach: the length of the longest gallery row g.
        dimension: of both.
        dtype: float32 or float64, the type that the bracket is computed in.

    Returns:
        (b,) float64 bounds, infinite where the products may overflow.

    Source: the error of an inner product in any order of summation, |error| ≤ γ_d ‖q‖ ‖g‖ with γ_d = d u / (1 − d u),
    u half the machine epsilon (Higham, Accuracy and Stability of Numerical Algorithms, 3.1). The few roundings beside
    it (to `dtype`, of ‖g‖²/2, of their difference) are counted as eight more dimensions.
    """
    terms, info = dimension + 8, torch.finfo(dtype)
    unit = info.eps / 2
    product = terms * unit / (1 - terms * unit) * (lengths * reach + reach**2 / 2)
    underflow = dimension * info.tiny * (1 + lengths + reach)
    difference = terms * torch.finfo(torch.float64).eps * (lengths + reach) ** 2
    error = 2 * (product + underflow) + difference
    return error.masked_fill((lengths + reach) ** 2 > info.max / 16, torch.inf)
