"""How long `plan` takes on a gallery of made-up vectors, beside two exact searches of that gallery, which any answer needs.

    python benchmarks/plan.py [--items 100000 --pairs 10000 --queries 1000 --dimension 384 --classes 1000] [--kernel]
        [--json-file FILE]

Old and new vectors are noisy views of the same classes through layers that are not linear. The floor is one
search of the old gallery by the old queries and one of the new gallery by the new ones.
"""

import json
import time
from pathlib import Path

import numpy as np
from cyclopts import run

import compatlearn as cl
from compatlearn.indexes.exact import search
from compatlearn.upgrade import choice

LATENT = 48  # dimensions that both models see


def views(rows: int, dimension: int, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """New and old vectors, (rows, dimension) float32, and their classes."""
    random = np.random.default_rng(0)
    labels = random.integers(0, classes, rows)
    hidden = random.normal(size=(classes, LATENT))[labels] + random.normal(size=(rows, LATENT))
    sides = []
    for noise in (0.1, 0.4):  # the new model sees more
        bent = np.tanh(hidden @ random.normal(size=(LATENT, dimension)) / LATENT**0.5)
        sides.append((bent + noise * random.normal(size=bent.shape)).astype(np.float32))
    return sides[0], sides[1], labels


def main(
    items: int = 100_000,
    pairs: int = 10_000,
    queries: int = 1_000,
    dimension: int = 384,
    classes: int = 1_000,
    kernel: bool = False,
    json_file: Path | None = None,
) -> None:
    """Time one plan and print where its time goes; `kernel` leaves the gallery no other map, the slowest case."""
    if kernel:
        choice.TRANSLATING = ("kernel-ridge",)
    new, old, labels = views(items + queries, dimension, classes)
    gallery, asked = np.arange(items), np.arange(items, items + queries)
    drawn = np.sort(np.random.default_rng(1).permutation(items)[:pairs])
    started = time.perf_counter()
    for side in (old, new):
        search(side[asked], side[gallery], 100, "cosine")
    floor = time.perf_counter() - started

    def tell(line: str) -> None:
        print(f"{time.perf_counter() - started:7.1f} s  {line}", flush=True)

    started = time.perf_counter()
    found = cl.plan(
        old_gallery=cl.Features(old[gallery], labels[gallery], gallery),
        pairs_new=cl.Features(new[drawn], ids=drawn),
        new_queries=cl.Features(new[asked], labels[asked], asked),
        old_queries=cl.Features(old[asked], ids=asked),
        tell=tell,
    )
    seconds = time.perf_counter() - started
    print(found)
    print(f"{seconds:.0f} s; two searches of the gallery {floor:.1f} s, {seconds / floor:.0f} times that")
    if json_file is not None:
        json_file.write_text(json.dumps({"seconds": seconds, "floor": floor, "items": items, "pairs": pairs}) + "\n")


if __name__ == "__main__":
    run(main)
