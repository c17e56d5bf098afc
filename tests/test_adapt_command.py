"""`compatlearn adapt`: what it prints where, what it refuses before any work, and what is left on disk."""

import json
import multiprocessing
import os
import random
import resource
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from compatlearn import load_adapter
from compatlearn.adapters.methods import ADAPTERS
from compatlearn.cli.app import run
from samples import call, complaint

FIGURE = {"value", "low", "high"}


def arrays(rows: int = 200, *, good: bool = True, seed: int = 0) -> tuple[np.ndarray, ...]:
    """A good new model, or a useless one, and a noisy old one, in spaces that share nothing."""
    random = np.random.default_rng(seed)
    labels = np.arange(rows) % 4
    new = random.normal(size=(4, 6))[labels] * 4 * good + 0.4 * random.normal(size=(rows, 6))
    old = 2 * random.normal(size=(4, 5))[labels] + (1.8 if good else 0.1) * random.normal(size=(rows, 5))
    return new.astype(np.float32), old.astype(np.float32), labels


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """old.npz and new.npz, in other orders, with ids."""
    return write(tmp_path, *arrays())


def write(folder: Path, new: np.ndarray, old: np.ndarray, labels: np.ndarray | None) -> Path:
    ids = np.array([f"item{row}" for row in range(len(new))])
    order = np.random.default_rng(1).permutation(len(new))
    known = {} if labels is None else {"labels": labels}
    np.savez(folder / "old.npz", vectors=old, ids=ids, **known)
    np.savez(folder / "new.npz", vectors=new[order], ids=ids[order], **({} if labels is None else {"labels": labels[order]}))
    return folder


def command(folder: Path, *more: object, out: str = "a.safetensors") -> tuple[object, ...]:
    sets = ("--old-features", folder / "old.npz", "--new-features", folder / "new.npz")
    return ("adapt", *sets, "--out", folder / out, *more)


def test_results_on_stdout_progress_on_stderr(capsys: pytest.CaptureFixture[str], files: Path) -> None:
    code, out, err = call(capsys, *command(files, "--method", "ridge", "--require-gain"))
    assert code == 0
    lines = err.splitlines()
    assert lines[0].startswith("data: 200 pairs, 6 to 5 dimensions")
    assert lines[1].startswith("ridge: 0.")
    assert lines[2] == "fitting ridge to all 200 pairs"
    assert lines[3].startswith("mapped queries beat the old ones here; measure it on other queries with `compatlearn evaluate")
    assert len(lines) == 4
    start = f"{files / 'a.safetensors'}: ridge, 6 to 5 dimensions, of all 200 pairs; its test, fitted on 180 pairs; on 20 kept"
    assert out.startswith(start)
    assert out.count("\n") == 1
    assert "among 200 old vectors: top-1 " in out
    code, out, err = call(capsys, *command(files, "--method", "head", "--metric", "cosine", "--json"))
    found = json.loads(out)
    assert code == 0
    assert (found["method"], found["metric"], found["rows"], found["seed"]) == ("head", "cosine", 200, 0)
    assert set(found["gain"]) == FIGURE
    assert found["worth_it"] is True
    assert found["figures"]["measure"] == "top1"
    assert set(found["figures"]["mapped"]) == set(found["figures"]["old"]) == FIGURE
    assert load_adapter(found["out"]).record_.inputs == found["inputs"]


def test_what_adapt_writes_evaluate_reads(capsys: pytest.CaptureFixture[str], files: Path) -> None:
    spaces = ("--old-space", "o@1", "--new-space", "n@1")
    assert call(capsys, *command(files, "--method", "ridge", *spaces))[0] == 0
    adapter = load_adapter(files / "a.safetensors")
    assert (adapter.space_old, adapter.space_new) == ("o@1", "n@1")
    flags = ("--old-query", "old"), ("--old-gallery", "old"), ("--new-query", "new")
    sets = [word for flag, name in flags for word in (flag, files / f"{name}.npz")]
    for extra in ((), ("--slerp", 0.5)):
        asked = ("evaluate", *sets, "--adapter", files / "a.safetensors", *extra, "--require-compatible")
        assert call(capsys, *asked)[0] == 0
    assert complaint(capsys, 1, "evaluate", *sets, "--slerp", 0.5).startswith("--slerp 0.5 mixes")
    swapped = [word.replace("old", "x").replace("new", "old").replace("x", "new") for word in map(str, sets)]
    for place in (0, 2, 4):
        swapped[place] = sets[place]
    message = complaint(capsys, 1, "evaluate", *swapped, "--adapter", files / "a.safetensors")
    assert "is for new features of 6 dimensions; these have 5" in message


