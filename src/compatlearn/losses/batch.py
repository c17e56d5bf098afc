"""What losses that look across the batch share: the batch of all processes, and float32 whatever autocast says."""

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import IncompatibleError


def check_dimension(dimension: int, d_old: int) -> None:
    """Raise IncompatibleError if a new model of `dimension` dimensions has fewer than the old features, `d_old`."""
    if dimension < d_old:
        raise IncompatibleError(
            f"the old features have {d_old} dimensions, the new model gives {dimension}; "
            f"train it with dimension={d_old}, which adds a linear layer"
        )


def old_dimensions(features: Float[Tensor, "b d_new"], d_old: int) -> Float[Tensor, "b d_old"]:
    """The dimensions that are compared with old features, in float32 at least."""
    check_dimension(features.shape[1], d_old)
    compared = features[:, :d_old]
    return compared.float() if compared.element_size() < 4 else compared


def exact(values: Tensor) -> torch.autocast:
    """A context without autocast: its matrix products would be bfloat16, too coarse for exponents of cosines."""
    return torch.autocast(values.device.type, enabled=False)


def whole_batch(
    features: Float[Tensor, "b d_new"], labels: Int[Tensor, " b"], rows: Int[Tensor, " b"], d_old: int
) -> tuple[Float[Tensor, "w d_old"], Int[Tensor, " w"], Int[Tensor, " w"]]:
    """The batch of all processes, in their order: features cut to d_old, labels, rows.

    Every process then computes the loss of one process, on the same numbers; the mean of their gradients is its gradient.
    """
    return gather(old_dimensions(features, d_old)), gather(labels), gather(rows)


def gather(values: Tensor) -> Tensor:
    """The rows of all processes, in their order, with gradient to each one's own; their numbers may differ."""
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
