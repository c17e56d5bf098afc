"""Recipes: the paper's defaults, TOML, flags; every key reachable, every mistake named."""

import json
import tomllib
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest

from compatlearn.config import Recipe, TrainConfig, bundled_recipe, check, load_recipe
from compatlearn.errors import ConfigError
from samples import call, complaint, image_folder

RECIPES = Path(__file__).parents[1] / "recipes"
OWN = [entry.name for entry in fields(Recipe) if entry.name != "training"]
NESTED = [entry.name for entry in fields(TrainConfig)]
OTHER = {  # key → text on a command line, what it becomes: a value that is not the default
    "data": ("digits", "digits"),
    "classes": ("7", 7),
    "old_backbone": ("resnet34", "resnet34"),
    "new_backbone": ("small_resnet8", "small_resnet8"),
    "old_fraction": ("0.5", 0.5),
    "methods": ("mean,l2", "mean,l2"),
    "seeds": ("3", 3),
    "temperature": ("1e-1", 0.1),
    "damping": ("0", 0.0),
    "steps": ("4", 4),
    "label_noise": ("1", 1.0),
    "metric": ("cosine", "cosine"),
    "jobs": ("2", 2),
    "epochs": ("12", 12),
    "batch_size": ("64", 64),
    "learning_rate": ("2", 2.0),
    "momentum": ("0.8", 0.8),
    "weight_decay": ("0", 0.0),
    "schedule": ("one-cycle", "one-cycle"),
    "step_epochs": ("3", 3),
    "influence_weight": ("0.5", 0.5),
    "scale": ("16", 16.0),
    "new_fraction": ("0.5", 0.5),
    "old_classes": ("5", 5),
    "test_classes": ("5", 5),
    "clusters": ("20", 20),
    "unit_length": ("true", True),
    "dimension": ("128", 128),
    "resize": ("300", 300),
    "image_size": ("64", 64),
    "padding": ("4", 4),
    "flip": ("false", False),
    "precision": ("bf16", "bf16"),
    "workers": ("0", 0),
    "tolerance": ("0.5", 0.5),
    "tracker": ("tensorboard", "tensorboard"),
    "seed": ("5", 5),
}


def value(recipe: Recipe, key: str) -> object:
    return getattr(recipe if key in OWN else recipe.training, key)


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "some.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_are_the_papers() -> None:
    recipe = Recipe()
    assert (recipe.old_backbone, recipe.new_backbone) == ("resnet18", "resnet50")
    assert (recipe.old_fraction, recipe.temperature, recipe.damping, recipe.steps) == (0.3, 0.05, 0.9, None)
    training = recipe.training
    assert (training.learning_rate, training.momentum, training.weight_decay) == (0.1, 0.9, 1e-4)
    assert (training.schedule, training.step_epochs, training.epochs) == ("step", 30, 90)
    assert (training.batch_size, training.image_size, training.flip, training.padding) == (1024, 224, True, 0)
    assert training.resize > training.image_size  # or there would be no random crop
    assert (training.influence_weight, training.scale, training.dimension) == (1.0, None, None)
    assert recipe.label_noise == 0


@pytest.mark.parametrize("name", ["imagenet", "places365"])
def test_recipes_of_the_paper_are_written_out_and_equal_the_defaults(name: str) -> None:
    assert load_recipe(RECIPES / f"{name}.toml") == Recipe() == load_recipe(name)
    table = tomllib.loads((RECIPES / f"{name}.toml").read_text())
    told = {"learning_rate", "momentum", "weight_decay", "step_epochs", "epochs", "batch_size", "image_size", "flip"}
    assert told <= table["training"].keys()
    assert {"old_backbone", "new_backbone", "old_fraction", "temperature", "damping"} <= table.keys()


def test_every_recipe_of_the_package_loads() -> None:
    names = sorted(path.stem for path in RECIPES.glob("*.toml"))
    assert names == ["digits", "imagenet", "places365", "tiny-imagenet"]
    assert all(load_recipe(name) == load_recipe(bundled_recipe(name)) for name in names)
    assert load_recipe("digits").training.epochs == 6


def test_no_key_has_two_meanings() -> None:
    assert not set(OWN) & set(NESTED)
    assert OTHER.keys() == set(OWN) | set(NESTED)


@pytest.mark.parametrize("key", OTHER)
def test_every_key_can_be_given_as_text_or_in_toml(tmp_path: Path, key: str) -> None:
    text, expected = OTHER[key]
    assert value(Recipe(), key) != expected
    for spelled in (key, key.replace("_", "-")):
        given = load_recipe(None, {spelled: text})
        assert value(given, key) == expected
        assert type(value(given, key)) is type(expected)
    changed = {name for name in OTHER if value(given, name) != value(Recipe(), name)}
    assert changed == {key}
    quoted = {True: "true", False: "false"}.get(expected, repr(expected)) if isinstance(expected, bool) else repr(expected)
    head = "" if key in OWN else "[training]\n"
    assert value(load_recipe(toml(tmp_path, f"{head}{key} = {quoted}")), key) == expected


