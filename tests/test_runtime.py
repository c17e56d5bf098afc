"""The map in front of a service: NumPy alone, equal to torch, strict about its file and its queries."""

import json
import os
import pickle
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save as saved

import compatlearn
from compatlearn import runtime
from compatlearn.adapters.adapter import Adapter, load_adapter
from compatlearn.adapters.methods import ADAPTERS
from compatlearn.errors import FormatError
from compatlearn.upgrade.case import directed, mixed

METRICS = ("euclidean", "cosine", "dot")
ROOT = Path(__file__).parents[1]


def normal(*shape: int, seed: int = 0, length: float | None = None) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return rows if length is None else length * rows / np.linalg.norm(rows, axis=1, keepdims=True)


def sides(*, unit: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """New vectors of 12 dimensions, old ones of 9, their classes; of unit length, or of any."""
    labels = np.arange(240) % 6
    new = normal(6, 12, seed=1)[labels] + 0.5 * normal(240, 12, seed=2) + 0.3
    old = np.tanh(new @ normal(12, 9, seed=3) / 3) + 0.1 * normal(240, 9, seed=4)
    if unit:
        new, old = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (new, old))
        return new, old, labels
    return 3 * new, 2 * old, labels


def fitted(method: str, metric: str = "cosine", *, unit: bool = True, direction: str = "query", **options: Any) -> Adapter:
    new, old, labels = sides(unit=unit)
    quick = {name: value for name, value in (("epochs", 1), ("hidden", 20)) if name in ADAPTERS[method].options}
    adapter = Adapter(method, direction, metric=metric, options={**quick, **options} or None).fit(new, old, labels)
    adapter.space_new, adapter.space_old = "new-model", "old-model"
    return adapter


def agree(adapter: Adapter, path: Path, *, seed: int = 9) -> runtime.Map:
    """The file gives, row by row and as a batch, what the adapter gives."""
    adapter.save(path)
    found = runtime.load(path)
    queries = normal(50, adapter.n_features_in_, seed=seed)
    expected = adapter.transform(queries)
    scale = max(1.0, float(np.linalg.norm(expected, axis=1).max()))
    np.testing.assert_allclose(found(queries) / scale, expected / scale, atol=1e-5, rtol=0)
    np.testing.assert_allclose(found(queries[7]) / scale, expected[7] / scale, atol=1e-5, rtol=0)
    assert found(queries[7]).shape == (found.d_out,)
    return found


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("map") / "adapter.safetensors"
    fitted("ridge").save(path)
    return path


@pytest.mark.parametrize(("metric", "unit"), [("euclidean", False), ("dot", True), ("cosine", True), ("cosine", False)])
@pytest.mark.parametrize("method", ADAPTERS)
def test_every_method_is_torchs(method: str, metric: str, unit: bool, tmp_path: Path) -> None:
    found = agree(fitted(method, metric, unit=unit), tmp_path / "a.safetensors")
    assert (found.method, found.metric, found.direction) == (method, metric, "query")
    assert (found.space_new, found.space_old, found.d_in, found.d_out) == ("new-model", "old-model", 12, 9)
    assert found.unit_inputs is (unit and metric == "cosine")


@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("method", ["procrustes", "centred-procrustes", "ridge", "adjoint", "kernel-ridge"])
def test_maps_of_the_gallery_are_torchs(method: str, unit: bool, tmp_path: Path) -> None:
    found = agree(fitted(method, unit=unit, direction="gallery"), tmp_path / "a.safetensors")
    assert (found.direction, found.d_in, found.d_out) == ("gallery", 9, 12)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("kernel-ridge", {"whitening": 0.0}),
        ("kernel-ridge", {"landmarks": 60}),
        ("kernel-ridge", {"landmarks": 60, "drawing": 3}),
        ("kernel-ridge", {"neighbours": 0}),
        ("head", {"hidden": 7}),
        ("ranking-head", {"hidden": 0}),
        ("rbt", {"blocks": 3}),
    ],
)
def test_options_are_torchs(method: str, options: dict[str, Any], tmp_path: Path) -> None:
    for unit in (True, False):
        agree(fitted(method, unit=unit, **options), tmp_path / "a.safetensors")


