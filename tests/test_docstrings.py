"""Docstrings: a tool that reads Google style understands every one of them, and their examples run."""

import doctest
import importlib
import logging
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import griffe
import pytest

SOURCE = Path(__file__).parents[1] / "src"
MODULES = sorted(
    ".".join(file.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
    for file in SOURCE.rglob("*.py")
    if file.name != "__main__.py"
)
PENDING: tuple[str, ...] = ()  # not in Google style yet; never lengthen this list
ONE_LINE = re.compile(r"^ *(Args|Returns|Yields|Raises|Attributes|Examples): *\S.*$", re.M)
TWO_ERRORS = re.compile(r"(?<=[;,.] )\w+Error: ")


@cache
def package() -> griffe.Object | griffe.Alias:
    return griffe.load("compatlearn", search_paths=[SOURCE])


def find(module: str) -> griffe.Object | griffe.Alias:
    return package() if module == "compatlearn" else package()[module.removeprefix("compatlearn.")]


def pending(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in PENDING)


def public(parent: griffe.Object | griffe.Alias) -> Iterator[griffe.Object | griffe.Alias]:
    """A module or class and what it defines: no imported names, none that begins with an underscore."""
    yield parent
    for name, member in parent.members.items():
        if member.is_alias or member.is_module or name.startswith("_"):
            continue
        if member.is_class:
            yield from public(member)
        else:
            yield member


def complaints(docstring: griffe.Docstring) -> list[str]:
    """What griffe says of a docstring, and what it reads in silence and shows wrongly."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("griffe")
    logger.addHandler(handler)
    try:
        sections = griffe.parse_google(docstring)
    finally:
        logger.removeHandler(handler)
    said += [f"{found[0].strip()}: begin a new line after the colon" for found in ONE_LINE.finditer(docstring.value)]
    for section in sections:
        if section.kind is griffe.DocstringSectionKind.raises:
            for entry in section.value:
                if TWO_ERRORS.search(entry.description) or "," in str(entry.annotation):
                    said.append(f"Raises {entry.annotation}: {entry.description}: one entry per error")
    return said


@pytest.mark.parametrize("module", [module for module in MODULES if not pending(module)])
def test_docstrings_are_in_google_style(module):
    said = [f"{each.path}: {line}" for each in public(find(module)) if each.docstring for line in complaints(each.docstring)]
    assert not said, "\n".join(said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Sum.\n\nArgs:\n    a, b: numbers.", "does not appear in the function signature"),
        ("Sum.\n\nReturns: the sum.", "begin a new line"),
        ("Sum.\n\nRaises:\n    ConfigError: no; DataError: neither.", "one entry per error"),
        ("Sum.\n\nRaises:\n    ConfigError, DataError: no.", "one entry per error"),
        ("Sum.\n\nArgs:\n    a: one.\n\nReturns:\n    The sum.\n\nRaises:\n    DataError: no.\n\nSource: Gauss.", ""),
    ],
)
def test_the_check_finds_what_it_is_for(text, said):
    with griffe.temporary_visited_module(f'def add(a: int, b: int) -> int:\n    """{text}"""\n') as module:
        found = complaints(module["add"].docstring)
    assert bool(found) == bool(said)
    assert not said or said in "\n".join(found)


def test_modules_that_are_pending_exist():
    assert not [name for name in PENDING if not any(module == name or module.startswith(f"{name}.") for module in MODULES)]


def file(module: str) -> Path:
    path = SOURCE.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@pytest.mark.parametrize("module", [module for module in MODULES if ">>> " in file(module).read_text()])
def test_examples_run(module):
    for each in public(find(module)):
        if each.docstring and ">>> " in each.docstring.value:
            names = dict(vars(importlib.import_module(module)))
            text, line = each.docstring.value, each.docstring.lineno
            example = doctest.DocTestParser().get_doctest(text, names, each.path, str(each.filepath), line)
            output: list[str] = []
            result = doctest.DocTestRunner().run(example, out=output.append)
            assert result.attempted > 0
            assert result.failed == 0, "".join(output)


@pytest.mark.parametrize(
    "name",
    [
        *("losses.influence.InfluenceLoss", "losses.neighbours.NeighbourLoss", "losses.regression.RegressionLoss"),
        *("losses.regression.regression_loss", "pseudo.centres.mean_classifier", "pseudo.centres.random_walk_classifier"),
        *("pseudo.centres.random_walk_weights", "pseudo.softmax.trained_classifier"),
    ],
)
def test_functions_of_the_method_have_examples(name):
    assert ">>> " in find(f"compatlearn.{name}").docstring.value
