"""Compatible losses: each a pure function, and a module that holds its state. One file a family.

Every module is called as `loss(features, labels, rows)`: (b, d_new) features, (b,) labels, (b,) rows of the training set.
The class term CE(W f, y) is the training loop's own and not part of these.
"""

from .advbct import AdversarialLoss
from .batch import gather, old_dimensions
from .bt2 import BasisLoss, basis_loss
from .contrastive import AsymmetricLoss, asymmetric_contrastive_loss, asymmetric_triplet_loss
from .distillation import DistillationLoss, distillation_loss
from .influence import InfluenceLoss, influence_loss
from .lce import LceLoss, lce_loss
from .metric_learning import metric_learning_loss
from .mixbct import MixLoss, margin_loss
from .nccl import ConsensusLoss, consensus_loss
from .neighbours import NeighbourLoss, instance_loss, neighbour_loss
from .ract import RactLoss, ract_loss
from .ranking import RankingLoss, ranking_loss
from .regression import CentreLoss, RegressionLoss, cosine_regression_loss, regression_loss, weakened_regression_loss
from .unibct import RefreshedLoss, refreshed_classifier

__all__ = [
    "AdversarialLoss",
    "AsymmetricLoss",
    "BasisLoss",
    "CentreLoss",
    "ConsensusLoss",
    "DistillationLoss",
    "InfluenceLoss",
    "LceLoss",
    "MixLoss",
    "NeighbourLoss",
    "RactLoss",
    "RankingLoss",
    "RefreshedLoss",
    "RegressionLoss",
    "asymmetric_contrastive_loss",
    "asymmetric_triplet_loss",
    "basis_loss",
    "consensus_loss",
    "cosine_regression_loss",
    "distillation_loss",
    "gather",
    "influence_loss",
    "instance_loss",
    "lce_loss",
    "margin_loss",
    "metric_learning_loss",
    "neighbour_loss",
    "old_dimensions",
    "ract_loss",
    "ranking_loss",
    "refreshed_classifier",
    "regression_loss",
    "weakened_regression_loss",
]
