"""Agreement with the new model's own ranking, which needs no labels and no judgements."""

import torch
from jaxtyping import Float
from torch import Tensor

from .kernel import nearness

NEIGHBOURS = 10


def overlap(
    queries: Float[Tensor, "q d"], mapped: Float[Tensor, "n d"], gallery: Float[Tensor, "n d"], k: int = NEIGHBOURS
) -> Float[Tensor, " q"]:
    """Share of each query's k nearest true items that are among its k nearest mapped ones.

    Args:
        queries: (q, d) rows 0 to q − 1 of the gallery; each leaves out its own row.
        mapped: (n, d) what stands for the gallery.
        gallery: (n, d) the true vectors.
        k: neighbours compared.

    Returns:
        (q,) in [0, 1].
    """
    count = min(k, len(gallery) - 1)
    own = torch.arange(len(queries))
    found = []
    for items in (mapped, gallery):
        near = nearness(queries, items)
        near[own, own] = -torch.inf
        found.append(near.topk(count, dim=1).indices)
    return (found[0][:, :, None] == found[1][:, None]).any(dim=2).double().mean(dim=1)
