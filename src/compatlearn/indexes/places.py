"""What lies beside an index that is a file or a folder: second vectors, and a note of its space."""

from pathlib import Path

from ..errors import ConfigError
from ..files import read_json, write_json


def folder_beside(path: Path, name: str) -> Path:
    """Where the second vectors called `name` of a file or folder lie: beside it, `products.faiss.embedding_v2`.

    Raises:
        ConfigError: a name that is a path.
    """
    if not name or Path(name).name != name or name.startswith("."):
        raise ConfigError(f"a second vector needs a plain name, which is that of a folder beside {path.name}; got {name!r}")
    return path.with_name(f"{path.name}.{name}")


def noted_space(path: Path) -> str:
    """The space that `note_space` noted; "" is unknown."""
    note = path.with_name(f"{path.name}.space.json")
    return str(read_json(note).get("space", "")) if note.is_file() else ""


def note_space(path: Path, space: str) -> None:
    """Let a small file beside the index remember by which model its vectors were made."""
    write_json(path.with_name(f"{path.name}.space.json"), {"space": space})


def state_of(path: Path) -> tuple[tuple[str, int, int, int], ...]:
    """What tells whether a file, or the files of a folder, have been written since."""
    files = sorted(one for one in path.iterdir() if one.is_file() and one.name[0] != ".") if path.is_dir() else [path]
    facts = ((file.name, file.stat()) for file in files if file.exists())
    return tuple((name, known.st_ino, known.st_size, known.st_mtime_ns) for name, known in facts)
