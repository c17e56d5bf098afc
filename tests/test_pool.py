"""Tasks in processes: errors come back as themselves, the dead are named, nobody outlives the process that began it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from compatlearn import ConfigError, TrainingError
from compatlearn.comparison.pool import Pool
from samples import complaint, image_folder

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


class Stubborn(Exception):
    """Travels through no pipe."""

    def __reduce__(self) -> str:
        raise TypeError


def write(path: Path) -> None:
    path.write_text(str(os.getpid()))


def refuse() -> None:
    raise ConfigError("no such thing")


def fault() -> None:
    raise ZeroDivisionError("a fault of our own")


def stubborn() -> None:
    raise Stubborn("of somebody else")


def die(number: int) -> None:
    os.kill(os.getpid(), number)


def leave() -> None:
    os._exit(7)


def gone(processes: list[psutil.Process]) -> bool:
    """Whether all of them end within a few seconds."""
    return not psutil.wait_procs(processes, timeout=10)[1]


def test_errors_come_back_as_themselves_and_processes_are_kept(tmp_path: Path) -> None:
    with Pool(2) as pool:
        pool.each(write, {f"task {number}": (tmp_path / str(number),) for number in range(6)})
        known = {path.read_text() for path in tmp_path.iterdir()}
        assert len(list(tmp_path.iterdir())) == 6
        assert len(known) <= 2
        assert str(os.getpid()) not in known
        with pytest.raises(ConfigError, match=r"^no such thing$"):
            pool.each(refuse, {"one": ()})
        workers = [psutil.Process(worker.process.pid) for worker in pool.workers]
    assert gone(workers)
    with Pool(2) as pool:
        with pytest.raises(ZeroDivisionError) as caught:
            pool.each(fault, {"one": ()})
        assert "in fault" in caught.value.__notes__[0]  # where it happened
        with pytest.raises(RuntimeError, match="Stubborn: of somebody else"):
            pool.each(stubborn, {"one": ()})


def test_one_job_is_done_here(tmp_path: Path) -> None:
    with Pool(1) as pool:
        pool.each(write, {"one": (tmp_path / "pid",)})
    assert (tmp_path / "pid").read_text() == str(os.getpid())


def test_the_dead_are_named() -> None:
    again = "; run the same command again to resume"
    with Pool(2) as pool, pytest.raises(TrainingError) as caught:
        pool.each(die, {"seed-1/l2": (signal.SIGKILL,)})
    said = "the process of seed-1/l2 was killed by signal 9 (Killed), perhaps for lack of memory"
    assert str(caught.value) == said + again
    with Pool(2) as pool, pytest.raises(TrainingError) as caught:
        pool.each(die, {"seed-1/l2": (signal.SIGSEGV,)})
    assert str(caught.value) == f"the process of seed-1/l2 was killed by signal 11 (Segmentation fault){again}"
    with Pool(2) as pool, pytest.raises(TrainingError) as caught:
        pool.each(leave, {"seed-1/l2": ()})
    assert str(caught.value) == f"the process of seed-1/l2 ended with exit code 7{again}"


def started(command: list[str], out: Path) -> tuple["subprocess.Popen[str]", list[psutil.Process]]:
    """A comparison that has got further than it was, and its workers."""
    log = out / "seed-0" / "old" / "log.jsonl"
    before = len(log.read_text().splitlines()) if log.exists() else 0
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    while not log.exists() or len(log.read_text().splitlines()) <= before:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    children = psutil.Process(process.pid).children(recursive=True)
    return process, [child for child in children if "resource_tracker" not in " ".join(child.cmdline())]


def ended(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    """Exit code, stdout, and stderr without the lines of progress."""
    out, err = process.communicate(timeout=60)
    return process.returncode, out, "".join(line for line in err.splitlines(True) if ": epoch " not in line)


def deadly() -> None:
    """A backbone that takes its process down."""
    os.kill(os.getpid(), signal.SIGKILL)


SMALL = ["--jobs", "2", "--methods", "l2", "--resize", "8", "--image-size", "8", "--batch-size", "8"]


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("data") / "pets"
    for split, count in (("train", 40), ("val", 4)):
        image_folder(data / split, {"cat": count, "dog": count})
    return data


def test_a_comparison_says_which_model_died(capsys: pytest.CaptureFixture[str], pets: Path, tmp_path: Path) -> None:
    arguments = ("compare", "--data", pets, "--out", tmp_path / "out", *SMALL, "--old-backbone", "test_pool:deadly")
    said = "the process of seed-0/old was killed by signal 9 (Killed), perhaps for lack of memory; "
    assert complaint(capsys, 1, *arguments) == said + "run the same command again to resume"


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_a_comparison_and_its_workers_end_together(pets: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "compatlearn", "compare", "--data", str(pets), "--out", str(tmp_path / "out"), *SMALL]
    command += ["--seeds", "2", "--epochs", "100000", "--old-backbone", "small_resnet8", "--new-backbone", "small_resnet8"]
    process, workers = started(command, tmp_path / "out")
    assert len(workers) == 2
    process.terminate()
    assert ended(process) == (143, "", "compatlearn: terminated; run the same command again to resume\n")
    assert gone(workers)
    assert not list((tmp_path / "out").glob(".lock"))

    process, workers = started(command, tmp_path / "out")  # goes on where it was, and is not even asked
    process.kill()
    process.wait()
    assert gone(workers)
    process.communicate()
