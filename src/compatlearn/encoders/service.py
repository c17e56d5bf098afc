"""A service with OpenAI's interface for embeddings: bounded batches, retries, a price; answers checked before they are kept."""

import base64
import binascii
import json
import os
import threading
import time
import weakref
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from jaxtyping import Float

from ..errors import ConfigError, DataError
from ..extras import require
from .text_encoder import TOKEN, AnswerError, TextEncoder

KEY = "OPENAI_API_KEY"
ATTEMPTS = 3  # at an answer that is not JSON: the client repeats only what did not answer
BATCH_CHARACTERS = 100_000  # some 25,000 tokens; OpenAI takes 300,000 in a request


def service_encoder(
    model: str,
    *,
    base_url: str | None = None,
    dimensions: int | None = None,
    price: float | None = None,
    batch_size: int = 128,
    concurrency: int = 4,
    requests_per_minute: float | None = None,
    timeout: float = 60.0,
    retries: int = 5,
) -> TextEncoder:
    """A model behind a service; its key is read from the environment, OPENAI_API_KEY, and from nowhere else.

    Args:
        model: as the service calls it.
        base_url: of a service other than OpenAI's, such as "http://localhost:8080/v1".
        dimensions: how many the service is asked for; None is all.
        price: dollars per million tokens, for the estimate before the work.
        batch_size: most texts in a request.
        concurrency: requests at a time.
        requests_per_minute: most requests; None leaves it to the service to say when it is too much.
        timeout: seconds to wait for an answer.
        retries: after no answer, or an answer of 408, 409, 429 or 5xx: after Retry-After, or 0.5, 1, 2, 4, 8 seconds.

    Returns:
        The encoder; its space is `openai:` and the model.

    Raises:
        ConfigError: there is no key, the address or a number cannot be used, or a library is not installed.
    """
    openai = require("openai")
    require("tenacity")
    if base_url is not None and (urlsplit(base_url).scheme not in ("http", "https") or not urlsplit(base_url).hostname):
        raise ConfigError(f"base_url {base_url!r} is no address; give one such as http://localhost:8080/v1")
    numbers = {"price": price, "requests_per_minute": requests_per_minute, "timeout": timeout}
    for name, value in numbers.items():
        if value is not None and not (value > 0 or (name == "price" and value == 0)):
            raise ConfigError(f"{name} must be above 0; got {value}")
    key = os.environ.get(KEY, "")
    if not key and base_url is None and not os.environ.get("OPENAI_BASE_URL"):
        raise ConfigError(f"openai:{model} needs a key: put it into the environment as {KEY}, or give another base_url")
    client = openai.OpenAI(api_key=key or "none", base_url=base_url, timeout=timeout, max_retries=retries)
    service = _Service(client, model, key, dimensions, requests_per_minute, price)
    weakref.finalize(service, client.close)
    return TextEncoder(
        service.embed,
        f"openai:{model}" + (f"-{dimensions}d" if dimensions is not None else ""),
        batch_size=batch_size,
        batch_characters=BATCH_CHARACTERS,
        concurrency=concurrency,
        notice=service.estimate,
        receipt=service.receipt,
        paid=True,
        cost=None if price is None else service.cost,
        billed=service.billed,
    )


