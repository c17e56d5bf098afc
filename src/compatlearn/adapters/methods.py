"""The table of ways to fit an adapter, and which of them `auto` tries; nothing heavy is imported to read it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from ..errors import ConfigError, unknown

AUTO = "auto"
QUERY, GALLERY = "query", "gallery"
KERNEL_OPTIONS = ("whitening", "temperature", "strength", "neighbours", "draw", "landmarks", "drawing")
HEAD_OPTIONS = ("epochs", "hidden", "temperature")


@dataclass(frozen=True)
class AdapterMethod:
    """One way to fit an adapter.

    Attributes:
        summary: one line for people.
        home: the function fit(task, **options) → network, as "module.function" of this package; imported when it is used.
        options: names of its options.
        needs_labels: it cannot be fitted without the class of each pair.
        needs_directions: it cannot be fitted where an old vector has length zero.
    """

    summary: str
    home: str
    options: tuple[str, ...] = ()
    needs_labels: bool = False
    needs_directions: bool = False

    @property
    def fit(self) -> Callable[..., Any]:
        """The function called as fit(task, **options) → network."""
        module, _, function = self.home.partition(".")
        found: Callable[..., Any] = getattr(import_module(f"{__package__}.{module}"), function)
        return found


ADAPTERS: dict[str, AdapterMethod] = {
    "procrustes": AdapterMethod("the rotation of unit vectors, with one scale for raw old spaces", "closed.procrustes_map"),
    "centred-procrustes": AdapterMethod("procrustes around the means of both sides", "closed.centred_procrustes_map"),
    "ridge": AdapterMethod("affine, least squares, strength from held-out rows", "closed.ridge_map", ("strength",)),
    "adjoint": AdapterMethod("the transpose of the other direction's ridge: its scores, read backwards", "closed.adjoint_map"),
    "kernel-ridge": AdapterMethod("ridge with a Gaussian kernel, closed form", "kernel_fit.kernel_ridge_map", KERNEL_OPTIONS),
    "residual-mlp": AdapterMethod("ridge plus a hidden layer, by regression", "heads.residual_mlp", ("epochs", "hidden")),
    "lambda-orthogonal": AdapterMethod(
        "a matrix that stays near a rotation", "heads.lambda_orthogonal", ("epochs", "threshold", "sharpness")
    ),
    "rbt": AdapterMethod(
        "residual bottlenecks, classification and similarity",
        "heads.rbt",
        ("epochs", "blocks", "similarity"),
        needs_labels=True,
        needs_directions=True,
    ),
    "head": AdapterMethod(
        "compatible head: ridge, trained on with the influence loss",
        "heads.head",
        ("epochs", "hidden", "loss"),
        needs_labels=True,
        needs_directions=True,
    ),
    "neighbour-head": AdapterMethod(
        "compatible head, neighbour loss: known classes", "heads.neighbour_head", HEAD_OPTIONS, needs_labels=True
    ),
    "mixed-head": AdapterMethod(
        "compatible head, neighbour and instance loss: new classes", "heads.mixed_head", HEAD_OPTIONS, needs_labels=True
    ),
    "ranking-head": AdapterMethod(
        "compatible head, ranks as the new model: no classes needed", "heads.ranking_head", (*HEAD_OPTIONS, "instance")
    ),
    "instance-head": AdapterMethod("compatible head, instance loss: no classes known", "heads.instance_head", HEAD_OPTIONS),
    "distilled": AdapterMethod(
        "ranking head, taught by a kernel-ridge map of the gallery",
        "heads.distilled",
        ("epochs", "hidden", "whitening", "temperature"),
    ),
}
CANDIDATES = ("procrustes", "ridge", "head", "neighbour-head", "mixed-head", "ranking-head")  # of auto, with labels
UNLABELLED = ("procrustes", "ridge", "ranking-head")  # of auto, without labels
DISTILLING = ("procrustes", "ridge", "distilled")  # of auto, without labels, where further items of the gallery are known
TRANSLATING = ("procrustes", "centred-procrustes", "ridge", "kernel-ridge")  # of auto, for the gallery: labels do not matter


def method_help() -> str:
    """What a method can be, for a help text."""
    free, labelled = (
        ", ".join(name for name, method in ADAPTERS.items() if method.needs_labels is needs) for needs in (False, True)
    )
    return (
        f"auto tries {', '.join(CANDIDATES)} (without labels {', '.join(UNLABELLED)}, or distilled "
        "in place of ranking-head where the gallery holds more than the pairs; for the gallery "
        f"{', '.join(TRANSLATING)}) and takes the best; "
        f"or name one: {free}; with labels also {labelled}. Whichever it is, it is tried on pairs kept out and then "
        "fitted again to all pairs."
    )


def check_method(name: str, options: Iterable[str] | Mapping[str, Any], *, unseen_classes: bool = False) -> None:
    """Whether a method and its options exist.

    Args:
        name: of the method.
        options: that it was given.
        unseen_classes: whole classes shall be kept out.

    Raises:
        ConfigError: no such method or option, an option of auto, or unseen_classes for a named method.
    """
    if name == AUTO:
        if options:
            raise ConfigError(f"auto takes no options; name a method for {', '.join(options)}")
        return
    if name not in ADAPTERS:
        raise unknown("adapter", name, [*ADAPTERS, AUTO])
    known = ADAPTERS[name].options
    for option in options:
        if option not in known:
            raise ConfigError(f"{name} has no option {option!r}; it has {', '.join(known) or 'none'}")
    if unseen_classes:
        raise ConfigError(f"unseen classes decide what auto chooses, and {name} is named; use auto, or leave them out")
