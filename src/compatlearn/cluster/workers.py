"""Independent tasks on a Ray cluster: Ray Data hands them out, and hands them out again where a process or node dies."""

import logging
import os
import pickle
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..errors import CompatlearnError, ConfigError, DataError
from ..extras import require

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when Ray starts
ray = require("ray")
require("ray.data")
get, put = ray.get, ray.put  # memory that workers share


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """A connection to a cluster; a program that is connected already stays so, and its workers stay warm.

    Args:
        address: host:port or auto; None starts a cluster on this machine for as long as the connection lasts.

    Yields:
        Nothing.

    Raises:
        ConfigError: there is no cluster at the address, or this program is connected to another one.
    """
    if ray.is_initialized():
        here = ray.get_runtime_context().gcs_address
        if address not in (None, "auto", here):
            raise ConfigError(
                f"this program is connected to the Ray cluster at {here}, not to {address}; call ray.shutdown() first"
            )
        with redirect_stdout(sys.stderr):  # Ray reports dead workers there
            yield
        return
    local: dict[str, Any] = {} if address else {"include_dashboard": False}
    with redirect_stdout(sys.stderr):
        try:
            if address not in (None, "auto"):  # Ray itself would try for minutes
                host, _, port = address.rpartition(":")
                socket.create_connection((host, int(port)), timeout=10).close()
            stop = signal.getsignal(signal.SIGTERM)
            ray.init(address or "local", log_to_driver=False, logging_level=logging.CRITICAL, **local)
            signal.signal(signal.SIGTERM, stop)  # Ray's own handler would end the command with exit code 15
        except (OSError, ValueError) as error:
            place = address or "this machine"
            raise ConfigError(f"no Ray cluster at {place} ({error}); start one with `ray start --head`") from error
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        ray.data.DataContext.get_current().enable_progress_bars = False
        try:
            yield
        finally:
            ray.shutdown()


def capacity(*, gpu: bool = True) -> tuple[int, dict[str, int]]:
    """How many workers the cluster has room for, and what each of them needs.

    Args:
        gpu: whether workers use GPUs, if there are any.

    Returns:
        The number of workers, and the resources of each: one GPU or one core.
    """
    total = ray.cluster_resources()
    gpus, cores = int(total.get("GPU", 0)), int(total.get("CPU", 0))
    return (gpus, {"num_gpus": 1}) if gpu and gpus else (max(1, cores), {"num_cpus": 1})


def each(
    work: Callable[..., Any],
    tasks: Sequence[tuple[Any, ...]],
    what: str,
    *,
    gpu: bool = True,
    stay: bool = False,
    attempts: int | None = None,
) -> Iterator[Any]:
    """Call `work` on every task, and report progress on stderr.

    Args:
        work: called with the arguments of a task.
        tasks: the arguments of each.
        what: name of the tasks in the report, in the plural.
        gpu: whether workers use GPUs, if there are any.
        stay: whether processes stay from the first task to the last, so that each builds what `work` caches only once.
        attempts: how often a task may be begun whose process dies again and again; None: Ray Data goes on for ever.

    Yields:
        What `work` returns, in any order.

    Raises:
        CompatlearnError: raised by `work`.
        OSError: raised by `work`.
        MemoryError: raised by `work`.
        DataError: Ray has given up, or a task has ended its process too often.
    """
    if not tasks:
        return
    size, needs = capacity(gpu=gpu)
    options: dict[str, Any] = {"fn_kwargs": {"work": work, "folder": Path.cwd(), "modules": sys.path}, **needs}
    if stay:
        options["compute"] = ray.data.ActorPoolStrategy(size=min(size, len(tasks)), max_tasks_in_flight_per_actor=1)
    if attempts is not None:
        counter = ray.remote(num_cpus=0)(_Counter).remote()
        options["fn_kwargs"]["begun"] = partial(_begun, counter, attempts, what)
    rows = ray.data.from_items([{"task": pickle.dumps(task)} for task in tasks], override_num_blocks=len(tasks))
    try:
        for done, row in enumerate(rows.map(_Worker if stay else _run, **options).iter_rows(), 1):
            outcome = pickle.loads(row["outcome"])
            if isinstance(outcome, Exception):
                raise outcome
            if done * 10 // len(tasks) > (done - 1) * 10 // len(tasks):
                print(f"{done} of {len(tasks)} {what}", file=sys.stderr)
            yield outcome
    except ray.exceptions.RayTaskError:  # a fault of our own
        raise
    except ray.exceptions.RayError as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"Ray gave the job up ({reason}); look at its logs, then run the same command again") from error


def _run(
    row: dict[str, Any],
    work: Callable[..., Any],
    folder: Path,
    modules: list[str],
    begun: Callable[[bytes], None] | None = None,
) -> dict[str, Any]:
    """One task, in a worker. An error is returned like a result: Ray would wrap it in pages of its own."""
    try:
        os.chdir(folder)  # names mean what they mean to the command
        sys.path += [entry for entry in modules if entry not in sys.path]
        if begun is not None:
            begun(row["task"])
        outcome = work(*pickle.loads(row["task"]))
    except (CompatlearnError, OSError, MemoryError, torch.OutOfMemoryError) as error:
        outcome = error
    return {"outcome": pickle.dumps(outcome)}


class _Worker:
    """`_run` in the form that Ray Data needs for a process that stays."""

    def __call__(self, row: dict[str, Any], **known: Any) -> dict[str, Any]:
        return _run(row, **known)


class _Counter:
    """How often each task was begun, in a process that outlives those of the tasks."""

    def __init__(self) -> None:
        self.counts: Counter[bytes] = Counter()

    def begin(self, task: bytes) -> int:
        self.counts[task] += 1
        return self.counts[task]


def _begun(counter: Any, attempts: int, what: str, task: bytes) -> None:
    if get(counter.begin.remote(task)) > attempts:
        raise DataError(
            f"one of the {what} has ended its process {attempts} times ({pickle.loads(task)[0]}); give a worker more memory"
        )
