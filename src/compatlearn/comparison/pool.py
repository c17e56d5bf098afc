"""Tasks in processes of their own, a few at a time: one that dies is named, and none outlives the process that began it."""

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing import connection, resource_tracker
from typing import Any, NamedTuple

from .. import progress
from ..errors import CompatlearnError, TrainingError

Work = Callable[..., None]
KILLED = getattr(signal, "SIGKILL", None)


class Worker(NamedTuple):
    """A process, and the pipe on which it is given tasks and answers each with an exception or None."""

    process: Any
    pipe: Any


class Pool:
    """Does named tasks: here if `jobs` is 1, otherwise in `jobs` processes that share the cores and are kept between tasks.

    Leaving the pool, for whatever reason, ends the processes. If this process is killed they notice, and end too.
    """

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self.workers: list[Worker] = []
        self.idle: list[Worker] = []

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *error: object) -> None:
        started = [worker.process for worker in self.workers if worker.process.pid]
        for process in started:
            process.kill()  # every file is written whole or not at all, so there is nothing to tidy up
        for process in started:
            process.join()

    def each(self, work: Work, tasks: Mapping[str, tuple[Any, ...]]) -> None:
        """Call `work` with the arguments of every task, in any order.

        Args:
            work: a function that a new process can import.
            tasks: name for people → arguments.

        Raises:
            TrainingError: a process died; the message says at which task, and how.
            Exception: what `work` raised, the first of it.
        """
        if self.jobs == 1:
            for arguments in tasks.values():
                work(*arguments)
            return
        waiting, busy = deque(tasks.items()), dict[Worker, str]()
        while waiting or busy:
            while waiting and len(busy) < self.jobs:
                name, arguments = waiting.popleft()
                worker = self.idle.pop() if self.idle else self._start()
                busy[worker] = name
                with suppress(OSError):  # it died while it was idle; its sentinel says so
                    worker.pipe.send((work, arguments))
            handles = {handle: worker for worker in busy for handle in (worker.pipe, worker.process.sentinel)}
            for worker in {handles[handle] for handle in connection.wait(list(handles))}:
                outcome = _outcome(worker, busy.pop(worker))
                if outcome is not None:
                    raise outcome
                self.idle.append(worker)

    def _start(self) -> Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        threads = max(1, (os.cpu_count() or 1) // self.jobs)
        worker = Worker(context.Process(target=_serve, args=(theirs, threads, progress.said)), ours)
        self.workers.append(worker)  # before it starts, or an interrupt might let it escape
        with _interrupts_held_back():
            worker.process.start()
        theirs.close()
        return worker


def _outcome(worker: Worker, name: str) -> Exception | None:
    """What the worker answered, or an error that says how it died."""
    try:
        if worker.pipe.poll():
            return worker.pipe.recv()
    except (EOFError, OSError):
        pass
    worker.process.join()
    code = worker.process.exitcode
    end = f"ended with exit code {code}" if code >= 0 else f"was killed by signal {-code} ({signal.strsignal(-code)})"
    hint = ", perhaps for lack of memory" if -code == KILLED else ""
    return TrainingError(f"the process of {name} {end}{hint}; run the same command again to resume")


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Processes that start in here never see Ctrl-C, which a terminal sends to all: their parent ends them, in silence."""
    if sys.platform == "win32":
        yield
        return
    resource_tracker.ensure_running()  # its start would let interrupts through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(pipe: Any, threads: int, said: set[str]) -> None:
    """The life of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import torch

    torch.set_num_threads(threads)
    progress.said |= said
    with suppress(EOFError):  # the parent is gone
        while True:
            work, arguments = pipe.recv()
            try:
                work(*arguments)
            except Exception as error:
                _send_error(pipe, error)
            else:
                pipe.send(None)


def _send_error(pipe: Any, error: Exception) -> None:
    trace = "".join(traceback.format_exception(error))
    if not isinstance(error, CompatlearnError):
        error.add_note(f"in a worker process:\n{trace}")  # a traceback itself does not travel
    try:
        pipe.send(error)
    except Exception:  # nor do some errors of other packages
        pipe.send(RuntimeError(trace))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
