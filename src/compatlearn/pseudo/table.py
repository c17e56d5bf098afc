"""The table of pseudo classifiers, and their file: one safetensors tensor `classifier`, (c, d_old), with a JSON header."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jaxtyping import Float

from ..arrays import Array, as_tensor, check_vectors
from ..errors import FormatError, unknown
from ..files import read_tensors, write_tensors
from .centres import mean_classifier, random_walk_classifier
from .prototypes import perturbed_classifier
from .softmax import trained_classifier

FORMAT = "compatlearn-pseudo"
CLASSIFIERS: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {  # name → (function, the options it takes)
    "mean": (partial(mean_classifier, normalize=False), ()),
    "normalized-mean": (mean_classifier, ()),
    "random-walk": (random_walk_classifier, ("temperature", "damping", "steps")),
    "trained": (trained_classifier, ("seed",)),
    "prototype-perturbation": (perturbed_classifier, ()),
}


@dataclass(frozen=True)
class PseudoClassifier:
    """A pseudo classifier and where it comes from: rows (c, d_old), the old space, the method and its options."""

    rows: Float[Array, "c d"]
    method: str
    space: str
    options: dict[str, Any]


def build_classifier(
    method: str, vectors: Array, labels: Array, *, classes: int | None = None, options: Mapping[str, Any] | None = None
) -> Any:
    """The pseudo classifier called `method` of old features, (c, d_old); options that it does not take are left alone.

    Raises:
        ConfigError: there is no such method; the message names the nearest.
        DataError: the features cannot be used.
    """
    if method not in CLASSIFIERS:
        raise unknown("pseudo classifier", method, CLASSIFIERS)
    function, taken = CLASSIFIERS[method]
    return function(vectors, labels, classes=classes, **{key: value for key, value in (options or {}).items() if key in taken})


def save_classifier(classifier: PseudoClassifier, path: Path) -> None:
    """Write the file; atomic."""
    header = {
        "format": FORMAT,
        "method": classifier.method,
        "space": classifier.space,
        "options": classifier.options,
    }
    write_tensors(path, {"classifier": as_tensor(classifier.rows)}, header)


def load_classifier(path: Path) -> PseudoClassifier:
    """Read the file, or anyone's safetensors with one (c, d) tensor called `classifier` or `weight`.

    Raises:
        DataError: there is no such file.
        FormatError: not safetensors (a pickle, say), or without such a tensor.
    """
    header, tensors = read_tensors(path, format=None, what="pseudo classifier", remedy="make one with `compatlearn pseudo`")
    rows = tensors.get("classifier", tensors.get("weight"))
    if rows is None:
        raise FormatError(f"{path} has no tensor 'classifier' or 'weight', only {', '.join(tensors) or 'none'}; rename it")
    check_vectors(rows, f"the pseudo classifier {path}")
    ours = header.get("format") == FORMAT
    options = json.loads(header["options"]) if ours else {}
    return PseudoClassifier(rows, header.get("method", ""), header.get("space", ""), options)
