"""What is published: a wheel that is whole, a README without dead links, and a licence named for every dependency."""

import re
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

import compatlearn
from compatlearn.extras import EXTRAS

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[>=<~! ]", one)[0] for one in requirements}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--wheel-dir",
        str(folder),
    ]
    subprocess.run([*command, str(ROOT)], check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    assert path.stat().st_size < 1_000_000
    return zipfile.ZipFile(path)


def metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return message_from_bytes(wheel.read(name))


def test_a_wheel_holds_the_package_its_recipes_and_its_pages(wheel: zipfile.ZipFile) -> None:
    held = set(wheel.namelist())
    source = ROOT / "src"
    ours = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    recipes = {f"compatlearn/recipes/{path.name}" for path in (ROOT / "recipes").glob("*.toml")}
    assert ours | recipes <= held
    assert {name for name in held if ".dist-info/" not in name} == ours | recipes  # and nothing else


def test_its_metadata(wheel: zipfile.ZipFile) -> None:
    found = metadata(wheel)
    assert (found["Name"], found["Version"]) == ("compatlearn", compatlearn.__version__)
    assert found["License-Expression"] == "Apache-2.0"
    assert set(found.get_all("Provides-Extra")) == set(PROJECT["optional-dependencies"])
    assert found["Description-Content-Type"] == "text/markdown"


def test_the_description_has_no_link_that_is_dead_on_a_package_index(wheel: zipfile.ZipFile) -> None:
    text = metadata(wheel).get_payload()
    assert "pip install compatlearn" in text
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert [link for link in links if not link.startswith(("https://", "http://", "#"))] == []
    assert "](docs/" in (ROOT / "README.md").read_text()  # there was something to do


def test_every_extra_is_in_all_and_every_library_of_the_code_in_an_extra() -> None:
    extras = PROJECT["optional-dependencies"]
    (everything,) = extras["all"]
    assert set(re.fullmatch(r"compatlearn\[(.+)\]", everything)[1].split(",")) == set(extras) - {"all"}  # type: ignore[index]
    assert set(EXTRAS.values()) <= set(extras)


def test_every_dependency_has_its_licence() -> None:
    page = (ROOT / "docs" / "licences.md").read_text()
    listed = {row[0]: set(row[1].split(", ")) for row in re.findall(r"^\| ([\w-]+) \| ([^|]+) \| [^|]+ \|$", page, re.M)}
    del listed["package"]
    wanted = {name: {"–"} for name in names(PROJECT["dependencies"])}
    for extra, requirements in PROJECT["optional-dependencies"].items():
        for name in names(requirements) - {"compatlearn"}:
            wanted[name] = wanted.get(name, set()) | {extra}
    assert listed == wanted


def test_the_citation_has_the_version() -> None:
    assert f"version: {compatlearn.__version__}" in (ROOT / "CITATION.cff").read_text()
