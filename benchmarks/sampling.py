"""Which items become pairs: at random, or so that no region is without one, on the texts of `peers.py`.

    python benchmarks/sampling.py --data FOLDER [--seeds 10]

FOLDER is that of `peers.py`. Half of the items, drawn at random, are searched; the pairs are drawn from the other half, as
`plan --sampling` draws them. Both ways see the same halves, pairs of the same number, and the same fits.
"""

import itertools
from pathlib import Path

import numpy as np
from cyclopts import run

from compatlearn.adapters.methods import GALLERY, QUERY
from compatlearn.report.summary import Estimate, interval
from compatlearn.upgrade.maps import Pairs, fit
from compatlearn.upgrade.sample import sample_pairs
from peers_data import SETTINGS, Setting, load_bed

COUNTS = (100, 300, 600)
MAPS = {"translated": ("kernel-ridge", GALLERY), "mapped": ("ridge", QUERY)}


def measure(data: Path, setting: Setting, count: int, seed: int) -> dict[str, tuple[float, float]]:
    """Rung → the figure with random pairs, and with pairs that cover the gallery."""
    items = len(load_bed(data, setting, seed).old[0])
    bed = load_bed(data, Setting(setting.data, setting.old, items // 2, items // 2), seed)  # its pairs are what is not searched
    (old, _), (new, queries), pool = bed.old, bed.new, bed.pairs
    found: dict[str, list[float]] = {rung: [] for rung in MAPS}
    for by in ("proportional", "coverage"):
        rows = pool[sample_pairs(count, old[pool], by=by, seed=seed)]
        for rung, (method, direction) in MAPS.items():
            adapter = fit(Pairs(new[rows], old[rows]), method, direction, "cosine", seed)
            sides = (queries, old[bed.gallery])
            asked, stored = (adapter(sides[0]), sides[1]) if direction == QUERY else (sides[0], adapter(sides[1]))
            found[rung].append(bed.score(asked, stored))
    return {rung: (scores[0], scores[1]) for rung, scores in found.items()}


def main(data: Path, seeds: int = 10) -> None:
    """Print a table: random pairs in %, and what coverage adds in points, with its 95 % interval over the seeds."""
    names = {"banking77-m2v-300": "banking77, m2v", "banking77-lsa-1500": "banking77, lsa"}
    names |= {"cranfield-m2v-500": "cranfield, m2v", "cranfield-l3-500": "cranfield, l3"}
    print("| setting | pairs | translated, kernel ridge | mapped, ridge |\n|---|---|---|---|")
    for (setting, name), count in itertools.product(names.items(), COUNTS):
        scores = [measure(data, SETTINGS[setting], count, seed) for seed in range(seeds)]
        cells = []
        for rung in MAPS:
            gains = [one[rung][1] - one[rung][0] for one in scores]
            added = Estimate(float(np.mean(gains)), *interval(gains), len(gains)).percent(signed=True)
            cells.append(f"{100 * np.mean([one[rung][0] for one in scores]):.1f} ({added})")
        print(f"| {name} | {count} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    run(main)
