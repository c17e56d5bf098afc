"""The command line: parse, call one function, print. Results on stdout, everything else on stderr.

Exit codes: 0 done, 1 an error that the user can mend (one line on stderr), 2 wrong usage, 3 a gate (`--require-…`) that
is not met, 130 interrupted, 143 terminated.
"""

import re
import sys
from difflib import get_close_matches
from typing import Any

from cyclopts import App, CycloptsError, MissingArgumentError

from .. import __version__
from ..errors import CompatlearnError
from ..extras import missing_extra
from . import signals
from .adapt import adapt
from .backfill import backfill
from .compare import compare, sweep
from .demo import demo
from .drift import drift
from .evaluate import evaluate
from .export import export
from .extract import extract
from .migrate import rollback, status, translate
from .plan import plan
from .pseudo import pseudo
from .recipe import recipe
from .search import search
from .serve import serve
from .train import train

app = App(name="compatlearn", help="Upgrade an embedding model without re-embedding the gallery.", version=__version__)
for command in (
    demo,
    plan,
    translate,
    backfill,
    search,
    serve,
    drift,
    status,
    rollback,
    adapt,
    export,
    evaluate,
    extract,
    pseudo,
    train,
    compare,
    sweep,
    recipe,
):  # each imports torch when it is called
    app.command(command)
app.register_install_completion_command(help="Install the completion of commands and flags in your shell.")


def run(arguments: list[str]) -> int:
    """The exit code of one call of the command line."""
    arguments = [re.sub("^--training[.]", "--", argument) for argument in arguments]  # a key as a recipe nests it
    try:
        command, bound, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)
    except MissingArgumentError as error:
        return _fail(_missing(error, arguments), 2)
    except CycloptsError as error:
        return _fail(str(error), 2)
    try:
        return int(command(*bound.args, **bound.kwargs) or 0)
    except BaseException as error:
        if signals.received or isinstance(error, KeyboardInterrupt):  # an import that is stopped fails in many ways
            return _fail(signals.last_words(arguments), signals.exit_code())
        return _fail(_explained(error), 1)


def _missing(error: MissingArgumentError, arguments: list[str]) -> str:
    """What a missing value is about: a flag that is misspelt, one that is not there, or one without its value."""
    names = {name for argument in app[arguments[0]].assemble_argument_collection() for name in argument.names}
    flag = error.argument.name if error.argument else ""
    for given in arguments[1:]:
        word = given.partition("=")[0]
        if word.startswith("--") and word not in names and (near := get_close_matches(word, names, n=1)):
            return f"unknown option {word}; did you mean {near[0]}?"
    if flag in ("", "--[KEYWORD]", *arguments):
        return str(error)
    return f"{arguments[0]} needs {flag}; see compatlearn {arguments[0]} --help"


def _explained(error: BaseException) -> str:
    """An error that can be mended, in one line; any other is raised again."""
    if isinstance(error, CompatlearnError):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and (missing := missing_extra(error)):
        return str(missing)
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
