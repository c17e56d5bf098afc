"""A model as extraction sees it, pictures in and vectors out: one of ours, one by name, or anyone's function."""

import pickle
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import nn

from ..arrays import Array, as_tensor
from ..data.images import to_square
from ..errors import ConfigError, DataError, FormatError
from ..extras import require
from .black_box import call
from .model_file import load_learner
from .networks import Embedder, ModelSpec, build_backbone, load_function, weights_hash

if TYPE_CHECKING:
    from PIL import Image
else:
    Image = require("PIL.Image")


def _as_it_is(picture: Image.Image) -> Image.Image:
    return picture


@dataclass(frozen=True)
class Encoder:
    """A model as extraction sees it: pictures in, vectors out, and the name of the space they live in.

    Attributes:
        forward: prepared pictures → (b, d) vectors, which may still be on their way from a GPU.
        space: name of the space.
        prepare: what is done to a single picture, in the threads that decode.
    """

    forward: Callable[[list[Any]], Float[Array, "b d"]]
    space: str
    prepare: Callable[[Image.Image], Any] = _as_it_is

    def encode(self, pictures: list[Image.Image]) -> Float[np.ndarray, "b d"]:
        """Prepare and embed.

        Args:
            pictures: b of them, RGB.

        Returns:
            (b, d) vectors.
        """
        return as_tensor(self.forward([self.prepare(picture) for picture in pictures])).cpu().numpy()


def load_encoder(model: str, *, weights: Path | None = None, device: str | None = None) -> Encoder:
    """A model to extract with.

    Args:
        model: a file or folder that `compatlearn train` wrote; `module:function`, a black box that is called with a list of
            RGB pictures and returns (b, d) vectors; or a timm or torchvision name, with the hub's weights or `weights`.
        weights: a .safetensors file, or a .pt or .pth state dict, for a name.
        device: torch's name for it; by default a GPU if there is one.

    Returns:
        The encoder; its space is the name and a hash of the weights, or the name of the black box.

    Raises:
        ConfigError: there is no such network, function or device, or the weights do not fit.
        DataError: there is no such file, the run is not finished, or the hub does not provide the weights.
        FormatError: a file of weights is damaged or holds more than tensors.
    """
    target = _device(device)
    file, black_box = _run_file(Path(model)), ":" in model and not model.startswith("hf-hub:")
    if weights is not None and (file or black_box):
        raise ConfigError(f"--weights is for a timm or torchvision name; {model} has its own, so leave it out")
    if file:
        embedder = load_learner(file).embedder
        return module_encoder(embedder.to(target), f"{embedder.spec.backbone}@{weights_hash(embedder)}")
    if black_box:
        function = load_function(model)
        return Encoder(lambda pictures: call(function, model, pictures, "images"), model)
    if not model.startswith("hf-hub:") and ("/" in model or Path(model).suffix in (".safetensors", ".pt", ".pth", ".pkl")):
        raise DataError(
            f"there is no {model}; give a run of `compatlearn train`, a timm or torchvision name, or module:function"
        )
    network = build_backbone(model, pretrained=weights is None)
    if weights is not None:
        _load_weights(network, weights)
    embedder = Embedder(_preprocessing(model, network), network).to(target)
    return module_encoder(embedder, f"{model}@{weights_hash(network)}")


def module_encoder(embedder: Embedder, space: str) -> Encoder:
    """An encoder made of a torch module with its preprocessing: scale, crop, normalise, forward.

    Args:
        embedder: the module; it is put into evaluation mode.
        space: name of its space.

    Returns:
        The encoder, on the device of the module.
    """
    embedder.eval().to(memory_format=torch.channels_last)
    spec, device = embedder.spec, embedder.mean.device

    def prepare(picture: Image.Image) -> UInt8[np.ndarray, "s s 3"]:
        crop = min(spec.resize, spec.image_size)
        square = to_square(picture, spec.resize, crop=crop, interpolation=spec.interpolation, squash=spec.squash)
        return square.transpose(1, 2, 0)

    def forward(squares: list[UInt8[np.ndarray, "s s 3"]]) -> Float[torch.Tensor, "b d"]:
        pixels = torch.empty((len(squares), *squares[0].shape), dtype=torch.uint8, pin_memory=device.type == "cuda")
        np.stack(squares, out=pixels.numpy())
        with torch.inference_mode():  # (b, s, s, 3) seen as (b, 3, s, s) is channels-last memory
            return embedder(pixels.to(device, non_blocking=True).permute(0, 3, 1, 2)).float()

    return Encoder(forward, space, prepare)


