"""`compatlearn plan`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from ..errors import ConfigError
from ..metric import Cluster, Metric
from .by_id import contents_by_id
from .columns import Columns
from .judgements import relevance_of
from .live import is_live, open_index, redacted
from .out import check_out_folder
from .output import show, tell
from .plan_source import Request, open_source
from .texts import TextModel

if TYPE_CHECKING:
    from ..features.features import Features

GOAL, PAIRS = 0.9, 2000


def plan(
    *,
    out: Path,
    old_gallery: Annotated[str | None, Parameter(name=["--old-gallery", "--index"])] = None,
    pairs_new: Path | None = None,
    pairs_old: Path | None = None,
    new_queries: Path | None = None,
    old_queries: Path | None = None,
    backfill: Path | None = None,
    qrels: Path | None = None,
    clicks: Path | None = None,
    items: str | None = None,
    items_column: str | None = None,
    queries: str | None = None,
    new_model: str | None = None,
    old_model: str | None = None,
    pairs: int = PAIRS,
    sampling: Literal["proportional", "coverage"] = "proportional",
    embed_gallery: bool = False,
    text_column: str | None = None,
    columns: Annotated[Columns, Parameter(name="*")] = Columns(),  # noqa: B008
    text_model: Annotated[TextModel, Parameter(name="*")] = TextModel(),  # noqa: B008
    metric: Metric | None = None,
    cluster: Cluster = "query",
    budget: float = 0.1,
    goal: float = GOAL,
    seed: int = 0,
    json: bool = False,
    require_gain: bool = False,
) -> int:
    """Every way to upgrade, measured on your data, and the cheapest good one: a table, plan.json and plan.html.

    From vectors, or from texts or pictures, which it samples and embeds itself; an interrupted run resumes what it has
    embedded and fitted.

    ```
    compatlearn plan --old-gallery index.parquet --pairs-new pairs.parquet --new-queries new-queries.parquet \\
        --old-queries old-queries.parquet --qrels qrels/test.tsv --out plan
    compatlearn plan --index index.parquet --items corpus.jsonl --new-model all-MiniLM-L6-v2 --queries queries.jsonl \\
        --old-model vendor:embed --qrels qrels/test.tsv --out plan
    compatlearn plan --index index.parquet --items shop:train --new-model runs/new --queries photos --old-model runs/old \\
        --out plan
    ```

    Args:
        out: folder of the plan.
        old_gallery: the old vectors, with the ids of the items: a file or folder, or a live index as for `translate`, which is
            read and not changed.
        pairs_new: new vectors of some thousand of its items, by id.
        pairs_old: old vectors of the pairs, where the pairs are not in the gallery.
        new_queries: queries by the new model.
        old_queries: the same queries by the old model; without them no gain over the old system can be shown.
        backfill: new vectors of the gallery where a trial has them; measures cascade, partial and backfill too.
        qrels: judgements: which items answer which query. Without them the labels decide, where both sides have them; else
            the new model's own ranking.
        clicks: in place of judgements: a table of query_id, item_id and perhaps count, as for `evaluate`.
        items: texts or pictures of the gallery, by the ids of the index: as --data of `extract`, or `module:function`, which is
            called with a list of ids and returns a text or a picture of Pillow for each.
        items_column: in place of items: a column of text of the live index, a key of its payload or metadata, or Chroma's
            `document`; read of the items that are embedded or shown.
        queries: the same of the queries.
        new_model: what embeds pairs and queries: as --model of `extract` for texts or pictures.
        old_model: what embeds the queries as the index was embedded; without --index also the gallery.
        pairs: how many items are embedded as pairs.
        sampling: proportional: pairs lie where items lie; coverage: no region is without one.
        embed_gallery: embed all items by the new model, to measure what needs an encoder; for small trials.
        text_column: column or key with the texts, where it has no usual name.
        text_model: how texts are embedded.
        metric: what ranks the index: by default as the live index says, else cosine.
        cluster: what the intervals draw: queries, or whole classes of them, which need labels.
        budget: share of the gallery that may be embedded anew.
        goal: share of the best gain within the budget that is enough.
        seed: of every draw.
        json: plan.json on stdout instead of the table.
        require_gain: exit with 3 unless the recommended rung surely beats the old queries.
    """
    index = open_index(old_gallery, metric) if is_live(old_gallery) else None
    where = None if old_gallery is None or index is not None else Path(old_gallery)
    metric = metric or (index.metric if index is not None else "cosine")
    paths = {"old_gallery": where, "pairs_new": pairs_new, "pairs_old": pairs_old, "new_queries": new_queries}
    paths |= {"old_queries": old_queries, "backfill": backfill}
    inputs = {f"--{name.replace('_', '-')}": path for name, path in paths.items()}
    check_out_folder(out, inputs | {"--qrels": qrels, "--clicks": clicks, "--items": items, "--queries": queries}, "plan")
    if not 0 <= budget <= 1 or not 0 < goal <= 1:
        raise ConfigError(f"--budget is a share from 0 to 1 and --goal one above 0; got {budget:g} and {goal:g}")
    relevance = relevance_of(qrels, clicks)
    source = None
    if any(one is not None for one in (items, items_column, queries, new_model, old_model)):
        by_id = contents_by_id(items, items_column, index)
        content, model = _required(items if by_id is None else by_id.name, new_model, paths)
        names = {"text_column": text_column, "columns": columns, "text_model": text_model}
        draw = {"pairs": pairs, "sampling": sampling, "seed": seed, "whole": embed_gallery}
        known = {"index": where if index is None else index, "relevance": relevance, "old_queries": old_queries}
        source = open_source(Request(out, content, by_id, queries, model, old_model, **known, **draw, **names))  # type: ignore[arg-type]
    vectors: dict[str, Any] = dict(_loaded(paths, index, columns) if source is None else source.vectors)
    from .. import __version__
    from ..report.plan_page import write_plan_page
    from ..upgrade.carry import save_plan
    from ..upgrade.files import REPORT
    from ..upgrade.fits import FOLDER, forget
    from ..upgrade.plan import plan as measure

    settings: dict[str, Any] = {"metric": metric, "cluster": cluster, "budget": budget, "goal": goal, "seed": seed}
    settings |= {"items": None if source is None else source.count, "live": index}
    found = measure(**vectors, relevance=relevance, **settings, keep=out / FOLDER, tell=tell)
    command = [redacted(word) for word in sys.argv[1:]]
    written = save_plan(found, out, {"version": __version__, "command": command, "seed": seed})
    shown: dict[str, Any] = source.shown(written["examples"]) if source else {}
    write_plan_page(out / REPORT, written, **shown)
    forget(out / FOLDER)
    show(written if json else found)
    for line in written["next"]:
        tell(f"next: {line}")
    for line in written["commands"]:
        tell(f"on a live index: {line}")
    tell(f"{out / 'plan.json'} and {out / REPORT} are written")
    return 3 if require_gain and not found.gains else 0


def _loaded(paths: dict[str, Path | None], index: Any, columns: Columns) -> "dict[str, Features]":
    live = {} if index is None else {"old_gallery": index}
    for name, flag in (("old_gallery", "--old-gallery"), ("pairs_new", "--pairs-new")):
        if paths[name] is None and name not in live:
            raise ConfigError(
                f"a plan from vectors needs {flag}; or give texts or pictures: --items, --queries, --new-model, and the index"
            )
    return live | columns.load({name: path for name, path in paths.items() if path is not None})


def _required(items: str | None, new_model: str | None, paths: dict[str, Path | None]) -> tuple[str, str]:
    """Items and new model; a ConfigError where one is missing, or vectors are given that are made from the items."""
    if items is None or new_model is None:
        missing = "--items" if items is None else "--new-model"
        raise ConfigError(f"a plan from texts or pictures needs --items and --new-model; {missing} is missing")
    for name in ("pairs_new", "pairs_old", "new_queries", "backfill"):
        if paths[name]:
            flag = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{flag} holds vectors, and with --items they are made from these; leave one of them out")
    return items, new_model
