"""The command line."""

import sys

from . import signals


def main() -> None:
    """Entry point of the `compatlearn` command."""
    signals.catch()  # first of all: importing the rest takes a while
    try:
        from .app import run

        code = run(sys.argv[1:])
    except BaseException:
        if not signals.received:
            raise
        signals.say(signals.last_words(sys.argv[1:]))
        code = signals.exit_code()
    sys.exit(code)
