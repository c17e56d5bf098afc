"""`compatlearn evaluate`."""

from pathlib import Path
from typing import Any

from ..metric import Metric
from .engine import Engine, connected
from .output import show


def evaluate(
    *,
    old_query: Path,
    old_gallery: Path,
    new_query: Path,
    new_gallery: Path | None = None,
    independent: Path | None = None,
    independent_gallery: Path | None = None,
    metric: Metric = "euclidean",
    adapter: Path | None = None,
    slerp: float | None = None,
    json: bool = False,
    require_compatible: bool = False,
    engine: Engine = "local",
    address: str | None = None,
) -> int:
    """Is the new model compatible, and what is lost against re-embedding everything?

    Args:
        old_query: the old model's features of the queries.
        old_gallery: the old model's features of the gallery.
        new_query: the new model's features of the queries.
        new_gallery: the new model's features of the gallery, for its self test.
        independent: an independently trained new model's features of the queries, for the update gain.
        independent_gallery: that model's features of the gallery; not needed where the queries are the gallery.
        metric: what ranks.
        adapter: what `adapt` wrote: new queries go through it in the cross test.
        slerp: with --adapter: weight in [0, 1] of the mapped query when it is mixed with the old one, asked too.
        json: everything as JSON on stdout.
        require_compatible: exit with 3 unless the verdict is yes.
        engine: where it runs: here, or on a Ray cluster.
        address: host:port of the cluster, or auto; without one it is started here.
    """
    from ..adapters.slerp import query_map
    from ..evaluation.compatibility import compatibility
    from ..features.features import Features
    from ..report.tables import verdict_table

    named = {"old_query": old_query, "old_gallery": old_gallery, "new_query": new_query}
    named |= {"new_gallery": new_gallery, "independent": independent}  # type: ignore[dict-item]
    named |= {"independent_gallery": independent_gallery}  # type: ignore[dict-item]
    with connected(engine, address) as cluster:
        loaded = {name: Features.load(path, verify=True) for name, path in named.items() if path is not None}
        files = [(named[name], features) for name, features in loaded.items()]
        others: dict[str, Any] = {"searcher": cluster.searcher(files)} if cluster else {}
        others |= {"adapter": query_map(adapter, slerp, loaded["old_query"], loaded["new_query"])}
        result = compatibility(**loaded, metric=metric, **others)  # type: ignore[arg-type]
    show(result.to_dict() if json else verdict_table(result))
    return 3 if require_compatible and result.compatible != "yes" else 0
