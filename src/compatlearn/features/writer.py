"""Write features shard by shard, so that an extraction which is stopped at any moment can be resumed."""

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from ..errors import DataError, FormatError, unknown
from ..files import read_json, write_atomically, write_json
from . import folder as feature_folder
from .features import Features
from .folder import MANIFEST, PLAN, SHARDS, SKIPPED
from .formats import shard_count, unfinished

DTYPES = ("float16", "float32", "float64")
PARTS = {"vectors", "labels", "ids", "skipped_ids", "skipped_reasons"}
OPTIONAL = {"labels"}


class Shard(NamedTuple):
    """One file of `shards/`."""

    vectors: np.ndarray  # (k, d)
    labels: np.ndarray | None  # (k,)
    ids: np.ndarray  # (k,)
    skipped: list[list[Any]]  # [[id, reason], ...]


class FeatureWriter:
    """Features of `rows` planned rows in shards of `shard_rows`; several processes may write different shards.

    `missing()` tells which shards are to be done, `planned(shard)` their rows, `write` stores one, `finish` joins them.
    A shard is one file, written whole or not at all. Opening the same folder again with the same plan resumes; `inputs` are
    part of the plan: whatever else decides about the vectors, such as a checksum of the data.

    Raises:
        FormatError: `folder` was begun with another plan, or holds other features.
        ConfigError: an unknown dtype.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        rows: int,
        shard_rows: int = 65536,
        space: str = "",
        source: str = "",
        dtype: str = "float32",
        ids_from: str = "",
        classes: Sequence[str] | None = None,
        inputs: Mapping[str, Any] | None = None,
    ) -> None:
        if rows < 1 or shard_rows < 1:
            raise DataError(f"an extraction needs rows, and rows in a shard; got {rows} rows, {shard_rows} in a shard")
        if dtype not in DTYPES:
            raise unknown("dtype", dtype, DTYPES)
        self.folder = Path(folder)
        self.plan: dict[str, Any] = {
            "rows": rows,
            "shard_rows": shard_rows,
            "space": space,
            "source": source,
            "dtype": dtype,
        } | ({"ids_from": ids_from} if ids_from else {})
        self.plan |= {} if classes is None else {"classes": list(classes)}
        self.plan |= inputs or {}
        self.shards = shard_count(self.plan)
        self._whole: set[int] = set()
        self._begin()

    @property
    def finished(self) -> bool:
        """`finish` has written the manifest."""
        return (self.folder / MANIFEST).exists()

    def planned(self, shard: int) -> range:
        """The row numbers of a shard."""
        first = shard * self.plan["shard_rows"]
        return range(first, min(first + self.plan["shard_rows"], self.plan["rows"]))

    def missing(self) -> list[int]:
        """Shards still to be done; one that is there but damaged is to be done again."""
        if self.finished:
            return []
        for shard in set(range(self.shards)) - self._whole:
            if _is_whole(self._path(shard)):
                self._whole.add(shard)
        return sorted(set(range(self.shards)) - self._whole)

    def write(
        self,
        shard: int,
        vectors: Float[np.ndarray, "k d"],
        labels: Int[np.ndarray, " k"] | None,
        ids: Shaped[np.ndarray, " k"],
        skipped: Sequence[tuple[Any, str]] = (),
    ) -> None:
        """Store one shard: its rows in order, and (id, reason) of those that gave no vector.

        Args:
            shard: its number.
            vectors: (k, d), finite.
            labels: (k,) the class of each, or None for every shard.
            ids: (k,) int64 or text.
            skipped: (id, reason) of rows without a vector.

        Raises:
            DataError: rows got lost, numbers overflow the planned dtype, or the disk is full.
        """
        planned = len(self.planned(shard))
        classes = len(ids if labels is None else labels)
        if not len(vectors) == classes == len(ids) == planned - len(skipped):
            raise DataError(
                f"shard {shard} of {self.folder} has {planned} rows; got {len(vectors)} vectors, {classes} labels, "
                f"{len(ids)} ids and {len(skipped)} skipped; give every row one vector or one reason"
            )
        arrays = {
            "vectors": self._cast(np.asarray(vectors), shard),
            "ids": np.asarray(ids),
            "skipped_ids": np.array([one for one, _ in skipped]),
            "skipped_reasons": np.array([reason for _, reason in skipped], dtype=str),
        }
        arrays |= {} if labels is None else {"labels": np.asarray(labels, dtype=np.int64)}
        write_atomically(self._path(shard), lambda path: np.savez(path, **arrays))  # type: ignore[arg-type]
        self._whole.add(shard)

    def finish(self) -> Features:
        """Join the shards into a folder of features, one in memory at a time, and remove them.

        Raises:
            FormatError: shards are missing, or disagree on the dimension.
            DataError: no row gave a vector, or the disk is full.
        """
        if not self.finished:
            if self.missing():
                raise unfinished(self.folder, self.plan)
            self._join()
        feature_folder.clear(self.folder)
        return Features.load(self.folder)

    def _begin(self) -> None:
        """Store the plan, or compare it with the stored one."""
        if self.finished:
            begun = feature_folder.read_manifest(self.folder).get("plan")
            if begun is None:
                raise FormatError(f"{self.folder} holds features already; use another --out or delete {self.folder}")
        elif (self.folder / PLAN).exists():
            begun = read_json(self.folder / PLAN)
        else:
            begun = self.plan
            write_json(self.folder / PLAN, begun)
        plan = {key: value for key, value in self.plan.items() if key != "ids_from" or key in begun}  # older plans lack it
        differing = [f"{key} {begun.get(key)!r}, now {value!r}" for key, value in plan.items() if begun.get(key) != value]
        if differing:
            raise FormatError(
                f"{self.folder} was begun with another plan ({'; '.join(differing)}); use another --out or delete {self.folder}"
            )

    def _join(self) -> None:
        sizes = [_vectors_shape(self._path(shard)) for shard in range(self.shards)]
        rows, dimensions = sum(size[0] for size in sizes), {size[1] for size in sizes if size[0]}
        if not rows:
            reason = _read_shard(self._path(0)).skipped[0][1]
            raise DataError(f"none of {self.plan['rows']} rows gave a vector (first: {reason}); check the data")
        if len(dimensions) > 1:
            raise FormatError(f"shards of {self.folder} have dimensions {sorted(dimensions)}; delete it and extract again")
        skipped: list[list[Any]] = []

        def blocks() -> Iterator[feature_folder.Block]:
            for shard in range(self.shards):
                part = _read_shard(self._path(shard))
                skipped.extend(part.skipped)
                if len(part.vectors):
                    yield part.vectors, part.labels, part.ids

        shape = feature_folder.Shape(rows, dimensions.pop(), np.dtype(self.plan["dtype"]))
        manifest = feature_folder.write_arrays(self.folder, blocks(), shape)
        write_json(self.folder / SKIPPED, skipped)
        known = {key: self.plan[key] for key in ("space", "source", "ids_from", "classes") if key in self.plan}
        write_json(self.folder / MANIFEST, manifest | known | {"skipped": len(skipped), "plan": self.plan})

    def _cast(self, vectors: np.ndarray, shard: int) -> np.ndarray:
        with np.errstate(over="ignore"):
            cast: np.ndarray = vectors.astype(self.plan["dtype"], copy=False)
        lost = int((np.isinf(cast) & np.isfinite(vectors)).any(axis=1).sum())
        if lost:
            raise DataError(
                f"{lost} of {len(vectors)} vectors of shard {shard} overflow {self.plan['dtype']} "
                f"(largest: {np.abs(vectors).max():.3g}); extract as float32"
            )
        return cast

    def _path(self, shard: int) -> Path:
        return self.folder / SHARDS / f"{shard:05}.npz"


def _is_whole(path: Path) -> bool:
    """Every part is there and matches the checksum that the zip format keeps."""
    try:
        with zipfile.ZipFile(path) as file:
            parts = {name.removesuffix(".npy") for name in file.namelist()}
            return PARTS - OPTIONAL <= parts <= PARTS and file.testzip() is None
    except (zipfile.BadZipFile, OSError, EOFError):
        return False


def _vectors_shape(path: Path) -> tuple[int, int]:
    """The shape of a shard's vectors, from the header alone."""
    with zipfile.ZipFile(path) as file, file.open("vectors.npy") as member:
        np.lib.format.read_magic(member)
        rows, dimension = np.lib.format.read_array_header_1_0(member)[0]
        return rows, dimension


def _read_shard(path: Path) -> Shard:
    with np.load(path, allow_pickle=False) as parts:
        skipped = zip(parts["skipped_ids"].tolist(), parts["skipped_reasons"].tolist(), strict=True)
        labels = parts.get("labels")
        return Shard(parts["vectors"], labels, parts["ids"], [list(pair) for pair in skipped])
