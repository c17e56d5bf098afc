"""For losses that compare rows across the batch: the batch of all processes, and float32 even under autocast."""

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import IncompatibleError


def check_dimension(dimension: int, d_old: int) -> None:
    """Check that the new model has room for the old space.

    Args:
        dimension: of the new model's features.
        d_old: of the old features.

    Raises:
        IncompatibleError: `dimension` is below `d_old`.
    """
    if dimension < d_old:
        raise IncompatibleError(
            f"the old features have {d_old} dimensions, the new model gives {dimension}; "
            f"train it with dimension={d_old}, which adds a linear layer"
        )


def old_dimensions(features: Float[Tensor, "b d_new"], d_old: int) -> Float[Tensor, "b d_old"]:
    """The dimensions that are compared with old features, in float32 at least.

    Args:
        features: (b, d_new) of the new model, d_new ≥ d_old.
        d_old: dimension of the old features.

    Returns:
        (b, d_old) first dimensions, float32, or float64 where the features have it.

    Raises:
        IncompatibleError: the features have fewer dimensions.
    """
    check_dimension(features.shape[1], d_old)
    compared = features[:, :d_old]
    return compared.float() if compared.element_size() < 4 else compared


def exact(values: Tensor) -> torch.autocast:
    """A context without autocast, whose bfloat16 products are too coarse to exponentiate cosines."""
    return torch.autocast(values.device.type, enabled=False)


def whole_batch(
    features: Float[Tensor, "b d_new"], labels: Int[Tensor, " b"], rows: Int[Tensor, " b"], d_old: int
) -> tuple[Float[Tensor, "w d_old"], Int[Tensor, " w"], Int[Tensor, " w"]]:
    """The batch of all processes, in the order of the processes.

    Every process then computes the same loss on the same numbers as a single process would; the mean of their gradients is
    the gradient of that single process.

    Args:
        features: (b, d_new) of this process.
        labels: (b,) of this process.
        rows: (b,) of this process, rows of the training set.
        d_old: dimension of the old features.

    Returns:
        Features cut to d_old with their gradients, labels and rows, of all w images.

    Raises:
        IncompatibleError: the features have fewer than d_old dimensions.
    """
    return gather(old_dimensions(features, d_old)), gather(labels), gather(rows)


def gather(values: Tensor) -> Tensor:
    """The rows of all processes, in their order.

    Args:
        values: (b, …) rows of this process; b may differ between processes.

    Returns:
        (w, …) rows of all processes; gradients flow back to the rows of each.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return values
    return _Gather.apply(values)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        count = torch.tensor([len(values)], device=values.device)
        counts = [torch.empty_like(count) for _ in range(dist.get_world_size())]
        dist.all_gather(counts, count)
        sizes = [int(one) for one in counts]
        padded = values.new_zeros(max(sizes), *values.shape[1:])
        padded[: len(values)] = values
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        first = sum(sizes[: dist.get_rank()])
        ctx.own = slice(first, first + len(values))
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)  # every process used every row
        return total[ctx.own]
