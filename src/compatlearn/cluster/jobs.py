"""The work of `extract`, `pseudo` and `evaluate` on a Ray cluster: the files and figures are those of one machine.

Vectors do not travel: workers map the files, which every node must see under the same path. What travels is the numbers of
rows and what was found in them.
"""

import itertools
import socket
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from ..arrays import Array, as_tensor
from ..data.images import Images, check_skipped
from ..data.sources import open_images
from ..encoders.encoder import Encoder, load_encoder
from ..encoders.extract import encode_shards, write_shard
from ..encoders.extract import extract as extract_here
from ..errors import ConfigError, DataError
from ..features.features import Features
from ..features.folder import SHARDS
from ..features.formats import column_names
from ..features.writer import FeatureWriter
from ..files import remove
from ..indexes.exact import merge, nearest
from ..indexes.hits import Hits
from ..metric import Metric
from ..pseudo.centres import check_classes
from ..pseudo.table import build_classifier
from .workers import capacity, each, get, put

TASKS = 4  # for each worker, so that a slow one does not keep the others waiting
ATTEMPTS = 5  # at a shard that ends its process: Ray Data alone would go on for ever
GROUP = 1 << 20  # most rows of a group of classes, if they are several
PART = 1 << 22  # most gallery rows of a part: in each, every query has candidates of its own to be ranked
BLOCK = 1024  # fewest queries that a part is read for
FOUND = 1 << 22  # most neighbours that a task finds: 64 MB travel
Source = tuple[str, str, Path | None, str | None, str | None]  # data, model, weights, device, id column: how a worker gets both


def extract(
    source: Source,
    encoder: Encoder,
    images: Images,
    out: Path,
    *,
    batch_size: int,
    shard_rows: int,
    dtype: str,
    tolerance: float,
) -> Features:
    """`extract.extract`, a shard a task; `encoder` and `images` are those of `source`."""
    plan: dict[str, Any] = {"shard_rows": shard_rows, "dtype": dtype}
    finish = partial(extract_here, encoder, images, out, batch_size=batch_size, tolerance=tolerance, **plan)
    if batch_size < 1 or not 0 <= tolerance <= 1:
        return finish()  # says what is wrong
    plan |= {"source": images.source, "ids_from": images.ids_from}
    lost = 0
    writer = FeatureWriter(out, rows=len(images), space=encoder.space, **plan)
    for attempts in (out / SHARDS).glob("*.attempts"):
        remove(attempts)
    work = partial(_extract_shard, source, out.resolve(), plan, batch_size)
    for skipped in each(work, [(shard,) for shard in writer.missing()], "shards", stay=True):
        lost += len(skipped)
        if skipped:
            check_skipped(lost, len(images), tolerance, skipped[0][1])
    return finish()


