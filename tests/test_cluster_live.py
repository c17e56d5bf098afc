"""Translation on a Ray cluster writes what one process writes, row for row, also where workers die."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ray.data")

from compatlearn.adapters.adapter import Adapter
from compatlearn.cluster import workers
from compatlearn.errors import DataError
from compatlearn.indexes.open import open_index
from compatlearn.indexes.second import stamps_of
from compatlearn.migration import parallel
from compatlearn.migration.status import status
from compatlearn.migration.translate import opened, translate
from compatlearn.upgrade.carry import FILES
from samples import call, complaint
from stores import STORES

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
N, D_OLD, D_NEW = 300, 6, 9
NEW = np.random.default_rng(0).normal(size=(N, D_NEW)).astype(np.float32)
OLD = (NEW[:, :D_OLD] + 0.1 * np.random.default_rng(1).normal(size=(N, D_OLD))).astype(np.float32)
PARALLEL = ("pgvector", "lancedb", "features")  # FAISS files have the second vectors of feature folders
PASSWORD = "opensesame-4711"


def plan(folder: Path) -> Adapter:
    """A folder with the file that `translate` takes from a plan."""
    adapter = Adapter("ridge", "gallery", metric="cosine").fit(NEW[:50], OLD[:50])
    adapter.space_old, adapter.space_new = "old@1", "new@1"
    (folder / "plan").mkdir()
    adapter.save(folder / "plan" / FILES["gallery"])
    return adapter


def assert_same(one: Any, other: Any) -> None:
    """Second vectors and stamps are equal by id; blocks of other sizes may round the last bits of a product otherwise."""
    rows = [
        {item: stamp for block in second.blocks(100) for item, stamp in zip(block.ids, block.stamps, strict=True)}
        for second in (one, other)
    ]
    assert rows[0] == rows[1]
    assert "" not in rows[0].values()
    ids = np.array(sorted(rows[0]))
    np.testing.assert_allclose(one.read(ids).vectors, other.read(ids).vectors, rtol=1e-5, atol=1e-6)


class Dying(Adapter):
    """A map; the first process that uses it a second time dies, or every one that uses it does."""

    def transform(self, vectors: Any) -> Any:
        asked, dead = Path("asked"), Path("dead")
        if Path("always").exists() or (asked.exists() and not dead.exists()):
            dead.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        asked.touch()
        return super().transform(vectors)


@pytest.mark.parametrize("name", PARALLEL)
def test_every_row_is_in_one_part(name: str, tmp_path: Path) -> None:
    text = np.array([f"item {one}" for one in range(N)])
    for kind, ids in (("numbers", np.arange(N) ** 2), ("text", text)):
        (tmp_path / kind).mkdir()
        with STORES[name](tmp_path / kind, ids, OLD, "cosine") as store:
            second = store.open("cosine").add_second("v2", D_NEW)
            for count in (1, 7, 30):
                parts = second.parts(count)
                sizes = [sum(map(len, second.blocks(10, part=part))) for part in parts]
                seen = [block.ids for part in parts for block in second.blocks(10, part=part)]
                np.testing.assert_array_equal(np.sort(np.concatenate(seen)), np.sort(ids))
                assert len(parts) <= count
                if count == 7:
                    assert max(sizes) < 2 * N / 7
            store.upsert(np.array(["zzz"]) if kind == "text" else np.array([N**3]), OLD[:1])  # after the last bound
            more = [len(block) for part in second.parts(7) for block in second.blocks(10, part=part)]
            assert sum(more) == N + 1


@pytest.mark.parametrize("name", PARALLEL)
def test_a_worker_that_dies_changes_nothing(name: str, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the rows are there already; the others are written once, and as one process writes them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(parallel, "LEAST", 40)
    adapter = plan(tmp_path)
    with STORES[name](tmp_path, np.arange(N), OLD, "cosine") as store:
        before, index = store.rows(), open_index(store.address, metric="cosine")
        translate(index, adapter, "here")
        second, said = opened(index, adapter, "there")
        done = list(second.blocks(50))[::2]
        assert [second.write(some, adapter.transform(some.old), stamps_of(said, some.old)) for some in done] == [50] * 3
        adapter.__class__ = Dying
        found = parallel.translate(index, store.address, adapter, "there", batch=10)
        assert Path("dead").exists()
        assert (found.written + found.kept, found.left) == (N, 0)
        assert 150 <= found.kept <= 160  # and what the process had written that died
        assert_same(index.second("there"), index.second("here"))
        for made in ("here", "there"):
            index.second(made).drop()
        assert store.rows() == before


def test_wrong_turns(capsys: pytest.CaptureFixture[str], address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    adapter = plan(tmp_path)
    with STORES["chroma"](tmp_path, np.arange(N), OLD, "cosine") as store:
        flags = ["--plan", "plan", "--to", "other", "--engine", "ray", "--address", address]
        command = ["translate", "--index", store.address, *flags]
        assert "can be written by one process only; translate it without Ray" in complaint(capsys, 1, *command)
    with STORES["features"](tmp_path, np.arange(N), OLD, "cosine") as store:
        index = open_index(store.address, metric="cosine")
        Path("always").touch()
        monkeypatch.setattr(parallel, "ATTEMPTS", 1)
        adapter.__class__ = Dying
        with pytest.raises(DataError, match=r"one of the parts has ended its process 1 times \(Part\(first=None"):
            parallel.translate(index, store.address, adapter, "v2")
        assert status(index.second("v2")).missing == N


def test_the_command_writes_what_one_process_writes_and_a_password_is_in_no_log(
    capsys: pytest.CaptureFixture[str], address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(parallel, "LEAST", 40)
    adapter = plan(tmp_path)
    with STORES["pgvector"](tmp_path, np.arange(N), OLD, "cosine") as store:
        secret = store.address.replace("postgresql://postgres:@", f"postgresql://postgres:{PASSWORD}@")
        assert PASSWORD in secret
        command = ["translate", "--index", secret, "--plan", "plan", "--to", "there", "--engine", "ray", "--address", address]
        code, out, err = call(capsys, *command)
        assert code == 0, err
        assert out.startswith(f"{N} rows translated in ")
        assert "7 of 7 parts" in err
        assert PASSWORD not in out + err
        index = open_index(store.address)
        translate(index, adapter, "here")
        assert_same(index.second("there"), index.second("here"))
    session = Path(workers.ray._private.worker._global_node.get_session_dir_path())
    assert list(session.glob("logs/*"))
    found = subprocess.run(["grep", "-rl", "--devices=skip", PASSWORD, session], capture_output=True, text=True)
    assert found.stdout == ""
