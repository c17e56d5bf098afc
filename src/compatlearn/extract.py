"""Model + images → features: in memory for a comparison, on disk in resumable shards for a gallery."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from PIL import Image
from safetensors import SafetensorError
from torch import nn

from .backbones import Embedder, ModelSpec, build_backbone, load_function, weights_hash
from .data import Images, check_skipped, to_square
from .errors import ConfigError, DataError, FormatError
from .feature_writer import FeatureWriter
from .features import Features
from .runs import load_learner
from .train import TrainingSet


@dataclass(frozen=True)
class Encoder:
    """A model as extraction sees it: pictures in, vectors out, and the name of the space they live in."""

    encode: Callable[[list[Image.Image]], Float[np.ndarray, "b d"]]
    space: str


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
    first = (pixels.shape[2] - size) // 2
    cropped = pixels[:, :, first : first + size, first : first + size] if first > 0 else pixels
    return cropped.contiguous(memory_format=torch.channels_last)


def load_encoder(model: str, *, weights: Path | None = None, device: str | None = None) -> Encoder:
    """A model to extract with.

    Args:
        model: a file or folder that `compatlearn train` wrote; `module:function`, a black box that is called with a list of
            RGB pictures and returns (b, d) vectors; a timm or torchvision name, with a hub's weights or `weights`.
        weights: a .safetensors file, or a .pt or .pth state dict, for a name.
        device: torch's name of it; by default a GPU if there is one.

    Raises:
        ConfigError, DataError, FormatError: there is no such model, or its weights do not fit.
    """
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    path = Path(model)
    if path.is_dir() and (path / "model.safetensors").exists():
        path = path / "model.safetensors"
    if path.is_file():
        learner = load_learner(path)
        return module_encoder(learner.embedder.to(target), f"{learner.embedder.spec.backbone}@{weights_hash(learner.embedder)}")
    if ":" in model and not model.startswith("hf-hub:"):
        return _black_box(model)
    if path.suffix in (".safetensors", ".pt", ".pth", ".pkl"):
        raise DataError(f"{model} does not exist")
    network = build_backbone(model, pretrained=weights is None)
    if weights is not None:
        _load_weights(network, weights)
    embedder = Embedder(_preprocessing(model, network), network).to(target)
    return module_encoder(embedder, f"{model}@{weights_hash(network)}")


def module_encoder(embedder: Embedder, space: str) -> Encoder:
    """An encoder of our own models: scale, crop, normalise, forward."""
    embedder.eval()

    def encode(pictures: list[Image.Image]) -> Float[np.ndarray, "b d"]:
        squares = np.stack([to_square(picture, embedder.spec.resize) for picture in pictures])
        with torch.inference_mode():
            pixels = _middle(torch.from_numpy(squares).to(embedder.mean.device), embedder.spec.image_size)
            return embedder(pixels).float().cpu().numpy()

    return Encoder(encode, space)


def _black_box(name: str) -> Encoder:
    function = load_function(name)

    def encode(pictures: list[Image.Image]) -> Float[np.ndarray, "b d"]:
        vectors = function(pictures)
        values = vectors.detach().cpu().numpy() if isinstance(vectors, torch.Tensor) else np.asarray(vectors)
        if values.ndim != 2 or len(values) != len(pictures) or not np.issubdtype(values.dtype, np.floating):
            raise DataError(
                f"{name} was given {len(pictures)} images and must return ({len(pictures)}, d) floats; "
                f"it returned {values.dtype} of shape {values.shape}"
            )
        return values.astype(np.float32, copy=False)

    return Encoder(encode, name)


def _preprocessing(name: str, network: nn.Module) -> ModelSpec:
    """Image size, scale and normalisation that a network was trained with: timm's record, else ImageNet's."""
    from timm.data.config import resolve_model_data_config

    if not hasattr(network, "pretrained_cfg"):
        return ModelSpec(name, image_size=224, resize=256)
    record = resolve_model_data_config(network)
    size = record["input_size"][-1]
    return ModelSpec(name, size, max(size, int(size / record["crop_pct"])), None, tuple(record["mean"]), tuple(record["std"]))


def _load_weights(network: nn.Module, path: Path) -> None:
    """A state dict into a network without its classifier; what is left over may only be the classifier."""
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError) as error:
        raise FormatError(f"{path} cannot be read as weights: {error}") from error
    except Exception as error:  # torch.load refuses a pickle of anything but tensors in several ways
        raise FormatError(f"{path} holds more than tensors and is not opened; save its state dict as .safetensors") from error
    state = state.get("state_dict", state.get("model", state)) if isinstance(state, dict) else state
    own = network.state_dict()
    missing = [name for name in own if name not in state]
    if missing:
        raise ConfigError(
            f"{path} lacks {len(missing)} of the network's {len(own)} tensors (first: {missing[0]}); is it another architecture?"
        )
    try:
        network.load_state_dict({name: state[name] for name in own})
    except RuntimeError as error:
        raise ConfigError(f"{path} does not fit the network: {str(error).splitlines()[-1].strip()}") from error


def extract(
    encoder: Encoder,
    images: Images,
    out: Path,
    *,
    batch_size: int = 256,
    shard_rows: int = 16384,
    dtype: str = "float32",
    tolerance: float = 0.001,
    threads: int = 4,
) -> Features:
    """Features of all images on disk; run again after an interruption, it goes on at the first missing shard.

    An image that cannot be read is left out, recorded in `skipped.json` with the reason, and counted.

    Raises:
        DataError: more than `tolerance` of the images are unreadable, or the model returned something else than vectors.
        FormatError: `out` holds another extraction.
    """
    writer = FeatureWriter(out, rows=len(images), shard_rows=shard_rows, space=encoder.space, source=images.source, dtype=dtype)
    with ThreadPoolExecutor(threads) as pool:
        for shard in writer.missing():
            rows = range(shard * shard_rows, min((shard + 1) * shard_rows, len(images)))
            batches = [rows[first : first + batch_size] for first in range(0, len(rows), batch_size)]
            kept, vectors, skipped = [], [], []
            pending = pool.map(lambda row: _try_picture(images, row), batches[0])
            for following in [*batches[1:], None]:
                pictures = list(pending)
                if following is not None:  # decoded while the model works on this batch
                    pending = pool.map(lambda row: _try_picture(images, row), following)
                good = [(row, picture) for row, picture, _ in pictures if picture is not None]
                skipped += [(str(images.ids[row]), reason) for row, picture, reason in pictures if picture is None]
                if good:
                    vectors.append(encoder.encode([picture for _, picture in good]))
                    kept += [row for row, _ in good]
            check_skipped(
                len(skipped),
                max(len(rows), round(1 / max(tolerance, 1e-9))),
                tolerance,
                skipped[0][1] if skipped else "",
            )
            if not vectors:
                raise DataError(f"none of the {len(rows)} images of shard {shard} can be read: {skipped[0][1]}")
            writer.write(shard, np.concatenate(vectors), images.labels[kept], images.ids[kept], skipped=skipped)
    return writer.finish()


def _try_picture(images: Images, row: int) -> tuple[int, Image.Image | None, str]:
    try:
        return row, images.picture(row), ""
    except DataError as error:
        return row, None, str(error)
