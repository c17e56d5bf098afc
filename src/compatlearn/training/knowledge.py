"""What a method may know about the old model, and the losses that are built from it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..arrays import Array, as_tensor
from ..errors import ConfigError
from ..losses import (
    AdvbctLoss,
    Bt2Loss,
    IcarlLoss,
    InfluenceLoss,
    LwfLoss,
    UnibctLoss,
)
from ..pseudo.table import build_classifier


@dataclass(frozen=True)
class OldKnowledge:
    """What a method may use: old features of the new training data, and the old classifier only where it happens to be known.

    Attributes:
        vectors: (n, d_old) old features in the order of the training set.
        labels: (n,) labels of the *new* data.
        classes: number of classes.
        classifier: loads the old classifier, weight (c, d_old) and bias (c,); None where it is not known.
        options: temperature, damping, steps, scale, seed, epochs, as far as they are set.
        independent: (n, d_star) features of an independently trained new model; None where there is none.
    """

    vectors: Array
    labels: Array
    classes: int
    classifier: Callable[[], nn.Linear] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    independent: Array | None = None

    def options_of(self, *names: str) -> dict[str, Any]:
        """Those of the options that are set, as keyword arguments; the others keep the defaults of the loss."""
        return {name: self.options[name] for name in names if name in self.options}


def classifier_loss(classifier: str) -> Callable[[OldKnowledge], nn.Module]:
    def loss(old: OldKnowledge) -> nn.Module:
        rows = build_classifier(classifier, old.vectors, old.labels, classes=old.classes, options=old.options)
        return InfluenceLoss(rows, scale=old.options.get("scale"))

    return loss


def bct_loss(old: OldKnowledge) -> nn.Module:
    if old.classifier is None:
        raise ConfigError("method 'bct' needs the old model's own classifier, which is not known here; use 'random-walk'")
    classifier = old.classifier()
    weight, bias = classifier.weight.detach(), classifier.bias.detach()
    if len(weight) < old.classes:  # BCT completes it with means of old features, as long as the existing rows
        means = build_classifier("normalized-mean", old.vectors, old.labels, classes=old.classes)[len(weight) :]
        weight = torch.cat([weight, as_tensor(means).to(weight) * weight.norm(dim=1).mean()])
        bias = torch.cat([bias, bias.mean().expand(len(means))])
    return InfluenceLoss(weight, bias=bias, scale=old.options.get("scale"))


def icarl_loss(old: OldKnowledge) -> nn.Module:
    return IcarlLoss(build_classifier("mean", old.vectors, old.labels, classes=old.classes))


def lwf_loss(old: OldKnowledge) -> nn.Module:
    classifier = build_classifier("trained", old.vectors, old.labels, classes=old.classes, options=old.options)
    return LwfLoss(classifier, old.vectors)


def unibct_loss(old: OldKnowledge) -> nn.Module:
    options = old.options_of("temperature", "damping", "scale")
    return UnibctLoss(old.vectors, old.labels, old.classes, **options)


def advbct_loss(old: OldKnowledge) -> nn.Module:
    if "epochs" not in old.options:
        raise ConfigError("method 'advbct' fades over the training; pass its length as options={'epochs': …}")
    return AdvbctLoss(old.vectors, old.labels, old.classes, **old.options_of("epochs", "seed"))


def bt2_loss(old: OldKnowledge) -> nn.Module:
    if old.independent is None:
        raise ConfigError("method 'bt2' needs an independently trained model's features of these images; pass --independent")
    classifier = build_classifier("normalized-mean", old.vectors, old.labels, classes=old.classes)
    return Bt2Loss(old.vectors, old.independent, classifier, **old.options_of("scale"))
