"""What CSLS changes: query maps with and without it, on the texts and splits of `peers.py`.

    python benchmarks/csls.py --data FOLDER [--method procrustes] [--setting cranfield-l3-500] [--seeds 3] [--json-file FILE]

FOLDER is that of `peers.py`. As in `plan`, the map that one half of the queries is measured with is fitted to the pairs and to
the other half, unlabelled; hubness is measured with that half too, mapped. Hits are the first 100 of the untouched index.
"""

import itertools
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from cyclopts import run

from compatlearn import hubness, reranked, search
from compatlearn.adapters.methods import QUERY
from compatlearn.files import write_json
from compatlearn.report.summary import Estimate, interval
from compatlearn.upgrade.case import directed, mixed
from compatlearn.upgrade.maps import FUSE, Pairs, fit
from compatlearn.upgrade.rungs import CANDIDATES
from peers_data import DEPTH, SETTINGS, Bed, figure, load_bed

METHODS = ("procrustes", "centred-procrustes", "ridge", "distilled")
RUNGS = ("mapped", "fused")


@dataclass(frozen=True)
class Row:
    """What one map scored in one setting with one seed, in [0, 1], by the index alone and ranked by CSLS."""

    setting: str
    seed: int
    method: str
    rung: str
    plain: float
    csls: float


def measure(bed: Bed, method: str, seed: int) -> dict[str, tuple[float, float]]:
    """Rung → the figure without and with CSLS."""
    (items, asked), (fresh, queries) = bed.old, bed.new
    stored = items[bed.gallery]
    pairs = Pairs(fresh[bed.pairs], items[bed.pairs])
    order = np.random.default_rng(seed).permutation(len(queries))
    halves = [np.sort(half) for half in np.array_split(order, 2)]
    found = {(rung, csls): np.zeros((len(queries), DEPTH), dtype=np.int64) for rung in RUNGS for csls in (False, True)}
    for rows, rest in (halves, halves[::-1]):
        log = Pairs(queries[rest], asked[rest])
        mapped = directed(fit(pairs, method, QUERY, "cosine", seed, stored, log).transform(queries), "cosine")
        for rung, ours in {"mapped": mapped, "fused": mixed(asked, mapped, FUSE, "cosine")}.items():
            hits = search(ours[rows], stored, CANDIDATES, "cosine")
            found[rung, False][rows] = hits.indices[:, :DEPTH]
            found[rung, True][rows] = reranked(hits, hubness(stored, ours[rest], "cosine"), DEPTH).indices
    scores = {key: figure(rows, bed.grades, top1=bed.top1) for key, rows in found.items()}
    return {rung: (scores[rung, False], scores[rung, True]) for rung in RUNGS}


def table(rows: list[Row]) -> str:
    """Markdown: per map the mean in % without CSLS, and what CSLS adds in points with its 95 % interval over the seeds."""
    settings = list(dict.fromkeys(row.setting for row in rows))
    text = [f"| rung | map | {' | '.join(settings)} |", "|---" * (2 + len(settings)) + "|"]
    for rung, method in itertools.product(RUNGS, dict.fromkeys(row.method for row in rows)):
        cells = []
        for setting in settings:
            own = [row for row in rows if (row.rung, row.method, row.setting) == (rung, method, setting)]
            plain = np.mean([row.plain for row in own]) if own else 0.0
            gains = [row.csls - row.plain for row in own]
            added = Estimate(float(np.mean(gains or [0.0])), *interval(gains), len(gains)).percent(signed=True)
            cells.append(f"{100 * plain:.1f} ({added})" if own else "–")
        text.append(f"| `{rung}` | {method} | {' | '.join(cells)} |")
    return "\n".join(text)


def main(
    data: Path,
    method: list[str] | None = None,
    setting: list[str] | None = None,
    seeds: int = 3,
    json_file: Path = Path("runs/bench/csls.json"),
) -> None:
    """Print the table of all methods and settings, or of those named."""
    rows: list[Row] = []
    for name, seed in itertools.product(setting or list(SETTINGS), range(seeds)):
        bed = load_bed(data, SETTINGS[name], seed)
        for one in method or METHODS:
            for rung, scores in measure(bed, one, seed).items():
                rows.append(Row(name, seed, one, rung, *scores))
                print(f"{name}, seed {seed}, {one}, {rung}: {scores[0]:.1%}, with CSLS {scores[1]:.1%}", flush=True)
            write_json(json_file, {"rows": [asdict(row) for row in rows]})
    print(table(rows))


if __name__ == "__main__":
    run(main)
