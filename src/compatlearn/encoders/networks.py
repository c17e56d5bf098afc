"""A name becomes a torch module that maps uint8 pixels to features."""

import hashlib
import importlib
import re
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Num, UInt8
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ..data.hub import asking_hub
from ..errors import ConfigError, DataError
from ..extras import require

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ModelSpec:
    """Everything needed to rebuild a model; saved as the header of its weights.

    Attributes:
        backbone: name for `build_backbone`.
        image_size: side of the crop, in pixels.
        resize: the shorter side before the crop, in pixels.
        dimension: of the linear layer behind the backbone; None for no such layer.
        mean: of red, green and blue, in [0, 1].
        std: standard deviations of the same.
        interpolation: of the scaling.
        squash: scale both sides to `resize` instead of keeping the proportions.
    """

    backbone: str
    image_size: int
    resize: int
    dimension: int | None = None
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: str = "bicubic"
    squash: bool = False


class Embedder(nn.Module):
    """A backbone, plus a linear layer where another dimension is wanted: (b, 3, s, s) pixels in [0, 255] → (b, d).

    `dimension` is d. Pixels may be uint8 or floats; they are scaled and normalised here, so that weights and preprocessing
    stay together.

    Args:
        spec: how to build it.
        backbone: the network; None builds the one that `spec` names.

    Raises:
        ConfigError: the backbone is unknown, or does not give (batch, dimension) features.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: ModelSpec, backbone: nn.Module | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.backbone = build_backbone(spec.backbone) if backbone is None else backbone
        width = feature_dimension(self.backbone, spec.image_size)
        self.dimension = spec.dimension or width
        self.head = nn.Linear(width, self.dimension) if spec.dimension else nn.Identity()
        self.register_buffer("mean", 255 * torch.tensor(spec.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(spec.std).view(3, 1, 1), persistent=False)

    def forward(self, pixels: Num[Tensor, "b 3 s s"]) -> Float[Tensor, "b d"]:
        features: Tensor = self.head(self.backbone((pixels - self.mean) / self.std))
        return features


class Learner(nn.Module):
    """Embedder and new classifier in one forward pass: pixels → (b, d) features and (b, c) logits in float32."""

    def __init__(self, embedder: Embedder, classes: int) -> None:
        super().__init__()
        self.embedder = embedder
        self.classifier = nn.Linear(embedder.dimension, classes)

    def forward(self, pixels: UInt8[Tensor, "b 3 s s"]) -> tuple[Tensor, Tensor]:
        features = self.embedder(pixels)
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            return features, self.classifier(features)


class ResidualBlock(nn.Module):
    """Two 3 × 3 convolutions and a shortcut (He et al., CVPR 2016)."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or width_in != width:
            self.shortcut = nn.Sequential(nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(inner)) + self.shortcut(x))


