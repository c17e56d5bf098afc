"""The file of an adapter: its weights, and a header that says what it is and where it comes from."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from ..arrays import unit_rows
from ..errors import FormatError
from ..files import header_texts, read_tensors, write_tensors
from ..runtime import FORMAT, LAYOUT, digest
from .kernel import KernelNetwork
from .methods import GALLERY, QUERY
from .network import MapNetwork

Network: TypeAlias = MapNetwork | KernelNetwork
REMEDY = "make one with `compatlearn adapt`"
TEXTS = ("method", "space_new", "space_old", "version", "date", "metric", "direction", "facts")


@dataclass(frozen=True)
class Record:
    """Where an adapter comes from; what a file of an earlier version does not say is empty.

    Attributes:
        method: what was fitted.
        space_new: the new model; "" is unknown.
        space_old: the old model; "" is unknown.
        version: of compatlearn.
        date: of the fit, UTC, ISO 8601.
        metric: that ranks the index.
        direction: "query": new vectors become old ones; "gallery": old ones become new ones.
        rows: pairs it was fitted to.
        seed: of training and of the pairs kept out.
        options: of the method.
        inputs: BLAKE2b of the new and of the old vectors.
        figures: of its test on pairs kept out, as `Trial.to_dict` gives them.
        facts: what there was to choose by.
        unit_inputs: the metric is the cosine, and all that it was fitted to had unit length: so must what it is given.
    """

    method: str
    space_new: str = ""
    space_old: str = ""
    version: str = ""
    date: str = ""
    metric: str = ""
    direction: str = "query"
    rows: int | None = None
    seed: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    facts: str = ""
    unit_inputs: bool = False

    def scaled(self, rows: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Rows as the map wants them: of unit length if those were that it was fitted to, under the cosine."""
        return unit_rows(rows).nan_to_num(nan=0.0) if self.unit_inputs else rows  # a row of length zero has no direction


def write(path: Path, network: Network, record: Record) -> None:
    """Write the file, atomically.

    Args:
        path: the .safetensors file.
        network: the fitted map.
        record: the header.

    Raises:
        DataError: the disk is full, or the folder cannot be written.
    """
    tensors = network.state_dict()
    texts = header_texts({"format": FORMAT, "layout": LAYOUT, "sizes": network.sizes, **asdict(record)})
    arrays = {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
    write_tensors(path, tensors, texts | {"digest": digest(texts, arrays)})


def read(path: Path) -> tuple[Network, Record]:
    """Read what `write` wrote, or an earlier version.

    Args:
        path: the .safetensors file.

    Returns:
        The map and its header.

    Raises:
        DataError: there is no such file.
        FormatError: it is something else, not whole, changed, of a later version, or for an unknown direction.
    """
    header, tensors = read_tensors(path, format=FORMAT, what="adapter", remedy=REMEDY)
    _check_layout(path, header, tensors)
    try:
        sizes = json.loads(header["sizes"])
        network = KernelNetwork(**sizes) if sizes.get("kind") == "kernel" else MapNetwork(**sizes)
        network.load_state_dict(tensors)
        known = {name: header[name] for name in Record.__dataclass_fields__ if name in header}
        fields: dict[str, Any] = {name: text if name in TEXTS else json.loads(text) for name, text in known.items()}
        record = Record(**fields)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise FormatError(f"{path} is not a whole adapter ({reason}); {REMEDY}") from error
    if record.direction not in (QUERY, GALLERY):
        raise FormatError(f"{path} maps {record.direction} vectors, which this version cannot use; update compatlearn")
    return network.eval().requires_grad_(False), record


def _check_layout(path: Path, header: dict[str, str], tensors: dict[str, Tensor]) -> None:
    """Refuse what was changed, or is of a later version; files of earlier versions have neither layout nor digest."""
    if "layout" not in header and "digest" not in header:
        return
    if header.get("layout") != LAYOUT:
        raise FormatError(f"{path} has layout {header.get('layout')}, and this version reads {LAYOUT}; update compatlearn")
    if any(tensor.dtype != torch.float32 for tensor in tensors.values()) or (
        digest(header, {name: tensor.numpy() for name, tensor in tensors.items()}) != header.get("digest")
    ):
        raise FormatError(f"{path} was changed after it was written: its digest is another; copy it again, or {REMEDY}")
