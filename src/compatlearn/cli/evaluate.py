"""`compatlearn evaluate`."""

import re
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from ..errors import CompatlearnError
from ..metric import Cluster, Metric
from .columns import Columns, as_flags
from .engine import Engine, connected
from .gates import Gates
from .judgements import relevance_of
from .output import show, tell

if TYPE_CHECKING:
    from ..evaluation.gates import Checks
    from ..evaluation.relevance import Relevance
    from ..evaluation.result import Compatibility
    from ..indexes.hits import Hits


def evaluate(
    *,
    old_query: Path,
    old_gallery: Path,
    new_query: Path,
    new_gallery: Path | None = None,
    independent: Path | None = None,
    independent_gallery: Path | None = None,
    qrels: Path | None = None,
    clicks: Path | None = None,
    columns: Annotated[Columns, Parameter(name="*")] = Columns(),  # noqa: B008
    old_space: str = "",
    new_space: str = "",
    metric: Metric = "euclidean",
    cluster: Cluster = "query",
    adapter: Path | None = None,
    slerp: float | None = None,
    pad: bool = False,
    json: bool = False,
    require_compatible: bool = False,
    gates: Annotated[Gates, Parameter(name="*")] = Gates(),  # noqa: B008
    engine: Engine = "local",
    address: str | None = None,
) -> int:
    """Is the new model compatible, and what is lost against re-embedding everything?

    ```
    compatlearn evaluate --old-query old-queries.npz --old-gallery index.npz --new-query new-queries.npz \\
        --adapter new-to-old.safetensors --require-compatible
    compatlearn evaluate --old-query q.npz --old-gallery index.npz --new-query n.npz --qrels qrels/test.tsv --json
    compatlearn evaluate --old-query q.npz --old-gallery index.npz --new-query n.npz --max-negative-flips 1% \\
        --group languages.csv --junit gates.xml --markdown gates.md
    ```

    Args:
        old_query: the old model's features of the queries.
        old_gallery: the old model's features of the gallery.
        new_query: the new model's features of the queries.
        new_gallery: the new model's features of the gallery, for its self test; with --adapter also for the update gain.
        independent: an independently trained new model's features of the queries, for the update gain.
        independent_gallery: that model's features of the gallery; not needed where the queries are the gallery.
        qrels: judgements, as BEIR (query, item, grade) or TREC write them: which items answer which query. Labels are then
            optional, and the verdict is by nDCG@10.
        clicks: in place of judgements: a table of query_id, item_id and perhaps count (CSV, TSV, JSON lines, Parquet); those
            of a pair add up.
        old_space: the old model, for files that do not say which model made them.
        new_space: the new model, for files that do not say it.
        metric: what ranks.
        cluster: what the intervals draw: queries, for other queries of the same classes; or whole classes, for other classes.
        adapter: what `adapt` wrote: new queries go through it in the cross test.
        slerp: with --adapter: weight in [0, 1] of the mapped query when it is mixed with the old one, asked too.
        pad: let queries that are narrower than the old gallery ask it without an adapter, padded with zeros.
        json: everything as JSON on stdout.
        require_compatible: exit with 3 unless the verdict is yes; in a group, if it is surely worse.
        gates: limits that figures must meet.
        engine: where it runs: here, or on a Ray cluster.
        address: host:port of the cluster, or auto; without one it is started here.
    """
    given = {"old_query": old_query, "old_gallery": old_gallery, "new_query": new_query}
    given |= {"new_gallery": new_gallery, "independent": independent, "independent_gallery": independent_gallery}  # type: ignore[dict-item]
    paths = {name: path for name, path in given.items() if path is not None}
    limits = gates.limits(require_compatible)
    inputs = {f"--{name.replace('_', '-')}": path for name, path in given.items()}
    inputs |= {"--qrels": qrels, "--clicks": clicks, "--adapter": adapter}  # type: ignore[dict-item]
    gates.check(limits, inputs, cluster, backfill=independent is not None or adapter is not None)
    spaces = {"old_query": old_space, "old_gallery": old_space, "new_query": new_space, "new_gallery": new_space}
    with connected(engine, address) as workers:
        loaded: dict[str, Any] = columns.load(paths, spaces)
        groups = gates.groups(loaded["old_query"], old_query)
        search = workers.searcher([(paths[name], one) for name, one in loaded.items()]) if workers else _watched_search()
        names = {name: f"{name} ({path})" for name, path in paths.items()}
        options: dict[str, Any] = {"metric": metric, "cluster": cluster, "pad": pad, "searcher": search, "names": names}
        result = _measured(loaded, relevance_of(qrels, clicks), adapter, slerp, options)
    checks = gates.checked(result, limits, groups)
    gates.write(result, checks)
    _show(result, checks, json)
    for line in _hints(result, adapter, {names[name]: features.space for name, features in loaded.items()}):
        print(line, file=sys.stderr)
    return 0 if checks is None else _told(checks)


