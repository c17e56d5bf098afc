"""The proxy in front of a model or a service: real clients, a real server, and an upstream that misbehaves."""

import asyncio
import base64
import http.client
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import uvicorn

import compatlearn as cl
from compatlearn import runtime
from compatlearn.encoders.text_encoder import TextEncoder
from compatlearn.errors import ConfigError, IncompatibleError
from compatlearn.evaluation.profile import Profile
from compatlearn.serving.app import Limits, create_app
from compatlearn.serving.road import Documents, Queries
from compatlearn.serving.run import JsonLines
from compatlearn.serving.upstream import Model, Service
from embedding_server import Service as Upstream
from embedding_server import serving, vector

D_NEW, D_OLD = 4, 3
TURN = np.random.default_rng(1).normal(size=(D_NEW, D_OLD)).astype(np.float32)


def old_vector(text: str) -> np.ndarray:
    """What the old model makes of a text: the new vector, turned."""
    return vector(text) @ TURN


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    new = np.random.default_rng(0).normal(size=(200, D_NEW)).astype(np.float32)
    adapter = cl.Adapter("ridge").fit(new, new @ TURN)
    adapter.space_new, adapter.space_old = "openai:m", "old@1"
    path = tmp_path_factory.mktemp("map") / "map.safetensors"
    adapter.save(path)
    return path


def old_model() -> Model:
    return Model(TextEncoder(lambda texts: np.stack([old_vector(text) for text in texts]), "old@1"))


