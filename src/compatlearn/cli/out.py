"""What `--out` and reports may be: checked before any work, so that no command destroys its input or anybody's files."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from ..errors import ConfigError, first_few

KINDS = {  # `format` in the header of a file → what people call it
    "compatlearn-adapter": "an adapter",
    "compatlearn-pseudo": "a pseudo classifier",
    "compatlearn-model": "a model of `compatlearn train`",
}
MARKS = {  # kind of folder → the files of which one is there as soon as the folder is ours
    "features": ("manifest.json", "plan.json"),
    "run": ("run.json",),
    "comparison": ("recipe.json",),
    "plan": ("plan.json", "request.json", "fits"),
    "export": ("compatlearn.json",),
}
HEADER = 100_000_000  # bytes, at most, of a safetensors header: the format's own limit
REPORTS = {  # flag → what is near the beginning of every report that it names
    "--junit": b'<testsuite name="compatlearn evaluate"',
    "--markdown": b"<!-- compatlearn evaluate -->",
}
BEGINNING = 1000  # bytes of a report that show what it is

Inputs = Mapping[str, Path | str | None]


def check_out_file(out: Path, inputs: Inputs, format: str) -> None:
    """Refuse a file that a command must not write; called before the work.

    Args:
        out: the `.safetensors` file to be written. One that is there may be replaced if its header says `format`.
        inputs: what the command reads, by its flag, such as {"--old-features": path}. Files, folders, `DATA:split`, names
            of something that is no file (a hub name, `module:function`) and None are all understood.
        format: the `format` in the header of what is written, such as "compatlearn-adapter".

    Raises:
        ConfigError: `out` is, contains or lies in an input; is a folder, or below a file; has another suffix than
            .safetensors; is a file of another kind; or cannot be written.
    """
    _check_inputs(out, inputs)
    if out.is_dir():
        raise ConfigError(f"--out {out} is a folder; name a file in it, such as {out / 'out.safetensors'}")
    if out.suffix.lower() != ".safetensors":
        raise ConfigError(f"--out {out} is written as safetensors; call it {out.parent / out.stem}.safetensors")
    _check_parents(out)
    if (found := _kind(out)) not in (None, format):
        raise ConfigError(
            f"--out {out} is there already and is {KINDS.get(str(found), found)}, not {KINDS.get(format, format)}; "
            "name another file, or delete that one"
        )


def check_out_folder(out: Path, inputs: Inputs, kind: str) -> None:
    """Refuse a folder that a command must not write into; called before the work.

    Args:
        out: the folder to be written. One that is there must be empty (names that begin with a dot do not count) or of
            the same kind.
        inputs: as for `check_out_file`.
        kind: "features", "run", "comparison", "plan" or "export".

    Raises:
        ConfigError: `out` is, contains or lies in an input; is a file, or below one; holds files that are not of this
            kind; or cannot be written.
    """
    _check_inputs(out, inputs)
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file, and a folder is written; name a folder")
    present = sorted(path.name for path in out.iterdir() if not path.name.startswith(".")) if out.is_dir() else []
    if any(mark in present for mark in MARKS[kind]):
        return  # ours already; if it is finished nothing is written, so it may be read-only
    if present:
        raise ConfigError(
            f"--out {out} holds files that are not of such a folder (first: {first_few(present)}); "
            "name a new folder or an empty one"
        )
    _check_parents(out)


def check_report(flag: str, out: Path, inputs: Inputs) -> None:
    """Refuse a report that a command must not write; called before the work.

    Args:
        flag: the flag that names it, "--junit" or "--markdown".
        out: the file to be written. One that is there may be replaced if it is empty or such a report.
        inputs: as for `check_out_file`; another report that is written counts too.

    Raises:
        ConfigError: `out` is, contains or lies in an input; is a folder, no file, or below a file; holds anything else than
            such a report; or cannot be written.
    """
    _check_inputs(out, inputs, flag)
    if out.is_dir():
        raise ConfigError(f"{flag} {out} is a folder; name a file in it")
    _check_parents(out, flag)
    if not out.exists():
        return
    if not out.is_file():
        raise ConfigError(f"{flag} {out} is no file that can be replaced; name a file")
    with out.open("rb") as file:
        begin = file.read(BEGINNING)
    if begin and REPORTS[flag] not in begin:
        raise ConfigError(
            f"{flag} {out} is there already and is no report of this kind ({out.stat().st_size} bytes); "
            "name another file, or delete that one"
        )


def _check_inputs(out: Path, inputs: Inputs, called: str = "--out") -> None:
    for flag, given in inputs.items():
        place = _place(given)
        if place is None:
            continue
        if _same(out, place):
            raise ConfigError(f"{called} {out} is the same as {flag} {given}, which would be destroyed; name another place")
        if any(_same(folder, place) for folder in out.resolve().parents):
            raise ConfigError(f"{called} {out} lies in {flag} {given}, which is read; name a place outside it")
        if any(_same(out, folder) for folder in place.resolve().parents):
            raise ConfigError(f"{called} {out} contains {flag} {given}, which is read; name a place of its own")


def _place(given: Path | str | None) -> Path | None:
    """The file or folder that an input names; None if it names neither."""
    if given is None or not str(given):
        return None
    whole, name = Path(given).expanduser(), Path(str(given).rpartition(":")[0]).expanduser()
    return whole if whole.exists() else name if name.name and name.exists() else None


def _same(one: Path, other: Path) -> bool:
    """One file or folder, by whatever names."""
    try:
        return one.samefile(other)
    except OSError:  # one is not there yet
        return one.resolve() == other.resolve()


def _check_parents(out: Path, called: str = "--out") -> None:
    nearest = next(folder for folder in out.absolute().parents if folder.exists())
    if not nearest.is_dir():
        raise ConfigError(f"{called} {out} lies below {nearest}, which is a file; name a folder that is one")
    target = out if out.is_dir() else nearest
    if not os.access(target, os.W_OK | os.X_OK):
        raise ConfigError(f"{called} {out} cannot be written: {target} is read-only for you; name another place")


def _kind(path: Path) -> str | None:
    """The `format` of a file in its header, or what else it is in words; None if there is none."""
    if not path.exists():
        return None
    if not path.is_file():
        return "no file"
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        text = file.read(size) if size <= min(HEADER, path.stat().st_size) else b""
    try:
        metadata = json.loads(text).get("__metadata__", {})
        return str(metadata.get("format") or "a safetensors file that compatlearn did not write")
    except (ValueError, AttributeError):
        return f"no safetensors file ({path.stat().st_size} bytes)"
