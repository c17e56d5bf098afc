"""Every error that a user can fix.

CompatlearnError
├── DataError           images, features or labels that cannot be used as they are
│   └── FormatError     a file that is not what it should be: truncated, foreign, changed
├── ConfigError         an unknown method, option or recipe key, or a value out of range
├── IncompatibleError   two things that do not fit: dimensions, spaces, ids
└── TrainingError       training cannot continue: the loss is not finite, or a process died

The command line prints the message as one line and exits with 1. A message states the fact, the numbers and the remedy.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class CompatlearnError(Exception):
    """Base of every error this package raises on purpose."""


class DataError(CompatlearnError, ValueError):
    """Images, features or labels cannot be used as they are."""


class FormatError(DataError):
    """A file is not what it should be: truncated, foreign or changed."""


class ConfigError(CompatlearnError, ValueError):
    """An unknown method, option or recipe key, or a value out of range."""


class IncompatibleError(CompatlearnError, ValueError):
    """Two things do not fit together: dimensions, spaces or ids."""


class TrainingError(CompatlearnError, RuntimeError):
    """Training cannot continue: the loss is not finite, or a process died."""


def first_few(items: Iterable[object], limit: int = 3) -> str:
    """`7, 19, 44, …`: the beginning of a list, for a message.

    Args:
        items: of any kind.
        limit: how many are shown.

    Returns:
        One line of text.
    """
    shown = [str(item) for item in items]
    return ", ".join(shown[:limit]) + (", …" if len(shown) > limit else "")


def unknown(kind: str, name: str, known: Iterable[str]) -> ConfigError:
    """The error for a name that is not in a table; its message gives the nearest name, or all of them.

    Args:
        kind: what the name stands for, such as "method".
        name: what was asked for.
        known: the names there are.

    Returns:
        An error to raise.
    """
    names = sorted(known)
    near = get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
    return ConfigError(f"unknown {kind} {name!r}; {hint}")