def test_gelu_is_torchs_over_the_whole_range() -> None:
    one = np.eye(1, dtype=np.float32)
    zero = np.zeros(1, dtype=np.float32)
    x = np.concatenate([np.linspace(-12, 12, 20001), [-1e4, 1e4, -1e9, 1e9]]).astype(np.float32)[:, None]
    ours = runtime._perceptron(x, one, zero, one, zero)
    true = torch.nn.functional.gelu(torch.from_numpy(x).double()).numpy()
    assert np.abs(ours - true)[np.abs(x) < 12].max() < 1e-6
    np.testing.assert_allclose(ours, true, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("kind", ["float16", "float32", "float64", "list", "strided", "read-only", "tensor", "big-endian"])
def test_every_kind_of_input(kind: str, file: Path) -> None:
    found, queries = runtime.load(file), normal(8, 12).astype(np.float16).astype(np.float32)
    read_only = queries.copy()
    read_only.setflags(write=False)
    given = {
        "list": queries.tolist(),
        "strided": np.repeat(queries, 2, axis=1)[:, ::2],
        "read-only": read_only,
        "tensor": torch.from_numpy(queries),
        "big-endian": queries.astype(">f4"),
    }.get(kind)
    given = queries.astype(kind) if given is None else given
    assert found(given).dtype == np.float32
    np.testing.assert_allclose(found(given), found(queries), atol=1e-6)
    np.testing.assert_allclose(found(given[0]), found(queries)[0], atol=1e-6)


def test_whole_numbers_in_a_list_are_numbers(file: Path) -> None:
    found = runtime.load(file)
    np.testing.assert_array_equal(found([1] + 11 * [0]), found(np.eye(12)[0]))


def test_a_batch_of_more_than_a_block(file: Path) -> None:
    found, queries = runtime.load(file), normal(runtime.BLOCK + 3, 12)
    np.testing.assert_allclose(found(queries)[-1], found(queries[-1]), atol=1e-6)
    assert found(queries).shape == (len(queries), 9)


def test_rows_that_torch_scales_with_care(file: Path) -> None:
    found, adapter = runtime.load(file), load_adapter(file)
    for factor in (1e-30, 1e-12, 1e8):
        np.testing.assert_allclose(found(factor * normal(4, 12)), adapter.transform(normal(4, 12)), atol=1e-5)
    zero = np.zeros((1, 12), dtype=np.float32)
    np.testing.assert_allclose(found(zero), adapter.transform(zero), atol=1e-5)
    np.testing.assert_allclose(found(zero[0]), adapter.transform(zero)[0], atol=1e-5)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("direction", ["query", "gallery"])
def test_fused_is_what_a_plan_asks_with(metric: Any, direction: str, tmp_path: Path) -> None:
    adapter = fitted("ridge", metric, unit=False, direction=direction)
    adapter.save(tmp_path / "a.safetensors")
    found, new, old = runtime.load(tmp_path / "a.safetensors"), normal(20, 12), normal(20, 9, seed=5)
    own, given = (old, new) if direction == "query" else (new, old)
    expected = mixed(directed(own, metric), directed(adapter.transform(given), metric), 1.5, metric)
    np.testing.assert_allclose(found.fused(new, old, 1.5), expected, atol=1e-5)
    np.testing.assert_allclose(found.fused(new[3].tolist(), old[3], 1.5), expected[3], atol=1e-5)
    np.testing.assert_allclose(found.fused(new, old, 0.0), directed(own, metric), atol=1e-6)


@pytest.mark.parametrize(
    ("new", "old", "weight", "message"),
    [
        (np.ones((2, 12)), np.ones((3, 9)), 1.0, r"give the same queries by both models; the old query is (3, 9)"),
        (np.ones(12), np.ones((1, 9)), 1.0, r"give the same queries by both models"),
        (np.ones(12), np.zeros(9), 1.0, "the old query has length zero"),
        (np.ones(12), np.ones(9), -1.0, "the weight of the mapped query must be finite and at least 0; got -1.0"),
        (np.ones(12), np.ones(9), np.nan, "the weight of the mapped query must be finite"),
        (np.ones(9), np.ones(9), 1.0, "the query must be (12,) or (n, 12)"),
        (np.ones(12), np.ones(12), 1.0, "the old query must be (9,) or (n, 9)"),
        (np.ones(12), np.full(9, np.inf), 1.0, "the old query has NaN or infinity"),
    ],
)
def test_what_cannot_be_fused(file: Path, new: Any, old: Any, weight: float, message: str) -> None:
    with pytest.raises(runtime.MapError, match=re.escape(message)):
        runtime.load(file).fused(new, old, weight)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (np.full(12, np.nan), "the query has NaN or infinity; embed it again"),
        (np.array([[1.0] * 12, [1.0] * 11 + [np.inf]]), "the query has NaN or infinity in 1 of 2 rows (first: 1)"),
        (np.full(12, np.float16(np.inf)), "the query has NaN or infinity"),
        (np.ones(11), "the query must be (12,) or (n, 12), n at least 1; got (11,): use the model of the map"),
        (np.ones((0, 12)), "n at least 1; got (0, 12)"),
        (np.ones((1, 1, 12)), "got (1, 1, 12)"),
        (3.0, "got ()"),
        (np.ones(12, dtype=np.int64), "the query must be float16, float32 or float64; got int64"),
        ([True] * 12, "got bool"),
        (["1.0"] * 12, "the query must be float16, float32 or float64; got <U3"),
        (None, "got object"),
        ([[1.0] * 12, [1.0]], "the query is not an array"),
        (np.ones(12, dtype=np.complex64), "got complex64"),
        (np.full(12, 1e300), "the query is too long for float32 (numbers up to 1e+300); scale it"),
        (np.full(12, 1e30, dtype=np.float32), "the query is too long for float32 (numbers up to 1e+30); scale it"),
    ],
)
def test_queries_that_are_refused(file: Path, query: Any, message: str) -> None:
    with pytest.raises(runtime.MapError, match=re.escape(message)) as caught:
        runtime.load(file)(query)  # and not a RuntimeWarning
    assert isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value)


