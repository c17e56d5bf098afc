"""What the queries and pairs of a plan looked like in the new space: what live queries are compared with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ..errors import DataError, FormatError, IncompatibleError
from ..files import write_atomically
from ..metric import Metric

KEPT = 2_000  # pairs, and queries, that a profile keeps
FAR = 0.99  # a query is far if it is farther from all pairs than this share of the pairs is from the other pairs
FORMAT = "compatlearn-profile-1"


@dataclass(frozen=True)
class Profile:
    """A sample of the pairs that the maps were fitted to, and of the queries that the plan was measured with.

    Attributes:
        pairs: (m, d) float32, as the metric sees them: of unit length under the cosine.
        queries: (q, d) likewise; q may be 0.
        lengths: (q,) of the queries before they were scaled.
        limit: distance to the nearest pair beyond which a query is far.
        metric: what ranks.
        space: of the new model; "" is unknown.
    """

    pairs: Float[np.ndarray, "m d"]
    queries: Float[np.ndarray, "q d"]
    lengths: Float[np.ndarray, " q"]
    limit: float
    metric: Metric
    space: str = ""

    @classmethod
    def of(cls, pairs: Any, queries: Any, metric: Metric, *, space: str = "", seed: int = 0) -> "Profile":
        """The profile of pairs and queries.

        Args:
            pairs: (m, d) new vectors that the maps were fitted to, m at least 2.
            queries: (q, d) new vectors of queries; None: there are none.
            metric: what ranks.
            space: of the new model.
            seed: of the sample, where there are more than 2,000.
        """
        pairs, asked = _some(pairs, seed), _some(pairs[:0] if queries is None else queries, seed)
        known = _directed(pairs, metric)
        limit = float(np.quantile(nearest_distances(known, known, itself=True), FAR))
        return cls(known, _directed(asked, metric), np.linalg.norm(asked, axis=1), limit, metric, space)

    def distances(self, queries: Float[np.ndarray, "q d"]) -> Float[np.ndarray, " q"]:
        """(q,) distance of each query to its nearest pair.

        Args:
            queries: (q, d) new vectors of any length.

        Raises:
            IncompatibleError: another dimension than that of the pairs.
        """
        if queries.shape[1] != self.pairs.shape[1]:
            raise IncompatibleError(
                f"the queries have {queries.shape[1]} dimensions and the pairs of the plan {self.pairs.shape[1]}; "
                "embed them with the new model of the plan"
            )
        return nearest_distances(_directed(queries, self.metric), self.pairs)

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
        tensors = {"pairs": self.pairs, "queries": self.queries, "lengths": self.lengths.astype(np.float32)}
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
        return Profile(rows["pairs"], rows["queries"], rows["lengths"], limit, metric, header.get("space", ""))
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
    squares = np.square(rows).sum(axis=1)[:, None] + np.square(pairs).sum(axis=1) - 2 * rows @ pairs.T
    if itself:
        np.fill_diagonal(squares, np.inf)
    return np.sqrt(np.maximum(squares.min(axis=1), 0))


def _some(rows: Any, seed: int) -> Float[np.ndarray, "n d"]:
    chosen = np.sort(np.random.default_rng(seed).permutation(len(rows))[:KEPT])
    return np.asarray(rows[chosen] if len(rows) > KEPT else rows, dtype=np.float32)


def _directed(rows: Any, metric: Metric) -> Float[np.ndarray, "n d"]:
    rows = np.asarray(rows, dtype=np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30) if metric == "cosine" else rows
