"""Requests for embeddings as OpenAI's API has them, read strictly; and answers to them."""

import base64
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from .refusal import RefusalError

DOCUMENT_TYPES = ("document", "passage", "search_document")  # what other services call what must not be mapped
FORMATS = ("float", "base64")


@dataclass(frozen=True)
class Asked:
    """A request that can be answered.

    Attributes:
        model: as the client names it.
        texts: at least one, none of them empty.
        encoding: "float" or "base64".
        dimensions: that the client wants, or None.
        documents: the client says that the texts are documents.
    """

    model: str
    texts: list[str]
    encoding: str
    dimensions: int | None
    documents: bool


def read_request(body: bytes, most_texts: int) -> Asked:
    """A request from its body.

    Args:
        body: JSON.
        most_texts: that one request may have.

    Returns:
        The request.

    Raises:
        RefusalError: 400, saying which field is wrong and how.
    """
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RefusalError(400, "the body is not JSON", "invalid_json") from error
    if not isinstance(content, dict):
        raise _wrong(None, f"the body must be a JSON object, not {_kind(content)}")
    model = content.get("model")
    if not isinstance(model, str):
        raise _wrong("model", f"model must be a text, not {_kind(model)}")
    encoding = content.get("encoding_format") or "float"
    if encoding not in FORMATS:
        raise _wrong("encoding_format", f"encoding_format must be one of {', '.join(FORMATS)}")
    dimensions = content.get("dimensions")
    if dimensions is not None and (not isinstance(dimensions, int) or isinstance(dimensions, bool)):
        raise _wrong("dimensions", f"dimensions must be a whole number, not {_kind(dimensions)}")
    return Asked(
        model, _texts(content.get("input"), most_texts), encoding, dimensions, content.get("input_type") in DOCUMENT_TYPES
    )


def _texts(given: Any, most: int) -> list[str]:
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list):
        raise _wrong("input", f"input must be a text or a list of texts, not {_kind(given)}")
    if not texts:
        raise _wrong("input", "input is an empty list; give at least one text")
    if len(texts) > most:
        raise _wrong("input", f"input has {len(texts):,} texts and at most {most:,} are taken; send less at a time")
    for place, text in enumerate(texts):
        if isinstance(text, int) or (isinstance(text, list) and all(isinstance(one, int) for one in text)):
            raise _wrong(
                "input",
                "input holds token ids, which mean nothing to another model; send texts "
                "(in LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False))",
            )
        if not isinstance(text, str):
            raise _wrong("input", f"input[{place}] must be a text, not {_kind(text)}")
        if not text:
            raise _wrong("input", f"input[{place}] is an empty text; leave it out")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise _wrong("input", f"input[{place}] is no valid Unicode (a lone surrogate); mend it") from error
    return texts


def write_answer(asked: Asked, vectors: Float[np.ndarray, "b d"], tokens: int) -> bytes:
    """The JSON of an answer.

    Args:
        asked: the request.
        vectors: (b, d) one per text.
        tokens: that were counted.
    """
    rows = np.ascontiguousarray(vectors, dtype="<f4")
    coded: list[Any] = [base64.b64encode(row).decode() for row in rows] if asked.encoding == "base64" else rows.tolist()
    data = [{"object": "embedding", "index": place, "embedding": one} for place, one in enumerate(coded)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return json.dumps({"object": "list", "data": data, "model": asked.model, "usage": usage}, separators=(",", ":")).encode()


def _wrong(param: str | None, message: str) -> RefusalError:
    return RefusalError(400, message, "invalid_value", param=param)


def _kind(value: Any) -> str:
    """What JSON calls the type of a value."""
    names = {type(None): "null", bool: "true or false", int: "a number", float: "a number", str: "a text", list: "a list"}
    return names.get(type(value), "an object")