def rewritten(file: Path, path: Path, *, seal: bool = False, drop: str = "", arrays: Any = None, **texts: str) -> Path:
    """The file with other entries or arrays; sealed: with the digest that fits them."""
    own, found = runtime._parse(file.read_bytes())
    header = {name: text for name, text in (own | texts).items() if name != drop}
    found = {**found, **(arrays or {})}
    header |= {"digest": runtime.digest(header, found)} if seal else {}
    path.write_bytes(saved({name: np.array(array) for name, array in found.items()}, header))
    return path


def test_what_was_rewritten_unchanged_is_taken(file: Path, tmp_path: Path) -> None:
    path = rewritten(file, tmp_path / "same.safetensors", seal=True)
    np.testing.assert_array_equal(runtime.load(path)(np.ones(12)), runtime.load(file)(np.ones(12)))


def test_a_file_that_is_cut_anywhere_is_refused(file: Path, tmp_path: Path) -> None:
    data, path = file.read_bytes(), tmp_path / "cut.safetensors"
    for size in [0, 1, 7, 8, 9, 100, *range(200, len(data), 97), len(data) - 1]:
        path.write_bytes(data[:size])
        with pytest.raises(runtime.MapError, match=r"is cut short|is no safetensors file") as caught:
            runtime.load(path)
        assert str(caught.value).startswith(f"{path} is ")
    path.write_bytes(data + b"\0\0\0\0")
    with pytest.raises(runtime.MapError, match="has bytes behind its end"):
        runtime.load(path)


