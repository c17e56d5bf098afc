"""How fast rows go: never faster than asked, and said from time to time."""

import time

from ..adapters.task import Tell

EVERY = 5.0  # seconds between two lines


class Pace:
    """Rows that are done, out of how many, at most so many per second.

    Args:
        total: rows there are.
        verb: what is done with them.
        rate: most rows per second; None: as fast as it goes.
        tell: takes a line from time to time.
    """

    def __init__(self, total: int, verb: str, rate: float | int | None, tell: Tell) -> None:
        self.total, self.verb, self.rate, self.tell = total, verb, rate, tell
        self.done, self._began = 0, time.monotonic()
        self._said = self._began

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._began

    def went(self, rows: int) -> None:
        """Count rows; wait if they went too fast."""
        self.done += rows
        if self.rate:
            time.sleep(max(0.0, self.done / self.rate - self.seconds))
        if time.monotonic() - self._said > EVERY:
            self._said = time.monotonic()
            speed = self.done / self.seconds
            self.tell(f"{self.done:,} of {self.total:,} rows {self.verb}, {speed:,.0f} per second")
