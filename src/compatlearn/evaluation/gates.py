"""Gates: limits that figures must meet, over all queries and in every group of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Shaped

from ..errors import ConfigError, DataError, IncompatibleError, unknown
from .figures import LEVEL, Figure
from .outcome import PerQuery
from .result import FIGURES, Compatibility
from .tails import difference, ratio, share

State: TypeAlias = Literal["met", "undecided", "not met", "too few queries"]
FEWEST = 30  # queries of a group that is gated
TAIL = (1 - LEVEL) / 2
NAMES = {  # figure → how a gate on it is called, where it is not min-<figure>
    "compatible": "require-compatible",
    "negative_flips": "max-negative-flips",
    "update_gain": "min-update-gain",
    "ndcg10": "min-ndcg",
}
TITLES = {"compatible": "gain", "negative_flips": "negative flips", "update_gain": "update gain"} | FIGURES


@dataclass(frozen=True)
class Gate:
    """A limit that a figure must meet.

    Attributes:
        figure: "compatible" (the gain is above zero), "negative_flips" (at most the limit), "update_gain", or a figure of the
            cross test such as "ndcg10" or "top1" (at least the limit).
        limit: a share in [0, 1]; of the update gain any finite number; of "compatible" 0.

    Raises:
        ConfigError: no such figure, or a limit out of range.
    """

    figure: str
    limit: float = 0.0

    def __post_init__(self) -> None:
        if self.figure not in TITLES:
            raise unknown("figure", self.figure, TITLES)
        if not math.isfinite(self.limit) or (self.figure != "update_gain" and not 0 <= self.limit <= 1):
            raise ConfigError(f"the limit of {self.figure} is a share from 0 to 1; got {self.limit:g}")
        if self.figure == "compatible" and self.limit != 0:
            raise ConfigError(f"compatible has no limit but 0; got {self.limit:g}")

    @property
    def name(self) -> str:
        """What reports call it: the flag of the command line, without its dashes."""
        return NAMES.get(self.figure, f"min-{self.figure}")

    @property
    def at_most(self) -> bool:
        """Whether the figure must not be above the limit; otherwise it must not be below."""
        return self.figure == "negative_flips"

    def allows(self, value: float) -> bool:
        """Whether a figure of this value meets the limit."""
        if self.figure == "compatible":
            return value > 0
        return value <= self.limit if self.at_most else value >= self.limit

    def surely(self, figure: Figure) -> bool:
        """Whether the whole interval meets the limit."""
        return self.allows(figure.high if self.at_most else figure.low)

    def surely_not(self, figure: Figure) -> bool:
        """Whether none of the interval does; a group that gains nothing at all is not worse."""
        if self.figure == "compatible":
            return figure.high < 0
        return not self.allows(figure.low if self.at_most else figure.high)


@dataclass(frozen=True)
class Check:
    """One gate, over all queries or in one group.

    Attributes:
        gate: the gate.
        group: the name of the group; None: all queries.
        queries: how many queries it has.
        figure: what they score, with the interval that counts.
        met: whether the gate is met; None: too few queries, so that it is not asked.
    """

    gate: Gate
    group: str | None
    queries: int
    figure: Figure
    met: bool | None

    @property
    def beyond(self) -> float:
        """How far the figure is on the wrong side of the limit; below zero: how far on the right one."""
        return (self.figure.value - self.gate.limit) * (1 if self.gate.at_most else -1)

    @property
    def state(self) -> State:
        """In a word or two; "undecided": the figure of a group is beyond the limit, but not surely, so it does not fail."""
        if self.met is None:
            return "too few queries"
        return "not met" if not self.met else "undecided" if self.group is not None and self.beyond > 0 else "met"


@dataclass(frozen=True)
class Checks:
    """All gates, checked.

    Attributes:
        checks: gate by gate: all queries, the groups that fail, worst first, those that do not, and those that are too small.
        strict: whether the whole interval had to meet the limit.
        fewest: queries of the smallest group that is gated; None without groups.
        tail: chance, at most, that a figure of a group is truly above its interval, and likewise below; None without groups.
    """

    checks: tuple[Check, ...]
    strict: bool
    fewest: int | None
    tail: float | None

    @property
    def failed(self) -> tuple[Check, ...]:
        """Those that are not met."""
        return tuple(check for check in self.checks if check.met is False)

    @property
    def met(self) -> bool:
        """Whether all gates are met that are asked."""
        return not self.failed

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        rows = [
            {"gate": check.gate.name, "limit": check.gate.limit, "group": check.group, "queries": check.queries}
            | check.figure.to_dict()
            | {"met": check.met, "state": check.state}
            for check in self.checks
        ]
        for row in rows:
            row["value"] = row["value"] if isinstance(row["value"], float) else None
        return {"met": self.met, "strict": self.strict, "fewest": self.fewest, "tail": self.tail, "checks": rows}


def check_gates(
    result: Compatibility,
    gates: Sequence[Gate],
    groups: Shaped[np.ndarray, " q"] | Sequence[Any] | None = None,
    *,
    strict: bool = False,
    fewest: int = FEWEST,
) -> Checks:
    """Whether figures meet their limits: over all queries, and in every group of them that is large enough.

    Over all queries the figure itself decides, as in the table. Of many groups some are beyond any limit by chance, so a
    group fails only where its whole interval is, and the intervals of all groups and gates hold together: where every group
    truly meets every limit, one of them fails in about 2.5 % of the runs at most. "compatible" asks more of all queries, the
    verdict "yes", and of a group that it is not surely worse.

    Strictly, the whole 95 % interval must meet the limit, over all queries and in each group.

    Args:
        result: what `compatibility` found.
        gates: the limits, one or more.
        groups: (q,) the group of each old query, in their order, numbers or text; None: no groups.
        strict: the whole interval must meet the limit.
        fewest: groups of fewer queries are reported and not gated.

    Returns:
        Every gate and group, with figure, interval and whether it is met.

    Raises:
        ConfigError: no gate, a figure that the result does not have, or groups where the intervals draw classes.
        DataError: no group has enough queries, or the result does not have the scores of single queries.
        IncompatibleError: groups of other queries.

    >>> import numpy as np
    >>> import compatlearn as cl
    >>> random, labels = np.random.default_rng(0), np.arange(200) % 4
    >>> rows = [np.eye(4)[labels] + noise * random.standard_normal((200, 4)) for noise in (0.4, 0.1)]
    >>> old, new = (cl.Features(vectors, labels) for vectors in rows)
    >>> r = cl.compatibility(old_query=old, old_gallery=old, new_query=new)
    >>> checks = cl.check_gates(r, [cl.Gate("compatible"), cl.Gate("negative_flips", 0.02)], groups=labels)
    >>> checks.met, len(checks.checks)
    (True, 10)
    """
    if not gates:
        raise ConfigError("there is no gate to check; give one, such as Gate('negative_flips', 0.01)")
    scored = _scored(result, gates)
    members = None if groups is None else _members(result, np.asarray(groups), fewest)
    asked = len(gates) * sum(len(rows) >= fewest for rows in (members or {}).values())
    tail = TAIL if strict else TAIL / max(1, asked)
    checks = []
    for gate in gates:
        whole = _whole(gate, result, scored)
        checks.append(Check(gate, None, result.queries, whole, _met(gate, whole, result, strict)))
        parts = []
        for name, rows in (members or {}).items():
            small = len(rows) < fewest
            figure = _figure(gate, scored, result.primary, rows, TAIL if small else tail)
            good = gate.surely(figure) if strict else not gate.surely_not(figure)
            parts.append(Check(gate, name, len(rows), figure, None if small else good))
        checks += sorted(parts, key=lambda check: ((False, True, None).index(check.met), -check.beyond))
    return Checks(tuple(checks), strict, None if members is None else fewest, None if members is None else tail)


def _scored(result: Compatibility, gates: Sequence[Gate]) -> PerQuery:
    if result.per_query is None:
        raise DataError("this result does not have the scores of single queries; take it from compatibility()")
    for gate in gates:
        if gate.figure == "update_gain" and result.per_query.backfill is None:
            raise ConfigError(
                "an update gain needs what a full backfill scores; give independent, or an adapter and new_gallery"
            )
        if gate.figure in FIGURES and gate.figure not in result.per_query.outcomes["cross"].scores:
            raise ConfigError(f"there is no {TITLES[gate.figure]} by {TITLES[result.primary]}; give labels or judgements")
    return result.per_query


def _members(result: Compatibility, groups: np.ndarray, fewest: int) -> dict[str, np.ndarray]:
    """Name of each group → its rows."""
    if len(groups) != result.queries:
        raise IncompatibleError(f"groups must be one for each of {result.queries} queries; got {len(groups)}")
    if result.classes is not None:
        raise ConfigError("figures of groups draw queries, not classes; take cluster='query', or no groups")
    names, places = np.unique(groups, return_inverse=True)
    members = {str(name): np.flatnonzero(places == number) for number, name in enumerate(names.tolist())}
    largest = max(members, key=lambda name: len(members[name]))
    if len(members[largest]) < fewest:
        raise DataError(
            f"none of {len(members)} groups has {fewest} queries (largest: {largest}, {len(members[largest])}), "
            "so nothing would be gated; evaluate more queries, or gate smaller groups"
        )
    return members


def _figure(gate: Gate, scored: PerQuery, primary: str, rows: np.ndarray | slice, tail: float) -> Figure:
    """What some queries score."""
    before, after = scored.outcomes["old_self"], scored.outcomes["cross"]
    if gate.figure == "negative_flips":
        return share((before.right & ~after.right)[rows], tail)
    if gate.figure in FIGURES:
        return share(after.scores[gate.figure][rows], tail)
    start = before.scores[primary][rows]
    gained = after.scores[primary][rows] - start
    if gate.figure == "compatible" or scored.backfill is None:
        return difference(gained, tail)
    return ratio(gained, scored.outcomes[scored.backfill].scores[primary][rows] - start, tail)


def _whole(gate: Gate, result: Compatibility, scored: PerQuery) -> Figure:
    """The figure of all queries as the table has it; of shares at least as wide as is exact: 0 of 30 is not surely 0."""
    exact = _figure(gate, scored, result.primary, slice(None), TAIL)
    if gate.figure == "compatible":
        return result.gain
    if gate.figure == "update_gain":
        return result.update_gain if result.update_gain is not None and math.isfinite(exact.low) else exact
    known = result.negative_flips if gate.figure == "negative_flips" else getattr(result.cross, gate.figure)
    return Figure(known.value, min(known.low, exact.low), max(known.high, exact.high))


def _met(gate: Gate, figure: Figure, result: Compatibility, strict: bool) -> bool:
    """Over all queries; an update gain of nothing that could surely be gained is none."""
    if gate.figure == "compatible":
        return result.compatible == "yes"
    return gate.surely(figure) if strict else gate.allows(figure.value) and figure.low > -math.inf
