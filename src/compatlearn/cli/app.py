"""The command line: parse, call one function, print. Results on stdout, everything else on stderr.

Exit codes: 0 done, 1 an error that can be mended (one line on stderr), 2 wrong usage, 3 `--require-compatible` not met.
"""

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter
from torch import OutOfMemoryError

from .. import __version__
from ..config import Recipe, TrainConfig, bundled_recipe, check, load_recipe
from ..errors import CompatlearnError, ConfigError

Engine = Literal["local", "ray"]

app = App(name="compatlearn", help="Upgrade an embedding model without re-embedding the gallery.", version=__version__)


@app.command
def demo(*, out: Path = Path("runs/demo"), seeds: int = 3) -> int:
    """The paper's methods and two heads on the embedded digits: a table, results.json and one HTML page; about a minute.

    Args:
        out: folder of the run; run again, it goes on where it was stopped.
        seeds: trainings of each method.
    """
    return compare(recipe=bundled_recipe("digits"), out=out, seeds=str(seeds))


@app.command
def extract(
    *,
    data: str,
    model: str,
    out: Path,
    weights: Path | None = None,
    batch_size: int = 256,
    shard_rows: int = 16384,
    dtype: Literal["float32", "float16"] = "float32",
    tolerance: float = 0.001,
    device: str | None = None,
    engine: Engine = "local",
    address: str | None = None,
) -> int:
    """Features of labelled images on disk; an interrupted run goes on at its first missing shard.

    Args:
        data: digits, Parquet files, an image folder, ImageNet, Places365 or a hub name; `DATA:val` chooses a split.
        model: a run of `compatlearn train`, a timm or torchvision name, or `module:function` (a list of RGB pictures in,
            vectors out).
        out: folder of the features.
        weights: .safetensors or .pt state dict for a name; without it a hub's.
        batch_size: images given to the model at a time.
        shard_rows: images between two points from which an interrupted run can go on.
        dtype: of the vectors on disk.
        tolerance: largest share of unreadable images that is skipped and recorded.
        device: torch's name of it; by default a GPU if there is one.
        engine: where it runs: here, or on a Ray cluster.
        address: host:port of the cluster, or auto; without one it is started here.
    """
    from ..data.sources import open_images
    from ..encoders.encoder import load_encoder
    from ..encoders.extract import extract

    options: dict[str, Any] = {"batch_size": batch_size, "shard_rows": shard_rows, "dtype": dtype, "tolerance": tolerance}
    with _engine(engine, address) as cluster:
        images, encoder = open_images(data), load_encoder(model, weights=weights, device=device)
        if cluster:
            features = cluster.extract((data, model, weights, device), encoder, images, out, **options)
        else:
            features = extract(encoder, images, out, **options)
    skipped = len(images) - len(features)
    print(f"{out}: {len(features)} features of {features.dimension} dimensions, {skipped} unreadable images skipped")
    return 0


@app.command
def pseudo(
    *,
    features: Path,
    out: Path,
    method: str = "random-walk",
    temperature: float = Recipe.temperature,
    damping: float = Recipe.damping,
    steps: int | None = Recipe.steps,
    classes: int | None = None,
    seed: int = 0,
    engine: Engine = "local",
    address: str | None = None,
) -> int:
    """A pseudo classifier from old features of the new training data.

    Args:
        features: what `extract` wrote, or .npy, .npz, .parquet, .safetensors with vectors and labels.
        out: the .safetensors file to write.
        method: random-walk, normalized-mean, mean or trained.
        temperature: T of the random walk.
        damping: λ of the random walk.
        steps: steps of the random walk; by default its limit.
        classes: number of classes; by default one more than the largest label.
        seed: of `trained`.
        engine: where it runs: here, or on a Ray cluster.
        address: host:port of the cluster, or auto; without one it is started here.
    """
    from ..features.features import Features
    from ..pseudo.table import PseudoClassifier, build_classifier, save_classifier

    options = {"temperature": temperature, "damping": damping, "steps": steps, "seed": seed}
    with _engine(engine, address) as cluster:
        old = Features.load(features, verify=True)
        build = cluster.classifier_builder(features) if cluster else build_classifier
        rows = build(method, old.vectors, old.require_labels(str(features)), classes=classes, options=options)
    save_classifier(PseudoClassifier(rows, method, old.space, options), out)
    print(f"{out}: {method} pseudo classifier, {rows.shape[0]} classes of {rows.shape[1]} dimensions")
    return 0


