"""The file of an adapter: its weights, and a header that says what it is and where it comes from."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..errors import DataError, FormatError
from ..files import write_atomically
from .network import MapNetwork

FORMAT = "compatlearn-adapter"
TEXTS = ("method", "space_new", "space_old", "version", "date", "metric", "direction")


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
        direction: "query": new vectors become old ones.
        rows: pairs it was fitted to.
        seed: of training and of the pairs kept out.
        options: of the method.
        inputs: BLAKE2b of the new and of the old vectors.
        figures: of its test on pairs kept out, as `Trial.to_dict` gives them.
        facts: what there was to choose by.
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


def write(path: Path, network: MapNetwork, record: Record) -> None:
    """Write a safetensors file with a JSON header; atomic."""
    header = {"format": FORMAT, "sizes": json.dumps(network.sizes)}
    header |= {name: value if name in TEXTS else json.dumps(value) for name, value in asdict(record).items()}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    write_atomically(path, lambda temporary: save_file(tensors, temporary, header))


def read(path: Path) -> tuple[MapNetwork, Record]:
    """Read what `write` wrote, or an earlier version.

    Raises:
        DataError: there is no such file.
        FormatError: it is something else, not whole, or for another direction.
    """
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
        known = {name: header[name] for name in Record.__dataclass_fields__ if name in header}
        record = Record(**{name: value if name in TEXTS else json.loads(value) for name, value in known.items()})
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise _broken(path, error) from error
    if record.direction != "query":
        raise FormatError(f"{path} maps {record.direction} vectors, which this version cannot use; update compatlearn")
    return network.eval().requires_grad_(False), record


def _broken(path: Path, error: Exception) -> FormatError:
    return FormatError(f"{path} is not a whole adapter ({error}); make it again with `compatlearn adapt`")
