"""Upgrade an embedding model without re-embedding the gallery.

A new model is trained so that its queries search the old model's vectors directly, from nothing but the old model's
features (Non-Inherent Feature Compatible Learning).
"""

from .compatibility import Compatibility, compatibility
from .errors import CompatlearnError, ConfigError, DataError, FormatError, IncompatibleError, TrainingError
from .features import Features
from .losses import InfluenceLoss, RegressionLoss, influence_loss, regression_loss
from .pseudo import mean_classifier, random_walk_classifier, random_walk_weights, trained_classifier
from .search import Hits, search

__version__ = "0.1.0"

__all__ = [
    "Compatibility",
    "CompatlearnError",
    "ConfigError",
    "DataError",
    "Features",
    "FormatError",
    "Hits",
    "IncompatibleError",
    "InfluenceLoss",
    "RegressionLoss",
    "TrainingError",
    "compatibility",
    "influence_loss",
    "mean_classifier",
    "random_walk_classifier",
    "random_walk_weights",
    "regression_loss",
    "search",
    "trained_classifier",
]
