"""Independent tasks on a Ray cluster: Ray Data hands them out, and hands them out again where a process or node dies."""

import logging
import os
import pickle
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
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
    """A connection to a cluster.

    Args:
        address: host:port or auto; None starts a cluster on this machine for as long as the connection lasts.

    Yields:
        Nothing.

    Raises:
        ConfigError: there is no cluster at the address.
    """
    local: dict[str, Any] = {} if address else {"include_dashboard": False}
    with redirect_stdout(sys.stderr):  # Ray reports dead workers there
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
    work: Callable[..., Any], tasks: Sequence[tuple[Any, ...]], what: str, *, gpu: bool = True, stay: bool = False
) -> Iterator[Any]:
    """Call `work` on every task, and report progress on stderr.

    Args:
        work: called with the arguments of a task.
        tasks: the arguments of each.
        what: name of the tasks in the report, in the plural.
        gpu: whether workers use GPUs, if there are any.
        stay: whether processes stay from the first task to the last, so that each builds what `work` caches only once.

    Yields:
        What `work` returns, in any order.

    Raises:
        CompatlearnError: raised by `work`.
        OSError: raised by `work`.
        MemoryError: raised by `work`.
        DataError: Ray has given up.
    """
    if not tasks:
        return
    size, needs = capacity(gpu=gpu)
    options: dict[str, Any] = {"fn_kwargs": {"work": work, "folder": Path.cwd(), "modules": sys.path}, **needs}
    if stay:
        options["compute"] = ray.data.ActorPoolStrategy(size=min(size, len(tasks)), max_tasks_in_flight_per_actor=1)
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


def _run(row: dict[str, Any], work: Callable[..., Any], folder: Path, modules: list[str]) -> dict[str, Any]:
    """One task, in a worker. An error is returned like a result: Ray would wrap it in pages of its own."""
    try:
        os.chdir(folder)  # names mean what they mean to the command
        sys.path += [entry for entry in modules if entry not in sys.path]
        outcome = work(*pickle.loads(row["task"]))
    except (CompatlearnError, OSError, MemoryError, torch.OutOfMemoryError) as error:
        outcome = error
    return {"outcome": pickle.dumps(outcome)}


class _Worker:
    """`_run` in the form that Ray Data needs for a process that stays."""

    def __call__(self, row: dict[str, Any], **known: Any) -> dict[str, Any]:
        return _run(row, **known)
