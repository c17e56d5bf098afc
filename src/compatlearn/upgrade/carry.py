"""What a plan leaves on disk, and what to do next with it."""

from pathlib import Path
from typing import Any

from ..adapters.methods import GALLERY, QUERY
from ..files import write_json
from .cost import RANKED
from .maps import NEW_HEAD, OLD_HEAD
from .result import Plan

FILES = {QUERY: "new-to-old.safetensors", GALLERY: "old-to-new.safetensors"}
FILES |= {OLD_HEAD: "old-to-old.safetensors", NEW_HEAD: "new-to-new.safetensors"}
REPORT = "plan.html"


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
    content = plan.to_dict() | {"next": next_steps(plan.recommended, folder), "back": way_back(plan.recommended), "made": made}
    write_json(folder / "plan.json", content)
    return content


def next_steps(rung: str, folder: Path) -> list[str]:
    """What to run next, line by line.

    Args:
        rung: the recommended one.
        folder: where the plan was written.
    """
    query, gallery, old_head, new_head = (f'cl.load_adapter("{folder / name}")' for name in FILES.values())
    return {
        "old": ["keep asking with the old model; nothing has to be done"],
        "old+head": [f"queries = {old_head}(old_queries)  # search the index with these; no new model is needed"],
        "mapped": [f"queries = {query}(new_queries)  # search the index with these"],
        "mapped+csls": [
            f"map_queries = {query}",
            "known = map_queries(logged_new_queries)  # some hundreds that were asked before; without a log, the pairs",
            "hubness = cl.hubness(old_vectors, known, metric)  # once; exclude= where the pairs are known; keep it",
            "queries = map_queries(new_queries)",
            "hits = cl.reranked(index.search(queries, k=100), hubness)  # of another store: 2 × score − hubness of the item",
        ],
        "fused": [
            f"mapped = {query}(new_queries)",
            "queries = old_queries + weight * mapped  # both of unit length; the weight is in plan.json",
        ],
        "translated": [f"vectors = {gallery}(old_vectors)  # write them as a second column, and search it with new queries"],
        "translated+fused": [
            f"vectors = {gallery}(old_vectors)  # write them as a second column beside the old one",
            "search both columns and add their scores; the weights are in plan.json",
        ],
        "cascade": [
            'cache = cl.VectorCache("new.vectors", space="the new model")',
            f"cascade = cl.Cascade(index, embed, cache, adapter={query})  # embed(ids) gives their new vectors",
            "hits = cascade.search(new_queries, old_queries=old_queries)  # old ones where you have them",
        ],
        "partial": [
            f"vectors = {gallery}(old_vectors)  # write them as a second column",
            "replace its rows by true new vectors, those first that queries find most often",
        ],
        "backfill": ["embed the gallery with the new model into a second column, and search it with new queries"],
        "backfill+head": [
            "embed the gallery with the new model into a second column",
            f"queries = {new_head}(new_queries)  # search it with these",
        ],
    }[rung]


def way_back(rung: str) -> str:
    """How to undo a rung."""
    if rung == RANKED:
        return "Send old queries again, and leave the ranking by hubness out: nothing in the index has changed."
    if rung in ("old", "old+head", "mapped", "fused", "cascade"):
        return "Send old queries again: nothing in the index has changed."
    return "Search the old column with old queries again; it stays until you drop it."
