"""Compatible losses: each a pure function, and a module that holds its state. One file per family.

Every module is called as `loss(features, labels, rows)`: (b, d_new) features, (b,) labels, (b,) rows of the training set.
The class term CE(W f, y) belongs to the training loop and is not part of these.
"""

from .batch import gather, old_dimensions
from .influence import InfluenceLoss, influence_loss
from .literature.advbct import AdvbctLoss
from .literature.asymmetric import AsymmetricLoss, asymmetric_contrastive_loss, asymmetric_triplet_loss
from .literature.bt2 import Bt2Loss, bt2_loss
from .literature.icarl import IcarlLoss
from .literature.lce import LceLoss, lce_loss
from .literature.lwf import LwfLoss, lwf_loss
from .literature.metric_learning import metric_learning_loss
from .literature.mixbct import MixbctLoss, mixbct_loss
from .literature.nccl import NcclLoss, nccl_loss
from .literature.ract import RactLoss, ract_loss
from .literature.unibct import UnibctLoss, unibct_classifier
from .neighbours import NeighbourLoss, instance_loss, neighbour_loss
from .ranking import RankingLoss, ranking_loss
from .regression import RegressionLoss, cosine_regression_loss, regression_loss, weakened_regression_loss

__all__ = [
    "AdvbctLoss",
    "AsymmetricLoss",
    "Bt2Loss",
    "IcarlLoss",
    "InfluenceLoss",
    "LceLoss",
    "LwfLoss",
    "MixbctLoss",
    "NcclLoss",
    "NeighbourLoss",
    "RactLoss",
    "RankingLoss",
    "RegressionLoss",
    "UnibctLoss",
    "asymmetric_contrastive_loss",
    "asymmetric_triplet_loss",
    "bt2_loss",
    "cosine_regression_loss",
    "gather",
    "influence_loss",
    "instance_loss",
    "lce_loss",
    "lwf_loss",
    "metric_learning_loss",
    "mixbct_loss",
    "nccl_loss",
    "neighbour_loss",
    "old_dimensions",
    "ract_loss",
    "ranking_loss",
    "regression_loss",
    "unibct_classifier",
    "weakened_regression_loss",
]
