"""Fits that an interrupted plan has made already, in a folder of their own until the plan is written."""

import hashlib
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from ..adapters.adapter import Adapter, load_adapter
from ..adapters.matched import digest
from ..adapters.task import Tell, silent
from ..errors import CompatlearnError
from ..files import remove
from ..locks import locked

FOLDER = "fits"  # in the folder of a plan
WORTH = 0.5  # seconds: what is fitted faster than that is fitted again sooner than it is kept


@dataclass(frozen=True)
class Fits:
    """Where fitted adapters are kept; what was fitted before is read, not fitted again.

    Attributes:
        folder: holds a file for each fit; None: nothing is kept.
        tell: takes lines of progress.
    """

    folder: Path | None = None
    tell: Tell = silent

    def fit(
        self,
        adapter: Adapter,
        new: Float[np.ndarray, "m d_new"],
        old: Float[np.ndarray, "m d_old"],
        labels: Int[np.ndarray, " m"] | None,
        others: Float[np.ndarray, "g d_old"] | None,
    ) -> Adapter:
        """The adapter fitted, as `Adapter.fit` would; the same bits, whether read or fitted.

        Args:
            adapter: not fitted yet.
            new: (m, d_new) float32.
            old: (m, d_old) float32, row by row.
            labels: (m,) classes, or None.
            others: (g, d_old) float32 further items of the gallery, or None.

        Raises:
            DataError: the disk is full, or whatever `Adapter.fit` says.
            TrainingError: training does not converge.
        """
        if self.folder is None:
            return adapter.fit(new, old, labels, others=others)
        inputs = {"new": digest(new), "old": digest(old)}
        further = [None if one is None else digest(one) for one in (labels, others)]
        path = self.folder / f"{_key(adapter, inputs, further)}.safetensors"
        known = self._read(path, adapter, inputs)
        if known is not None:
            return known
        started = time.monotonic()
        adapter.fit(new, old, labels, others=others)
        if time.monotonic() - started >= WORTH:
            adapter.save(path)
        return adapter

    def _read(self, path: Path, adapter: Adapter, inputs: dict[str, str]) -> Adapter | None:
        """The adapter in a file, if it is the one that is wanted."""
        if not path.exists():
            return None
        wanted = _identity(adapter, inputs)
        with suppress(CompatlearnError):
            found = load_adapter(path)
            if _identity(found, found.record_.inputs) == wanted and found.record_.version == _version():
                return found
        self.tell(f"{path} is no whole fit of this plan and is made again")
        return None


@contextmanager
def keeping(folder: Path | None, tell: Tell = silent) -> Iterator[Fits]:
    """Fits kept in a folder that no other process writes meanwhile.

    Args:
        folder: made if it is not there; None: nothing is kept.
        tell: takes lines of progress.

    Raises:
        DataError: another process holds the folder.
    """
    if folder is None:
        yield Fits()
        return
    with locked(folder):
        if count := len(_files(folder)):
            tell(f"fits of an interrupted run in {folder}, which are not made again: {count}")
        yield Fits(folder, tell)


def forget(folder: Path) -> None:
    """Remove the fits in a folder, and the folder unless it holds anything else.

    Args:
        folder: may not be there.

    Raises:
        DataError: a file stays there.
    """
    for path in _files(folder):
        remove(path)
    with suppress(OSError):  # it is not there, or holds what is not ours
        folder.rmdir()


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*.safetensors") if re.fullmatch("[0-9a-f]{64}", path.stem)]


def _key(adapter: Adapter, inputs: dict[str, str], further: list[str | None]) -> str:
    """SHA-256, in hexadecimal, of everything that a fit depends on."""
    known = [_version(), torch.__version__, _identity(adapter, inputs), further]
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def _identity(adapter: Adapter, inputs: dict[str, str]) -> dict[str, Any]:
    """What is asked of an adapter, and of which vectors."""
    asked = adapter.get_params() | {"options": dict(adapter.options or {})}
    return asked | {"inputs": inputs}


def _version() -> str:
    version: str = import_module(__package__.partition(".")[0]).__version__
    return version
