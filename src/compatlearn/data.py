"""Labelled images from anywhere: digits, Parquet, image folders, ImageNet and Places365 as they are unpacked, a hub name.

`open_images` finds them, `Images` reads them one at a time, `decode` reads them once for all into one array.
"""

import io
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from .errors import ConfigError, DataError, first_few

Pixels = UInt8[np.ndarray, "n 3 s s"]
IMAGE_COLUMNS = ("image", "img", "picture")
LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "target")
ID_COLUMNS = ("id", "ids", "image_id", "filename", "file_name")
SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation", "test")}


@dataclass(frozen=True)
class Images:
    """Labelled images that are read on demand.

    labels: (n,) int64 in [0, len(classes)); ids: (n,) int64 or str, unique; read: row of the source → RGB picture;
    rows: (n,) row of the source of each image.
    """

    read: Callable[[int], Image.Image]
    labels: Int64[np.ndarray, " n"]
    ids: np.ndarray
    rows: Int64[np.ndarray, " n"]
    classes: tuple[str, ...]
    source: str

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Int64[np.ndarray, " k"]) -> "Images":
        """The images of some rows, in that order."""
        return replace(self, labels=self.labels[rows], ids=self.ids[rows], rows=self.rows[rows])

    def first_classes(self, count: int | None) -> "Images":
        """Only the images of the first so many classes."""
        if count is None:
            return self
        if not 1 <= count <= len(self.classes):
            raise ConfigError(f"classes must be in [1, {len(self.classes)}], the classes of {self.source}; got {count}")
        return replace(self.take(np.flatnonzero(self.labels < count)), classes=self.classes[:count])

    def picture(self, row: int) -> Image.Image:
        """One image, RGB, as large as it is stored.

        Raises:
            DataError: it cannot be decoded.
        """
        try:
            return self.read(int(self.rows[row]))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(f"image {self.ids[row]} of {self.source} cannot be read: {error}") from error

    def square(self, row: int, size: int) -> UInt8[np.ndarray, "3 s s"]:
        """`to_square` of one image."""
        return to_square(self.picture(row), size)


def to_square(picture: Image.Image, size: int) -> UInt8[np.ndarray, "3 s s"]:
    """An RGB picture, its shorter side scaled to `size`, the middle square of it."""
    if picture.size != (size, size):
        scale = size / min(picture.size)
        width, height = (max(size, round(side * scale)) for side in picture.size)
        left, top = (width - size) // 2, (height - size) // 2
        picture = picture.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + size, top + size))
    return np.asarray(picture, dtype=np.uint8).transpose(2, 0, 1)


def decode(
    images: Images, size: int, *, tolerance: float = 0.001, threads: int = 2
) -> tuple[Images, Pixels, list[tuple[str, str]]]:
    """Every image once: the readable ones, (n, 3, size, size) pixels of theirs, and (id, reason) of the others.

    Raises:
        DataError: more than `tolerance` of them, as a share, cannot be read.
    """
    pixels = np.empty((len(images), 3, size, size), dtype=np.uint8)
    reasons: dict[int, str] = {}

    def fill(row: int) -> None:
        try:
            pixels[row] = images.square(row, size)
        except DataError as error:
            reasons[row] = str(error)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(fill, range(len(images)), chunksize=256))
    if not reasons:
        return images, pixels, []
    check_skipped(len(reasons), len(images), tolerance, next(iter(reasons.values())))
    kept = np.setdiff1d(np.arange(len(images)), list(reasons))
    return images.take(kept), pixels[kept], [(str(images.ids[row]), reasons[row]) for row in sorted(reasons)]


def load_pixels(images: Images, size: int, *, tolerance: float = 0.001) -> tuple[Images, Pixels | None, list[tuple[str, str]]]:
    """`decode` where the pixels take at most half of the free memory; otherwise no pixels, to be decoded as needed."""
    import psutil

    if len(images) * 3 * size * size > psutil.virtual_memory().available / 2:
        return images, None, []
    return decode(images, size, tolerance=tolerance, threads=os.cpu_count() or 1)


def check_skipped(skipped: int, total: int, tolerance: float, example: str) -> None:
    """Raise DataError when more than `tolerance` of the images cannot be read."""
    if skipped > tolerance * total:
        raise DataError(
            f"{skipped} of {total} images cannot be read, more than the tolerance of {tolerance:g} allows "
            f"(first: {example}); mend or remove them, or raise the tolerance"
        )


def split_rows(
    labels: Int64[np.ndarray, " n"], fraction: float, seed: int
) -> tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " m"]]:
    """Disjoint rows: `fraction` of each class (at least one row each side), seeded, and the rest, both ascending.

    Raises:
        ConfigError: fraction is not in (0, 1).
        DataError: a class has a single row and cannot be split.
    """
    if not 0 < fraction < 1:
        raise ConfigError(f"the fraction of a split must be between 0 and 1; got {fraction}")
    generator = np.random.default_rng(seed)
    first, second, single = [], [], []
    for label in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == label))
        if len(rows) < 2:
            single.append(label)
            continue
        cut = min(max(round(fraction * len(rows)), 1), len(rows) - 1)
        first.append(rows[:cut])
        second.append(rows[cut:])
    if single:
        raise DataError(
            f"{len(single)} classes have one image and cannot be split (first: {first_few(single)}); drop them or add images"
        )
    return np.sort(np.concatenate(first)), np.sort(np.concatenate(second))


