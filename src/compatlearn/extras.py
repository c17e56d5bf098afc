"""Libraries that only some tasks need, loaded when they are used; a missing one is named with the line that installs it."""

import importlib
from typing import Any

from .errors import ConfigError

EXTRAS = {
    "PIL": "images",
    "accelerate": "images",
    "datasets": "images",
    "psutil": "images",
    "timm": "images",
    "torchvision": "images",
    "jinja2": "report",
    "matplotlib": "report",
    "faiss": "faiss",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "pytorch_metric_learning": "metric",
    "ray": "ray",
    "sentence_transformers": "text",
    "transformers": "text",
    "openai": "services",
    "tenacity": "services",
    "starlette": "services",
    "uvicorn": "services",
    "aiohttp": "services",
    "prometheus_client": "services",
    "tensorboard": "tensorboard",
    "psycopg": "pgvector",
    "pgvector": "pgvector",
    "lancedb": "lancedb",
    "lance": "lancedb",
    "qdrant_client": "qdrant",
    "chromadb": "chroma",
}
"""Import name → the extra of this package that brings it."""


def require(name: str) -> Any:
    """The module called `name`, imported.

    Args:
        name: of the module, dotted if it is inside a package: `PIL.Image`.

    Returns:
        The module.

    Raises:
        ConfigError: the library is not installed; the message has the line that installs it.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = missing_extra(error)
        if missing is None:
            raise
        raise missing from error


def missing_extra(error: ModuleNotFoundError) -> ConfigError | None:
    """What to say of a library that is not installed, if it is one of an extra; otherwise None."""
    library = (error.name or "").partition(".")[0]
    if library not in EXTRAS:
        return None
    return ConfigError(f"this needs {library}, which is not installed; pip install 'compatlearn[{EXTRAS[library]}]'")
