"""Where vectors come from: a model in this process, or a service with OpenAI's interface."""

import asyncio
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable
from urllib.parse import urlsplit

import numpy as np
from jaxtyping import Float

from ..encoders.service import KEY, read_vectors
from ..encoders.text_encoder import TOKEN, AnswerError, TextEncoder
from ..errors import CompatlearnError, ConfigError
from ..extras import require
from .refusal import RefusalError

OPENAI = "https://api.openai.com/v1"
IDLE = 4.0  # seconds that a connection is kept for the next request
BAD_ANSWER = "bad_upstream_answer"


@dataclass(frozen=True)
class Embedded:
    """Vectors, and what they cost.

    Attributes:
        vectors: (b, d) float32, finite.
        tokens: that the upstream counted; an estimate where it does not count.
    """

    vectors: Float[np.ndarray, "b d"]
    tokens: int


@runtime_checkable
class Upstream(Protocol):
    """Something that embeds texts."""

    @property
    def space(self) -> str:
        """Name of the space of its vectors; "" is unknown."""
        ...

    async def embed(self, texts: list[str], authorization: str | None) -> Embedded:
        """Embed texts.

        Args:
            texts: at least one.
            authorization: header of the client, for a service that has no key of its own.

        Raises:
            RefusalError: what the client is told.
        """
        ...

    async def close(self) -> None:
        """End its connections and threads."""
        ...


class Model:
    """A model in this process; its own thread runs it, one request after the other.

    Args:
        encoder: the model.
    """

    def __init__(self, encoder: TextEncoder) -> None:
        self.encoder = encoder
        self._threads = ThreadPoolExecutor(encoder.concurrency, thread_name_prefix="model")

    @property
    def space(self) -> str:
        """Name of the space of its vectors."""
        return self.encoder.space

    async def embed(self, texts: list[str], authorization: str | None) -> Embedded:
        """As `Upstream.embed`."""
        try:
            vectors = await asyncio.get_running_loop().run_in_executor(self._threads, self._embed, texts)
        except (CompatlearnError, MemoryError, RuntimeError) as error:
            raise RefusalError(502, f"the model {self.space} failed ({type(error).__name__})", "model_failed") from error
        return Embedded(_checked(vectors, len(texts), self.space), sum(len(text.encode()) for text in texts) // TOKEN + 1)

    async def close(self) -> None:
        """As `Upstream.close`."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _embed(self, texts: list[str]) -> Float[np.ndarray, "b d"]:
        batches: Iterator[int] = iter(range(0, len(texts), self.encoder.batch_size))
        return np.concatenate([self.encoder.encode(texts[start : start + self.encoder.batch_size]) for start in batches])


class Service:
    """A service with OpenAI's interface, asked once per request: clients repeat by themselves.

    Its key is that of the environment (OPENAI_API_KEY); where there is none, the client's own header is passed on.

    Args:
        model: as the service calls it.
        base_url: its address; by default that of OPENAI_BASE_URL, or OpenAI's.
        dimensions: that it is asked for; None is all.
        timeout: seconds to wait for an answer.
        forward: whether the header of a client may be passed on.

    Raises:
        ConfigError: an address that is none, or a library that is not installed.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        dimensions: int | None = None,
        timeout: float = 30.0,
        forward: bool = True,
    ) -> None:
        self._aiohttp = require("aiohttp")
        address = (base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI).rstrip("/")
        if urlsplit(address).scheme not in ("http", "https") or not urlsplit(address).hostname:
            raise ConfigError(f"base_url {address!r} is no address; give one such as http://localhost:8080/v1")
        self.model, self.space = model, f"openai:{model}" + ("" if dimensions is None else f"-{dimensions}d")
        self.key, self.forward = os.environ.get(KEY, ""), forward
        self._wish: dict[str, Any] = {"model": model, "encoding_format": "base64"}
        self._wish |= {} if dimensions is None else {"dimensions": dimensions}
        self._url, self._host = f"{address}/embeddings", urlsplit(address).hostname
        self._timeout = self._aiohttp.ClientTimeout(total=timeout)
        self._session: Any = None  # made by the first request: it belongs to the loop that runs then

    async def embed(self, texts: list[str], authorization: str | None) -> Embedded:
        """As `Upstream.embed`."""
        mine = f"Bearer {self.key}" if self.key else authorization if self.forward else None
        headers = {"content-type": "application/json"} | ({"authorization": mine} if mine else {})
        body = json.dumps(self._wish | {"input": texts}).encode()
        try:
            async with self._client().post(self._url, data=body, headers=headers, allow_redirects=False) as response:
                answer = _Answer(response.status, await response.read(), response.headers.get("retry-after"))
        except TimeoutError as error:
            raise RefusalError(504, f"{self._named()} did not answer in time; try again", "upstream_timeout") from error
        except (self._aiohttp.ClientError, OSError) as error:
            raise RefusalError(
                502, f"{self._named()} cannot be reached ({type(error).__name__})", "upstream_unreachable"
            ) from error
        if answer.status != 200:
            raise self._refusal(answer, mine)
        try:
            content = json.loads(answer.body)
            vectors = read_vectors(content, len(texts))
        except AnswerError as error:
            raise RefusalError(502, f"{self._named()} {error}", BAD_ANSWER) from error
        except (ValueError, RecursionError) as error:
            raise RefusalError(502, f"{self._named()} gave an answer that is not whole JSON", BAD_ANSWER) from error
        usage = content.get("usage")
        counted = usage.get("total_tokens") if isinstance(usage, dict) else None
        return Embedded(_checked(vectors, len(texts), self._named()), counted if isinstance(counted, int) else 0)

    async def close(self) -> None:
        """As `Upstream.close`."""
        if self._session is not None:
            await self._session.close()

    def _client(self) -> Any:
        if self._session is None:
            # how much is open at a time is the proxy's own limit; servers hang up on idle connections after 5 s, some of them
            connector = self._aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE)
            self._session = self._aiohttp.ClientSession(connector=connector, timeout=self._timeout, trust_env=True)
        return self._session

    def _refusal(self, answer: "_Answer", secret: str | None) -> RefusalError:
        """What the service refused with, passed on: its status, its reason without keys, and when to try again."""
        try:
            reason = str(json.loads(answer.body)["error"]["message"])
        except (ValueError, KeyError, TypeError):
            reason = "without a reason that can be read"
        for word in (secret or "").split():
            reason = reason.replace(word, "…")
        status = answer.status if 400 <= answer.status < 600 else 502
        return RefusalError(
            status,
            f"{self._named()} answered {answer.status}: {' '.join(reason.split())[:300]}",
            "upstream_refused",
            retry_after=answer.retry_after,
        )

    def _named(self) -> str:
        return f"{self.model} at {self._host}"


@dataclass(frozen=True)
class _Answer:
    status: int
    body: bytes
    retry_after: str | None


def _checked(vectors: Float[np.ndarray, "b d"], count: int, name: str) -> Float[np.ndarray, "b d"]:
    rows = np.asarray(vectors, dtype=np.float32)
    if rows.ndim != 2 or len(rows) != count:
        raise RefusalError(502, f"{name} gave something else than one vector for each of {count} texts", BAD_ANSWER)
    if not np.isfinite(rows).all():
        raise RefusalError(502, f"{name} gave NaN or infinity", BAD_ANSWER)
    return rows