def test_auto_tells_every_trial_and_reports_the_winner_on_other_rows(capsys: pytest.CaptureFixture[str], files: Path) -> None:
    write(files, *arrays(60)[:2], None)
    code, out, err = call(capsys, *command(files, "--json"))
    assert code == 0
    found = json.loads(out)
    assert list(found["trials"]) == ["procrustes", "ridge", "ranking-head"]  # the gallery holds no more than the pairs
    told = [line for line in err.splitlines() if "trained to" not in line]
    assert [line.partition(":")[0] for line in told[:4]] == ["data", *found["trials"]]
    assert found["figures"]["measure"] == "agreement"
    assert found["method"] == max(found["trials"], key=lambda name: found["trials"][name]["mapped"]["value"])
    assert found["figures"]["method"] == found["method"]


def test_require_gain_is_a_gate(capsys: pytest.CaptureFixture[str], files: Path) -> None:
    assert call(capsys, *command(files, "--method", "procrustes", out="good.safetensors"))[0] == 0
    good = (files / "good.safetensors").read_bytes()
    write(files, *arrays(good=False))
    code, out, err = call(capsys, *command(files, "--method", "ridge", "--require-gain", "--json", out="good.safetensors"))
    assert (code, json.loads(out)["worth_it"], json.loads(out)["out"]) == (3, False, None)
    assert json.loads(out)["gain"]["high"] < 0
    assert "no map beats the old queries here" in err
    assert (files / "good.safetensors").read_bytes() == good
    code, out, _ = call(capsys, *command(files, "--method", "ridge"))
    assert (code, out.startswith(f"{files / 'a.safetensors'}: ridge")) == (0, True)  # without the gate it is written
    write(files, *arrays(10))
    code, out, err = call(capsys, *command(files, "--method", "ridge", "--require-gain", "--json", out="b.safetensors"))
    assert (code, json.loads(out)["worth_it"], (files / "b.safetensors").exists()) == (3, None, False)
    assert "undecided on 2 pairs" in err


def test_dot_ranks_by_inner_product(capsys: pytest.CaptureFixture[str], files: Path) -> None:
    new, old, labels = arrays()
    write(files, new, old * np.linspace(0.1, 10, len(old), dtype=np.float32)[:, None], labels)
    figures = {}
    for metric in ("euclidean", "cosine", "dot"):
        code, out, _ = call(capsys, *command(files, "--method", "ridge", "--metric", metric, "--json"))
        assert code == 0
        figures[metric] = json.loads(out)["figures"]["old"]["value"]
    assert len(set(figures.values())) == 3


