"""The proxy as an ASGI application: OpenAI's embeddings API, models, health and metrics."""

import asyncio
import hmac
import json
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from ..extras import require
from .counts import Counts
from .refusal import RefusalError
from .request import Asked, read_request, write_answer
from .road import Documents, Queries, Reply, Road

log = logging.getLogger("compatlearn.serving")
OTHER = "unknown"  # the model's label of requests that name none of ours: labels must not grow with what clients send


@dataclass(frozen=True)
class Limits:
    """What a request may take.

    Attributes:
        body: most bytes.
        texts: most texts.
        open: most requests being answered; beyond them clients are asked to come again.
        seconds: until an answer must be there.
    """

    body: int = 8 << 20
    texts: int = 2048
    open: int = 1024
    seconds: float = 60.0


@dataclass
class _Visit:
    """What is logged of a request, and counted."""

    began: float = field(default_factory=time.perf_counter)
    model: str = OTHER
    texts: int = 0
    bytes: int = 0
    upstream: float = 0.0
    far: int | None = None


def create_app(roads: Mapping[str, Road], *, limits: Limits = Limits(), key: str = "") -> Any:
    """The proxy.

    Args:
        roads: model name, as clients give it → what answers.
        limits: of a request.
        key: that clients must send; "" asks for none.

    Returns:
        A Starlette application.

    Raises:
        ConfigError: a library is not installed.
    """
    applications, routing = require("starlette.applications"), require("starlette.routing")
    proxy = _Proxy(roads, limits, key)
    routes = [
        routing.Route("/v1/embeddings", proxy.embeddings, methods=["POST"]),
        routing.Route("/v1/models", proxy.models),
        routing.Route("/v1/models/{name:path}", proxy.model),
        routing.Route("/health", proxy.health),
        routing.Route("/metrics", proxy.metrics),
    ]

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        yield
        for upstream in {id(one): one for road in roads.values() for one in _upstreams(road)}.values():
            await upstream.close()

    return applications.Starlette(routes=routes, lifespan=lifespan, exception_handlers={404: proxy.nowhere, 405: proxy.nowhere})


