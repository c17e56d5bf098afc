"""What `plan` found: every rung, and the one to take."""

from dataclasses import dataclass, field
from typing import Any

from rich.table import Table

from ..adapters.adapter import Adapter
from ..evaluation.profile import Profile
from ..metric import Metric
from .advice import Measured
from .curves import Curve
from .live import Live
from .maps import Methods
from .table import as_table, as_text


@dataclass(frozen=True)
class Plan:
    """Every rung, measured or with the reason why not, and the one to take; prints as a table.

    Attributes:
        rungs: cheapest first.
        recommended: name of the rung to take; "old": keep the old model. Whether it gains anything is in `gains`.
        why: in one sentence.
        primary: the figure that gains are of.
        measured: in words, what was asked and searched.
        items: of the gallery.
        pairs: that the maps were fitted to.
        budget: share of the gallery that may be embedded anew.
        metric: what ranks.
        methods: that were chosen, with their weights.
        trials: of each direction, on pairs kept out.
        far: share of the new queries that lie farther from all pairs than 99 % of the pairs do from each other; None
            without queries.
        learning: the translated gallery by number of pairs.
        partial: the partial backfill by share and order.
        notes: what a reader should know.
        examples: some queries with what they found before and after.
        adapters: the fitted maps, by direction.
        scale: how much larger squared distances are in the new space; the weight of the old space beside it counts as many
            times. 1 where only directions count.
        profile: what the pairs and queries look like in the new space, to compare later queries with; None where there is none.
        live: what the live index answers, exactly and as it is; None where none was asked.
    """

    rungs: tuple[Measured, ...]
    recommended: str
    why: str
    primary: str
    measured: str
    items: int
    pairs: int
    budget: float
    metric: Metric
    methods: Methods
    trials: dict[str, Any]
    far: float | None
    learning: Curve
    partial: dict[str, Curve]
    notes: tuple[str, ...]
    examples: tuple[dict[str, Any], ...] = ()
    adapters: dict[str, Adapter] = field(default_factory=dict)
    scale: float = 1.0
    profile: Profile | None = None
    live: Live | None = None

    def rung(self, name: str) -> Measured:
        """The rung of that name."""
        return next(rung for rung in self.rungs if rung.name == name)

    @property
    def gains(self) -> bool:
        """Whether the recommended rung surely beats the old queries; False where these were not measured."""
        gain = self.rung(self.recommended).gain
        return gain is not None and gain.low > 0

    def __str__(self) -> str:
        return as_text(self.__rich__())

    def __rich__(self) -> Table:
        """Every rung, what it gains and what it costs."""
        return as_table(self.rungs, self.recommended, self.primary, [self.why, self.measured, *self.notes])

    def to_dict(self) -> dict[str, Any]:
        """For JSON: what `plan.json` holds."""
        return {
            "rungs": [rung.to_dict() for rung in self.rungs],
            "recommended": self.recommended,
            "why": self.why,
            "primary": self.primary,
            "measured": self.measured,
            "items": self.items,
            "pairs": self.pairs,
            "budget": self.budget,
            "metric": self.metric,
            "methods": self.methods.to_dict() | {"scale": self.scale},
            "trials": self.trials,
            "far_queries": self.far,
            "learning_curve": self.learning.to_dict(),
            "partial_curve": {name: curve.to_dict() for name, curve in self.partial.items()},
            "live": None if self.live is None else self.live.to_dict(),
            "notes": list(self.notes),
            "examples": list(self.examples),
        }
