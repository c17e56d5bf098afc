"""The table of methods: a name, what it is, and the function that makes its loss from what is known of the old model."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from .arrays import Array, as_tensor
from .classifiers import build_classifier, load_classifier
from .config import TrainConfig
from .data import Images
from .errors import ConfigError, IncompatibleError, unknown
from .features import Features
from .losses import InfluenceLoss, RegressionLoss


@dataclass(frozen=True)
class OldKnowledge:
    """What a method may use: old features of the new training data; the old classifier only where it happens to be known.

    vectors: (n, d_old) in the order of the training set; labels: (n,) of the *new* data; classifier: loads the old one,
    weight (c, d_old) and bias (c,).
    """

    vectors: Array
    labels: Array
    classes: int
    classifier: Callable[[], nn.Linear] | None = None
    options: dict[str, Any] = field(default_factory=dict)  # temperature, damping, steps, scale, seed


@dataclass(frozen=True)
class Method:
    """One row of the comparison."""

    summary: str
    loss: Callable[[OldKnowledge], nn.Module | None]
    options: tuple[str, ...] = ()  # keys of the recipe that it alone depends on
    reference: bool = False  # nobody can ship it: not compatible, or made with what is not known


def find_method(name: str) -> Method:
    """The method called `name`.

    Raises:
        ConfigError: there is none; the message names the nearest.
    """
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    return METHODS[name]


def find_methods(names: str | list[str]) -> list[str]:
    """`all`, or names in a list or separated by commas, checked."""
    listed = names.split(",") if isinstance(names, str) else names
    chosen = list(METHODS) if listed == ["all"] else [name.strip() for name in listed]
    for name in chosen:
        find_method(name)
    return chosen


def load_loss(
    images: Images, config: TrainConfig, pseudo: Path | None, features: Path | None, method: str | None
) -> nn.Module | None:
    """The compatible loss from files: a pseudo classifier, or old features of the training images (matched by id).

    Args:
        method: how features are used; None is the random walk.

    Raises:
        ConfigError: both are given, or the method is unknown or has no features to use.
        IncompatibleError: another number of classes, or training images without an old feature.
    """
    if pseudo and features:
        raise ConfigError("--pseudo and --features are two ways to give the old model; pass one")
    chosen = find_method(method or "random-walk")
    if method and not features:
        raise ConfigError(f"--method {method} says how --features are used; pass --features, or leave --method out")
    if pseudo:
        classifier = load_classifier(pseudo).rows
        if len(classifier) != len(images.classes):
            raise IncompatibleError(
                f"the pseudo classifier {pseudo} has {len(classifier)} classes, the training data {len(images.classes)}; "
                "make it from features of this data"
            )
        return InfluenceLoss(as_tensor(classifier).float(), scale=config.scale)
    if features is None:
        return None
    old = Features.load(features, verify=True)
    vectors = old.vectors[old.align(images.ids, str(features))]
    options = {"seed": config.seed, "scale": config.scale}
    return chosen.loss(OldKnowledge(vectors, images.labels, len(images.classes), options=options))


def _influence(classifier: str) -> Callable[[OldKnowledge], nn.Module]:
    def loss(old: OldKnowledge) -> nn.Module:
        rows = build_classifier(classifier, old.vectors, old.labels, classes=old.classes, options=old.options)
        return InfluenceLoss(rows, scale=old.options.get("scale"))

    return loss


def _old_classifier(old: OldKnowledge) -> nn.Module:
    if old.classifier is None:
        raise ConfigError("method 'bct' needs the old model's own classifier, which is not known here; use 'random-walk'")
    classifier = old.classifier()
    return InfluenceLoss(classifier.weight.detach(), bias=classifier.bias.detach(), scale=old.options.get("scale"))


METHODS: dict[str, Method] = {
    "independent": Method("no compatible loss: the reference for a full backfill", lambda old: None, reference=True),
    "l2": Method("regression to the old feature of the same image", lambda old: RegressionLoss(old.vectors)),
    "trained": Method("influence loss, softmax regression on old features (t-pse)", _influence("trained")),
    "mean": Method("influence loss, class means (a-pse)", _influence("mean")),
    "normalized-mean": Method("influence loss, unit class means (an-pse)", _influence("normalized-mean")),
    "random-walk": Method(
        "influence loss, unit PageRank-weighted means (rwn-pse)", _influence("random-walk"), ("temperature", "damping")
    ),
    "bct": Method("influence loss, the true old classifier: an upper reference", _old_classifier, reference=True),
}
