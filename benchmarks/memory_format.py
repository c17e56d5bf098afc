"""A training step in contiguous memory against one in channels-last memory, and against one without oneDNN.

What `encoders.networks.memory_format` costs a network that it takes out of channels-last memory, where one of oneDNN's kernels
gives wrong gradients (issue 6035). Steps are interleaved; the ratio is that of the fastest of each.

Run: python benchmarks/memory_format.py
"""

import time
from collections.abc import Callable

import torch
import torchvision
from torch import nn

from compatlearn.encoders.networks import memory_format, small_resnet

NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "small_resnet4, 16 pixels, batch 64": (lambda: small_resnet(4), (64, 3, 16, 16)),
    "small_resnet8, 16 pixels, batch 64": (lambda: small_resnet(8), (64, 3, 16, 16)),
    "small_resnet32, 32 pixels, batch 256": (lambda: small_resnet(32), (256, 3, 32, 32)),
    "resnet18, 64 pixels, batch 32": (torchvision.models.resnet18, (32, 3, 64, 64)),
}
WAYS = {
    "channels last": (torch.channels_last, True),
    "contiguous": (torch.contiguous_format, True),
    "contiguous, no oneDNN": (torch.contiguous_format, False),
}
STEPS = 12


def step(network: nn.Module, pixels: torch.Tensor, onednn: bool) -> float:
    """Seconds of one forward and backward pass."""
    before, torch.backends.mkldnn.enabled = torch.backends.mkldnn.enabled, onednn
    try:
        started = time.perf_counter()
        network(pixels).square().mean().backward()
        return time.perf_counter() - started
    finally:
        torch.backends.mkldnn.enabled = before


def main() -> None:
    for name, (build, shape) in NETWORKS.items():
        affected = memory_format(build(), shape[-1]) != torch.channels_last
        ways = {way: setting for way, setting in WAYS.items() if not (affected and way == "channels last")}  # it may crash
        made = {way: build().to(memory_format=layout) for way, (layout, _) in ways.items()}
        pixels = {way: torch.randn(shape).to(memory_format=layout) for way, (layout, _) in ways.items()}
        fastest = dict.fromkeys(ways, float("inf"))
        for _ in range(STEPS):
            for way, (_, onednn) in ways.items():
                fastest[way] = min(fastest[way], step(made[way], pixels[way], onednn))
        reference = fastest["contiguous"]
        ratios = ", ".join(f"{way} {seconds / reference:.2f}" for way, seconds in fastest.items())
        print(f"{name}: contiguous {1000 * reference:.1f} ms; relative to it: {ratios}", flush=True)


if __name__ == "__main__":
    main()
