"""Qdrant's REST interface before a local collection, so that the client's remote half is run against real behaviour."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from pydantic import TypeAdapter
from qdrant_client import QdrantClient, models

Vector, Operation = TypeAdapter(models.VectorNameConfig), TypeAdapter(models.UpdateOperation)


class Service(ThreadingHTTPServer):
    """What it serves, the key that it asks for, and how many of the next requests it drops without an answer."""

    def __init__(self, client: QdrantClient, key: str | None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.client, self.key, self.drops, self.guard = client, key, 0, threading.Lock()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Service

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.server.drops > 0:
            self.server.drops -= 1
            self.close_connection = True
            return
        status, said = 200, {}
        if self.server.key and self.headers.get("api-key") != self.server.key:
            status, said = 401, {"status": {"error": "Must provide an API key"}}
        else:
            try:
                with self.server.guard:
                    path = urlsplit(self.path).path.strip("/").split("/")[1:]
                    said = {"result": result(self.server.client, self.command, path, json.loads(body or b"{}")), "status": "ok"}
            except KeyError as error:
                status, said = 404, {"status": {"error": f"Not found: {error}"}}
            except ValueError as error:
                status, said = 400, {"status": {"error": str(error)}}
        text = json.dumps(said | {"time": 0.0}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

    def log_message(self, *_: Any) -> None: ...


def result(client: QdrantClient, verb: str, path: list[str], body: dict[str, Any]) -> Any:
    """What a request gives; those that compatlearn makes."""
    name, call = path[0] if path else "", "/".join(path[1:])
    where = models.Filter(**body["filter"]) if body.get("filter") else None
    if not path:
        return plain(client.get_collections())
    if call == "exists":
        return {"exists": client.collection_exists(name)}
    if call == "":
        return plain(
            client.get_collection(name) if verb == "GET" else client.update_collection(name, metadata=body["metadata"])
        )
    if path[1] == "vectors":
        if verb == "DELETE":
            return plain(client.delete_vector_name(name, path[2]))
        return plain(client.create_vector_name(name, path[2], Vector.validate_python(body)))
    wanted = {"with_payload": body.get("with_payload"), "with_vectors": body.get("with_vector")}
    if call == "points/scroll":
        points, offset = client.scroll(name, where, limit=body["limit"], offset=body.get("offset"), **wanted)
        return {"points": plain(points), "next_page_offset": offset}
    if call == "points/query/batch":
        requests = [models.QueryRequest(**{**one, "params": None}) for one in body["searches"]]  # which it would warn of
        return plain(client.query_batch_points(name, requests))
    answers = {
        "points": lambda: client.retrieve(name, body["ids"], **wanted),
        "points/count": lambda: client.count(name, where),
        "points/payload": lambda: client.set_payload(name, body["payload"], points=where or body["points"]),
        "points/payload/delete": lambda: client.delete_payload(name, body["keys"], points=where or body["points"]),
        "points/batch": lambda: client.batch_update_points(name, [Operation.validate_python(o) for o in body["operations"]]),
        "points/vectors": lambda: client.update_vectors(
            name, [models.PointVectors(**one) for one in body["points"]], update_filter=models.Filter(**body["update_filter"])
        ),
    }
    return plain(answers[call]())


def plain(answer: Any) -> Any:
    """JSON of models."""
    if isinstance(answer, list):
        return [plain(one) for one in answer]
    return json.loads(answer.model_dump_json()) if hasattr(answer, "model_dump_json") else answer


@contextmanager
def serving(client: QdrantClient, key: str | None = None) -> Iterator[tuple[Service, str]]:
    """The service and its URL, while the block runs."""
    service = Service(client, key)
    thread = threading.Thread(target=service.serve_forever, daemon=True)
    thread.start()
    try:
        yield service, f"http://127.0.0.1:{service.server_port}"
    finally:
        service.shutdown()
        service.server_close()
        thread.join()
