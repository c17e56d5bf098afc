"""Recipes: the only place where a default is written. TOML files and command-line flags fill these dataclasses."""

import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from .errors import ConfigError, unknown


@dataclass(frozen=True)
class TrainConfig:
    """How one model is trained. The defaults are the paper's recipe."""

    epochs: int = 90
    batch_size: int = 1024
    """Images a step, over all processes."""
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    schedule: Literal["step", "one-cycle"] = "step"
    """`step` divides the rate by 10 every `step_epochs`; `one-cycle` warms up to it and anneals to zero (and moves
    the momentum between 0.95 and 0.85 against it, as torch does)."""
    step_epochs: int = 30
    influence_weight: float = 1.0
    """λ of the training loss: CE(W f, y) + λ · compatible loss."""
    scale: float | None = None
    """None: raw inner products in the influence loss; a number: scale · cos, for unit-norm spaces."""
    dimension: int | None = None
    """Feature dimension; None is the backbone's own, a number adds a linear layer to it."""
    resize: int = 256
    """The shorter side of an image is scaled to this, the middle square kept (and cached where memory allows)."""
    image_size: int = 224
    """Side of the crop that the model sees: random while training, the middle otherwise."""
    padding: int = 0
    """Pixels of border added before the random crop."""
    flip: bool = True
    precision: Literal["no", "bf16", "fp16"] = "no"
    workers: int = 8
    """Processes that decode images when they do not fit in memory."""
    tolerance: float = 0.001
    """Largest share of unreadable images that is skipped (and recorded) instead of being an error."""
    tracker: str | None = None
    """An accelerate tracker: tensorboard, wandb, mlflow, …"""
    seed: int = 0


@dataclass(frozen=True)
class Recipe:
    """One comparison: data, models, methods, and how they are trained."""

    data: str | None = None
    """`digits`, a folder, Parquet files or a hub name; usually given as --data."""
    classes: int | None = None
    """Keep only the first so many classes."""
    old_backbone: str = "resnet18"
    new_backbone: str = "resnet50"
    old_fraction: float = 0.3
    """Share of each class that the old model is trained on; the new one gets the rest."""
    methods: str = "all"
    seeds: int = 1
    temperature: float = 0.05
    damping: float = 0.9
    steps: int | None = None
    """Steps of the random walk; None is its limit."""
    label_noise: float = 0.0
    """Share of the new training labels replaced by another class, chosen at random."""
    jobs: int = 1
    """Models trained at a time, each by a process with its share of the cores; for small models on a CPU."""
    training: TrainConfig = field(default_factory=TrainConfig)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def load_recipe(path: Path | str | None = None, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe of a TOML file, with some keys replaced.

    Args:
        path: TOML with the keys of `Recipe` and a table `[training]` with those of `TrainConfig`, or the name of a bundled
            recipe; None for the defaults.
        overrides: key → value for any key of either; text is read as its field wants it. `-` and `_` are the same.

    Raises:
        ConfigError: no such file, not TOML, an unknown key (the message names the nearest), a value of the wrong kind.
    """
    table: dict[str, Any] = {}
    if path is not None:
        if not Path(path).suffix and not Path(path).exists():
            path = bundled_recipe(str(path))
        try:
            table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"cannot read recipe {path}: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not TOML: {error}") from error
    recipe = _fill(Recipe(), {key: value for key, value in table.items() if key != "training"}, str(path))
    training = _fill(recipe.training, table.get("training", {}), f"[training] of {path}")
    own, nested = _names(Recipe) - {"training"}, _names(TrainConfig)
    given = {key.replace("-", "_"): value for key, value in (overrides or {}).items()}
    for key in given:
        if key not in own | nested:
            raise unknown("recipe key", key, own | nested)
    recipe = _fill(recipe, {key: value for key, value in given.items() if key in own}, "the command line")
    training = _fill(training, {key: value for key, value in given.items() if key in nested}, "the command line")
    check(training)
    return replace(recipe, training=training)


def bundled_recipe(name: str) -> Path:
    """A recipe that comes with the package: digits, tiny-imagenet, imagenet or places365."""
    here = Path(__file__).parent
    folders = (here / "recipes", here.parents[1] / "recipes")  # installed, or a source checkout
    found = {path.stem: path for folder in folders for path in folder.glob("*.toml")}
    if name not in found:
        raise unknown("recipe", name, found)
    return found[name]


def check(config: TrainConfig) -> TrainConfig:
    """The same config, or a ConfigError that names the first value out of range."""
    for name in ("epochs", "batch_size", "step_epochs", "resize", "image_size"):
        if getattr(config, name) < 1:
            raise ConfigError(f"{name} must be at least 1; got {getattr(config, name)}")
    for name in ("influence_weight", "weight_decay", "padding", "workers", "tolerance"):
        if getattr(config, name) < 0:
            raise ConfigError(f"{name} must be 0 or more; got {getattr(config, name)}")
    if config.learning_rate <= 0:
        raise ConfigError(f"learning_rate must be above 0; got {config.learning_rate}")
    if config.image_size > config.resize + 2 * config.padding:
        raise ConfigError(
            f"a crop of {config.image_size} pixels does not fit in resize {config.resize} "
            f"with padding {config.padding}; raise resize or lower image_size"
        )
    return config


def _names(kind: type) -> set[str]:
    return {entry.name for entry in fields(kind)}


def _fill(config: Any, values: Mapping[str, Any], where: str) -> Any:
    kinds = typing.get_type_hints(type(config))
    for key in values:
        if key not in kinds or key == "training":
            raise unknown(f"key in {where}:", key, set(kinds) - {"training"})
    return replace(config, **{key: _convert(value, kinds[key], key) for key, value in values.items()})


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
    raise ConfigError(f"{key} must be {kind.__name__}; got {value!r}")