def _told(checks: "Checks") -> int:
    """The exit code; a line on stderr for each gate that is not met."""
    from ..report.gates import failed_lines

    for line in failed_lines(checks):
        tell(line)
    return 0 if checks.met else 3


def _show(result: "Compatibility", checks: "Checks | None", json: bool) -> None:
    if json:
        show(result.to_dict() | ({} if checks is None else {"gates": checks.to_dict()}))
        return
    show(result)
    if checks is not None:
        from ..report.gates import gates_table

        print()
        show(gates_table(checks))


def _measured(
    loaded: dict[str, Any],
    relevance: "Relevance | None",
    adapter: Path | None,
    slerp: float | None,
    options: dict[str, Any],
) -> "Compatibility":
    from ..adapters.slerp import query_map
    from ..evaluation.compatibility import compatibility

    asked = query_map(adapter, slerp, loaded["old_query"], loaded["new_query"])
    try:
        return compatibility(**loaded, **options, relevance=relevance, adapter=asked)
    except CompatlearnError as error:
        raise type(error)(_in_flags(str(error))) from error


def _watched_search() -> "Callable[..., Hits]":
    """`search` that says on stderr how far it is, where that takes long."""
    from ..indexes.exact import search
    from ..progress import shares

    numbers = count(1)

    def watched(queries: Any, gallery: Any, k: int, metric: Metric, *, exclude: Any) -> "Hits":
        title = f"search {next(numbers)}, {len(queries)} queries in {len(gallery)} rows"
        return search(queries, gallery, k, metric, exclude=exclude, watch=shares(title))

    return watched


def _in_flags(message: str) -> str:
    """A message of the library in the words of the command line."""
    message = message.replace("(relevance=Relevance.from_qrels(...))", "(--qrels or --clicks)").replace("pad=True", "--pad")
    message = re.sub(r"cluster='(\w+)'", r"--cluster \1", message).replace(", or new_gallery:", ", or --new-gallery:")
    return as_flags(message.replace("give an adapter, or", "give --adapter, or"))


def _hints(result: "Compatibility", adapter: Path | None, spaces: dict[str, str]) -> list[str]:
    """What may have gone wrong, a line each. Without a map, a cross test below half of the old self test is hardly meant so."""
    lines = []
    before, after = (scores.known()[result.primary].value for scores in (result.old_self, result.cross))
    if adapter is None and after < before / 2:
        lines.append(
            f"the cross test ({after:.1%}) is below half of the old self test ({before:.1%}): "
            "did you forget --adapter, or exchange old and new?"
        )
    unknown = [name for name, space in spaces.items() if not space]
    if unknown and (adapter is not None or result.compatible == "no"):
        lines.append(
            f"spaces unknown: {', '.join(unknown)}: nothing checks which model made them; --old-space and --new-space name it"
        )
    return lines
