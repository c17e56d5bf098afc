"""Maps that are trained by gradient descent on cached features of two frozen models; minutes on a CPU."""

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..losses import InfluenceLoss, NeighbourLoss, RankingLoss
from ..losses.neighbours import SAMPLE
from ..losses.ranking import INSTANCE
from ..pseudo.table import build_classifier
from .kernel_fit import kernel_ridge_map
from .linear import procrustes
from .network import BATCH as MINIBATCH
from .network import Loss, MapNetwork, batch_of, scaled_network, train_map
from .pairs import Pairs
from .task import Task

STEPS, BATCH = 800, 128  # of the distilled head: minibatches, and their rows, at most
COMPARED = 1024  # pairs and items that each is compared with; twice as many ranked no better
TEACHING = 4000  # pairs that its teacher is fitted to, at most
UNIT = 1e-3  # how far from 1 a length may be
UNIT_SCALE = 16.0  # of the cosine in the influence loss, where old features have unit length


def residual_mlp(task: Task, *, epochs: int = 10, hidden: int = 256) -> MapNetwork:
    """Ridge plus one hidden layer, trained on ‖g(n) − o‖² / mean ‖o‖²."""
    network = scaled_network(task, hidden=hidden)
    return train_map(network.start_from(task.ridge), task, _regression(task), epochs=epochs)