def test_any_changed_byte_is_noticed(file: Path, tmp_path: Path) -> None:
    data, path = file.read_bytes(), tmp_path / "edited.safetensors"
    blank = set(range(len(data))) & {8 + int.from_bytes(data[:8], "little") - n for n in range(1, 9)}  # padding of the header
    places = [place for place in range(0, len(data), 7) if place not in blank]
    for place in places:
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(runtime.MapError):
            runtime.load(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space_old": "another"}, "was changed after it was written: its digest is another; copy it again"),
        ({"digest": "0" * 32}, "was changed after it was written"),
        ({"drop": "digest"}, "was changed after it was written"),
        ({"arrays": {"linear.bias": np.zeros(9, np.float32)}}, "was changed after it was written"),
        (
            {"drop": "layout", "seal": True},
            "is of a version that this one cannot read (layout none instead of 1); save it again",
        ),
        ({"layout": "2", "seal": True}, "(layout 2 instead of 1); update compatlearn"),
        ({"format": "another-format"}, "is no adapter (another-format); make one with `compatlearn adapt`"),
        ({"direction": "sideways", "seal": True}, "maps sideways vectors, which this version cannot; update compatlearn"),
        ({"drop": "metric", "seal": True}, "is not a whole adapter (KeyError: 'metric')"),
        ({"sizes": "[]", "seal": True}, "is not a whole adapter (AttributeError"),
        ({"sizes": '{"d_new": 12', "seal": True}, "is not a whole adapter (JSONDecodeError"),
        ({"arrays": {"linear.bias": np.full(9, np.nan, np.float32)}, "seal": True}, "has NaN or infinity in linear.bias"),
        ({"arrays": {"linear.bias": np.zeros(9)}}, "for linear.bias, F64 of shape [9]: they do not fit"),
        ({"arrays": {"linear.bias": np.zeros(8, np.float32)}, "seal": True}, "has linear.bias of shape (8,) instead of (9,)"),
        ({"arrays": {"extra": np.zeros(8, np.float32)}, "seal": True}, "has extra of shape (8,) instead of None"),
    ],
)
def test_files_that_are_refused(file: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = rewritten(file, tmp_path / "bad.safetensors", **changes)
    with pytest.raises(runtime.MapError, match=re.escape(message)) as caught:
        runtime.load(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_what_is_no_file_or_no_adapter(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(3)}, tmp_path / "a.pt")
    (tmp_path / "b.safetensors").write_bytes((2**63).to_bytes(8, "little") + b"{" * 100)
    (tmp_path / "c.safetensors").write_bytes((3000).to_bytes(8, "little") + b'{"a":' * 600)
    (tmp_path / "d.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    for name, message in {
        "a.pt": "is no safetensors file",
        "b.safetensors": "is cut short",
        "c.safetensors": "is not a whole adapter",
        "d.safetensors": "is no adapter (its header has no format)",
        "none": "cannot read",
        ".": "cannot read",
    }.items():
        with pytest.raises(runtime.MapError, match=re.escape(message)):
            runtime.load(tmp_path / name)


def test_torch_notices_changes_too_and_takes_earlier_files(file: Path, tmp_path: Path) -> None:
    for changes, message in (
        ({"space_old": "another"}, "was changed after it was written"),
        ({"drop": "digest"}, "was changed after it was written"),
        ({"layout": "2", "seal": True}, "has layout 2, and this version reads 1; update compatlearn"),
    ):
        with pytest.raises(FormatError, match=message):
            load_adapter(rewritten(file, tmp_path / "bad.safetensors", **changes))  # type: ignore[arg-type]
    own, arrays = runtime._parse(file.read_bytes())
    earlier = {name: text for name, text in own.items() if name not in ("layout", "digest")}
    path = tmp_path / "earlier.safetensors"
    path.write_bytes(saved({name: np.array(array) for name, array in arrays.items()}, earlier))
    load_adapter(path).save(path)  # what the message of `runtime` advises
    np.testing.assert_array_equal(runtime.load(path)(np.ones(12)), runtime.load(file)(np.ones(12)))


def test_threads_share_a_map_and_processes_get_a_copy(file: Path) -> None:
    found, queries = runtime.load(file), normal(200, 12)
    expected = np.stack([found(query) for query in queries])
    with ThreadPoolExecutor(8) as pool:
        np.testing.assert_array_equal(np.stack(list(pool.map(found, queries))), expected)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(found))(queries[0]), expected[0])
    with pytest.raises(AttributeError):
        found.metric = "dot"  # type: ignore[misc]
    arrays = found._apply.args[0]  # type: ignore[attr-defined]
    assert not any(array.flags.writeable for array in arrays.values())
    assert found(queries[0]).flags.writeable


def python(*arguments: str, path: str) -> str:
    """Stdout of a fresh interpreter that cannot import torch, SciPy or safetensors."""
    block = "import sys\nfor name in ('torch', 'scipy', 'safetensors', 'sklearn', 'jaxtyping'): sys.modules[name] = None\n"
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", block + arguments[0], *arguments[1:]],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


MAPPED = "import json; print(json.dumps(runtime.load(sys.argv[1])([0.5] * 12).tolist()))"


MEMORY = "import re; print(int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read()).group(1)) // 1024)"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from /proc")
def test_without_torch_in_little_memory(file: Path) -> None:
    own = "print([name for name in sys.modules if name.startswith('compatlearn')])"
    out = python(f"from compatlearn import runtime\n{MAPPED}\n{own}\n{MEMORY}", str(file), path=str(ROOT / "src")).splitlines()
    np.testing.assert_allclose(json.loads(out[0]), load_adapter(file).transform(np.full((1, 12), 0.5))[0], atol=1e-6)
    assert out[1] == "['compatlearn', 'compatlearn.runtime']"
    assert int(out[2]) < 60  # MB


def test_the_wheel_of_its_own(file: Path, tmp_path: Path) -> None:
    pip, folder = [sys.executable, "-m", "pip", "--disable-pip-version-check"], str(tmp_path / "site")
    source = [str(ROOT / "packaging" / "runtime"), "--wheel-dir", str(tmp_path)]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", *source], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name == f"compatlearn_runtime-{compatlearn.__version__}-py3-none-any.whl"
    assert wheel.stat().st_size < 20_000
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", folder, wheel], check=True, capture_output=True)
    installed = Path(folder, "compatlearn_runtime")
    assert {"__init__.py", "py.typed", "LICENSE"} <= {path.name for path in installed.iterdir()}
    assert (installed / "__init__.py").read_bytes() == Path(runtime.__file__).read_bytes()
    code = f"sys.modules['compatlearn'] = None\nimport compatlearn_runtime as runtime\n{MAPPED}"
    out = python(code, str(file), path=folder)
    np.testing.assert_allclose(json.loads(out), load_adapter(file).transform(np.full((1, 12), 0.5))[0], atol=1e-6)
