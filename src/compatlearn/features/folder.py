"""Our folder of features: vectors.npy (memory-mapped), rows.parquet (label, id) and, written last, manifest.json."""

import math
import mmap
import shutil
import zlib
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.lib import format as npy

from ..arrays import unit_length
from ..errors import DataError, FormatError
from ..files import read_json, remove, remove_leftovers, write_atomically, write_json

FORMAT, VERSION = "compatlearn-features", 1
MANIFEST, VECTORS, ROWS, PLAN, SKIPPED, SHARDS = (
    "manifest.json", "vectors.npy", "rows.parquet", "plan.json", "skipped.json", "shards",
)  # fmt: skip
OPTIONAL = {"ids_from": str, "classes": list}  # older folders have none
KEYS = {"rows": int, "dimension": int, "dtype": str, "normalized": bool, "space": str, "source": str, "shards": list}
NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)  # Linux's number; Python names it only from 3.13 on

Block = tuple[np.ndarray, np.ndarray | None, np.ndarray]  # (k, d) vectors, (k,) labels, (k,) ids


class Shape(NamedTuple):
    """What vectors.npy will be."""

    rows: int
    dimension: int
    dtype: Any


def write(folder: Path, blocks: Iterable[Block], shape: Shape, known: dict[str, Any]) -> None:
    """Write features block by block; each block gets its own checksum.

    Without a manifest a folder is not taken for features, so the old one goes first and the new one comes last.
    """
    if (folder / PLAN).exists() and not (folder / MANIFEST).exists():
        raise DataError(f"{folder} holds an unfinished extraction; save elsewhere, or delete {folder}")
    clear(folder)
    remove(folder / MANIFEST)
    remove(folder / SKIPPED)
    write_json(folder / MANIFEST, write_arrays(folder, blocks, shape) | known)


def write_arrays(folder: Path, blocks: Iterable[Block], shape: Shape) -> dict[str, Any]:
    """Write vectors.npy and rows.parquet, one block of vectors in memory at a time; returns the manifest."""
    shards: list[dict[str, Any]] = []
    tables: list[pa.Table] = []
    lengths: list[bool] = []

    def write_vectors(path: Path) -> None:
        with path.open("wb") as file:
            header = {"descr": npy.dtype_to_descr(shape.dtype), "fortran_order": False, "shape": shape[:2]}
            npy.write_array_header_1_0(file, header)
            first = 0
            for vectors, labels, ids in blocks:
                data = _bytes(vectors)
                file.write(data)  # unlike tofile, names the cause when the disk is full
                shards.append({"first": first, "rows": len(vectors), "checksum": _crc(zlib.crc32(data))})
                tables.append(pa.table({"id": ids} if labels is None else {"label": labels, "id": ids}))
                lengths.append(unit_length(vectors))
                first += len(vectors)

    for name in (VECTORS, ROWS, MANIFEST, PLAN, SKIPPED):
        remove_leftovers(folder / name)
    write_atomically(folder / VECTORS, write_vectors)
    table = pa.concat_tables(tables)
    write_atomically(folder / ROWS, lambda path: pq.write_table(table, path, use_dictionary=["label"]))
    return {
        "format": FORMAT,
        "version": VERSION,
        "rows": shape.rows,
        "dimension": shape.dimension,
        "dtype": np.dtype(shape.dtype).name,
        "normalized": all(lengths),
        "shards": shards,
        "rows_checksum": _crc(file_crc(folder / ROWS)),
    }


