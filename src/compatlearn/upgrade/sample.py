"""Which items of a gallery become pairs, and which of very many are searched."""

from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from ..errors import ConfigError, DataError

Sampling = Literal["proportional", "coverage"]
POOL = 20  # items looked at for each that is taken, at most, where coverage decides


def sample_pairs(
    count: int, vectors: Float[np.ndarray, "n d"], *, by: Sampling = "proportional", seed: int = 0
) -> Int[np.ndarray, " m"]:
    """Rows of a gallery to embed anew as pairs, ascending.

    Args:
        count: m, how many; all rows where there are fewer.
        vectors: (n, d) old vectors; read only where coverage decides.
        by: "proportional": at random, so that pairs lie where items lie; "coverage": each next pair is the item farthest from
            those taken, so that no region is without one.
        seed: of the draw.

    Returns:
        (m,) rows, no two alike.

    Raises:
        DataError: no rows, or no pairs wanted.
        ConfigError: no such way to sample.

    Source: coverage: Gonzalez, Clustering to minimize the maximum intercluster distance, 1985, on a random part.

    >>> import numpy as np
    >>> sample_pairs(3, np.arange(10.0)[:, None], by="coverage", seed=0)
    array([0, 4, 9])
    """
    if count < 1 or len(vectors) == 0:
        raise DataError(f"{count} pairs of {len(vectors)} items are no pairs; ask for some hundreds at least")
    if by not in ("proportional", "coverage"):
        raise ConfigError(f"pairs are sampled 'proportional' or by 'coverage'; got {by!r}")
    drawn = np.random.default_rng(seed).permutation(len(vectors))
    if by == "proportional" or count >= len(vectors):
        return np.sort(drawn[:count])
    pool = drawn[: POOL * count]
    points = np.asarray(vectors[pool], dtype=np.float32)
    taken = [0]
    nearest = np.square(points - points[0]).sum(axis=1)
    for _ in range(count - 1):
        taken.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.square(points - points[taken[-1]]).sum(axis=1))
    return np.sort(pool[taken])


def sample_items(keep: Int[np.ndarray, " k"], drawn: Int[np.ndarray, " n"], most: int) -> Int[np.ndarray, " m"]:
    """Rows of a gallery to search: those that decide what is right, and others as they were drawn.

    Args:
        keep: (k,) rows that are taken in any case; they may be more than `most`.
        drawn: (n,) all rows in random order.
        most: how many rows are wanted, those that are kept included.

    Returns:
        (m,) ascending.

    >>> import numpy as np
    >>> sample_items(np.array([5, 1]), np.array([3, 5, 0, 2, 1, 4]), 4)
    array([0, 1, 3, 5])
    """
    others = drawn[~np.isin(drawn, keep)]
    return np.sort(np.concatenate([keep, others[: max(0, most - len(keep))]]))
