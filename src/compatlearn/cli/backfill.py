"""`compatlearn backfill`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from ..errors import ConfigError, IncompatibleError
from .by_id import contents_of_items
from .columns import Columns
from .items import Items, Spending, features_of
from .judgements import relevance_of
from .live import Live, plan_of
from .output import show, tell
from .roads import road_of
from .texts import TextModel

if TYPE_CHECKING:
    from ..evaluation.relevance import Relevance
    from ..features.features import Features
    from ..migration.judge import Judge
    from ..migration.money import Money


def backfill(
    *,
    plan: Path,
    items: str | None = None,
    items_column: str | None = None,
    new_model: str,
    live: Annotated[Live, Parameter(name="*")],
    budget: float = 1.0,
    most_items: int | None = None,
    minutes: float | None = None,
    spending: Annotated[Spending, Parameter(name="*")] = Spending(),  # noqa: B008
    queries: str | None = None,
    old_queries: Path | None = None,
    qrels: Path | None = None,
    clicks: Path | None = None,
    out: Path | None = None,
    text_column: str | None = None,
    columns: Annotated[Columns, Parameter(name="*")] = Columns(),  # noqa: B008
    text_model: Annotated[TextModel, Parameter(name="*")] = TextModel(),  # noqa: B008
    batch_size: int = 256,
    json: bool = False,
) -> int:
    """True new vectors in place of translated ones, those first that queries find most often; run it again to resume.

    It ends when a share, a number of items, the minutes or the dollars are used up, whichever comes first.

    ```
    compatlearn backfill --index postgresql://localhost/shop#items.embedding --plan plan --items items.jsonl \\
        --new-model all-MiniLM-L6-v2 --queries plan/features/queries-new --budget 0.1
    compatlearn backfill --index postgresql://localhost/shop#items.embedding --plan plan --items-column body \\
        --new-model openai:text-embedding-3-small --price 0.02 --most-dollars 5
    ```

    Args:
        plan: folder that `plan` wrote; new vectors are kept in its new.vectors, so that no item is paid for twice.
        items: texts or pictures of the items, by the ids of the index: as --data of `extract`, or `module:function`, which is
            called with a list of ids, as for `plan`.
        items_column: in place of items: a column of text of the index, as for `plan`. From a column or a function only what is
            embedded is read, and items that have no content there stay as they are.
        new_model: what embeds them, as for `plan`.
        live: the index.
        budget: share of the items that were no pairs of the plan that is embedded, with what was embedded before; the plan's
            pairs are paid for and come first.
        most_items: in place of a share: most items that are embedded now.
        minutes: after which no further batch is begun.
        spending: what an item costs, and most dollars.
        queries: logged queries: vectors by the new model, or texts or pictures. One half of them, drawn at random, chooses the
            order: what these find most often comes first. The other half measures the index as it goes.
        old_queries: the same queries by the old model: then the index is measured as `partial` of a plan is, by both columns.
        qrels: judgements, as for `plan`: which items answer which query. Without them the classes of queries and items
            decide, where both have them; else every ranking is compared with the last one.
        clicks: in place of judgements: a table of query_id, item_id and perhaps count.
        out: JSON file of the curve and of what each run did; by default backfill.json in the folder of the plan.
        text_column: column or key with the texts, where it has no usual name.
        text_model: how texts are embedded.
        batch_size: items that are embedded and written together.
        json: figures as JSON on stdout.
    """
    from dataclasses import asdict

    from ..features.cache import VectorCache
    from ..migration.backfill import backfill as run
    from ..migration.curve import FILE, BackfillLog
    from ..migration.status import require_one_space

    if not 0 <= budget <= 1:
        raise ConfigError(f"--budget is a share from 0 to 1; got {budget:g}")
    spending.check(text_model)
    relevance = _relevance(queries, old_queries, qrels, clicks)
    said = plan_of(plan)
    index, second = live.second()
    content = contents_of_items("backfill", items, items_column, index)
    before = require_one_space(second)
    embed = Items(content, new_model, text_column, columns, text_model, index)
    if embed.encoder.space != second.space:
        raise IncompatibleError(
            f"--new-model {new_model} makes vectors of {embed.encoder.space!r}, and {live.to} holds those of "
            f"{second.space!r}; give the model of the plan"
        )
    asked = None if queries is None else embed.asked(queries, text_column, plan)
    found, judge = _split(second, asked, old_queries, relevance, embed)
    road = road_of(plan, said, "partial", index, second)
    with VectorCache(plan / "new.vectors", space=second.space) as cache:
        paid = _paid(plan, cache, first=not before.embedded)
        order = _order(paid, found)
        share = round(budget * (before.rows - len(paid)))
        room = max(0, share - max(0, before.embedded - len(paid))) if most_items is None else most_items
        money = embed.money(spending)
        each = None if money is None else embed.mean_price(money, spending)
        _announce(money, each, max(0, before.rows - len(cache)), room)
        limits: Any = {"items": room, "seconds": None if minutes is None else 60 * minutes, "money": money}
        try:
            with BackfillLog(out or plan / FILE, road, judge, tell) as log:
                done = run(second, embed, cache, order=order, **limits, batch=batch_size, tell=tell, watch=log.watch)
            log.ended(done)
        finally:
            embed.receipt()
    show(asdict(done) | {"curve": log.curve.get("points")} if json else str(done))
    return 0


def _relevance(queries: str | None, old_queries: Path | None, qrels: Path | None, clicks: Path | None) -> "Relevance | None":
    """What answers the queries; a ConfigError where it is given without queries."""
    for flag, given in (("--old-queries", old_queries), ("--qrels", qrels), ("--clicks", clicks)):
        if given is not None and queries is None:
            raise ConfigError(f"{flag} {given} is for measuring, and that needs --queries")
    return relevance_of(qrels, clicks)


def _split(
    second: Any, asked: "Features | None", old: Path | None, relevance: "Relevance | None", embed: Items
) -> "tuple[Any, Judge | None]":
    """Ids that one half of the queries finds, and what measures with the other half."""
    from ..migration.backfill import most_found
    from ..migration.judge import Judge, halves

    if asked is None:
        return None, None
    if len(asked) < 2:
        return most_found(second, asked.vectors), None
    chosen, measuring = halves(asked)
    judge = Judge.of(asked.take(measuring), embed.known(), old=None if old is None else features_of(old), relevance=relevance)
    tell(f"{len(chosen):,} queries choose the order, {len(measuring):,} others measure")
    return most_found(second, asked.vectors[chosen]), judge


def _order(paid: Any, found: Any) -> Any:
    """Ids of what comes first: what is paid for, then what queries find; each once."""
    import numpy as np

    if found is None:
        return paid if len(paid) else None
    return np.concatenate([paid, found[~np.isin(found, paid)]]) if len(paid) else found


def _announce(money: "Money | None", each: float | None, lacking: int, room: int) -> None:
    """Say what the budget buys."""
    from ..migration.money import dollars

    most = min(lacking, room)
    if money is None or each is None:
        tell(f"at most {most:,} of {lacking:,} items that have no new vector yet are embedded; no price is known")
        return
    if money.most is not None and each > 0:
        most = min(most, int(money.most / each * (1 + 1e-9)))
    budget = "" if money.most is None else f"{dollars(money.most)} may be spent: "
    tell(
        f"{budget}about {most:,} of {lacking:,} items that have no new vector yet are embedded for {dollars(most * each)}, "
        f"at about {dollars(each)} per item; all of them would be {dollars(lacking * each)}"
    )


def _paid(plan: Path, cache: Any, *, first: bool) -> Any:
    """Ids of the items that the plan has embedded; the first time their vectors go to the cache, later they may be stale."""
    import numpy as np

    for name in ("gallery-new", "pairs-new"):
        if (plan / "features" / name).exists():
            pairs = features_of(plan / "features" / name)
            if pairs.space != cache.space:
                tell(f"{plan / 'features' / name} is of {pairs.space!r}, not of {cache.space!r}: not used")
                continue
            if first:
                cache.add(pairs.ids, pairs.vectors)
            return np.asarray(pairs.ids)
    return np.zeros(0, dtype=np.int64)
