"""Upgrade an embedding model without re-embedding the gallery.

Two roads: both models stay frozen and a map leads from the new model's space to the old one's (`fit_adapter`), or the new
model is trained to be compatible from the old model's features alone (`InfluenceLoss`). `compatibility` tells either way
whether it worked. The public names are loaded when they are first used, so that importing the package is quick.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .adapters.adapter import Adapter, fit_adapter, load_adapter, save_adapter
    from .adapters.slerp import slerp
    from .data.texts import Texts, open_texts
    from .encoders.embed import embed_texts, extract_texts
    from .encoders.text_encoder import TextEncoder
    from .encoders.text_models import load_text_encoder
    from .errors import CompatlearnError, ConfigError, DataError, FormatError, IncompatibleError, TrainingError
    from .evaluation.compatibility import compatibility
    from .evaluation.gates import Checks, Gate, check_gates
    from .evaluation.relevance import Relevance
    from .evaluation.result import Compatibility
    from .export.onnx import export_onnx
    from .export.sentence_transformer import export_sentence_transformer
    from .features.cache import VectorCache
    from .features.features import Features
    from .indexes.csls import hubness, reranked
    from .indexes.exact import search
    from .indexes.hits import Hits
    from .indexes.open import open_index
    from .indexes.query_map import Cut, QueryMap
    from .losses.influence import InfluenceLoss, influence_loss
    from .losses.neighbours import NeighbourLoss
    from .losses.ranking import RankingLoss
    from .losses.regression import RegressionLoss, regression_loss
    from .pseudo.centres import mean_classifier, random_walk_classifier, random_walk_weights
    from .pseudo.softmax import trained_classifier
    from .trainers.cross_test import CrossTest
    from .trainers.evaluator import CompatibilityEvaluator
    from .trainers.loss import ClassLoss, CompatibleLoss
    from .upgrade.cascade import Cascade
    from .upgrade.plan import plan
    from .upgrade.result import Plan

__version__ = "0.1.0"

_HOMES = {
    "adapters.adapter": ("Adapter", "fit_adapter", "load_adapter", "save_adapter"),
    "adapters.slerp": ("slerp",),
    "data.texts": ("Texts", "open_texts"),
    "encoders.embed": ("embed_texts", "extract_texts"),
    "encoders.text_encoder": ("TextEncoder",),
    "encoders.text_models": ("load_text_encoder",),
    "errors": ("CompatlearnError", "ConfigError", "DataError", "FormatError", "IncompatibleError", "TrainingError"),
    "evaluation.compatibility": ("compatibility",),
    "evaluation.gates": ("Checks", "Gate", "check_gates"),
    "evaluation.relevance": ("Relevance",),
    "evaluation.result": ("Compatibility",),
    "export.onnx": ("export_onnx",),
    "export.sentence_transformer": ("export_sentence_transformer",),
    "features.cache": ("VectorCache",),
    "features.features": ("Features",),
    "indexes.csls": ("hubness", "reranked"),
    "indexes.exact": ("search",),
    "indexes.hits": ("Hits",),
    "indexes.open": ("open_index",),
    "indexes.query_map": ("Cut", "QueryMap"),
    "losses.influence": ("InfluenceLoss", "influence_loss"),
    "losses.neighbours": ("NeighbourLoss",),
    "losses.ranking": ("RankingLoss",),
    "losses.regression": ("RegressionLoss", "regression_loss"),
    "pseudo.centres": ("mean_classifier", "random_walk_classifier", "random_walk_weights"),
    "pseudo.softmax": ("trained_classifier",),
    "trainers.cross_test": ("CrossTest",),
    "trainers.evaluator": ("CompatibilityEvaluator",),
    "trainers.loss": ("ClassLoss", "CompatibleLoss"),
    "upgrade.cascade": ("Cascade",),
    "upgrade.plan": ("plan",),
    "upgrade.result": ("Plan",),
}
_MODULES = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Adapter",
    "Cascade",
    "Checks",
    "ClassLoss",
    "Compatibility",
    "CompatibilityEvaluator",
    "CompatibleLoss",
    "CompatlearnError",
    "ConfigError",
    "CrossTest",
    "Cut",
    "DataError",
    "Features",
    "FormatError",
    "Gate",
    "Hits",
    "IncompatibleError",
    "InfluenceLoss",
    "NeighbourLoss",
    "Plan",
    "QueryMap",
    "RankingLoss",
    "RegressionLoss",
    "Relevance",
    "TextEncoder",
    "Texts",
    "TrainingError",
    "VectorCache",
    "check_gates",
    "compatibility",
    "embed_texts",
    "export_onnx",
    "export_sentence_transformer",
    "extract_texts",
    "fit_adapter",
    "hubness",
    "influence_loss",
    "load_adapter",
    "load_text_encoder",
    "mean_classifier",
    "open_index",
    "open_texts",
    "plan",
    "random_walk_classifier",
    "random_walk_weights",
    "regression_loss",
    "reranked",
    "save_adapter",
    "search",
    "slerp",
    "trained_classifier",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
