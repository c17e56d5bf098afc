"""Upgrade an embedding model without re-embedding the gallery.

A new model is trained so that its queries search the old model's vectors directly, from nothing but the old model's
features (Non-Inherent Feature Compatible Learning).
"""

from .adapters.adapter import Adapter, fit_adapter, load_adapter, save_adapter, slerp
from .errors import CompatlearnError, ConfigError, DataError, FormatError, IncompatibleError, TrainingError
from .evaluation.compatibility import Compatibility, compatibility
from .features.features import Features
from .indexes.exact import Hits, search
from .losses import InfluenceLoss, NeighbourLoss, RegressionLoss, influence_loss, regression_loss
from .pseudo.centres import mean_classifier, random_walk_classifier, random_walk_weights, trained_classifier

__version__ = "0.1.0"

__all__ = [
    "Adapter",
    "Compatibility",
    "CompatlearnError",
    "ConfigError",
    "DataError",
    "Features",
    "FormatError",
    "Hits",
    "IncompatibleError",
    "InfluenceLoss",
    "NeighbourLoss",
    "RegressionLoss",
    "TrainingError",
    "compatibility",
    "fit_adapter",
    "influence_loss",
    "load_adapter",
    "mean_classifier",
    "random_walk_classifier",
    "random_walk_weights",
    "regression_loss",
    "save_adapter",
    "search",
    "slerp",
    "trained_classifier",
]
