"""Batches of images for training: decoded, cropped and flipped; and one pass over them for features in memory."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int64, UInt8
from torch import Tensor

from ..config import TrainConfig
from ..data.images import Images, Pixels, check_skipped
from ..encoders.networks import Embedder
from ..errors import DataError

Batch = tuple[UInt8[Tensor, "b 3 s s"], Int[Tensor, " b"], Int[Tensor, " b"]]


class TrainingSet(torch.utils.data.Dataset[Batch]):
    """Batches of (pixels, labels, rows): from one array of all pixels, or decoded as they are asked for.

    An image that cannot be read is left out of its batch; more than one of them, and more than `tolerance`, is an error.
    """

    def __init__(self, images: Images, size: int, pixels: Pixels | None, tolerance: float) -> None:
        self.images, self.size, self.pixels, self.tolerance = images, size, pixels, tolerance
        self.labels = torch.from_numpy(images.labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, rows: list[int]) -> Batch:
        if self.pixels is not None:
            return torch.from_numpy(self.pixels[rows]), self.labels[rows], torch.tensor(rows)
        read, squares, reason = [], [], ""
        for row in rows:
            try:
                squares.append(self.images.square(row, self.size))
                read.append(row)
            except DataError as error:
                reason = str(error)
        if reason:
            # a batch is too small to show a share of one in a thousand: one bad image in it is always let pass
            check_skipped(len(rows) - len(read) - 1, len(rows), self.tolerance, reason)
        return torch.from_numpy(np.stack(squares)), self.labels[read], torch.tensor(read)


def augment(pixels: UInt8[Tensor, "b 3 h h"], config: TrainConfig, generator: torch.Generator) -> UInt8[Tensor, "b 3 s s"]:
    """Random crop (after padding) and random flip, one draw an image; the result is in channels-last memory."""
    pixels = F.pad(pixels, [config.padding] * 4) if config.padding else pixels
    count, side, crop = len(pixels), pixels.shape[2], config.image_size
    corner = torch.randint(0, side - crop + 1, (2, count, 1), generator=generator)
    rows, columns = corner + torch.arange(crop)  # (b, s) each
    if config.flip:
        flipped = torch.rand(count, 1, generator=generator) < 0.5
        columns = torch.where(flipped, columns.flip(1), columns)
    rows, columns = rows.to(pixels.device), columns.to(pixels.device)
    image = torch.arange(count, device=pixels.device)[:, None, None]
    return pixels[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)  # (b, s, s, 3) → (b, 3, s, s)


def embed(
    embedder: Embedder, dataset: TrainingSet, *, batch_size: int = 512, workers: int = 0
) -> tuple[Float[np.ndarray, "n d"], Int64[np.ndarray, " n"]]:
    """Features of every readable image of a data set, in its order, and their rows; float32, on the embedder's device."""
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_size=batch_size,
        collate_fn=lambda batch: batch,
        num_workers=0 if dataset.pixels is not None else workers,
    )
    device = embedder.mean.device
    embedder.eval()
    vectors, rows = [], []
    with torch.inference_mode():
        for pixels, _, batch_rows in loader:
            vectors.append(embedder(_middle(pixels.to(device), embedder.spec.image_size)).float().cpu())
            rows.append(batch_rows)
    return torch.cat(vectors).numpy(), torch.cat(rows).numpy()


def _middle(pixels: torch.Tensor, size: int) -> torch.Tensor:
    """(b, 3, s, s) → (b, 3, size, size) in channels-last memory; smaller images as they are."""
    first = (pixels.shape[2] - size) // 2
    cropped = pixels[:, :, first : first + size, first : first + size] if first > 0 else pixels
    return cropped.contiguous(memory_format=torch.channels_last)
