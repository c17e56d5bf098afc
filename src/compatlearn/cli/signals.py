"""Ctrl-C and SIGTERM: a clean end, one line, and the exit code that a shell expects (130, 143)."""

import os
import signal
import sys
import time
from types import FrameType

RESUMABLE = {"extract", "plan", "translate", "backfill", "compare", "sweep", "demo"}
FORCE = 1.0  # seconds after which a second signal ends the process at once; `timeout` and others send two
received: list[tuple[int, float]] = []  # the first signal, and when it came


class Stopped(KeyboardInterrupt):
    """Raised where the program is when a signal arrives, SIGTERM like Ctrl-C."""


def catch() -> None:
    """From here on both signals raise `Stopped`; one that is ignored (by nohup, say) stays ignored."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    if not received:
        received.append((number, time.monotonic()))
        raise Stopped
    if time.monotonic() - received[0][1] > FORCE:
        os._exit(128 + number)


def exit_code() -> int:
    """128 and the number of the signal that came; that of Ctrl-C if none was caught here."""
    return 128 + (received[0][0] if received else signal.SIGINT)


def last_words(arguments: list[str]) -> str:
    """What is left of the work of an interrupted command, in one line."""
    event = "terminated" if exit_code() == 128 + signal.SIGTERM else "interrupted"
    command = next((argument for argument in arguments if not argument.startswith("-")), "")
    if command in RESUMABLE or (command == "train" and "--resume" in arguments):
        return f"{event}; run the same command again to resume"
    if command == "train":
        return f"{event}; run the same command with --resume to continue"
    return f"{event}; nothing was written"


def say(message: str) -> None:
    """One line on stderr."""
    print(f"compatlearn: {' '.join(message.split())}", file=sys.stderr)
