"""Adapters for other runtimes: they give what the adapter gives, and say where they come from."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from compatlearn import export_onnx
from compatlearn.adapters.adapter import Adapter
from compatlearn.adapters.methods import ADAPTERS
from compatlearn.errors import ConfigError
from samples import call, complaint


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def fitted(method: str, *, unit: bool, direction: str = "query") -> Adapter:
    labels = np.arange(200) % 5
    new = normal(5, 8, seed=1)[labels] + 0.5 * normal(200, 8, seed=2) + 0.3
    old = np.tanh(new @ normal(8, 6, seed=3) / 3)
    if unit:
        new, old = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (new, old))
    options = {name: value for name, value in (("epochs", 1), ("hidden", 9)) if name in ADAPTERS[method].options}
    adapter = Adapter(method, direction, metric="cosine", options=options or None).fit(new, old, labels)
    adapter.space_new, adapter.space_old = "new-model", "old-model"
    return adapter


def run(path: Path, rows: np.ndarray) -> np.ndarray:
    return np.asarray(onnxruntime.InferenceSession(path).run(["mapped"], {"vectors": rows})[0])


@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("method", [name for name in ADAPTERS if name != "kernel-ridge"])
def test_onnx_gives_what_the_adapter_gives(method: str, unit: bool, tmp_path: Path) -> None:
    adapter, path = fitted(method, unit=unit), tmp_path / "map.onnx"
    assert export_onnx(adapter, path) < 1e-6
    for count in (1, 33):
        rows = normal(count, 8, seed=count)
        np.testing.assert_allclose(run(path, rows), adapter.transform(rows), atol=1e-5)
    zero = np.zeros((1, 8), dtype=np.float32)
    np.testing.assert_allclose(run(path, zero), adapter.transform(zero), atol=1e-5)


def test_onnx_says_what_it_is(tmp_path: Path) -> None:
    export_onnx(fitted("ridge", unit=True, direction="gallery"), tmp_path / "map.onnx")
    model = onnx.load(tmp_path / "map.onnx")
    own: dict[str, Any] = {entry.key: entry.value for entry in model.metadata_props}
    assert (own["space_new"], own["space_old"], own["method"], own["direction"]) == (
        "new-model",
        "old-model",
        "ridge",
        "gallery",
    )
    assert (json.loads(own["unit_inputs"]), json.loads(own["rows"])) == (True, 200)
    assert [entry.version for entry in model.opset_import] == [17]
    sides = [side.type.tensor_type.shape.dim for side in (model.graph.input[0], model.graph.output[0])]
    assert [(side[0].dim_param, side[1].dim_value) for side in sides] == [("rows", 6), ("rows", 8)]


def test_a_kernel_map_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a kernel-ridge map holds its pairs and cannot be written as ONNX; use .*distilled"):
        export_onnx(fitted("kernel-ridge", unit=True), tmp_path / "map.onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapter = fitted("head", unit=True)
    adapter.save(tmp_path / "a.safetensors")
    arguments = ("export", "--adapter", tmp_path / "a.safetensors", "--format", "onnx", "--out")
    code, out, _ = call(capsys, *arguments, tmp_path / "new" / "map.onnx")
    assert code == 0
    assert out.startswith(f"wrote {tmp_path / 'new' / 'map.onnx'}: Adapter(head, 8 to 6 dimensions, 200 pairs")
    np.testing.assert_allclose(run(tmp_path / "new" / "map.onnx", normal(3, 8)), adapter.transform(normal(3, 8)), atol=1e-5)
    assert "is written as onnx; name a file such as" in complaint(capsys, 1, *arguments, tmp_path / "a.safetensors")
    assert "there is no adapter" in complaint(
        capsys, 1, "export", "--adapter", tmp_path / "none", "--out", tmp_path / "map.onnx"
    )
