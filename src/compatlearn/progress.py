"""Notices and progress on stderr: a bar with rate and remaining time on a terminal, one line per epoch elsewhere."""

import sys
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

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
