"""The command line: parse, call one function, print. Results on stdout, everything else on stderr.

Exit codes: 0 done, 1 an error that can be mended (one line on stderr), 2 wrong usage, 3 `--require-compatible` not met,
130 interrupted, 143 terminated.
"""

import re
import sys
from typing import Any

from cyclopts import App, CycloptsError

from .. import __version__
from ..errors import CompatlearnError
from . import signals

app = App(name="compatlearn", help="Upgrade an embedding model without re-embedding the gallery.", version=__version__)
for name, function in {
    "demo": "demo:demo",
    "extract": "extract:extract",
    "pseudo": "pseudo:pseudo",
    "adapt": "adapt:adapt",
    "train": "train:train",
    "evaluate": "evaluate:evaluate",
    "compare": "compare:compare",
    "sweep": "compare:sweep",
    "recipe": "recipe:recipe",
}.items():
    app.command(f"{__package__}.{function}", name=name)  # imported when it is called


def run(arguments: list[str]) -> int:
    """The exit code of one call of the command line."""
    arguments = [re.sub("^--training[.]", "--", argument) for argument in arguments]  # a key as a recipe nests it
    try:
        command, bound, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        return _fail(str(error), 2)
    try:
        return int(command(*bound.args, **bound.kwargs) or 0)
    except BaseException as error:
        if signals.received or isinstance(error, KeyboardInterrupt):  # an import that is stopped fails in many ways
            return _fail(signals.last_words(arguments), signals.exit_code())
        return _fail(_explained(error), 1)


def _explained(error: BaseException) -> str:
    """An error that can be mended, in one line; any other is raised again."""
    if isinstance(error, CompatlearnError):
        return str(error)
    if isinstance(error, OSError):
        reason = f"{error.filename or ''}: {error.strerror or error}".lstrip(": ")
        return f"{reason}; check the path, its permissions and the space left"
    if isinstance(error, _out_of_memory()):
        return f"out of memory ({str(error) or 'the processor'}); lower --batch-size or give it less data"
    raise error


def _out_of_memory() -> tuple[type[BaseException], ...]:
    """Python's error, and torch's own if torch was imported at all."""
    torch: Any = sys.modules.get("torch")
    return (MemoryError, torch.OutOfMemoryError) if torch else (MemoryError,)


def _fail(message: str, code: int) -> int:
    signals.say(message)
    return code
