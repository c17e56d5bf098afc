"""The outcome of a comparison or a sweep in plain words."""

from typing import Any

from ..pseudo.table import CLASSIFIERS
from ..training.methods import METHODS
from .summary import Estimate, Line, lines

SETTINGS = {"temperature": "T", "damping": "damping", "label_noise": "label noise"}
NONE = "—"
LISTED = 6  # names that a sentence holds
MEANING = "new queries find more in the old gallery than old queries do."


def verdict(results: dict[str, Any]) -> list[str]:
    """What came out, a sentence each: who is compatible, the best, what a full backfill would give, who failed."""
    shown = lines(results)
    chosen = best(shown)
    said = [_who_is_compatible(shown)]
    if chosen is not None:
        said += [_about_best(chosen, shown), *_about_backfill(chosen)]
    known = next((line for line in shown if line.method == "bct" and line.rows), None)
    if known is not None and known is not chosen:
        cross = percent(known.estimate("cross", "top1"))
        said.append(f"bct, at {cross} %, needs the old model's own classifier: it is there to compare with.")
    return said + [
        f"{name(line, shown)} diverged in {line.failed} of {line.seeds} {'seed' if line.seeds == 1 else 'seeds'}."
        for line in shown
        if line.failed
    ]


def best(shown: list[Line]) -> Line | None:
    """The largest gain among the lines that are compatible, or among all; references only where there is nothing else."""
    finished = [line for line in shown if line.rows]
    own = [line for line in finished if not (line.method in METHODS and METHODS[line.method].reference)] or finished
    return max(own, key=lambda line: (line.compatible, line.entry["gain"]["mean"]), default=None)


def varying(shown: list[Line]) -> list[str]:
    """The settings that a sweep varies; none in a comparison of methods."""
    return [key for key in SETTINGS if len({line.entry[key] for line in shown}) > 1]


def several_methods(shown: list[Line]) -> bool:
    """Whether a line needs its method's name: not in a sweep of one method."""
    return len({line.method for line in shown}) > 1 or not varying(shown)


def setting(line: Line, key: str) -> str:
    """The value of a setting, or a dash for a method that has no such parameter."""
    _, options = CLASSIFIERS.get(line.method, (None, ()))
    return f"{line.entry[key]:g}" if key == "label_noise" or key in options else NONE


def name(line: Line, shown: list[Line]) -> str:
    """`random-walk`, or in a sweep `random-walk (T 0.05)`, or `T 0.05` where all lines are of one method."""
    pairs = [(SETTINGS[key], setting(line, key)) for key in varying(shown)]
    settings = ", ".join(f"{what} {value}" for what, value in pairs if value != NONE)
    if not settings:
        return line.method
    return f"{line.method} ({settings})" if several_methods(shown) else settings


def percent(estimate: Estimate | None, *, signed: bool = False, spread: bool = True) -> str:
    """The estimate in % or points, or a dash."""
    return NONE if estimate is None else estimate.percent(signed=signed, spread=spread)


def ratio(estimate: Estimate | None, *, spread: bool = False) -> str:
    """The estimate as it is, or a dash."""
    return NONE if estimate is None else estimate.plain(spread=spread)


def seeds(line: Line) -> list[str]:
    """`3/3 yes`, or how often each verdict came out; the bare verdict for a single seed."""
    counts = dict(line.entry["compatible"])
    counts["no"] -= line.failed
    counts["diverged"] = line.failed
    said = [(outcome, count) for outcome, count in counts.items() if count]
    return [said[0][0]] if line.seeds == 1 else [f"{count}/{line.seeds} {outcome}" for outcome, count in said]


def _who_is_compatible(shown: list[Line]) -> str:
    names = [name(line, shown) for line in shown if line.compatible]
    count = max((line.seeds for line in shown), default=1)
    often = "" if count == 1 else f" in all {count} seeds"
    if not names:
        return f"No method is compatible{often}: none finds surely more in the old gallery than the old model does."
    if len(names) > LISTED:
        return f"{len(names)} of {len(shown)} lines of the table are compatible{often}: {MEANING}"
    listed = f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
    verb = "is" if len(names) == 1 else "are"
    return f"{listed} {verb} compatible{often}: {MEANING}"


def _about_best(line: Line, shown: list[Line]) -> str:
    cross, before = percent(line.estimate("cross", "top1")), percent(line.estimate("old_self", "top1"), spread=False)
    gain, flips = percent(line.estimate("gain"), signed=True), percent(line.estimate("negative_flips"), spread=False)
    lead = "Best" if line.compatible else "Nearest"
    return (
        f"{lead}: {name(line, shown)}. With nothing re-embedded, the first answer is right for {cross} % of the queries, "
        f"against {before} % with the old model ({gain} points); {flips} % of them turn from right to wrong."
    )


def _about_backfill(line: Line) -> list[str]:
    full, before = line.estimate("independent_self", "top1"), line.estimate("old_self", "top1")
    if full is None or before is None or line.method == "independent":
        return []
    more = Estimate(full.value - before.value, None).percent(signed=True)
    share = line.estimate("update_gain")
    part = "" if share is None else f"; {line.method} gives {ratio(share)} of that (its update gain)"
    return [f"A full backfill with an independent new model would reach {full.percent()} % ({more} points){part}."]
