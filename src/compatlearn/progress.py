"""Notices and progress on stderr: a bar with rate and time left on a terminal, lines elsewhere; shares of long work."""

import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

QUIET, PAUSE = 5.0, 10.0  # seconds before the first line about a share of work, and between two
said: set[str] = set()  # lines that are not repeated


def say_once(line: str) -> None:
    """Print a line on stderr, but only once in a process.

    Args:
        line: what to say.
    """
    if line not in said:
        said.add(line)
        print(line, file=sys.stderr)


def track(epochs: range, title: str, total: int, images: int, shown: bool = True) -> Iterator[int]:
    """The epochs, each reported on stderr with its rate and the time left.

    Args:
        epochs: those to run; its start is where a run is resumed.
        title: of the run.
        total: number of epochs, including those already done.
        images: per epoch.
        shown: False reports nothing.

    Yields:
        Each epoch.
    """
    if not shown:
        yield from epochs
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield from _lines(epochs, title, total, images)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total} epochs"))
    with Progress(*columns, TextColumn("{task.fields[rate]}"), TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task(title, total=total, completed=epochs.start, rate="")
        for epoch in epochs:
            started = time.monotonic()
            yield epoch
            progress.update(task, advance=1, rate=f"{images / (time.monotonic() - started):.0f} images/s")


def _lines(epochs: range, title: str, total: int, images: int) -> Iterator[int]:
    for epoch in epochs:
        started = time.monotonic()
        yield epoch
        seconds = time.monotonic() - started
        left = seconds * (total - epoch - 1)
        print(f"{title}: epoch {epoch + 1}/{total}, {images / seconds:.0f} images/s, {left:.0f} s left", file=sys.stderr)


def shares(title: str) -> Callable[[float], None]:
    """Lines on stderr about work that takes more than a few seconds: how much is done, and the time left.

    Args:
        title: what the lines begin with.

    Returns:
        A function of the share that is done, in [0, 1], to be called now and then.
    """
    started = time.monotonic()
    due = started + QUIET

    def show(share: float) -> None:
        nonlocal due
        now = time.monotonic()
        if now >= due and 0 < share < 1:
            due = now + PAUSE
            print(f"{title}: {share:.0%}, {(now - started) * (1 - share) / share:.0f} s left", file=sys.stderr)

    return show
