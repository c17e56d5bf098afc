"""What the queries and pairs of a plan looked like in the new space: what live queries are compared with."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ..errors import DataError, FormatError, IncompatibleError
from ..files import write_atomically
from ..metric import Metric

KEPT = 2_000  # pairs, and queries, that a profile keeps
FAR = 0.99  # a query is far if it is farther from all pairs than this share of the pairs is from the other pairs
AGREEING = 10  # nearest pairs that both models should agree on
ARRAYS = ("pairs", "pairs_old", "queries", "lengths", "agreement")
FORMAT = "compatlearn-profile-1"


@dataclass(frozen=True)
class Profile:
    """A sample of the pairs that the maps were fitted to, and of the queries that the plan was measured with.

    Attributes:
        pairs: (m, d_new) float32 by the new model, as the metric sees them: of unit length under the cosine.
        pairs_old: (m, d_old) the same items by the old model, likewise.
        queries: (q, d_new) likewise; q may be 0.
        lengths: (q,) of the queries before they were scaled.
        agreement: (q,) in [0, 1], as `agreement_of` measures it, by maps that no query was fitted to; NaN: not measured.
        limit: distance to the nearest pair beyond which a query is far.
        metric: what ranks.
        space: of the new model; "" is unknown.
    """

    pairs: Float[np.ndarray, "m d"]
    pairs_old: Float[np.ndarray, "m e"]
    queries: Float[np.ndarray, "q d"]
    lengths: Float[np.ndarray, " q"]
    agreement: Float[np.ndarray, " q"]
    limit: float
    metric: Metric
    space: str = ""

    @classmethod
    def of(
        cls, pairs: Any, pairs_old: Any, queries: Any, metric: Metric, *, mapped: Any = None, space: str = "", seed: int = 0
    ) -> "Profile":
        """The profile of pairs and queries, or of 2,000 of each.

        Args:
            pairs: (m, d_new) new vectors that the maps were fitted to, m at least 2.
            pairs_old: (m, d_old) old vectors of the same items.
            queries: (q, d_new) new vectors of queries; None: there are none.
            metric: what ranks.
            mapped: (q, d_old) the queries in the old space, by maps that they were not fitted to; None: not known.
            space: of the new model.
            seed: of the draw.
        """
        rows = _some(len(pairs), seed)
        known, stored = (directed(side[rows], metric) for side in (pairs, pairs_old))
        limit = float(np.quantile(nearest_distances(known, known, itself=True), FAR))
        rows = _some(0 if queries is None else len(queries), seed)
        asked = np.asarray((pairs if queries is None else queries)[rows], dtype=np.float32)
        empty = cls(
            known, stored, directed(asked, metric), np.linalg.norm(asked, axis=1), np.full(len(rows), np.nan), limit, metric
        )
        agreement = empty.agreement if mapped is None else empty.agreement_of(asked, mapped[rows])
        return replace(empty, agreement=agreement, space=space)

    def agreement_of(self, queries: Float[np.ndarray, "q d"], mapped: Float[np.ndarray, "q e"]) -> Float[np.ndarray, " q"]:
        """(q,) of the ten pairs that a query is nearest to by the new model, the share that its mapped vector finds too.

        Args:
            queries: (q, d_new) new vectors.
            mapped: (q, d_old) the same, mapped into the old space.

        Raises:
            IncompatibleError: another dimension than that of the pairs.
        """
        found = []
        for rows, pairs in ((queries, self.pairs), (mapped, self.pairs_old)):
            _check_width(rows, pairs)
            near = squared_distances(directed(rows, self.metric), pairs, self.metric)
            found.append(np.argsort(near, axis=1, kind="stable")[:, :AGREEING])
        new, old = found
        return (new[:, :, None] == old[:, None, :]).any(axis=2).mean(axis=1, dtype=np.float32)

    def distances(self, queries: Float[np.ndarray, "q d"]) -> Float[np.ndarray, " q"]:
        """(q,) distance of each query to its nearest pair.

        Args:
            queries: (q, d) new vectors of any length.

        Raises:
            IncompatibleError: another dimension than that of the pairs.
        """
        _check_width(queries, self.pairs)
        return nearest_distances(directed(queries, self.metric), self.pairs)

    def far(self, queries: Float[np.ndarray, "q d"]) -> Bool[np.ndarray, " q"]:
        """(q,) which queries are farther from all pairs than 99 % of the pairs are from the other pairs.

        Args:
            queries: (q, d) new vectors of any length.

        Raises:
            IncompatibleError: another dimension than that of the pairs.
        """
        return self.distances(queries) > self.limit

    @property
    def share_far(self) -> float | None:
        """Share of the profile's own queries that are far; None if it has none."""
        return float(self.far(self.queries).mean()) if len(self.queries) else None

    def save(self, path: Path) -> None:
        """Write a safetensors file; atomic.

        Args:
            path: the file.

        Raises:
            DataError: the disk is full, or the path cannot be written.
        """
        tensors = {name: np.ascontiguousarray(getattr(self, name), dtype=np.float32) for name in ARRAYS}
        tensors |= {"limit": np.array([self.limit])}
        header = {"format": FORMAT, "metric": self.metric, "space": self.space}
        write_atomically(path, lambda temporary: save_file(tensors, temporary, header))


