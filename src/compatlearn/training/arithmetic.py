"""Which number type a training really uses: the one that the recipe asks for, where the processor can calculate with it."""

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
    from accelerate import PartialState

    state = PartialState()
    if precision == "fp16" and state.device.type == "cpu":
        raise ConfigError("precision fp16 needs a GPU, and there is none here; use bf16 or no")
    if precision == "bf16" and not has_bfloat16(state.device):
        if state.is_main_process:
            say_once("this processor has no bfloat16 arithmetic: training in float32 instead")
        return "no"
    return precision


def note_change(before: str | None, now: str) -> None:
    """A line on stderr if a run that was trained in one precision (None: not known) is resumed in another."""
    if before is not None and before != now:
        say_once(f"resuming in {NAMES[now]} what was trained in {NAMES[before]} until here: the weights will differ a little")
