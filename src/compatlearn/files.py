"""Write a file whole or not at all; read and write JSON, and safetensors with a header."""

import dataclasses
import errno
import json
import math
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open

from .errors import DataError, FormatError

if TYPE_CHECKING:
    from torch import Tensor

PICKLES = (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # torch.save's, or bare
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to the disk, then rename it to `path`.

    Whoever looks sees the old file or the new one, never a part. The file gets the mode that the umask allows, whatever
    `write` gave it. The temporary name keeps the suffix, for writers that would add one. A process that is killed leaves
    its temporary file behind: see `remove_leftovers`.

    Raises:
        DataError: the disk is full, or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.touch()
            mode = stat.S_IMODE(temporary.stat().st_mode)  # asking for the umask would change it for other threads
            write(temporary)
            if stat.S_IMODE(temporary.stat().st_mode) != mode:  # safetensors gives 0600
                temporary.chmod(mode)
            with temporary.open("r+b") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
            flush_folder(path.parent)
    except BaseException:
        with suppress(OSError):  # the failure itself is what the user must see
            temporary.unlink(missing_ok=True)
        raise


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Whatever Python, NumPy, torch or safetensors raise when `path` cannot be written becomes one DataError."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise _cannot_write(path, error) from error
    except RuntimeError as error:
        if "inline_container" not in str(error):  # how torch.save reports a failed write
            raise
        raise _cannot_write(path, error) from error


def remove(path: Path) -> None:
    """Remove a file that may not be there.

    Raises:
        DataError: it is there and stays there.
    """
    try:
        path.unlink(missing_ok=True)
    except NotADirectoryError:  # its folder is a file
        return
    except OSError as error:
        if not path.exists():  # a read-only disk says that it is one, even so
            return
        raise DataError(f"cannot remove {path}: {error.strerror or error}; check its permissions") from error


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files of `path` that killed processes left; only while nobody else is writing it."""
    for temporary in path.parent.glob(f".{path.stem}.*.tmp{path.suffix}"):
        remove(temporary)


def remove_all_leftovers(folder: Path) -> None:
    """Remove the temporary files that killed processes left in `folder`; only while nobody else is writing there."""
    for temporary in folder.glob(".*.tmp*"):
        if re.fullmatch(r"\..+\.\d+\.tmp(\.[^.]+)?", temporary.name):
            remove(temporary)


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, atomically."""

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")

    write_atomically(path, write)


def write_json(path: Path, content: object) -> None:
    """Write dicts, lists, dataclasses, paths and NumPy values as JSON, atomically; NaN and infinity become null."""
    write_text(path, json.dumps(_plain(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        DataError: no such file, or it cannot be read.
        FormatError: not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}; check the path") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is not JSON: it is not UTF-8 text; write it again") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise FormatError(f"{path} is not JSON: {error.msg} at {where}; mend it or write it again") from error


def write_tensors(path: Path, tensors: Mapping[str, "Tensor"], header: Mapping[str, object]) -> None:
    """Write tensors, of any device, as safetensors with a header; atomic.

    Args:
        path: the file.
        tensors: name → tensor of any shape and dtype.
        header: text is stored as it is, anything else as JSON; `format` says whose file it is.

    Raises:
        DataError: the disk is full, or the folder cannot be written.
    """
    from safetensors.torch import save_file

    texts = header_texts(header)
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, lambda temporary: save_file(contiguous, temporary, texts))


def header_texts(header: Mapping[str, object]) -> dict[str, str]:
    """The entries of a safetensors header as they are stored.

    Args:
        header: name → content.

    Returns:
        The same with text as it is, and anything else as JSON.
    """
    return {key: value if isinstance(value, str) else json.dumps(_plain(value)) for key, value in header.items()}


def read_tensors(path: Path, *, format: str | None, what: str, remedy: str) -> tuple[dict[str, str], dict[str, "Tensor"]]:
    """Header and tensors, on the CPU, of a safetensors file.

    Args:
        path: the file.
        format: the header's `format` must be this; None takes anyone's file.
        what: the thing in the file as messages call it, such as "adapter".
        remedy: how messages end, such as "make one with `compatlearn adapt`".

    Returns:
        The header as it is stored (`json.loads` gives back what was no text), and name → tensor.

    Raises:
        DataError: there is no such file.
        FormatError: it is not whole, not safetensors (a pickle is not opened), or of another format.
    """
    if not path.is_file():
        raise DataError(f"there is no {what} {path}; {remedy}")
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        if _begins(path, PICKLES):
            reason = "a pickle is not opened"
        size = path.stat().st_size
        raise FormatError(f"{path} is not a whole safetensors file ({size} bytes: {reason}); {remedy}") from error
    if format is not None and header.get("format") != format:
        found = header.get("format") or "its header has no format"
        raise FormatError(f"{path} is no {what} ({found}); {remedy}")
    return header, tensors


def _begins(path: Path, starts: tuple[bytes, ...]) -> bool:
    with path.open("rb") as file:
        return file.read(2) in starts


def flush_folder(folder: Path) -> None:
    """Make a rename in `folder` outlive a power cut.

    Args:
        folder: in which something was renamed.
    """
    if os.name == "nt":  # a folder cannot be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems have no fsync for folders
            raise
    finally:
        os.close(descriptor)


def _cannot_write(path: Path, error: Exception) -> DataError:
    number = getattr(error, "errno", None)
    reason = os.strerror(number) if number else str(error)
    partial = number is None or number in FULL  # NumPy, torch and safetensors give no number for a short write
    remedy = "free some space or write elsewhere" if partial else "check the path and its permissions"
    return DataError(f"cannot write {path}: {reason}; {remedy}")


def _plain(value: object) -> object:
    """The same content in JSON's own types."""
    match value:
        case Mapping():
            return {str(_plain(key)): _plain(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_plain(item) for item in value]
        case np.ndarray() | np.generic():
            return _plain(value.tolist())
        case float():
            return value if math.isfinite(value) else None
        case Path():
            return str(value)
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return value