def load_profile(path: Path) -> Profile:
    """Read what `Profile.save` wrote.

    Args:
        path: the file.

    Returns:
        The profile.

    Raises:
        DataError: there is no such file.
        FormatError: it is something else, or not whole.
    """
    from safetensors import safe_open

    remedy = "make the plan again"
    if not path.is_file():
        raise DataError(f"there is no profile {path}; {remedy}")
    try:
        with safe_open(path, "np") as file:
            header = file.metadata() or {}
        if header.get("format") != FORMAT:
            raise FormatError(f"{path} is no profile of a plan ({header.get('format', 'its header has no format')}); {remedy}")
        rows = load_file(path)
        limit = float(rows["limit"][0])
        metric: Any = header["metric"]
        arrays = {name: rows[name] for name in ARRAYS}
        return Profile(**arrays, limit=limit, metric=metric, space=header.get("space", ""))
    except (OSError, KeyError, SafetensorError) as error:
        reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise FormatError(f"{path} is not a whole profile ({reason}); {remedy}") from error


def nearest_distances(
    rows: Float[np.ndarray, "q d"], pairs: Float[np.ndarray, "m d"], *, itself: bool = False
) -> Float[np.ndarray, " q"]:
    """(q,) Euclidean distance of each row to its nearest pair.

    Args:
        rows: (q, d) vectors.
        pairs: (m, d) vectors.
        itself: the rows are the pairs, and none is its own neighbour.
    """
    squares = squared_distances(rows, pairs, "euclidean")
    if itself:
        np.fill_diagonal(squares, np.inf)
    return np.sqrt(np.maximum(squares.min(axis=1), 0))


def squared_distances(
    rows: Float[np.ndarray, "q d"], pairs: Float[np.ndarray, "m d"], metric: Metric
) -> Float[np.ndarray, "q m"]:
    """(q, m) squared Euclidean distances; for "dot" minus the inner products: smaller is nearer everywhere.

    Args:
        rows: (q, d) vectors.
        pairs: (m, d) vectors.
        metric: what ranks; vectors under the cosine are of unit length already.
    """
    products = rows @ pairs.T
    if metric == "dot":
        return -products
    return np.square(rows).sum(axis=1)[:, None] + np.square(pairs).sum(axis=1) - 2 * products


def directed(rows: Any, metric: Metric) -> Float[np.ndarray, "n d"]:
    """(n, d) float32 as the metric sees them: of unit length for the cosine.

    Args:
        rows: (n, d) vectors.
        metric: what ranks.
    """
    rows = np.asarray(rows, dtype=np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30) if metric == "cosine" else rows


def _check_width(rows: Float[np.ndarray, "q d"], pairs: Float[np.ndarray, "m e"]) -> None:
    if rows.shape[1] != pairs.shape[1]:
        raise IncompatibleError(
            f"the queries have {rows.shape[1]} dimensions and the pairs of the plan {pairs.shape[1]}; "
            "embed them with the new model of the plan"
        )


def _some(count: int, seed: int) -> Int[np.ndarray, " k"]:
    """Numbers of all, or of 2,000 drawn at random."""
    return np.sort(np.random.default_rng(seed).permutation(count)[:KEPT])