def _device(name: str | None) -> torch.device:
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=device)
    except Exception as error:  # no such kind, no such number, torch built without it: three kinds of error
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device {name!r} cannot be used: {reason}; name another, or none for the default") from error
    return device


def _run_file(path: Path) -> Path | None:
    """The weights that `compatlearn train` wrote to a file or folder; None where there is neither."""
    if path.is_dir() and (path / "run.json").exists() and not (path / "model.safetensors").exists():
        raise DataError(f"{path} holds a training that is not finished; go on with `compatlearn train --resume`")
    path = path / "model.safetensors" if path.is_dir() else path
    return path if path.is_file() else None


def _preprocessing(name: str, network: nn.Module) -> ModelSpec:
    """The image size, scale and normalisation that a network was trained with, as timm or torchvision record them.

    Raises:
        ConfigError: there is no record, or it cannot be honoured here.
    """
    resolve_model_data_config = require("timm.data.config").resolve_model_data_config
    models = require("torchvision.models")

    colours: dict[str, Any]
    if not hasattr(network, "pretrained_cfg"):
        if name not in models.list_models(models):
            raise ConfigError(f"{name} does not say which images it wants; give the folder of a run of `compatlearn train`")
        preset = models.get_model_weights(name).DEFAULT.transforms()
        colours = {"mean": tuple(preset.mean), "std": tuple(preset.std)}
        size, resize, interpolation = preset.crop_size[0], preset.resize_size[0], preset.interpolation.value
        return ModelSpec(name, size, resize, **colours, interpolation=interpolation)
    record = resolve_model_data_config(network)
    (_, height, width), mode = record["input_size"], record["crop_mode"]
    if height != width or mode not in ("center", "squash"):
        raise ConfigError(
            f"{name} wants images of {height} × {width} pixels, cropped by {mode!r}; only squares by 'center' and 'squash' "
            "are known here, so wrap it in a function and pass module:function"
        )
    colours = {"mean": tuple(record["mean"]), "std": tuple(record["std"])}
    resize = max(height, int(height / record["crop_pct"]))
    return ModelSpec(name, height, resize, **colours, interpolation=record["interpolation"], squash=mode == "squash")


def _load_weights(network: nn.Module, path: Path) -> None:
    """Load a state dict into a network without its classifier; nothing but the classifier may be left over."""
    state, own = _read_state(path), network.state_dict()
    missing = [name for name in own if not isinstance(state.get(name), torch.Tensor)]
    if missing:
        raise ConfigError(
            f"{path} lacks {len(missing)} of the network's {len(own)} tensors (first: {missing[0]}; the file begins with "
            f"{next(iter(state), 'nothing')}); is it another architecture?"
        )
    try:
        network.load_state_dict({name: state[name] for name in own})
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip().rstrip(".")
        raise ConfigError(f"{path} does not fit the network: {reason}; name the network that it was saved from") from error


def _read_state(path: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    if not path.is_file():
        raise DataError(f"there are no weights {path}; check --weights")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about a foreign pickle before it refuses it
            safe = path.suffix == ".safetensors"
            state = load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise FormatError(f"{path} holds more than tensors and is not opened; save its state dict as .safetensors") from error
    except Exception as error:  # both fail in many ways on damaged bytes
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        size = path.stat().st_size
        raise FormatError(f"{path} is not a whole file of weights ({size} bytes: {reason}); write it again") from error
    for key in ("state_dict", "model"):
        state = state.get(key, state) if isinstance(state, dict) else state
    if not isinstance(state, dict):
        raise FormatError(f"{path} holds a {type(state).__name__}, not a state dict; save model.state_dict()")
    return state
