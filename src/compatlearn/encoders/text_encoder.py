"""A model as the embedding of texts sees it: texts in, vectors out, within its limits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from ..errors import ConfigError, DataError

TOKEN = 4  # bytes of UTF-8 in a token, roughly: what a price and a length are estimated with


class AnswerError(DataError):
    """A model answered something that is no vector for each text; the caller knows the ids.

    Attributes:
        places: the texts of the batch that it is about; empty is all of them.
    """

    def __init__(self, reason: str, places: Sequence[int] = ()) -> None:
        super().__init__(reason)
        self.places = list(places)


@dataclass(frozen=True)
class TextEncoder:
    """A model as the embedding of texts sees it, and the name of the space that its vectors live in.

    Attributes:
        forward: b texts → (b, d) vectors; called from `concurrency` threads.
        space: name of the space.
        batch_size: most texts at a time.
        batch_characters: most characters at a time, unless a single text has more.
        concurrency: batches at a time.
        options: what else decides about the vectors, such as a prompt; a resumed extraction must have the same.
        notice: texts → a line about them that is worth saying before the work; "" is none.
        paid: whether each text costs money; then Ctrl-C waits for the answers that are under way.
        receipt: a line that is worth saying after the work; "" is none.
        cost: texts → dollars that each will cost, roughly; None where no price is known.
        billed: dollars for all that the model says it has counted; None where it does not say, or no price is known.
    """

    forward: Callable[[list[str]], Float[np.ndarray, "b d"]]
    space: str
    batch_size: int = 512
    batch_characters: int = 1_000_000
    concurrency: int = 1
    options: dict[str, Any] = field(default_factory=dict)
    notice: Callable[[Sequence[str]], str] = lambda texts: ""
    receipt: Callable[[], str] = lambda: ""
    paid: bool = False
    cost: Callable[[Sequence[str]], list[float]] | None = None
    billed: Callable[[], float | None] = lambda: None

    def __post_init__(self) -> None:
        if min(self.batch_size, self.batch_characters, self.concurrency) < 1:
            raise ConfigError(
                f"batch_size, batch_characters and concurrency must be at least 1; got {self.batch_size}, "
                f"{self.batch_characters}, {self.concurrency}"
            )

    def encode(self, texts: list[str]) -> Float[np.ndarray, "b d"]:
        """Embed a few texts, unchecked; `embed_texts` takes any number of them.

        Args:
            texts: b of them.

        Returns:
            (b, d) vectors.
        """
        return self.forward(texts)