@pytest.mark.parametrize("key", OTHER)
def test_every_key_is_an_option_of_compare_and_of_sweep(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, key: str
) -> None:
    seen: list[Recipe] = []

    def stop(recipe: Recipe, *arguments: object, **options: object) -> None:
        seen.append(recipe)
        raise ConfigError("seen")

    monkeypatch.setattr("compatlearn.comparison.compare.run_cells", stop)
    text, expected = OTHER[key]
    option = f"--{key.replace('_', '-')}"
    for command in ("compare", "sweep"):
        own = command == "sweep" and key == "methods"  # a list of its own there
        message = complaint(capsys, 1, command, "--out", tmp_path / "out", *([] if own else [option, text]))
        assert message == "seen"
        assert own or value(seen.pop(), key) == expected


@pytest.mark.parametrize("key", NESTED)
def test_every_key_of_training_is_an_option_of_train(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, key: str
) -> None:
    def stop(images: object, config: TrainConfig, *arguments: object) -> None:
        seen.append(config)
        raise ConfigError("seen")

    seen: list[TrainConfig] = []
    monkeypatch.setattr("compatlearn.data.images.load_pixels", lambda images, size, tolerance: (images, None, []))
    monkeypatch.setattr("compatlearn.cli.loss.load_loss", stop)
    text, expected = OTHER[key]
    option = ["--no-flip"] if key == "flip" else [f"--{key.replace('_', '-')}", text]
    arguments = ("train", "--data", "digits", "--backbone", "small_resnet4", "--out", tmp_path / "out")
    assert complaint(capsys, 1, *arguments, *option) == "seen"
    assert seen == [replace(TrainConfig(), **{key: expected})]


def test_flags_win_over_toml_and_toml_over_defaults(tmp_path: Path) -> None:
    path = toml(tmp_path, 'data = "digits"\nseeds = 2\n[training]\nepochs = 7\nlearning_rate = 1\nscale = 4.5\n')
    recipe = load_recipe(path, {"epochs": "8", "seeds": 5, "scale": "none"})
    assert (recipe.data, recipe.seeds, recipe.training.epochs) == ("digits", 5, 8)
    assert recipe.training.learning_rate == 1.0
    assert recipe.training.scale is None
    assert recipe.training.momentum == 0.9


def test_a_key_may_be_nested_as_in_the_file() -> None:
    assert load_recipe(None, {"training.epochs": "3"}).training.epochs == 3