@contextmanager
def running(app: Any) -> Iterator[str]:
    """The address of an app that is being served."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


@contextmanager
def proxy(mapped: Path, upstream: Upstream, *, key: str = "", limits: Limits = Limits(), **road: Any) -> Iterator[str]:  # noqa: B008
    new = Service("m", base_url=upstream.url, timeout=limits.seconds, forward=not key)
    roads: dict[str, Any] = {"query": Queries(new, runtime.load(mapped), **road)}
    roads["document"] = Documents(old_model(), D_OLD, "old@1")
    with running(create_app(roads, limits=limits, key=key)) as address:
        yield address


def client_of(address: str, key: str = "client-key") -> openai.OpenAI:
    return openai.OpenAI(api_key=key, base_url=f"{address}/v1", max_retries=0)


def post(address: str, content: Any, **headers: str) -> httpx.Response:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    return httpx.post(f"{address}/v1/embeddings", content=data, headers=headers, timeout=20)


def test_an_unchanged_client_gets_queries_in_the_old_space(mapped: Path) -> None:
    texts = ["a card", "a loan", "überweisung ✓"]
    with serving() as upstream, proxy(mapped, upstream) as address, client_of(address) as client:
        for encoding in ("float", "base64", None):
            options = {} if encoding is None else {"encoding_format": encoding}
            answer = client.embeddings.create(model="query", input=texts, dimensions=D_OLD, **options)
            assert answer.model == "query"
            assert answer.usage.total_tokens == sum(map(len, texts))
            assert [item.index for item in answer.data] == [0, 1, 2]
            rows = [
                np.frombuffer(base64.b64decode(item.embedding), "<f4") if isinstance(item.embedding, str) else item.embedding
                for item in answer.data
            ]
            np.testing.assert_allclose(rows, [old_vector(text) for text in texts], atol=1e-3)
        one = client.embeddings.create(model="query", input="a card")
        np.testing.assert_allclose(one.data[0].embedding, old_vector("a card"), atol=1e-3)
        assert {body["model"] for body in upstream.bodies} == {"m"}
        assert upstream.keys == {"Bearer client-key"}  # the service has no key of its own: the client's is passed on


def test_documents_are_never_mapped(mapped: Path) -> None:
    with serving() as upstream, proxy(mapped, upstream) as address, client_of(address) as client:
        answer = client.embeddings.create(model="document", input=["a card"])
        np.testing.assert_allclose(answer.data[0].embedding, old_vector("a card"), atol=1e-6)
        assert upstream.batches == []
        with pytest.raises(openai.BadRequestError, match=r"documents are never mapped.*ask for the model document"):
            client.embeddings.create(model="query", input=["a card"], extra_body={"input_type": "passage"})


def test_fused_queries_ask_both_models(mapped: Path) -> None:
    with serving() as upstream, proxy(mapped, upstream, old=old_model(), weight=0.5) as address:
        answer = post(address, {"model": "query", "input": ["a", "b"]}).json()
    loaded = runtime.load(mapped)
    new = np.stack([vector("a"), vector("b")])
    expected = (np.stack([old_vector("a"), old_vector("b")]) + 0.5 * loaded(new)) / 1.5
    np.testing.assert_allclose([item["embedding"] for item in answer["data"]], expected, atol=1e-5)


def test_langchain_and_llama_index(mapped: Path) -> None:
    from langchain_openai import OpenAIEmbeddings
    from llama_index.embeddings.openai import OpenAIEmbedding

    with serving() as upstream, proxy(mapped, upstream) as address:
        given = {"model": "query", "api_key": "k", "base_url": f"{address}/v1", "max_retries": 0}
        chain = OpenAIEmbeddings(check_embedding_ctx_length=False, **given)
        np.testing.assert_allclose(chain.embed_query("a card"), old_vector("a card"), atol=1e-3)
        index = OpenAIEmbedding(model_name="query", api_key="k", api_base=f"{address}/v1", max_retries=0)
        np.testing.assert_allclose(index.get_query_embedding("a card"), old_vector("a card"), atol=1e-3)
        rows = index.get_text_embedding_batch(["a", "b"])
        np.testing.assert_allclose(rows, [old_vector("a"), old_vector("b")], atol=1e-3)


@pytest.mark.parametrize(
    ("content", "status", "says"),
    [
        (b"{", 400, "not JSON"),
        (b"[" * 100_000, 400, "not JSON"),
        (b"\xff\xfe", 400, "not JSON"),
        ([], 400, "must be a JSON object, not a list"),
        ({"input": "a"}, 400, "model must be a text, not null"),
        ({"model": 3, "input": "a"}, 400, "model must be a text, not a number"),
        ({"model": "ada", "input": "a"}, 404, "known: query, document"),
        ({"model": "query"}, 400, "input must be a text or a list of texts, not null"),
        ({"model": "query", "input": {}}, 400, "not an object"),
        ({"model": "query", "input": []}, 400, "empty list"),
        ({"model": "query", "input": ""}, 400, "empty text"),
        ({"model": "query", "input": ["a", ""]}, 400, r"input\[1\] is an empty text"),
        ({"model": "query", "input": ["a", None]}, 400, r"input\[1\] must be a text, not null"),
        ({"model": "query", "input": [[1, 2], [3]]}, 400, "check_embedding_ctx_length=False"),
        ({"model": "query", "input": [1, 2]}, 400, "check_embedding_ctx_length=False"),
        (b'{"model": "query", "input": "\\ud800"}', 400, "lone surrogate"),
        ({"model": "query", "input": "a", "dimensions": 4}, 400, "have 3 dimensions; leave dimensions out"),
        ({"model": "query", "input": "a", "dimensions": "3"}, 400, "dimensions must be a whole number, not a text"),
        ({"model": "query", "input": "a", "encoding_format": "int8"}, 400, "one of float, base64"),
        ({"model": "query", "input": ["a"] * 100_000}, 400, "100,000 texts and at most 2,048"),
    ],
)
def test_wrong_requests(served: str, content: Any, status: int, says: str) -> None:
    answer = post(served, content)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert re.search(says, error["message"]), error
    assert post(served, {"model": "query", "input": "a"}).status_code == 200  # it is still there


@pytest.fixture(scope="module")
def served(mapped: Path) -> Iterator[str]:
    with serving() as upstream, proxy(mapped, upstream) as address:
        yield address


def test_a_hundred_megabytes_are_refused_before_they_are_read(served: str) -> None:
    host = served.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=10)
    connection.putrequest("POST", "/v1/embeddings")
    connection.putheader("content-length", str(100 << 20))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()

    def endless() -> Iterator[bytes]:  # no length is given: it ends where the limit is reached
        yield from (b" " * (1 << 20) for _ in range(100))

    try:
        status = httpx.post(f"{served}/v1/embeddings", content=endless(), timeout=10).status_code
    except httpx.WriteError:  # the server has hung up, as it should
        status = 413
    assert status == 413
    assert post(served, {"model": "query", "input": "a"}).status_code == 200


def test_addresses_that_are_not_there(served: str) -> None:
    assert httpx.get(f"{served}/v2/embeddings").json()["error"]["code"] == "not_found"
    assert httpx.get(f"{served}/v1/embeddings").status_code == 405
    assert httpx.get(f"{served}/v1/models/nobody").status_code == 404


@pytest.mark.parametrize(
    ("behaviour", "status", "says"),
    [
        ("401:bad key client-key", 401, "answered 401: bad key …"),
        ("429:7", 429, "answered 429"),
        ("500", 500, "answered 500: failure 500"),
        ("503", 503, "answered 503"),
        ("cut", 502, "cannot be reached"),
        ("slow:3", 504, "did not answer in time|no answer within"),
        ("html", 502, "not whole JSON"),
        ("truncated", 502, "not whole JSON"),
        ("fewer", 502, "1 vectors for 2 texts"),
        ("nothing", 502, "0 vectors for 2 texts"),
        ("wide", 502, "gave 5 dimensions where 4 are needed"),
        ("ragged", 502, "of 4 and of 3 dimensions"),
        ("nan", 502, "NaN or infinity"),
        ("null", 502, "an empty vector"),
        ("words", 502, "something else than numbers"),
        ("index", 502, "does not number the texts"),
    ],
)
def test_what_the_upstream_does_wrong_is_said(mapped: Path, behaviour: str, status: int, says: str) -> None:
    with serving(behaviour) as upstream, proxy(mapped, upstream, limits=Limits(seconds=1.0)) as address:
        asked = {"model": "query", "input": ["a", "b"]}
        answer = post(address, asked, authorization="Bearer client-key")
        assert answer.status_code == status
        message = answer.json()["error"]["message"]
        assert re.search(says, message), message
        assert "client-key" not in answer.text
        assert answer.headers.get("retry-after") == ("7" if behaviour == "429:7" else None)
        assert len(upstream.batches) == 1  # clients repeat by themselves
        assert post(address, asked).status_code == 200


def test_an_upstream_that_is_not_there(mapped: Path) -> None:
    with serving() as upstream:
        pass
    with proxy(mapped, upstream) as address:
        answer = post(address, {"model": "query", "input": "a"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_unreachable")


def test_a_key_where_one_is_asked_for(mapped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as upstream, proxy(mapped, upstream, key="s3cret") as address:
        asked = {"model": "query", "input": "a"}
        for wrong in ({}, {"authorization": "Bearer other"}, {"authorization": "s3cret"}, {"authorization": "Bearer ü"}):
            headers = {name: value.encode() for name, value in wrong.items()}
            assert httpx.post(f"{address}/v1/embeddings", json=asked, headers=headers).status_code == 401
            assert httpx.get(f"{address}/v1/models", headers=headers).status_code == 401
        assert post(address, asked, authorization="Bearer s3cret").status_code == 200
        assert upstream.keys == {None}  # ours is never passed on
        assert httpx.get(f"{address}/health").status_code == 200


def test_the_environments_key_goes_to_the_upstream(mapped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-upstream")
    with serving("500:bad key sk-upstream") as upstream, proxy(mapped, upstream) as address:
        answer = post(address, {"model": "query", "input": "a"}, authorization="Bearer of a client")
        assert upstream.keys == {"Bearer sk-upstream"}
        assert "bad key" in answer.text
        assert "sk-upstream" not in answer.text


def test_models_health_and_metrics(mapped: Path) -> None:
    pairs = np.stack([vector(f"pair {row}") for row in range(50)])
    profile = Profile.of(pairs, pairs, None, "euclidean")
    with serving() as upstream, proxy(mapped, upstream, profile=profile) as address, client_of(address) as client:
        assert [model.id for model in client.models.list()] == ["query", "document"]
        assert client.models.retrieve("query").model_dump()["dimensions"] == D_OLD
        client.embeddings.create(model="query", input=["pair 3", "pair 4", *(f"pair {row}" for row in range(90, 190))])
        post(address, {"model": "nobody" * 50, "input": "a"})
        health = httpx.get(f"{address}/health").json()
        assert (health["status"], health["models"]) == ("ok", ["query", "document"])
        page = httpx.get(f"{address}/metrics").text
    asked = np.stack([vector(text) for text in upstream.batches[0]])
    assert profile.far(asked).any()
    assert f"compatlearn_far_queries_total {float(profile.far(asked).sum())}" in page
    assert 'compatlearn_requests_total{model="query",status="200"} 1.0' in page
    assert 'compatlearn_requests_total{model="unknown",status="404"} 1.0' in page  # what clients send makes no labels
    assert 'compatlearn_texts_total{model="query"} 102.0' in page
    assert 'compatlearn_request_seconds_count{model="query"} 1.0' in page


def test_no_text_and_no_key_in_the_log(mapped: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "compatlearn.serving")

    def fails(texts: list[str]) -> np.ndarray:
        raise ValueError(f"cannot embed {texts}")

    roads = {"query": Queries(Model(TextEncoder(fails, "openai:m")), runtime.load(mapped))}
    with running(create_app(roads)) as address:
        answer = post(address, {"model": "query", "input": "private words"}, authorization="Bearer secret-key")
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    lines = [JsonLines().format(record) for record in caplog.records if record.name == "compatlearn.serving"]
    facts = [json.loads(line) for line in lines]
    assert [one["event"] for one in facts] == ["a request failed", "request"]
    assert (facts[1]["status"], facts[1]["texts"], facts[1]["model"]) == (500, 1, "query")
    assert facts[0]["error"] == "ValueError"
    assert "private" not in "".join(lines)
    assert "secret" not in "".join(lines)


def test_two_hundred_clients_get_their_own_answers(mapped: Path) -> None:
    async def ask(client: httpx.AsyncClient, address: str, number: int) -> float:
        texts = [f"client {number} text {place}" for place in range(number % 3 + 1)]
        answer = await client.post(f"{address}/v1/embeddings", json={"model": "query", "input": texts})
        assert answer.status_code == 200, answer.text
        rows = [item["embedding"] for item in answer.json()["data"]]
        return float(np.abs(np.array(rows) - [old_vector(text) for text in texts]).max())

    async def all_of_them(address: str) -> list[float]:
        async with httpx.AsyncClient(limits=httpx.Limits(max_connections=None), timeout=60) as client:
            return await asyncio.gather(*(ask(client, address, number) for number in range(200)))

    with serving(seconds=0.01) as upstream, proxy(mapped, upstream) as address:
        errors = asyncio.run(all_of_them(address))
    assert len(errors) == 200
    assert max(errors) < 1e-3


def test_more_than_it_can_hold_are_asked_to_come_again(mapped: Path) -> None:
    async def both(address: str) -> list[httpx.Response]:
        async with httpx.AsyncClient(timeout=20) as client:
            asked = [client.post(f"{address}/v1/embeddings", json={"model": "query", "input": "a"}) for _ in range(5)]
            return await asyncio.gather(*asked)

    with serving(seconds=0.5) as upstream, proxy(mapped, upstream, limits=Limits(open=2)) as address:
        answers = asyncio.run(both(address))
        assert sorted(answer.status_code for answer in answers) == [200, 200, 503, 503, 503]
        assert {answer.headers.get("retry-after") for answer in answers if answer.status_code == 503} == {"1"}
        assert post(address, {"model": "query", "input": "a"}).status_code == 200


def test_models_that_are_not_those_of_the_map(mapped: Path) -> None:
    loaded = runtime.load(mapped)
    other = Model(TextEncoder(lambda texts: np.zeros((1, 4)), "someone@2"))
    with pytest.raises(IncompatibleError, match="the new model is 'someone@2', and the map was made for 'openai:m'"):
        Queries(other, loaded)
    with pytest.raises(IncompatibleError, match="the old model is 'someone@2'"):
        Documents(other, D_OLD, "old@1")
    with pytest.raises(IncompatibleError, match="profile has 7 dimensions"):
        Queries(old_model_named("openai:m"), loaded, profile=Profile.of(np.eye(7), np.eye(7), None, "cosine"))
    with pytest.raises(ConfigError, match="no address"):
        Service("m", base_url="localhost:8080")


def old_model_named(space: str) -> Model:
    return Model(TextEncoder(lambda texts: np.zeros((1, 4)), space))


def serve(arguments: list[str], **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "compatlearn", "serve", *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | environment)


def test_the_command_answers_what_is_open_and_ends(mapped: Path) -> None:
    with serving(seconds=1.0) as upstream:
        arguments = ["--adapter", str(mapped), "--new-model", "openai:m", "--new-base-url", upstream.url, "--port", "0"]
        process = serve(arguments, OPENAI_API_KEY="k-123")
        assert process.stderr is not None
        line = process.stderr.readline()
        address = re.fullmatch(r"mapped: query at (http://127\.0\.0\.1:\d+)/v1\n", line)
        assert address, line
        answers: list[httpx.Response] = []
        thread = threading.Thread(target=lambda: answers.append(post(address[1], {"model": "query", "input": "a"})))
        thread.start()
        while not upstream.batches:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        thread.join()
        assert answers[0].status_code == 200
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    lines = [json.loads(line) for line in errors.splitlines()]
    assert [(one["event"], one["status"]) for one in lines] == [("request", 200)]
    assert "k-123" not in errors


def test_the_command_imports_no_torch(mapped: Path) -> None:
    code = "import sys, compatlearn.serving.app, compatlearn.serving.run, compatlearn.serving.upstream, compatlearn.cli.app; "
    code += "sys.exit('torch' in sys.modules or 'scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--new-model", "openai:m"], "give --plan, or --adapter"),
        (["--new-model", "openai:m", "--adapter", "MAP", "--rung", "fused"], "give --old-model"),
        (["--new-model", "openai:m", "--adapter", "nothing.safetensors"], "nothing.safetensors"),
        (["--new-model", "openai:m", "--adapter", "MAP", "--key-variable", "NO_SUCH"], "no such variable"),
        (["--new-model", "openai:m", "--adapter", "MAP", "--query-prompt", "query"], "a prompt is for"),
        (["--new-model", "m:f", "--adapter", "MAP", "--new-base-url", "http://x/v1"], "a base URL is for a service"),
        (["--new-model", "openai:m", "--adapter", "MAP", "--document-name", "query"], "both 'query'"),
        (["--new-model", "openai:m", "--adapter", "MAP", "--most-texts", "0"], "above 0"),
        (["--new-model", "openai:m", "--adapter", "MAP", "--port", "70000"], "from 0 to 65535"),
        (["--new-model", "openai:m", "--adapter", "MAP", "--host", "192.0.2.1"], "cannot listen at 192.0.2.1:8000"),
        (["--new-model", "openai:other", "--adapter", "MAP"], "the new model is 'openai:other'"),
    ],
)
def test_wrong_turns(mapped: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    from compatlearn.cli.app import run

    assert run(["serve", *(str(mapped) if one == "MAP" else one for one in arguments)]) == 1
    *notes, error = capsys.readouterr().err.splitlines()
    assert says in error
    assert len(notes) == ("--host" in arguments)  # that nobody asks for a key there
