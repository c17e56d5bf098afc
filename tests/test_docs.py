"""The README and the documents: their examples run, their commands parse, their links and their file tree are right.

Python blocks of a file run in order, in one namespace and one empty folder. On the pages that walk through a whole job,
bash blocks run too: in this process where they only call `compatlearn` (importing torch for each would take longer than the
work), by bash otherwise; and console blocks, whose output is compared, `…` standing for anything, and alone in the
first or last line for any lines or none.
`<!-- not run: reason -->` before a block excludes it. The pages of docs/stores are run by test_docs_stores.py.
"""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import compatlearn
from compatlearn.cli.app import app, run
from compatlearn.config import load_recipe

ROOT = Path(__file__).parents[1]
STORES = sorted((ROOT / "docs" / "stores").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md")), *STORES]
# their shell blocks run
WALKS = {
    "upgrade.md",
    "quickstart.md",
    "own-data.md",
    "judgements.md",
    "gates.md",
    "texts.md",
    "services.md",
}  # their shell blocks run
BLOCK = re.compile(r"^(<!-- not run: (?P<reason>.+?) -->\n)?```(?P<language>\w*)\n(?P<code>.*?)^```$", re.M | re.S)


class Block(NamedTuple):
    page: Path
    line: int  # of its first line of code
    language: str
    code: str
    reason: str  # why it is not run; "" if it is

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, found.start("code")) + 1, found["language"], found["code"], found["reason"] or "")
        for found in BLOCK.finditer(text)
    ]


def commands(code: str) -> list[str]:
    """The lines of a shell block, continued ones joined, comments left out."""
    lines = code.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def arguments(command: str) -> list[str]:
    """What `compatlearn` is given, without what the shell keeps for itself."""
    words = shlex.split(command, comments=True)
    end = next((place for place, word in enumerate(words) if word in (">", "|", "&&", ";")), len(words))
    return words[words.index("compatlearn") + 1 : end]


def call(command: str) -> tuple[int, str]:
    """Exit code and output, both streams, of a `compatlearn` command in this process."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        code = run(arguments(command))
    return code, output.getvalue()


def run_python(block: Block, namespace: dict[str, Any]) -> None:
    exec(compile("\n" * (block.line - 1) + block.code, str(block.page), "exec"), namespace)


def run_bash(block: Block) -> None:
    lines = commands(block.code)
    if all(line.startswith("compatlearn ") and not re.search(r"[|>&;$]", line) for line in lines):
        for line in lines:
            code, output = call(line)
            assert code == 0, f"{block}: {line}\n{output}"
        return
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", block.code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"


def run_console(block: Block) -> None:
    for part in re.split(r"^\$ ", block.code, flags=re.M)[1:]:
        command, _, expected = part.partition("\n")
        code, output = call(command)
        shown = "\n".join(line for line in output.splitlines() if line.strip())
        assert re.fullmatch(pattern(expected.strip()), shown, re.S), f"{block}: {command}\n{shown}"
        assert code == (1 if re.search("^compatlearn: ", expected, re.M) else 0)


def pattern(expected: str) -> str:
    """What an output must match: … is anything, alone in the first or last line also nothing."""
    escaped = re.sub(r"\A…\\\n", r"(?:.*\n)?", re.escape(expected))
    return re.sub(r"\\\n…\Z", r"(?:\n.*)?", escaped).replace("…", ".*")


def run_page(page: list[Block], shell: bool, run_sql: Callable[[str], None] | None = None) -> None:
    """The blocks of a page, in order, in one namespace; shell blocks only where `shell` says so."""
    namespace: dict[str, Any] = {"__name__": page[0].page.stem}
    for block in page:
        if block.reason:
            continue
        if block.language == "python":
            run_python(block, namespace)
        elif block.language == "bash" and shell:
            run_bash(block)
        elif block.language == "console":
            run_console(block)
        elif block.language == "sql" and run_sql is not None:
            run_sql(block.code)


@pytest.fixture
def empty_folder(tmp_path, monkeypatch):
    """A folder to work in; modules imported from it, and the path to it, are forgotten afterwards."""
    import datasets

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets-cache")
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.usefixtures("empty_folder")
@pytest.mark.parametrize(
    "page", [page for page in PAGES if page not in STORES and "```python" in page.read_text()], ids=lambda page: page.name
)
def test_examples_run(page):
    run_page(blocks(page), shell=page.name in WALKS)


def test_every_page_with_examples_asserts_something():
    for page in PAGES:
        code = [block.code for block in blocks(page) if block.language == "python"]
        assert not code or "assert" in "".join(code), page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_parse(page):
    for block in blocks(page):
        for line in commands(block.code) if block.language in ("bash", "console", "text") else []:
            if re.match(r"(\$ |if )?compatlearn ", line) and "…" not in line:
                app.parse_args(arguments(line), exit_on_error=False, print_error=False)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_recipes_are_read(page, tmp_path):
    for number, block in enumerate(block for block in blocks(page) if block.language == "toml"):
        path = tmp_path / f"{number}.toml"
        path.write_text(block.code)
        assert load_recipe(path).to_dict() != load_recipe().to_dict()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_placeholder_is_left(page):
    assert not re.findall(r"@@|TODO|XXX|FIXME", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_resolve(page):
    text, broken = BLOCK.sub("", page.read_text(encoding="utf-8")), []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://", target):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file) if file else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(target)
    assert not broken, f"{page.name} links to what is not there: {broken}"


def tree() -> list[str]:
    """The files named in the tree of docs/design.md, relative to the root."""
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    listing = re.search(r"## Files\n\n```text\n(.*?)```", text, re.S)[1]
    folders, found = [], []
    for line in filter(str.strip, listing.splitlines()):
        depth = (len(line) - len(line.lstrip())) // 2
        name, *description = line.split()
        assert description or name.endswith("/"), f"the tree says nothing of {name}"
        folders[depth:] = [name]
        found.append("".join(folders))
    return found


def test_the_file_tree_is_complete():
    listed = tree()
    assert len(listed) == len(set(listed))
    missing = [name for name in listed if not (ROOT / name).exists()]
    assert not missing, f"the tree names files that are not there: {missing}"
    package = [path for path in (ROOT / "src" / "compatlearn").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    others = [path for folder in ("recipes", "docs", "docs/stores", "benchmarks") for path in (ROOT / folder).glob("*.*")]
    for path in [*package, *others]:
        assert str(path.relative_to(ROOT)) in listed, f"the tree lacks {path.relative_to(ROOT)}"


def test_the_newest_version_of_the_changelog_is_this_one():
    versions = re.findall(r"^## \[(\d[^\]]*)\] - \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert versions[0] == compatlearn.__version__


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set()
    for page in PAGES:
        named |= {line.split()[1] for block in blocks(page) for line in commands(block.code) if line.startswith("make ")}
        named |= set(re.findall(r"`make ([a-z]+)`", page.read_text()))
    assert {"demo", "test"} <= named <= targets