def test_methods_may_be_a_list(tmp_path: Path) -> None:
    assert load_recipe(toml(tmp_path, 'methods = ["mean", "l2"]')).methods == "mean,l2"


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("epochs", "many", "epochs must be a whole number; got 'many'"),
        ("epochs", "1.5", "epochs must be a whole number; got '1.5'"),
        ("epochs", "none", "epochs must be a whole number; got 'none'"),
        ("learning_rate", "fast", "learning_rate must be a number; got 'fast'"),
        ("learning_rate", "nan", "learning_rate must be a number; got 'nan'"),
        ("learning_rate", "inf", "learning_rate must be above 0; got inf"),
        ("learning_rate", "0", "learning_rate must be above 0; got 0.0"),
        ("flip", "maybe", "flip must be true or false; got 'maybe'"),
        ("schedule", "one-cicle", "unknown schedule 'one-cicle'; did you mean 'one-cycle'?"),
        ("precision", "int4", "unknown precision 'int4'; known: bf16, fp16, no"),
        ("epochs", "0", "epochs must be at least 1; got 0"),
        ("dimension", "0", "dimension must be at least 1; got 0"),
        ("seeds", "0", "seeds must be at least 1; got 0"),
        ("jobs", "0", "jobs must be at least 1; got 0"),
        ("classes", "0", "classes must be at least 1; got 0"),
        ("steps", "-1", "steps must be 0 or more; got -1"),
        ("padding", "-1", "padding must be 0 or more; got -1"),
        ("temperature", "0", "temperature must be above 0; got 0.0"),
        ("damping", "1.5", r"damping must be in [0, 1]; got 1.5"),
        ("damping", "1", r"damping must be in [0, 1), or 1 with a number of steps; got 1.0"),
        ("label_noise", "-0.1", r"label_noise must be in [0, 1]; got -0.1"),
        ("old_fraction", "1", "old_fraction must be between 0 and 1; got 1.0"),
        ("seed", "-1", r"seed must be in [0, 2³²); got -1"),
        (
            "image_size",
            "300",
            "a crop of 300 pixels does not fit in resize 256 with padding 0; raise resize or lower image_size",
        ),
    ],
)
def test_values_that_cannot_be(key: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_recipe(None, {key: text})
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs = 3", "key 'epochs' of {path} stands in the wrong place; put it below [training]"),
        ("[training]\nseeds = 3", "key 'seeds' of {path} stands in the wrong place; put it above [training]"),
        ("temprature = 3", "unknown key of {path} 'temprature'; did you mean 'temperature'?"),
        ("[trainning]\nepochs = 3", "unknown key of {path} 'trainning'; did you mean 'training'?"),
        ("[training]\nepoch = 3", "unknown key in [training] of {path} 'epoch'; did you mean 'epochs'?"),
        ("training = 3", "training of {path} must be a table; got 3: write [training] and its keys below it"),
        ("seeds = true", "seeds must be a whole number; got True"),
        ("seeds = [1, 2]", "seeds must be a whole number; got [1, 2]"),
        ("data = 3", "data must be text; got 3"),
        ("methods = [1]", "methods must be text; got [1]"),
        ("[training]\nflip = 1", "flip must be true or false; got 1"),
        ("[training]\nlearning_rate = nan", "learning_rate must be a number; got nan"),
        ("seeds = ", "{path} is not TOML: Invalid value (at end of document); mend it there"),
        ("seeds", "{path} is not TOML: Expected '=' after a key in a key/value pair (at end of document); mend it there"),
    ],
)
def test_files_that_cannot_be(tmp_path: Path, text: str, message: str) -> None:
    path = toml(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        load_recipe(path)
    assert str(error.value) == message.format(path=path)


def test_files_that_are_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read recipe .*no.toml: No such file or directory; check the path"):
        load_recipe(tmp_path / "no.toml")
    with pytest.raises(ConfigError, match=r"cannot read recipe .*: Is a directory; check the path"):
        load_recipe(tmp_path)
    with pytest.raises(ConfigError, match=r"unknown recipe 'imagnet'; did you mean 'imagenet'"):
        load_recipe("imagnet")
    (tmp_path / "latin.toml").write_bytes("data = '\xe9'".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin.toml is not TOML: .*; mend it there"):
        load_recipe(tmp_path / "latin.toml")


def test_check_passes_what_is_right() -> None:
    small = TrainConfig(resize=32, image_size=40, padding=4)
    assert check(small) is small


def test_recipe_prints_what_can_be_read_again(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = call(capsys, "recipe", "digits")
    assert code == 0
    lines = [line for line in out.splitlines() if not line.endswith(" = None")]
    text = "\n".join(lines).replace("True", "true").replace("False", "false")
    assert load_recipe(toml(tmp_path, text)) == load_recipe("digits")
    code, out, _ = call(capsys, "recipe")
    assert [line.split(" = ")[0] for line in out.splitlines()] == [*OWN, "[training]", *NESTED]


@pytest.mark.parametrize("name", ["imagenet", "places365"])
def test_recipes_of_the_paper_run_on_a_few_small_images(capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str) -> None:
    classes = {"n01440764": 8, "n01443537": 8} if name == "imagenet" else {"airfield": 8, "bar": 8}
    image_folder(tmp_path / "data" / "train", classes, suffix="JPEG")
    image_folder(tmp_path / "data" / "val", dict.fromkeys(classes, 4), suffix="JPEG", first=50)
    tiny = "--epochs 1 --resize 18 --image_size 16 --batch_size 8 --old_backbone small_resnet4 --new_backbone small_resnet8"
    code, out, err = call(
        capsys, "compare", "--recipe", RECIPES / f"{name}.toml", "--data", tmp_path / "data", "--out", tmp_path / "out",
        "--methods", "independent,random-walk", *tiny.split(), "--json",
    )  # fmt: skip
    assert code == 0, err
    results = json.loads(out)
    assert results == json.loads((tmp_path / "out" / "results.json").read_text())
    assert [row["method"] for row in results["rows"]] == ["independent", "random-walk"]
    assert results["recipe"]["training"] == asdict(replace(TrainConfig(), epochs=1, resize=18, image_size=16, batch_size=8))
    assert results["rows"][0]["old_self"] == results["rows"][1]["old_self"]
    rows = {
        part: json.loads((tmp_path / "out" / "seed-0" / part / "run.json").read_text())["rows"]
        for part in ("old", "independent")
    }
    assert rows == {"old": 4, "independent": 12}  # 30 % and 70 % of 8, twice
