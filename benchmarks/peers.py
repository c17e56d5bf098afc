"""The maps of other packages and ours, beside each other: the same pairs, queries, gallery, truth and scoring for all.

    python benchmarks/peers.py --data FOLDER [--networks] [--setting cranfield-l3-500] [--json-file runs/bench/peers.json]

FOLDER holds `banking77/{train,test}.{MODEL.npy,jsonl}` (a row: `label`) and `cranfield/{docs,queries}.MODEL.npy` with BEIR's
`corpus.jsonl`, `queries.jsonl` and `qrels/test.tsv`; MODEL is `m2v`, `lsa` or `l3` (old) and `l6` (new). The pairs have no
labels and are left out of the gallery that is searched. The peers live in an environment of their own, made with venv and pip
(--environment), and are called there by `peers_worker.py`; --networks adds PyTorch to it (some 5 GB), for their networks.
rebasis needs Python 3.12 or newer: where yours is older, name one with --python before the environment is made.
"""

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from cyclopts import run

from compatlearn import Adapter, __version__
from compatlearn.errors import ConfigError
from compatlearn.files import read_json, write_json
from compatlearn.report.summary import Estimate, interval
from compatlearn.upgrade.case import directed, joined, mixed
from compatlearn.upgrade.maps import FUSE, JOIN
from peers_data import SETTINGS, Bed, load_bed

PEERS = {"rebasis": "==0.1.*", "isotrieve": "==0.4.*", "vectormigrate": "==1.0.*"}
NETWORKS = {"torch": ">=2.2"}
VERSIONS = """
import json, platform
from importlib import metadata
found = {{each.name.lower(): each.version for each in metadata.distributions()}}
known = {{name: found[name] for name in {names} if name in found}}
print(json.dumps(known | {{"python": platform.python_version()}}))
"""
WORKER = Path(__file__).with_name("peers_worker.py")
RUNGS = ("old", "mapped", "fused", "translated", "translated+fused", "backfill")
MAPS = {  # ours, with their defaults
    "query": ("procrustes", "centred-procrustes", "ridge", "distilled"),
    "gallery": ("procrustes", "centred-procrustes", "ridge", "kernel-ridge"),
}


@dataclass(frozen=True)
class Row:
    """What one map scored in one setting with one seed; seconds of fitting and applying it, without a fit that it shares."""

    setting: str
    seed: int
    rung: str
    package: str
    method: str
    score: float
    gain: float
    seconds: float


def ours(bed: Bed, seed: int, skip: Iterable[str]) -> Iterator[tuple[str, str, float, float]]:
    """Rung, method, score and seconds of each of our maps, called directly; `plan` would choose among them."""
    (items, asked), (fresh, queries) = bed.old, bed.new
    stored, skipped = items[bed.gallery], set(skip)

    def fitted(method: str, direction: str) -> Adapter:
        adapter = Adapter(method, direction, seed, "cosine")
        return adapter.fit(fresh[bed.pairs], items[bed.pairs], others=stored if direction == "query" else None)

    for method in MAPS["query"]:
        if method in skipped:
            continue
        started = time.perf_counter()
        mapped = fitted(method, "query").transform(queries)
        seconds = time.perf_counter() - started
        yield "mapped", method, bed.score(mapped, stored), seconds
        both = mixed(asked, directed(mapped, "cosine"), FUSE, "cosine")
        yield "fused", method, bed.score(both, stored), seconds
    for method in MAPS["gallery"]:
        if method in skipped:
            continue
        started = time.perf_counter()
        adapter = fitted(method, "gallery")
        translated, turned = (directed(adapter.transform(each), "cosine") for each in (stored, asked))
        seconds = time.perf_counter() - started
        yield "translated", method, bed.score(queries, translated), seconds
        both = joined(mixed(queries, turned, JOIN[0], "cosine"), asked, JOIN[1])
        yield "translated+fused", method, bed.score(both, joined(translated, stored, JOIN[1])), seconds


def theirs(bed: Bed, seed: int, python: Path) -> tuple[list[tuple[str, str, str, float, float]], list[str]]:
    """Package, rung, method, score and seconds of each map of the peers, and a line for each one that failed."""
    stored, queries = bed.old[0][bed.gallery], bed.new[1]
    arrays = {"pairs_old": bed.old[0][bed.pairs], "pairs_new": bed.new[0][bed.pairs]}
    arrays |= {"items_old": stored, "queries_new": queries}
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for key, array in arrays.items():
            np.save(folder / f"{key}.npy", array, allow_pickle=False)
        (folder / "job.json").write_text(json.dumps({"seed": seed}))
        try:
            called([str(python), str(WORKER), str(folder)])
        except ConfigError as error:
            return [], [str(error)]
        report = read_json(folder / "report.json")
        for row in report["made"]:
            vectors = np.load(folder / row["vectors"], allow_pickle=False)
            bias = None if row["bias"] is None else np.load(folder / row["bias"], allow_pickle=False)
            sides = (vectors, stored) if row["rung"] == "mapped" else (queries, vectors)
            found.append((row["package"], row["rung"], row["method"], bed.score(*sides, bias), row["seconds"]))
    return found, report["failed"]


