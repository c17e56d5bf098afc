"""One process writes a folder at a time: a second one is refused, with a line that names the first."""

import errno
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from .errors import DataError
from .files import remove_all_leftovers, writing

LOCK = ".lock"
PATIENCE = 2.0  # seconds in which the last workers of a process that was killed come to their end
POLL = 0.05
HELD = {errno.EAGAIN, errno.EACCES, errno.EDEADLK}
UNWRITABLE = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST}
WITHOUT_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK}


@contextmanager
def locked(folder: Path, patience: float = PATIENCE) -> Iterator[None]:
    """Keep every other process, and every other call of this one, from writing `folder`.

    The operating system holds the lock, on the file `.lock` in the folder, and lets it go when the process ends, however
    that happens: a crash leaves the file behind, not the lock. The file says who holds it, for the message alone. What killed
    processes left half written in the folder is removed.

    Where nothing can be written, nothing is locked: the first write says why. On a network file system the lock is as good
    as the mount: NFS (Linux) and SMB pass it on to the server, `nolock` or `local_lock` mounts keep it within one machine,
    and a file system that has no locks at all gets one line on stderr instead.

    Args:
        folder: made if it is not there, and removed again if nothing was put into it.
        patience: seconds to wait for another process.

    Raises:
        DataError: another process holds the lock (the message names it), or the disk is full.
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    descriptor = None
    try:
        descriptor = _acquire(folder / LOCK, patience)
        if descriptor is not None:
            remove_all_leftovers(folder)
        yield
    finally:
        if descriptor is not None:
            _release(folder / LOCK, descriptor)
        for place in made:
            with suppress(OSError):  # it is not empty
                place.rmdir()


def _acquire(path: Path, patience: float) -> int | None:
    """An open file with the lock on it; None where there can be none."""
    deadline = time.monotonic() + patience
    while (descriptor := _open(path)) is not None:
        try:
            _take(descriptor)
        except OSError as error:
            if error.errno in WITHOUT_LOCKS:
                print(f"{path.parent} has no locks; start one process there at a time", file=sys.stderr)
                return descriptor
            os.close(descriptor)
            if error.errno not in HELD:
                raise
            if time.monotonic() > deadline:
                raise _refusal(path) from None
            time.sleep(POLL)
        else:
            if _is_still(path, descriptor):
                _sign(path, descriptor)
                return descriptor
            os.close(descriptor)  # of a file that its holder has just removed
    return None


def _open(path: Path) -> int | None:
    """The file, open; None where nobody can write one."""
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except DataError as error:
        if getattr(error.__cause__, "errno", None) in UNWRITABLE and not path.exists():
            return None
        raise


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether the file that was locked is the one that others will find there."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _sign(path: Path, descriptor: int) -> None:
    since = datetime.now().astimezone().isoformat(timespec="seconds")
    with writing(path):
        os.truncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()} since {since}\n".encode())


def _refusal(path: Path) -> DataError:
    try:
        holder = path.read_text(encoding="utf-8").strip()
    except OSError:
        holder = ""
    return DataError(
        f"{path.parent} is being written by {holder or 'another process'}; wait until that is done, or use another folder"
    )


def _release(path: Path, descriptor: int) -> None:
    with suppress(OSError):  # Windows removes no open file
        path.unlink()
    os.close(descriptor)
    if os.name == "nt":
        with suppress(OSError):
            path.unlink()


if sys.platform == "win32":
    import msvcrt

    FAR = 1 << 30  # the byte that is locked, for locked bytes cannot be read

    def _take(descriptor: int) -> None:
        os.lseek(descriptor, FAR, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)
else:
    import fcntl

    def _take(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