def classifier_builder(path: Path, vector_column: str | None = None) -> Callable[..., Float[np.ndarray, "c d"]]:
    """`build_classifier` for the features at `path`, some classes a task, about as many rows in each."""

    def build(
        method: str, vectors: Array, labels: Array, *, classes: int | None, options: Mapping[str, Any]
    ) -> Float[np.ndarray, "c d"]:
        if method == "trained":
            raise ConfigError("the trained classifier is one fit over all classes and cannot be divided; use --engine local")
        targets, count = check_classes(labels, len(vectors), classes)
        counts = torch.bincount(targets, minlength=count).numpy()
        order = None if bool((targets[1:] >= targets[:-1]).all()) else torch.argsort(targets, stable=True).numpy()
        ends, groups = np.cumsum(counts), max(TASKS * capacity(gpu=False)[0], len(vectors) // GROUP)
        starts = np.searchsorted(ends, np.arange(groups) * len(vectors) / groups, side="right")
        tasks = []
        for first, last in itertools.pairwise(np.unique([*starts, count]).tolist()):
            rows = slice(int(ends[first] - counts[first]), int(ends[last - 1]))
            tasks.append((first, counts[first:last], rows if order is None else order[rows]))
        try:
            place = (path.resolve(), vector_column) if vector_column else path.resolve()
            work = partial(_build_group, place, method, options)
            found = dict(each(work, tasks, "groups of classes", gpu=False))
        except DataError:  # a group does not know the numbers of its rows and classes
            build_classifier(method, vectors, labels, classes=classes, options=options)
            raise
        return np.concatenate([found[first] for first in sorted(found)])

    return build


def searcher(files: Sequence[tuple[Path, Features]], vector_column: str | None = None) -> Callable[..., Hits]:
    """`search` among features that were read from files, some queries in a part of the gallery a task.

    Its distances are float64, those of the first d_gallery dimensions.
    """

    def place(vectors: Array) -> Any:
        path = next((path.resolve() for path, features in files if features.vectors is vectors), None)
        if path is None:
            return put(vectors)  # rows in another order are in no file
        return (path, vector_column) if vector_column else path

    def search(queries: Array, gallery: Array, k: int, metric: Metric, *, exclude: Int[np.ndarray, " q"]) -> Hits:
        parts = _ranges(len(gallery), -(-len(gallery) // PART))
        wanted = max(TASKS * capacity()[0] // len(parts), len(queries) * k // FOUND) + 1
        blocks = _ranges(len(queries), min(wanted, -(-len(queries) // BLOCK)))
        work = partial(_search_part, place(queries), place(gallery), k, metric, exclude)
        best: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        for first, indices, keys in each(work, list(itertools.product(blocks, parts)), "parts of the search"):
            part = torch.from_numpy(indices), torch.from_numpy(keys)
            best[first] = merge([best[first], part], k) if first in best else part
        indices, keys = (torch.cat(column) for column in zip(*(best[first] for first, _ in blocks), strict=True))
        return Hits.of(indices, keys, metric, np.empty(0), double=True)

    return search


def _ranges(rows: int, count: int) -> list[tuple[int, int]]:
    """[0, rows) in `count` ranges, or a few less."""
    step = -(-rows // count)
    return [(first, min(first + step, rows)) for first in range(0, rows, step)]


# what runs in the workers


@cache
def _opened(
    data: str, model: str, weights: Path | None, device: str | None, id_column: str | None
) -> tuple[Images, Encoder, ThreadPoolExecutor]:
    encoder = load_encoder(model, weights=weights, device=device)
    return open_images(data, id_column=id_column), encoder, ThreadPoolExecutor(16 if torch.cuda.is_available() else 4)


def _extract_shard(source: Source, out: Path, plan: Mapping[str, Any], batch_size: int, shard: int) -> list[tuple[str, str]]:
    """Write one shard; returns (id, reason) of each image skipped."""
    images, encoder, pool = _opened(*source)
    writer = FeatureWriter(out, rows=len(images), space=encoder.space, **plan)
    rows = writer.planned(shard)
    attempts = out / SHARDS / f"{shard:05}.attempts"
    attempts.parent.mkdir(exist_ok=True)
    with attempts.open("ab") as file:
        file.write(b".")
    if attempts.stat().st_size > ATTEMPTS:
        raise DataError(
            f"shard {shard} (images {rows[0]} to {rows[-1]}) has ended its process {ATTEMPTS} times; "
            "try them alone, or give a worker more memory"
        )
    [encoded] = encode_shards(encoder, images, [rows], batch_size, pool)
    write_shard(writer, shard, images, encoded)
    remove(attempts)
    return encoded.skipped


@lru_cache(maxsize=4)
def _vectors(place: Any) -> np.ndarray:
    """(n, d) vectors of a file, or of a column of it, mapped if in one of our folders; or in memory that Ray shares."""
    path, column = place if isinstance(place, tuple) else (place, None)
    if not isinstance(path, Path):
        return get(path)
    if not path.exists():
        raise ConfigError(f"{socket.gethostname()} sees no {path}; keep it where every node of the cluster sees it")
    return Features.load(path, vector_column=column if column in column_names(path) else None, id_column="row").vectors


def _build_group(
    place: Any,
    method: str,
    options: Mapping[str, Any],
    first: int,
    counts: Int[np.ndarray, " c"],
    rows: Int[np.ndarray, " n"] | slice,
) -> tuple[int, Float[np.ndarray, "c d"]]:
    """The first of some classes, and their pseudo classifier; `rows` are theirs, in order of class."""
    labels = np.repeat(np.arange(len(counts)), counts)
    return first, build_classifier(method, _vectors(place)[rows], labels, options=options)


def _search_part(
    queries: Any,
    gallery: Any,
    k: int,
    metric: Metric,
    own: Int[np.ndarray, " q"],
    block: tuple[int, int],
    part: tuple[int, int],
) -> tuple[int, Int[np.ndarray, "b k"], Float[np.ndarray, "b k"]]:
    """The first of some queries, and what `nearest` finds for each of them in a part of the gallery."""
    first, last = part
    rows, own = _vectors(gallery)[first:last], own[slice(*block)]
    asked = as_tensor(_vectors(queries)[slice(*block)])
    skip = torch.from_numpy(np.where((own >= first) & (own < last), own - first, -1))
    indices, keys = nearest(asked.to("cuda" if torch.cuda.is_available() else "cpu"), rows, k, metric, skip)
    return block[0], torch.where(indices < 0, indices, indices + first).cpu().numpy(), keys.cpu().numpy()
