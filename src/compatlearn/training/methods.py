"""The table of methods: a name, what it is, and the function that makes its loss from what is known of the old model."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import nn

from ..adapters.methods import ADAPTERS
from ..arrays import Array, as_tensor
from ..errors import ConfigError, unknown
from ..losses import (
    AdversarialLoss,
    AsymmetricLoss,
    BasisLoss,
    CentreLoss,
    ConsensusLoss,
    DistillationLoss,
    InfluenceLoss,
    LceLoss,
    MixLoss,
    NeighbourLoss,
    RactLoss,
    RefreshedLoss,
    RegressionLoss,
    asymmetric_contrastive_loss,
    asymmetric_triplet_loss,
    cosine_regression_loss,
    metric_learning_loss,
    weakened_regression_loss,
)
from ..metric import Metric
from ..pseudo.table import build_classifier

AUTO = "auto"  # what `compatlearn adapt` does unless it is told a method
LIBRARY = "pml:"  # and the name of a loss


@dataclass(frozen=True)
class OldKnowledge:
    """What a method may use: old features of the new training data; the old classifier only where it happens to be known.

    vectors: (n, d_old) in the order of the training set; labels: (n,) of the *new* data; classifier: loads the old one,
    weight (c, d_old) and bias (c,); independent: (n, d_star) features of an independently trained new model.
    """

    vectors: Array
    labels: Array
    classes: int
    classifier: Callable[[], nn.Linear] | None = None
    options: dict[str, Any] = field(default_factory=dict)  # temperature, damping, steps, scale, seed, epochs
    independent: Array | None = None

    def options_of(self, *names: str) -> dict[str, Any]:
        """Those of the options that are set; the others keep the defaults of the loss."""
        return {name: self.options[name] for name in names if name in self.options}


@dataclass(frozen=True)
class Method:
    """One row of the comparison."""

    summary: str
    loss: Callable[[OldKnowledge], nn.Module | None]
    family: str = "paper"
    options: tuple[str, ...] = ()  # keys of the recipe that it alone depends on
    baseline: bool = False  # trained without regard to the old model: what a full backfill gives
    oracle: bool = False  # made with the old model's own classifier, which is not known outside of a comparison
    adapter: bool = False  # trains no model of images: a map from the features of the independent one
    beside: bool = False  # needs the independent model's features of the training images, and room for them in its own
    metric: Metric = "euclidean"  # what its space is meant to be ranked by

    @property
    def reference(self) -> bool:
        """Not deployable, there to compare with: incompatible, or made with the old classifier."""
        return self.baseline or self.oracle


def find_method(name: str) -> Method:
    """The method called `name`.

    Raises:
        ConfigError: there is none (the message names the nearest), or it needs an extra that is not installed.
    """
    if name not in METHODS and not name.startswith(LIBRARY):
        raise unknown("method", name, METHODS)
    if name.startswith(LIBRARY):
        metric_learning_loss(name.removeprefix(LIBRARY))  # before anything is trained
    return METHODS[name]


def find_methods(names: str | list[str]) -> list[str]:
    """`all`, or names of methods and families in a list or separated by commas, checked; each method once."""
    listed = [name.strip() for name in (names.split(",") if isinstance(names, str) else names)]
    families: dict[str, list[str]] = {"all": list(METHODS)}
    for name, method in METHODS.items():
        families.setdefault(method.family, []).append(name)
    chosen = list(dict.fromkeys(chain.from_iterable(families.get(name, [name]) for name in listed)))
    for name in chosen:
        find_method(name)
    return chosen


def _influence(classifier: str) -> Callable[[OldKnowledge], nn.Module]:
    def loss(old: OldKnowledge) -> nn.Module:
        rows = build_classifier(classifier, old.vectors, old.labels, classes=old.classes, options=old.options)
        return InfluenceLoss(rows, scale=old.options.get("scale"))

    return loss


def _old_classifier(old: OldKnowledge) -> nn.Module:
    if old.classifier is None:
        raise ConfigError("method 'bct' needs the old model's own classifier, which is not known here; use 'random-walk'")
    classifier = old.classifier()
    weight, bias = classifier.weight.detach(), classifier.bias.detach()
    if len(weight) < old.classes:  # BCT completes it: means of old features, as long as the rows that are there
        means = build_classifier("normalized-mean", old.vectors, old.labels, classes=old.classes)[len(weight) :]
        weight = torch.cat([weight, as_tensor(means).to(weight) * weight.norm(dim=1).mean()])
        bias = torch.cat([bias, bias.mean().expand(len(means))])
    return InfluenceLoss(weight, bias=bias, scale=old.options.get("scale"))


def _centres(old: OldKnowledge) -> nn.Module:
    return CentreLoss(build_classifier("mean", old.vectors, old.labels, classes=old.classes))


def _distillation(old: OldKnowledge) -> nn.Module:
    classifier = build_classifier("trained", old.vectors, old.labels, classes=old.classes, options=old.options)
    return DistillationLoss(classifier, old.vectors)


def _refreshed(old: OldKnowledge) -> nn.Module:
    options = old.options_of("temperature", "damping", "scale")
    return RefreshedLoss(old.vectors, old.labels, old.classes, **options)


def _adversarial(old: OldKnowledge) -> nn.Module:
    if "epochs" not in old.options:
        raise ConfigError("method 'advbct' fades over the training; pass its length as options={'epochs': …}")
    return AdversarialLoss(old.vectors, old.labels, old.classes, **old.options_of("epochs", "seed"))


def _basis(old: OldKnowledge) -> nn.Module:
    if old.independent is None:
        raise ConfigError("method 'bt2' needs an independently trained model's features of these images; pass --independent")
    classifier = build_classifier("normalized-mean", old.vectors, old.labels, classes=old.classes)
    return BasisLoss(old.vectors, old.independent, classifier, **old.options_of("scale"))


def _metric_learning(name: str) -> Method:
    return Method(
        f"{name.removeprefix(LIBRARY)} of pytorch-metric-learning against old features of the batch",
        lambda old: AsymmetricLoss(old.vectors, metric_learning_loss(name.removeprefix(LIBRARY))),
        family="contrastive",
        metric="cosine",
    )


class _Methods(dict[str, Method]):
    """The table; `pml:<Loss>` is a method as well, for every loss of pytorch-metric-learning."""

    def __missing__(self, name: str) -> Method:
        if not name.startswith(LIBRARY):
            raise KeyError(name)
        return _metric_learning(name)


METHODS: dict[str, Method] = _Methods()
METHODS |= {
    "independent": Method("no compatible loss: the reference for a full backfill", lambda old: None, baseline=True),
    "l2": Method("regression to the old feature of the same image", lambda old: RegressionLoss(old.vectors)),
    "trained": Method("influence loss, softmax regression on old features (t-pse)", _influence("trained")),
    "mean": Method("influence loss, class means (a-pse)", _influence("mean")),
    "normalized-mean": Method("influence loss, unit class means (an-pse)", _influence("normalized-mean")),
    "random-walk": Method(
        "influence loss, unit PageRank-weighted means (rwn-pse)", _influence("random-walk"), options=("temperature", "damping")
    ),
    "bct": Method("influence loss, the true old classifier: an upper reference", _old_classifier, oracle=True),
    "neighbours": Method(
        "neighbour loss against the old features themselves",
        lambda old: NeighbourLoss(old.vectors, old.labels, unit=old.options.get("scale") is not None),
        family="contrastive",
    ),
    "weakened-l2": Method(
        "regression of directions that are far from the old ones",
        lambda old: RegressionLoss(old.vectors, weakened_regression_loss),
        family="regression",
        metric="cosine",
    ),
    "cosine-regression": Method(
        "cosine to the old feature of the same image",
        lambda old: RegressionLoss(old.vectors, cosine_regression_loss),
        family="regression",
        metric="cosine",
    ),
    "lwf": Method("softened class probabilities of the old feature (LwF)", _distillation, family="distillation"),
    "icarl": Method("regression to the old class mean (iCaRL)", _centres, family="centres"),
    "prototype-perturbation": Method(
        "influence loss, unit class means pushed apart", _influence("prototype-perturbation"), family="centres"
    ),
    "lce": Method(
        "a classifier held to the old centres, features to the old boundaries",
        lambda old: LceLoss(old.vectors, old.labels, old.classes, **old.options_of("scale")),
        family="centres",
    ),
    "unibct": Method(
        "random walk over the new features, refreshed every epoch",
        _refreshed,
        family="centres",
        options=("temperature", "damping"),
    ),
    "asymmetric-contrastive": Method(
        "contrastive loss, old features of the batch as pairs",
        lambda old: AsymmetricLoss(old.vectors, asymmetric_contrastive_loss),
        family="contrastive",
        metric="cosine",
    ),
    "asymmetric-triplet": Method(
        "triplet loss, old features of the batch as pairs",
        lambda old: AsymmetricLoss(old.vectors, asymmetric_triplet_loss),
        family="contrastive",
        metric="cosine",
    ),
    "ract": Method(
        "own old feature against the hardest of the whole cache (RACT)",
        lambda old: RactLoss(old.vectors, old.labels),
        family="contrastive",
        metric="cosine",
    ),
    "nccl": Method(
        "contrast with old features, weighted by their consensus (NCCL)",
        lambda old: ConsensusLoss(old.vectors, old.labels, **old.options_of("seed")),
        family="contrastive",
        metric="cosine",
    ),
    "mixbct": Method(
        "margin classifier of new and credible old features mixed",
        lambda old: MixLoss(old.vectors, old.labels, old.classes, **old.options_of("seed")),
        family="mixing",
        metric="cosine",
    ),
    "advbct": Method(
        "elastic class boundaries, and a discriminator to be deceived", _adversarial, family="adversarial", metric="cosine"
    ),
    "bt2": Method(
        "a change of basis that keeps an independent model's feature beside a compatible part (BT²)",
        _basis,
        family="basis",
        beside=True,
    ),
}


def _no_loss(old: OldKnowledge) -> None:
    raise ConfigError("this method maps features and trains no model of images; use `compatlearn adapt`")


METHODS[AUTO] = Method("the frozen map that does best on rows kept out", _no_loss, family="recommended", adapter=True)
METHODS |= {name: Method(entry.summary, _no_loss, family="frozen", adapter=True) for name, entry in ADAPTERS.items()}
