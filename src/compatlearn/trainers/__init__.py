"""Other people's training loops: the cross test while a model is trained, and compatible losses for sentence-transformers.

The evaluator is in `evaluator`, which needs sentence-transformers; the rest does not.
"""

from .cross_test import CrossTest, to_metrics
from .loss import ClassLoss, CompatibleLoss

__all__ = ["ClassLoss", "CompatibleLoss", "CrossTest", "to_metrics"]
