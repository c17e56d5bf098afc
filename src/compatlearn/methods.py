"""The table of methods: a name, what it is, and the function that makes its loss from what is known of the old model."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from .arrays import Array
from .errors import ConfigError, unknown
from .losses import InfluenceLoss, RegressionLoss
from .pseudo import CLASSIFIERS


@dataclass(frozen=True)
class OldKnowledge:
    """What a method may use: old features of the new training data; the old classifier only where it happens to be known.

    vectors: (n, d_old) in the order of the training set; labels: (n,) of the *new* data; weight, bias: (c, d_old), (c,).
    """

    vectors: Array
    labels: Array
    classes: int
    weight: Array | None = None
    bias: Array | None = None
    options: dict[str, Any] = field(default_factory=dict)  # temperature, damping, steps, scale, seed


@dataclass(frozen=True)
class Method:
    """One row of the comparison."""

    summary: str
    loss: Callable[[OldKnowledge], nn.Module | None]


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


CLASSIFIER_OPTIONS = {"trained": ("seed",), "random-walk": ("temperature", "damping", "steps")}


def _influence(classifier: str) -> Callable[[OldKnowledge], nn.Module]:
    def loss(old: OldKnowledge) -> nn.Module:
        options = {key: old.options[key] for key in CLASSIFIER_OPTIONS.get(classifier, ()) if key in old.options}
        rows = CLASSIFIERS[classifier](old.vectors, old.labels, classes=old.classes, **options)
        return InfluenceLoss(rows, scale=old.options.get("scale"))

    return loss


def _old_classifier(old: OldKnowledge) -> nn.Module:
    if old.weight is None:
        raise ConfigError("method 'bct' needs the old model's own classifier, which is not known here; use 'random-walk'")
    return InfluenceLoss(old.weight, bias=old.bias, scale=old.options.get("scale"))


METHODS: dict[str, Method] = {
    "independent": Method("no compatible loss: the reference for a full backfill", lambda old: None),
    "l2": Method("regression to the old feature of the same image", lambda old: RegressionLoss(old.vectors)),
    "trained": Method("influence loss, softmax regression on old features (t-pse)", _influence("trained")),
    "mean": Method("influence loss, class means (a-pse)", _influence("mean")),
    "normalized-mean": Method("influence loss, unit class means (an-pse)", _influence("normalized-mean")),
    "random-walk": Method("influence loss, unit PageRank-weighted means (rwn-pse)", _influence("random-walk")),
    "bct": Method("influence loss, the true old classifier: an upper reference", _old_classifier),
}
