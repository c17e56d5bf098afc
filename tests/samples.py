"""Small data made on the spot, and one call of the command line."""

import io
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from compatlearn.adapters.methods import ADAPTERS
from compatlearn.cli.app import run

CAT, DOG, EEL = "cat", "dog", "eel"


def picture(seed: int, size: tuple[int, int] = (12, 10)) -> Image.Image:
    """Noise that differs from seed to seed; lossless formats give it back exactly."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def image_folder(root: Path, counts: Mapping[str, int], *, suffix: str = "png", first: int = 0) -> Path:
    """`<root>/<class>/<number>.<suffix>`; picture n of the whole folder is `picture(first + n)`."""
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            picture(first).save(root / name / f"{number}.{suffix}")
            first += 1
    return root


def image_table(labels: Sequence[Any], *, first: int = 0, **columns: Any) -> pa.Table:
    """Columns image (struct<bytes, path>, as Hugging Face has it), label, and others; row n is `picture(first + n)`."""
    images = [{"bytes": encoded(picture(first + row)), "path": f"{row}.png"} for row in range(len(labels))]
    return pa.table({"image": images, "label": labels} | columns)


def write_images(path: Path, labels: Sequence[Any], *, first: int = 0, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(image_table(labels, first=first, **columns), path)
    return path


def mean_colour(pictures: list[Image.Image]) -> np.ndarray:
    """A black box: (b, 3), recognisable from picture to picture; slow where the environment says so."""
    time.sleep(float(os.environ.get("SLOW_COLOUR", "0")))
    return np.stack([np.asarray(one).mean(axis=(0, 1)) for one in pictures])


def clusters(classes: int = 3, rows: int = 10, dimension: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(classes · rows, dimension) float32 around one direction for each class, and the labels."""
    labels = np.repeat(np.arange(classes), rows)
    noise = np.random.default_rng(seed).normal(scale=0.2, size=(len(labels), dimension))
    return (np.eye(classes, dimension)[labels] + noise).astype(np.float32), labels


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one command."""
    capsys.readouterr()
    code = run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def complaint(capsys: pytest.CaptureFixture[str], code: int, *arguments: object, progress: bool = False) -> str:
    """The message of a command that must fail with `code`: one line on stderr (after those of progress), none on stdout."""
    actual, out, err = call(capsys, *arguments)
    lines = err.splitlines()
    assert actual == code, err
    assert out == ""
    assert "Traceback" not in err
    assert len(lines) == 1 or progress, err
    assert lines[-1].startswith("compatlearn: ")
    return lines[-1].removeprefix("compatlearn: ")


def forks(test: Callable[..., None]) -> Callable[..., None]:
    """For tests that fork: torch has threads, which the children never use."""
    warned = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    return warned(pytest.mark.skipif(sys.platform == "win32", reason="needs fork")(test))


def quick_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans with candidates that take no time, and short curves."""
    monkeypatch.setattr("compatlearn.upgrade.curves.SHARES", (0.0, 1.0))
    monkeypatch.setattr("compatlearn.upgrade.curves.PARTS", (0.5, 1))
    for name in ("CANDIDATES", "UNLABELLED", "DISTILLING", "TRANSLATING"):
        monkeypatch.setattr(f"compatlearn.upgrade.choice.{name}", ("procrustes", "ridge"))
    monkeypatch.setitem(ADAPTERS, "neighbour-head", replace(ADAPTERS["neighbour-head"], home="closed.ridge_map"))
