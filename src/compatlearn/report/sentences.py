"""The outcome of a comparison or a sweep in plain words: one verdict by one rule, then what it rests on."""

from collections.abc import Sequence

from .columns import about_heads, percent, votes
from .outcome import Outcome, is_reference, method_of
from .summary import Estimate, Estimates, Line

LISTED = 6  # names that a sentence holds


def headline(outcome: Outcome) -> str:
    """The answer: yes, undecided or no, and for which methods."""
    best = outcome.best
    if best is None:
        return "No: not one training run finished."
    if best.verdict == "yes":
        return f"Yes: {_compatible(outcome)} compatible."
    rivals = [line for line in outcome.finished if not is_reference(line)] or outcome.finished
    if all(line.verdict == "no" for line in rivals):
        return "No: new queries find less in the old gallery than the old queries do."
    return "Undecided: no method is surely better than the old model here, and not every one is surely worse."


def rule(outcome: Outcome) -> str:
    """The one criterion that the headline, the table and the first plot go by."""
    over = f"mean gain over {outcome.seeds} seeds" if outcome.seeds > 1 else "gain"
    return (
        "A method is compatible if new queries find more in the old gallery than old queries do: "
        f"the whole 95 % interval of the {over} is above zero."
    )


def details(outcome: Outcome) -> list[str]:
    """What the verdict rests on, a sentence each: the best, a full backfill, references, who failed."""
    best = outcome.best
    said = []
    if best is not None and best.figures is not None:
        said += [_about_best(outcome, best, best.figures), *_about_backfill(outcome, best, best.figures)]
    said += _about_seeds(outcome)
    said += [_about_oracle(line, line.figures) for line in outcome.lines if _is_oracle(line) and line.figures is not None]
    return said + [
        f"{outcome.name(line)} diverged in {line.failed} of {line.seeds} {'seed' if line.seeds == 1 else 'seeds'}."
        for line in outcome.lines
        if line.failed
    ]


def _compatible(outcome: Outcome) -> str:
    """`rbt is`, `l2, rbt and head are`, `7 of 9 settings are`."""
    deployable = [line for line in outcome.lines if not is_reference(line)] or outcome.lines
    names = [outcome.name(line) for line in deployable if line.verdict == "yes"]
    if len(names) > LISTED:
        what = "settings" if outcome.varying else "methods"
        return f"{len(names)} of {len(deployable)} {what} are"
    return f"{_listed(names)} {'is' if len(names) == 1 else 'are'}"


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]


def _about_best(outcome: Outcome, line: Line, figures: Estimates) -> str:
    cross, before = percent(figures.cross.top1), percent(figures.old_self.top1, spread=False)
    gain, flips = percent(figures.gain, signed=True), percent(figures.negative_flips, spread=False)
    lead = "Best" if line.verdict == "yes" else "Nearest"
    return (
        f"{lead}: {outcome.name(line)}. With nothing re-embedded, the first answer is right for {cross} % of the queries, "
        f"against {before} % with the old model ({gain} points); {flips} % of all queries turn from right to wrong."
    )


def _about_backfill(outcome: Outcome, line: Line, figures: Estimates) -> list[str]:
    method, full, room = method_of(line), figures.independent_self, figures.room
    if full is None or room is None or (method is not None and method.baseline):
        return []
    more = Estimate(room.value).percent(signed=True)
    share = figures.share
    part = (
        ""
        if share is None or share.value <= 0
        else f"; {outcome.name(line)} gives {share.plain(spread=False)} of that (its update gain)"
    )
    said = [f"A full backfill with an independent new model would reach {full.top1.percent()} % ({more} points){part}."]
    return said + [text for text in [about_heads(outcome.name(line), figures)] if text]


def _about_seeds(outcome: Outcome) -> list[str]:
    """Where every seed alone says yes and their mean does not."""
    names = [
        outcome.name(line)
        for line in outcome.lines
        if line.verdict == "undecided" and votes(line) == [f"{line.seeds}/{line.seeds} yes"]
    ]
    if not names or len(names) > LISTED:
        return []
    verb = "is" if len(names) == 1 else "are"
    return [
        f"{_listed(names)} {verb} undecided although each seed on its own says yes: "
        "the gain varies too much from seed to seed for its mean to be sure."
    ]


def _is_oracle(line: Line) -> bool:
    method = method_of(line)
    return method is not None and method.oracle


def _about_oracle(line: Line, figures: Estimates) -> str:
    cross = percent(figures.cross.top1)
    return f"{line.method}, at {cross} %, needs the old model's own classifier: it is there to compare with."
