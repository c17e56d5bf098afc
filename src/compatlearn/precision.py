"""The precision of matrix products, and the switches that keep it from being lowered."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from threading import Lock
from typing import Any

import torch


class _Switches:
    """Torch's switches belong to the process: the first thread that needs full precision sets them, the last puts them back."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.users = 0
        self.before: list[Any] = []

    def set(self) -> None:
        with self.lock:
            if not self.users:
                self.before = [read() for read, _, _ in _switches()]
                for _, write, value in _switches():
                    write(value)
            self.users += 1

    def put_back(self) -> None:
        with self.lock:
            self.users -= 1
            if not self.users:
                for (_, write, _), value in zip(_switches(), self.before, strict=True):
                    write(value)


def _switches() -> list[tuple[Callable[[], Any], Callable[[Any], None], Any]]:
    """What reads each switch, what writes it, and its value for full precision."""
    cuda: Any = torch.backends.cuda.matmul
    places: list[tuple[Any, str, Any]] = [(cuda, "allow_bf16_reduced_precision_reduction", False)]
    if hasattr(cuda, "fp32_precision"):  # since torch 2.9
        places += [(cuda, "fp32_precision", "ieee"), (torch.backends.mkldnn.matmul, "fp32_precision", "ieee")]  # type: ignore[attr-defined]
    switches: list[Any] = [
        (partial(getattr, place, name), partial(setattr, place, name), value) for place, name, value in places
    ]
    if len(places) == 1:
        switches.append((torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest"))
    return switches


_SWITCHES = _Switches()


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """A context without TF32, autocast or sums in bfloat16, whatever the caller has set: products have their type's precision.

    Several threads may be inside at once: the caller's settings return when the last of them leaves.

    Args:
        device: whose autocast is switched off.

    Yields:
        Nothing.
    """
    _SWITCHES.set()
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        _SWITCHES.put_back()


def has_bfloat16(device: torch.device) -> bool:
    """Whether the processor computes in bfloat16 itself; elsewhere torch emulates it, much more slowly than float32.

    A CPU that does not say (any but x86) counts as one without; for devices other than CUDA and CPU, accelerate decides.

    Args:
        device: the processor.

    Returns:
        True for NVIDIA GPUs from compute capability 8.0 on, x86 CPUs with AVX-512 BF16 or AMX, and all other devices.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return any(getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return True


@cache
def fast_in_bfloat16(device: torch.device) -> bool:
    """Whether products of bfloat16 rows are faster than those of float32 rows, and are summed in float32.

    Args:
        device: the processor.

    Returns:
        False wherever that is not known.
    """
    return device.type in ("cuda", "cpu") and has_bfloat16(device) and _sums_in_float32(device)


def _sums_in_float32(device: torch.device) -> bool:
    """1 + 1 + …: a sum in bfloat16 gets stuck at 256, from where its steps are 2 wide."""
    ones = torch.ones(32, 1 << 16, dtype=torch.bfloat16, device=device)
    return bool((ones @ ones.T == 1 << 16).all())