@app.command
def adapt(
    *,
    old_features: Path,
    new_features: Path,
    out: Path,
    method: str = "auto",
    unseen_classes: bool = False,
    seed: int = 0,
) -> int:
    """A map from a new model's features to an old one's, both models frozen, tested on rows kept out of the fit.

    Args:
        old_features: the old model's features.
        new_features: the new model's features of the same items, matched by id.
        out: the .safetensors file to write.
        method: auto tries several and keeps the best; or procrustes, ridge, low-rank, residual-mlp, lambda-orthogonal,
            instance-head, and with labels rbt, head, neighbour-head, mixed-head.
        unseen_classes: for auto: the gallery's classes are not those of these features.
        seed: of the rows kept out and of training.
    """
    from ..adapters.adapter import save_adapter
    from ..adapters.choice import choose_adapter, fit_features
    from ..features.features import Features

    old, new = (Features.load(path, verify=True) for path in (old_features, new_features))
    if method == "auto":
        choice = choose_adapter(new, old, unseen_classes=unseen_classes, seed=seed)
        adapter, trials = choice.adapter, choice.trials
        for name, said in {"data": choice.facts, **trials}.items():
            print(f"{name}: {said}", file=sys.stderr)
        if not choice.worth_it:
            print("no map beats the old queries here: go on asking with the old model", file=sys.stderr)
    else:
        tried = fit_features(method, new, old, seed=seed)
        adapter, trials = tried.adapter, {method: tried}
    save_adapter(adapter, out)
    print(f"{out}: {adapter.method}, {adapter.d_new} to {adapter.d_old} dimensions; {trials[adapter.method]}")
    return 0


@app.command
def train(
    *,
    data: str,
    backbone: str,
    out: Path,
    pseudo: Path | None = None,
    features: Path | None = None,
    method: str | None = None,
    independent: Path | None = None,
    resume: bool = False,
    config: Annotated[TrainConfig, Parameter(name="*")] = TrainConfig(),  # noqa: B008
) -> int:
    """A model whose queries search the old vectors; without --pseudo or --features an independent one.

    Args:
        data: as for `extract`; the training split.
        backbone: a timm or torchvision name, small_resnet32, or `module:function` that returns a torch module.
        out: folder of the run.
        pseudo: pseudo classifier to train against.
        features: old features of the training images, matched by id, for --method; instead of --pseudo.
        method: with --features: how they are used; by default random-walk.
        independent: with --method bt2: an independently trained model's features of the training images.
        resume: go on with an interrupted run; the result is that of an uninterrupted one.
    """
    from accelerate import PartialState

    from ..data.images import load_pixels
    from ..data.sources import open_images
    from ..files import write_json
    from ..training.methods import load_loss
    from ..training.train import train as run

    check(config)
    images, pixels, skipped = load_pixels(open_images(data), config.resize, tolerance=config.tolerance)
    loss = load_loss(images, config, pseudo, features, method, independent)
    run(images, config, out, backbone=backbone, loss=loss, pixels=pixels, resume=resume)
    processes = PartialState()  # of `accelerate launch`; usually this one alone
    if processes.is_main_process:
        write_json(out / "skipped.json", skipped)
        classes = f"{len(images)} images of {len(images.classes)} classes"
        print(f"{out}: trained on {classes}, {len(skipped)} unreadable ones skipped")
    processes.destroy_process_group()
    return 0


@app.command
def evaluate(
    *,
    old_query: Path,
    old_gallery: Path,
    new_query: Path,
    new_gallery: Path | None = None,
    independent: Path | None = None,
    independent_gallery: Path | None = None,
    metric: Literal["euclidean", "cosine"] = "euclidean",
    adapter: Path | None = None,
    slerp: float | None = None,
    json: bool = False,
    require_compatible: bool = False,
    engine: Engine = "local",
    address: str | None = None,
) -> int:
    """Is the new model compatible, and what is lost against re-embedding everything?

    Args:
        old_query: the old model's features of the queries.
        old_gallery: the old model's features of the gallery.
        new_query: the new model's features of the queries.
        new_gallery: the new model's features of the gallery, for its self test.
        independent: an independently trained new model's features of the queries, for the update gain.
        independent_gallery: that model's features of the gallery; not needed where the queries are the gallery.
        metric: what ranks.
        adapter: what `adapt` wrote: new queries go through it in the cross test.
        slerp: with --adapter: weight in [0, 1] of the mapped query when it is mixed with the old one, asked too.
        json: everything as JSON on stdout.
        require_compatible: exit with 3 unless the verdict is yes.
        engine: where it runs: here, or on a Ray cluster.
        address: host:port of the cluster, or auto; without one it is started here.
    """
    from ..adapters.adapter import query_map
    from ..evaluation.compatibility import compatibility
    from ..features.features import Features
    from ..report.page import verdict_table

    named = {"old_query": old_query, "old_gallery": old_gallery, "new_query": new_query}
    named |= {"new_gallery": new_gallery, "independent": independent}  # type: ignore[dict-item]
    named |= {"independent_gallery": independent_gallery}  # type: ignore[dict-item]
    with _engine(engine, address) as cluster:
        loaded = {name: Features.load(path, verify=True) for name, path in named.items() if path is not None}
        files = [(named[name], features) for name, features in loaded.items()]
        others: dict[str, Any] = {"searcher": cluster.searcher(files)} if cluster else {}
        others |= {"adapter": query_map(adapter, slerp, loaded["old_query"], loaded["new_query"])}
        result = compatibility(**loaded, metric=metric, **others)  # type: ignore[arg-type]
    _print(result.to_dict() if json else verdict_table(result))
    return 3 if require_compatible and result.compatible != "yes" else 0


