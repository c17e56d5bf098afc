"""From what each query scored to figures with their intervals, and the verdict."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from ..metric import Primary, Verdict
from .figures import Figure, resampled
from .metrics import negative_flips
from .outcome import Outcome
from .result import ClassChange, Scores

VERDICTS: dict[int, Verdict] = {1: "yes", 0: "undecided", -1: "no"}


@dataclass(frozen=True)
class Figures:
    """All figures of a comparison, drawn together: so they are paired by query.

    Attributes:
        scores: test → its figures.
        gain: cross − old self of the primary figure.
        update_gain: gain over that of a backfill; None where no test is one.
        negative_flips: share of the queries whose first hit was right and is not any more.
        verdict: by the interval of the gain.
    """

    scores: dict[str, Scores]
    gain: Figure
    update_gain: Figure | None
    negative_flips: Figure
    verdict: Verdict


def figures_of(
    outcomes: Mapping[str, Outcome],
    primary: Primary,
    backfill: str | None,
    *,
    seed: int,
    clusters: Shaped[np.ndarray, " q"] | None,
) -> Figures:
    """Figures with 95 % intervals.

    Args:
        outcomes: test → what its queries scored; "old_self" and "cross" at least.
        primary: the figure that gain, update gain and verdict are of.
        backfill: the test that stands for a full backfill; None: no update gain.
        seed: of the bootstrap.
        clusters: (q,) what is drawn together; None: each query by itself.

    Returns:
        The figures and the verdict.

    Raises:
        DataError: a single cluster.
    """
    columns = {(test, name): values for test, outcome in outcomes.items() for name, values in outcome.scores.items()}
    flips = negative_flips(outcomes["old_self"].right, outcomes["cross"].right)
    drawn = resampled(np.stack([*columns.values(), flips], axis=1).astype(np.float64), seed=seed, clusters=clusters)
    place = {key: number for number, key in enumerate(columns)}

    def mean(number: int) -> Figure:
        return drawn.figure(lambda means: means[:, number])

    def difference(test: str) -> Figure:
        after, before = place[test, primary], place["old_self", primary]
        return drawn.figure(lambda means: means[:, after] - means[:, before])

    gain = difference("cross")
    scores = {test: Scores(**{name: mean(place[test, name]) for name in each.scores}) for test, each in outcomes.items()}
    update = None
    if backfill is not None:
        before, after, full = (place[test, primary] for test in ("old_self", "cross", backfill))
        update = drawn.figure(lambda means: _ratio(means[:, after] - means[:, before], means[:, full] - means[:, before]))
        # near a zero denominator the drawn ratios jump between both infinities: their percentiles say nothing
        if difference(backfill).sign == 0:
            update = Figure(update.value, -np.inf, np.inf)
    return Figures(scores, gain, update, mean(len(columns)), VERDICTS[gain.sign])


def per_class(
    labels: Int[np.ndarray, " q"], before: Bool[np.ndarray, " q"], after: Bool[np.ndarray, " q"]
) -> list[ClassChange]:
    """Top-1 by class, in order of class.

    Args:
        labels: (q,) class of each query.
        before: (q,) whether its first hit was right.
        after: (q,) whether it is now.

    Returns:
        One entry per class.
    """
    classes, members = np.unique(labels, return_inverse=True)
    counts = np.bincount(members)
    old, new = (np.bincount(members, weights=right) / counts for right in (before, after))
    return [ClassChange(*row) for row in zip(classes.tolist(), counts.tolist(), old.tolist(), new.tolist(), strict=True)]


def _ratio(gained: Float[np.ndarray, " r"], possible: Float[np.ndarray, " r"]) -> Float[np.ndarray, " r"]:
    """Nothing gained of nothing to gain is 0."""
    unbounded = np.where(gained == 0, 0.0, np.copysign(np.inf, gained))
    share: np.ndarray = np.where(possible == 0, unbounded, gained / np.where(possible == 0, 1.0, possible))
    return share
