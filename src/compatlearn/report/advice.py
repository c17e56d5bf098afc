"""What to do next: a recommendation, the commands that carry it out, and the way back."""

import math
import shlex
from dataclasses import dataclass

from scipy.stats import t as student

from ..evaluation.figures import LEVEL
from .outcome import Outcome, method_of
from .summary import Estimate, Line

MOST_SEEDS = 20  # more of them is no advice
HERE, AGAIN = "In the folder of this page:", "Where this comparison was started:"
ROLLBACK = {
    True: "Rollback: the index was not touched. To go back, send the old model's queries again.",
    False: "Rollback: none is needed, the index was not touched.",
}


@dataclass(frozen=True)
class Files:
    """Where the first run of a method lies, relative to the page.

    Attributes:
        old_training, new_training: features of the training images by the old and by the frozen new model.
        old: the old model's features of the validation images: queries and gallery.
        new: the new model's features of the same images, not mapped.
        adapter: the map between them; None for a method that trains the new model.
    """

    old_training: str
    new_training: str
    old: str
    new: str
    adapter: str | None


@dataclass(frozen=True)
class Advice:
    """A recommendation in one or two sentences, and commands to copy, with where to run them."""

    text: str
    commands: tuple[str, ...] = ()
    where: str = ""


def advice(outcome: Outcome, files: Files | None = None) -> Advice:
    """What follows from the verdict of the best method.

    Args:
        outcome: of a comparison or a sweep.
        files: of the best method's first run; without them the commands have placeholders in capitals.

    Returns:
        A recommendation and its commands.
    """
    best = outcome.best
    if best is None or best.figures is None:
        return Advice("Keep the old model. Train again into another folder, with a smaller learning rate.")
    if best.verdict == "yes":
        return _deploy(outcome, best, files)
    if best.verdict == "undecided":
        return _measure(outcome, best, best.figures.gain)
    return _keep(outcome, best.figures.room)


def _deploy(outcome: Outcome, best: Line, files: Files | None) -> Advice:
    method = method_of(best)
    frozen = method is not None and method.adapter
    note, where = "; below, this comparison's first seed stands in for them.", HERE
    if files is None:
        note, where = ".", ""
        files = Files("OLD-TRAINING", "NEW-TRAINING", "OLD", "NEW", "adapter.safetensors" if frozen else None)
    gate = ["evaluate", "--require-compatible", "--old-query", files.old, "--old-gallery", files.old, "--new-query", files.new]
    if outcome.recipe.get("metric") == "cosine":
        gate += ["--metric", "cosine"]
    if files.adapter is None:
        text = (
            f"Upgrade with {outcome.name(best)}: embed queries with its model, cut them to the old dimension and search the "
            "index as it is. Before you ship, run the gate, which exits with 3 unless the verdict is yes, on features of your "
            f"own queries{note}"
        )
        return Advice(text, (_command(*gate),), where)
    fit = ("adapt", "--method", best.method, "--old-features", files.old_training, "--new-features", files.new_training)
    text = (
        f"Upgrade with {outcome.name(best)}: the new model stays as it is, its queries go through an adapter and search the "
        "index as it is. Before you ship, run both commands on your own vectors: the first fits the adapter to pairs, the "
        f"second exits with 3 unless the verdict on other queries is yes{note}"
    )
    adapter = "adapter.safetensors"
    return Advice(text, (_command(*fit, "--out", adapter), _command(*gate, "--adapter", adapter)), where)


def _measure(outcome: Outcome, best: Line, gain: Estimate) -> Advice:
    name, measured = outcome.name(best), gain.percent(signed=True)
    if best.failed:
        return Advice(f"Do not switch yet: {name} diverged in {best.failed} of {best.seeds} seeds. Lower its learning rate.")
    if best.seeds == 1:
        text = f"Do not switch yet: {name} gains {measured} points, which may be chance. Repeat it with three seeds."
        return Advice(text, _again(outcome, seeds=3), AGAIN)
    wanted = seeds_needed(gain)
    if wanted is None:
        return Advice(
            f"Keep the old model for now: {name} gains {measured} points, and even {MOST_SEEDS} seeds with this spread "
            "would not decide it. Queries that are harder for the old model would tell more."
        )
    text = (
        f"Do not switch yet: {name} gains {measured} points. If that mean and its spread hold, about {wanted} seeds decide it; "
        "finished runs are kept."
    )
    return Advice(text, _again(outcome, seeds=wanted), AGAIN)


def _keep(outcome: Outcome, room: Estimate | None) -> Advice:
    if not any((method := method_of(line)) is not None and method.adapter for line in outcome.lines):
        text = (
            "Keep the old model for queries. Maps between frozen models were not tried: add the one that suits the data best."
        )
        methods = ",".join(dict.fromkeys([*(line.method for line in outcome.lines), "auto"]))
        return Advice(text, _again(outcome, methods=methods), AGAIN)
    if room is not None and room.value > 0:
        more = Estimate(room.value).percent(signed=True)
        return Advice(f"Keep the old model for queries, or plan a backfill: re-embedding the gallery would give {more} points.")
    return Advice("Keep the old model: the new one is no better even in a gallery of its own.")


def seeds_needed(gain: Estimate) -> int | None:
    """How many seeds would put the interval of this mean on one side of zero, if mean and spread stay as they are.

    Args:
        gain: a mean over two seeds or more, with its interval.

    Returns:
        At least two more than there are, at most 20; None if that is not enough.
    """
    if gain.half is None or gain.seeds < 2:
        return None
    spread = gain.half * math.sqrt(gain.seeds) / student.ppf((1 + LEVEL) / 2, gain.seeds - 1)
    for count in range(gain.seeds + 2, MOST_SEEDS + 1):
        if student.ppf((1 + LEVEL) / 2, count - 1) * spread / math.sqrt(count) < abs(gain.value):
            return count
    return None


def _again(outcome: Outcome, **flags: object) -> tuple[str, ...]:
    """The command that made the results, with other flags; a demo becomes the comparison that it is."""
    words = shlex.split(str(outcome.made.get("command") or ""))[1:]
    if not words:
        return ()
    if words[0] == "demo" and "methods" in flags:
        words[:1] = ["compare", "--recipe", "digits"]
        words += [] if "--out" in words else ["--out", "runs/demo"]
    if words[0] == "sweep" and "methods" in flags:
        return ()
    for flag in flags:
        words = _without(words, f"--{flag}")
    return (_command(*words, *(word for flag, value in flags.items() for word in (f"--{flag}", str(value)))),)


def _without(words: list[str], flag: str) -> list[str]:
    """The words without a flag that has one value."""
    kept, skip = [], False
    for word in words:
        if not skip and word != flag and not word.startswith(f"{flag}="):
            kept.append(word)
        skip = word == flag
    return kept


def _command(*words: str) -> str:
    return shlex.join(["compatlearn", *words])
