"""`compatlearn translate`, `status` and `rollback`: a plan carried out on the live index, and undone."""

import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from ..errors import ConfigError
from .engine import Engine, connected
from .live import Live, adapter_of
from .output import show, tell


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


def status(
    *,
    live: Annotated[Live, Parameter(name="*")],
    plan: Path | None = None,
    log: Path | None = None,
    price_per_item: float | None = None,
    json: bool = False,
    require_finished: bool = False,
) -> int:
    """Rows of the second vector by model and method, what is finished, and what it would cost to finish.

    ```
    compatlearn status --index postgresql://localhost/shop#items.embedding --to embedding_v2 --plan plan
    ```

    Args:
        live: the index.
        plan: folder that `plan` wrote: what backfill has embedded, how fast and for how much.
        log: what backfill wrote to --out, where that is not backfill.json in the folder of the plan.
        price_per_item: dollars for an item; by default what the last backfill spent.
        json: figures as JSON on stdout.
        require_finished: exit with 3 while rows have no second vector.
    """
    from ..migration.curve import FILE, runs_of
    from ..migration.status import status as look
    from ..migration.status import to_finish

    if price_per_item is not None and not 0 <= price_per_item < float("inf"):
        raise ConfigError(f"--price-per-item must be 0 or more dollars; got {price_per_item:g}")
    _, second = live.second()
    found, log = look(second), log or (None if plan is None else plan / FILE)
    runs = [] if log is None else runs_of(log, second)
    rest = to_finish(found, _cached(plan, second.space), runs, price_per_item)
    show(found.to_dict() | {"to_finish": rest.to_dict()} if json else f"{found}\n{rest}")
    if len(found.spaces) > 1:
        print(f"{live.to} holds vectors of {len(found.spaces)} models; no query can rank them together", file=sys.stderr)
    return 3 if require_finished and found.missing else 0


def _cached(plan: Path | None, space: str) -> int:
    """How many vectors of a model the plan's cache holds."""
    from ..features.cache import VectorCache

    path = None if plan is None else plan / "new.vectors"
    if path is None or not path.exists():
        return 0
    with VectorCache(path) as cache:
        return len(cache) if cache.space == space else 0


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
