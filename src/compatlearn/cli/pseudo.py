"""`compatlearn pseudo`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from ..config import Recipe
from ..errors import DataError
from .columns import Columns, as_flags
from .engine import Engine, connected
from .out import check_out_file

if TYPE_CHECKING:
    from ..features.features import Features


def pseudo(
    *,
    features: Path,
    out: Path,
    method: str = "random-walk",
    temperature: float = Recipe.temperature,
    damping: float = Recipe.damping,
    steps: int | None = Recipe.steps,
    classes: int | None = None,
    seed: int = 0,
    columns: Annotated[Columns, Parameter(name="*")] = Columns(),  # noqa: B008
    space: str = "",
    engine: Engine = "local",
    address: str | None = None,
) -> int:
    """A pseudo classifier from old features of the new training data.

    ```
    compatlearn pseudo --features features/old-train --out pseudo.safetensors
    ```

    Args:
        features: what `extract` wrote, or .npy, .npz, .parquet, .safetensors with vectors and labels.
        out: the .safetensors file to write.
        method: random-walk, normalized-mean, mean, trained or prototype-perturbation.
        temperature: T of the random walk.
        damping: λ of the random walk.
        steps: steps of the random walk; by default its limit.
        classes: number of classes; by default one more than the largest label.
        seed: of `trained`.
        space: the model that gave the vectors, where the file does not say.
        engine: where it runs: here, or on a Ray cluster.
        address: host:port of the cluster, or auto; without one it is started here.
    """
    check_out_file(out, {"--features": features}, "compatlearn-pseudo")
    from ..pseudo.table import PseudoClassifier, build_classifier, save_classifier

    options = {"temperature": temperature, "damping": damping, "steps": steps, "seed": seed}
    with connected(engine, address) as cluster:
        old = columns.load({"features": features}, {"features": space})["features"]
        build = cluster.classifier_builder(features, columns.vector_column) if cluster else build_classifier
        rows = _built(build, old, str(features), method=method, classes=classes, options=options)
    save_classifier(PseudoClassifier(rows, method, old.space, options, old.classes), out)
    print(f"{out}: {method} pseudo classifier, {rows.shape[0]} classes of {rows.shape[1]} dimensions")
    return 0


def _built(build: Any, old: "Features", name: str, *, method: str, classes: int | None, options: dict[str, Any]) -> Any:
    """The rows of the classifier; what is wrong with the features is said with their file, rows and ids."""
    try:
        labels = old.require_labels(name)
        old.check_varied(name)
        return build(method, old.vectors, labels, classes=classes, options=options)
    except DataError as error:  # the classifier knows arrays alone, and the features are only read again after a fault
        if old.has_labels:
            old.check(name=name, nonzero="length zero" in str(error))
        raise type(error)(as_flags(str(error))) from error
