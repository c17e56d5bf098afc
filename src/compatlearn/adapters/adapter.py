"""Adapters: maps from the features of a frozen new model to those of a frozen old one, both black boxes; and their file."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..arrays import Array, as_tensor, check_labels, check_rows, like, unit_length
from ..errors import ConfigError, DataError, FormatError, IncompatibleError, unknown
from ..files import write_atomically
from .heads import head, instance_head, lambda_orthogonal, neighbour_head, ranking_head, rbt, residual_mlp
from .linear import Map, low_rank, procrustes, ridge
from .network import MapNetwork
from .pairs import BLOCK, Pairs

FORMAT = "compatlearn-adapter"
HEAD_OPTIONS = ("epochs", "hidden", "temperature")


class Adapter(nn.Module):
    """New features in, old features out: (n, d_new) → (n, d_old) float32, NumPy or torch as given, on the same device.

    Attributes:
        method: its name in `ADAPTERS`.
        space_new, space_old: the two models; "" is unknown.
    """

    def __init__(self, network: MapNetwork, method: str, space_new: str = "", space_old: str = "") -> None:
        super().__init__()
        self.network = network
        self.method, self.space_new, self.space_old = method, space_new, space_old
        self.d_new, self.d_old = int(network.sizes["d_new"]), int(network.sizes["d_old"])

    @torch.no_grad()
    def forward(self, new: Float[Array, "n d_new"]) -> Float[Array, "n d_old"]:
        """Raises IncompatibleError for another dimension, DataError for vectors that cannot be used."""
        check_rows(new, "new features")
        if new.shape[1] != self.d_new:
            raise IncompatibleError(
                f"the adapter maps {self.d_new} dimensions, the new features have {new.shape[1]}; "
                "fit it on features of the same model"
            )
        device = self.network.centre.device
        blocks = (as_tensor(new[start : start + BLOCK]).to(device, torch.float32) for start in range(0, len(new), BLOCK))
        return like(torch.cat([self.network(block) for block in blocks]), new)


@dataclass(frozen=True)
class AdapterMethod:
    """One way to fit an adapter: fit(pairs, labels, unit, seed, **options) → network."""

    summary: str
    fit: Callable[..., MapNetwork]
    options: tuple[str, ...] = ()
    needs_labels: bool = False


def fit_adapter(
    name: str,
    new: Float[Array, "n d_new"],
    old: Float[Array, "m d_old"],
    labels: Int[Array, " m"] | None = None,
    *,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> Adapter:
    """The adapter called `name`, fitted to new and old features of the same items, row by row.

    Args:
        new, old: finite, any dimensions; memory maps are read in blocks. If every old row has unit length, so has
            what the adapter gives.
        labels: (n,) classes, for `rbt` and `head`.
        seed: of the rows held out and of training.
        options: of the method: see `ADAPTERS[name].options`.

    Raises:
        ConfigError: no such method or option; DataError: unusable features, or no labels; IncompatibleError: other rows.
    """
    if len(new) != len(old):
        raise IncompatibleError(f"{len(new)} new and {len(old)} old features; pair them: one row an item in both")
    rows = torch.arange(len(new))
    return fit_pairs(name, Pairs(new, old, rows, rows), labels, seed=seed, options=options)


def fit_pairs(
    name: str, pairs: Pairs, labels: Array | None = None, *, seed: int = 0, options: Mapping[str, Any] | None = None
) -> Adapter:
    """`fit_adapter` for rows by number, so that nothing is copied; labels are those of the pairs."""
    if name not in ADAPTERS:
        raise unknown("adapter", name, ADAPTERS)
    method, given = ADAPTERS[name], dict(options or {})
    for option in given:
        if option not in method.options:
            raise ConfigError(f"{name} has no option {option!r}; it has {', '.join(method.options) or 'none'}")
    if method.needs_labels and labels is None:
        raise DataError(f"{name} needs the class of each of {len(pairs)} rows; give labels, or use ridge, which needs none")
    check_rows(pairs.new, "new features")
    check_rows(pairs.old, "old features")
    classes = check_labels(labels, len(pairs)) if labels is not None and method.needs_labels else None
    unit = all(unit_length(as_tensor(old).cpu().numpy()) for _, old in pairs.blocks())
    return Adapter(method.fit(pairs, classes, unit, seed, **given), name)


def save_adapter(adapter: Adapter, path: str | Path) -> None:
    """Write a safetensors file with a JSON header; atomic."""
    header = {"format": FORMAT, "method": adapter.method, "space_new": adapter.space_new, "space_old": adapter.space_old}
    header["sizes"] = json.dumps(adapter.network.sizes)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in adapter.network.state_dict().items()}
    write_atomically(Path(path), lambda temporary: save_file(tensors, temporary, header))


def load_adapter(path: str | Path) -> Adapter:
    """Read what `save_adapter` wrote.

    Raises:
        DataError: there is no such file; FormatError: it is something else, or not whole.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"there is no adapter {path}; make one with `compatlearn adapt`")
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise _broken(path, error) from error
    if header.get("format") != FORMAT:
        raise FormatError(f"{path} is no adapter ({header.get('format', 'no format')}); make one with `compatlearn adapt`")
    try:
        network = MapNetwork(**json.loads(header["sizes"]))
        network.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise _broken(path, error) from error
    return Adapter(network.eval().requires_grad_(False), header["method"], header["space_new"], header["space_old"])


