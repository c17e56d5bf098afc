"""Compatible losses: each a pure function, and a module that holds its state. One file a family.

Every module is called as `loss(features, labels, rows)`: (b, d_new) features, (b,) labels, (b,) rows of the training set.
The class term CE(W f, y) is the training loop's own and not part of these.
"""

from .batch import gather, old_dimensions
from .influence import InfluenceLoss, influence_loss
from .literature.advbct import AdversarialLoss
from .literature.bt2 import BasisLoss, basis_loss
from .literature.contrastive import AsymmetricLoss, asymmetric_contrastive_loss, asymmetric_triplet_loss
from .literature.distillation import DistillationLoss, distillation_loss
from .literature.lce import LceLoss, lce_loss
from .literature.metric_learning import metric_learning_loss
from .literature.mixbct import MixLoss, margin_loss
from .literature.nccl import ConsensusLoss, consensus_loss
from .literature.ract import RactLoss, ract_loss
from .literature.unibct import RefreshedLoss, refreshed_classifier
from .neighbours import NeighbourLoss, instance_loss, neighbour_loss
from .ranking import RankingLoss, ranking_loss
from .regression import CentreLoss, RegressionLoss, cosine_regression_loss, regression_loss, weakened_regression_loss

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
