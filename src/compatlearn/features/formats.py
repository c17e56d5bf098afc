"""Read features, from our folder or in anyone's format, into the columns of `Features`."""

import pickle
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError, safe_open

from ..errors import DataError, FormatError
from ..files import read_json
from . import folder as feature_folder
from .folder import MANIFEST, PLAN, SHARDS, VECTORS, map_npy, pickled, strings

NAMES = {"vectors": ("vectors", "vector"), "labels": ("labels", "label"), "ids": ("ids", "id")}
BATCH = 65536  # rows of Parquet held at a time
PICKLES = (".pkl", ".pickle", ".joblib")


def read(path: Path, *, verify: bool) -> dict[str, Any]:
    """The columns of the features at `path`, whatever their format.

    Raises:
        DataError: no such path.
        FormatError: not a format that we know, or not whole.
    """
    if path.is_dir():
        return _read_folder(path, verify=verify)
    if not path.exists():
        raise DataError(f"there is no {path}; check the path")
    if path.suffix.lower() in PICKLES:
        raise pickled(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise FormatError(f"{path} is no format of features; give a folder of features, or {', '.join(READERS)}")
    if path.stat().st_size == 0:
        raise FormatError(f"{path} is empty (0 bytes); write it again")
    return {"source": str(path)} | reader(path)


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


def _read_folder(folder: Path, *, verify: bool) -> dict[str, Any]:
    if (folder / MANIFEST).exists():
        return feature_folder.read(folder, verify=verify)
    if (folder / PLAN).exists():
        raise unfinished(folder, read_json(folder / PLAN))
    if (folder / VECTORS).exists():
        raise FormatError(f"{folder} has no {MANIFEST}: writing it was not finished; write it again")
    files = sorted(path for path in folder.glob("*.parquet") if not path.name.startswith("."))
    if not files:
        raise FormatError(f"{folder} holds no features: neither {MANIFEST} nor .parquet files; check the path")
    return {"source": str(folder)} | _read_parquet(files)


def _choose(names: Iterable[str], path: Path, kind: str) -> dict[str, str]:
    """{"vectors": the name that the file uses, ...}; `kind` is what the file calls its parts."""
    names = list(names)
    chosen = {ours: theirs for ours, usual in NAMES.items() for theirs in reversed(usual) if theirs in names}
    if "vectors" not in chosen:
        have = ", ".join(names) or "none"
        raise FormatError(f"{path} has no {kind} 'vectors' or 'vector', only: {have}; rename the one with the vectors")
    return chosen


def _read_npy(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        if file.read(1) == b"\x80":
            raise pickled(path)
    return {"vectors": map_npy(path)}


def _check_zip(path: Path) -> None:
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            raise pickled(path) if file.read(1) == b"\x80" else _damaged(path, "no zip directory at its end")


def _read_npz(path: Path) -> dict[str, Any]:
    _check_zip(path)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {ours: arrays[theirs] for ours, theirs in _choose(arrays.files, path, "array").items()}
    except FormatError:
        raise
    except Exception as error:  # zipfile and NumPy fail in many ways on damaged bytes
        raise pickled(path) if "allow_pickle" in str(error) else _damaged(path, error) from error


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, framework="pt") as file:
            known = {key: text for key, text in (file.metadata() or {}).items() if key in ("space", "source")}
            chosen = _choose(file.keys(), path, "tensor")
            return {ours: file.get_tensor(theirs) for ours, theirs in chosen.items()} | known
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error


def _read_torch(path: Path) -> dict[str, Any]:
    _check_zip(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise FormatError(f"{path} is a pickle of more than tensors; save a dict of tensors, or .safetensors") from error
    except Exception as error:  # torch fails in many ways on damaged bytes
        raise _damaged(path, error) from error
    if isinstance(content, torch.Tensor):
        return {"vectors": content}
    if not isinstance(content, dict):
        raise FormatError(f"{path} holds a {type(content).__name__}; save a tensor, or a dict of tensors vectors, labels, ids")
    return {ours: content[theirs] for ours, theirs in _choose(map(str, content), path, "entry").items()}


def _read_parquet(files: list[Path]) -> dict[str, Any]:
    """All files, in order, as one; the vectors are filled batch by batch."""
    place = files[0] if len(files) == 1 else files[0].parent
    vectors, parts = None, dict[str, list[np.ndarray]]()
    try:
        rows = sum(pq.read_metadata(path).num_rows for path in files)
        for path, first, columns in _batches(files):
            block = columns.pop("vectors")
            if vectors is None:
                vectors = np.empty((rows, block.shape[1]), block.dtype)
                parts = {name: [] for name in columns}
            if columns.keys() != parts.keys():
                raise FormatError(f"{path} has not the columns of {files[0]}; give every file the same")
            if (block.shape[1], block.dtype) != (vectors.shape[1], vectors.dtype):
                theirs, ours = f"{block.shape[1]} {block.dtype}", f"{vectors.shape[1]} {vectors.dtype}"
                raise FormatError(f"{path} has vectors of {theirs} where rows before have {ours}; make them one kind")
            vectors[first : first + len(block)] = block
            for name, values in columns.items():
                parts[name].append(values)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(place, error) from error
    if vectors is None:
        raise FormatError(f"{place} has no rows; write it again")
    for name, several in parts.items():
        if len({values.dtype.kind for values in several}) > 1:
            raise FormatError(f"{place} has {name} of several kinds; make them all integers or all text")
    return {"vectors": vectors} | {name: np.concatenate(several) for name, several in parts.items()}


def _batches(files: list[Path]) -> Iterator[tuple[Path, int, dict[str, np.ndarray]]]:
    """(file, number of the first row, its columns) of at most `BATCH` rows, never of none."""
    first = 0
    for path in files:
        with pq.ParquetFile(path, memory_map=True) as file:
            chosen = _choose(file.schema_arrow.names, path, "column")
            for batch in file.iter_batches(BATCH, columns=list(chosen.values())):
                if not len(batch):
                    continue
                columns = {"vectors": _vector_block(batch[chosen["vectors"]], path, first)}
                for name in chosen.keys() - {"vectors"}:
                    columns[name] = _scalars(batch[chosen[name]], name, path, first)
                yield path, first, columns
                first += len(batch)


def _vector_block(column: pa.Array, path: Path, first: int) -> np.ndarray:
    """(k, d) one batch of a column of lists that all have the same length."""
    column = column.storage if isinstance(column, pa.ExtensionArray) else column
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if not any(is_kind(column.type) for is_kind in kinds) or not pa.types.is_floating(column.type.value_type):
        raise FormatError(f"{path}: the vectors are {column.type}, not lists of floats; store lists of float32")
    lengths = pc.list_value_length(column).fill_null(-1).to_numpy(zero_copy_only=False)
    odd = np.flatnonzero(lengths != lengths[0]) if lengths[0] >= 0 else np.array([0])
    if len(odd):
        found = "none" if lengths[odd[0]] < 0 else f"length {lengths[odd[0]]}"
        raise FormatError(
            f"{path}: vectors differ in length: {lengths[0]} in row {first}, {found} in row {first + odd[0]}; drop those rows"
        )
    values = column.flatten()
    if values.null_count:
        raise FormatError(f"{path}: {values.null_count} numbers of the vectors are null; drop those rows")
    return np.asarray(values.to_numpy(zero_copy_only=False)).reshape(len(lengths), lengths[0])


def _scalars(column: pa.Array, name: str, path: Path, first: int) -> np.ndarray:
    """(k,) one batch of labels or ids."""
    column = column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
    if column.null_count:
        row = first + int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        raise FormatError(f"{path}: {name} are null from row {row} on; fill them in or drop those rows")
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return strings(pa.chunked_array([column]))
    return np.asarray(column.to_numpy(zero_copy_only=False))


def _damaged(path: Path, reason: object) -> FormatError:
    size = f"{path.stat().st_size} bytes, " if path.is_file() else ""
    line = str(reason).splitlines()[0].rstrip(".") if str(reason) else type(reason).__name__
    return FormatError(f"{path} is not a whole {path.suffix or 'Parquet'} file ({size}{line}); write it again")


READERS = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".parquet": lambda path: _read_parquet([path]),
    ".safetensors": _read_safetensors,
    ".pt": _read_torch,
    ".pth": _read_torch,
}
