"""How much of a search is worked on at a time. Nothing here changes what is found."""

from dataclasses import dataclass

import torch

PRODUCT = {"cpu": (1024, 8192), "cuda": (8192, 16384)}  # queries and gallery rows of one product
SPARE = {torch.bfloat16: 32, torch.float32: 12, torch.float64: 12}


@dataclass(frozen=True)
class Tiles:
    """Sizes that suit a processor's cache and memory; the tests take tiny ones, to cross every border with few rows.

    Attributes:
        product: queries and gallery rows of one matrix product; None: what suits the device.
        group: bounds of which only the smallest is looked at first; operands are padded to a multiple of it.
        crowd: times as many survivors as asked for: more than that are ties, which a bound cannot settle.
        spare: candidates beyond 1.25 k; None: what suits the type of the product.
        cached: numbers that are worked on at a time, so that they stay in the processor's cache.
        operand_bytes: of the queries that are held while the gallery passes by.
        read: gallery rows read at a time where all differences are taken.
        held: bytes of differences at a time, so that they stay in the cache.
        bfloat16: whether a product in bfloat16 comes first; None: where the device is fast in it.
    """

    product: tuple[int, int] | None = None
    group: int = 32
    crowd: int = 8
    spare: int | None = None
    cached: int = 1 << 18
    operand_bytes: int = 1 << 28
    read: int = 8192
    held: int = 1 << 19
    bfloat16: bool | None = None

    def product_on(self, device: torch.device) -> tuple[int, int]:
        """Queries and gallery rows of one product."""
        return self.product or PRODUCT.get(device.type, PRODUCT["cpu"])

    def candidates(self, k: int, dtype: torch.dtype) -> int:
        """How many candidates a query has, at least: one is for the row left out."""
        return k + 1 + k // 4 + (SPARE[dtype] if self.spare is None else self.spare)


DEFAULT = Tiles()
