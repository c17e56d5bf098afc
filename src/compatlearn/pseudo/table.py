"""The table of pseudo classifiers, and their file: one safetensors tensor `classifier`, (c, d_old), with a JSON header."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jaxtyping import Float

from ..arrays import Array, as_tensor, check_vectors
from ..errors import FormatError, IncompatibleError, first_few, unknown
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
    """A pseudo classifier and where it comes from.

    Attributes:
        rows: (c, d_old).
        method: its name in `CLASSIFIERS`; "" of anyone's file.
        space: the old model; "" is unknown.
        options: of the method.
        classes: the c names of the classes, or None where they are numbers alone.
    """

    rows: Float[Array, "c d"]
    method: str
    space: str
    options: dict[str, Any]
    classes: tuple[str, ...] | None = None

    def rows_for(self, classes: tuple[str, ...], name: str = "the pseudo classifier") -> Float[Array, "c d"]:
        """The rows in the order of the data's classes: by name where these have names here, else as they are.

        Args:
            classes: the data's names of its classes.
            name: what messages call this classifier.

        Raises:
            IncompatibleError: another number of classes, or other names.
        """
        if len(self.rows) != len(classes):
            raise IncompatibleError(
                f"{name} has {len(self.rows)} classes, the training data {len(classes)}; make it from features of this data"
            )
        if self.classes is None or self.classes == classes:
            return self.rows
        absent = sorted(set(classes) - set(self.classes))
        if absent:
            raise IncompatibleError(
                f"{len(absent)} of {len(classes)} classes of the training data are not in {name} (first: {first_few(absent)}; "
                f"it has {first_few(self.classes)}); make it from features of this data"
            )
        return as_tensor(self.rows)[[self.classes.index(one) for one in classes]]


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
    } | ({} if classifier.classes is None else {"classes": list(classifier.classes)})
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
    options, classes = (json.loads(header.get(key, "null") if ours else "null") for key in ("options", "classes"))
    names = None if classes is None else tuple(classes)
    return PseudoClassifier(rows, header.get("method", ""), header.get("space", ""), options or {}, names)
