"""The file of a model that was trained here: weights, and in the header what rebuilds it."""

import json
from dataclasses import asdict
from pathlib import Path

from ..errors import FormatError
from ..files import read_tensors, write_tensors
from .networks import Embedder, Learner, ModelSpec

FORMAT = "compatlearn-model"
REMEDY = "train one, or for other weights give a backbone name and --weights"


def save_learner(learner: Learner, path: Path) -> None:
    """Weights of embedder and classifier as safetensors, the model's spec in the header; atomic."""
    write_tensors(path, learner.state_dict(), {"format": FORMAT, "spec": asdict(learner.embedder.spec)})


def load_learner(path: Path) -> Learner:
    """A model that `train` saved.

    Raises:
        DataError: there is no such file.
        FormatError: the file is not safetensors, or was not written by `save_learner`.
    """
    header, weights = read_tensors(path, format=FORMAT, what="model of `compatlearn train`", remedy=REMEDY)
    try:
        spec = json.loads(header["spec"])
        spec |= {"mean": tuple(spec["mean"]), "std": tuple(spec["std"])}
        learner = Learner(Embedder(ModelSpec(**spec)), len(weights["classifier.weight"]))
        learner.load_state_dict(weights)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise FormatError(f"{path} does not hold the model that its header tells of ({error}); train it again") from error
    return learner.eval()
