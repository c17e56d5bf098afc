"""Read features, from our folder or in anyone's format, into the columns of `Features`."""

import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError, safe_open

from ..errors import DataError, FormatError
from ..files import read_json
from . import folder as feature_folder
from .folder import MANIFEST, PLAN, SHARDS, VECTORS, damaged, map_npy, pickled
from .names import Names, could_be_ids
from .parquet import read_parquet

PICKLES = (".pkl", ".pickle", ".joblib")
FOREIGN = {  # suffix → what it is, and how its vectors get here
    (".csv", ".tsv", ".txt"): ("text, and features are numbers in binary", "save its columns as .parquet or .npz"),
    (".json", ".jsonl"): ("JSON, and features are numbers in binary", "save its vectors, ids and labels as .parquet or .npz"),
    (".faiss", ".index"): (
        "a FAISS index",
        "save what its reconstruct_n gives (of an IndexIDMap: that of its inner index, with id_map as ids) as .npz",
    ),
}


def read(path: Path, *, verify: bool, names: Names = Names()) -> dict[str, Any]:  # noqa: B008
    """The columns of the features at `path`, whatever their format.

    Args:
        path: a folder or file.
        verify: compare a folder of ours with its checksums.
        names: the columns of anyone's file; a folder of ours knows its own.

    Returns:
        What `Features` takes, by its name there.

    Raises:
        DataError: no such path.
        FormatError: not a format that we know, or not whole, or without the columns.
    """
    if path.is_dir():
        return _read_folder(path, names, verify=verify)
    if not path.exists():
        raise DataError(f"there is no {path}; check the path")
    if path.suffix.lower() in PICKLES:
        raise pickled(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        formats = f"a folder of features, or {', '.join(READERS)}"
        unknown = ("no format of features", f"give {formats}")
        what, remedy = next((found for suffixes, found in FOREIGN.items() if path.suffix.lower() in suffixes), unknown)
        raise FormatError(f"{path} is {what}; {remedy}")
    if path.stat().st_size == 0:
        raise FormatError(f"{path} is empty (0 bytes); write it again")
    return {"source": str(path)} | reader(path, names)


def column_names(path: Path) -> tuple[str, ...]:
    """The columns or keys of a file that may have any; none of a folder of ours, a bare array, or what cannot be read."""
    try:
        if path.is_dir() and not (path / MANIFEST).exists():
            path = next(file for file in sorted(path.glob("*.parquet")) if not file.name.startswith("."))
        match path.suffix.lower():
            case ".parquet":
                return tuple(pq.read_schema(path).names)
            case ".npz":
                with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                    return tuple(arrays.files)
            case ".safetensors":
                with safe_open(path, framework="pt") as file:
                    return tuple(file.keys())
            case ".pt" | ".pth":
                content = _load_torch(path)
                return tuple(map(str, content)) if isinstance(content, dict) else ()
    except Exception:  # `read` says what is wrong with it
        return ()
    return ()


def shard_count(plan: dict[str, Any]) -> int:
    """Shards of a planned extraction."""
    return -(-int(plan["rows"]) // int(plan["shard_rows"]))


def unfinished(folder: Path, plan: dict[str, Any]) -> FormatError:
    """The refusal of an extraction that was stopped."""
    done = sum(not path.name.startswith(".") for path in (folder / SHARDS).glob("*.npz"))
    return FormatError(
        f"extraction of {folder} was not finished ({done} of {shard_count(plan)} shards); "
        "run the same extract command again to resume it"
    )


def _read_folder(folder: Path, names: Names, *, verify: bool) -> dict[str, Any]:
    if (folder / MANIFEST).exists():
        return feature_folder.read(folder, verify=verify)
    if (folder / PLAN).exists():
        raise unfinished(folder, read_json(folder / PLAN))
    if (folder / VECTORS).exists():
        raise FormatError(f"{folder} has no {MANIFEST}: writing it was not finished; write it again")
    files = sorted(path for path in folder.glob("*.parquet") if not path.name.startswith("."))
    if not files:
        raise FormatError(f"{folder} holds no features: neither {MANIFEST} nor .parquet files; check the path")
    return {"source": str(folder)} | read_parquet(files, names)


def _read_npy(path: Path, names: Names) -> dict[str, Any]:
    names.choose(["vectors"], path, "column")  # a bare array has no others to name
    with path.open("rb") as file:
        if file.read(1) == b"\x80":
            raise pickled(path)
    return {"vectors": map_npy(path)}


def _check_zip(path: Path) -> None:
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            raise pickled(path) if file.read(1) == b"\x80" else damaged(path, "no zip directory at its end")


def _read_npz(path: Path, names: Names) -> dict[str, Any]:
    _check_zip(path)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return _keys(arrays.files, lambda name: arrays[name], path, names)
    except FormatError:
        raise
    except Exception as error:  # zipfile and NumPy fail in many ways on damaged bytes
        raise pickled(path) if "allow_pickle" in str(error) else damaged(path, error) from error


def _keys(keys: list[str], read: Callable[[str], Any], path: Path, names: Names) -> dict[str, Any]:
    """The parts of a file of named arrays; read: name → array or tensor."""
    chosen = names.choose(keys, path, "key")
    if "ids" not in chosen and names.ids is None:
        others = ((key, read(key)) for key in keys if key not in chosen.values())
        found = (key for key, values in others if values.ndim == 1 and could_be_ids(np.asarray(values)))
        names.refuse_unknown_ids(found, path, "key")
    return {ours: read(theirs) for ours, theirs in chosen.items()} | {"ids_from": names.ids_from(chosen, "key")}


def _read_safetensors(path: Path, names: Names) -> dict[str, Any]:
    try:
        with safe_open(path, framework="pt") as file:
            known = {key: text for key, text in (file.metadata() or {}).items() if key in ("space", "source")}
            return _keys(list(file.keys()), file.get_tensor, path, names) | known
    except (SafetensorError, OSError) as error:
        raise damaged(path, error) from error


def _load_torch(path: Path) -> Any:
    _check_zip(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise FormatError(f"{path} is a pickle of more than tensors; save a dict of tensors, or .safetensors") from error
    except Exception as error:  # torch fails in many ways on damaged bytes
        raise damaged(path, error) from error


def _read_torch(path: Path, names: Names) -> dict[str, Any]:
    content = _load_torch(path)
    if isinstance(content, torch.Tensor):
        return {"vectors": content}
    if not isinstance(content, dict):
        raise FormatError(f"{path} holds a {type(content).__name__}; save a tensor, or a dict of tensors vectors, labels, ids")
    parts = {str(key): part for key, part in content.items() if isinstance(part, torch.Tensor)}
    return _keys(list(parts), lambda name: parts[name], path, names)


READERS: Mapping[str, Callable[[Path, Names], dict[str, Any]]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".parquet": lambda path, names: read_parquet([path], names),
    ".safetensors": _read_safetensors,
    ".pt": _read_torch,
    ".pth": _read_torch,
}
