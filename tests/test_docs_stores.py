"""The pages of docs/stores run against the real stores, from the table to rollback: only PostgreSQL's address is another."""

import contextlib
import gc
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from samples import quick_plans
from stores import postgres
from test_docs import ROOT, STORES, Block, blocks, call, empty_folder, run_page  # noqa: F401 (a fixture)

SHOP = "## A shop to try it with"  # of docs/live.md: the items and models of all pages
ROLES = ("owner", "writer", "reader")


def shop() -> Block:
    """The block that makes items, queries and models."""
    page = ROOT / "docs" / "live.md"
    line = page.read_text().splitlines().index(SHOP)
    return next(block for block in blocks(page) if block.line > line and block.language == "python")


@contextlib.contextmanager
def database() -> Iterator[tuple[Mapping[str, str], Callable[[str], None]]]:
    """A database `shop` with its roles: what the page calls it → what it is called here, and what runs SQL as its owner."""
    import psycopg

    uri = postgres()
    socket = psycopg.conninfo.conninfo_to_dict(uri)["host"]
    here = f"@/shop?host={socket}"

    def run_sql(code: str) -> None:
        with psycopg.connect(f"postgresql://owner{here}", autocommit=True) as connection:
            for statement in filter(str.strip, code.split(";\n")):
                connection.execute(statement)

    with psycopg.connect(uri, autocommit=True) as admin:
        for role in ROLES:
            admin.execute(f"CREATE ROLE {role} LOGIN")
        admin.execute("CREATE DATABASE shop OWNER owner")
        try:
            with psycopg.connect(uri.replace("/postgres?", "/shop?")) as superuser:
                superuser.execute("CREATE EXTENSION vector")
            yield {"@localhost/shop": here, " localhost/shop": f" {socket}/shop"}, run_sql
        finally:
            admin.execute("DROP DATABASE shop WITH (FORCE)")
            for role in ROLES:
                admin.execute(f"DROP ROLE {role}")


def ended(command: str) -> tuple[int, str]:
    """What a command says. It leaves nothing open, as a process that has ended: a Qdrant folder is for one client at a time."""
    said = call(command)
    if "qdrant" in command:
        gc.collect()
    return said


@pytest.fixture
def memory(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:  # noqa: F811
    """The folder to work in is in memory, where there is such a place: every write to a local Qdrant is a commit of its own."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else empty_folder) as folder:
        monkeypatch.chdir(folder)
        monkeypatch.syspath_prepend(folder)
        yield
        sys.modules.pop("shop", None)


@pytest.mark.usefixtures("memory")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # as in test_qdrant.py
@pytest.mark.parametrize("page", STORES, ids=lambda page: page.stem)
def test_the_page_runs(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick_plans(monkeypatch)
    monkeypatch.setattr("compatlearn.migration.pace.EVERY", 3600.0)  # no lines of progress on a slow machine
    monkeypatch.setattr("test_docs.call", ended)
    with database() if page.stem == "pgvector" else contextlib.nullcontext(({}, None)) as (names, run_sql):
        page_blocks = [shop(), *blocks(page)]
        for written, here in names.items():
            page_blocks = [block._replace(code=block.code.replace(written, here)) for block in page_blocks]
        run_page(page_blocks, shell=True, run_sql=run_sql)


def test_pages_are_short() -> None:
    assert {page.stem for page in STORES} == {"pgvector", "lancedb", "qdrant", "chroma", "faiss", "no-connector"}
    for page in STORES:
        assert len(page.read_text().splitlines()) <= 120, page
