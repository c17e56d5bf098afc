"""A budget in money: what items cost before they are embedded, and what they did cost."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from ..errors import ConfigError
from ..upgrade.fresh import Embed, WithoutContent

Price = Callable[[Sequence[Any]], Float[np.ndarray, " m"]]  # m ids → dollars


def _unknown() -> float | None:
    return None


@dataclass(frozen=True)
class Money:
    """What may be spent on new vectors, and what they cost.

    Attributes:
        price: function of a sequence of m ids: (m,) dollars that each costs, 0 or more; an estimate.
        most: dollars that may be spent; None: no limit, what is spent is counted only.
        billed: function that says what was billed since some moment, in dollars; None where nobody says it. Where it is
            known, it is what counts, and the prices are corrected by it.
    """

    price: Price
    most: float | int | None = None
    billed: Callable[[], float | None] = _unknown

    def __post_init__(self) -> None:
        if self.most is not None and not 0 <= self.most < np.inf:
            raise ConfigError(f"a budget is a finite sum of 0 dollars or more; got {self.most:g}")


class Purse:
    """An `embed` that counts what it costs.

    Args:
        embed: what makes the vectors.
        money: what it costs; None: nobody knows, and nothing is counted.
    """

    def __init__(self, embed: Embed, money: Money | None) -> None:
        self.embed, self.money = embed, money
        self.estimate = 0.0
        self._before = None if money is None else money.billed()

    def __call__(self, ids: list[Any]) -> Any:
        """The vectors of items; that they were asked for counts, whether they can be used or not."""
        price = 0.0 if self.money is None else float(np.sum(self.money.price(ids)))
        self.estimate += price
        try:
            return self.embed(ids)
        except WithoutContent:  # nothing was embedded
            self.estimate -= price
            raise

    @property
    def spent(self) -> float | None:
        """Dollars so far: as billed, else as estimated; None where no price is known."""
        billed = self._billed()
        return billed if billed or self.money is None else self.estimate

    def affords(self, ids: Shaped[np.ndarray, " m"]) -> int | None:
        """How many of these items, beginning with the first, the rest of the budget pays for; None: there is no such limit.

        Args:
            ids: (m,) of items, in the order in which they are embedded.
        """
        if self.money is None or self.money.most is None:
            return None
        billed = self._billed()
        factor = billed / self.estimate if billed and self.estimate > 0 else 1.0
        prices = factor * np.cumsum(self.money.price(ids.tolist()))
        return int((prices <= (self.money.most - (self.spent or 0.0)) * (1 + 1e-9)).sum())

    def _billed(self) -> float | None:
        now = None if self.money is None else self.money.billed()
        return None if now is None else now - (self._before or 0.0)


def dollars(amount: float | int) -> str:
    """An amount for people, with the digits that matter.

    Args:
        amount: in dollars.

    >>> dollars(1234.5), dollars(0.0123), dollars(0)
    ('$1,234.50', '$0.012', '$0')
    """
    return f"${amount:,.2f}" if amount >= 1 else f"${amount:.2g}"
