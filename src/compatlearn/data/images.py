"""Labelled images: read one at a time, or once for all into one array; split, and labels made wrong on purpose."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int64, UInt8

from ..errors import ConfigError, DataError
from ..extras import require

if TYPE_CHECKING:
    from PIL import Image
else:
    Image = require("PIL.Image")

Pixels = UInt8[np.ndarray, "_ 3 s s"]
BLOCK = 64  # images decoded by a thread before it takes the next: one at a time would cost more than a small image


@dataclass(frozen=True)
class Images:
    """Labelled images that are read on demand.

    labels: (n,) int64 in [0, len(classes)); ids: (n,) int64 or str, unique; read: row of the source → RGB picture;
    rows: (n,) row of the source of each image; ids_from: where the ids come from, in words; could_be_ids: columns that were
    not taken for ids and could have been.
    """

    read: Callable[[int], Image.Image]
    labels: Int64[np.ndarray, " n"]
    ids: np.ndarray
    rows: Int64[np.ndarray, " n"]
    classes: tuple[str, ...]
    source: str
    ids_from: str = "row numbers"
    could_be_ids: tuple[str, ...] = ()

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
        """One image, RGB, as large as it is stored; a rotation that its EXIF asks for is not applied, as in torchvision.

        Raises:
            DataError: it cannot be decoded.
        """
        try:
            return self.read(int(self.rows[row]))
        except Exception as error:  # Pillow fails in many ways on damaged bytes
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(f"image {self.ids[row]} of {self.source} cannot be read: {reason}") from error

    def square(self, row: int, size: int) -> UInt8[np.ndarray, "3 s s"]:
        """`to_square` of one image."""
        return to_square(self.picture(row), size)


def to_rgb(picture: Image.Image) -> Image.Image:
    """8 bits a channel, in RGB; transparency is dropped, 16 bits of grey are scaled to 8.

    Raises:
        ValueError: the picture's numbers have no known range.
    """
    if picture.mode.startswith("I;16"):  # convert() would cut every value at 255
        picture = Image.fromarray((np.asarray(picture).astype(np.uint16) >> 8).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise ValueError(f"mode {picture.mode} has no known range of values; store it with 8 or 16 bits")
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")  # the same colours, without Pillow's warning
    return picture.convert("RGB")


def to_square(
    picture: Image.Image, size: int, *, crop: int | None = None, interpolation: str = "bicubic", squash: bool = False
) -> UInt8[np.ndarray, "3 s s"]:
    """An RGB picture, its shorter side scaled to `size`, the middle square of it: torchvision's Resize and CenterCrop.

    Args:
        crop: side of that square, at most `size`, which is the default.
        interpolation: bicubic, bilinear, …: a name of `PIL.Image.Resampling`.
        squash: scale both sides to `size` instead, so that they lose their proportion and little is cut off.
    """
    side, shorter = crop or size, min(picture.size)
    width, height = (size if squash else size * length // shorter for length in picture.size)
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling[interpolation.upper()])
    if picture.size != (side, side):
        left, top = round((width - side) / 2), round((height - side) / 2)
        picture = picture.crop((left, top, left + side, top + side))
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

    def fill(first: int) -> None:
        for row in range(first, min(first + BLOCK, len(images))):
            try:
                pixels[row] = images.square(row, size)
            except DataError as error:
                reasons[row] = str(error)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(fill, range(0, len(images), BLOCK)))
    if not reasons:
        return images, pixels, []
    check_skipped(len(reasons), len(images), tolerance, reasons[min(reasons)])
    kept = np.setdiff1d(np.arange(len(images)), list(reasons))
    return images.take(kept), pixels[kept], [(str(images.ids[row]), reasons[row]) for row in sorted(reasons)]


def load_pixels(images: Images, size: int, *, tolerance: float = 0.001) -> tuple[Images, Pixels | None, list[tuple[str, str]]]:
    """`decode` where the pixels take at most half of the free memory; otherwise no pixels, to be decoded as needed."""
    psutil = require("psutil")

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
