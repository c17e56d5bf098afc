"""`compatlearn export`."""

from pathlib import Path
from typing import Literal

from ..errors import ConfigError


def export(*, adapter: Path, out: Path, format: Literal["onnx"] = "onnx") -> int:
    """An adapter in a form that other runtimes read.

    onnx: one model of opset 17 for any number of rows, compared with the adapter in onnxruntime before it is written. Every
    method but kernel-ridge can be expressed.

    ```
    compatlearn export --adapter new-to-old.safetensors --format onnx --out new-to-old.onnx
    ```

    Args:
        adapter: the .safetensors file of `compatlearn adapt`.
        out: the file to write; one that is there is replaced if it is called .onnx.
        format: of the file.
    """
    if out.suffix.lower() != ".onnx" or out.is_dir():
        raise ConfigError(f"--out {out} is written as {format}; name a file such as {out.parent / out.stem}.onnx")
    from ..adapters.adapter import load_adapter
    from ..export.onnx import OPSET, export_onnx

    loaded = load_adapter(adapter)
    apart = export_onnx(loaded, out)
    print(f"wrote {out}: {loaded!r}, opset {OPSET}, within {apart:.1g} of the adapter in onnxruntime")
    return 0
