"""Labelled images from anywhere: digits, Parquet, image folders, ImageNet and Places365 as they are unpacked, a hub name.

`open_images` finds them, `Images` reads them one at a time, `decode` reads them once for all into one array.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from ..errors import DataError, FormatError, first_few
from ..extras import require
from .images import Images, to_rgb
from .splits import SPLITS, choose_split, split_rows

if TYPE_CHECKING:
    from PIL import Image
else:
    Image = require("PIL.Image")

IMAGES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


def open_images(data: str, split: str | None = None, *, id_column: str | None = None) -> Images:
    """Labelled images by what they are called.

    Args:
        data: `digits`; a `.parquet` file; a folder with Parquet files or class folders, in it or in its `train` and `val`;
            ImageNet or Places365 as unpacked; a hub name. `:split` at its end chooses a split, as `split` does.
        split: `train` or `val` (the source may call it validation or test), or the source's own name; by default `train`,
            or all there is.
        id_column: column of Parquet files or of a hub's data set with the ids, where it has no usual name; "row" takes the
            number of each row.

    Raises:
        DataError: there is nothing there, or it holds no labelled images, not that split, or no such column.
        FormatError: it is a file of another kind.
    """
    match = re.fullmatch(r"(.+?):([A-Za-z_]\w*)", data, re.DOTALL)
    name, split = match.groups() if match and not Path(data).exists() else (data, split)
    path = Path(name).expanduser()
    if name == "digits":
        return _digits(split)
    if name and path.is_file():
        from .tables import open_parquet

        _check_parquet(path)
        return open_parquet(choose_split(_by_split([path]), split, name), [path], data, id_column=id_column)
    if name and path.is_dir():
        return _folder(path, split, data, id_column)
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name) or path.suffix == ".parquet":
        raise DataError(f"there is no {name or 'data'}; give digits, Parquet files, an image folder or a hub name")
    from .tables import open_hub

    return open_hub(name, split, data, id_column=id_column)


def _check_parquet(path: Path) -> None:
    """Refuse a file that does not even claim to be Parquet by what it is, not as a damaged one."""
    with path.open("rb") as file:
        begins_as_parquet = file.read(4) == b"PAR1"
    if not begins_as_parquet and path.suffix.lower() not in (".parquet", ".pq"):
        raise FormatError(
            f"{path} is a {path.suffix or 'nameless'} file, and images are read from Parquet, class folders or the hub; "
            "write a Parquet file with the columns image and label (texts: .jsonl, .csv, .tsv or Parquet)"
        )


def _by_split(files: list[Path]) -> dict[str, list[Path]]:
    """Files by the split that their name begins with, or their folder's; `all` where neither says."""
    known = {name for names in SPLITS.values() for name in names}
    groups: dict[str, list[Path]] = {}
    for file in files:
        stem = re.split(r"[-_.]", file.name)[0].lower()
        group = next((name for name in (stem, file.parent.name.lower()) if name in known), "all")
        groups.setdefault(group, []).append(file)
    return groups


def _digits(split: str | None) -> Images:
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = (digits.images * (255 / 16)).round().astype(np.uint8)  # (1797, 8, 8)
    labels = digits.target.astype(np.int64)
    images = Images(_ArrayReader(pixels), labels, np.arange(len(labels)), np.arange(len(labels)), tuple("0123456789"), "digits")
    train, val = split_rows(labels, 0.7, seed=0)
    return images.take(choose_split({"train": train, "val": val, "all": images.rows}, split, "digits"))


def _folder(path: Path, split: str | None, data: str, id_column: str | None) -> Images:
    if (path / "categories_places365.txt").exists() and not (path / "train").is_dir():
        return _places365(path, split, data)
    files = sorted(path.glob("*.parquet")) or sorted(path.glob("*/*.parquet"))
    if files := [file for file in files if not file.name.startswith(".")]:
        from .tables import open_parquet

        return open_parquet(choose_split(_by_split(files), split, path), files, data, id_column=id_column)
    named = {name: path / name for names in SPLITS.values() for name in names if (path / name).is_dir()}
    folders = named or {"all": path}
    first = folders[next(iter(folders))]
    return _class_folders(choose_split(folders, split, path), first, data)


