"""`compatlearn backfill`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from ..errors import ConfigError, IncompatibleError
from .columns import Columns
from .items import Items, Spending
from .live import Live, plan_of
from .output import show, tell
from .texts import TextModel

if TYPE_CHECKING:
    from ..features.features import Features
    from ..migration.money import Money

SAMPLE = 1000  # items that a mean price is taken of


def backfill(
    *,
    plan: Path,
    items: str,
    new_model: str,
    live: Annotated[Live, Parameter(name="*")],
    budget: float = 1.0,
    most_items: int | None = None,
    minutes: float | None = None,
    spending: Annotated[Spending, Parameter(name="*")] = Spending(),  # noqa: B008
    queries: Path | None = None,
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
    compatlearn backfill --index postgresql://localhost/shop#items.embedding --plan plan --items items.jsonl \\
        --new-model openai:text-embedding-3-small --price 0.02 --most-dollars 5
    ```

    Args:
        plan: folder that `plan` wrote; new vectors are kept in its new.vectors, so that no item is paid for twice.
        items: texts or pictures of the items, by the ids of the index: as --data of `extract`.
        new_model: what embeds them, as for `plan`.
        live: the index.
        budget: share of the items that were no pairs of the plan that is embedded, with what was embedded before; the plan's
            pairs are paid for and come first.
        most_items: in place of a share: most items that are embedded now.
        minutes: after which no further batch is begun.
        spending: what an item costs, and most dollars.
        queries: logged queries by the new model: what they find most often comes first.
        text_column: column or key with the texts, where it has no usual name.
        text_model: how texts are embedded.
        batch_size: items that are embedded and written together.
        json: figures as JSON on stdout.
    """
    from dataclasses import asdict

    import numpy as np

    from ..features.cache import VectorCache
    from ..migration.backfill import backfill as run
    from ..migration.backfill import most_found
    from ..migration.status import require_one_space

    if not 0 <= budget <= 1:
        raise ConfigError(f"--budget is a share from 0 to 1; got {budget:g}")
    spending.check(text_model)
    plan_of(plan)
    _, second = live.second()
    before = require_one_space(second)
    embed = Items(items, new_model, text_column, columns, text_model)
    if embed.encoder.space != second.space:
        raise IncompatibleError(
            f"--new-model {new_model} makes vectors of {embed.encoder.space!r}, and {live.to} holds those of "
            f"{second.space!r}; give the model of the plan"
        )
    found = [] if queries is None else [most_found(second, features_of(queries).vectors)]
    money = embed.money(spending)
    with VectorCache(plan / "new.vectors", space=second.space) as cache:
        paid = _paid(plan, cache, first=not before.embedded)
        order = np.concatenate([paid, *found]) if len(paid) or found else None
        share = round(budget * (before.rows - len(paid)))
        room = max(0, share - max(0, before.embedded - len(paid))) if most_items is None else most_items
        _announce(embed, money, max(0, before.rows - len(cache)), room)
        limit = None if minutes is None else 60 * minutes
        try:
            done = run(second, embed, cache, order=order, items=room, seconds=limit, money=money, batch=batch_size, tell=tell)
        finally:
            embed.receipt()
    show(asdict(done) if json else str(done))
    return 0


def _announce(embed: Items, money: "Money | None", lacking: int, room: int) -> None:
    """Say what the budget buys."""
    from ..migration.money import dollars

    most = min(lacking, room)
    if money is None:
        tell(f"at most {most:,} of {lacking:,} items that have no new vector yet are embedded; no price is known")
        return
    ids = embed.content.ids.tolist()
    some = ids[:: max(1, len(ids) // SAMPLE)]
    each = float(money.price(some).mean())
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


def features_of(path: Path) -> "Features":
    """Features from a file or folder, with its checksums compared."""
    from ..features.features import Features

    return Features.load(path, verify=True)
