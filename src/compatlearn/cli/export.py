"""`compatlearn export`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import ConfigError, IncompatibleError
from .live import adapter_of, plan_of
from .out import Inputs, check_out_folder
from .output import tell

if TYPE_CHECKING:
    from ..adapters.adapter import Adapter

ONNX, FOLDER = "onnx", "sentence-transformers"


def export(
    *,
    adapter: Path,
    out: Path,
    format: Literal["onnx", "sentence-transformers"] = "onnx",
    new_model: str | None = None,
    old_model: str | None = None,
    plan: Path | None = None,
) -> int:
    """An adapter in a form that other runtimes read.

    onnx: one model of opset 17 for any number of rows, compared with the adapter in onnxruntime before it is written. Every
    method but kernel-ridge can be expressed.

    sentence-transformers: a folder that `SentenceTransformer(folder)` loads without trusting any code. `encode_query` is the
    new model, mapped into the old space; with --old-model, `encode_document` is the old model. Every method but
    kernel-ridge can be expressed. The folder is loaded and compared before it gets its name, and holds a model card.

    ```
    compatlearn export --adapter new-to-old.safetensors --format onnx --out new-to-old.onnx
    compatlearn export --adapter new-to-old.safetensors --format sentence-transformers --new-model me/new --out new-as-old
    ```

    Args:
        adapter: the .safetensors file of `compatlearn adapt` or of a plan.
        out: the file or folder to write; one that is there is replaced if it is called .onnx, or is an earlier export.
        format: of the file.
        new_model: for sentence-transformers: name or folder of the model that the adapter takes vectors of.
        old_model: for sentence-transformers: name or folder of the model whose vectors the index holds.
        plan: for sentence-transformers: folder of the plan that the adapter is from; its figures go on the card.
    """
    if format == ONNX:
        for flag, given in (("--new-model", new_model), ("--old-model", old_model), ("--plan", plan)):
            if given is not None:
                raise ConfigError(f"{flag} is for --format {FOLDER}; leave it out, or give that format")
        return _onnx(adapter, out)
    if new_model is None:
        raise ConfigError(f"--format {FOLDER} needs --new-model: the model that embeds the queries")
    inputs: Inputs = {"--adapter": adapter, "--new-model": new_model, "--old-model": old_model, "--plan": plan}
    check_out_folder(out, inputs, "export")
    return _folder(adapter, out, new_model, old_model, plan)


def _onnx(adapter: Path, out: Path) -> int:
    if out.suffix.lower() != ".onnx" or out.is_dir():
        raise ConfigError(f"--out {out} is written as onnx; name a file such as {out.parent / out.stem}.onnx")
    from ..adapters.adapter import load_adapter
    from ..export.onnx import OPSET, export_onnx

    loaded = load_adapter(adapter)
    apart = export_onnx(loaded, out)
    print(f"wrote {out}: {loaded!r}, opset {OPSET}, within {apart:.1g} of the adapter in onnxruntime")
    return 0


def _folder(adapter: Path, out: Path, new_model: str, old_model: str | None, plan: Path | None) -> int:
    from ..adapters.adapter import load_adapter
    from ..export.sentence_transformer import export_sentence_transformer

    loaded = load_adapter(adapter)
    for flag, space in (("--new-model", loaded.space_new), ("--old-model", loaded.space_old)):
        if not space and (flag, old_model) != ("--old-model", None):
            tell(f"{adapter} does not say of which model its vectors were; {flag} is taken to be it")
    content = None if plan is None else _content(plan, loaded, adapter)
    apart = export_sentence_transformer(loaded, out, new_model, old_model=old_model, plan=content)
    documents = "without documents" if old_model is None else f"documents by {old_model}"
    print(f"wrote {out}: queries by {new_model} through {loaded!r}, {documents}, within {apart:.1g} of the adapter when loaded")
    return 0


def _content(plan: Path, loaded: "Adapter", adapter: Path) -> dict[str, Any]:
    """What the plan says, if the adapter is its own; and what data it was made from."""
    from ..files import read_json
    from ..upgrade.files import FILES

    content = plan_of(plan)
    if not (plan / FILES["query"]).exists() or adapter_of(plan, "query").record_ != loaded.record_:
        raise IncompatibleError(f"--adapter {adapter} is not the map of --plan {plan}; give {plan / FILES['query']}")
    request = plan / "request.json"
    said = read_json(request) if request.exists() else {}
    return content | {"data": {name: said.get(name) for name in ("items", "queries")}}
