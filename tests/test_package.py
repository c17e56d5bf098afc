"""The public face: complete, quick to import, one version."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import compatlearn

SOURCE = Path(__file__).parents[1] / "src" / "compatlearn"


def test_every_public_name_is_listed_and_documented() -> None:
    for name in compatlearn.__all__:
        assert getattr(compatlearn, name).__doc__, f"{name} has no docstring"
    assert set(compatlearn.__all__) <= set(dir(compatlearn))
    assert set(compatlearn._MODULES) == set(compatlearn.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        compatlearn.nope  # noqa: B018


def test_type_checkers_see_every_public_name() -> None:
    tree = ast.parse((SOURCE / "__init__.py").read_text())
    typed = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level for alias in node.names}
    assert typed == set(compatlearn.__all__)
    assert (SOURCE / "py.typed").exists()


def test_import_is_light() -> None:
    code = "import sys, compatlearn; print(' '.join(sorted(name for name in sys.modules if '.' not in name)))"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "scipy", "pyarrow", "rich", "cyclopts"} & set(modules)


def test_one_version() -> None:
    project = tomllib.loads((SOURCE.parents[1] / "pyproject.toml").read_text())["project"]
    assert project["version"] == compatlearn.__version__


def test_files_stay_small() -> None:
    lengths = {str(file.relative_to(SOURCE)): len(file.read_text().splitlines()) for file in SOURCE.rglob("*.py")}
    assert {"losses/influence.py", "config.py"} <= set(lengths)  # packages are looked into
    assert {name: count for name, count in lengths.items() if count > 300} == {}
