"""`compatlearn pseudo`."""

from pathlib import Path

from ..config import Recipe
from .engine import Engine, connected


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
    engine: Engine = "local",
    address: str | None = None,
) -> int:
    """A pseudo classifier from old features of the new training data.

    Args:
        features: what `extract` wrote, or .npy, .npz, .parquet, .safetensors with vectors and labels.
        out: the .safetensors file to write.
        method: random-walk, normalized-mean, mean or trained.
        temperature: T of the random walk.
        damping: λ of the random walk.
        steps: steps of the random walk; by default its limit.
        classes: number of classes; by default one more than the largest label.
        seed: of `trained`.
        engine: where it runs: here, or on a Ray cluster.
        address: host:port of the cluster, or auto; without one it is started here.
    """
    from ..features.features import Features
    from ..pseudo.table import PseudoClassifier, build_classifier, save_classifier

    options = {"temperature": temperature, "damping": damping, "steps": steps, "seed": seed}
    with connected(engine, address) as cluster:
        old = Features.load(features, verify=True)
        build = cluster.classifier_builder(features) if cluster else build_classifier
        rows = build(method, old.vectors, old.require_labels(str(features)), classes=classes, options=options)
    save_classifier(PseudoClassifier(rows, method, old.space, options), out)
    print(f"{out}: {method} pseudo classifier, {rows.shape[0]} classes of {rows.shape[1]} dimensions")
    return 0
