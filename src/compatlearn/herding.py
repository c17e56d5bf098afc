"""iCaRL's exemplars and its classifier: rows whose mean stays nearest the class mean, and the nearest of such means."""

import torch
from jaxtyping import Float, Int

from .arrays import Array, as_tensor, check_labels, check_vectors, like
from .errors import ConfigError
from .pseudo import mean_classifier


def herding(class_vectors: Float[Array, "m d"], count: int) -> Int[Array, " k"]:
    """Rows of one class, best first: each keeps the mean of those chosen so far nearest the mean of all.

    Args:
        class_vectors: (m, d) features of one class.
        count: k in [1, m] rows to choose.

    Raises:
        ConfigError: count out of range.

    Source: Rebuffi et al., iCaRL, CVPR 2017, Algorithm 4.
    """
    rows = check_vectors(class_vectors, "class features")
    if not 1 <= count <= len(rows):
        raise ConfigError(f"count must be between 1 and {len(rows)}, the rows of the class; got {count}")
    mean, total = rows.mean(dim=0), torch.zeros_like(rows[0])
    chosen: list[int] = []
    for k in range(1, count + 1):
        distances = torch.linalg.vector_norm((total + rows) / k - mean, dim=1)
        distances[chosen] = torch.inf
        chosen.append(int(distances.argmin()))
        total += rows[chosen[-1]]
    return like(torch.tensor(chosen, device=rows.device), class_vectors)


def nearest_class_mean_accuracy(
    queries: Float[Array, "q d"], query_labels: Int[Array, " q"], gallery: Float[Array, "n d"], labels: Int[Array, " n"]
) -> float:
    """Share of queries whose nearest class mean of the gallery, by Euclidean distance, is that of their own class.

    Args:
        queries, query_labels: features and classes; with a new model's cut to d it is a cross test without neighbours.
        gallery, labels: features and classes, which must be all of [0, c).
    """
    rows = check_vectors(queries, "queries")
    centres = as_tensor(mean_classifier(gallery, labels, normalize=False)).to(rows)
    nearest = (centres.square().sum(dim=1) - 2 * rows @ centres.T).argmin(dim=1)
    return float((nearest == check_labels(query_labels, len(rows)).to(rows.device)).double().mean())
