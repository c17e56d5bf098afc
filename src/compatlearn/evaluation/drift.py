"""Do live queries still look like those of the plan? Tests of no change, at a stated rate of false alarms."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from ..errors import ConfigError, DataError, IncompatibleError
from .profile import Profile, directed, squared_distances

DRAWS = 999  # random splits that an energy distance is compared with
EXACT = 200  # values, of both sides, up to which the test of two samples is exact
FEWEST = 20  # queries on either side


@dataclass(frozen=True)
class Check:
    """One thing that is compared.

    Attributes:
        name: what it is.
        before: its mean over the queries of the plan; for "directions" what a split at random gives.
        now: its mean over the live queries; for "directions" the distance between the two samples.
        p: p-value of no change, in [0, 1].
        changed: p is small enough, all checks taken together.
    """

    name: str
    before: float
    now: float
    p: float
    changed: bool = False


@dataclass(frozen=True)
class Drift:
    """What live queries look like beside those of the plan.

    Attributes:
        checks: each thing that is compared.
        queries: how many live queries.
        reference: how many of the plan.
        far: share of the live queries that lie far from all pairs.
        far_before: the same of the plan's queries.
        alarms: rate at which the checks, taken together, raise a false alarm.
    """

    checks: tuple[Check, ...]
    queries: int
    reference: int
    far: float
    far_before: float
    alarms: float

    @property
    def changed(self) -> bool:
        """Whether any check says so."""
        return any(check.changed for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"changed": self.changed}

    def __str__(self) -> str:
        lines = [
            f"{check.name:<22} before {check.before:.4f}  now {check.now:.4f}  p = {check.p:.2g}"
            f"{'  changed' if check.changed else ''}"
            for check in self.checks
        ]
        lines.append(f"far from all pairs: {self.far:.1%} of {self.queries} queries, {self.far_before:.1%} of the plan's")
        end = "they have changed: measure again with them (plan)" if self.changed else "no change is seen"
        return "\n".join([*lines, f"{end}; false alarms: at most {self.alarms:.0%} of such comparisons"])


def drift(
    profile: Profile,
    queries: Float[Any, "q d"],
    *,
    query_map: Callable[[Any], Any] | None = None,
    alarms: float = 0.01,
    seed: int = 0,
) -> Drift:
    """Compare live queries with those that a plan was measured with.

    Lengths, distances to the nearest pair and directions are compared by two-sided tests; agreement, where a map is given,
    by a one-sided one, for only less of it is bad. The p-values are compared with `alarms` by Holm's procedure, so that this
    is the rate of false alarms of all of them together if live queries and the plan's are drawn alike.

    Args:
        profile: of the plan.
        queries: (q, d_new) live queries by the new model, at least 20, in no order and none twice because of a cache.
        query_map: the plan's map into the old space; measures agreement too.
        alarms: rate of false alarms, in (0, 1).
        seed: of the random splits.

    Returns:
        Every check.

    Raises:
        ConfigError: a rate that is none.
        DataError: too few queries on either side, or NaN.
        IncompatibleError: another dimension than that of the plan.

    Source:
        Kolmogorov and Smirnov's test of two samples; Székely and Rizzo, Testing for equal distributions in high dimension,
        2004 (energy distance, by permutation); Mann and Whitney 1947; Holm 1979.
    """
    rows = np.asarray(queries, dtype=np.float32)
    _check(profile, rows, alarms)
    from scipy.stats import ks_2samp, mannwhitneyu

    known = profile.queries
    pairs = {
        "length": (profile.lengths, np.linalg.norm(rows, axis=1)),
        "distance to the pairs": (profile.distances(known), profile.distances(rows)),
    }
    checks = [
        Check(
            name,
            float(before.mean()),
            float(now.mean()),
            float(ks_2samp(before, now, method="exact" if len(before) + len(now) <= EXACT else "asymp").pvalue),
        )
        for name, (before, now) in pairs.items()
    ]
    checks.append(_directions(known, directed(rows, profile.metric), seed))
    if query_map is not None and not np.isnan(profile.agreement).any():
        now = profile.agreement_of(rows, np.asarray(query_map(rows)))
        p = float(mannwhitneyu(now, profile.agreement, alternative="less").pvalue)
        checks.append(Check("agreement", float(profile.agreement.mean()), float(now.mean()), p))
    far = [float((distances > profile.limit).mean()) for distances in pairs["distance to the pairs"]]
    return Drift(_holm(checks, alarms), len(rows), len(known), far[1], far[0], alarms)


def _check(profile: Profile, rows: Float[np.ndarray, "q d"], alarms: float) -> None:
    if not 0 < alarms < 1:
        raise ConfigError(f"a rate of false alarms lies between 0 and 1; got {alarms}")
    if rows.ndim == 2 and rows.shape[1] != profile.pairs.shape[1]:
        raise IncompatibleError(
            f"queries have {rows.shape[1]} dimensions and the plan's {profile.pairs.shape[1]}; embed them by its new model"
        )
    if len(profile.queries) < FEWEST:
        raise DataError(f"the plan was made with {len(profile.queries)} queries; make it with {FEWEST} at least")
    if len(rows) < FEWEST:
        raise DataError(f"{len(rows)} queries are too few to tell a change; give {FEWEST} at least, better hundreds")
    if bad := int((~np.isfinite(rows).all(axis=1)).sum()):
        raise DataError(f"{bad} of {len(rows)} queries have NaN or infinity; drop them")


def _directions(known: Float[np.ndarray, "n d"], rows: Float[np.ndarray, "q d"], seed: int) -> Check:
    """The energy distance of both samples, 2 E|X − Y| − E|X − X'| − E|Y − Y'|, beside that of random splits."""
    random = np.random.default_rng(seed)
    rows = rows[np.sort(random.permutation(len(rows))[: len(known)])]
    both = np.concatenate([known, rows])
    apart = np.sqrt(np.maximum(squared_distances(both, both, "euclidean"), 0)).astype(np.float32)
    np.fill_diagonal(apart, 0)
    sides = np.zeros((len(both), DRAWS + 1), dtype=np.float32)
    sides[: len(known), 0] = 1
    for draw in range(1, DRAWS + 1):
        sides[random.permutation(len(both))[: len(known)], draw] = 1
    n, m = len(known), len(rows)
    weights = sides / n - (1 - sides) / m
    energy = -(weights * (apart @ weights)).sum(axis=0)  # the three means in one quadratic form
    p = float((energy[1:] >= energy[0]).sum() + 1) / (DRAWS + 1)
    return Check("directions", float(energy[1:].mean()), float(energy[0]), p)


def _holm(checks: list[Check], alarms: float) -> tuple[Check, ...]:
    order, going, changed = sorted(range(len(checks)), key=lambda place: checks[place].p), True, set()
    for rank, place in enumerate(order):
        going = going and checks[place].p <= alarms / (len(checks) - rank)
        changed |= {place} if going else set()
    return tuple(Check(check.name, check.before, check.now, check.p, place in changed) for place, check in enumerate(checks))
