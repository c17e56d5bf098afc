"""What a map gives to rows that it was not fitted to: fitted several times, each time without some of them."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from ..arrays import Array, as_numpy

FOLDS = 5


def cross_fitted(
    count: int,
    translate: Callable[[Int[np.ndarray, " i"], Int[np.ndarray, " o"]], Float[Array, "o d"]],
    seed: int,
) -> Float[np.ndarray, "n d"]:
    """Every row as a fit gives it that has not seen it.

    Args:
        count: n, how many rows there are.
        translate: function(i rows to fit to, o other rows) → (o, d) what that fit gives for the others.
        seed: of the folds.

    Returns:
        (n, d), of the type that `translate` gives.

    Example:
        >>> import numpy as np
        >>> values = 2.0 ** np.arange(10)
        >>> means = cross_fitted(10, lambda fitted, others: np.full((len(others), 1), values[fitted].mean()), seed=0)
        >>> means.shape, len(np.unique(means))
        ((10, 1), 5)
    """
    folds = np.random.default_rng(seed).permutation(count) % FOLDS
    others = [np.flatnonzero(folds == fold) for fold in range(FOLDS)]
    parts = [as_numpy(translate(np.flatnonzero(folds != fold), rows)) for fold, rows in enumerate(others)]
    found = np.empty((count, parts[0].shape[1]), dtype=parts[0].dtype)
    found[np.concatenate(others)] = np.concatenate(parts)
    return found
