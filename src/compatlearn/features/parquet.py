"""Anyone's Parquet files of vectors, one or several, as the columns of `Features`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..errors import FormatError
from .folder import damaged, strings
from .names import Names

BATCH = 65536  # rows held at a time


def read_parquet(files: list[Path], names: Names) -> dict[str, Any]:
    """All files, in order, as one; the vectors are filled batch by batch.

    Args:
        files: with the same columns.
        names: of the columns.

    Returns:
        What `Features` takes, by its name there.

    Raises:
        FormatError: not whole, without the columns, or with columns that differ from file to file or row to row.
    """
    place = files[0] if len(files) == 1 else files[0].parent
    vectors, parts = None, dict[str, list[np.ndarray]]()
    try:
        rows = sum(pq.read_metadata(path).num_rows for path in files)
        chosen = _choose_columns(files[0], names)
        if "ids" not in chosen and names.ids is None:
            names.refuse_unknown_ids(_could_be_ids(files, set(chosen.values())), place, "column")
        for path, first, columns in _batches(files, names):
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
        raise damaged(place, error) from error
    if vectors is None:
        raise FormatError(f"{place} has no rows; write it again")
    for name, several in parts.items():
        if len({values.dtype.kind for values in several}) > 1:
            raise FormatError(f"{place} has {name} of several kinds; make them all integers or all text")
    columns = {name: np.concatenate(several) for name, several in parts.items()}
    return {"vectors": vectors, "ids_from": names.ids_from(chosen, "column")} | columns


def _choose_columns(path: Path, names: Names) -> dict[str, str]:
    schema = pq.read_schema(path)
    return names.choose(schema.names, path, "column", [field.name for field in schema if _holds_vectors(field.type)])


def _could_be_ids(files: list[Path], known: set[str]) -> Iterator[str]:
    """The other columns of integers or text in which no two values are alike; Arrow counts them, as captions may be long."""
    schemas = [pq.read_schema(path) for path in files]
    for field in schemas[0]:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        scalar = pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)
        if field.name in known or not scalar or any(field not in schema for schema in schemas):
            continue
        column = pa.chunked_array([], kind)
        for path in files:
            chunks = pq.read_table(path, columns=[field.name])[field.name].cast(kind).chunks
            column = pa.chunked_array([*column.chunks, *chunks], kind)
            if pc.count_distinct(column).as_py() < len(column) or column.null_count:
                break
        else:
            if len(column) > 1:
                yield field.name


def _holds_vectors(kind: pa.DataType) -> bool:
    """Lists of floats, in any of Arrow's ways."""
    kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(is_list(kind) for is_list in lists) and pa.types.is_floating(kind.value_type)


def _batches(files: list[Path], names: Names) -> Iterator[tuple[Path, int, dict[str, np.ndarray]]]:
    """(file, number of the first row, its columns) of at most `BATCH` rows, never of none."""
    first = 0
    for path in files:
        with pq.ParquetFile(path, memory_map=True) as file:
            chosen = _choose_columns(path, names)
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
    if not _holds_vectors(column.type):
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
