"""The curve of quality against the share that is embedded, measured on the live index as a backfill goes, and kept."""

import time
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from ..adapters.task import Tell, silent
from ..evaluation.figures import mean_of
from ..evaluation.metrics import agreement
from ..files import read_json, write_json
from ..indexes.second import Second
from ..upgrade.advice import TITLES
from .backfill import Backfilled
from .judge import Judge
from .search import Road
from .status import Status, status

FILE = "backfill.json"  # in the folder of a plan
STEPS = (*(digit * 10.0**power for power in range(-5, 0) for digit in (1, 2, 5)), 1.0)  # shares that are measured at
Point = dict[str, Any]


class BackfillLog:
    """What runs of a backfill did, and how good the index was meanwhile; one file, written whole each time.

    A run that resumes another continues its curve, as long as the same queries ask the same second vector.

    Args:
        path: the file; read if it is there.
        road: how the index is asked, of the rung "partial".
        judge: what it is asked with; None: nothing is measured, and only runs are kept.
        tell: takes a line for every point.
    """

    def __init__(self, path: Path, road: Road, judge: Judge | None = None, tell: Tell = silent) -> None:
        assert road.second is not None  # the rung says so
        self.path, self.road, self.second, self.judge, self.tell = path, road, road.second, judge, tell
        self.seconds = 0.0  # that measuring took
        self.runs, self.curve = _known(path, self.second)
        if judge is not None and self.curve.get("asked") != _digest(judge):
            if self.curve:
                tell(f"other queries ask than for the curve in {path}; it begins anew")
            self.curve = {"asked": _digest(judge), "primary": judge.primary, "queries": len(judge.new), "points": []}
        self.start, self._seen = status(self.second), 0.0

    def __enter__(self) -> "BackfillLog":
        self._seen = _share(self.start)
        self._measure(self.start)
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self._measure(status(self.second))

    def watch(self, written: int) -> None:
        """Measure if a step of the share was passed.

        Args:
            written: rows that were written since the beginning, as `backfill` counts them.
        """
        share = min(1.0, (self.start.embedded + written) / max(1, self.start.rows))
        if self.judge is not None and any(self._seen < step <= share for step in STEPS):
            self._seen = share
            self._measure(status(self.second))

    def ended(self, done: Backfilled) -> None:
        """Keep what a run did, so that others know how fast and how dear it is.

        Args:
            done: the run.
        """
        self.runs.append(asdict(done) | {"measuring_seconds": self.seconds})
        self._write()

    def _measure(self, now: Status) -> None:
        """A point of the curve, unless there is one of so many items, or nothing to search."""
        points: list[Point] = self.curve.get("points", [])
        if self.judge is None or now.rows == now.missing or any(one["items"] == now.embedded for one in points):
            return
        began = time.monotonic()
        found = self.judge.found(self.road)
        figures = {name: figure.to_dict() for name, figure in self.judge.figures(found).items()}
        point: Point = {"share": _share(now), "items": now.embedded, "missing": now.missing, "figures": figures}
        if self.judge.truth is None:
            point["found"] = found.tolist()
        self.curve["points"] = points = sorted([*points, point], key=lambda one: one["items"])
        self.curve["judged_by"] = self._judged_by(points)
        self._write()
        self.seconds += time.monotonic() - began
        self._say(point, now.rows)

    def _judged_by(self, points: list[Point]) -> str:
        """What the figures are measured by, in words; without truth, every ranking is compared with the last one."""
        assert self.judge is not None
        if self.judge.truth is not None:
            return "judgements" if self.judge.primary == "ndcg10" else "classes"
        last = points[-1]
        reference = np.array(last["found"])
        for one in points:
            scores = agreement(np.array(one["found"]), reference, k=reference.shape[1])
            one["figures"] = {"agreement": mean_of(scores, seed=0).to_dict()}
        whole = "the new model's own ranking" if last["share"] == 1 else f"the ranking with {last['items']:,} items embedded"
        return f"agreement with {whole}"

    def _say(self, point: Point, rows: int) -> None:
        assert self.judge is not None
        where = f"{point['share']:.1%} embedded ({point['items']:,} of {rows:,})"
        figures: Mapping[str, Any] = point["figures"]
        if self.judge.truth is None:
            points: list[Point] = self.curve["points"]
            place = points.index(point)
            figures = points[max(0, place - 1)]["figures"]  # its own is 1
        value, low, high = (100 * float(figures[self.judge.primary][name]) for name in ("value", "low", "high"))
        what = TITLES[self.judge.primary] if self.judge.truth else "agreement with the point before"
        self.tell(f"{where}: {what} {value:.1f} % [{low:.1f}, {high:.1f}]")

    def _write(self) -> None:
        known = {"to": self.second.name, "space": self.second.space, "rows": self.start.rows}
        write_json(self.path, known | {"curve": self.curve or None, "runs": self.runs})


def runs_of(path: Path, second: Second) -> list[dict[str, Any]]:
    """What earlier runs of `backfill` did.

    Args:
        path: where `BackfillLog` keeps it.
        second: what they wrote.

    Returns:
        The fields of `Backfilled` of each run, oldest first; none where there is no file, or one of another second vector.
    """
    return _known(path, second)[0]


def _known(path: Path, second: Second) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Runs and curve that a file holds of a second vector."""
    known = read_json(path) if path.exists() else {}
    same = known.get("to") == second.name and known.get("space") == second.space
    return (known.get("runs", []), known.get("curve") or {}) if same else ([], {})


def _share(now: Status) -> float:
    return now.embedded / max(1, now.rows)


def _digest(judge: Judge) -> str:
    """What tells one measurement from another: the queries, how they are asked, and what is right."""
    digest = blake2b(f"{judge.primary} {judge.old is not None} {len(judge.items)}".encode(), digest_size=8)
    digest.update("\n".join(map(str, judge.new.ids.tolist())).encode())
    digest.update(np.ascontiguousarray(judge.new.vectors).tobytes())
    if judge.truth is not None:
        relevance = judge.truth.relevance
        for column in (relevance.query_groups, relevance.item_groups, relevance.degrees):
            digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()
