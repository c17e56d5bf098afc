"""Softmax regression on the frozen old features: a pseudo classifier that is fitted."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int

from ..arrays import Array, like
from ..rows import Rows
from .centres import _check_result, check_classes


def trained_classifier(
    vectors: Float[Array, "n d"],
    labels: Int[Array, " n"],
    *,
    seed: int = 0,
    classes: int | None = None,
    epochs: int = 20,
) -> Float[Array, "c d"]:
    """Softmax regression on the frozen old features (the paper's t-pse), by SGD with a one-cycle rate.

    Rows keep the length the fit gives them; there is no bias and no weight decay. During the fit, features are divided by their
    root mean square length, and the rate grows with the number of classes (the initial curvature is 1/classes), so the fit
    depends neither on the scale of the old space nor on the number of classes.

    Args:
        vectors: (n, d) features of the old model, finite.
        labels: (n,) class of each row, in [0, classes).
        seed: of the order of the rows; the same seed gives the same classifier on one machine.
        classes: number of classes; by default one more than the largest label.
        epochs: passes over the rows, in batches of n/32 rows, at most 1024.

    Returns:
        (classes, d), NumPy or torch as `vectors` is, float32 (float64 for float64).

    Raises:
        DataError: vectors or labels are unusable, or a class has no row.

    Examples:
        >>> import numpy as np
        >>> vectors, labels = np.eye(3).repeat(4, axis=0), np.arange(3).repeat(4)
        >>> classifier = trained_classifier(vectors, labels)
        >>> classifier.shape, (vectors @ classifier.T).argmax(axis=1).tolist() == labels.tolist()
        ((3, 3), True)

    Source: Non-Inherent Feature Compatible Learning, Eq. 13.
    """
    rows = Rows(vectors)
    targets, count = check_classes(labels, len(rows), classes)
    squares = torch.stack([torch.linalg.vector_norm(block, dim=1).double().square().sum() for block in rows.blocks()]).sum()
    _check_result(squares, vectors)
    scale, one = (squares / len(rows)).sqrt(), rows[:1]
    targets = targets.to(one.device)
    linear = torch.nn.Linear(one.shape[1], count, bias=False, device=one.device, dtype=one.dtype)
    torch.nn.init.zeros_(linear.weight)
    rate, batch_size = 0.5 * count, min(1024, -(-len(rows) // 32))
    optimizer = torch.optim.SGD(linear.parameters(), lr=rate, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * -(-len(rows) // batch_size))
    order = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for batch in torch.randperm(len(rows), generator=order).to(one.device).split(batch_size):
            loss = F.cross_entropy(linear(rows[batch] / scale), targets[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return like(linear.weight.detach() / scale, vectors)