@app.command
def compare(*, out: Path, recipe: Path | None = None, json: bool = False, **overrides: str) -> int:
    """Methods × seeds: the paper's Table 1. Run again, it goes on where it was stopped.

    Args:
        out: folder of the run: results.json, report.html, and a folder for every model.
        recipe: TOML file, or the name of a recipe that comes with the package: see `compatlearn recipe`.
        json: the results as JSON on stdout instead of a table.
        overrides: any key of a recipe, such as --epochs 10 or --data FOLDER.
    """
    from ..comparison.compare import compare as run
    from ..report.page import table

    settings = load_recipe(recipe, overrides)
    results = run(settings, out)
    _print(results if json else table(results))
    print(f"{out / 'results.json'}  {out / 'report.html'}", file=sys.stderr)
    return 0


@app.command
def sweep(
    *,
    out: Path,
    recipe: Path | None = None,
    temperatures: Annotated[list[float] | None, Parameter(consume_multiple=True)] = None,
    dampings: Annotated[list[float] | None, Parameter(consume_multiple=True)] = None,
    label_noises: Annotated[list[float] | None, Parameter(consume_multiple=True)] = None,
    methods: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    json: bool = False,
    **overrides: str,
) -> int:
    """A grid over temperature, damping and label noise: the paper's Table 2. Run again, it goes on where it was stopped.

    Args:
        out: folder of the run.
        recipe: TOML file, or the name of a recipe that comes with the package: see `compatlearn recipe`.
        temperatures: T of the random walk; by default the recipe's.
        dampings: λ of the random walk; by default the recipe's.
        label_noises: shares of wrong labels in the new training data; by default the recipe's.
        methods: by default random-walk.
        json: the results as JSON on stdout instead of a table.
        overrides: any key of a recipe, such as --epochs 10 or --data FOLDER.
    """
    from ..comparison.compare import sweep as run
    from ..report.page import table

    settings = load_recipe(recipe, overrides)
    axes = {"temperatures": temperatures or (), "dampings": dampings or (), "label_noises": label_noises or ()}
    results = run(settings, out, methods=methods or ("random-walk",), **axes)
    _print(results if json else table(results))
    return 0


@app.command(name="recipe")
def recipe_keys(path: Path | None = None) -> int:
    """Every key of a recipe with its value: the defaults, or those of a TOML file."""
    settings = load_recipe(path)
    for entry in fields(Recipe):
        if entry.name != "training":
            print(f"{entry.name} = {getattr(settings, entry.name)!r}")
    print("[training]")
    for entry in fields(TrainConfig):
        print(f"{entry.name} = {getattr(settings.training, entry.name)!r}")
    return 0


@contextmanager
def _engine(engine: Engine, address: str | None) -> Iterator[Any]:
    """`cluster`, connected, or None for this machine."""
    if engine == "local":
        if address is not None:
            raise ConfigError(f"--address {address} is that of a Ray cluster; pass --engine ray too, or leave it out")
        yield None
        return
    from ..cluster import jobs as cluster
    from ..cluster import workers

    with workers.connected(address):
        yield cluster


def _print(result: Any) -> None:
    if isinstance(result, dict):
        print(json.dumps(result, indent=2))
    else:
        from rich.console import Console

        console = Console()
        console.print(result) if console.is_terminal else Console(width=120).print(result)


def run(arguments: list[str]) -> int:
    """The exit code of one call of the command line."""
    arguments = [re.sub("^--training[.]", "--", argument) for argument in arguments]  # a key as a recipe nests it
    try:
        command, bound, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        return _fail(str(error), 2)
    try:
        return int(command(*bound.args, **bound.kwargs) or 0)
    except CompatlearnError as error:
        return _fail(str(error), 1)
    except OSError as error:
        reason = f"{error.filename or ''}: {error.strerror or error}".lstrip(": ")
        return _fail(f"{reason}; check the path, its permissions and the space left", 1)
    except (MemoryError, OutOfMemoryError) as error:
        return _fail(f"out of memory ({str(error) or 'the processor'}); lower --batch-size or give it less data", 1)
    except KeyboardInterrupt:
        return _fail("interrupted; the same command goes on where it stopped", 130)


def _fail(message: str, code: int) -> int:
    print(f"compatlearn: {' '.join(message.split())}", file=sys.stderr)
    return code


def main() -> None:
    """Entry point of the `compatlearn` command."""
    sys.exit(run(sys.argv[1:]))
