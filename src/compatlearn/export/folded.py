"""A map as stock modules of sentence-transformers: no code of ours has to be trusted to load them."""

import importlib
from typing import Any

import torch

from ..adapters.adapter import Adapter
from ..adapters.methods import GALLERY
from ..adapters.network import MapNetwork
from ..errors import ConfigError
from ..extras import require


def folded(adapter: Adapter) -> list[Any]:
    """The map as stock modules: the centre folds into a bias, spread and length into a matrix.

    Args:
        adapter: fitted, of direction "query".

    Returns:
        `Dense`, and `Normalize` where lengths are one.

    Raises:
        ConfigError: a map of the gallery, or one that stock modules cannot express; sentence-transformers is not installed.
    """
    if adapter.direction == GALLERY:
        raise ConfigError("the adapter maps old vectors into the new space; queries need one of direction 'query'")
    network = adapter.network_
    if not isinstance(network, MapNetwork):
        raise ConfigError(
            f"a {adapter.method_} map does not fit into modules of sentence-transformers; use compatlearn.runtime, or fit "
            "another method, such as distilled or ridge"
        )
    centre, spread, length = (tensor.cpu().double() for tensor in (network.centre, network.spread, network.length))
    matrix, bias = _weights(network.linear)
    matrix = matrix / spread
    stages = [(matrix, bias - matrix @ centre, _units(network.branch, spread, centre))]
    same = torch.eye(len(bias), dtype=torch.float64)
    stages += [(same, torch.zeros_like(bias), _units(block)) for block in network.blocks]
    none = torch.ones_like(length)
    lengths = [none] * (len(stages) - 1) + [none if network.unit else length]
    layers = [module for stage, own in zip(stages, lengths, strict=True) for module in _stage(*stage, own)]
    unit = modules().Normalize
    return [*([unit()] if adapter.record_.unit_inputs else []), *layers, *([unit()] if network.unit else [])]


_Units = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]  # weights and biases into hidden units, and out


def _stage(matrix: torch.Tensor, bias: torch.Tensor, units: _Units | None, length: torch.Tensor) -> list[Any]:
    """length · (A x + b + V gelu(U x + c) + d). Stock modules have no sum, but gelu(z) − gelu(−z) = z carries A x along."""
    if units is None:
        return [dense(length * matrix, length * bias)]
    inside, offset, outside, shift = units
    same, none = torch.eye(len(bias), dtype=torch.float64), torch.zeros(2 * len(bias), dtype=torch.float64)
    return [
        dense(torch.cat([inside, matrix, -matrix]), torch.cat([offset, none]), torch.nn.GELU()),
        dense(length * torch.cat([outside, same, -same], dim=1), length * (bias + shift)),
    ]


def _units(perceptron: Any, spread: Any = 1.0, centre: torch.Tensor | None = None) -> _Units | None:
    """Hidden units of vectors that are not centred and scaled yet."""
    if perceptron is None:
        return None
    inside, offset = _weights(perceptron[0])
    inside = inside / spread
    return inside, offset if centre is None else offset - inside @ centre, *_weights(perceptron[2])


def _weights(linear: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """(out, in) matrix and (out,) bias, float64 on the CPU."""
    return linear.weight.detach().cpu().double(), linear.bias.detach().cpu().double()


def dense(weight: torch.Tensor, bias: torch.Tensor | None, activation: torch.nn.Module | None = None) -> Any:
    """A `Dense`.

    Args:
        weight: (out, in) matrix.
        bias: (out,), or None for none.
        activation: of what comes out; None is none.
    """
    outputs, inputs = weight.shape
    activation = torch.nn.Identity() if activation is None else activation
    layer = modules().Dense(inputs, outputs, bias=bias is not None, activation_function=activation)
    with torch.no_grad():
        layer.linear.weight.copy_(weight)
        if bias is not None:
            layer.linear.bias.copy_(bias)
    return layer


def modules() -> Any:
    """The stock modules of sentence-transformers; they have moved between versions."""
    require("sentence_transformers")
    try:
        return importlib.import_module("sentence_transformers.sentence_transformer.modules")
    except ModuleNotFoundError:
        return importlib.import_module("sentence_transformers.models")
