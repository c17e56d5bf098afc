"""`compatlearn plan`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from ..errors import ConfigError
from ..metric import Cluster, Metric
from .columns import Columns
from .judgements import relevance_of
from .out import check_out_folder
from .output import show, tell
from .texts import TextModel, open_named_texts

if TYPE_CHECKING:
    from ..data.texts import Texts
    from ..features.features import Features

GOAL, PAIRS = 0.9, 2000


def plan(
    *,
    out: Path,
    old_gallery: Annotated[Path | None, Parameter(name=["--old-gallery", "--index"])] = None,
    pairs_new: Path | None = None,
    pairs_old: Path | None = None,
    new_queries: Path | None = None,
    old_queries: Path | None = None,
    backfill: Path | None = None,
    qrels: Path | None = None,
    clicks: Path | None = None,
    items: str | None = None,
    queries: str | None = None,
    new_model: str | None = None,
    old_model: str | None = None,
    pairs: int = PAIRS,
    sampling: Literal["proportional", "coverage"] = "proportional",
    embed_gallery: bool = False,
    text_column: str | None = None,
    columns: Annotated[Columns, Parameter(name="*")] = Columns(),  # noqa: B008
    text_model: Annotated[TextModel, Parameter(name="*")] = TextModel(),  # noqa: B008
    metric: Metric = "cosine",
    cluster: Cluster = "query",
    budget: float = 0.1,
    goal: float = GOAL,
    seed: int = 0,
    json: bool = False,
    require_gain: bool = False,
) -> int:
    """Every way to upgrade, measured on your data, and the cheapest good one: a table, plan.json and plan.html.

    From vectors, or from texts, which it samples and embeds itself; an interrupted run resumes what it has embedded.

    ```
    compatlearn plan --old-gallery index.parquet --pairs-new pairs.parquet --new-queries new-queries.parquet \\
        --old-queries old-queries.parquet --qrels qrels/test.tsv --out plan
    compatlearn plan --index index.parquet --items corpus.jsonl --new-model all-MiniLM-L6-v2 --queries queries.jsonl \\
        --old-model vendor:embed --qrels qrels/test.tsv --out plan
    ```

    Args:
        out: folder of the plan.
        old_gallery: the old vectors, with the ids of the items.
        pairs_new: new vectors of some thousand of its items, by id.
        pairs_old: old vectors of the pairs, where the pairs are not in the gallery.
        new_queries: queries by the new model.
        old_queries: the same queries by the old model; without them no gain over the old system can be shown.
        backfill: new vectors of the gallery where a trial has them; measures cascade, partial and backfill too.
        qrels: judgements: which items answer which query. Without them the labels decide, where both sides have them; else
            the new model's own ranking.
        clicks: in place of judgements: a table of query_id, item_id and perhaps count, as for `evaluate`.
        items: the texts of the gallery, by the ids of the index.
        queries: the texts of the queries.
        new_model: what embeds pairs and queries: as --model of `extract` for texts.
        old_model: what embeds the queries as the index was embedded; without --index also the gallery.
        pairs: how many items are embedded as pairs.
        sampling: proportional: pairs lie where items lie; coverage: no region is without one.
        embed_gallery: embed all items by the new model, to measure what needs an encoder; for small trials.
        text_column: column or key with the texts, where it has no usual name.
        text_model: how texts are embedded.
        metric: what ranks the index.
        cluster: what the intervals draw: queries, or whole classes of them, which need labels.
        budget: share of the gallery that may be embedded anew.
        goal: share of the best gain within the budget that is enough.
        seed: of every draw.
        json: plan.json on stdout instead of the table.
        require_gain: exit with 3 unless the recommended rung surely beats the old queries.
    """
    paths = {"old_gallery": old_gallery, "pairs_new": pairs_new, "pairs_old": pairs_old, "new_queries": new_queries}
    paths |= {"old_queries": old_queries, "backfill": backfill}
    inputs = {f"--{name.replace('_', '-')}": path for name, path in paths.items()}
    check_out_folder(out, inputs | {"--qrels": qrels, "--clicks": clicks, "--items": items, "--queries": queries}, "plan")
    if not 0 <= budget <= 1 or not 0 < goal <= 1:
        raise ConfigError(f"--budget is a share from 0 to 1 and --goal one above 0; got {budget:g} and {goal:g}")
    relevance = relevance_of(qrels, clicks)
    texts: dict[str, str] = {}
    if items is None and new_model is None:
        vectors: dict[str, Any] = dict(_loaded(paths, columns))
    else:
        _check_texts(items, new_model, queries, old_gallery, old_model, paths)
        source = _Source(out, str(new_model), old_model, pairs, sampling, seed, text_model)
        vectors, texts = source.vectors(str(items), queries, old_gallery, columns, text_column, embed_gallery)
    from .. import __version__
    from ..report.plan_page import write_plan_page
    from ..upgrade.carry import REPORT, save_plan
    from ..upgrade.plan import plan as measure

    settings: dict[str, Any] = {"metric": metric, "cluster": cluster, "budget": budget, "goal": goal, "seed": seed}
    found = measure(**vectors, relevance=relevance, **settings, tell=tell)
    content = save_plan(found, out, {"version": __version__, "command": sys.argv[1:], "seed": seed})
    write_plan_page(out / REPORT, content, texts=texts)
    show(content if json else found)
    for line in content["next"]:
        tell(f"next: {line}")
    tell(f"{out / 'plan.json'} and {out / REPORT} are written")
    return 3 if require_gain and not found.gains else 0


def _loaded(paths: dict[str, Path | None], columns: Columns) -> "dict[str, Features]":
    for name, flag in (("old_gallery", "--old-gallery"), ("pairs_new", "--pairs-new")):
        if paths[name] is None:
            raise ConfigError(
                f"a plan from vectors needs {flag}; or give texts with --items, --queries and --new-model, and the index"
            )
    return columns.load({name: path for name, path in paths.items() if path is not None})


def _check_texts(
    items: str | None,
    new_model: str | None,
    queries: str | None,
    index: Path | None,
    old_model: str | None,
    paths: dict[str, Path | None],
) -> None:
    if items is None or new_model is None:
        missing = "--items" if items is None else "--new-model"
        raise ConfigError(f"a plan from texts needs --items and --new-model; {missing} is missing")
    if index is None and old_model is None:
        raise ConfigError("a plan from texts needs the old vectors: give --index, or --old-model to embed the items with it")
    given = [f"--{name.replace('_', '-')}" for name in ("pairs_new", "pairs_old", "new_queries", "backfill") if paths[name]]
    if given:
        raise ConfigError(f"{given[0]} holds vectors, and with --items they are made from texts; leave one of them out")


class _Source:
    """Texts become the vectors of a plan, in folders that a run which was interrupted goes on with."""

    def __init__(
        self, out: Path, new: str, old: str | None, pairs: int, sampling: str, seed: int, text_model: TextModel
    ) -> None:
        self.folder, self.new, self.old, self.pairs, self.sampling = out / "features", new, old, pairs, sampling
        self.seed, self.text_model = seed, text_model

    def vectors(
        self,
        items: str,
        queries: str | None,
        index: Path | None,
        columns: Columns,
        text_column: str | None,
        whole: bool,
    ) -> "tuple[dict[str, Any], dict[str, str]]":
        """The arguments of a plan, and every text by its id."""
        import numpy as np

        from ..features.classes import same_classes
        from ..features.features import Features
        from ..files import write_json
        from ..upgrade.sample import sample_pairs

        names = text_column, columns.id_column, columns.label_column
        gallery = open_named_texts(items, *names)
        asked = None if queries is None else open_named_texts(queries, *names)
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.folder.parent / "request.json", {"items": items, "queries": queries, "new_model": self.new})
        old = self._embedded(self.old, gallery, "gallery-old") if index is None else columns.load({"index": index})["index"]
        rows = old.align(gallery.ids, str(index or items), items, gallery.ids_from)
        stored = Features(old.vectors[rows], gallery.labels, gallery.ids, old.space, items, classes=gallery.classes)
        chosen = sample_pairs(self.pairs, stored.vectors, by=self.sampling, seed=self.seed)  # type: ignore[arg-type]
        known = self._embedded(self.new, gallery if whole else gallery.take(chosen), "gallery-new" if whole else "pairs-new")
        pairs = known.take(chosen) if whole else known
        found: dict[str, Any] = {"pairs_new": Features(pairs.vectors, None, pairs.ids, pairs.space, items)}
        found |= {"backfill": known} if whole else {}
        if asked is None:
            return found | {"old_gallery": stored}, {}
        fresh = self._embedded(self.new, asked, "queries-new")
        stored, fresh = same_classes(stored, fresh)
        found |= {"old_gallery": stored, "new_queries": fresh}
        found |= {"old_queries": self._embedded(self.old, asked, "queries-old")} if self.old else {}
        texts = dict(zip(map(str, np.concatenate([gallery.ids, asked.ids])), gallery.texts + asked.texts, strict=True))
        return found, texts

    def _embedded(self, model: str | None, texts: "Texts", name: str) -> "Features":
        from ..encoders.embed import extract_texts

        tell(f"{name}: {len(texts)} texts by {model}")
        return extract_texts(self.text_model.load(str(model)), texts, self.folder / name)
