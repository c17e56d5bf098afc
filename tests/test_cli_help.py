"""The help of every command, and what is said of flags that are missing or misspelt."""

import inspect
import re
import shlex
import subprocess
import sys

import pytest

from compatlearn.adapters.methods import ADAPTERS
from compatlearn.cli.app import app
from compatlearn.pseudo.table import CLASSIFIERS
from samples import call


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("adapt --new-features n.npz --out a.safetensors", "adapt needs --old-features; see compatlearn adapt --help"),
        ("adapt --old-feature o.npz --new-features n.npz", "unknown option --old-feature; did you mean --old-features?"),
        ("adapt --old-features", 'Command "adapt" parameter --old-features requires an argument.'),
        ("compare --recipe digits", "compare needs --out; see compatlearn compare --help"),
    ],
)
def test_a_flag_that_is_missing_or_misspelt(capsys: pytest.CaptureFixture[str], command: str, message: str) -> None:
    assert call(capsys, *command.split()) == (2, "", f"compatlearn: {message}\n")


COMMANDS = ("demo", "adapt", "evaluate", "extract", "pseudo", "train", "compare", "sweep", "recipe", "plan", "export")
COMMANDS += ("translate", "backfill", "search", "status", "rollback", "serve", "drift")


def test_every_command_has_its_line_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "--help")
    assert code == 0
    assert all(re.search(rf"^│ {name} +\S", out, re.M) for name in COMMANDS)
    assert "--install-completion" in out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_an_example_that_parses(command: str) -> None:
    examples = re.findall(
        r"^ *(compatlearn [^\\\n]+(?:\\\n.+)*)$", inspect.cleandoc(app[command].default_command.__doc__), re.M
    )
    assert examples, f"{command} has no example"
    for example in examples:
        words = shlex.split(example.replace("\\\n", " "))[1:]
        assert words[0] == command
        app.parse_args(words, exit_on_error=False, print_error=False)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_is_described(command: str) -> None:
    for argument in app[command].assemble_argument_collection(parse_docstring=True):
        assert argument.parameter.help or argument.name == "*", f"{command} {argument.name} has no help"


@pytest.mark.parametrize("command", ["adapt", "evaluate --json", "nope", "extract --nope"])
def test_usage_errors_need_no_torch(command: str) -> None:
    script = "import sys; from compatlearn.cli.app import run; print(run(sys.argv[1:]), {'torch', 'numpy'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", script, *command.split()], capture_output=True, text=True, timeout=60)
    assert done.stdout == "2 set()\n"


def test_the_help_names_every_entry_of_a_table() -> None:
    for command, table in (("adapt", ADAPTERS), ("pseudo", CLASSIFIERS)):
        arguments = app[command].assemble_argument_collection(parse_docstring=True)
        text = next(argument.parameter.help for argument in arguments if argument.name == "--method")
        assert all(re.search(rf"(?<![\w-]){name}(?![\w-])", text) for name in table), text
