"""The file of a model that was trained here: weights, and in the header what rebuilds it."""

import json
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..errors import FormatError
from ..files import write_atomically
from .networks import Embedder, Learner, ModelSpec


def save_learner(learner: Learner, path: Path) -> None:
    """Weights of embedder and classifier as safetensors, the model's spec in the header; atomic."""
    header = {"format": "compatlearn-model", "spec": json.dumps(asdict(learner.embedder.spec))}
    weights = {name: value.detach().cpu().contiguous() for name, value in learner.state_dict().items()}
    write_atomically(path, lambda temporary: save_file(weights, temporary, header))


def load_learner(path: Path) -> Learner:
    """A model that `train` saved.

    Raises:
        FormatError: the file is not safetensors, or was not written by `save_learner`.
    """
    try:
        with safe_open(path, "pt") as file:
            header, weights = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise FormatError(f"{path} is not a safetensors file: {error}") from error
    if header.get("format") != "compatlearn-model":
        raise FormatError(
            f"{path} was not written by `compatlearn train`; for other weights give a backbone name and --weights"
        )
    try:
        spec = json.loads(header["spec"])
        spec |= {"mean": tuple(spec["mean"]), "std": tuple(spec["std"])}
        learner = Learner(Embedder(ModelSpec(**spec)), len(weights["classifier.weight"]))
        learner.load_state_dict(weights)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise FormatError(f"{path} does not hold the model that its header tells of ({error}); train it again") from error
    return learner.eval()
