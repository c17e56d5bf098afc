"""The compatible loss that the flags of `compatlearn train` ask for."""

from pathlib import Path

from torch import nn

from ..arrays import Array, as_tensor
from ..config import TrainConfig
from ..data.images import Images
from ..errors import ConfigError
from ..features.features import Features
from ..losses import InfluenceLoss
from ..pseudo.table import load_classifier
from ..training.knowledge import OldKnowledge
from ..training.methods import find_trained
from .columns import Columns


def load_loss(
    images: Images,
    config: TrainConfig,
    pseudo: Path | None,
    features: Path | None,
    method: str | None,
    independent: Path | None = None,
    columns: Columns = Columns(),  # noqa: B008
) -> nn.Module | None:
    """The compatible loss from files: a pseudo classifier, or old features of the training images (matched by id).

    Args:
        method: how features are used; None is the random walk.
        independent: an independently trained model's features of the training images, for `bt2`.
        columns: names of columns in these files.

    Raises:
        ConfigError: both are given, or the method is unknown or has no features to use.
        IncompatibleError: another number of classes, or training images without an old feature.
    """
    if pseudo and features:
        raise ConfigError("--pseudo and --features are two ways to give the old model; pass one")
    chosen = find_trained(method or "random-walk")
    if independent and not chosen.beside:
        raise ConfigError(f"--independent is for --method bt2; leave it out, or pass that instead of {method or 'random-walk'}")
    if method and not features:
        raise ConfigError(f"--method {method} says how --features are used; pass --features, or leave --method out")
    if pseudo:
        classifier = load_classifier(pseudo).rows_for(images.classes, f"the pseudo classifier {pseudo}")
        return InfluenceLoss(as_tensor(classifier).float(), scale=config.scale)
    if features is None:
        return None
    files = {"features": features} | ({} if independent is None else {"independent": independent})
    loaded = columns.load(files)
    vectors = _aligned(loaded["features"], features, images)
    known = None if independent is None else _aligned(loaded["independent"], independent, images)
    options = {"seed": config.seed, "scale": config.scale, "epochs": config.epochs}
    return chosen.loss(OldKnowledge(vectors, images.labels, len(images.classes), independent=known, options=options))


def _aligned(features: Features, path: Path, images: Images) -> Array:
    vectors: Array = features.vectors[features.align(images.ids, str(path), "the training images", images.ids_from)]
    return vectors
