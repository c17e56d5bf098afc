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
from .prototype_perturbation import prototype_perturbation_classifier
from .softmax import trained_classifier

FORMAT = "compatlearn-pseudo"
CLASSIFIERS: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {  # name → (function, the options it takes)
    "mean": (partial(mean_classifier, normalize=False), ()),
    "normalized-mean": (mean_classifier, ()),
    "random-walk": (random_walk_classifier, ("temperature", "damping", "steps")),
    "trained": (trained_classifier, ("seed",)),
    "prototype-perturbation": (prototype_perturbation_classifier, ()),
}


@dataclass(frozen=True)
class PseudoClassifier:
    """A pseudo classifier and its origin.

    Attributes:
        rows: (c, d_old).
        method: name in `CLASSIFIERS`; empty where it is not known.
        space: of the old features; empty where it is not known.
        options: of the method.
        classes: the c names of the classes; None where they are numbers only.
    """

    rows: Float[Array, "c d"]
    method: str
    space: str
    options: dict[str, Any]
    classes: tuple[str, ...] | None = None

    def rows_for(self, classes: tuple[str, ...], name: str = "the pseudo classifier") -> Float[Array, "c d"]:
        """The rows in the order of the data's classes: by name where names are known, otherwise as they are.

        Args:
            classes: the data's names for its classes.
            name: what messages call this classifier.

        Returns:
            (c, d_old) rows.

        Raises:
            IncompatibleError: the data has another number of classes, or other names.
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
    """Build a pseudo classifier by name.

    Args:
        method: name in `CLASSIFIERS`.
        vectors: (n, d_old) old features.
        labels: (n,) class of each row.
        classes: number of classes; by default one more than the largest label.
        options: of any method; those that this one does not take are ignored.

    Returns:
        (c, d_old), NumPy or torch as `vectors` is.

    Raises:
        ConfigError: there is no such method (the message names the nearest), or an option is out of range.
        DataError: the features cannot be used.
    """
    if method not in CLASSIFIERS:
        raise unknown("pseudo classifier", method, CLASSIFIERS)
    function, taken = CLASSIFIERS[method]
    return function(vectors, labels, classes=classes, **{key: value for key, value in (options or {}).items() if key in taken})


def save_classifier(classifier: PseudoClassifier, path: Path) -> None:
    """Write the file, whole or not at all.

    Args:
        classifier: what to write.
        path: the file; an existing one is replaced.
    """
    header = {
        "format": FORMAT,
        "method": classifier.method,
        "space": classifier.space,
        "options": classifier.options,
    } | ({} if classifier.classes is None else {"classes": list(classifier.classes)})
    write_tensors(path, {"classifier": as_tensor(classifier.rows)}, header)


def load_classifier(path: Path) -> PseudoClassifier:
    """Read the file, or anyone's safetensors with a (c, d) tensor called `classifier` or `weight`.

    Args:
        path: the file.

    Returns:
        The classifier; of a foreign file, method and space are empty.

    Raises:
        DataError: there is no such file, or its tensor is not finite.
        FormatError: it is not safetensors (but a pickle, say), or has no such tensor.
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
