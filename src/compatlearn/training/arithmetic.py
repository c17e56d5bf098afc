"""Which number type a training really uses: the one that the recipe asks for, where the processor can calculate with it."""

import os

import torch

from ..errors import ConfigError
from ..precision import has_bfloat16
from ..progress import say_once

NAMES = {"no": "float32", "bf16": "bfloat16", "fp16": "float16"}


def choose_arithmetic(precision: str) -> str:
    """The precision to train in on this machine; a line on stderr, once, if it is not the one asked for.

    Args:
        precision: no (float32), bf16 or fp16, as accelerate calls them.

    Returns:
        The same, or `no` where bfloat16 would be emulated: that is several times slower than float32.

    Raises:
        ConfigError: fp16 without a GPU.
    """
    device = _device()
    if precision == "fp16" and device.type == "cpu":
        raise ConfigError("precision fp16 needs a GPU, and there is none here; use bf16 or no")
    if precision == "bf16" and not has_bfloat16(device):
        if os.environ.get("RANK", "0") == "0":  # of the processes of one job the first speaks
            say_once("this processor has no bfloat16 arithmetic: training in float32 instead")
        return "no"
    return precision


def _device() -> torch.device:
    """The one that accelerate will take; asking accelerate itself would settle how its processes talk to each other."""
    wanted = os.environ.get("ACCELERATE_USE_CPU", "").lower() not in ("1", "true", "yes", "on", "y", "t")
    found = torch.accelerator.current_accelerator() if wanted and torch.accelerator.is_available() else None
    return found or torch.device("cpu")


def note_change(before: str | None, now: str) -> None:
    """A line on stderr if a run that was trained in one precision (None: not known) is resumed in another."""
    if before is not None and before != now:
        say_once(f"resuming in {NAMES[now]} what was trained in {NAMES[before]} until here: the weights will differ a little")
