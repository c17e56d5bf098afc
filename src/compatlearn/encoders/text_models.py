"""A model of texts by what it is called: sentence-transformers, a service, or anyone's function."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from ..data.hub import asking_hub
from ..errors import ConfigError, DataError, unknown
from ..extras import require
from .black_box import call
from .networks import load_function, weights_hash
from .service import service_encoder
from .text_encoder import TOKEN, TextEncoder

SERVICE = "openai:"


def load_text_encoder(
    model: str,
    *,
    device: str | None = None,
    prompt_name: str | None = None,
    dimensions: int | None = None,
    base_url: str | None = None,
    price: float | None = None,
    batch_size: int | None = None,
    concurrency: int | None = None,
    requests_per_minute: float | None = None,
    timeout: float | None = None,
) -> TextEncoder:
    """A model to embed texts with.

    Args:
        model: a name or folder of sentence-transformers; `openai:MODEL`, a service with OpenAI's interface; or
            `module:function`, which is called with a list of texts and returns (b, d) vectors.
        device: torch's name for it; by default a GPU if there is one. For sentence-transformers.
        prompt_name: what is put before every text, by its name in the model, such as "query" or "document". For
            sentence-transformers.
        dimensions: how many the vectors are shortened to, by models that are made for it; None is all.
        base_url: address of a service other than OpenAI's, such as "http://localhost:8080/v1".
        price: dollars per million tokens, for the estimate before a service is asked.
        batch_size: most texts at a time; by default 512, and 128 for a service.
        concurrency: requests to a service at a time; by default 4.
        requests_per_minute: most requests to a service; None leaves it to the service to say when it is too much.
        timeout: seconds to wait for an answer of a service; by default 60.

    Returns:
        The encoder; its space is the name and a hash of the weights, or the name alone of a service or function.

    Raises:
        ConfigError: there is no such function, prompt or device, an option is for another kind of model, or a library is
            not installed.
        DataError: there is no such model here, and the hub does not provide it.
    """
    service = {"base_url": base_url, "price": price, "requests_per_minute": requests_per_minute, "timeout": timeout}
    service |= {"concurrency": concurrency}
    local = {"device": device, "prompt_name": prompt_name}
    if model.startswith(SERVICE):
        _refuse(local, model, "a model of sentence-transformers")
        given: dict[str, Any] = {"batch_size": batch_size, **service}
        given = {name: value for name, value in given.items() if value is not None}
        return service_encoder(model.removeprefix(SERVICE), dimensions=dimensions, **given)
    _refuse(service, model, f"a service ({SERVICE}MODEL)")
    if ":" in model and not Path(model).exists():
        _refuse(local | {"dimensions": dimensions}, model, "a model of sentence-transformers")
        function = load_function(model)
        encoder = TextEncoder(lambda texts: call(function, model, texts, "texts"), model)
    else:
        encoder = _sentence_transformer(model, device, prompt_name, dimensions)
    return encoder if batch_size is None else replace(encoder, batch_size=batch_size)


def _refuse(options: dict[str, Any], model: str, what: str) -> None:
    for name, value in options.items():
        if value is not None:
            raise ConfigError(f"{name} is for {what}, not for {model}; leave it out")


def open_sentence_transformer(model: str, *, device: str | None = None, dimensions: int | None = None) -> tuple[Any, str]:
    """A model of sentence-transformers itself, and the name of its space.

    Args:
        model: a name or folder.
        device: torch's name for it; by default a GPU if there is one.
        dimensions: how many the vectors are shortened to; None is all.

    Returns:
        The model; and its name with a hash of its weights, and the dimensions where they are fewer.

    Raises:
        ConfigError: sentence-transformers is not installed.
        DataError: there is no such model here, and the hub does not provide it; or it cannot be loaded.
    """
    transformer = _load(model, device, dimensions)
    shortened = f"-{dimensions}d" if dimensions is not None and dimensions == transformer.get_embedding_dimension() else ""
    name = Path(model).resolve().name if Path(model).is_dir() else model
    return transformer, f"{name}@{weights_hash(transformer)}{shortened}"


def _sentence_transformer(model: str, device: str | None, prompt_name: str | None, dimensions: int | None) -> TextEncoder:
    transformer, space = open_sentence_transformer(model, device=device, dimensions=dimensions)
    if prompt_name is not None and prompt_name not in transformer.prompts:
        raise unknown(f"prompt of {model}", prompt_name, transformer.prompts)

    def forward(texts: list[str]) -> Float[np.ndarray, "b d"]:
        vectors = transformer.encode(texts, prompt_name=prompt_name, show_progress_bar=False, convert_to_numpy=True)
        return np.asarray(vectors, dtype=np.float32)

    def notice(texts: Sequence[str]) -> str:
        reads = transformer.max_seq_length
        long = sum(len(text) > reads * TOKEN for text in texts) if reads else 0
        line = f"{space} reads {reads} tokens: about {long} of {len(texts)} texts are longer, and their ends do not count"
        return line if long else ""

    options = {} if prompt_name is None else {"prompt": transformer.prompts[prompt_name]}
    return TextEncoder(forward, space, options=options, notice=notice)


def _load(model: str, device: str | None, dimensions: int | None) -> Any:
    """A model of sentence-transformers, from a folder, the hub or its cache."""
    sentence_transformers = require("sentence_transformers")
    quiet = require("transformers.utils.logging")
    options = {"device": device, "truncate_dim": dimensions}
    quiet.disable_progress_bar()
    if Path(model).is_dir():
        if not (Path(model) / "modules.json").is_file():
            raise DataError(f"{model} holds no modules.json, so it is no model of sentence-transformers; name its folder")
        try:
            return sentence_transformers.SentenceTransformer(str(model), local_files_only=True, **options)
        except Exception as error:  # a folder that lacks files, or a device that is not there
            reason = " ".join(str(error).split())[:200].rstrip(".")
            raise DataError(f"{model} cannot be loaded by sentence-transformers ({reason}); check the folder") from error
    with asking_hub(f"{model} is no folder here, and the hub did not give it", "check the name and the network"):
        return sentence_transformers.SentenceTransformer(model, **options)