def read(folder: Path, *, verify: bool) -> dict[str, Any]:
    """The columns of a folder that `write` wrote: its vectors memory-mapped, for labels and ids functions that read them."""
    manifest = read_manifest(folder)
    vectors = map_npy(folder / VECTORS)
    said = (manifest["rows"], manifest["dimension"]), manifest["dtype"]
    if (vectors.shape, vectors.dtype.name) != said:
        raise FormatError(
            f"{folder / VECTORS} is {vectors.shape} {vectors.dtype}, but its manifest says {said[0]} {said[1]}; "
            "extract it again"
        )
    columns = _open_rows(folder / ROWS, manifest["rows"])
    if verify:
        _verify(folder, vectors, manifest)
    known = {key: manifest[key] for key in ("space", "source")} | {"ids_from": manifest.get("ids_from", "")}
    known |= {"classes": tuple(manifest["classes"])} if manifest.get("classes") else {}
    return {"vectors": vectors, **columns, "known_normalized": manifest["normalized"]} | known


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest, of a version that we can read and with every key."""
    path = folder / MANIFEST
    manifest = read_json(path)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise FormatError(f"{path} is not a manifest of compatlearn features; name the file of vectors itself")
    if manifest.get("version") != VERSION:
        version = manifest.get("version")
        raise FormatError(f"{path} has version {version}, this compatlearn reads version {VERSION}; upgrade compatlearn")
    wrong = [key for key, kind in KEYS.items() if not isinstance(manifest.get(key), kind)]
    wrong += [key for key, kind in OPTIONAL.items() if not isinstance(manifest.get(key, kind()), kind)]
    wrong += [] if "classes" in wrong or all(isinstance(name, str) for name in manifest.get("classes", [])) else ["classes"]
    if wrong:
        raise FormatError(f"{path} has no usable {', '.join(wrong)}; extract it again")
    try:
        ends = [0, *(shard["first"] + shard["rows"] for shard in manifest["shards"])]
        whole = ends == [*(shard["first"] for shard in manifest["shards"]), manifest["rows"]]
    except (KeyError, TypeError):
        whole = False
    if not whole:
        raise FormatError(f"{path} lists shards that do not add up to its {manifest['rows']} rows; extract it again")
    return manifest


def map_npy(path: Path) -> np.ndarray:
    """A .npy file as a copy-on-write memory map, checked for truncation and pickles.

    Its own mapping, for np.load's is refused by Linux where the file is larger than the memory.
    """
    with _open(path) as file:
        try:
            version = npy.read_magic(file)
            read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, fortran, dtype = read_header(file)
        except Exception as error:  # NumPy's header parser fails in many ways on damaged bytes
            raise FormatError(f"{path} is not a whole .npy file ({path.stat().st_size} bytes); write it again") from error
        if dtype.hasobject:
            raise pickled(path)
        expected = file.tell() + math.prod(shape) * dtype.itemsize
        actual = path.stat().st_size
        if actual < expected:
            raise FormatError(f"{path} is truncated: {actual} of {expected} bytes; write it again")
        order: Literal["C", "F"] = "F" if fortran else "C"
        offset = file.tell()
        if hasattr(mmap, "MAP_PRIVATE"):
            protection = mmap.PROT_READ | mmap.PROT_WRITE
            buffer = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE | NORESERVE, prot=protection)
        else:
            buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        return np.ndarray(shape, dtype, buffer, offset, order=order)


def pickled(path: Path) -> FormatError:
    """The refusal of a pickle."""
    return FormatError(
        f"{path} is a pickle, which can run code when it is opened; save it as .npy, .npz, .parquet or .safetensors"
    )


def damaged(path: Path, reason: object) -> FormatError:
    """The refusal of a file that is cut or changed."""
    size = f"{path.stat().st_size} bytes, " if path.is_file() else ""
    line = str(reason).splitlines()[0].rstrip(".") if str(reason) else type(reason).__name__
    return FormatError(f"{path} is not a whole {path.suffix or 'Parquet'} file ({size}{line}); write it again")


def strings(column: pa.ChunkedArray) -> np.ndarray:
    """(n,) fixed-width text; ASCII, the usual case, without a Python object a row."""
    column = column.cast(pa.large_string())
    if len(column) == 0 or not pc.all(pc.string_is_ascii(column)).as_py():
        return np.asarray(column.to_numpy(), dtype=str)
    width = max(pc.max(pc.binary_length(column)).as_py(), 1)
    texts, first = np.empty((len(column), width), np.uint32), 0  # four bytes a character, as NumPy keeps them
    for chunk in column.chunks:
        padded = pc.ascii_rpad(chunk, width=width, padding="\0")
        characters = np.frombuffer(padded.buffers()[2], np.uint8, len(chunk) * width, padded.offset * width)
        texts[first : first + len(chunk)] = characters.reshape(-1, width)
        first += len(chunk)
    return texts.view(f"U{width}")[:, 0]


def clear(folder: Path) -> None:
    """Remove what an extraction leaves behind once its manifest is there."""
    shutil.rmtree(folder / SHARDS, ignore_errors=True)
    remove(folder / PLAN)


def _open(path: Path) -> Any:
    try:
        return path.open("rb")
    except OSError as error:
        raise FormatError(f"cannot read {path}: {error.strerror or error}; write it again") from error


def _open_rows(path: Path, rows: int) -> dict[str, Callable[[], np.ndarray]]:
    """Functions that read labels, if there are any, and ids from the file that is here now, even if it is replaced."""
    try:
        content = pa.memory_map(str(path)).read_buffer()
        metadata = pq.read_metadata(pa.BufferReader(content))
        kinds = {field.name: field.type for field in metadata.schema.to_arrow_schema()}
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error
    if metadata.num_rows != rows:
        raise FormatError(f"{path} has {metadata.num_rows} rows, but its manifest says {rows}; extract it again")
    label, one = kinds.get("label", pa.int64()), kinds.get("id", pa.null())
    if not pa.types.is_integer(label) or not (pa.types.is_integer(one) or pa.types.is_string(one)):
        raise FormatError(f"{path} cannot be read (label is {label}, id is {one}); extract it again")
    names = {"labels": "label", "ids": "id"}
    return {ours: partial(_read_column, path, content, name) for ours, name in names.items() if name in kinds}


def _read_column(path: Path, content: pa.Buffer, name: str) -> np.ndarray:
    """(n,) a column of the Parquet file with this content."""
    try:
        column = pq.ParquetFile(pa.BufferReader(content)).read([name])[name]
        if column.null_count:
            raise FormatError(f"{path} has {column.null_count} rows without {name}; extract it again")
        if pa.types.is_string(column.type):
            return strings(column)
        return np.concatenate([chunk.to_numpy() for chunk in column.chunks])
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> FormatError:
    line = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
    return FormatError(f"{path} cannot be read ({line}); extract it again")


def _verify(folder: Path, vectors: np.ndarray, manifest: dict[str, Any]) -> None:
    for number, shard in enumerate(manifest["shards"]):
        first, last = shard["first"], shard["first"] + shard["rows"] - 1
        if _crc(zlib.crc32(_bytes(vectors[first : last + 1]))) != shard["checksum"]:
            raise FormatError(
                f"shard {number} (rows {first} to {last}) of {folder} does not match its checksum; extract it again"
            )
    if _crc(file_crc(folder / ROWS)) != manifest.get("rows_checksum"):
        raise FormatError(f"{folder / ROWS} does not match its checksum; extract it again")


def file_crc(path: Path) -> int:
    """CRC-32 of a file, read in pieces."""
    crc = 0
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            crc = zlib.crc32(piece, crc)
    return crc


def _bytes(vectors: np.ndarray) -> memoryview:
    return np.ascontiguousarray(vectors).data.cast("B")


def _crc(value: int) -> str:
    return f"crc32:{value:08x}"