def lambda_orthogonal(task: Task, *, epochs: int = 10, threshold: float = 1.0, sharpness: float = 10.0) -> MapNetwork:
    """A matrix W (times one length) trained on ‖g(n) − o‖² / mean ‖o‖² + `orthogonal_penalty(W)`, from Procrustes on.

    Source: the λ-orthogonality of NeurIPS 2025; λ is the threshold.
    """
    network = scaled_network(task, centred=False)
    rotation, bias = procrustes(task.pairs, unit=True)
    network.start_from((rotation * network.length / network.spread, bias))
    network.linear.bias.requires_grad_(False)
    regression = _regression(task)

    def loss(features: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        return regression(features, labels, rows) + orthogonal_penalty(network.linear.weight, threshold, sharpness)

    return train_map(network, task, loss, epochs=epochs)


def orthogonal_penalty(weight: Float[Tensor, "a b"], threshold: float, sharpness: float) -> Float[Tensor, ""]:
    """σ(a (‖W Wᵀ − I‖ − λ)) · ‖W Wᵀ − I‖, Frobenius, of the smaller of W Wᵀ and Wᵀ W; a the sharpness, λ the threshold."""
    gram = weight @ weight.T if weight.shape[0] <= weight.shape[1] else weight.T @ weight
    excess = gram - torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    distance = (excess.square().sum() + torch.finfo(gram.dtype).tiny).sqrt()  # of an exact rotation: no NaN in its gradient
    return torch.sigmoid(sharpness * (distance - threshold)) * distance


def rbt(task: Task, *, epochs: int = 10, blocks: int = 2, similarity: float = 1.0) -> MapNetwork:
    """Residual bottleneck blocks, trained on the influence loss plus `similarity` · ‖g(n) − o‖² / mean ‖o‖².

    Source: Wang et al., Unified representation learning for cross model compatibility, BMVC 2020. The old model is a black
    box here: its classifier is replaced by the random-walk pseudo classifier.
    """
    network = scaled_network(task, blocks=blocks).start_from(task.ridge)
    influence, regression = _influence(task), _regression(task)

    def loss(features: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        return influence(features, labels, rows) + similarity * regression(features, labels, rows)

    return train_map(network, task, loss, task.classes, epochs=epochs)


def head(task: Task, *, epochs: int = 10, hidden: int = 0, loss: Loss | None = None) -> MapNetwork:
    """The compatible head: ridge, trained on with a compatible loss on cached new features.

    Args:
        task: the pairs and their classes.
        epochs: passes over the pairs.
        hidden: units of a layer beside the linear map; 0 is none.
        loss: called as loss(features, labels, rows), labels being those that were given and rows places in the pairs; by
            default the influence loss against the random-walk pseudo classifier, with a scale of 16 where old features
            have unit length.
    """
    network = scaled_network(task, hidden=hidden).start_from(task.ridge)
    if loss is not None:
        return train_map(network, task, loss, task.labels, epochs=epochs)
    return train_map(network, task, _influence(task), task.classes, epochs=epochs)


def neighbour_head(
    task: Task,
    *,
    instance: float = 0.0,
    epochs: int = 12,
    hidden: int = 1024,
    temperature: float | None = None,
) -> MapNetwork:
    """The compatible head with the neighbour loss: a query should find its class, or itself, among the old features.

    Args:
        task: the pairs; without classes the instance loss is left alone.
        instance: weight of the instance loss.
        epochs: passes over the pairs.
        hidden: units of a layer beside the linear map; 0 is none.
        temperature: τ in mean squared lengths of an old feature; None is the loss's own default.
    """
    old = task.pairs.take(slice(0, None))[1]
    loss = NeighbourLoss(old, task.classes, instance=instance, temperature=temperature, unit=task.unit)
    network = scaled_network(task, hidden=hidden).start_from(task.ridge)
    return train_map(network, task, loss, task.classes, epochs=epochs)


def mixed_head(task: Task, **options: Any) -> MapNetwork:
    """`neighbour_head` with neighbour and instance loss in equal weight."""
    return neighbour_head(task, instance=1.0, **options)


def instance_head(task: Task, **options: Any) -> MapNetwork:
    """`neighbour_head` without classes."""
    return neighbour_head(replace(task, labels=None), instance=1.0, **options)


def ranking_head(
    task: Task,
    *,
    instance: float = INSTANCE,
    epochs: int = 12,
    hidden: int = 1024,
    temperature: float | None = None,
    batch: int = MINIBATCH,
    sample: int = SAMPLE,
) -> MapNetwork:
    """The compatible head with the ranking loss: a query ranks the old gallery as the new model would rank its own.

    Args:
        task: the pairs; classes are not used.
        instance: weight of the instance loss.
        epochs: passes over the pairs.
        hidden: units of a layer beside the linear map; 0 is none.
        temperature: τ in mean squared lengths of an old feature; None is the loss's own default.
        batch: rows of a minibatch, at most.
        sample: pairs that a minibatch is compared with.
    """
    pairs = task.pairs.take(slice(0, None))
    loss = RankingLoss(*pairs, instance=instance, temperature=temperature, sample=sample, unit=task.unit)
    network = scaled_network(task, hidden=hidden).start_from(task.ridge)
    return train_map(network, task, loss, epochs=epochs, batch=batch)


def distilled(
    task: Task,
    *,
    epochs: int = 40,
    hidden: int = 512,
    whitening: float | None = None,
    temperature: float | None = None,
) -> MapNetwork:
    """`ranking_head` on the pairs and on items of the gallery with the new vectors that `kernel_ridge_map` gives them.

    The kernel map of the gallery cannot be folded into a map of queries, being no linear function of the old vector; what it
    ranks first can be learnt. Items of the gallery cost nothing: only their old vectors are needed.

    Args:
        task: the pairs; `task.gallery` holds further old vectors.
        epochs: passes over the pairs and the items together, so many that there are some hundreds of steps.
        hidden: units of a layer beside the linear map.
        whitening: of the teacher's kernel, as for `kernel_ridge_map`; None: chosen on pairs kept out.
        temperature: likewise.

    Source: distillation of rankings: Passalis and Tefas, Learning deep representations with probabilistic knowledge transfer,
    ECCV 2018.
    """
    new, old = task.pairs.take(slice(0, None))
    sides = [new.float(), old.float()]
    if task.gallery is not None:
        unit = bool(((sides[0].norm(dim=1) - 1).abs() < UNIT).all())
        drawn = torch.randperm(len(new), generator=torch.Generator().manual_seed(task.seed))[:TEACHING]
        chosen = drawn.sort().values
        known = Pairs(new, old, chosen, chosen).turned()
        teacher = kernel_ridge_map(replace(task, pairs=known, unit=unit), whitening=whitening, temperature=temperature)
        items = task.gallery.float()
        sides = [torch.cat(parts) for parts in zip(sides, (teacher(items), items), strict=True)]
    rows = torch.arange(len(sides[0]))
    taught = replace(task, pairs=Pairs(sides[0], sides[1], rows, rows), labels=None)
    steps = -(-len(rows) // batch_of(len(rows), BATCH))
    epochs = max(1, min(epochs, STEPS // steps))
    return ranking_head(taught, instance=0.0, epochs=epochs, hidden=hidden, batch=BATCH, sample=COMPARED)


def _regression(task: Task) -> Loss:
    """Mean over the batch of ‖g(n) − o‖², in units of the mean of ‖o‖²."""
    mean_square = float(task.moments.old_old.trace()) / task.moments.count or 1.0

    def loss(features: Tensor, labels: Tensor, rows: Int[Tensor, " b"]) -> Tensor:
        old = task.pairs.take(rows.cpu())[1].to(features)
        return (features - old).square().sum(dim=1).mean() / mean_square

    return loss


def _influence(task: Task) -> nn.Module:
    assert task.classes is not None  # the table says that these methods need labels
    old = task.pairs.take(slice(0, None))[1]
    classifier = build_classifier("random-walk", old, task.classes)
    return InfluenceLoss(classifier.float(), scale=UNIT_SCALE if task.unit else None).to(old.device)
