"""Several methods tried on pairs kept out, the best taken, and its figure told from other pairs than chose it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import DataError, TrainingError
from ..metric import Metric
from .file import Network, Record
from .folds import cross_fitted
from .matched import Matched, Seen
from .methods import ADAPTERS, AUTO, CANDIDATES, DISTILLING, GALLERY, TRANSLATING, UNLABELLED
from .task import Task, Tell, silent
from .trials import KeptOut, Split, Trial, apply

CHOOSING = 20  # pairs that a choice needs at least
LONG = 5.0  # seconds a fit may take unannounced


@dataclass(frozen=True)
class Wish:
    """What an adapter was asked for: see the parameters of `Adapter`."""

    method: str
    options: Mapping[str, Any]
    metric: Metric
    seed: int
    unseen_classes: bool
    direction: str = "query"
    gallery: Float[Tensor, "g d_old"] | None = None  # further old vectors, for the methods that learn from them


@dataclass(frozen=True)
class Choice:
    """A map fitted to all pairs, how its method was chosen, and what it is worth.

    Attributes:
        method: the best of the trials, or the one that was asked for.
        network: fitted to all pairs.
        trials: of all candidates, on the pairs that chose; empty where a method was named.
        test: of the method on pairs that took no part in choosing it; None where none was asked for.
    """

    method: str
    network: Network
    trials: dict[str, Trial]
    test: Trial | None


def choose(matched: Matched, seen: Seen, wish: Wish, *, tested: bool, tell: Tell = silent) -> Choice:
    """The method asked for, or the best of several, fitted to all pairs.

    Args:
        matched: the pairs, inspected.
        seen: what was seen of the old side.
        wish: what was asked for.
        tested: try a named method as well, before it is fitted to all pairs.
        tell: takes lines of progress.

    Raises:
        DataError: too few pairs to choose by, or what a method needs is missing.
        TrainingError: no method could be fitted.
    """
    if wish.method != AUTO:
        _check_needs(matched, seen, wish)
        if not tested:
            return Choice(wish.method, fit_network(wish, _task(matched, seen, wish, tell)), {}, None)
    elif len(matched) < CHOOSING:
        raise DataError(f"{len(matched)} pairs are too few to choose a method by; give {CHOOSING} at least, or name ridge")
    split = Split.of(matched, wish.seed, choosing=wish.method == AUTO, unseen_classes=wish.unseen_classes)
    if len(split.fitted) + len(split.choosing) + len(split.reporting) < len(matched):
        tell(f"{len(matched)} pairs; trials are fitted to {len(split.fitted)} of them and search {len(split.gallery)}")
    fits, translated = _try_all(matched, seen, wish, split, tell)
    if not fits:
        raise TrainingError("no method could be fitted to these pairs; look at the vectors, or name ridge")
    best = max(fits, key=lambda name: _score(fits[name][1]))
    network, trial = fits[best]
    reporting = KeptOut(matched, split.reporting, split.gallery, wish.metric, wish.direction == GALLERY)
    old_head = _old_head(matched, seen, replace(wish, method=best), split, tell)
    test = reporting.try_out(
        best, network, trial.fitted, trial.seconds, wish.seed, translated=translated.get(best), old_head=old_head
    )
    trials = {name: each for name, (_, each) in fits.items()} if wish.method == AUTO else {}
    seconds = trial.seconds * len(matched) / trial.fitted
    tell(f"fitting {best} to all {len(matched)} pairs" + (f", about {seconds:.0f} s" if seconds > LONG else ""))
    named = replace(wish, method=best)
    network = fit_network(named, _task(matched, seen, named, tell))
    return Choice(best, network, trials, test)


def fit_network(wish: Wish, task: Task) -> Network:
    """The network of a named method."""
    network: Network = ADAPTERS[wish.method].fit(task, **wish.options)
    return network


def record(matched: Matched, choice: Choice, wish: Wish, known: str, unit_inputs: bool) -> Record:
    """Where the map comes from, as of now; `known` is what there was to choose by, `unit_inputs` how long inputs were."""
    return Record(
        method=choice.method,
        space_new=matched.space_new,
        space_old=matched.space_old,
        version=import_module(__package__.partition(".")[0]).__version__,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        metric=wish.metric,
        direction=wish.direction,
        rows=len(matched),
        seed=wish.seed,
        options={name: _plain(value) for name, value in wish.options.items()},
        inputs=matched.digests(),
        figures={} if choice.test is None else choice.test.to_dict(),
        facts=known,
        unit_inputs=unit_inputs and wish.metric == "cosine",
    )


def _plain(value: Any) -> Any:
    """A value that JSON can hold: itself, or for a loss its name."""
    return value if isinstance(value, (str, int, float, bool, type(None))) else type(value).__name__


def _try_all(
    matched: Matched, seen: Seen, wish: Wish, split: Split, tell: Tell
) -> tuple[dict[str, tuple[Network, Trial]], dict[str, Tensor]]:
    """Every candidate, fitted to one task: what does not depend on the method is computed once; and its translated gallery."""
    auto, turned = wish.method == AUTO, wish.direction == GALLERY
    free = UNLABELLED if wish.gallery is None else DISTILLING
    queries = free if matched.labels is None else CANDIDATES
    names = (TRANSLATING if turned else queries) if auto else (wish.method,)
    choosing, current = KeptOut(matched, split.choosing, split.gallery, wish.metric, turned), ""

    def tell_of_current(line: str) -> None:
        tell(f"{current}: {line}")

    labels = matched.labels_at(split.fitted)
    task = Task(matched.at(split.fitted), labels, seen.unit, wish.seed, tell_of_current, wish.gallery)
    fits: dict[str, tuple[Network, Trial]] = {}
    translated: dict[str, Tensor] = {}
    for current in names:
        if auto and ADAPTERS[current].needs_directions and seen.zero:
            tell_of_current(f"left out, {len(seen.zero)} old vectors have length zero ({matched.where(1, seen.zero)})")
            continue
        started, named = time.monotonic(), replace(wish, method=current)
        try:
            network = fit_network(named, task)
        except TrainingError as error:
            if not auto:
                raise
            tell_of_current(f"left out, {error}")
            continue
        seconds = time.monotonic() - started
        if turned:
            translated[current] = _translated(matched, split, network, named, task)
        trial = choosing.try_out(current, network, len(task.pairs), seconds, wish.seed, translated.get(current))
        fits[current] = network, trial
        tell_of_current(f"{seconds:.1f} s" + (f", {trial.brief()}" if auto else ""))
    return fits, translated


def _translated(matched: Matched, split: Split, network: Network, wish: Wish, task: Task) -> Float[Tensor, "g d_new"]:
    """The gallery as the map gives it to items that it was not fitted to: pairs that were fitted are mapped by other fits."""

    def translate(fitted: Int[np.ndarray, " i"], others: Int[np.ndarray, " o"]) -> Tensor:
        inside, out = (split.fitted[torch.from_numpy(rows)] for rows in (fitted, others))
        part = replace(task, pairs=matched.at(inside), labels=matched.labels_at(inside), tell=silent)
        return apply(fit_network(wish, part), matched.at(out).take(slice(0, None))[0])

    vectors = apply(network, matched.at(split.gallery).take(slice(0, None))[0])
    crossed = torch.from_numpy(cross_fitted(len(split.fitted), translate, wish.seed)).to(vectors)
    places = torch.searchsorted(split.gallery, split.fitted)
    known = (places < len(split.gallery)) & (split.gallery[places.clamp(max=len(split.gallery) - 1)] == split.fitted)
    vectors[places[known]] = crossed[known]
    return vectors


def _old_head(matched: Matched, seen: Seen, wish: Wish, split: Split, tell: Tell) -> Network | None:
    """The same kind of map from old to old vectors, what the labels give without a new model; None for maps without labels."""
    if not ADAPTERS[wish.method].needs_labels or wish.direction == GALLERY:
        return None
    tell(f"{wish.method}: the same head for old queries, to compare with")
    try:
        return choose(matched.within(split.fitted), seen, wish, tested=False).network
    except TrainingError as error:
        tell(f"{wish.method}: no head for old queries, {error}")
        return None


def _task(matched: Matched, seen: Seen, wish: Wish, tell: Tell) -> Task:
    """All pairs."""
    labels = None if matched.labels is None else torch.from_numpy(matched.labels)

    def tell_of_method(line: str) -> None:
        tell(f"{wish.method}: {line}")

    return Task(matched.pairs, labels, seen.unit, wish.seed, tell_of_method, wish.gallery)


def _score(trial: Trial) -> float:
    return 0.0 if trial.mapped is None else trial.mapped.value


def _check_needs(matched: Matched, seen: Seen, wish: Wish) -> None:
    """Raises DataError where a named method lacks labels, or meets old vectors that have no direction."""
    method = ADAPTERS[wish.method]
    if method.needs_labels and matched.labels is None:
        raise DataError(
            f"{wish.method} needs the class of each of {len(matched)} rows; give labels, or use ridge, which needs none"
        )
    if method.needs_directions and seen.zero and "loss" not in wish.options:
        raise DataError(
            f"{len(seen.zero)} of {len(matched)} vectors of {matched.names[1]} have length zero "
            f"(first: {matched.where(1, seen.zero)}), and {wish.method} compares directions; drop them or use ridge"
        )
