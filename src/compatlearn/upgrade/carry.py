"""What a plan leaves on disk, and what to do next with it."""

from pathlib import Path
from typing import Any

from ..adapters.methods import GALLERY, QUERY
from ..files import write_json
from ..metric import Metric
from .cost import RANKED
from .maps import NEW_HEAD, OLD_HEAD
from .measure import REFITTED
from .result import Plan
from .rungs import CANDIDATES

FILES = {QUERY: "new-to-old.safetensors", GALLERY: "old-to-new.safetensors"}
FILES |= {OLD_HEAD: "old-to-old.safetensors", NEW_HEAD: "new-to-new.safetensors"}
REPORT = "plan.html"
UNIT = "unit = lambda rows: rows / np.linalg.norm(rows, axis=1, keepdims=True)"


def save_plan(plan: Plan, folder: Path, made: dict[str, Any]) -> dict[str, Any]:
    """Write the maps and, last, `plan.json`; each file whole or not at all.

    Args:
        plan: what was found.
        folder: where to.
        made: version, command and settings, for whoever reads it later.

    Returns:
        What `plan.json` holds.

    Raises:
        DataError: the disk is full, or the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for direction, adapter in plan.adapters.items():
        adapter.save(folder / FILES[direction])
    content = plan.to_dict() | {"next": next_steps(plan, folder), "commands": commands(plan.recommended, folder)}
    content |= {"back": way_back(plan.recommended), "made": made}
    write_json(folder / "plan.json", content)
    return content


def next_steps(plan: Plan, folder: Path) -> list[str]:
    """What to run next to get what the recommended rung was measured with, line by line.

    Args:
        plan: what was found.
        folder: where it was written.
    """
    metric, methods, asks_old = plan.metric, plan.methods, not plan.rung("old").reason
    query, gallery, old_head, new_head = (f'cl.load_adapter("{folder / name}")' for name in FILES.values())
    new_queries, old_queries, old_vectors = (_directed(name, metric) for name in ("new_queries", "old_queries", "old_vectors"))
    column = f"vectors = {gallery}({old_vectors})  # write them as a second column"
    both = [
        f"translated = {gallery}({old_queries})",
        f"queries = {_mixed('new_queries', 'translated', methods.join[0], metric)}",
        _both(metric, methods.join[1] * plan.scale),
    ]
    given = f", old_queries={old_queries}" if asks_old else ""
    steps = {
        "old": ["keep asking with the old model; nothing has to be done"],
        "old+head": [f"queries = {old_head}({old_queries})  # search the index with these; no new model is needed"],
        "mapped": [f"queries = {query}({new_queries})  # search the index with these"],
        "mapped+csls": [
            f"map_queries = {query}",
            "known = map_queries(logged_new_queries)  # some hundreds that were asked before; without a log, the pairs",
            f'hubness = cl.hubness(old_vectors, known, "{metric}")  # once; exclude= where the pairs are known; keep it',
            f"queries = map_queries({new_queries})",
            f"hits = cl.reranked(index.search(queries, k={CANDIDATES}), hubness)  # elsewhere: 2 × score − hubness",
        ],
        "fused": [
            f"mapped = {query}({new_queries})",
            f"queries = {_mixed('old_queries', 'mapped', methods.fuse, metric)}  # search the index with these",
        ],
        "translated": [f"{column}, and search it with new queries"],
        "translated+fused": [f"{column} beside the old one", *both],
        "cascade": [
            'cache = cl.VectorCache("new.vectors", space="the new model")',
            f"cascade = cl.Cascade(index, embed, cache, adapter={query}, candidates={CANDIDATES}, weight={methods.fuse:g})",
            f"hits = cascade.search({new_queries}{given})  # embed(ids) gives the new vectors of items",
        ],
        "partial": [
            f"{column} beside the old one",
            f"embed {plan.budget:.0%} of the gallery with the new model, those items first that queries find most often, and "
            "write their vectors in place of the translated ones",
            f'while these and the pairs are no more than {REFITTED:,}, fit cl.Adapter("{methods.gallery}", "gallery", '
            f'metric="{metric}") to all of them, and translate the other items and the queries by that',
            *(both if asks_old else ["search the second column with new queries"]),
        ],
        "backfill": ["embed the gallery with the new model into a second column, and search it with new queries"],
        "backfill+head": [
            "embed the gallery with the new model into a second column",
            f"queries = {new_head}({new_queries})  # search it with these",
        ],
    }[plan.recommended]
    return [UNIT, *steps] if any("unit(" in step for step in steps) else steps


def _directed(name: str, metric: Metric) -> str:
    """`case.directed` in words of NumPy: maps are fitted to vectors of unit length where only directions count."""
    return f"unit({name})" if metric == "cosine" else name


def _mixed(one: str, other: str, weight: float, metric: Metric) -> str:
    """`case.mixed` in words of NumPy; its length is of no account for the cosine."""
    mixture = f"{_directed(one, metric)} + {weight:g} * {_directed(other, metric)}"
    return mixture if metric == "cosine" else f"({mixture}) / {1 + weight:g}"


def _both(metric: Metric, weight: float) -> str:
    """How both columns rank together."""
    if metric == "euclidean":
        return f"rank by |queries - vectors|² + {weight:.6g} |old_queries - old_vectors|², smallest first"
    product = {"cosine": "cosine({}, {})", "dot": "{} · {}"}[metric]
    new, old = product.format("queries", "vectors"), product.format("old_queries", "old_vectors")
    return f"rank by {new} + {weight:.6g} {old}, largest first"


def commands(rung: str, folder: Path) -> list[str]:
    """How the commands carry a rung out on a live index; none where they have nothing to do.

    Args:
        rung: the recommended one.
        folder: where the plan was written.
    """
    translate = f"compatlearn translate --index INDEX --plan {folder}"
    backfill = f"compatlearn backfill --index INDEX --plan {folder} --items ITEMS --new-model MODEL"
    search = f"compatlearn search --index INDEX --plan {folder} --query TEXT --new-model MODEL"
    return {
        "old+head": [search.replace("--new-model", "--old-model")],
        "mapped": [search],
        "mapped+csls": [search],
        "fused": [f"{search} --old-model MODEL"],
        "cascade": [f"{search} --old-model MODEL --items ITEMS"],
        "translated": [translate, search],
        "translated+fused": [translate, f"{search} --old-model MODEL"],
        "partial": [translate, f"{backfill} --queries {folder}/features/queries-new --budget SHARE", search],
        "backfill": [translate, f"{backfill} --budget 1", search],
        "backfill+head": [translate, f"{backfill} --budget 1", search],
    }.get(rung, [])


def way_back(rung: str) -> str:
    """How to undo a rung."""
    if rung == RANKED:
        return "Send old queries again, and leave the ranking by hubness out: nothing in the index has changed."
    if rung in ("old", "old+head", "mapped", "fused", "cascade"):
        return "Send old queries again: nothing in the index has changed."
    return "Search the old column with old queries again; it stays until you drop it."
