"""Judgements in arrays: who judged what, how well, and the best that each query could find."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ..errors import DataError, first_few
from .lookup import Ids, as_ids, places_of


def flattened(judgements: Mapping[Any, Mapping[Any, float] | Collection[Any]]) -> tuple[list[Any], list[Any], list[Any]]:
    """Query, item and grade of each judgement; items without grades have 1.

    Args:
        judgements: as `Relevance.from_dict` takes them.
    """
    graded = {query: row if isinstance(row, Mapping) else dict.fromkeys(row, 1.0) for query, row in judgements.items()}
    queries = [query for query, row in graded.items() for _ in row]
    items = [item for row in graded.values() for item in row]
    return queries, items, [grade for row in graded.values() for grade in row.values()]


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


def grades_at(
    keys: Int[np.ndarray, " j"],
    degrees: Float[np.ndarray, " j"],
    width: int,
    wanted: Int[np.ndarray, " b"],
    found: Int[np.ndarray, "b k"],
) -> tuple[Int[np.ndarray, " g"], Int[np.ndarray, " g"], Float[np.ndarray, " g"]]:
    """Where a query found an item that was judged for it, and its grade there.

    Args:
        keys: (j,) ascending `query group × width + item group` of each judgement.
        degrees: (j,) its grade.
        width: number of item groups.
        wanted: (b,) query groups; -1: nobody judged the query.
        found: (b, k) item groups; -1: nobody judged the item.

    Returns:
        (g,) rows and (g,) columns of `found`, and (g,) grades.
    """
    row, column = np.nonzero((found >= 0) & (wanted[:, None] >= 0))  # most items were never judged
    sought = wanted[row] * width + found[row, column]
    places = np.searchsorted(keys, sought).clip(max=len(keys) - 1)
    same = keys[places] == sought
    return row[same], column[same], degrees[places[same]]


def lacking(
    keys: Int[np.ndarray, " j"],
    degrees: Float[np.ndarray, " j"],
    width: int,
    wanted: Int[np.ndarray, " q"],
    held: Int[np.ndarray, " n"],
) -> tuple[int, int]:
    """How many relevant items a gallery lacks, and how many queries nobody judged.

    Args:
        keys: (j,) `query group × width + item group` of each judgement.
        degrees: (j,) its grade.
        width: number of item groups.
        wanted: (q,) query groups; -1: nobody judged the query.
        held: (n,) item groups of the gallery.
    """
    rows, columns = np.divmod(keys, width)
    relevant = columns[(degrees > 0) & np.isin(rows, wanted)]
    return len(np.setdiff1d(relevant, held)), int((~np.isin(wanted, rows)).sum())


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
