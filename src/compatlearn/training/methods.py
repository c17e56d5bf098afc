"""The table of methods: a name, what it is, and the function that builds its loss from what is known of the old model."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain
from typing import TypeAlias

from torch import nn

from ..adapters.methods import ADAPTERS, AUTO
from ..errors import ConfigError, unknown
from ..losses import (
    AsymmetricLoss,
    LceLoss,
    MixbctLoss,
    NcclLoss,
    NeighbourLoss,
    RactLoss,
    RegressionLoss,
    asymmetric_contrastive_loss,
    asymmetric_triplet_loss,
    cosine_regression_loss,
    metric_learning_loss,
    weakened_regression_loss,
)
from ..metric import Metric
from .knowledge import OldKnowledge, advbct_loss, bct_loss, bt2_loss, classifier_loss, icarl_loss, lwf_loss, unibct_loss

LIBRARY = "pml:"  # and the name of a loss


@dataclass(frozen=True)
class Trained:
    """A method that trains the new model, with a loss built from what is known about the old one.

    Attributes:
        summary: one line for tables and pages.
        loss: builds the module that is called as loss(features, labels, rows); it returns None for no compatible loss.
        family: name by which several methods are chosen at once.
        options: keys of the recipe that only this method depends on.
        baseline: trained without regard to the old model: what a full backfill gives.
        oracle: made with the old model's own classifier, which is known only in a comparison.
        beside: needs the independent model's features of the training images, and room for them in its own features.
        metric: what its space is meant to be ranked by.
    """

    summary: str
    loss: Callable[[OldKnowledge], nn.Module | None]
    family: str = "paper"
    options: tuple[str, ...] = ()
    baseline: bool = False
    oracle: bool = False
    beside: bool = False
    metric: Metric = "euclidean"

    @property
    def reference(self) -> bool:
        """Not deployable, only for comparison: incompatible, or made with the old classifier."""
        return self.baseline or self.oracle


@dataclass(frozen=True)
class Frozen:
    """A method that trains no model: a map from the features of the independent model to those of the old one.

    Attributes:
        summary: one line for tables and pages.
        family: name by which several methods are chosen at once.
        options: keys of the recipe that only this method depends on.
        metric: what its space is meant to be ranked by.
        baseline: False; as for `Trained`.
        oracle: False; as for `Trained`.
        reference: False; as for `Trained`.
    """

    summary: str
    family: str = "frozen"
    options: tuple[str, ...] = ()
    metric: Metric = "euclidean"
    baseline: bool = field(default=False, init=False)
    oracle: bool = field(default=False, init=False)
    reference: bool = field(default=False, init=False)


Method: TypeAlias = Trained | Frozen


def find_method(name: str) -> Method:
    """Look up a method.

    Args:
        name: key of `METHODS`, or `pml:<Loss>` for a loss of pytorch-metric-learning.

    Returns:
        The method.

    Raises:
        ConfigError: there is none (the message names the nearest), or it needs an extra that is not installed.
    """
    if name.startswith(LIBRARY):
        return _metric_learning(name.removeprefix(LIBRARY))
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    return METHODS[name]


def find_trained(name: str) -> Trained:
    """Look up a method that trains a model.

    Args:
        name: as in `find_method`.

    Returns:
        The method.

    Raises:
        ConfigError: there is no such method, or it maps the features of a frozen model.
    """
    method = find_method(name)
    if isinstance(method, Frozen):
        raise ConfigError(f"{name!r} maps features and trains no model of images; fit it as an adapter instead")
    return method


def find_methods(names: str | list[str]) -> list[str]:
    """Names of methods from names of methods and families.

    Args:
        names: in a list or separated by commas; `all` for every method.

    Returns:
        The methods, each once, in the order asked for.

    Raises:
        ConfigError: a name is unknown.
    """
    listed = [name.strip() for name in (names.split(",") if isinstance(names, str) else names)]
    families: dict[str, list[str]] = {"all": list(METHODS)}
    for name, method in METHODS.items():
        families.setdefault(method.family, []).append(name)
    chosen = list(dict.fromkeys(chain.from_iterable(families.get(name, [name]) for name in listed)))
    for name in chosen:
        find_method(name)
    return chosen


def _metric_learning(loss: str) -> Trained:
    made = metric_learning_loss(loss)  # refuses an unknown one before anything is trained
    return Trained(
        f"{loss} of pytorch-metric-learning against old features of the batch",
        lambda old: AsymmetricLoss(old.vectors, made),
        family="contrastive",
        metric="cosine",
    )


METHODS: dict[str, Method] = {
    "independent": Trained("no compatible loss: the reference for a full backfill", lambda old: None, baseline=True),
    "l2": Trained("regression to the old feature of the same image", lambda old: RegressionLoss(old.vectors)),
    "trained": Trained("influence loss, softmax regression on old features (t-pse)", classifier_loss("trained")),
    "mean": Trained("influence loss, class means (a-pse)", classifier_loss("mean")),
    "normalized-mean": Trained("influence loss, unit class means (an-pse)", classifier_loss("normalized-mean")),
    "random-walk": Trained(
        "influence loss, unit PageRank-weighted means (rwn-pse)",
        classifier_loss("random-walk"),
        options=("temperature", "damping"),
    ),
    "bct": Trained("influence loss, the true old classifier: an upper reference", bct_loss, oracle=True),
    "neighbours": Trained(
        "neighbour loss against the old features themselves",
        lambda old: NeighbourLoss(old.vectors, old.labels, unit=old.options.get("scale") is not None),
        family="contrastive",
    ),
    "weakened-l2": Trained(
        "regression of directions that are far from the old ones",
        lambda old: RegressionLoss(old.vectors, weakened_regression_loss),
        family="regression",
        metric="cosine",
    ),
    "cosine-regression": Trained(
        "cosine to the old feature of the same image",
        lambda old: RegressionLoss(old.vectors, cosine_regression_loss),
        family="regression",
        metric="cosine",
    ),
    "lwf": Trained("softened class probabilities of the old feature (LwF)", lwf_loss, family="distillation"),
    "icarl": Trained("regression to the old class mean (iCaRL)", icarl_loss, family="centres"),
    "prototype-perturbation": Trained(
        "influence loss, unit class means pushed apart", classifier_loss("prototype-perturbation"), family="centres"
    ),
    "lce": Trained(
        "a classifier held to the old centres, features to the old boundaries",
        lambda old: LceLoss(old.vectors, old.labels, old.classes, **old.options_of("scale")),
        family="centres",
    ),
    "unibct": Trained(
        "random walk over the new features, refreshed every epoch",
        unibct_loss,
        family="centres",
        options=("temperature", "damping"),
    ),
    "asymmetric-contrastive": Trained(
        "contrastive loss, old features of the batch as pairs",
        lambda old: AsymmetricLoss(old.vectors, asymmetric_contrastive_loss),
        family="contrastive",
        metric="cosine",
    ),
    "asymmetric-triplet": Trained(
        "triplet loss, old features of the batch as pairs",
        lambda old: AsymmetricLoss(old.vectors, asymmetric_triplet_loss),
        family="contrastive",
        metric="cosine",
    ),
    "ract": Trained(
        "own old feature against the hardest of the whole cache (RACT)",
        lambda old: RactLoss(old.vectors, old.labels),
        family="contrastive",
        metric="cosine",
    ),
    "nccl": Trained(
        "contrast with old features, weighted by their consensus (NCCL)",
        lambda old: NcclLoss(old.vectors, old.labels, **old.options_of("seed")),
        family="contrastive",
        metric="cosine",
    ),
    "mixbct": Trained(
        "margin classifier of new and credible old features mixed",
        lambda old: MixbctLoss(old.vectors, old.labels, old.classes, **old.options_of("seed")),
        family="mixing",
        metric="cosine",
    ),
    "advbct": Trained(
        "elastic class boundaries, and a discriminator to be deceived", advbct_loss, family="adversarial", metric="cosine"
    ),
    "bt2": Trained(
        "a change of basis that keeps an independent model's feature beside a compatible part (BT²)",
        bt2_loss,
        family="basis",
        beside=True,
    ),
}


METHODS[AUTO] = Frozen("the frozen map that does best on rows kept out", family="recommended")
METHODS |= {name: Frozen(entry.summary) for name, entry in ADAPTERS.items()}
