"""How far a matrix product may be from the truth, and the switches that keep it from going further."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """No TF32, autocast or sums in bfloat16 in here, whatever the caller has set: products are what their type says."""
    cuda: Any = torch.backends.cuda.matmul
    switches: list[tuple[Any, str, Any]] = [(cuda, "allow_bf16_reduced_precision_reduction", False)]
    newer = hasattr(cuda, "fp32_precision")  # since torch 2.9
    if newer:
        switches += [(cuda, "fp32_precision", "ieee"), (torch.backends.mkldnn.matmul, "fp32_precision", "ieee")]  # type: ignore[attr-defined]
    before = [getattr(place, name) for place, name, _ in switches]
    precision = None if newer else torch.get_float32_matmul_precision()
    try:
        for place, name, value in switches:
            setattr(place, name, value)
        if precision:
            torch.set_float32_matmul_precision("highest")
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for (place, name, _), value in zip(switches, before, strict=True):
            setattr(place, name, value)
        if precision:
            torch.set_float32_matmul_precision(precision)


def has_bfloat16(device: torch.device) -> bool:
    """The processor calculates in bfloat16 itself; elsewhere torch emulates that, much slower than float32.

    Where nobody tells (neither NVIDIA nor x86), accelerate decides, and a CPU is taken for one without.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return any(getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return True


@cache
def fast_in_bfloat16(device: torch.device) -> bool:
    """Products of bfloat16 rows are faster than of float32 rows there, and are summed in float32."""
    return device.type in ("cuda", "cpu") and has_bfloat16(device) and _sums_in_float32(device)


def _sums_in_float32(device: torch.device) -> bool:
    """1 + 1 + …: a sum in bfloat16, whose steps are 2 wide from 256 on, stays there."""
    ones = torch.ones(32, 1 << 16, dtype=torch.bfloat16, device=device)
    return bool((ones @ ones.T == 1 << 16).all())