def small_resnet(width: int) -> nn.Module:
    """Residual network for images of 16 to 64 pixels: a stem of stride 2 and three stages of one block.

    Args:
        width: channels of the first stage; the last has four times as many.

    Returns:
        A module (b, 3, s, s) → (b, 4 · width).
    """
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 2, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        ResidualBlock(width, width, 1),
        ResidualBlock(width, 2 * width, 2),
        ResidualBlock(2 * width, 4 * width, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


def build_backbone(name: str, *, pretrained: bool = False) -> nn.Module:
    """A network without its classifier.

    Args:
        name: `small_resnet32` (any width), a timm name, a torchvision name, or `module:function` that returns a module.
        pretrained: weights from the hub instead of new ones.

    Returns:
        A module (b, 3, s, s) → (b, d).

    Raises:
        ConfigError: there is no such network, the function does not return a module, or the network has no weights of its own.
        DataError: the hub does not provide the weights.
    """
    if ":" in name and not name.startswith("hf-hub:"):
        function = load_function(name)
        try:
            module = function()
        except Exception as error:  # anyone's function
            raise ConfigError(f"{name}() failed: {type(error).__name__}: {error}") from error
        if not isinstance(module, nn.Module):
            raise ConfigError(f"{name}() must return a torch module; it returned {type(module).__name__}")
        return module
    if small := re.fullmatch(r"small_resnet([1-9]\d*)", name):
        if pretrained:
            raise ConfigError(f"{name} has no weights of its own; give the folder of a run of `compatlearn train`")
        return small_resnet(int(small[1]))
    timm = require("timm")
    torchvision = require("torchvision")

    if name.startswith("hf-hub:") or name.split(".")[0] in timm.list_models():
        return _from_timm(name, pretrained)
    if name in torchvision.models.list_models(torchvision.models):
        return _without_classifier(name, _from_torchvision(name, pretrained))
    from difflib import get_close_matches

    known = ["small_resnet32", *timm.list_models(), *torchvision.models.list_models(torchvision.models)]
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "give a timm or torchvision name, small_resnet32, or module:function"
    raise ConfigError(f"unknown backbone {name!r}; {hint}")


def _from_timm(name: str, pretrained: bool) -> nn.Module:
    timm = require("timm")

    asked = pretrained or name.startswith("hf-hub:")
    with asking_hub(f"the weights of {name} cannot be had", "pass a file as --weights") if asked else nullcontext():
        try:
            network: nn.Module = timm.create_model(name, pretrained=pretrained, num_classes=0)
        except RuntimeError as error:  # a tag after the dot that it does not know, or no weights
            raise ConfigError(f"timm cannot make {name!r}: {str(error).rstrip('.')}; see timm.list_pretrained()") from error
    return network


def _from_torchvision(name: str, pretrained: bool) -> nn.Module:
    torchvision = require("torchvision")

    options = {"aux_logits": False, "init_weights": False} if name == "googlenet" and not pretrained else {}
    try:
        network: nn.Module = torchvision.models.get_model(name, weights="DEFAULT" if pretrained else None, **options)
    except OSError as error:
        raise DataError(f"the weights of {name} cannot be had ({error}); pass a file as --weights") from error
    return network


def _without_classifier(name: str, network: nn.Module) -> nn.Module:
    for attribute in ("fc", "classifier", "heads", "head"):
        if hasattr(network, attribute):
            setattr(network, attribute, nn.Identity())
            return network
    raise ConfigError(f"cannot tell the classifier of torchvision's {name!r}; wrap it in a function and pass module:function")


def feature_dimension(backbone: nn.Module, image_size: int) -> int:
    """The dimension of the features that a backbone gives, from one forward pass in evaluation mode.

    Args:
        backbone: (b, 3, s, s) → (b, d).
        image_size: s.

    Returns:
        d.

    Raises:
        ConfigError: it gives something else.
    """
    training = backbone.training
    backbone.eval()
    with torch.no_grad():
        features = backbone(torch.zeros(2, 3, image_size, image_size))
    backbone.train(training)
    if not isinstance(features, Tensor) or features.ndim != 2:
        shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise ConfigError(f"a backbone must return (batch, dimension) features; got {shape}")
    return features.shape[1]


def memory_format(backbone: nn.Module, image_size: int) -> torch.memory_format:
    """The memory layout to train a backbone in: channels last, which is faster, unless oneDNN computes wrongly in it.

    In channels-last memory, the float32 weight gradient of a strided 1 × 1 convolution with fewer than 8 input channels is
    wrong and writes out of bounds (oneDNN issue 6035, on processors with AVX2 and without AVX-512). Every convolution that one
    forward pass runs is examined, whoever wrote the network, and on every processor: a run that moves to another machine keeps
    its layout.

    Args:
        backbone: (b, 3, s, s) → (b, d).
        image_size: s.

    Returns:
        The layout for images and weights.
    """
    with _Convolutions() as watch:  # type: ignore[no-untyped-call]
        feature_dimension(backbone, image_size)
    return torch.contiguous_format if watch.affected else torch.channels_last


class _Convolutions(TorchDispatchMode):
    """Records whether a strided 1 × 1 convolution with fewer than 8 input channels, ungrouped, has run."""

    affected = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution.default:
            weight, stride, groups = args[1], args[3], args[8]
            self.affected |= groups == 1 and weight.shape[1] < 8 and weight[0, 0].numel() == 1 and max(stride) > 1
        return func(*args, **(kwargs or {}))


def load_function(name: str) -> Callable[..., Any]:
    """Import a function by name; the current folder is searched too, as with `python -m`.

    Args:
        name: `package.module:function`.

    Returns:
        The function.

    Raises:
        ConfigError: it cannot be imported, or is not callable.
    """
    module_name, _, attribute = name.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        function = getattr(importlib.import_module(module_name), attribute)
    except Exception as error:  # anyone's module
        raise ConfigError(f"cannot import {name!r}: {type(error).__name__}: {error}; give module:function") from error
    if not callable(function):
        raise ConfigError(f"{name!r} is not a function but {type(function).__name__}")
    return function


def weights_hash(module: nn.Module) -> str:
    """Eight hex digits of the weights: two models of the same name and hash have the same space."""
    digest = hashlib.blake2b(digest_size=4)
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
