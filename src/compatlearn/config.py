"""Recipes and training settings with their defaults; TOML files and command-line flags fill these dataclasses."""

import math
import tomllib
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from .errors import ConfigError, unknown
from .metric import Metric


@dataclass(frozen=True)
class TrainConfig:
    """How one model is trained. The defaults are the paper's recipe."""

    epochs: int = 90
    """Passes over the training images."""
    batch_size: int = 1024
    """Images per step, over all processes."""
    learning_rate: float = 0.1
    """The largest rate of SGD."""
    momentum: float = 0.9
    """Momentum of SGD."""
    weight_decay: float = 1e-4
    """L2 penalty on all weights."""
    schedule: Literal["step", "one-cycle"] = "step"
    """`step` divides the rate by 10 every `step_epochs`; `one-cycle` warms up to the rate and anneals to zero (and moves
    the momentum in the opposite direction between 0.95 and 0.85, as torch does)."""
    step_epochs: int = 30
    """Epochs between two steps of the `step` schedule."""
    influence_weight: float = 1.0
    """λ of the training loss: CE(W f, y) + λ · compatible loss."""
    scale: float | None = None
    """Scale of the cosines in the influence loss, for unit-norm spaces; without it, raw inner products."""
    dimension: int | None = None
    """Dimension of the features: adds a linear layer to the backbone, whose own it is otherwise. In a comparison: of the new
    model."""
    resize: int = 256
    """The shorter side of an image is scaled to this and the centre square kept (and cached where memory allows)."""
    image_size: int = 224
    """Side of the crop that the model sees: random in training, central otherwise."""
    padding: int = 0
    """Pixels of border added before the random crop."""
    flip: bool = True
    """Flip half of the training images from left to right."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Number type of autocast; `no` is float32 throughout."""
    workers: int = 8
    """Processes that decode images when they do not fit in memory."""
    tolerance: float = 0.001
    """Largest share of unreadable images that is skipped (and recorded) instead of being an error."""
    tracker: str | None = None
    """An accelerate tracker: tensorboard, wandb, mlflow, …"""
    seed: int = 0
    """Of the weights, the order of the images and their crops."""


@dataclass(frozen=True)
class Recipe:
    """One comparison: data, models, methods, and how they are trained."""

    data: str | None = None
    """`digits`, a folder, Parquet files or a hub name; usually given as --data."""
    classes: int | None = None
    """Keep only this many classes, the first ones."""
    old_backbone: str = "resnet18"
    """Network of the old model: small_resnet32 (any width), a timm or torchvision name, or module:function."""
    new_backbone: str = "resnet50"
    """Network of the new models."""
    old_fraction: float = 0.3
    """Share of each class that the old model is trained on."""
    new_fraction: float | None = None
    """Share of each class that the new model is trained on, taking the old model's images last; by default all but those."""
    old_classes: int | None = None
    """The old model knows only this many classes, the first ones."""
    test_classes: int | None = None
    """This many classes, the last ones, are only searched for; the others are only trained on."""
    clusters: int | None = None
    """The new training images have no labels; this many k-means clusters of their old features stand in."""
    unit_length: bool = False
    """The old features are stored at unit length, as most vendors' are."""
    methods: str = "paper"
    """Methods or families of them, separated by commas; `all` is every one."""
    seeds: int = 1
    """Training runs per method, with seeds 0, 1, …"""
    temperature: float = 0.05
    """T of the random walk."""
    damping: float = 0.9
    """λ of the random walk."""
    steps: int | None = None
    """Steps of the random walk; by default its limit."""
    label_noise: float = 0.0
    """Share of the new training labels that are replaced by another class, chosen at random."""
    metric: Metric = "euclidean"
    """What the gallery is ranked by; cosine for unit-norm spaces, together with `scale`."""
    jobs: int = 1
    """Models trained at a time, each in a process with its share of the cores; for small models on a CPU."""
    training: TrainConfig = field(default_factory=TrainConfig)
    """How each model is trained."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def load_recipe(path: Path | str | None = None, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe in a TOML file, with some keys replaced.

    Args:
        path: TOML with the keys of `Recipe` and a table `[training]` with those of `TrainConfig`, or the name of a bundled
            recipe; None for the defaults.
        overrides: key → value for any key of either; text is parsed as the field requires. `-` and `_` are the same.

    Returns:
        The recipe, checked.

    Raises:
        ConfigError: there is no such file, it is not TOML, a key is unknown (the message names the nearest), or a value is of
            the wrong kind or out of range.
    """
    table = {} if path is None else _read_toml(Path(path))
    own, nested = _names(Recipe) - {"training"}, _names(TrainConfig)
    inner = table.pop("training", {})
    if not isinstance(inner, dict):
        raise ConfigError(f"training of {path} must be a table; got {inner!r}: write [training] and its keys below it")
    if misplaced := (table.keys() & nested) | (inner.keys() & own):
        key = min(misplaced)
        place = "below [training]" if key in nested else "above [training]"
        raise ConfigError(f"key {key!r} of {path} stands in the wrong place; put it {place}")
    _refuse_unknown(table, own | {"training"}, f"key of {path}")
    _refuse_unknown(inner, nested, f"key in [training] of {path}")
    given = {key.replace("-", "_").removeprefix("training."): value for key, value in (overrides or {}).items()}
    _refuse_unknown(given, own | nested, "recipe key")
    training = _fill(TrainConfig(), inner | {key: value for key, value in given.items() if key in nested})
    recipe = _fill(Recipe(), table | {key: value for key, value in given.items() if key in own})
    return check_recipe(replace(recipe, training=training))