def noisy_labels(labels: Int64[np.ndarray, " n"], share: float, classes: int, seed: int) -> Int64[np.ndarray, " n"]:
    """The labels with a share of them replaced by another class, uniformly, seeded; share 0 changes nothing."""
    if not 0 <= share <= 1:
        raise ConfigError(f"label_noise must be in [0, 1]; got {share}")
    generator = np.random.default_rng([seed, 1])
    wrong = generator.permutation(len(labels))[: round(share * len(labels))]
    noisy = labels.copy()
    noisy[wrong] = (labels[wrong] + generator.integers(1, classes, size=len(wrong))) % classes
    return noisy


def open_images(data: str, split: str | None = None) -> Images:
    """Labelled images by what they are called.

    Args:
        data: `digits`; a `.parquet` file; a folder with Parquet files or class folders, in it or in its `train` and `val`;
            ImageNet or Places365 as unpacked; a hub name. `:split` at its end chooses a split, as `split` does.
        split: `train` or `val` (the source may call it validation or test); by default `train`, or all there is.

    Raises:
        DataError: there is nothing there, or it holds no labelled images.
    """
    name, suffix = re.fullmatch(r"(.+?)(?::([A-Za-z_]\w*))?", data, re.DOTALL).groups()  # type: ignore[union-attr]
    split = suffix or split
    path = Path(name).expanduser()
    if name == "digits":
        return _digits(split)
    if path.is_file():
        return _parquet({"all": [path]}, "all", data)
    if path.is_dir():
        return _folder(path, split, data)
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or path.suffix:
        raise DataError(f"{name} does not exist; give digits, Parquet files, an image folder or a hub name")
    return _hub(name, split or "train", data)


def _digits(split: str | None) -> Images:
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = (digits.images * (255 / 16)).round().astype(np.uint8)  # (1797, 8, 8)
    labels = digits.target.astype(np.int64)
    train, val = split_rows(labels, 0.7, seed=0)
    images = Images(_ArrayReader(pixels), labels, np.arange(len(labels)), np.arange(len(labels)), tuple("0123456789"), "digits")
    return images if split == "all" else images.take(val if split in SPLITS["val"] else train)


def _folder(path: Path, split: str | None, data: str) -> Images:
    if (path / "categories_places365.txt").exists():
        return _places365(path, split or "train", data)
    parquet = sorted(path.glob("**/*.parquet"))
    if parquet:
        groups: dict[str, list[Path]] = {}
        for file in parquet:
            stem = re.split(r"[-_.]", file.name)[0]
            group = next((key for key, names in SPLITS.items() if stem in names or file.parent.name in names), "all")
            groups.setdefault(group, []).append(file)
        return _parquet(groups, _choose(groups, split, path), data)
    folders = {
        key: folder for key, names in SPLITS.items() for folder in (path / name for name in reversed(names)) if folder.is_dir()
    }
    return _class_folders(folders or {"all": path}, _choose(folders or {"all": path}, split, path), data)


def _choose(groups: dict[str, Any], split: str | None, path: Path) -> str:
    """The key of the split that is asked for; the only one there is serves any."""
    wanted = next((key for key, names in SPLITS.items() if split in names), split or "train")
    if wanted in groups:
        return wanted
    if list(groups) == ["all"] and split in (None, "train", "all"):
        return "all"
    raise DataError(f"{path} has no split {wanted!r}, only {', '.join(groups)}; name one as DATA:SPLIT")


def _class_folders(folders: dict[str, Path], split: str, data: str) -> Images:
    """`<split>/<class>/<image>`, as torchvision's ImageFolder and the unpacked ImageNet have it."""
    from torchvision.datasets import ImageFolder

    root = folders[split]
    try:
        train, found = (ImageFolder(str(folders[key])) for key in (next(iter(folders)), split))
    except FileNotFoundError as error:
        raise DataError(
            f"{root} holds no class folders with images; expected <class>/<image>.jpg, or train and val folders of them"
        ) from error
    if not set(found.classes) <= set(train.classes):
        extra = sorted(set(found.classes) - set(train.classes))
        raise DataError(f"{len(extra)} classes of {root} are not in {train.root} (first: {first_few(extra)})")
    relabel = {found.class_to_idx[name]: train.class_to_idx[name] for name in found.classes}
    paths = [Path(file) for file, _ in found.samples]
    labels = np.array([relabel[label] for label in found.targets], dtype=np.int64)
    ids = np.array([str(file.relative_to(root)) for file in paths])
    return Images(_FileReader(paths), labels, ids, np.arange(len(ids)), tuple(train.classes), data)


