"""Which rung to take: the cheapest that gives most of what the budget can buy."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError
from ..evaluation.figures import Figure
from .cost import Cost

TITLES = {"top1": "top-1", "ndcg10": "nDCG@10", "recall100": "Recall@100", "mrr10": "MRR@10", "agreement": "agreement"}
GOAL = 0.9  # of the best gain within the budget


@dataclass(frozen=True)
class Measured:
    """One rung of a plan.

    Attributes:
        name: of the rung.
        method: what maps it uses, and with which weights.
        figures: by name, in [0, 1]; empty where it was not measured.
        gain: over the old queries, of the primary figure, paired; None where it was not measured.
        update_gain: share of a backfill's gain; None where no backfill was measured, or where it does not surely gain.
        negative_flips: share of the queries whose first hit was right and is wrong now.
        cost: what it costs.
        needs: what it takes to run.
        reason: why it was not measured; "" where it was.
    """

    name: str
    method: str
    figures: dict[str, Figure]
    gain: Figure | None
    update_gain: float | None
    negative_flips: Figure | None
    cost: Cost
    needs: tuple[str, ...]
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For JSON; figures in [0, 1]."""
        return {
            "name": self.name,
            "method": self.method,
            "figures": {name: figure.to_dict() for name, figure in self.figures.items()},
            "gain": None if self.gain is None else self.gain.to_dict(),
            "update_gain": self.update_gain,
            "negative_flips": None if self.negative_flips is None else self.negative_flips.to_dict(),
            "cost": self.cost.to_dict(),
            "needs": list(self.needs),
            "reason": self.reason,
        }


def check_shares(budget: float, goal: float) -> None:
    """Refuse shares that are none.

    Args:
        budget: share of the gallery that may be embedded anew.
        goal: share of the best gain that is enough.

    Raises:
        ConfigError: a budget outside [0, 1], or a goal outside (0, 1].
    """
    if not 0 <= budget <= 1:
        raise ConfigError(f"budget must be a share of the gallery, from 0 to 1; got {budget}")
    if not 0 < goal <= 1:
        raise ConfigError(f"goal must be a share of the best gain, above 0 and at most 1; got {goal}")


def recommend(rungs: Sequence[Measured], primary: str, items: int, budget: float, goal: float) -> tuple[str, str]:
    """The name of a rung, and why; where no gain over old queries is known, by what the rungs themselves score.

    Args:
        rungs: cheapest first; some were measured that embed nothing.
        primary: the figure that gains are of.
        items: of the gallery.
        budget: share of them that may be embedded anew.
        goal: share of the best gain within the budget that is enough; of the best score, where no gain is known.

    Returns:
        A name, "old" where nothing surely beats the old queries, and a sentence.
    """
    affordable = [rung for rung in rungs if rung.figures and rung.cost.encoder_items <= budget * items]
    known = [rung for rung in affordable if rung.gain is not None]
    title, within = TITLES[primary], f"that embed no more than {budget:.0%} of the gallery"
    if not known:
        best, taken = _cheapest(affordable, lambda rung: rung.figures[primary].value, goal)
        text = f"{taken.name} has {_shown(taken.figures[primary])} % {title}"
        score = f"{100 * best.figures[primary].value:.1f}"
        text += f", the most of all {within}" if taken is best else _enough(goal, f"{score} of {best.name}")
        return taken.name, f"{text}; the old queries were not given, so no gain over them can be shown: give them to compare"
    better = [rung for rung in known if rung.gain is not None and rung.gain.low > 0]
    if not better:
        return (
            "old",
            f"no rung within the budget of {budget:.0%} of the gallery surely beats the old queries: keep the old model",
        )
    best, taken = _cheapest(better, _gain, goal)
    assert taken.gain is not None
    text = f"{taken.name} gains {_shown(taken.gain, '+')} points of {title} over the old queries"
    text += f", the most of all {within}" if taken is best else _enough(goal, f"{_gain(best) * 100:+.1f} of {best.name}")
    backfill = next((rung for rung in rungs if rung.name == "backfill" and rung.gain is not None), None)
    if backfill is not None and backfill is not taken:
        text += f"; a backfill gains {_gain(backfill) * 100:+.1f}"
    return taken.name, text


def _cheapest(rungs: Sequence[Measured], worth: Callable[[Measured], float], goal: float) -> tuple[Measured, Measured]:
    """The best rung, and the first that is worth enough of it."""
    best = max(rungs, key=worth)
    return best, next(rung for rung in rungs if worth(rung) >= goal * worth(best))


def _enough(goal: float, best: str) -> str:
    return f", at least {goal:.0%} of the {best}, and costs less"


def _gain(rung: Measured) -> float:
    return 0.0 if rung.gain is None else rung.gain.value


def _shown(figure: Figure, sign: str = "") -> str:
    value, low, high = (f"{100 * number:{sign}.1f}" for number in (figure.value, figure.low, figure.high))
    return f"{value} [{low}, {high}]"
