"""Any loss of pytorch-metric-learning, with old features as references. The library is an extra, `compatlearn[metric]`."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ...errors import ConfigError, unknown
from ...extras import require
from ..batch import exact


def metric_learning_loss(name: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The library's loss `name`, with its own defaults, against old features.

    The old feature of the same image counts as one more positive: the library does not know about rows.

    Args:
        name: class of the loss, such as `TripletMarginLoss`.

    Returns:
        A function of (b, d) new features, (b, d) old features and (b,) labels.

    Raises:
        ConfigError: the library is not installed, has no loss of that name, or the loss needs arguments.
    """
    losses = require("pytorch_metric_learning.losses")
    if name not in dir(losses):
        raise unknown("loss of pytorch-metric-learning", name, [each for each in dir(losses) if each.endswith("Loss")])
    try:
        loss: Any = getattr(losses, name)()
    except TypeError as error:  # it has a classifier of its own
        raise ConfigError(f"'pml:{name}' cannot be made without arguments ({error}); use one that takes ref_emb") from error

    def asymmetric(features: Tensor, old: Tensor, labels: Tensor) -> Tensor:
        with exact(features):
            return loss(features, labels, ref_emb=old, ref_labels=labels)

    return asymmetric