def _read_toml(path: Path) -> dict[str, Any]:
    if not path.suffix and not path.exists():
        path = bundled_recipe(str(path))
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read recipe {path}: {error.strerror}; check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}; mend it there") from error


def bundled_recipe(name: str) -> Path:
    """A recipe that comes with the package.

    Args:
        name: digits, tiny-imagenet, imagenet or places365.

    Returns:
        Its TOML file.

    Raises:
        ConfigError: there is no such recipe.
    """
    here = Path(__file__).parent
    folders = (here / "recipes", here.parents[1] / "recipes")  # installed, or a source checkout
    found = {path.stem: path for folder in folders for path in folder.glob("*.toml")}
    if name not in found:
        raise unknown("recipe", name, found)
    return found[name]


def check_recipe(recipe: Recipe) -> Recipe:
    """Check every value of a recipe.

    Args:
        recipe: what to check, its training settings included.

    Returns:
        The same recipe.

    Raises:
        ConfigError: a value is out of range; the message names the first.
    """
    _check_ranges(recipe)
    if recipe.damping == 1 and recipe.steps is None:
        raise ConfigError("damping must be in [0, 1), or 1 with a number of steps; got 1.0")
    check(recipe.training)
    return recipe


def check(config: TrainConfig) -> TrainConfig:
    """Check every value of training settings.

    Args:
        config: what to check.

    Returns:
        The same settings.

    Raises:
        ConfigError: a value is out of range; the message names the first.
    """
    _check_ranges(config)
    if config.image_size > config.resize + 2 * config.padding:
        raise ConfigError(
            f"a crop of {config.image_size} pixels does not fit in resize {config.resize} "
            f"with padding {config.padding}; raise resize or lower image_size"
        )
    return config


CLASSES = ("classes", "old_classes", "test_classes")
RANGES: tuple[tuple[str, Callable[[float], bool], tuple[str, ...]], ...] = (
    (
        "at least 1",
        lambda value: value >= 1,
        ("epochs", "batch_size", "step_epochs", "dimension", "resize", "image_size", "seeds", "jobs", *CLASSES),
    ),
    ("0 or more", lambda value: value >= 0, ("influence_weight", "weight_decay", "padding", "workers", "momentum", "steps")),
    ("above 0", lambda value: value > 0, ("learning_rate", "temperature", "scale")),
    ("in [0, 1]", lambda value: 0 <= value <= 1, ("tolerance", "damping", "label_noise")),
    ("between 0 and 1", lambda value: 0 < value < 1, ("old_fraction",)),
    ("above 0 and at most 1", lambda value: 0 < value <= 1, ("new_fraction",)),
    ("at least 2", lambda value: value >= 2, ("clusters",)),
    ("in [0, 2³²)", lambda value: 0 <= value < 2**32, ("seed",)),
)


def _check_ranges(config: TrainConfig | Recipe) -> None:
    for text, allowed, names in RANGES:
        for name in names:
            value = getattr(config, name, None)
            if value is not None and not (allowed(value) and math.isfinite(value)):
                raise ConfigError(f"{name} must be {text}; got {value}")


def _names(kind: type) -> set[str]:
    return {entry.name for entry in fields(kind)}


def _refuse_unknown(given: Iterable[str], known: set[str], kind: str) -> None:
    for key in given:
        if key not in known:
            raise unknown(kind, key, known)


def _fill(config: Any, values: Mapping[str, Any]) -> Any:
    kinds = typing.get_type_hints(type(config))
    return replace(config, **{key: _convert(value, kinds[key], key) for key, value in values.items()})


KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def _convert(value: Any, kind: Any, key: str) -> Any:
    """`value` as `kind`: text from the command line is parsed, TOML values are checked."""
    choices = typing.get_args(kind)
    if typing.get_origin(kind) is Literal:
        if value in choices:
            return value
        raise unknown(key, str(value), choices)
    if isinstance(kind, types.UnionType):
        if value is None or (isinstance(value, str) and value.lower() == "none"):
            return None
        kind = next(choice for choice in choices if choice is not type(None))
    try:
        if kind is bool and isinstance(value, str):
            return {"true": True, "false": False, "yes": True, "no": False}[value.lower()]
        if kind is str and isinstance(value, list):
            return ",".join(value)
        if kind in (int, float) and not isinstance(value, bool) and kind(value) == float(value):
            return kind(value)
        if kind in (str, bool) and isinstance(value, kind):
            return value
    except (ValueError, KeyError, TypeError):
        pass
    raise ConfigError(f"{key} must be {KINDS[kind]}; got {value!r}")
