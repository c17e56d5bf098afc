"""`compatlearn translate`, `backfill`, `status` and `rollback`: a plan carried out on the live index, and undone."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from ..errors import ConfigError, DataError, IncompatibleError
from .engine import Engine, connected
from .live import Live, adapter_of, plan_of
from .output import show, tell
from .texts import TextModel, open_named_texts

if TYPE_CHECKING:
    from ..features.features import Features


def translate(
    *,
    plan: Path,
    live: Annotated[Live, Parameter(name="*")],
    new_space: str = "",
    batch_size: int | None = None,
    rate: float | None = None,
    json: bool = False,
    engine: Engine = "local",
    address: str | None = None,
) -> int:
    """Every stored vector through the plan's gallery map, into a second vector beside it; run it again to resume.

    ```
    compatlearn translate --index postgresql://localhost/shop#items.embedding --plan plan --to embedding_v2
    ```

    Args:
        plan: folder that `plan` wrote.
        live: the index.
        new_space: the new model, where the plan's map does not say it.
        batch_size: rows that are read and written together; by default as the store likes it.
        rate: most rows per second, to be gentle to a store in production.
        json: figures as JSON on stdout.
        engine: where it runs: here, or on a Ray cluster, whose workers open the index themselves, each a part of it.
        address: host:port of the cluster, or auto; without one it is started here.
    """
    from dataclasses import asdict

    from ..adapters.methods import GALLERY
    from ..migration.translate import translate as run

    options: dict[str, Any] = {"space": new_space, "batch": batch_size, "rate": rate, "tell": tell}
    adapter = adapter_of(plan, GALLERY)
    with connected(engine, address) as cluster:
        if cluster:
            from ..migration.parallel import translate as run_parts

            done = run_parts(live.open(), live.index, adapter, live.to, **options)
        else:
            done = run(live.open(), adapter, live.to, **options)
    show(asdict(done) if json else str(done))
    tell(f"next: compatlearn backfill, or search with new queries; back: compatlearn rollback --to {live.to}")
    return 0


def backfill(
    *,
    plan: Path,
    items: str,
    new_model: str,
    live: Annotated[Live, Parameter(name="*")],
    budget: float = 1.0,
    most_items: int | None = None,
    minutes: float | None = None,
    queries: Path | None = None,
    text_column: str | None = None,
    id_column: str | None = None,
    text_model: Annotated[TextModel, Parameter(name="*")] = TextModel(),  # noqa: B008
    batch_size: int = 256,
    json: bool = False,
) -> int:
    """True new vectors in place of translated ones, those first that queries find most often; run it again to resume.

    ```
    compatlearn backfill --index postgresql://localhost/shop#items.embedding --plan plan --items items.jsonl \\
        --new-model all-MiniLM-L6-v2 --queries plan/features/queries-new --budget 0.1
    ```

    Args:
        plan: folder that `plan` wrote; new vectors are kept in its new.vectors, so that no item is paid for twice.
        items: the texts of the items, by the ids of the index.
        new_model: what embeds them, as for `plan`.
        live: the index.
        budget: share of the items that were no pairs of the plan that is embedded, with what was embedded before; the plan's
            pairs are paid for and come first.
        most_items: in place of a share: most items that are embedded now.
        minutes: after which no further batch is begun.
        queries: logged queries by the new model: what they find most often comes first.
        text_column: column or key with the texts, where it has no usual name.
        id_column: column or key with the ids, where it has no usual name.
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
    plan_of(plan)
    texts = open_named_texts(items, text_column, id_column, None)
    _, second = live.second()
    before = require_one_space(second)
    found = [] if queries is None else [most_found(second, _features(queries).vectors)]
    encoder = text_model.load(new_model, batch_size=batch_size)
    if encoder.space != second.space:
        raise IncompatibleError(
            f"--new-model {new_model} makes vectors of {encoder.space!r}, and {live.to} holds those of {second.space!r}; "
            "give the model of the plan"
        )
    embed = _Embedder(encoder, texts, items)
    with VectorCache(plan / "new.vectors", space=second.space) as cache:
        paid = _paid(plan, cache, first=not before.embedded)
        order = np.concatenate([paid, *found]) if len(paid) or found else None
        share = round(budget * (before.rows - len(paid)))
        room = max(0, share - max(0, before.embedded - len(paid))) if most_items is None else most_items
        limit = None if minutes is None else 60 * minutes
        done = run(second, embed, cache, order=order, items=room, seconds=limit, batch=batch_size, tell=tell)
    show(asdict(done) if json else str(done))
    return 0


def _paid(plan: Path, cache: Any, *, first: bool) -> Any:
    """Ids of the items that the plan has embedded; the first time their vectors go to the cache, later they may be stale."""
    import numpy as np

    for name in ("gallery-new", "pairs-new"):
        if (plan / "features" / name).exists():
            pairs = _features(plan / "features" / name)
            if pairs.space != cache.space:
                tell(f"{plan / 'features' / name} is of {pairs.space!r}, not of {cache.space!r}: not used")
                continue
            if first:
                cache.add(pairs.ids, pairs.vectors)
            return np.asarray(pairs.ids)
    return np.zeros(0, dtype=np.int64)


class _Embedder:
    """Ids in, vectors of their texts out."""

    def __init__(self, encoder: Any, texts: Any, source: str) -> None:
        self.encoder, self.texts, self.source = encoder, texts, source
        self.rows = {item: row for row, item in enumerate(texts.ids.tolist())}

    def __call__(self, ids: list[Any]) -> Any:
        import numpy as np

        missing = [one for one in ids if one not in self.rows]
        if missing:
            raise DataError(f"{len(missing)} items of the index are not in {self.source} (first: {missing[0]!r})")
        from ..encoders.embed import embed_texts

        return embed_texts(self.encoder, self.texts.take(np.array([self.rows[one] for one in ids]))).vectors


def status(*, live: Annotated[Live, Parameter(name="*")], json: bool = False, require_finished: bool = False) -> int:
    """Rows of the second vector by model and method, what is finished, and what it would cost to finish.

    ```
    compatlearn status --index postgresql://localhost/shop#items.embedding --to embedding_v2
    ```

    Args:
        live: the index.
        json: figures as JSON on stdout.
        require_finished: exit with 3 while rows have no second vector.
    """
    from ..migration.status import status as look

    found = look(live.second()[1])
    show(found.to_dict() if json else str(found))
    if len(found.spaces) > 1:
        print(f"{live.to} holds vectors of {len(found.spaces)} models; no query can rank them together", file=sys.stderr)
    return 3 if require_finished and found.missing else 0


def rollback(*, live: Annotated[Live, Parameter(name="*")], yes: bool = False) -> int:
    """Take the second vector and its stamps away: the index is as it was, row for row.

    ```
    compatlearn rollback --index postgresql://localhost/shop#items.embedding --to embedding_v2
    ```

    Args:
        live: the index.
        yes: even where the model has embedded items for it; what the plan's new.vectors holds stays.
    """
    from ..migration.status import status as look

    _, second = live.second()
    found = look(second)
    if found.embedded and not yes:
        raise ConfigError(f"{live.to} holds {found.embedded:,} vectors that a model has embedded; pass --yes to drop these too")
    second.drop()
    tell(f"{live.to} is gone: {found.rows:,} rows are as they were")
    return 0


def _features(path: Path) -> "Features":
    from ..features.features import Features

    return Features.load(path, verify=True)
