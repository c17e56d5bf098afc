"""Anyone's function, called with a list of pictures or texts; what it returns is checked."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from ..errors import DataError


def call(function: Callable[[list[Any]], Any], name: str, items: list[Any], what: str) -> Float[np.ndarray, "b d"]:
    """The vectors that a function makes of items.

    Args:
        function: takes a list, and returns (b, d) floats in NumPy or torch.
        name: what messages call it.
        items: b of them.
        what: "images", "texts".

    Returns:
        (b, d) float32.

    Raises:
        DataError: it failed, or returned something else.
    """
    count = len(items)
    try:
        vectors = function(items)
        values = vectors.detach().float().cpu().numpy() if isinstance(vectors, torch.Tensor) else np.asarray(vectors)
    except Exception as error:  # anyone's function
        raise DataError(f"{name} failed on {count} {what}: {type(error).__name__}: {error}") from error
    if values.ndim != 2 or len(values) != count or values.dtype.kind != "f":
        raise DataError(
            f"{name} was given {count} {what} and must return ({count}, d) floats; "
            f"it returned {values.dtype} of shape {values.shape}"
        )
    return values.astype(np.float32, copy=False)
