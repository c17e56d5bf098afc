"""An adapter as an ONNX model: one input of any number of rows, one output, and where it comes from in its properties."""

import json
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ..adapters.adapter import Adapter
from ..adapters.network import MapNetwork
from ..errors import ConfigError, TrainingError
from ..extras import require
from ..files import write_atomically

OPSET = 17
INPUT, OUTPUT = "vectors", "mapped"
TRIED = 64  # random rows that the model is compared on
NEAR = 1e-4  # how far it may be from the adapter, in lengths of what the adapter gives
SHORTEST = 1e-30  # a length to divide by, where there is none


def export_onnx(adapter: Adapter, path: str | Path) -> float:
    """Write an adapter as an ONNX model of opset 17, after comparing it with the adapter in onnxruntime; atomic.

    The model has one input, `vectors` (rows, d_in) float32, and one output, `mapped` (rows, d_out) float32, for any number of
    rows. Where the adapter scales what it is given to unit length, so does the model. Its metadata properties hold the
    fields of the adapter's record as text, those that are no text as JSON.

    Args:
        adapter: a fitted adapter; of any method but kernel-ridge.
        path: the .onnx file.

    Returns:
        The largest difference from the adapter, in lengths of what it gives.

    Raises:
        ConfigError: a kernel map, which cannot be expressed; or onnx or onnxruntime is not installed.
        DataError: the disk is full, or the path cannot be written.
        TrainingError: onnxruntime gives something else than the adapter.

    Example:
        >>> import numpy as np, tempfile
        >>> new = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
        >>> adapter = Adapter("ridge").fit(new, 2 * new[:, :3] + 1)
        >>> export_onnx(adapter, tempfile.mkdtemp() + "/map.onnx") < 1e-5
        True
    """
    require("onnx")
    runtime = require("onnxruntime")
    data = _model(adapter).SerializeToString()
    session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
    rows = np.random.default_rng(0).normal(size=(TRIED, adapter.n_features_in_)).astype(np.float32)
    expected = np.asarray(adapter.transform(rows))
    difference = np.abs(session.run([OUTPUT], {INPUT: rows})[0] - expected).max()
    apart = float(difference / max(float(np.linalg.norm(expected, axis=1).max()), SHORTEST))
    if not apart < NEAR:
        raise TrainingError(f"onnxruntime {runtime.__version__} is {apart:.2g} off the adapter; report it, with the adapter")
    write_atomically(Path(path), lambda temporary: _write(temporary, data))
    return apart


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _model(adapter: Adapter) -> Any:
    """The checked ModelProto."""
    onnx = require("onnx")
    network = adapter.network_
    if not isinstance(network, MapNetwork):
        raise ConfigError(
            f"a {adapter.method_} map holds its pairs and cannot be written as ONNX; "
            "use compatlearn.runtime, or fit another method, such as distilled or ridge"
        )
    graph = _Graph()
    arrays = {name: tensor.cpu().numpy() for name, tensor in network.state_dict().items()}
    graph.add("Identity", _mapped(graph, arrays, network, adapter.record_.unit_inputs), output=OUTPUT)
    sides = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["rows", width])
        for name, width in ((INPUT, network.sizes["d_new"]), (OUTPUT, network.sizes["d_old"]))
    ]
    made = onnx.helper.make_graph(graph.nodes, "adapter", sides[:1], sides[1:], graph.constants)
    opset = [onnx.helper.make_opsetid("", OPSET)]
    model = onnx.helper.make_model(
        made, opset_imports=opset, ir_version=8, producer_name="compatlearn", producer_version=version("compatlearn")
    )
    onnx.helper.set_model_props(model, _properties(adapter))
    onnx.checker.check_model(model, full_check=True)
    return model


def _properties(adapter: Adapter) -> dict[str, str]:
    record = asdict(adapter.record_) | {"space_new": adapter.space_new, "space_old": adapter.space_old}
    return {name: value if isinstance(value, str) else json.dumps(value, default=str) for name, value in record.items()}


def _mapped(graph: "_Graph", arrays: dict[str, np.ndarray], network: MapNetwork, unit_inputs: bool) -> str:
    """The nodes of `MapNetwork.forward`; the name of what they give."""
    rows = _unit(graph, INPUT) if unit_inputs else INPUT
    x = graph.add("Div", graph.add("Sub", rows, graph.constant(arrays["centre"])), graph.constant(arrays["spread"]))
    y = _layer(graph, arrays, "linear", x)
    if network.branch is not None:
        y = graph.add("Add", y, _perceptron(graph, arrays, "branch", x))
    for number in range(len(network.blocks)):
        y = graph.add("Add", y, _perceptron(graph, arrays, f"blocks.{number}", y))
    return _unit(graph, y) if network.unit else graph.add("Mul", y, graph.constant(arrays["length"]))


def _perceptron(graph: "_Graph", arrays: dict[str, np.ndarray], name: str, x: str) -> str:
    """V gelu(U x): the activation x/2 · (1 + erf(x/√2)) by itself, for opsets before 20 have no Gelu."""
    inner = _layer(graph, arrays, f"{name}.0", x)
    error = graph.add("Erf", graph.add("Mul", inner, graph.constant(0.5**0.5)))
    half = graph.add("Mul", inner, graph.constant(0.5))
    return _layer(graph, arrays, f"{name}.2", graph.add("Mul", half, graph.add("Add", error, graph.constant(1.0))))


def _layer(graph: "_Graph", arrays: dict[str, np.ndarray], name: str, x: str) -> str:
    weight, bias = (graph.constant(arrays[f"{name}.{part}"]) for part in ("weight", "bias"))
    return graph.add("Gemm", x, weight, bias, transB=1)


def _unit(graph: "_Graph", rows: str) -> str:
    """Rows of unit length; the largest number is divided out first, whose square might be lost."""
    largest = graph.add("ReduceMax", graph.add("Abs", rows), axes=[1], keepdims=1)
    rows = graph.add("Div", rows, graph.add("Max", largest, graph.constant(SHORTEST)))
    length = graph.add("ReduceL2", rows, axes=[1], keepdims=1)
    return graph.add("Div", rows, graph.add("Max", length, graph.constant(SHORTEST)))


class _Graph:
    """Nodes and constants as they are added, each under a name of its own."""

    def __init__(self) -> None:
        self.onnx = require("onnx")
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def constant(self, value: np.ndarray | float) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(self.onnx.numpy_helper.from_array(np.asarray(value, dtype=np.float32), name))
        return name
