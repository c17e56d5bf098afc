"""A model of sentence-transformers with queries in the old space: the new model, and the map behind it in stock modules."""

import json
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..adapters.adapter import Adapter
from ..encoders.text_models import open_sentence_transformer
from ..errors import ConfigError, IncompatibleError, TrainingError
from ..extras import require
from ..files import flush_folder, write_json, write_text, writing
from .card import CARD, Sides, model_card
from .folded import dense, folded, modules

MARK = "compatlearn.json"  # says that a folder is ours, and which of its files are
NEAR = 1e-5  # how far the reloaded model may be off, in lengths of what it gives
SHORTEST = 1e-30  # a length to divide by, where there is none
TRIED = ("Where is my card?", "how do I bake bread", "The train to Łódź leaves at 7:15.", "日本語 😀")
DOCUMENT = ("document", "passage", "corpus")  # names of prompts that are put before what is stored


def export_sentence_transformer(
    adapter: Adapter,
    path: str | Path,
    new_model: str,
    *,
    old_model: str | None = None,
    plan: Mapping[str, Any] | None = None,
) -> float:
    """Write a folder that `SentenceTransformer(path)` loads without trusting any code: queries come out in the old space.

    The modules are those of the new model, and behind them the map: a `Dense`, two where it has hidden units, and a
    `Normalize` where the map is given or gives unit lengths. With an old model, a `Router` stands before both:
    `encode_query` is the new model mapped, `encode_document` and `encode` are the old model. The folder is loaded again and
    compared before it gets its name; its README.md is a model card.

    Args:
        adapter: a fitted adapter of direction "query", of any method but kernel-ridge.
        path: the folder: a new one, an empty one, or one that this function wrote and nobody has added to.
        new_model: name or folder of the model of sentence-transformers that the adapter takes vectors of.
        old_model: likewise of the model whose vectors the index holds; None leaves documents out.
        plan: what `Plan.to_dict` gives, for the figures on the card.

    Returns:
        The largest difference of the loaded folder from the adapter and the models, in lengths of the vectors.

    Raises:
        ConfigError: a map that stock modules cannot express, or of the gallery; a model of another kind; a folder that
            holds something else; or sentence-transformers is not installed.
        DataError: there is no such model, or the folder cannot be written.
        IncompatibleError: a model that is not the one the adapter was fitted to.
        TrainingError: the folder cannot be loaded, or gives something else.
    """
    path = Path(path)
    _check_place(path)
    mapping = folded(adapter)
    new = _side(new_model, adapter.space_new, adapter.d_new, "new")
    old = None if old_model is None else _side(old_model, adapter.space_old, adapter.d_old, "old")
    model = _assembled(adapter, new, old, mapping)
    sides = Sides(new.space, adapter.space_old if old is None else old.space, new.prompts, None if old is None else old.prompts)
    known = bool(adapter.space_new and adapter.space_old)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with writing(path):
            temporary.mkdir(parents=True)
            model.save(str(temporary), create_model_card=False)
        apart = _compared(temporary, adapter, new, old)
        write_text(temporary / CARD, model_card(adapter, sides, path.name, plan, certain=known))
        _sign(temporary, adapter, sides)
        with writing(path):
            _put(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return apart


@dataclass(frozen=True)
class _Side:
    """A model of sentence-transformers, loaded.

    Attributes:
        transformer: the model.
        space: of its vectors.
        width: of its vectors before they are shortened.
        dimension: of its vectors.
    """

    transformer: Any
    space: str
    width: int
    dimension: int

    @property
    def prompts(self) -> dict[str, str]:
        return dict(self.transformer.prompts)

    def modules(self) -> list[Any]:
        """Its modules, and one that shortens where it does."""
        cut = []
        if self.dimension < self.width:
            cut = [dense(torch.eye(self.dimension, self.width), None)]
        return [*self.transformer.children(), *cut]

    def asked(self, texts: list[str]) -> np.ndarray:
        return np.asarray(self.transformer.encode_query(texts, show_progress_bar=False), dtype=np.float32)

    def stored(self, texts: list[str]) -> np.ndarray:
        return np.asarray(self.transformer.encode_document(texts, show_progress_bar=False), dtype=np.float32)


def _side(model: str, wanted: str, dimension: int, age: str) -> _Side:
    """The model, if it is the one whose space is wanted; a space of shortened vectors names how many dimensions they have."""
    if ":" in model and not Path(model).exists():
        raise ConfigError(
            f"{model} is no model of sentence-transformers, and only those can be exported; "
            "use compatlearn.runtime behind it, or an ONNX model"
        )
    shortened = re.search(r"@.*-(\d+)d$", wanted)
    dimensions = int(shortened[1]) if shortened else None
    transformer, space = open_sentence_transformer(model, device="cpu", dimensions=dimensions)
    if wanted and space.rpartition("@")[2] != wanted.rpartition("@")[2]:  # a folder may have been renamed, weights not
        raise IncompatibleError(
            f"the {age} model is {space}, and the adapter was fitted to {wanted}; name that model, or fit another adapter"
        )
    width = int(transformer.get_embedding_dimension())
    if width != dimension:
        raise IncompatibleError(
            f"the {age} model {space} gives {width} dimensions, and the adapter has {dimension}; name another"
        )
    transformer.truncate_dim = None
    whole = int(transformer.get_embedding_dimension())
    transformer.truncate_dim = dimensions
    return _Side(transformer, space, whole, width)


def _assembled(adapter: Adapter, new: _Side, old: _Side | None, mapping: list[Any]) -> Any:
    """The new model and the map; with an old model, a road for queries and one for documents."""
    query = [*new.modules(), *mapping]
    prompts, default = new.prompts, new.transformer.default_prompt_name
    if old is not None:
        query = [modules().Router.for_query_document(query_modules=query, document_modules=old.modules())]
        prompts, default = _both_prompts(new.prompts, old)
    return (
        require("sentence_transformers")
        .SentenceTransformer(
            modules=query, prompts=prompts, default_prompt_name=default, similarity_fn_name=adapter.metric, device="cpu"
        )
        .eval()
    )


def _both_prompts(new: dict[str, str], old: _Side) -> tuple[dict[str, str], str | None]:
    """Prompts of documents are the old model's, all others the new one's; and the name of the one that `encode` takes."""
    prompts = old.prompts | new | {name: text for name, text in old.prompts.items() if name in DOCUMENT}
    for name in set(DOCUMENT) - set(old.prompts):
        prompts.pop(name, None)
    default = old.transformer.default_prompt_name  # a text without a task goes to the old model
    if default is not None and prompts[default] != old.prompts[default]:
        prompts["old_default"], default = old.prompts[default], "old_default"
    return prompts, default


def _compared(folder: Path, adapter: Adapter, new: _Side, old: _Side | None) -> float:
    """How far what is loaded from the folder is from what it should give."""
    texts = list(TRIED)
    try:
        loaded, _ = open_sentence_transformer(str(folder), device="cpu")
        pairs = [(loaded.encode_query(texts, show_progress_bar=False), adapter.transform(new.asked(texts)))]
        if old is not None:
            pairs.append((loaded.encode_document(texts, show_progress_bar=False), old.stored(texts)))
    except Exception as error:  # a model of anyone's modules
        reason = " ".join(str(error).replace(str(folder), "it").split())[:200].rstrip(".")
        raise TrainingError(
            f"sentence-transformers cannot use what was written ({reason}); write it as ONNX instead"
        ) from error
    apart = max(float(np.abs(given - wanted).max()) / max(_longest(wanted), SHORTEST) for given, wanted in pairs)
    if not apart < NEAR:
        raise TrainingError(f"the loaded folder is {apart:.2g} off the adapter; write it as ONNX instead, and report it")
    return apart


def _longest(rows: np.ndarray) -> float:
    return float(np.linalg.norm(rows, axis=1).max())


def _check_place(path: Path) -> None:
    """Refuse a folder that holds anything which an earlier export did not write."""
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise ConfigError(f"{path} is no folder of its own, and one is written; name a new folder")
    if not path.is_dir():
        return
    ours: set[str] = set()
    with suppress(OSError, ValueError, KeyError, TypeError):
        ours = {MARK, *json.loads((path / MARK).read_text(encoding="utf-8"))["files"]}
    if foreign := sorted(set(_files(path)) - ours):
        raise ConfigError(f"{path} holds files that an export did not write (first: {foreign[0]}); name a new or empty folder")


def _files(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if not file.is_dir())


def _sign(folder: Path, adapter: Adapter, sides: Sides) -> None:
    """Leave beside the model what it was made of, and which files were written."""
    record = asdict(adapter.record_) | {"space_new": sides.new, "space_old": sides.old}
    write_json(folder / MARK, {"format": "compatlearn-sentence-transformer", **record, "files": _files(folder)})


def _put(temporary: Path, path: Path) -> None:
    """Give the folder its name; an earlier one stands aside until that is done."""
    for name in _files(temporary):
        with (temporary / name).open("r+b") as file:
            os.fsync(file.fileno())
    aside = path.with_name(f".{path.name}.{os.getpid()}.old")
    there = path.exists()
    if there:
        path.rename(aside)
    try:
        temporary.rename(path)
    except OSError:
        if there:
            aside.rename(path)
        raise
    flush_folder(path.parent)
    shutil.rmtree(aside, ignore_errors=True)
