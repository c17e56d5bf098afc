"""`compatlearn search`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from ..errors import ConfigError
from .live import Live, adapter_of, plan_of
from .output import show, tell
from .texts import TextModel, open_named_texts

if TYPE_CHECKING:
    from ..features.features import Features


def search(
    *,
    plan: Path,
    live: Annotated[Live, Parameter(name="*")],
    rung: str | None = None,
    query: list[str] | None = None,
    queries: str | None = None,
    new_model: str | None = None,
    old_model: str | None = None,
    new_queries: Path | None = None,
    old_queries: Path | None = None,
    text_column: str | None = None,
    text_model: Annotated[TextModel, Parameter(name="*")] = TextModel(),  # noqa: B008
    k: int = 10,
    exact: bool = False,
    json: bool = False,
) -> int:
    """Queries in, items out, by any rung of a plan, on the live index.

    ```
    compatlearn search --index postgresql://localhost/shop#items.embedding --plan plan --query "card not working" \\
        --new-model all-MiniLM-L6-v2
    ```

    Args:
        plan: folder that `plan` wrote: its maps, weights, and the rung that it recommends.
        live: the index.
        rung: old, mapped, fused, translated, translated+fused, partial or backfill; by default the recommended one.
        query: texts, one or several.
        queries: a file of texts.
        new_model: what embeds the texts, as for `plan`.
        old_model: what embeds them as the index was, for the rungs that need it.
        new_queries: in place of texts: their vectors by the new model.
        old_queries: their vectors by the old model.
        text_column: column or key with the texts, where it has no usual name.
        text_model: how texts are embedded.
        k: items per query.
        exact: look at every vector, in place of the store's approximate search.
        json: ids and scores as JSON on stdout.
    """
    from ..adapters.methods import GALLERY, QUERY
    from ..arrays import as_numpy
    from ..migration.search import FIRST, Road

    said = plan_of(plan)
    rung = rung or str(said["recommended"])
    names, new, old = _asked(query, queries, (new_model, old_model), (new_queries, old_queries), text_column, text_model)
    index = live.open()
    second = None if rung in FIRST else live.second()[1]
    adapters = {way: adapter_of(plan, way) for way in (QUERY, GALLERY)}
    weights = said["methods"]
    road = Road(rung, index, second, adapters, float(weights["fuse"]), (float(weights["join"][0]), float(weights["join"][1])))
    hits = road.search(new, old, k, exact=exact)
    ids, scores, there = as_numpy(hits.ids), as_numpy(hits.scores), as_numpy(hits.indices) >= 0
    found = [
        {"query": name, "ids": ids[row, there[row]].tolist(), "scores": scores[row, there[row]].tolist()}
        for row, name in enumerate(names)
    ]
    tell(f"by {rung}")
    if json:
        show({"rung": rung, "results": found})
        return 0
    for one in found:
        print(f"{one['query']}")
        for item, score in zip(one["ids"], one["scores"], strict=True):
            print(f"  {score:8.4f}  {item}")
    return 0


def _asked(
    query: list[str] | None,
    queries: str | None,
    models: tuple[str | None, str | None],
    vectors: tuple[Path | None, Path | None],
    text_column: str | None,
    text_model: TextModel,
) -> "tuple[list[str], Features | None, Features | None]":
    """Names of the queries, and their vectors by the new and by the old model."""
    from ..features.features import Features

    if any(vectors):
        new, old = (None if path is None else Features.load(path, verify=True) for path in vectors)
        known = new if new is not None else old
        assert known is not None
        if new is not None and old is not None:
            old = old.take(old.align(new.ids, "the old queries", "the new queries", new.ids_from))
        return [str(one) for one in known.ids.tolist()], new, old
    if not query and queries is None:
        raise ConfigError("nothing is asked; give --query TEXT, --queries FILE, or vectors by --new-queries")
    texts = list(query or []) if queries is None else open_named_texts(queries, text_column, None, None).texts
    if not any(models):
        raise ConfigError("texts need a model; give --new-model, and --old-model for the rungs that ask with old queries")
    sides: list[Any] = [None if model is None else _embedded(text_model, model, texts) for model in models]
    return [str(text) for text in texts], sides[0], sides[1]


def _embedded(text_model: TextModel, model: str, texts: list[str]) -> "Features":
    from ..data.texts import Texts
    from ..encoders.embed import embed_texts

    return embed_texts(text_model.load(model), Texts.of(texts))