def called(command: list[str]) -> str:
    """What a command prints; where it fails, its own last words are the error."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        first = next((line for line in said if line.startswith("ERROR:")), said[-1] if said else "it said nothing")
        raise ConfigError(f"{' '.join(command[:4])} failed with exit code {done.returncode}: {first}")
    return done.stdout


def prepare(folder: Path, python: Path, networks: bool) -> tuple[Path, dict[str, str]]:
    """Make the peers' environment where it is not there yet; its Python, and name → version of what it has."""
    inside = folder.absolute() / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not inside.exists():
        called([str(python), "-m", "venv", str(folder)])
    has = installed(inside)
    for name, wanted in (PEERS | (NETWORKS if networks else {})).items():
        if name not in has:
            try:
                called([str(inside), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", name + wanted])
            except ConfigError as error:
                print(f"left out: {name}{wanted} cannot be installed: {error}", flush=True)
    return inside, installed(inside)


def installed(python: Path) -> dict[str, str]:
    """Name → version of the packages named here that an environment has, and of its Python."""
    return json.loads(called([str(python), "-c", VERSIONS.format(names=[*PEERS, *NETWORKS, "numpy", "scikit-learn"])]))


def measure(data: Path, name: str, seed: int, python: Path, skip: Iterable[str]) -> tuple[list[Row], list[str]]:
    """Every map, ours and theirs, in one setting with one seed; and what failed."""
    bed = load_bed(data, SETTINGS[name], seed)
    (items, asked), (fresh, queries) = bed.old, bed.new
    old, backfill = bed.score(asked, items[bed.gallery]), bed.score(queries, fresh[bed.gallery])
    found = [("–", "old", "old queries", old, 0.0), ("–", "backfill", "new vectors", backfill, 0.0)]
    found += [("compatlearn", *each) for each in ours(bed, seed, skip)]
    peers, failed = theirs(bed, seed, python)
    rows = [
        Row(name, seed, rung, package, method, score, (score - old) / (backfill - old), seconds)
        for package, rung, method, score, seconds in found + peers
    ]
    return rows, failed


def table(rows: list[Row]) -> str:
    """Markdown: a line per map, a column per setting; mean over the seeds in % with its 95 % interval, and the gain."""
    settings = list(dict.fromkeys(row.setting for row in rows))
    maps = sorted({(row.rung, row.package, row.method) for row in rows}, key=lambda each: (RUNGS.index(each[0]), *each[1:]))
    text = [f"| rung | package | method | {' | '.join(settings)} |", "|---" * (3 + len(settings)) + "|"]
    for each in maps:
        cells = []
        for setting in settings:
            own = [row for row in rows if (row.rung, row.package, row.method) == each and row.setting == setting]
            cells.append(cell([row.score for row in own], [row.gain for row in own]) if own else "–")
        text.append(f"| `{each[0]}` | {each[1]} | {each[2]} | {' | '.join(cells)} |")
    return "\n".join(text)


def cell(scores: list[float], gains: list[float]) -> str:
    """`80.0 ± 1.2 (0.77 ± 0.05)`."""
    mean, gain = (Estimate(float(np.mean(values)), *interval(values), len(values)) for values in (scores, gains))
    return f"{mean.percent()} ({gain.plain()})"


def main(
    data: Path,
    environment: Path = Path("runs/peers-env"),
    python: Path = Path(sys.executable),
    networks: bool = False,
    setting: list[str] | None = None,
    seeds: int = 3,
    skip: list[str] | None = None,
    json_file: Path = Path("runs/bench/peers.json"),
) -> None:
    """Print the table of all settings, or of those named; --skip leaves out a method of ours."""
    chosen = setting or list(SETTINGS)
    unknown = [name for name in chosen if name not in SETTINGS]
    if unknown:
        raise SystemExit(f"there is no setting {unknown[0]}; use one of {', '.join(SETTINGS)}")
    missing = [name for name in chosen if not (data / SETTINGS[name].data).is_dir()]
    if missing:
        raise SystemExit(f"{missing[0]} needs the folder {data / SETTINGS[missing[0]].data}; name its parent with --data")
    inside, versions = prepare(environment, python, networks)
    versions = {"compatlearn": __version__, **versions}
    rows: list[Row] = []
    failed: dict[str, list[str]] = {}
    for name, seed in itertools.product(chosen, range(seeds)):
        started = time.perf_counter()
        measured, lost = measure(data, name, seed, inside, skip or [])
        rows += measured
        for line in lost:
            failed.setdefault(line, []).append(f"{name}, seed {seed}")
        print(f"{name}, seed {seed}: {len(measured)} figures, {time.perf_counter() - started:.0f} s", flush=True)
        write_json(json_file, {"versions": versions, "failed": failed, "rows": [asdict(row) for row in rows]})
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    for line, where in failed.items():
        print(f"failed in {len(where)} of {len(chosen) * seeds}, first in {where[0]}: {line}")
    print(table(rows))


if __name__ == "__main__":
    run(main)
