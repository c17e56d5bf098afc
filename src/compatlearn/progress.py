"""Notices and progress on stderr: a bar with rate and remaining time on a terminal, one line an epoch elsewhere."""

import sys
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

said: set[str] = set()  # lines that are not repeated


def say_once(line: str) -> None:
    """Tell people something on stderr, once however often it comes up."""
    if line not in said:
        said.add(line)
        print(line, file=sys.stderr)


def track(epochs: range, title: str, total: int, images: int, shown: bool = True) -> Iterator[int]:
    """The epochs, with a report of each on stderr: `images` a second, time left."""
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