def _class_folders(root: Path, training: Path, data: str) -> Images:
    """`<split>/<class>/<image>`, as torchvision's ImageFolder and the unpacked ImageNet have it; `training` has every class."""
    classes, own = (sorted(entry.name for entry in folder.iterdir() if entry.is_dir()) for folder in (training, root))
    if not own:
        raise DataError(
            f"{root} holds no class folders with images; expected <class>/<image>.jpg, or train and val folders of them"
        )
    extra = sorted(set(own) - set(classes))
    if extra:
        raise DataError(
            f"{len(extra)} of {len(own)} classes of {root} are not in {training} (first: {first_few(extra)}); remove them"
        )
    files = [(file, label) for label, name in enumerate(classes) for file in _image_files(root / name)]
    if not files:
        raise DataError(f"the {len(own)} class folders of {root} hold no images ({', '.join(IMAGES)}); check the path")
    labels = np.array([label for _, label in files], dtype=np.int64)
    empty = [classes[label] for label in np.setdiff1d(np.arange(len(classes)), labels)]
    if empty and root == training:
        raise DataError(
            f"{len(empty)} of {len(classes)} class folders of {root} hold no image (first: {first_few(empty)}); remove them"
        )
    ids = np.array([Path(file).relative_to(root).as_posix() for file, _ in files])
    return Images(_FileReader(root, ids), labels, ids, np.arange(len(ids)), tuple(classes), data, "file names")


def _image_files(folder: Path) -> list[str]:
    """Every image in a folder and the folders in it, in order of its path."""
    places = sorted(os.walk(folder, followlinks=True))
    return [f"{place}/{name}" for place, _, names in places for name in sorted(names) if name.lower().endswith(IMAGES)]


def _places365(root: Path, split: str | None, data: str) -> Images:
    """Places365 as its authors pack it: lists of files beside `data_*_standard` and `val_*` folders."""
    lists = {"train": "places365_train_standard.txt", "val": "places365_val.txt"}
    folders = {"train": ("data_256_standard", "data_large_standard"), "val": ("val_256", "val_large")}
    listing = root / choose_split(lists, split, root)
    places = [root / name for name in choose_split(folders, split, root)]
    folder = next((place for place in places if place.is_dir()), None)
    if folder is None or not listing.is_file():
        raise DataError(f"{root} is Places365 but lacks {listing.name} or a folder {places[0].name} or {places[1].name}")
    classes = [line.split()[0] for line in (root / "categories_places365.txt").read_text().splitlines() if line.strip()]
    entries = [line.rsplit(maxsplit=1) for line in listing.read_text().splitlines() if line.strip()]
    wrong = [
        number
        for number, entry in enumerate(entries, 1)
        if not (len(entry) == 2 and entry[1].isdecimal() and int(entry[1]) < len(classes))
    ]
    if wrong or not entries:
        raise FormatError(
            f"{len(wrong)} of {len(entries)} lines of {listing} are not `<file> <class in [0, {len(classes)})>` "
            f"(first: {first_few(wrong)}); download the list again"
        )
    ids = np.array([file.lstrip("/") for file, _ in entries])
    labels = np.array([int(label) for _, label in entries], dtype=np.int64)
    return Images(_FileReader(folder, ids), labels, ids, np.arange(len(ids)), tuple(classes), data, "file names")


@dataclass(frozen=True)
class _ArrayReader:
    arrays: UInt8[np.ndarray, "n h w"]

    def __call__(self, row: int) -> Image.Image:
        return Image.fromarray(self.arrays[row]).convert("RGB")


@dataclass(frozen=True)
class _FileReader:
    root: Path
    files: np.ndarray  # (n,) paths under root

    def __call__(self, row: int) -> Image.Image:
        with Image.open(self.root / str(self.files[row])) as picture:
            return to_rgb(picture)
