"""A small service with OpenAI's interface for embeddings that misbehaves on demand, and remembers what it was asked."""

import base64
import hashlib
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

WIDTH = 4


def vector(text: str, width: int = WIDTH) -> np.ndarray:
    """(width,) float32, recognisable from text to text."""
    seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest())
    return np.random.default_rng(seed).normal(size=width).astype(np.float32)


class Service(ThreadingHTTPServer):
    """Answers requests by `script`: one behaviour a request, in the order in which they come, `ok` when it is at its end."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, *script: str, seconds: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.seconds = list(script), seconds
        self.guard = threading.Lock()
        self.batches: list[list[str]] = []  # the texts of every request
        self.answered: Counter[str] = Counter()  # text → whole answers
        self.bodies: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.times: list[float] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class Handler(BaseHTTPRequestHandler):
    server: Service
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        """Nothing on stderr."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        texts, server = body["input"], self.server
        with server.guard:
            behaviour = server.script.pop(0) if server.script else "ok"
            server.batches.append(texts)
            server.bodies.append(body)
            server.keys.add(self.headers["authorization"])
            server.times.append(time.monotonic())
        time.sleep(server.seconds)
        kind, _, argument = behaviour.partition(":")
        if kind == "slow":
            time.sleep(float(argument))
        if kind == "cut":
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        if kind.isdigit():
            message = argument or f"failure {kind}"
            self.reply(
                int(kind),
                json.dumps({"error": {"message": message}}),
                {"retry-after": argument} if argument[:1].isdigit() else {},
            )
            return
        answer = json.dumps(self.answer(texts, kind, body["encoding_format"]))
        self.reply(
            200, "<html>hello</html>" if kind == "html" else answer[: len(answer) // 2] if kind == "truncated" else answer
        )
        if kind == "ok":
            with server.guard:
                server.answered.update(texts)

    def answer(self, texts: list[str], kind: str, encoding: str) -> dict[str, Any]:
        rows: list[Any] = [vector(text, WIDTH + (kind == "wide")) for text in texts]
        if kind == "nan":
            rows[-1][0] = np.nan
        if kind == "ragged":
            rows[-1] = rows[-1][:-1]
        items = [{"object": "embedding", "index": place, "embedding": row.tolist()} for place, row in enumerate(rows)]
        if encoding == "base64" and kind not in ("floats", "ragged"):
            for item, row in zip(items, rows, strict=True):
                item["embedding"] = base64.b64encode(row.tobytes()).decode()
        if kind in ("null", "empty", "words"):
            items[-1]["embedding"] = {"null": None, "empty": [], "words": "no, base64!"}[kind]
        if kind == "index":
            items[0]["index"] = items[-1]["index"]
        if kind == "fewer":
            items.pop()
        if kind == "backwards":
            items.reverse()
        usage = {"prompt_tokens": sum(map(len, texts)), "total_tokens": sum(map(len, texts))}
        return {"object": "list", "data": [] if kind == "nothing" else items, "model": "m", "usage": usage}

    def reply(self, status: int, content: str, headers: dict[str, str] | None = None) -> None:
        data = content.encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", "content-length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def serving(*script: str, seconds: float = 0.0) -> Iterator[Service]:
    """A running service."""
    service = Service(*script, seconds=seconds)
    thread = threading.Thread(target=service.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        service.shutdown()
        service.server_close()
        thread.join()