class _Service:
    """A client, how fast it may ask, and what it was billed."""

    def __init__(
        self, client: Any, model: str, key: str, dimensions: int | None, pace: float | None, price: float | None
    ) -> None:
        self.client, self.model, self.key, self.price = client, model, key, price
        self.options = {} if dimensions is None else {"dimensions": dimensions}
        self.pause = 0.0 if pace is None else 60 / pace
        self.guard, self.next, self.tokens, self.counted = threading.Lock(), 0.0, 0, 0

    def estimate(self, texts: Sequence[str]) -> str:
        """What the work will cost, roughly."""
        tokens = sum(len(text.encode()) for text in texts) / TOKEN
        cost = "no price was given" if self.price is None else f"about ${self._cost(tokens)} at ${self.price:g} per million"
        return f"{self.model} at {self._address()}: {len(texts):,} texts, about {tokens:,.0f} tokens, {cost}"

    def receipt(self) -> str:
        """What the service says that it counted since the last receipt."""
        tokens, self.tokens = self.tokens, 0
        cost = "" if self.price is None else f", ${self._cost(float(tokens))} at ${self.price:g} per million"
        return f"{self.model} counted {tokens:,} tokens{cost}" if tokens else ""

    def cost(self, texts: Sequence[str]) -> list[float]:
        """Dollars for each text, roughly."""
        return [len(text.encode()) / TOKEN * (self.price or 0) / 1e6 for text in texts]

    def billed(self) -> float | None:
        """Dollars for all that the service has counted; None where it does not count, or there is no price."""
        return self.counted * self.price / 1e6 if self.counted and self.price is not None else None

    def embed(self, texts: list[str]) -> Float[np.ndarray, "b d"]:
        """One request, repeated where that can help."""
        tenacity = require("tenacity")
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_BrokenError),
            stop=tenacity.stop_after_attempt(ATTEMPTS),
            wait=tenacity.wait_exponential(multiplier=0.25),
            reraise=True,
        )
        try:
            answer = retrying(self._ask, texts)
        except _BrokenError as error:
            raise AnswerError(f"gave an answer that is not whole JSON, {ATTEMPTS} times: {error}") from error
        vectors = _vectors(answer, len(texts))
        asked = self.options.get("dimensions")
        if asked is not None and vectors.shape[1] != asked:
            raise AnswerError(f"was asked for {asked} dimensions and gave {vectors.shape[1]}; ask for none")
        return vectors

    def _ask(self, texts: list[str]) -> Any:
        openai = require("openai")
        self._wait()
        try:
            raw = self.client.embeddings.with_raw_response.create(
                model=self.model, input=texts, encoding_format="base64", **self.options
            )
            answer = json.loads(raw.content)
        except openai.APIStatusError as error:
            raise self._refusal(error, len(texts)) from error
        except openai.APIConnectionError as error:
            place, reason = f"{self.model} at {self._address()}", self._hidden(error.__cause__ or error)
            raise DataError(f"{place} does not answer ({reason}); check the address and the network") from error
        except (ValueError, RecursionError) as error:
            raise _BrokenError(self._hidden(error)) from error
        usage = answer.get("usage") if isinstance(answer, dict) else None
        counted = usage.get("total_tokens") if isinstance(usage, dict) else None
        with self.guard:
            new = counted if isinstance(counted, int) else 0
            self.tokens, self.counted = self.tokens + new, self.counted + new
        return answer

    def _refusal(self, error: Any, count: int) -> DataError:
        """The line about an answer of 4xx or 5xx that stays."""
        status, after = error.status_code, error.response.headers.get("retry-after")
        body = error.body if isinstance(error.body, dict) else {}
        reason = self._hidden(body.get("message") or error.message)
        if status in (401, 403):
            return DataError(f"{self.model} at {self._address()} refuses the key ({status}: {reason}); check {KEY}")
        if status == 429:
            wait = f", asks to wait {after} seconds" if after else ""
            return DataError(f"{self.model} answers that it is too much (429: {reason}{wait}); wait, or ask less at a time")
        if status < 500:
            return AnswerError(f"refused {count} texts ({status}: {reason}); mend or drop them")
        return DataError(f"{self.model} at {self._address()} failed ({status}: {reason}); try again later")

    def _wait(self) -> None:
        """Keep the pace: each request gets a moment of its own."""
        if not self.pause:
            return
        with self.guard:
            moment = max(self.next, time.monotonic())
            self.next = moment + self.pause
        time.sleep(max(0.0, moment - time.monotonic()))

    def _address(self) -> str:
        parts = urlsplit(str(self.client.base_url))
        port = f":{parts.port}" if parts.port else ""
        return f"{parts.scheme}://{parts.hostname}{port}{parts.path}".rstrip("/")

    def _hidden(self, reason: object) -> str:
        """A short reason in one line, without the key: some services repeat it."""
        line = " ".join(str(reason).split()) or type(reason).__name__
        line = line.replace(self.key, "…") if self.key else line
        return line[:300].rstrip(".")

    def _cost(self, tokens: float) -> str:
        cost = tokens * (self.price or 0) / 1e6
        return f"{cost:,.2f}" if cost >= 1 else f"{cost:.2g}"


class _BrokenError(Exception):
    """An answer of 200 that is not JSON."""


def _vectors(answer: Any, count: int) -> Float[np.ndarray, "b d"]:
    """(count, d) float32 of an answer, in the order of the texts.

    Raises:
        AnswerError: not one vector for each text, or not of one dimension.
    """
    items = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise AnswerError("gave an answer without a list 'data' of embeddings; is this the address of an embedding service?")
    if len(items) != count:
        raise AnswerError(f"gave {len(items)} vectors for {count} texts")
    order = [item.get("index", place) for place, item in enumerate(items)]
    if sorted(order, key=str) != sorted(range(count), key=str):
        raise AnswerError("gave vectors whose 'index' does not number the texts")
    rows = [_vector(items[order.index(place)].get("embedding"), place) for place in range(count)]
    widths = [len(row) for row in rows]
    if odd := [place for place, width in enumerate(widths) if width != widths[0]]:
        raise AnswerError(f"gave vectors of {widths[0]} and of {widths[odd[0]]} dimensions in one answer", odd)
    return np.stack(rows)


def _vector(value: Any, place: int) -> Float[np.ndarray, " d"]:
    """(d,) float32 from base64 or a list of numbers."""
    try:
        if isinstance(value, str):
            row = np.frombuffer(base64.b64decode(value, validate=True), dtype="<f4")
        else:
            row = np.array(value, dtype=np.float32) if isinstance(value, list) else np.empty(0, np.float32)
    except (binascii.Error, ValueError, TypeError) as error:
        raise AnswerError(f"gave something else than numbers ({type(value).__name__})", [place]) from error
    if row.ndim != 1 or not len(row):
        raise AnswerError("gave an empty vector", [place])
    return row
