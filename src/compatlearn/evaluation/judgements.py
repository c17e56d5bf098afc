"""Judgements in arrays: who judged what, how well, and the best that each query could find."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ..errors import DataError, first_few
from .lookup import Ids, as_ids, places_of


def arrays_of(
    known: Ids, queries: Ids, items: Ids, grades: Any, *, least: float | None = None
) -> tuple[np.ndarray, np.ndarray, Int[np.ndarray, " j"], Float[np.ndarray, " j"]]:
    """Judgements as sorted keys; the grades of a pair that comes again add up.

    Args:
        known: (q,) ids of the queries, those without a judgement included.
        queries: (m,) the query of each judgement.
        items: (m,) its item.
        grades: (m,) its grade.
        least: the smallest grade allowed; None: any.

    Returns:
        (q,) ascending query ids, (n,) ascending item ids, (j,) ascending keys `query × n + item`, (j,) float32 grades.

    Raises:
        DataError: no judgement, ids of two kinds, or a grade that is no finite number or below the smallest.
    """
    if not len(items):
        raise DataError("there is no judgement: no query has an item; give each query the items that answer it")
    query_ids, item_ids = np.unique(as_ids(known, "query ids")), np.unique(as_ids(items, "item ids"))
    try:
        degrees = np.asarray(grades, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"grades must be numbers ({error}); a grade above 0 is relevant") from error
    if not np.isfinite(degrees).all():
        raise DataError(f"{int((~np.isfinite(degrees)).sum())} of {len(degrees)} grades are not finite; give numbers")
    if least is not None and len(below := np.flatnonzero(degrees < least)):
        raise DataError(f"{len(below)} of {len(degrees)} weights are below {least:g} (first: {first_few(below)}); give counts")
    rows, columns = places_of(query_ids, as_ids(queries)), places_of(item_ids, as_ids(items))
    keys, places = np.unique(rows * len(item_ids) + columns, return_inverse=True)
    return query_ids, item_ids, keys, np.bincount(places, weights=degrees).astype(np.float32)


def best_grades(
    rows: Int[np.ndarray, " j"],
    columns: Int[np.ndarray, " j"],
    degrees: Float[np.ndarray, " j"],
    sizes: Int[np.ndarray, " n"],
    wanted: Int[np.ndarray, " q"],
    k: int,
) -> Float[np.ndarray, "q k"]:
    """The k best grades of each query, descending.

    Args:
        rows: (j,) query group of each judgement, ascending.
        columns: (j,) its item group.
        degrees: (j,) its grade.
        sizes: (n,) how many items each item group has in the gallery.
        wanted: (q,) query groups; -1: nobody judged the query.
        k: grades per query.

    Returns:
        (q, k) float32; 0 where fewer than k items have a grade above 0.
    """
    kept = (degrees > 0) & (sizes[columns] > 0)
    times = sizes[columns[kept]].clip(max=k)
    rows, degrees = np.repeat(rows[kept], times), np.repeat(degrees[kept], times)
    order = np.lexsort((-degrees, rows))
    rows, degrees = rows[order], degrees[order]
    ranks = np.arange(len(rows)) - np.searchsorted(rows, rows)
    first = ranks < k
    table = np.zeros((int(max(rows.max(initial=-1), wanted.max(initial=-1))) + 2, k), dtype=np.float32)
    table[rows[first], ranks[first]] = degrees[first]  # its last row, which -1 takes, stays empty
    return table[wanted]
