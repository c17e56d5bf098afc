"""The public face: complete, quick to import, one version."""

import subprocess
import sys
import tomllib
from pathlib import Path

import compatlearn

SOURCE = Path(__file__).parents[1] / "src" / "compatlearn"


def test_every_public_name_is_listed_and_documented() -> None:
    for name in compatlearn.__all__:
        assert getattr(compatlearn, name).__doc__, f"{name} has no docstring"
    public = {name for name, value in vars(compatlearn).items() if callable(value) and not name.startswith("_")}
    assert public == set(compatlearn.__all__)


def test_import_is_light() -> None:
    code = "import sys, compatlearn; print(' '.join(sorted(name for name in sys.modules if '.' not in name)))"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"datasets", "faiss", "matplotlib", "accelerate", "timm", "torchvision", "sklearn", "jinja2", "cyclopts", "ray"}
    assert "torch" in modules
    assert not heavy & set(modules)


def test_one_version() -> None:
    project = tomllib.loads((SOURCE.parents[1] / "pyproject.toml").read_text())["project"]
    assert project["version"] == compatlearn.__version__


def test_files_stay_small() -> None:
    long = {file.name: count for file in SOURCE.glob("*.py") if (count := len(file.read_text().splitlines())) > 400}
    assert long == {}
