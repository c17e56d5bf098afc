"""Tables that put every query into a group."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from ..data.text_files import KINDS, PARQUET, read_table
from ..errors import DataError, FormatError, IncompatibleError, first_few
from .clicks import QUERY_COLUMNS, column_of, ids_of

GROUP_COLUMNS = ("group", "group_id", "segment")


def read_groups(path: Path) -> dict[str, str]:
    """The group of each query in a table.

    Args:
        path: CSV, TSV, JSON lines or Parquet, with a header: `query_id`, `group`.

    Returns:
        Query id → group, both as text.

    Raises:
        DataError: there is no such file, it holds no row, an id or a group is missing, or a query is in two groups.
        FormatError: it cannot be read, or lacks a column.
    """
    if not path.is_file():
        raise DataError(f"there are no groups {path}; check the path")
    if path.suffix.lower() not in (*KINDS, *PARQUET):
        raise FormatError(f"{path} is no table of groups; write {', '.join(KINDS)} or .parquet")
    table = read_table([path], str(path), (*QUERY_COLUMNS, *GROUP_COLUMNS))
    query, group = (column_of(table, names) for names in (QUERY_COLUMNS, GROUP_COLUMNS))
    if not len(table):
        raise DataError(f"{path} holds no row; write a query id and a group per row")
    found: dict[str, str] = {}
    for row, (one, name) in enumerate(zip(ids_of(table, query), ids_of(table, group), strict=True)):
        before = found.setdefault(one, name)
        if before != name:
            raise DataError(f"{path} puts query {one!r} into {before!r} and {name!r} ({table.place(row)}); keep one of them")
    return found


def groups_at(
    groups: Mapping[str, str], ids: Shaped[np.ndarray, " q"], table: str, queries: str
) -> tuple[Shaped[np.ndarray, " q"], int]:
    """The group of each of these queries.

    Args:
        groups: query id → group, as `read_groups` gives them.
        ids: (q,) ids of the queries; numbers match their digits.
        table: what messages call the table.
        queries: what they call the queries.

    Returns:
        (q,) names of groups, and how many queries of the table are none of these.

    Raises:
        IncompatibleError: a query has no group.
    """
    wanted = [str(one) for one in ids.tolist()]
    missing = [one for one in wanted if one not in groups]
    if missing:
        example = f"; {table} has {first_few(map(repr, groups))}" if len(missing) == len(wanted) else ""
        raise IncompatibleError(
            f"{len(missing)} of {len(wanted)} queries of {queries} have no group in {table} "
            f"(first: {first_few(map(repr, missing))}{example}); give each query a group"
        )
    return np.array([groups[one] for one in wanted]), len(groups.keys() - set(wanted))
