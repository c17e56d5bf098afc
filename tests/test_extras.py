"""A library of an extra that is not installed: one line with what installs it, before any work."""

import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from compatlearn.errors import ConfigError
from compatlearn.extras import EXTRAS, require

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]


def without(libraries: list[str], *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """One command in a process that cannot import some libraries."""
    code = f"import sys; sys.modules.update(dict.fromkeys({libraries!r})); from compatlearn.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=folder, timeout=120)


def test_the_table_names_extras_that_there_are() -> None:
    extras = PROJECT["optional-dependencies"]
    assert set(EXTRAS.values()) <= set(extras)
    core = {line.split(">")[0] for line in PROJECT["dependencies"]}
    assert core == {"cyclopts", "jaxtyping", "numpy", "pyarrow", "rich", "safetensors", "scikit-learn", "scipy", "torch"}
    assert set(extras["all"][0].split("[")[1].rstrip("]").split(",")) == set(extras) - {"all"}


@pytest.mark.parametrize(
    ("library", "command"),
    [
        ("PIL", "extract --data digits --model a:b --out out"),
        ("accelerate", "train --data digits --backbone small_resnet8 --out out --resize 8 --image-size 8"),
        ("timm", "train --data digits --backbone resnet18 --out out --resize 8 --image-size 8"),
        ("matplotlib", "compare --recipe digits --out out"),
        ("jinja2", "compare --recipe digits --out out"),
        ("sentence_transformers", "extract --data t.jsonl --model no/model --out out"),
        ("openai", "extract --data t.jsonl --model openai:m --out out"),
        ("tenacity", "extract --data t.jsonl --model openai:m --out out"),
        ("ray", "evaluate --engine ray --old-query q.npz --old-gallery q.npz --new-query q.npz"),
    ],
)
def test_a_missing_extra_is_told_in_one_line(library: str, command: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "q.npz", vectors=np.eye(3, dtype=np.float32), labels=[0, 1, 1], ids=[1, 2, 3])
    (tmp_path / "t.jsonl").write_text('{"id": 1, "text": "a"}')
    done = without([library], *command.split(), folder=tmp_path)
    line = f"compatlearn: this needs {library}, which is not installed; pip install 'compatlearn[{EXTRAS[library]}]'\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", line)
    assert not (tmp_path / "out").exists()


def test_vectors_need_no_extra(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name, dimension in (("old", 6), ("new", 8)):
        vectors = random.normal(size=(60, dimension)).astype(np.float32)
        np.savez(tmp_path / f"{name}.npz", vectors=vectors, labels=np.arange(60) % 3, ids=np.arange(60))
    adapt = "adapt --old-features old.npz --new-features new.npz --method ridge --out a.safetensors"
    evaluate = "evaluate --old-query old.npz --old-gallery old.npz --new-query new.npz --adapter a.safetensors"
    for command in (adapt, evaluate, "pseudo --features old.npz --out p.safetensors"):
        done = without(list(EXTRAS), *command.split(), folder=tmp_path)
        assert done.returncode == 0, done.stderr


def test_texts_need_no_extra_where_a_function_embeds_them(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,text\n1,a\n2,b\n")
    (tmp_path / "mine.py").write_text("import numpy as np\ndef embed(texts): return np.eye(len(texts), 3)\n")
    done = without(list(EXTRAS), *["extract", "--data", "t.csv", "--model", "mine:embed", "--out", "out"], folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, "out: 2 features of 3 dimensions\n"), done.stderr


def test_require_names_only_what_an_extra_brings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match=r"this needs timm, which is not installed; pip install 'compatlearn\[images\]'"):
        require("timm")
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        require("no_such_library")
