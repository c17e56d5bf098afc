"""In which order a partial backfill embeds the items."""

from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int

from ..adapters.kernel_fit import kernel_ridge_map
from ..adapters.pairs import Pairs as Matched
from ..adapters.task import Task
from ..indexes.exact import search
from ..metric import Metric
from .case import Case, Rows
from .maps import Pairs

ORDERS = ("random", "error", "density")
NEAR = 20  # items that a query of the log makes matter


Embedded: TypeAlias = Int[np.ndarray, " p"]  # rows of the items that have been embedded anew
NONE: Embedded = np.zeros(0, dtype=np.int64)


def order_of(
    name: str, case: Case, translated: Rows, pairs: Pairs, crossed: Rows, log: Rows, seed: int
) -> Int[np.ndarray, " n"]:
    """(n,) the rows of the items, those first that a partial backfill should embed first.

    Args:
        name: one of `ORDERS`: at random; by the predicted error of the translation; by how often queries find them.
        case: the items.
        translated: (n, d_new) the items as the map gives them.
        pairs: new and old vectors that the map was fitted to.
        crossed: (m, d_new) the pairs as fits give them that did not see them: their errors are known.
        log: (l, d_new) new vectors of queries that are none of those measured, or of pairs where there is no log.
        seed: of the random order, which also breaks ties.

    Source: order by predicted error: Jaeckle et al., FastFill: efficient compatible model update, ICLR 2023.
    """
    drawn = np.random.default_rng(seed).permutation(len(case.items))
    if name == "random":
        return drawn
    worth = _predicted_error(case.items, pairs, crossed, seed) if name == "error" else _density(translated, log, case.metric)
    return drawn[np.argsort(-worth[drawn], kind="stable")]


def _predicted_error(items: Rows, pairs: Pairs, crossed: Rows, seed: int) -> Float[np.ndarray, " n"]:
    """How far a translated item lies from its true vector, by kernel ridge regression on the pairs' own errors."""
    errors = np.square(pairs.new - crossed).sum(axis=1, keepdims=True).astype(np.float32)
    rows = torch.arange(len(pairs))
    task = Task(Matched(pairs.old, errors, rows, rows), seed=seed)
    network = kernel_ridge_map(task, whitening=0.25, strength=1.0, neighbours=0)
    return np.maximum(network(torch.from_numpy(items)).numpy()[:, 0], 0)


def _density(translated: Rows, log: Rows, metric: Metric) -> Float[np.ndarray, " n"]:
    """How often an item is among the first of a query of the log."""
    found = np.asarray(search(log, translated, min(NEAR, len(translated)), metric).indices)
    return np.bincount(found.ravel(), minlength=len(translated)) / len(log)
