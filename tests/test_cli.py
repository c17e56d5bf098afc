"""The commands: what they call, what they print, and how they exit when all is well."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

import compatlearn
from compatlearn.cli import signals
from compatlearn.cli.app import app, run
from compatlearn.config import Recipe, load_recipe
from compatlearn.features.features import Features
from compatlearn.pseudo.centres import mean_classifier, random_walk_classifier
from compatlearn.pseudo.softmax import trained_classifier
from samples import CAT, DOG, call, clusters, image_folder, picture

WEIGHTS = "embedder.backbone.0.weight"
COMMANDS = ("demo", "extract", "pseudo", "adapt", "plan", "train", "evaluate", "compare", "sweep", "recipe", "export")
LIVE = ("translate", "backfill", "search", "status", "rollback", "serve", "drift")  # they write no file of ours
COMMANDS += LIVE
TINY = ["--backbone", "small_resnet4", "--epochs", "1", "--batch-size", "8", "--resize", "8", "--image-size", "8"]


def classifier(path: Path, name: str = "classifier") -> np.ndarray:
    with safe_open(path, "np") as file:
        return file.get_tensor(name)


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_folder(tmp_path_factory.mktemp("pets"), {CAT: 8, DOG: 8})


@pytest.fixture
def features(tmp_path: Path) -> Path:
    vectors, labels = clusters()
    Features(vectors, labels, space="old@1").save(tmp_path / "features")
    return tmp_path / "features"


# help


def test_every_command_is_listed_and_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ((), ("--help",), ("-h",)):
        code, out, err = call(capsys, *arguments)
        assert (code, err) == (0, "")
        assert all(re.search(rf"│ {name} ", out) for name in COMMANDS)
    assert set(COMMANDS) == {name for name in app if not name.startswith("-")}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command(capsys: pytest.CaptureFixture[str], command: str) -> None:
    code, out, err = call(capsys, command, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: compatlearn {command}")
    flags = {name for argument in app[command].assemble_argument_collection() for name in argument.names}
    assert ("--out" in flags) == (command not in ("evaluate", "recipe", *LIVE) or command == "backfill")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "--version") == (0, f"{compatlearn.__version__}\n", "")


# pseudo


@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
@pytest.mark.parametrize("method", ["random-walk", "normalized-mean", "mean", "trained"])
def test_pseudo_writes_what_the_function_gives_whatever_the_floats(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, method: str, kind: str
) -> None:
    vectors, labels = clusters()
    np.savez(tmp_path / "old.npz", vectors=vectors.astype(kind), labels=labels)
    out = tmp_path / "pseudo.safetensors"
    code, printed, err = call(capsys, "pseudo", "--features", tmp_path / "old.npz", "--method", method, "--out", out)
    assert (code, err) == (0, "")
    assert printed == f"{out}: {method} pseudo classifier, 3 classes of 4 dimensions\n"
    functions = {
        "random-walk": random_walk_classifier,
        "normalized-mean": mean_classifier,
        "mean": lambda rows, classes: mean_classifier(rows, classes, normalize=False),
        "trained": trained_classifier,
    }
    np.testing.assert_allclose(classifier(out), functions[method](vectors, labels), atol=1e-3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old.npz", "pseudo.safetensors"]


def test_pseudo_passes_every_option_on(capsys: pytest.CaptureFixture[str], features: Path, tmp_path: Path) -> None:
    vectors, labels = clusters()
    out = tmp_path / "deep" / "er" / "pseudo.safetensors"
    options = ["--temperature", "0.3", "--damping", "0.5", "--steps", "2"]
    assert call(capsys, "pseudo", "--features", features, "--out", out, *options)[0] == 0
    expected = random_walk_classifier(vectors, labels, temperature=0.3, damping=0.5, steps=2)
    assert np.array_equal(classifier(out), expected)
    assert not np.allclose(expected, random_walk_classifier(vectors, labels), atol=1e-5)
    with safe_open(out, "np") as file:
        header = file.metadata()
    assert (header["method"], header["space"]) == ("random-walk", "old@1")
    assert json.loads(header["options"]) == {"temperature": 0.3, "damping": 0.5, "steps": 2, "seed": 0}


def test_a_class_with_one_row_is_that_row(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    vectors, labels = clusters()
    rows = np.r_[0:10, 10:11, 20:30]
    np.savez(tmp_path / "old.npz", vectors=vectors[rows], labels=labels[rows])
    assert call(capsys, "pseudo", "--features", tmp_path / "old.npz", "--out", tmp_path / "p.safetensors")[0] == 0
    np.testing.assert_allclose(classifier(tmp_path / "p.safetensors")[1], vectors[10] / np.linalg.norm(vectors[10]), rtol=1e-6)


# from images to a verdict


def test_the_whole_way(capsys: pytest.CaptureFixture[str], pets: Path, tmp_path: Path) -> None:
    old, new, weights = tmp_path / "old", tmp_path / "new", tmp_path / "pseudo.safetensors"
    code, out, err = call(capsys, "extract", "--data", pets, "--model", "samples:mean_colour", "--out", old)
    assert (code, out, err) == (0, f"{old}: 16 features of 3 dimensions, 0 unreadable images skipped\n", "")
    assert call(capsys, "pseudo", "--features", old, "--out", weights)[0] == 0

    code, out, err = call(capsys, "train", "--data", pets, "--pseudo", weights, "--out", tmp_path / "run", *TINY)
    assert (code, out) == (0, f"{tmp_path / 'run'}: trained on 16 images of 2 classes, 0 unreadable ones skipped\n")
    assert re.fullmatch(r"training: epoch 1/1, \d+ images/s, 0 s left", err.rstrip())
    assert json.loads((tmp_path / "run" / "skipped.json").read_text()) == []
    again = call(capsys, "train", "--data", pets, "--pseudo", weights, "--out", tmp_path / "run", "--resume", *TINY)
    assert again == (0, out, "")

    code, out, _ = call(capsys, "extract", "--data", pets, "--model", tmp_path / "run", "--out", new)
    assert (code, out) == (0, f"{new}: 16 features of 16 dimensions, 0 unreadable images skipped\n")

    arguments = ("evaluate", "--old-query", old, "--old-gallery", old, "--new-query", new)
    code, table, err = call(capsys, *arguments)
    assert (code, err) == (0, "")
    code, printed, err = call(capsys, *arguments, "--json")
    assert (code, err) == (0, "")
    result = json.loads(printed)
    assert result["queries"] == 16
    assert f"compatible: {result['compatible']}" in table


@pytest.mark.parametrize("method", ["l2", "mean", "random-walk"])
def test_training_on_features_is_training_on_their_pseudo_classifier(
    capsys: pytest.CaptureFixture[str], pets: Path, tmp_path: Path, method: str
) -> None:
    assert call(capsys, "extract", "--data", pets, "--model", "samples:mean_colour", "--out", tmp_path / "old")[0] == 0
    options = ["--data", pets, *TINY]
    chosen = [] if method == "random-walk" else ["--method", method]
    assert call(capsys, "train", *options, "--features", tmp_path / "old", *chosen, "--out", tmp_path / "by-features")[0] == 0
    assert call(capsys, "train", *options, "--out", tmp_path / "alone")[0] == 0
    by_features, alone = (classifier(tmp_path / run / "model.safetensors", WEIGHTS) for run in ("by-features", "alone"))
    assert not np.array_equal(by_features, alone)
    if method != "l2":
        pseudo = tmp_path / "p.safetensors"
        assert call(capsys, "pseudo", "--features", tmp_path / "old", "--method", method, "--out", pseudo)[0] == 0
        assert call(capsys, "train", *options, "--pseudo", pseudo, "--out", tmp_path / "by-pseudo")[0] == 0
        assert np.array_equal(classifier(tmp_path / "by-pseudo" / "model.safetensors", WEIGHTS), by_features)


def test_train_says_what_it_left_out(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pets = image_folder(tmp_path / "pets", {CAT: 8, DOG: 8})
    (pets / DOG / "3.png").write_bytes(b"no picture")
    code, out, _ = call(capsys, "train", "--data", pets, "--out", tmp_path / "run", *TINY, "--tolerance", "0.1")
    assert (code, out) == (0, f"{tmp_path / 'run'}: trained on 15 images of 2 classes, 1 unreadable ones skipped\n")
    [[name, reason]] = json.loads((tmp_path / "run" / "skipped.json").read_text())
    assert name == "dog/3.png"
    assert "cannot be read: cannot identify image file" in reason


def test_extract_says_what_it_left_out(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pets, out = image_folder(tmp_path / "pets", {CAT: 30, DOG: 30}), tmp_path / "out"
    (pets / DOG / "3.png").write_bytes(picture(0).tobytes())
    arguments = ("extract", "--data", pets, "--model", "samples:mean_colour", "--out", out, "--tolerance", "0.02")
    assert call(capsys, *arguments) == (0, f"{out}: 59 features of 3 dimensions, 1 unreadable images skipped\n", "")
    [[name, _]] = json.loads((out / "skipped.json").read_text())
    assert name == "dog/3.png"
    assert "dog/3.png" not in Features.load(out).ids


# the verdict


def shifted(tmp_path: Path, noise: float, name: str) -> Path:
    """200 features of 20 classes; the larger the noise, the worse the model."""
    labels = np.repeat(np.arange(20), 10)
    vectors = np.eye(20)[labels] + np.random.default_rng(0).normal(scale=noise, size=(200, 20))
    Features(vectors.astype(np.float32), labels, np.arange(200), space=name).save(tmp_path / name)
    return tmp_path / name


def test_require_compatible_is_an_exit_code(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    old, good, bad = (shifted(tmp_path, noise, f"model{noise}") for noise in (0.45, 0.05, 2.0))
    arguments = ("evaluate", "--old-query", old, "--old-gallery", old, "--new-query")
    for new, verdict, code in ((good, "yes", 0), (bad, "no", 3), (old, "undecided", 3)):
        plain = call(capsys, *arguments, new, "--json")
        required = call(capsys, *arguments, new, "--json", "--require-compatible")
        assert json.loads(plain[1])["compatible"] == verdict
        assert (plain[0], required[0]) == (0, code)
        figures = json.loads(required[1])
        assert figures.pop("gates")["met"] == (code == 0)
        assert figures == json.loads(plain[1])
        failed = required[2].removeprefix(plain[2])
        assert failed.startswith("--require-compatible is not met: gain ") == (code == 3) == bool(failed)
        assert ("below half of the old self test" in plain[2]) == (verdict == "no")
        assert bool(plain[2]) == (verdict == "no")


def test_evaluate_hints_at_what_may_have_gone_wrong(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    old = shifted(tmp_path, 0.1, "old")
    features = Features.load(old)
    new = tmp_path / "new.npz"
    np.savez(new, vectors=np.roll(features.vectors, 7, axis=1), labels=features.labels, ids=features.ids)
    arguments = ("evaluate", "--old-query", old, "--old-gallery", old, "--new-query", new)
    code, _, err = call(capsys, *arguments)
    assert code == 0
    forgotten, unknown = err.splitlines()
    assert re.fullmatch(r"the cross test \([\d.]+%\) is below half of the old self test .* forget --adapter, .*", forgotten)
    assert unknown.startswith(f"spaces unknown: new_query ({new}): nothing checks which model made them; --old-space")
    assert call(capsys, *arguments, "--new-space", "new@1")[2].splitlines() == [forgotten]
    assert call(capsys, *arguments[:-1], old)[2] == ""


def test_a_backfill_by_the_same_model_gives_the_update_gain(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    old, new, out = shifted(tmp_path, 0.5, "old"), shifted(tmp_path, 0.1, "new"), tmp_path / "map.safetensors"
    assert call(capsys, "adapt", "--old-features", old, "--new-features", new, "--method", "ridge", "--out", out)[0] == 0
    arguments = ("evaluate", "--old-query", old, "--old-gallery", old, "--new-query", new, "--new-gallery", new, "--json")
    assert json.loads(call(capsys, *arguments)[1])["update_gain"] is None
    mapped = json.loads(call(capsys, *arguments, "--adapter", out)[1])
    old_self, cross, new_self = (mapped[name]["top1"] for name in ("old_self", "cross", "new_self"))
    assert mapped["update_gain"] == pytest.approx((cross - old_self) / (new_self - old_self))
    code, out_text, _ = call(capsys, *arguments[:-1], "--adapter", out)
    assert code == 0
    assert "update gain" in out_text


def test_evaluate_passes_every_option_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names = ("old_query", "old_gallery", "new_query", "new_gallery", "independent", "independent_gallery")
    paths = {name: shifted(tmp_path, 0.1, name) for name in names}
    given = {}

    def spy(**arguments: object) -> None:
        given.update(arguments)
        raise compatlearn.ConfigError("seen")

    monkeypatch.setattr(sys.modules["compatlearn.evaluation.compatibility"], "compatibility", spy)
    options = [text for name, path in paths.items() for text in (f"--{name.replace('_', '-')}", path)]
    assert call(capsys, "evaluate", *options, "--metric", "cosine")[0] == 1
    assert [given.pop(name) for name in ("metric", "cluster", "adapter", "relevance", "pad")] == [
        *("cosine", "query", None, None, False),
    ]
    assert callable(given.pop("searcher"))
    assert given.pop("names") == {name: f"{name} ({path})" for name, path in paths.items()}
    assert {name: features.space for name, features in given.items()} == {name: name for name in names}


# compare, sweep, demo


def test_demo_is_a_comparison_of_the_digits(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = []
    monkeypatch.setattr("compatlearn.comparison.compare.compare", lambda *given: calls.append(given) or {"rows": []})
    monkeypatch.setattr("compatlearn.report.tables.table", lambda results: "the table")
    code, out, err = call(capsys, "demo", "--out", tmp_path / "demo")
    assert (code, out) == (0, "the table\n")
    assert err == f"{tmp_path / 'demo' / 'results.json'}  {tmp_path / 'demo' / 'report.html'}\n"
    assert calls == [(load_recipe("digits"), tmp_path / "demo")]
    assert call(capsys, "demo", "--out", tmp_path, "--seeds", "1")[0] == 0
    assert calls[1][0].seeds == 1
    assert call(capsys, "compare", "--out", tmp_path, "--data", "x", "--json")[:2] == (0, '{\n  "rows": []\n}\n')
    assert calls[2][0] == load_recipe(None, {"data": "x"})


def test_sweep_takes_lists(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = []
    monkeypatch.setattr("compatlearn.comparison.compare.sweep", lambda recipe, out, **axes: calls.append((recipe, axes)) or {})
    options = "--temperatures 1 0.1 0.05 --dampings 0.1 0.9 --label-noises 0 0.2 --methods random-walk mean --epochs 2"
    assert call(capsys, "sweep", "--out", tmp_path, *options.split(), "--json") == (0, "{}\n", "")
    recipe, axes = calls[0]
    assert recipe == load_recipe(None, {"epochs": 2})
    assert {name: list(values) for name, values in axes.items()} == {
        "temperatures": [1.0, 0.1, 0.05],
        "dampings": [0.1, 0.9],
        "label_noises": [0.0, 0.2],
        "methods": ["random-walk", "mean"],
    }
    assert call(capsys, "sweep", "--out", tmp_path, "--json")[0] == 0
    assert calls[1] == (Recipe(), {"temperatures": (), "dampings": (), "label_noises": (), "methods": ("random-walk",)})


# the process


def test_the_command_itself(features: Path, tmp_path: Path) -> None:
    script = "import sys; from compatlearn.cli import main; main()"
    good = ["pseudo", "--features", str(features), "--out", str(tmp_path / "p.safetensors")]
    process = subprocess.run([sys.executable, "-c", script, *good], capture_output=True, text=True, check=False)
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout == f"{tmp_path / 'p.safetensors'}: random-walk pseudo classifier, 3 classes of 4 dimensions\n"
    assert (tmp_path / "p.safetensors").exists()


@pytest.mark.parametrize(
    ("raised", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted; nothing was written"),
        (MemoryError(), 1, "out of memory (the processor); lower --batch-size or give it less data"),
        (torch.OutOfMemoryError("CUDA\nout"), 1, "out of memory (CUDA out); lower --batch-size or give it less data"),
        (
            PermissionError(13, "Permission denied", "x"),
            1,
            "x: Permission denied; check the path, its permissions and the space left",
        ),
        (
            OSError(28, "No space left on device"),
            1,
            "No space left on device; check the path, its permissions and the space left",
        ),
    ],
)
def test_whatever_else_stops_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, raised: BaseException, code: int, message: str
) -> None:
    def stop(*arguments: object) -> None:
        raise raised

    monkeypatch.setattr("compatlearn.cli.recipe.load_recipe", stop)
    assert call(capsys, "recipe") == (code, "", f"compatlearn: {message}\n")


def test_a_fault_of_our_own_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("compatlearn.cli.recipe.load_recipe", fault)
    with pytest.raises(ZeroDivisionError):
        run(["recipe"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "--out", "x"], "run the same command again to resume"),
        (["extract", "--out", "x"], "run the same command again to resume"),
        (["demo"], "run the same command again to resume"),
        (["train", "--out", "x"], "run the same command with --resume to continue"),
        (["train", "--resume", "--out", "x"], "run the same command again to resume"),
        (["adapt", "--out", "x"], "nothing was written"),
        (["evaluate"], "nothing was written"),
        ([], "nothing was written"),
    ],
)
def test_an_interrupted_command_says_what_it_keeps(arguments: list[str], message: str) -> None:
    assert signals.last_words(arguments) == f"interrupted; {message}"


SLOW = """
import sys, time
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            print("importing", flush=True)
            try:
                time.sleep(60)
            except KeyboardInterrupt:
                raise {error}
sys.meta_path.insert(0, Slow())
sys.argv = ["compatlearn", "pseudo", "--features", "x.npz", "--out", "p.safetensors"]
from compatlearn.cli import main
main()
"""


@pytest.mark.parametrize(
    ("name", "error", "number", "code", "event"),
    [
        ("torch", "", signal.SIGINT, 130, "interrupted"),
        ("torch", "ImportError('a library that was interrupted says something else')", signal.SIGINT, 130, "interrupted"),
        ("cyclopts", "", signal.SIGINT, 130, "interrupted"),
        ("numpy", "", signal.SIGTERM, 143, "terminated"),
    ],
)
def test_a_signal_while_libraries_are_imported_is_one_line(
    tmp_path: Path, name: str, error: str, number: int, code: int, event: str
) -> None:
    script = SLOW.format(name=name, error=error)
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (code, "", f"compatlearn: {event}; nothing was written\n")
    assert list(tmp_path.iterdir()) == []
