"""`compatlearn adapt`."""

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from ..adapters.methods import AUTO, method_help
from ..metric import Metric
from .columns import Columns
from .out import check_out_file
from .output import show, tell


def adapt(
    *,
    old_features: Path,
    new_features: Path,
    out: Path,
    method: Annotated[str, Parameter(help=method_help())] = AUTO,
    direction: Literal["query", "gallery"] = "query",
    metric: Metric = "euclidean",
    unseen_classes: bool = False,
    seed: int = 0,
    json: bool = False,
    require_gain: bool = False,
    new_space: str = "",
    old_space: str = "",
    columns: Annotated[Columns, Parameter(name="*")] = Columns(),  # noqa: B008
) -> int:
    """A map from a new model's vectors to an old one's, both models frozen, tested on pairs kept out of the fit.

    The figure printed is of pairs that neither fitted the map nor chose its method. The trials are fitted to 20,000 pairs
    at most, the map that is written to all of them.

    ```
    compatlearn adapt --old-features index.parquet --new-features new-pairs.parquet --out new-to-old.safetensors
    compatlearn adapt --old-features old.npz --new-features new.npz --method ridge --metric cosine --out map.safetensors
    compatlearn adapt --old-features old.npz --new-features new.npz --direction gallery --out old-to-new.safetensors
    ```

    Args:
        old_features: the old model's features.
        new_features: the new model's features of the same items, matched by id.
        out: the .safetensors file to write.
        direction: query: a map of new queries into the old index, which stays as it is; gallery: a map of the stored
            vectors into the new space, for a translated index that new queries search.
        metric: what ranks the index; the trials are scored by it.
        unseen_classes: for auto: the gallery's classes are not those of these features, so whole classes are kept out.
        seed: of the pairs kept out and of training.
        json: everything as JSON on stdout.
        require_gain: exit with 3, and write nothing, unless mapped queries surely beat the old ones on the pairs kept out.
        new_space: the new model, where its file does not say; `evaluate` then refuses vectors of another.
        old_space: the old model, where its file does not say.
    """
    check_out_file(out, {"--old-features": old_features, "--new-features": new_features}, format="compatlearn-adapter")
    from ..adapters.adapter import Adapter

    adapter = Adapter(method, direction, seed, metric, unseen_classes=unseen_classes)
    names = str(new_features), str(old_features)
    files, spaces = {"old": old_features, "new": new_features}, {"old": old_space, "new": new_space}
    features = columns.load(files, spaces)
    try:
        adapter.fit_features(features["new"], features["old"], names=names, tell=tell)
    except KeyboardInterrupt:
        tell("compatlearn: interrupted; a fit keeps nothing, the same command starts afresh")
        return 130
    worth_it = adapter.test_.worth_it if adapter.test_ else None
    tell(_verdict(adapter))
    refused = require_gain and worth_it is not True
    if not refused:
        adapter.save(out)
    written = None if refused else out
    if json:
        show(_result(adapter, written))
    else:
        print(_line(adapter, written))  # one line, however wide the terminal is
    return 3 if refused else 0


def _line(adapter: Any, out: Path | None) -> str:
    place = "not written" if out is None else str(out)
    widths = (adapter.d_new, adapter.d_old) if adapter.direction == "query" else (adapter.d_old, adapter.d_new)
    sizes = f"{widths[0]} to {widths[1]} dimensions"
    return f"{place}: {adapter.method_}, {sizes}, of all {adapter.record_.rows} pairs; its test, {adapter.test_}"


def _verdict(adapter: Any) -> str:
    """What to do with it."""
    test = adapter.test_
    if test.gain is None:
        return "too few pairs were kept out to say whether mapped queries beat the old ones"
    if adapter.direction == "gallery" and test.worth_it is not None:
        verdict = "beat the old system" if test.worth_it else "fall behind the old system"
        return f"new queries in the translated gallery {verdict} here; `compatlearn plan` measures it beside every other way"
    if test.worth_it:
        return "mapped queries beat the old ones here; measure it on other queries with `compatlearn evaluate --adapter`"
    if test.worth_it is None:
        return f"whether mapped queries beat the old ones is undecided on {test.tested} pairs; give more pairs"
    return "no map beats the old queries here: keep asking with the old model"


def _result(adapter: Any, out: Path | None) -> dict[str, Any]:
    from dataclasses import asdict

    test = adapter.test_
    gain = None if test.gain is None else test.gain.to_dict()
    return {
        "out": None if out is None else str(out),
        **asdict(adapter.record_),
        "d_new": adapter.d_new,
        "d_old": adapter.d_old,
        "trials": {name: trial.to_dict() for name, trial in adapter.trials_.items()},
        "gain": gain,
        "worth_it": test.worth_it,
    }
