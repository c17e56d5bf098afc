"""The columns that tables have: what each is called, and what it says of a line."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from .outcome import SETTINGS, Outcome, method_of, setting_of
from .summary import LEAST_ROOM, Estimate, Estimates, Line, ScoreEstimates

NONE = "—"


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        heading: may have several lines.
        text: what it says of a line.
        kind: "label" tells lines apart, "verdict" answers, "number" is a figure.
    """

    heading: str
    text: Callable[[Line], str]
    kind: Literal["label", "verdict", "number"] = "number"


def columns(outcome: Outcome, *, terminal: bool = False) -> list[Column]:
    """What tells the lines apart, the verdict and the difference it rests on, then the other figures.

    A terminal has no room for every interval, nor in a sweep for the self tests.
    """
    spread = not terminal
    selves = not (terminal and outcome.varying)
    return [
        *([Column("method", lambda line: line.method, "label")] if outcome.several_methods else []),
        *(Column(SETTINGS[key].replace(" ", "\n"), partial(_setting, key=key), "label") for key in outcome.varying),
        Column("compatible", verdict_text if terminal else lambda line: line.verdict, "verdict"),
        Column("cross −\nold self", _figure(lambda figures: figures.gain, signed=True)),
        Column("cross\ntop-1", _figure(lambda figures: figures.cross.top1)),
        *([Column("old\nself\ntop-1", _figure(lambda figures: figures.old_self.top1, spread=spread))] if selves else []),
        *([Column("new\nself\ntop-1", _figure(lambda figures: _top1(figures.new_self), spread=spread))] if selves else []),
        Column("cross\ntop-5", _figure(lambda figures: figures.cross.top5, spread=False)),
        *([Column("cross\nby cosine", partial(_by_cosine, spread=spread))] if _any_by_cosine(outcome) else []),
        *([Column("update\ngain", partial(_share, spread=spread))] if _any_share(outcome) else []),
        Column("negative\nflips", _figure(lambda figures: figures.negative_flips, spread=spread)),
        *(_heads() if not terminal and labelled(outcome) else []),
    ]


def _heads() -> list[Column]:
    """What the labels of a map give without it; a terminal, which has no room for these, says it below the table."""
    return [
        Column("old self\n+ head", _figure(lambda figures: _top1(figures.old_head))),
        Column("backfill\n+ head", _figure(lambda figures: _top1(figures.backfill_head))),
        Column("update gain\nagainst that", _share_of_head),
    ]


def labelled(outcome: Outcome) -> list[Line]:
    """The lines that have references with a head: maps that are fitted with labels."""
    return [line for line in outcome.finished if line.figures is not None and line.figures.old_head is not None]


def about_heads(name: str, figures: Estimates) -> str:
    """What a map that is fitted with labels must be compared with, in a sentence; nothing where that was not measured."""
    without, filled = figures.old_head, figures.backfill_head
    if without is None or filled is None:
        return ""
    share = figures.update_gain_head
    known = share is not None and share.half is not None
    return (
        f"{name} is fitted with labels. Through a head fitted with the same labels, old queries alone reach "
        f"{percent(without.top1, spread=False)} % and a full backfill {percent(filled.top1, spread=False)} %"
        + (f"; against that backfill its update gain is {share.plain(spread=False)}." if share and known else ".")
    )


def verdict_text(line: Line) -> str:
    """`yes`, and below it how the seeds voted where they do not agree with it."""
    return "\n".join([line.verdict, *(vote for vote in votes(line) if vote != f"{line.seeds}/{line.seeds} {line.verdict}")])


def votes(line: Line) -> list[str]:
    """`3/3 yes`, or how often each verdict came out, seed by seed; nothing for a single seed that finished."""
    counts: dict[str, int] = dict(line.verdicts)
    counts["no"] -= line.failed
    counts["diverged"] = line.failed
    if line.seeds == 1:
        return ["diverged"] if line.failed else []
    return [f"{count}/{line.seeds} {verdict}" for verdict, count in counts.items() if count]


def notes(outcome: Outcome) -> list[str]:
    """What the figures mean: where intervals come from, what the verdict is, why a column is empty; a sentence each."""
    if outcome.seeds > 1:
        said = [f"±: half the 95 % interval of the mean over {outcome.seeds} seeds (Student's t)."]
        said += ["Compatible: the whole interval of cross − old self is above zero. x/y: what single seeds say."]
    else:
        said = ["One seed. ±: half the 95 % bootstrap interval over queries; the training was not repeated."]
    known = [line.figures for line in outcome.finished if line.figures is not None]
    if any(figures.update_gain is not None and figures.share is None for figures in known):
        said.append(
            f"No update gain where a full backfill gains less than {100 * LEAST_ROOM:g} points or not surely anything: "
            "too little to divide by."
        )
    return said


def percent(estimate: Estimate | None, *, signed: bool = False, spread: bool = True) -> str:
    """The estimate in % or points, or a dash."""
    return NONE if estimate is None else estimate.percent(signed=signed, spread=spread)


def _figure(
    pick: Callable[[Estimates], Estimate | None], *, signed: bool = False, spread: bool = True
) -> Callable[[Line], str]:
    return lambda line: percent(None if line.figures is None else pick(line.figures), signed=signed, spread=spread)


def _top1(test: ScoreEstimates | None) -> Estimate | None:
    return None if test is None else test.top1


def _setting(line: Line, key: str) -> str:
    return setting_of(line, key) or NONE


def _share(line: Line, spread: bool) -> str:
    share = None if line.figures is None else line.figures.share
    if share is None:
        return NONE
    return "< −1" if share.value < -1 else share.plain(spread=spread)


def _share_of_head(line: Line) -> str:
    share = None if line.figures is None else line.figures.update_gain_head
    return NONE if share is None or share.half is None else share.plain()


def _any_share(outcome: Outcome) -> bool:
    return any(line.figures is not None and line.figures.share is not None for line in outcome.lines)


def _any_by_cosine(outcome: Outcome) -> bool:
    """Only where a method is meant for it."""
    meant = [line for line in outcome.lines if (method := method_of(line)) is not None and method.metric == "cosine"]
    return any(line.by_cosine is not None for line in meant)


def _by_cosine(line: Line, spread: bool) -> str:
    """Top-1 and, in brackets, how far that is above the old self test by cosine."""
    if line.by_cosine is None:
        return NONE
    gain = percent(line.by_cosine.gain, signed=True, spread=False)
    return f"{percent(line.by_cosine.cross.top1, spread=spread)} ({gain})"
