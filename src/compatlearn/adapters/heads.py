"""Maps that are trained by gradient descent on cached features of two frozen models; minutes on a CPU."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..losses import InfluenceLoss, NeighbourLoss, RankingLoss
from ..losses.ranking import INSTANCE
from ..pseudo.table import build_classifier
from .linear import procrustes, ridge
from .network import Loss, MapNetwork, scaled_network, train_map
from .pairs import Pairs

UNIT_SCALE = 16.0  # of the cosine in the influence loss, where old features have unit length


def residual_mlp(
    pairs: Pairs, labels: Tensor | None, unit: bool, seed: int, *, epochs: int = 10, hidden: int = 256
) -> MapNetwork:
    """Ridge plus one hidden layer, trained on ‖g(n) − o‖² / mean ‖o‖²."""
    network = scaled_network(pairs, unit, seed, hidden=hidden)
    return train_map(network.start_from(ridge(pairs, seed)), pairs, _regression(pairs), epochs=epochs, seed=seed)


def lambda_orthogonal(
    pairs: Pairs,
    labels: Tensor | None,
    unit: bool,
    seed: int,
    *,
    epochs: int = 10,
    threshold: float = 1.0,
    sharpness: float = 10.0,
) -> MapNetwork:
    """A matrix W (times one length) trained on ‖g(n) − o‖² / mean ‖o‖² + `orthogonal_penalty(W)`, from Procrustes on.

    Source: the λ-orthogonality of NeurIPS 2025; λ is the threshold.
    """
    network = scaled_network(pairs, unit, seed, centred=False)
    rotation, bias = procrustes(pairs, seed, unit=True)
    network.start_from((rotation * network.length / network.spread, bias))
    network.linear.bias.requires_grad_(False)
    regression = _regression(pairs)

    def loss(features: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        return regression(features, labels, rows) + orthogonal_penalty(network.linear.weight, threshold, sharpness)

    return train_map(network, pairs, loss, epochs=epochs, seed=seed)


def orthogonal_penalty(weight: Float[Tensor, "a b"], threshold: float, sharpness: float) -> Float[Tensor, ""]:
    """σ(a (‖W Wᵀ − I‖ − λ)) · ‖W Wᵀ − I‖, Frobenius, of the smaller of W Wᵀ and Wᵀ W; a the sharpness, λ the threshold."""
    gram = weight @ weight.T if weight.shape[0] <= weight.shape[1] else weight.T @ weight
    excess = gram - torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    distance = (excess.square().sum() + torch.finfo(gram.dtype).tiny).sqrt()  # of an exact rotation: no NaN in its gradient
    return torch.sigmoid(sharpness * (distance - threshold)) * distance


def rbt(
    pairs: Pairs, labels: Tensor, unit: bool, seed: int, *, epochs: int = 10, blocks: int = 2, similarity: float = 1.0
) -> MapNetwork:
    """Residual bottleneck blocks, trained on the influence loss plus `similarity` · ‖g(n) − o‖² / mean ‖o‖².

    Source: Wang et al., Unified representation learning for cross model compatibility, BMVC 2020. The old model is a black
    box here: its classifier is replaced by the random-walk pseudo classifier.
    """
    network = scaled_network(pairs, unit, seed, blocks=blocks).start_from(ridge(pairs, seed))
    influence, regression = _influence(pairs, labels, unit), _regression(pairs)

    def loss(features: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        return influence(features, labels, rows) + similarity * regression(features, labels, rows)

    return train_map(network, pairs, loss, labels, epochs=epochs, seed=seed)


def head(
    pairs: Pairs,
    labels: Tensor,
    unit: bool,
    seed: int,
    *,
    epochs: int = 10,
    hidden: int = 0,
    loss: Loss | None = None,
) -> MapNetwork:
    """The compatible head: ridge, trained on with a compatible loss on cached new features.

    Args:
        loss: called as loss(features, labels, rows), rows being places in `pairs`; by default the influence loss against the
            random-walk pseudo classifier, with a scale of 16 where old features have unit length.
        hidden: units of a layer beside the linear map; 0 is none.
    """
    network = scaled_network(pairs, unit, seed, hidden=hidden).start_from(ridge(pairs, seed))
    return train_map(network, pairs, loss or _influence(pairs, labels, unit), labels, epochs=epochs, seed=seed)


def neighbour_head(
    pairs: Pairs,
    labels: Tensor | None,
    unit: bool,
    seed: int,
    *,
    instance: float = 0.0,
    epochs: int = 12,
    hidden: int = 1024,
    temperature: float | None = None,
) -> MapNetwork:
    """The compatible head with the neighbour loss: a query should find its class, or itself, among the old features.

    Args:
        labels: None leaves the instance loss alone.
        instance: weight of the instance loss.
    """
    old = pairs.take(slice(0, None))[1]
    loss = NeighbourLoss(old, labels, instance=instance, temperature=temperature, unit=unit)
    network = scaled_network(pairs, unit, seed, hidden=hidden).start_from(ridge(pairs, seed))
    return train_map(network, pairs, loss, labels, epochs=epochs, seed=seed)


def instance_head(pairs: Pairs, labels: Tensor | None, unit: bool, seed: int, **options: Any) -> MapNetwork:
    """`neighbour_head` without classes."""
    return neighbour_head(pairs, None, unit, seed, instance=1.0, **options)


def ranking_head(
    pairs: Pairs,
    labels: Tensor | None,
    unit: bool,
    seed: int,
    *,
    instance: float = INSTANCE,
    epochs: int = 12,
    hidden: int = 1024,
    temperature: float | None = None,
) -> MapNetwork:
    """The compatible head with the ranking loss: a query ranks the old gallery as the new model would rank its own.

    Args:
        labels: not used.
        instance: weight of the instance loss.
    """
    loss = RankingLoss(*pairs.take(slice(0, None)), instance=instance, temperature=temperature, unit=unit)
    network = scaled_network(pairs, unit, seed, hidden=hidden).start_from(ridge(pairs, seed))
    return train_map(network, pairs, loss, epochs=epochs, seed=seed)


def _regression(pairs: Pairs) -> Loss:
    """Mean over the batch of ‖g(n) − o‖², in units of the mean of ‖o‖²."""
    mean_square = sum(float(old.square().sum()) for _, old in pairs.blocks()) / len(pairs) or 1.0

    def loss(features: Tensor, labels: Tensor, rows: Int[Tensor, " b"]) -> Tensor:
        old = pairs.take(rows.cpu())[1].to(features)
        return (features - old).square().sum(dim=1).mean() / mean_square

    return loss


def _influence(pairs: Pairs, labels: Tensor, unit: bool) -> nn.Module:
    old = pairs.take(slice(0, None))[1]
    classifier = build_classifier("random-walk", old, labels)
    return InfluenceLoss(classifier.float(), scale=UNIT_SCALE if unit else None).to(old.device)