class _Proxy:
    def __init__(self, roads: Mapping[str, Road], limits: Limits, key: str) -> None:
        self.roads, self.limits, self.counts, self.open = dict(roads), limits, Counts(), 0
        self._key = f"Bearer {key}".encode() if key else b""
        self._response = require("starlette.responses").Response
        self._gone = require("starlette.requests").ClientDisconnect

    async def embeddings(self, request: Any) -> Any:
        """POST /v1/embeddings."""
        visit, status = _Visit(), 500
        self.open += 1
        try:
            answer = await self._answer(request, visit)
            status = 200
            return self._response(answer, 200, media_type="application/json")
        except RefusalError as refusal:
            status = refusal.status
            return self._refused(refusal)
        except self._gone:
            status = 499
            return self._response(status_code=400)
        except Exception as error:
            log.exception("a request failed", extra={"facts": {"error": type(error).__name__}})
            return self._refused(RefusalError(500, "the proxy failed; its log says how", "internal_error"))
        finally:
            self.open -= 1
            self._note(visit, status)

    async def _answer(self, request: Any, visit: _Visit) -> bytes:
        if self.open > self.limits.open:
            raise RefusalError(503, f"{self.limits.open} requests are being answered; come again", "busy", retry_after="1")
        self._check_key(request)
        try:
            async with asyncio.timeout(self.limits.seconds):
                body = await self._body(request)
                visit.bytes = len(body)
                asked = read_request(body, self.limits.texts)
                road = self._road(asked)
                visit.model, visit.texts = asked.model, len(asked.texts)
                reply = await self._reply(road, asked, request, visit)
        except TimeoutError as error:
            raise RefusalError(
                504, f"no answer within {self.limits.seconds:g} s; send less, or try again", "timeout"
            ) from error
        visit.far = reply.far
        return write_answer(asked, reply.vectors, reply.tokens)

    async def _reply(self, road: Road, asked: Asked, request: Any, visit: _Visit) -> Reply:
        began = time.perf_counter()
        try:
            return await road.embed(asked.texts, request.headers.get("authorization"))
        finally:
            visit.upstream = time.perf_counter() - began

    async def _body(self, request: Any) -> bytes:
        """The body, if it is no longer than allowed; of a longer one no more is read."""
        limit, parts, size = self.limits.body, [], 0
        too_long = RefusalError(413, f"the body is longer than {limit:,} bytes; send less at a time", "body_too_long")
        length = request.headers.get("content-length", "")
        if length.isdigit() and int(length) > limit:
            raise too_long
        async for part in request.stream():
            size += len(part)
            if size > limit:
                raise too_long
            parts.append(part)
        return b"".join(parts)

    def _road(self, asked: Asked) -> Road:
        road = self.roads.get(asked.model)
        if road is None:
            names = ", ".join(self.roads)
            raise RefusalError(404, f"there is no model of this name here; known: {names}", "model_not_found", param="model")
        if asked.documents and isinstance(road, Queries):
            others = [name for name, one in self.roads.items() if isinstance(one, Documents)]
            hint = f"ask for the model {others[0]}" if others else "embed them with the old model"
            raise RefusalError(
                400,
                f"{asked.model} is for queries: documents are never mapped, or the index would hold two spaces; {hint}",
                "documents_are_not_mapped",
                param="input_type",
            )
        if asked.dimensions not in (None, road.dimension):
            raise RefusalError(
                400,
                f"vectors of {asked.model} have {road.dimension} dimensions; leave dimensions out",
                "invalid_value",
                param="dimensions",
            )
        return road

    def _check_key(self, request: Any) -> None:
        if self._key and not hmac.compare_digest(request.headers.get("authorization", "").encode(), self._key):
            raise RefusalError(401, "the key is missing or wrong", "invalid_api_key")

    async def models(self, request: Any) -> Any:
        """GET /v1/models."""
        return self._listed(request, {"object": "list", "data": [_listed(name, road) for name, road in self.roads.items()]})

    async def model(self, request: Any) -> Any:
        """GET /v1/models/NAME."""
        name = request.path_params["name"]
        if name not in self.roads:
            return self._refused(RefusalError(404, "there is no model of this name here", "model_not_found", param="model"))
        return self._listed(request, _listed(name, self.roads[name]))

    def _listed(self, request: Any, content: dict[str, Any]) -> Any:
        try:
            self._check_key(request)
        except RefusalError as refusal:
            return self._refused(refusal)
        return self._response(json.dumps(content), media_type="application/json")

    async def health(self, request: Any) -> Any:
        """GET /health."""
        content = {"status": "ok", "models": list(self.roads), "open_requests": self.open}
        return self._response(json.dumps(content), media_type="application/json")

    async def metrics(self, request: Any) -> Any:
        """GET /metrics."""
        self.counts.open.set(self.open)
        return self._response(self.counts.page(), headers={"content-type": self.counts.content_type})

    async def nowhere(self, request: Any, error: Any) -> Any:
        """Any other address or method."""
        message = "POST /v1/embeddings, and GET /v1/models, /health and /metrics are all there is"
        return self._refused(RefusalError(error.status_code, message, "not_found"))

    def _refused(self, refusal: RefusalError) -> Any:
        content = json.dumps(refusal.body())
        return self._response(content, refusal.status, refusal.headers(), media_type="application/json")

    def _note(self, visit: _Visit, status: int) -> None:
        seconds, counts = time.perf_counter() - visit.began, self.counts
        counts.requests.labels(visit.model, status).inc()
        if status == 200:
            counts.seconds.labels(visit.model).observe(seconds)
            counts.upstream.labels(visit.model).observe(visit.upstream)
            counts.texts.labels(visit.model).inc(visit.texts)
            counts.far.inc(visit.far or 0)
        facts = {"model": visit.model, "status": status, "texts": visit.texts, "bytes": visit.bytes}
        facts |= {"milliseconds": round(1e3 * seconds, 2), "upstream_milliseconds": round(1e3 * visit.upstream, 2)}
        log.info("request", extra={"facts": facts | ({} if visit.far is None else {"far": visit.far})})


def _listed(name: str, road: Road) -> dict[str, Any]:
    facts = {"dimensions": road.dimension, "space": road.space}
    return {"id": name, "object": "model", "created": 0, "owned_by": "compatlearn", **facts}


def _upstreams(road: Road) -> list[Any]:
    return [one for one in (getattr(road, "new", None), road.old) if one is not None]
