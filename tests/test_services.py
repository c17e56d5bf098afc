"""A service, against a real server that misbehaves: nothing wrong is kept, and nothing is paid for twice."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from compatlearn.data.texts import Texts
from compatlearn.encoders.embed import embed_texts, extract_texts
from compatlearn.encoders.service import service_encoder
from compatlearn.encoders.text_encoder import TextEncoder
from compatlearn.errors import ConfigError, DataError
from compatlearn.features.features import Features
from embedding_server import WIDTH, Service, serving, vector

KEY = "sk-a-secret-that-nobody-may-see"
TEXTS = Texts.of([f"text number {number}" for number in range(10)], [f"t{number}" for number in range(10)])


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    import openai._base_client

    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 0.01)


def encoder_of(service: Service, **options: object) -> TextEncoder:
    return service_encoder("m", base_url=service.url, **({"batch_size": 4, "retries": 2, "concurrency": 1} | options))


def expected(texts: Texts) -> np.ndarray:
    return np.stack([vector(text) for text in texts.texts])


def test_vectors_are_those_of_the_texts(capsys: pytest.CaptureFixture[str]) -> None:
    with serving("floats", "backwards") as service:
        features = embed_texts(encoder_of(service, price=0.5), TEXTS)
        np.testing.assert_allclose(features.vectors, expected(TEXTS), rtol=1e-6)
        assert [len(batch) for batch in service.batches] == [4, 4, 2]
        assert service.keys == {f"Bearer {KEY}"}
        assert {(body["model"], body["encoding_format"]) for body in service.bodies} == {("m", "base64")}
    assert (features.space, features.ids.tolist()) == ("openai:m", TEXTS.ids.tolist())
    error = capsys.readouterr().err
    before, after = error.splitlines()
    assert re.fullmatch(
        rf"m at {re.escape(service.url)}: 10 texts, about 32 tokens, about \$1.6e-05 at \$0.5 per million", before
    )
    assert after == "m counted 130 tokens, $6.5e-05 at $0.5 per million"


def test_equal_texts_are_asked_for_once() -> None:
    twice = Texts.of(["same", "other", "same", "same", "other"])
    with serving() as service:
        features = embed_texts(encoder_of(service), twice)
        assert service.batches == [["same", "other"]]
    np.testing.assert_array_equal(features.vectors, expected(twice))


def test_batches_are_bounded_by_characters_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compatlearn.encoders.service.BATCH_CHARACTERS", 20)
    texts = Texts.of(["a" * 15, "b" * 5, "c" * 1_000_000, "d", "e"])
    with serving() as service:
        embed_texts(encoder_of(service), texts)
        assert [[text[0] for text in batch] for batch in service.batches] == [["a", "b"], ["c"], ["d", "e"]]


@pytest.mark.parametrize("script", [["500", "503"], ["429"], ["cut"], ["truncated", "truncated"], ["html"], ["408", "409"]])
def test_what_may_pass_is_asked_again(script: list[str]) -> None:
    with serving(*script) as service:
        features = embed_texts(encoder_of(service), TEXTS)
        assert len(service.batches) == 3 + len(script)
    np.testing.assert_array_equal(features.vectors, expected(TEXTS))


def test_retry_after_is_obeyed() -> None:
    with serving("429:0.5") as service:
        embed_texts(encoder_of(service), TEXTS.take(np.arange(2)))
        first, second = service.times
    assert second - first >= 0.5


def test_an_answer_that_takes_too_long_is_asked_for_again() -> None:
    with serving("slow:0.6") as service:
        features = embed_texts(encoder_of(service, timeout=0.2), TEXTS.take(np.arange(2)))
        assert len(service.batches) == 2
    np.testing.assert_array_equal(features.vectors, expected(TEXTS)[:2])


@pytest.mark.parametrize(
    ("script", "line"),
    [
        (["ok", "nan"], r"openai:m gave NaN or infinity \(1 of 4 texts of a batch, first: 't7'\); check the model"),
        (["ok", "fewer"], r"openai:m gave 3 vectors for 4 texts \(4 of 4 texts of a batch, first: 't4', 't5', 't6', …\)"),
        (["ok", "nothing"], r"openai:m gave 0 vectors for 4 texts \(4 of 4"),
        (["ok", "null"], r"openai:m gave an empty vector \(1 of 4 texts of a batch, first: 't7'\)"),
        (["ok", "empty"], r"openai:m gave an empty vector \(1 of 4 texts of a batch, first: 't7'\)"),
        (["ok", "words"], r"openai:m gave something else than numbers \(str\) \(1 of 4 texts of a batch, first: 't7'\)"),
        (["ok", "index"], r"openai:m gave vectors whose 'index' does not number the texts"),
        (["ok", "ragged"], r"openai:m gave vectors of 4 and of 3 dimensions in one answer \(1 of 4 texts .*'t7'\)"),
        (["ok", "wide"], rf"openai:m gave vectors of {WIDTH} dimensions and then of {WIDTH + 1} \(first: id 't4'\)"),
        (["ok", "400:too long"], r"openai:m refused 4 texts \(400: too long\); mend or drop them \(4 of 4 texts .*'t4'"),
        (["ok", *["500"] * 3], r"m at http://127.0.0.1:\d+/v1 failed \(500: failure 500\); try again later"),
        (["ok", *["truncated"] * 3], r"openai:m gave an answer that is not whole JSON, 3 times: Unterminated string"),
        (["ok", "429:400"], r"answers that it is too much \(429: 400, asks to wait 400 seconds\); wait, or ask less at a time"),
        (["ok", f"401:no such key: {KEY}"], r"refuses the key \(401: no such key: …\); check OPENAI_API_KEY"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_and_the_rest_is_kept(script: list[str], line: str, tmp_path: Path) -> None:
    with serving(*script) as service:
        with pytest.raises(DataError, match=line) as caught:
            extract_texts(encoder_of(service), TEXTS, tmp_path / "out")
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out" / "manifest.json").exists()
        features = extract_texts(encoder_of(service), TEXTS, tmp_path / "out")
        assert set(service.answered.values()) == {1}
    np.testing.assert_array_equal(features.vectors, expected(TEXTS))


def test_a_service_that_is_not_there() -> None:
    with serving() as service:
        pass
    with pytest.raises(DataError, match=r"m at http://127.0.0.1:\d+/v1 does not answer \(.*refused.*\); check the address"):
        embed_texts(encoder_of(service, retries=0), TEXTS)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"base_url": "localhost:80/v1"}, "base_url 'localhost:80/v1' is no address"),
        ({"price": -1.0}, "price must be above 0; got -1.0"),
        ({"timeout": 0.0}, "timeout must be above 0; got 0.0"),
        ({"batch_size": 0}, "batch_size, batch_characters and concurrency must be at least 1; got 0"),
    ],
)
def test_options_out_of_range(options: dict[str, object], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        service_encoder("m", **options)


def test_openai_itself_needs_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ConfigError, match="openai:m needs a key: put it into the environment as OPENAI_API_KEY"):
        service_encoder("m")
    with serving() as service:
        embed_texts(encoder_of(service), TEXTS)
        assert service.keys == {"Bearer none"}


def test_dimensions_are_asked_for_and_checked() -> None:
    with serving() as service:
        assert embed_texts(encoder_of(service, dimensions=WIDTH), TEXTS).space == f"openai:m-{WIDTH}d"
        assert service.bodies[0]["dimensions"] == WIDTH
        with pytest.raises(DataError, match="was asked for 2 dimensions and gave 4"):
            embed_texts(encoder_of(service, dimensions=2), TEXTS)


def test_the_pace_is_kept() -> None:
    with serving() as service:
        embed_texts(encoder_of(service, requests_per_minute=600.0, batch_size=2, concurrency=4), TEXTS)
        gaps = np.diff(sorted(service.times))
    assert len(gaps) == 4
    assert sorted(service.times)[-1] - sorted(service.times)[0] > 0.35


def test_requests_are_under_way_at_the_same_time() -> None:
    with serving(seconds=0.2) as service:
        started = time.monotonic()
        features = embed_texts(encoder_of(service, batch_size=1, concurrency=10), TEXTS)
        assert time.monotonic() - started < 1.0  # one after the other: 2
    np.testing.assert_array_equal(features.vectors, expected(TEXTS))


def extraction(service: Service, folder: Path) -> subprocess.Popen[bytes]:
    data = folder / "data.jsonl"
    lines = [json.dumps({"id": one, "text": f"text {one}"}) for one in range(60)] + [json.dumps({"id": 60, "text": "text 3"})]
    data.write_text("\n".join(lines))
    command = ["extract", "--data", data, "--model", "openai:m", "--base-url", service.url, "--out", folder / "out"]
    command += ["--batch-size", "2", "--concurrency", "3", "--shard-rows", "20"]
    arguments = [sys.executable, "-m", "compatlearn", *map(str, command)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"OPENAI_API_KEY": KEY})


def stop(service: Service, process: subprocess.Popen[bytes], batches: int, number: int) -> tuple[int, bytes]:
    """Send a signal once the service was asked for so many batches; the exit code, and what was said."""
    while len(service.batches) < batches:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(number)
    output, error = process.communicate()
    time.sleep(0.2)  # what the service was answering comes to its end
    return process.returncode, output + error


def paid_twice(service: Service) -> int:
    return sum(count > 1 for count in service.answered.values())


def test_killed_in_the_middle_no_batch_that_was_answered_is_paid_for_again(tmp_path: Path) -> None:
    under_way = 3 * 2  # three requests of two texts
    with serving(seconds=0.05) as service:
        assert stop(service, extraction(service, tmp_path), 12, signal.SIGKILL)[0] == -signal.SIGKILL
        code, said = stop(service, extraction(service, tmp_path), 22, signal.SIGTERM)
        assert (code, b"run the same command again to resume" in said) == (143, True), said
        killed = paid_twice(service)
        assert killed <= under_way
        code, said = stop(service, extraction(service, tmp_path), 0, 0)
        assert code == 0, said
        assert paid_twice(service) == killed  # a clean end waits for what is under way, and keeps it
        assert len(service.batches) <= 30 + 3
        assert len(service.answered) == 60
    assert KEY.encode() not in said
    assert f"m at {service.url}:".encode() in said
    features = Features.load(tmp_path / "out", verify=True)
    assert features.ids.tolist() == list(range(61))
    np.testing.assert_array_equal(features.vectors, np.stack([vector(f"text {one if one < 60 else 3}") for one in range(61)]))
    assert KEY not in "".join(path.read_text(errors="replace") for path in (tmp_path / "out").iterdir())
