"""What a map that is fitted with labels must be compared with: the same kind of map where no vector changes its space.

Labels alone improve a search: old queries through a head from old to old vectors need no new model at all, and a backfill
gains from a head as well. Without these two, a gain that the labels give is taken for one of the new model.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from jaxtyping import Float, Int

from ..arrays import Array
from ..evaluation.compatibility import Map, compatibility
from ..evaluation.figures import Figure
from ..evaluation.relevance import Relevance
from ..evaluation.result import Scores
from ..features.ids import FeaturesLike, Items
from ..indexes.exact import search
from ..indexes.hits import Hits
from ..metric import Metric
from .adapter import Adapter, fit_adapter


@dataclass(frozen=True)
class HeadReferences:
    """A map fitted with labels beside what the same labels give without it; every figure with its 95 % interval.

    Attributes:
        old_head: old queries through a head, in the old gallery: no new model.
        backfill_head: new queries through a head, in the new gallery: a full backfill that knows the labels too.
        gain_over_old_head: cross − old_head, top-1, paired by query: what the new model adds to the labels.
        update_gain_head: (cross − old self) / (backfill_head − old self), top-1, paired: 1 is as good as that backfill.
            Unbounded where the interval of the denominator holds zero.
    """

    old_head: Scores
    backfill_head: Scores
    gain_over_old_head: Figure
    update_gain_head: Figure


def with_head(
    method: str,
    vectors: Float[Array, "n d"],
    labels: Int[Array, " n"],
    *,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> Adapter:
    """A head from a space to itself: it moves queries to where the gallery holds most of their class.

    Args:
        method: a name in `ADAPTERS`, such as "neighbour-head".
        vectors: (n, d) finite vectors of one model.
        labels: (n,) integer classes.
        seed: of the pairs held out and of training.
        options: of the method, see `ADAPTERS[method].options`.

    Returns:
        A fitted adapter, (q, d) → (q, d).

    Raises:
        ConfigError: no such method or option.
        DataError: unusable vectors or labels.
        TrainingError: training does not converge.

    Example:
        >>> import numpy as np
        >>> random, labels = np.random.default_rng(0), np.arange(200) % 10
        >>> vectors = np.eye(10)[labels] + 0.5 * random.standard_normal((200, 10))
        >>> with_head("neighbour-head", vectors, labels)(vectors).shape
        (200, 10)
    """
    return fit_adapter(method, vectors, vectors, labels, seed=seed, options=options)


def head_references(
    *,
    old_query: FeaturesLike,
    old_gallery: FeaturesLike,
    new_query: FeaturesLike,
    new_gallery: FeaturesLike | None = None,
    adapter: Map,
    old_head: Map,
    new_head: Map,
    relevance: Relevance | None = None,
    metric: Metric = "euclidean",
    seed: int = 0,
    searcher: Callable[..., Hits] = search,
) -> HeadReferences:
    """Measure a map that was fitted with labels against heads that were fitted with the same labels.

    Args:
        old_query: of the old model: vectors (q, d_old), ids, and classes unless there is `relevance`.
        old_gallery: of the old model; may be `old_query` itself.
        new_query: the same queries by the new model, (q, d_new).
        new_gallery: the same gallery by the new model; None where the queries are the gallery.
        adapter: new queries to old ones, fitted with labels.
        old_head: `with_head` of the old vectors that `adapter` was fitted to.
        new_head: `with_head` of the new vectors that `adapter` was fitted to.
        relevance: what answers the queries; None: what has the query's label.
        metric: what ranks.
        seed: of the bootstrap.
        searcher: what searches, called as `search` is.

    Returns:
        The references, and the map against them.

    Raises:
        DataError: as `compatibility`.
        IncompatibleError: as `compatibility`.
    """
    mapped = adapter(new_query.vectors)
    judge = partial(
        compatibility,
        old_gallery=old_gallery,
        new_query=new_query,
        adapter=lambda _: mapped,  # the same array both times: a searcher that remembers need not search it again
        relevance=relevance,
        metric=metric,
        seed=seed,
        searcher=searcher,
    )
    without = judge(old_query=_through(old_head, old_query, "old_query, through the head,"))
    backfill = judge(
        old_query=old_query,
        independent=_through(new_head, new_query, "new_query, through the head,"),
        independent_gallery=new_query if new_gallery is None else new_gallery,
    )
    assert backfill.independent_self is not None
    assert backfill.update_gain is not None
    return HeadReferences(without.old_self, backfill.independent_self, without.gain, backfill.update_gain)


def _through(head: Map, queries: FeaturesLike, name: str) -> Items:
    return replace(Items.of(queries, name), vectors=head(queries.vectors))