def _broken(path: Path, error: Exception) -> FormatError:
    return FormatError(f"{path} is not a whole adapter ({error}); make it again with `compatlearn adapt`")


def _closed(
    function: Callable[..., Map], pairs: Pairs, labels: Tensor | None, unit: bool, seed: int, **options: Any
) -> MapNetwork:
    weight, bias = function(pairs, seed, **options)
    network = MapNetwork(weight.shape[1], weight.shape[0], unit=unit).to(weight.device)
    return network.start_from((weight, bias)).eval().requires_grad_(False)


def _rotation(pairs: Pairs, labels: Tensor | None, unit: bool, seed: int) -> MapNetwork:
    return _closed(partial(procrustes, unit=unit), pairs, labels, unit, seed)


ADAPTERS: dict[str, AdapterMethod] = {
    "procrustes": AdapterMethod("the rotation of unit vectors, with one scale for raw old spaces", _rotation),
    "ridge": AdapterMethod("affine, least squares, strength from held-out rows", partial(_closed, ridge), ("strength",)),
    "low-rank": AdapterMethod("ridge of a rank from held-out rows", partial(_closed, low_rank), ("rank",)),
    "residual-mlp": AdapterMethod("ridge plus a hidden layer, by regression", residual_mlp, ("epochs", "hidden")),
    "lambda-orthogonal": AdapterMethod(
        "a matrix that stays near a rotation", lambda_orthogonal, ("epochs", "threshold", "sharpness")
    ),
    "rbt": AdapterMethod(
        "residual bottlenecks, classification and similarity", rbt, ("epochs", "blocks", "similarity"), needs_labels=True
    ),
    "head": AdapterMethod(
        "compatible head: ridge, trained on with the influence loss", head, ("epochs", "hidden", "loss"), needs_labels=True
    ),
    "neighbour-head": AdapterMethod(
        "compatible head, neighbour loss: known classes", neighbour_head, HEAD_OPTIONS, needs_labels=True
    ),
    "mixed-head": AdapterMethod(
        "compatible head, neighbour and instance loss: new classes", partial(neighbour_head, instance=1.0), HEAD_OPTIONS, True
    ),
    "ranking-head": AdapterMethod(
        "compatible head, ranks as the new model: no classes needed", ranking_head, (*HEAD_OPTIONS, "instance")
    ),
    "instance-head": AdapterMethod("compatible head, instance loss: no classes known", instance_head, HEAD_OPTIONS),
}
