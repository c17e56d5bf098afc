"""The peers' side of `peers.py`, run by the Python of their own environment, which has no compatlearn.

    python peers_worker.py FOLDER


Every map is fitted to the pairs and applied to the queries or the items in FOLDER: `pairs_old.npy`, `pairs_new.npy`,
`items_old.npy`, `queries_new.npy`, and `job.json` with the seed. It leaves `report.json` and the .npy files that this names.
Every peer is called through its public functions with their defaults.
"""

import functools
import importlib.util
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

MAPPED, TRANSLATED = "mapped", "translated"  # queries in the old space, or stored vectors in the new one
HELD_OUT = 0.2  # of rebasis' pairs where it chooses by itself: what its command holds out by default


@dataclass(frozen=True)
class Given:
    """Pairs, and what their maps are applied to; all float32 of unit length."""

    old: np.ndarray  # (m, d_old)
    new: np.ndarray  # (m, d_new)
    items: np.ndarray  # (n, d_old)
    queries: np.ndarray  # (q, d_new)
    seed: int


@dataclass(frozen=True)
class Attempt:
    """One map of one peer: `make` gives mapped vectors, and a term that is added to each item's score or None."""

    method: str
    rung: str
    make: Callable[[], tuple[np.ndarray, np.ndarray | None]]


def rebasis(given: Given) -> Iterator[Attempt]:
    """Its six adapters: of queries, of queries with CSLS, and of the gallery; and the one that it chooses by itself."""
    from rebasis.core import CANDIDATE_METHODS, csls_bias, fit_candidates, l2_normalize

    @functools.cache
    def fitted(method: str) -> Any:
        return fit_candidates(given.new, given.old, methods=[method], skip_unavailable=False)[0].adapter

    def mapped(method: str) -> tuple[np.ndarray, None]:
        return l2_normalize(fitted(method).apply(given.queries)), None

    def corrected(method: str) -> tuple[np.ndarray, np.ndarray]:
        sample = l2_normalize(fitted(method).apply(given.new))
        return l2_normalize(fitted(method).apply(given.queries)), csls_bias(given.items, sample)

    def translated(method: str) -> tuple[np.ndarray, None]:
        found = fit_candidates(given.old, given.new, methods=[method], skip_unavailable=False)[0]
        return l2_normalize(found.adapter.apply(given.items)), None

    for method in CANDIDATE_METHODS:
        yield Attempt(method, MAPPED, functools.partial(mapped, method))
        yield Attempt(f"{method}, CSLS", MAPPED, functools.partial(corrected, method))
        yield Attempt(method, TRANSLATED, functools.partial(translated, method))
    yield Attempt("auto", MAPPED, functools.partial(rebasis_auto, given))


def rebasis_auto(given: Given) -> tuple[np.ndarray, np.ndarray | None]:
    """What `rebasis fit --method auto` does with these pairs: candidates are chosen on a fifth of them, kept out."""
    from rebasis.core import csls_bias, l2_normalize
    from rebasis.probe import build_tier0, run_probe

    order = np.random.default_rng(given.seed).permutation(len(given.old))
    asking, fitting = np.split(order, [int(HELD_OUT * len(order))])
    truth = build_tier0(given.new, given.new[asking], asking)
    result = run_probe(
        old_doc_vectors=given.old,
        new_doc_vectors=given.new,
        fit_indices=fitting,
        ground_truth=truth,
        old_query_vectors=given.old[asking],
        new_query_vectors=given.new[asking],
        seed=given.seed,
    )
    queries = l2_normalize(result.adapter.apply(given.queries))
    if not result.best.used_csls:
        return queries, None
    return queries, csls_bias(given.items, l2_normalize(result.adapter.apply(given.new[fitting])))


def isotrieve(given: Given) -> Iterator[Attempt]:
    """Its mappings of the gallery, and their inverses, which its serving mode applies to queries."""
    import isotrieve.mapping as mapping

    kinds = (
        "RidgeMapping",
        "LowRankAffineMapping",
        "OrthogonalProcrustesMapping",
        "ProcrustesDiagMapping",
        "ResidualMLPMapping",
    )

    @functools.cache
    def fitted(kind: str) -> Any:
        return getattr(mapping, kind)(seed=given.seed).fit(given.old, given.new)

    def translated(kind: str) -> tuple[np.ndarray, None]:
        return fitted(kind).transform(given.items), None

    def mapped(kind: str) -> tuple[np.ndarray, None]:
        return fitted(kind).inverse_transform(given.queries), None

    for kind in kinds:
        yield Attempt(kind, TRANSLATED, functools.partial(translated, kind))
        yield Attempt(f"{kind}, inverse", MAPPED, functools.partial(mapped, kind))


def vectormigrate(given: Given) -> Iterator[Attempt]:
    """Its adapters of queries, which take two spaces of one dimension only."""
    import vectormigrate as package

    def mapped(kind: str) -> tuple[np.ndarray, None]:
        return getattr(package, kind)().fit(given.new, given.old).transform(given.queries), None

    for kind in ("OrthogonalProcrustesAdapter", "LowRankAffineAdapter", "ResidualMLPAdapter"):
        yield Attempt(kind, MAPPED, functools.partial(mapped, kind))


def said(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def run(folder: Path) -> dict[str, Any]:
    """Try every map; one that fails becomes a line in `failed`, and the others go on."""
    arrays = {name: np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("pairs_old", "pairs_new", "items_old")}
    queries = np.load(folder / "queries_new.npy", allow_pickle=False)
    seed = json.loads((folder / "job.json").read_text())["seed"]
    given = Given(arrays["pairs_old"], arrays["pairs_new"], arrays["items_old"], queries, seed)
    made: list[dict[str, Any]] = []
    failed: list[str] = []
    for peer in (rebasis, isotrieve, vectormigrate):
        try:
            attempts = list(peer(given)) if importlib.util.find_spec(peer.__name__) else []
        except Exception as error:  # it is installed, and cannot be imported or has another interface
            failed.append(f"{peer.__name__}: {said(error)}")
            continue
        for attempt in attempts:
            started = time.perf_counter()
            try:
                vectors, bias = attempt.make()
            except Exception as error:  # whatever a foreign package raises is what the table says of it
                failed.append(f"{peer.__name__}, {attempt.method}, {attempt.rung}: {said(error)}")
                continue
            row = {"package": peer.__name__, "method": attempt.method, "rung": attempt.rung}
            row["seconds"] = time.perf_counter() - started
            for kind, array in (("vectors", vectors), ("bias", bias)):
                row[kind] = None if array is None else f"{len(made)}-{kind}.npy"
                if array is not None:
                    np.save(folder / row[kind], np.asarray(array, dtype=np.float32), allow_pickle=False)
            made.append(row)
    return {"made": made, "failed": failed}


if __name__ == "__main__":
    (Path(sys.argv[1]) / "report.json").write_text(json.dumps(run(Path(sys.argv[1]))))
