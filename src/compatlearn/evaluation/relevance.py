"""Which items answer a query: those of its class, or those that somebody judged."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from ..errors import IncompatibleError
from .clicks import read_clicks
from .judgements import arrays_of, best_grades, flattened, grades_at, lacking
from .lookup import Ids, as_ids, blocks_of, groups_of, of_kind
from .qrels import read_qrels


@dataclass(frozen=True, eq=False, repr=False)
class Relevance:
    """Which items answer which queries, and how well; made by the class methods `from_…`.

    Inside, every item is in one group and a query asks for groups: by label the groups are the classes and a query asks for
    its own; by judgement each judged item is a group to itself, and `judged` says which query asks for which, with what
    grade. Whoever searches asks `of` and `counts`, and need not know where relevance comes from.

    Attributes:
        query_ids: (q,) ascending ids that queries are known by; None: they are row numbers.
        item_ids: (n,) likewise of the items.
        query_groups: (q,) int64, of each query id; -1: a query that nobody judged.
        item_groups: (n,) int64, of each item id; -1: an item that nobody judged.
        judged: None where a query asks for its own group; else (j,) ascending `query group × width + item group`.
        degrees: (j,) float32 grade of each judgement; above 0 is relevant.
        width: number of item groups.
        unknown_queries: judged queries that are not among those which `at` was given.
        unknown_items: items that are relevant to a query that is known, but are not in the gallery which `at` was given.
        unjudged: rows of the queries that `at` was given for which there is no judgement at all; 0 by labels.
    """

    query_ids: Shaped[np.ndarray, " q"] | None
    item_ids: Shaped[np.ndarray, " n"] | None
    query_groups: Int[np.ndarray, " q"]
    item_groups: Int[np.ndarray, " n"]
    judged: Int[np.ndarray, " j"] | None
    degrees: Float[np.ndarray, " j"]
    width: int
    unknown_queries: int = 0
    unknown_items: int = 0
    unjudged: int = 0

    @classmethod
    def from_labels(cls, query_labels: Ids, gallery_labels: Ids) -> "Relevance":
        """Relevant is what has the query's label; queries and items are known by their row numbers.

        Args:
            query_labels: (q,) class of each query, numbers or text.
            gallery_labels: (n,) class of each gallery row, of the same kind.

        Returns:
            Relevance whose query ids are 0 to q − 1 and whose item ids are 0 to n − 1.

        Raises:
            IncompatibleError: numbers on one side and text on the other.

        >>> import compatlearn as cl
        >>> same = cl.Relevance.from_labels(["cat", "dog"], ["dog", "cat", "dog"])
        >>> same.of([0, 1], [[0, 1], [2, 1]])
        array([[False,  True],
               [ True, False]])
        >>> same.counts([0, 1])
        array([1, 2])
        """
        queries, items = as_ids(query_labels), as_ids(gallery_labels)
        if (queries.dtype.kind == "U") != (items.dtype.kind == "U"):
            raise IncompatibleError(
                f"labels of the queries are {queries.dtype} and those of the gallery {items.dtype}; give both the same kind"
            )
        classes, groups = np.unique(np.concatenate([queries, items]), return_inverse=True)
        asked, held = np.split(groups, [len(queries)])
        return cls(None, None, asked, held, None, np.zeros(0, dtype=np.float32), len(classes))

    @classmethod
    def from_dict(cls, judgements: Mapping[Any, Mapping[Any, float] | Collection[Any]]) -> "Relevance":
        """Judgements: which items are relevant to which query, and how well.

        Args:
            judgements: {query id: {item id: grade}}, a grade above 0 being relevant; or {query id: ids of relevant items},
                each of grade 1. Ids are all numbers or all text, for queries and for items.

        Returns:
            Relevance by these ids.

        Raises:
            DataError: no judgement, a grade that is no finite number, or ids of which some are numbers and some text.

        >>> import compatlearn as cl
        >>> judged = cl.Relevance.from_dict({"q1": {"a": 2, "b": 1, "c": 0}, "q2": ["c"]})
        >>> judged.of(["q1", "q2"], [["a", "c"], ["a", "c"]])
        array([[ True, False],
               [False,  True]])
        >>> judged.grades(["q1"], [["b", "a"]])
        array([[1., 2.]], dtype=float32)
        """
        return cls._judged(list(judgements), *flattened(judgements))

    @classmethod
    def from_qrels(cls, path: str | Path) -> "Relevance":
        """Judgements from a file of BEIR (header; query, item, grade; tabs) or of TREC (query, iteration, item, grade).

        Args:
            path: the file; UTF-8.

        Returns:
            Relevance by the ids of the file, which are text.

        Raises:
            DataError: there is no such file, or it holds no judgement.
            FormatError: a line that is no judgement, or that contradicts another one; the message has its number.
        """
        queries, items, grades = read_qrels(Path(path))
        return cls._judged(queries, queries, items, grades)

    @classmethod
    def from_pairs(cls, query_ids: Ids, item_ids: Ids, weights: np.ndarray | Sequence[Any] | None = None) -> "Relevance":
        """Pairs of a query and an item that answers it, such as clicks; the weights of a pair that comes again add up.

        Args:
            query_ids: (m,) the query of each pair, numbers or text.
            item_ids: (m,) its item.
            weights: (m,) how much each counts, 0 or more, such as clicks; None: 1. Their sum is the grade of the pair, and
                nDCG gains it as it is: where a few pairs have most of the clicks, take logarithms first.

        Returns:
            Relevance by these ids.

        Raises:
            DataError: no pair, or a weight below 0 or not finite.
            IncompatibleError: other numbers of queries, items and weights.

        >>> import compatlearn as cl
        >>> clicked = cl.Relevance.from_pairs(["q1", "q1", "q1"], ["a", "b", "a"])
        >>> clicked.grades(["q1"], [["a", "b", "c"]])
        array([[2., 1., 0.]], dtype=float32)
        """
        counts = np.ones(len(query_ids)) if weights is None else weights
        if not len(query_ids) == len(item_ids) == len(counts):
            numbers = f"{len(query_ids)}, {len(item_ids)} and {len(counts)}"
            raise IncompatibleError(f"each pair needs a query, an item and a weight; got {numbers}")
        return cls._judged(query_ids, query_ids, item_ids, counts, least=0.0)

    @classmethod
    def from_clicks(cls, path: str | Path) -> "Relevance":
        """Pairs from a table with the columns `query_id`, `item_id` and perhaps `count`; those of a pair add up.

        Args:
            path: CSV, TSV, JSON lines or Parquet, with the names of the columns.

        Returns:
            Relevance by the ids of the file, which are taken as text.

        Raises:
            DataError: there is no such file, it holds no pair, or an id or a count that is none.
            FormatError: it cannot be read, or lacks a column.
        """
        return cls.from_pairs(*read_clicks(Path(path)))

    @classmethod
    def _judged(cls, known: Ids, queries: Ids, items: Ids, grades: Any, least: float | None = None) -> "Relevance":
        query_ids, item_ids, keys, degrees = arrays_of(known, queries, items, grades, least=least)
        return cls(query_ids, item_ids, np.arange(len(query_ids)), np.arange(len(item_ids)), keys, degrees, len(item_ids))

    def __repr__(self) -> str:
        sizes = f"{len(self.query_groups)} queries, {len(self.item_groups)} items"
        same = f"same class: {sizes}, {self.width} classes"
        return f"Relevance({same if self.judged is None else f'{len(self.judged)} judgements: {sizes}'})"

    def of(self, queries: Ids, hits: Ids) -> Bool[np.ndarray, "q k"]:
        """Whether each hit is relevant to its query.

        Args:
            queries: (q,) ids of the queries.
            hits: (q, k) ids of the items that each found, such as `Hits.ids`; an id that is not known (-1, "") is not
                relevant.

        Returns:
            (q, k) bool.
        """
        if self.judged is not None:
            return self.grades(queries, hits) > 0
        wanted, found = groups_of(self.query_ids, self.query_groups, as_ids(queries)), as_ids(hits)
        relevant = np.empty(found.shape, dtype=bool)
        for part in blocks_of(found):
            groups = groups_of(self.item_ids, self.item_groups, found[part])
            relevant[part] = (groups == wanted[part, None]) & (groups >= 0)
        return relevant

    def grades(self, queries: Ids, hits: Ids) -> Float[np.ndarray, "q k"]:
        """How relevant each hit is to its query: the grade it was given, 1 for the same class, 0 where nobody judged it.

        Args:
            queries: (q,) ids of the queries.
            hits: (q, k) ids of the items that each found.

        Returns:
            (q, k) float32.
        """
        if self.judged is None:
            return self.of(queries, hits).astype(np.float32)
        wanted, found = groups_of(self.query_ids, self.query_groups, as_ids(queries)), as_ids(hits)
        grades = np.zeros(found.shape, dtype=np.float32)
        for part in blocks_of(found):
            groups = groups_of(self.item_ids, self.item_groups, found[part])  # (b, k)
            row, column, degrees = grades_at(self.judged, self.degrees, self.width, wanted[part], groups)
            grades[part][row, column] = degrees
        return grades

    def judged_items(self, queries: Ids) -> Int[np.ndarray, " m"]:
        """What a part of the gallery must hold so that these queries are judged as in the whole; to be asked after `at`.

        Args:
            queries: (q,) rows of the queries.

        Returns:
            (m,) ascending rows of the items that somebody judged for any of them; none by labels, which judge every item.
        """
        if self.judged is None:
            return np.zeros(0, dtype=np.int64)
        rows, columns = np.divmod(self.judged, self.width)
        wanted = groups_of(self.query_ids, self.query_groups, as_ids(queries))
        return np.flatnonzero(np.isin(self.item_groups, columns[np.isin(rows, wanted)]))

    def counts(self, queries: Ids, exclude: Ids | None = None) -> Int[np.ndarray, " q"]:
        """How many items are relevant to each query: of the gallery after `at`, of all that were judged before.

        Args:
            queries: (q,) ids of the queries.
            exclude: (q,) an item that each query's search leaves out, and which does not count; unknown ids leave out none.

        Returns:
            (q,) int64.
        """
        wanted = groups_of(self.query_ids, self.query_groups, as_ids(queries))
        sizes = np.bincount(self.item_groups[self.item_groups >= 0], minlength=self.width)
        if self.judged is not None:
            rows, columns = np.divmod(self.judged[self.degrees > 0], self.width)
            sizes = np.bincount(rows, weights=sizes[columns], minlength=int(wanted.max(initial=0)) + 1)
        total: np.ndarray = np.where(wanted >= 0, sizes[wanted.clip(min=0)], 0).astype(np.int64)
        return total if exclude is None else total - self.of(queries, as_ids(exclude)[:, None])[:, 0]

    def ideal(self, queries: Ids, k: int, exclude: Ids | None = None) -> Float[np.ndarray, "q k"]:
        """The best grades that a ranking could begin with: of the gallery after `at`, of all that was judged before.

        Args:
            queries: (q,) ids of the queries.
            k: how many grades, 1 or more.
            exclude: (q,) an item that each query's search leaves out, and which does not count; unknown ids leave out none.

        Returns:
            (q, k) float32, descending; 0 where fewer than k items are relevant.
        """
        if self.judged is None:
            return (np.arange(k) < self.counts(queries, exclude)[:, None]).astype(np.float32)
        wanted = groups_of(self.query_ids, self.query_groups, as_ids(queries))
        sizes = np.bincount(self.item_groups[self.item_groups >= 0], minlength=self.width)
        best = best_grades(*np.divmod(self.judged, self.width), self.degrees, sizes, wanted, k + 1)
        if exclude is None:
            return best[:, :k]
        own = self.grades(queries, as_ids(exclude)[:, None])  # (q, 1)
        after = np.logical_or.accumulate((best == own) & (own > 0), axis=1)[:, :k]  # from the first that could be the own item
        return np.where(after, best[:, 1:], best[:, :k])

    def at(self, query_ids: Ids, gallery_ids: Ids) -> "Relevance":
        """The same relevance for the rows of these queries and of this gallery: ids become row numbers, which are quick.

        Ids that are numbers match judgements whose ids are text by their digits, since files of judgements hold only text.

        Args:
            query_ids: (q,) ids of the rows of a query set.
            gallery_ids: (n,) ids of the rows of a gallery.

        Returns:
            Relevance whose query ids are 0 to q − 1 and whose item ids are 0 to n − 1; `unknown_queries` and
            `unknown_items` say what the judgements name and these sets lack, `unjudged` what they do not name.

        Raises:
            IncompatibleError: labels for other numbers of rows, or text ids where the judgements have numbers.
        """
        queries, items = as_ids(query_ids), as_ids(gallery_ids)
        if self.query_ids is None or self.item_ids is None or self.judged is None:
            given, wanted = (len(self.query_groups), len(self.item_groups)), (len(queries), len(items))
            if given != wanted:
                raise IncompatibleError(
                    f"labels of {given[0]} queries and {given[1]} gallery rows do not fit {wanted[0]} and {wanted[1]}; "
                    "give the labels of the same rows"
                )
            return self
        query_groups = groups_of(self.query_ids, self.query_groups, of_kind(queries, self.query_ids, "queries"))
        item_groups = groups_of(self.item_ids, self.item_groups, of_kind(items, self.item_ids, "items"))
        lost = len(np.setdiff1d(self.query_groups, query_groups))
        counts = lost, *lacking(self.judged, self.degrees, self.width, query_groups, item_groups)
        return Relevance(None, None, query_groups, item_groups, self.judged, self.degrees, self.width, *counts)
