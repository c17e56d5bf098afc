"""The regions of the old classes: a centre and a radius each, and which rows are credible."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ...arrays import Array, as_tensor, check_labels, check_vectors, unit_rows
from ...pseudo.centres import mean_classifier


def unit_features(old: Float[Array, "n d"], labels: Int[Array, " n"]) -> tuple[Float[Tensor, "n d"], Int[Tensor, " n"]]:
    """Old features scaled to unit length, and their classes, checked.

    Args:
        old: (n, d) old features.
        labels: (n,) their classes.

    Returns:
        (n, d) unit rows and (n,) labels, as tensors on one device.

    Raises:
        DataError: NaN or infinity, a zero row, or not exactly one class per row.
    """
    rows = unit_rows(check_vectors(old, "old features", nonzero=True))
    return rows, check_labels(labels, len(rows)).to(rows.device)


def class_means(rows: Float[Tensor, "n d"], labels: Int[Tensor, " n"], classes: int) -> Float[Tensor, "c d"]:
    """The mean of each class, not scaled to unit length.

    Args:
        rows: (n, d) features.
        labels: (n,) their classes in [0, classes), each of which occurs.
        classes: number of classes.

    Returns:
        (classes, d).
    """
    return as_tensor(mean_classifier(rows, labels, classes=classes, normalize=False))


def least_cosines(rows: Float[Tensor, "n d"], labels: Int[Tensor, " n"], centres: Float[Tensor, "c d"]) -> Float[Tensor, " c"]:
    """Cosine of the widest angle to its centre in each class, outliers left out.

    Args:
        rows: (n, d) unit rows.
        labels: (n,) their classes.
        centres: (c, d) centre of each class, of any length.

    Returns:
        (c,) cosines; rows more than 1.5 interquartile ranges below the quartiles are outliers.
    """
    return -_farthest(-(rows * unit_rows(centres)[labels]).sum(dim=1), labels, len(centres))


def radii(rows: Float[Tensor, "n d"], labels: Int[Tensor, " n"], centres: Float[Tensor, "c d"]) -> Float[Tensor, " c"]:
    """Largest distance to its centre in each class, outliers left out.

    Args:
        rows: (n, d) features.
        labels: (n,) their classes.
        centres: (c, d) centre of each class.

    Returns:
        (c,) distances; rows more than 1.5 interquartile ranges above the quartiles are outliers.
    """
    return _farthest(torch.linalg.vector_norm(rows - centres[labels], dim=1), labels, len(centres))


def credible_rows(
    rows: Float[Tensor, "n d"], labels: Int[Tensor, " n"], centres: Float[Tensor, "c d"], *, share: float = 0.9
) -> Bool[Tensor, " n"]:
    """Which rows are among the `share` of their class that lies nearest its mean.

    Args:
        rows: (n, d) features.
        labels: (n,) their classes.
        centres: (c, d) mean of each class.
        share: in (0, 1].

    Returns:
        (n,) true for credible rows, at least one per class.
    """
    distances, credible = torch.linalg.vector_norm(rows - centres[labels], dim=1), torch.zeros_like(labels, dtype=torch.bool)
    for members in _by_class(labels, len(centres)):
        nearest = distances[members].argsort(stable=True)[: max(1, int(share * len(members)))]
        credible[members[nearest]] = True
    return credible


def _farthest(distances: Float[Tensor, " n"], labels: Int[Tensor, " n"], classes: int) -> Float[Tensor, " c"]:
    farthest = distances.new_empty(classes)
    for c, members in enumerate(_by_class(labels, classes)):
        values = distances[members]
        low, high = values.quantile(0.25), values.quantile(0.75)
        farthest[c] = values[values <= high + 1.5 * (high - low)].max()
    return farthest


def _by_class(labels: Int[Tensor, " n"], classes: int) -> tuple[Tensor, ...]:
    return labels.argsort(stable=True).split(torch.bincount(labels, minlength=classes).tolist())