def _places365(root: Path, split: str, data: str) -> Images:
    """Places365 as its authors pack it: lists of files beside `data_*_standard` and `val_*` folders."""
    training = split in SPLITS["train"]
    listing = root / ("places365_train_standard.txt" if training else "places365_val.txt")
    folders = [root / name for name in (("data_256_standard", "data_large_standard") if training else ("val_256", "val_large"))]
    folder = next((candidate for candidate in folders if candidate.is_dir()), None)
    if folder is None or not listing.is_file():
        raise DataError(f"{root} is Places365 but lacks {listing.name} or a folder {folders[0].name} or {folders[1].name}")
    names = [line.split()[0] for line in (root / "categories_places365.txt").read_text().splitlines() if line.strip()]
    entries = [line.rsplit(maxsplit=1) for line in listing.read_text().splitlines() if line.strip()]
    ids = np.array([file.lstrip("/") for file, _ in entries])
    labels = np.array([int(label) for _, label in entries], dtype=np.int64)
    return Images(_FileReader([folder / file for file in ids]), labels, ids, np.arange(len(ids)), tuple(names), data)


def _parquet(groups: dict[str, list[Path]], split: str, data: str) -> Images:
    import datasets

    datasets.disable_progress_bars()
    try:
        tables = {
            key: datasets.load_dataset("parquet", data_files=[str(file) for file in files], split="train")
            for key, files in groups.items()
        }
    except (datasets.exceptions.DatasetGenerationError, OSError, ValueError) as error:
        raise DataError(f"{groups[split][0]} cannot be read as Parquet images: {error.__cause__ or error}") from error
    return _table(tables[split], list(tables.values()), data)


def _hub(name: str, split: str, data: str) -> Images:
    import datasets

    try:
        splits = datasets.load_dataset(name)
    except Exception as error:  # whatever the hub client raises: not found, gated, no network
        raise DataError(f"{name} is no file or folder here, and the hub did not give it: {error}") from error
    return _table(splits[_choose(_split_keys(splits), split, Path(name))], list(splits.values()), data)


def _split_keys(splits: Any) -> dict[str, Any]:
    return dict(splits.items())


def _table(table: Any, all_tables: Sequence[Any], data: str) -> Images:
    """A `datasets` table with an image, a label and perhaps an id column."""
    import datasets

    image, label = _column(table, IMAGE_COLUMNS, data, "image"), _column(table, LABEL_COLUMNS, data, "label")
    if not len(table):
        raise DataError(f"{data} has no rows")
    table = table.cast_column(image, datasets.Image(decode=False))
    values = table.data.column(label).to_pylist()
    missing = [row for row, value in enumerate(values) if value is None or value == -1]
    if missing:
        raise DataError(f"{len(missing)} of {len(values)} rows of {data} have no label (first: {first_few(missing)})")
    feature = table.features[label]
    if isinstance(feature, datasets.ClassLabel):
        names = list(feature.names)
    elif isinstance(values[0], str):
        names = sorted({value for other in all_tables for value in other.unique(label)})
        values = (
            [names.index(value) for value in values] if len(names) < 2 else list(map(_positions(names).__getitem__, values))
        )
    else:
        names = [str(number) for number in range(max(max(other.unique(label)) for other in all_tables) + 1)]
    labels = np.array(values, dtype=np.int64)
    if labels.min() < 0 or labels.max() >= len(names):
        bad = np.flatnonzero((labels < 0) | (labels >= len(names)))
        raise DataError(
            f"{len(bad)} of {len(labels)} labels of {data} are not in [0, {len(names)}) (first rows: {first_few(bad)})"
        )
    own = next((name for name in ID_COLUMNS if name in table.column_names), None)
    ids = np.array(table.data.column(own).to_pylist()) if own else np.arange(len(labels))
    return Images(_TableReader(table, image), labels, ids, np.arange(len(labels)), tuple(names), data)


def _positions(names: Sequence[str]) -> dict[str, int]:
    return {name: position for position, name in enumerate(names)}


def _column(table: Any, names: Sequence[str], data: str, what: str) -> str:
    for name in names:
        if name in table.column_names:
            return name
    raise DataError(f"{data} has no {what} column ({', '.join(names)}); its columns are {', '.join(table.column_names)}")


@dataclass(frozen=True)
class _ArrayReader:
    arrays: UInt8[np.ndarray, "n h w"]

    def __call__(self, row: int) -> Image.Image:
        return Image.fromarray(self.arrays[row]).convert("RGB")


@dataclass(frozen=True)
class _FileReader:
    paths: list[Path]

    def __call__(self, row: int) -> Image.Image:
        with Image.open(self.paths[row]) as picture:
            return picture.convert("RGB")


@dataclass(frozen=True)
class _TableReader:
    table: Any
    column: str

    def __call__(self, row: int) -> Image.Image:
        entry = self.table[row][self.column]
        if entry is None or not (entry["bytes"] or entry["path"]):
            raise ValueError("it is empty")
        with Image.open(io.BytesIO(entry["bytes"]) if entry["bytes"] else entry["path"]) as picture:
            return picture.convert("RGB")
