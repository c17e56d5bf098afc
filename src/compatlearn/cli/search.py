"""`compatlearn search`."""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from ..errors import ConfigError
from .by_id import contents_of_items
from .columns import Columns
from .items import Items
from .live import Live, plan_of
from .output import show, tell
from .questions import Question, embedded_by
from .roads import known_queries as known_for
from .roads import road_of
from .texts import TextModel

if TYPE_CHECKING:
    from ..features.features import Features
    from ..migration.search import Road


def search(
    *,
    plan: Path,
    live: Annotated[Live, Parameter(name="*")],
    rung: str | None = None,
    question: Annotated[Question, Parameter(name="*")] = Question(),  # noqa: B008
    new_model: str | None = None,
    old_model: str | None = None,
    items: str | None = None,
    items_column: str | None = None,
    known_queries: Path | None = None,
    text_column: str | None = None,
    columns: Annotated[Columns, Parameter(name="*")] = Columns(),  # noqa: B008
    text_model: Annotated[TextModel, Parameter(name="*")] = TextModel(),  # noqa: B008
    k: int = 10,
    exact: bool = False,
    json: bool = False,
) -> int:
    """Queries in, items out, by any rung of a plan, on the live index.

    ```
    compatlearn search --index postgresql://localhost/shop#items.embedding --plan plan --query "card not working" \\
        --new-model all-MiniLM-L6-v2
    compatlearn search --index lancedb:shop.lance#items.embedding --plan plan --query-image shoe.jpg --new-model runs/new
    ```

    Args:
        plan: folder that `plan` wrote: its maps, weights, and the rung that it recommends.
        live: the index.
        rung: old, old+head, mapped, mapped+csls, fused, cascade, translated, translated+fused, partial, backfill or
            backfill+head; by default the recommended one.
        question: what is asked.
        new_model: what embeds texts or pictures, as for `plan`.
        old_model: what embeds them as the index was, for the rungs that need it.
        items: for cascade: texts or pictures of the items, by the ids of the index, or `module:function`, as for `plan`; what
            is embedded for a query is kept in new.vectors of the plan's folder.
        items_column: in place of items: a column of text of the index, as for `plan`; items without content are not found.
        known_queries: for mapped+csls: logged queries by the new model; by default those that the plan has embedded, and its
            pairs where these are few.
        text_column: column or key with the texts, where it has no usual name.
        columns: how other columns of the items are called.
        text_model: how texts are embedded.
        k: items per query.
        exact: look at every vector, in place of the store's approximate search.
        json: ids and scores as JSON on stdout.
    """
    from ..arrays import as_numpy
    from ..migration.search import FIRST

    said = plan_of(plan)
    rung = rung or str(said["recommended"])
    question.check()
    if rung == "cascade" and (new_model is None or (items is None and items_column is None)):
        raise ConfigError("cascade embeds items for a query; give --items, or --items-column, and --new-model")
    names, new, old = _asked(question, new_model, old_model, text_column, text_model)
    index = live.open()
    road = road_of(plan, said, rung, index, None if rung in FIRST else live.second()[1])
    if rung == "mapped+csls":
        road = replace(road, known=known_for(plan, known_queries, new))
    with ExitStack() as stack:
        embed = None
        if rung == "cascade" and new_model is not None:
            content = contents_of_items(rung, items, items_column, index)
            embed = Items(content, new_model, text_column, columns, text_model, index)
            road = _with_contents(road, embed, plan, stack)
        try:
            hits = road.search(new, old, k, exact=exact)
        finally:
            if embed is not None:
                embed.receipt()
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


def _with_contents(road: "Road", embed: Items, plan: Path, stack: ExitStack) -> "Road":
    """A road that embeds items, says how many, and keeps them with the plan."""
    from ..features.cache import VectorCache

    cache = stack.enter_context(VectorCache(plan / "new.vectors", space=embed.encoder.space))
    before = len(cache)
    stack.callback(lambda: tell(f"{len(cache) - before:,} items were embedded; {cache.path} holds {len(cache):,}"))
    return replace(road, embed=embed, cache=cache)


def _asked(
    question: Question, new_model: str | None, old_model: str | None, text_column: str | None, text_model: TextModel
) -> "tuple[list[str], Features | None, Features | None]":
    """Names of the queries, and their vectors by the new and by the old model."""
    new, old = question.vectors()
    known: Any = new if new is not None else old
    if known is not None:
        return [str(one) for one in known.ids.tolist()], new, old
    medium, content, names = question.content(text_column)
    models = {"--new-model": new_model, "--old-model": old_model}
    source = "--query-image" if question.query_image else question.queries or "--query"
    new, old = embedded_by(models, medium, content, source, text_model)
    return names, new, old