def test_help_lists_what_the_table_has(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = call(capsys, "adapt", "--help")
    words = out.replace("│", " ").split()
    assert all(name in words or f"{name}," in words or f"{name}." in words or f"{name};" in words for name in ADAPTERS)
    assert "low-rank" not in out


def test_a_usage_error_loads_no_torch() -> None:
    code = "import sys; from compatlearn.cli.app import run; run(['adapt', '--metod', 'x']); sys.exit('torch' in sys.modules)"
    assert os.spawnl(os.P_WAIT, sys.executable, sys.executable, "-c", code) == 0


def unchanged(folder: Path, before: dict[str, bytes]) -> None:
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("method", ["auto", "ridge", "procrustes"])
def test_bad_input_is_refused_before_any_fit(capsys: pytest.CaptureFixture[str], tmp_path: Path, method: str) -> None:
    new, old, labels = arrays(40)
    paths = {name: tmp_path / f"{name}.npz" for name in ("new", "old")}

    def refused(new: np.ndarray, old: np.ndarray, labels: np.ndarray | None, *more: object) -> str:
        write(tmp_path, new, old, labels)
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        message = complaint(capsys, 1, *command(tmp_path, "--method", method, *more))
        unchanged(tmp_path, before)
        return message

    assert refused(new[:1], old[:1], labels[:1]).startswith("1 pair cannot tell one map from another; give 10 at least")
    assert refused(new[:9], old[:9], labels[:9]).startswith("9 pairs cannot")
    assert refused(np.zeros_like(new), old, labels).startswith(
        f"40 of 40 vectors of {paths['new']} have length zero (first: row 0"
    )
    assert refused(new, np.ones_like(old), labels) == f"all 40 vectors of {paths['old']} are the same; extract them again"
    broken = old.copy()
    broken[3, 1] = np.nan
    message = refused(new, broken, labels)
    assert message.startswith(
        f"1 of 40 vectors of {paths['old']} have NaN or infinity (first: row 3 of {paths['old']}, id 'item3')"
    )
    broken = old.copy()
    broken[5] = 0
    message = refused(new, broken, labels, "--metric", "cosine")
    assert message.startswith(
        f"1 of 40 vectors of {paths['old']} have length zero (first: row 5 of {paths['old']}, id 'item5')"
    )
    if method != "auto":
        message = refused(new, old, labels, "--unseen-classes")
        assert message == f"unseen classes decide what auto chooses, and {method} is named; use auto, or leave them out"
    write(tmp_path, new, old, labels)
    np.savez(paths["new"], vectors=new, ids=[f"item{row // 2}" for row in range(40)])
    message = complaint(capsys, 1, *command(tmp_path, "--method", method))
    assert message.startswith(f"20 ids of {paths['new']} occur more than once (first: item0, item1, item10, …)")
    np.savez(paths["new"], vectors=new, ids=[f"item{row}" for row in range(40)], labels=(labels + 1) % 4)
    message = complaint(capsys, 1, *command(tmp_path, "--method", method))
    assert message.startswith(f"40 of 40 rows of {paths['new']} have another class in {paths['old']} under the same id")
    np.savez(paths["new"], vectors=new, ids=[f"other{row}" for row in range(40)])
    assert "40 of 40 ids of" in complaint(capsys, 1, *command(tmp_path, "--method", method))
    assert not (tmp_path / "a.safetensors").exists()


def test_the_input_is_never_the_output(capsys: pytest.CaptureFixture[str], files: Path) -> None:
    before = {path.name: path.read_bytes() for path in files.iterdir()}
    for out, words in (
        ("old.npz", "is the same as --old-features"),
        ("new.npz", "same as --new-features"),
        ("a.onnx", "written as"),
    ):
        assert words in complaint(capsys, 1, *command(files, "--method", "ridge", out=out))
    unchanged(files, before)
    foreign = files / "labels.safetensors"
    foreign.write_bytes(b"mine")
    assert "no safetensors file" in complaint(capsys, 1, *command(files, out="labels.safetensors"))
    assert foreign.read_bytes() == b"mine"


def test_a_full_disk_keeps_the_old_adapter(capsys: pytest.CaptureFixture[str], files: Path) -> None:
    assert call(capsys, *command(files, "--method", "ridge"))[0] == 0
    before = {path.name: path.read_bytes() for path in files.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, limits[1]))
    try:
        message = complaint(capsys, 1, *command(files, "--method", "procrustes"), progress=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert message.startswith(f"cannot write {files / 'a.safetensors'}")
    unchanged(files, before)


def test_an_interrupt_says_that_nothing_is_kept(
    capsys: pytest.CaptureFixture[str], files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("compatlearn.adapters.adapter.choose", interrupt)
    code, out, err = call(capsys, *command(files))
    assert (code, out) == (130, "")
    assert err.splitlines()[-1] == "compatlearn: interrupted; a fit keeps nothing, the same command starts afresh"


def adapt_slowly(folder: Path) -> None:
    """One call of the command line on a slow disk, so that the write, too, lasts long enough to be killed in."""
    flush = os.fsync
    os.fsync = lambda descriptor: (time.sleep(0.02), flush(descriptor), time.sleep(0.02))[1]
    sys.exit(run([str(word) for word in command(folder, "--method", "procrustes", "--seed", "4")]))


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_killed_at_thirty_moments(files: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            "pytest",
            "compatlearn.adapters.adapter",
            "compatlearn.adapters.closed",
            "compatlearn.cli.adapt",
            "compatlearn.cli.columns",
            "test_adapt_command",
        ]
    )

    def start() -> multiprocessing.process.BaseProcess:
        process = context.Process(target=adapt_slowly, args=(files,))
        process.start()
        return process

    out = files / "a.safetensors"
    assert run([str(word) for word in command(files, "--method", "ridge")]) == 0
    previous = out.read_bytes()
    for _ in range(2):  # the first also starts the server
        started = time.monotonic()
        process = start()
        process.join()
        assert process.exitcode == 0
    duration = time.monotonic() - started
    expected = load_file(out)
    moments, kills = random.Random(0), 0
    while kills < 30:
        out.write_bytes(previous)
        process = start()
        process.join(moments.uniform(0.0, duration))
        process.kill()
        process.join()
        kills += process.exitcode != 0
        now = out.read_bytes()
        if now != previous:  # it came to its end
            assert {name: tensor.tobytes() for name, tensor in load_file(out).items()} == {
                name: tensor.tobytes() for name, tensor in expected.items()
            }
    process = start()
    process.join()
    assert process.exitcode == 0
    again = load_file(out)
    assert {name: tensor.tobytes() for name, tensor in again.items()} == {name: t.tobytes() for name, t in expected.items()}
    left = {path.name for path in files.iterdir() if not path.name.startswith(".")}
    assert left == {"old.npz", "new.npz", "a.safetensors"}
