"""Compatible losses and the cross test inside sentence-transformers' trainer, with tiny models of texts made here."""

import csv
import json
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer import losses as usual_losses
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import nn

import compatlearn as cl
from compatlearn.errors import ConfigError, DataError, IncompatibleError
from compatlearn.losses import influence_loss, instance_loss, neighbour_loss, ranking_loss, regression_loss
from compatlearn.trainers import to_metrics

CLASSES, D_OLD, D_NEW = 5, 6, 8
TOPICS = [[f"{topic}{number}" for number in range(6)] for topic in ("card", "rate", "pin", "fee", "top")]
FILLER = ["please", "my", "the", "help", "now"]


def questions(rows: int, seed: int) -> tuple[list[str], np.ndarray]:
    """Short texts, each with three words of its topic, and the topics."""
    random = np.random.default_rng(seed)
    labels = np.arange(rows) % CLASSES
    return [" ".join([*random.choice(TOPICS[label], 3), random.choice(FILLER)]) for label in labels], labels


def old_model(texts: list[str], labels: np.ndarray, seed: int) -> np.ndarray:
    """(n, D_OLD) noisy unit vectors around a direction per topic; a black box that nobody can train."""
    random = np.random.default_rng(seed)
    vectors = np.eye(D_OLD)[labels] + 0.6 * random.normal(size=(len(texts), D_OLD))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def new_model(seed: int = 0) -> SentenceTransformer:
    torch.manual_seed(seed)
    words = {word: number for number, word in enumerate(["[UNK]", *FILLER, *chain(*TOPICS)])}
    tokenizer = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    weights = 0.1 * torch.randn(len(words), D_NEW)
    return SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=weights)], device="cpu")


def cross_test(**options: Any) -> cl.CrossTest:
    asked, asked_labels = questions(200, seed=11)
    items, labels = questions(150, seed=12)
    old_query = cl.Features(old_model(asked, asked_labels, 21), asked_labels, [f"q{row}" for row in range(200)])
    old_gallery = cl.Features(old_model(items, labels, 22), labels, [f"i{row}" for row in range(150)], space="old")
    return cl.CrossTest(asked, old_gallery, old_query, items, **{"metric": "cosine", **options})


@pytest.fixture(scope="module")
def data() -> tuple[list[str], np.ndarray, np.ndarray]:
    """Training texts, their topics, and what the old model gave for them."""
    texts, labels = questions(200, seed=1)
    return texts, labels, old_model(texts, labels, 2)


def train(
    model: SentenceTransformer, loss: nn.Module, columns: dict[str, Any], folder: Path, evaluator: Any = None, **options: Any
) -> SentenceTransformerTrainer:
    arguments = SentenceTransformerTrainingArguments(
        str(folder),
        num_train_epochs=6,
        per_device_train_batch_size=20,
        learning_rate=0.1,
        logging_strategy="epoch",
        eval_strategy="no" if evaluator is None else "epoch",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
        **{"save_strategy": "no", **options},
    )
    trainer = SentenceTransformerTrainer(model, arguments, Dataset.from_dict(columns), loss=loss, evaluator=evaluator)
    trainer.train()
    return trainer


def test_a_text_model_learns_the_old_space_from_features_alone(data: Any, tmp_path: Path) -> None:
    texts, labels, old = data
    model = new_model()
    loss = cl.CompatibleLoss(
        model,
        cl.InfluenceLoss(cl.random_walk_classifier(old, labels), scale=20.0),
        cl.ClassLoss(model, CLASSES),
    )
    evaluator = cl.CompatibilityEvaluator(cross_test(), name="bank")
    untrained = evaluator(new_model())
    weight = loss.usual.classifier.weight.detach().clone()
    options = {"save_strategy": "epoch", "load_best_model_at_end": True, "metric_for_best_model": "eval_bank_cross_top1"}
    trainer = train(model, loss, {"text": texts, "label": labels}, tmp_path, evaluator=evaluator, save_total_limit=1, **options)

    after = evaluator(model)
    assert untrained["bank_cross_top1"] + 0.1 < after["bank_cross_top1"]
    assert after["bank_cross_top1"] > after["bank_old_self_top1"]
    assert after["bank_compatible"] == 1.0
    assert evaluator.primary_metric == "bank_cross_top1"
    assert not torch.equal(weight, loss.usual.classifier.weight)  # what belongs to the loss is trained too
    with (tmp_path / "eval" / "Compatibility_evaluation_bank_results.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [float(line["epoch"]) for line in lines] == [1, 2, 3, 4, 5, 6]
    assert all(float(line["cross_top1"]) <= after["bank_cross_top1"] for line in lines)  # the best one was loaded
    logged = [entry for entry in trainer.state.log_history if "usual" in entry]
    assert len(logged) == 6
    assert logged[-1]["compatible"] < logged[0]["compatible"]
    trainer.create_model_card()
    card = (tmp_path / "README.md").read_text()
    assert "bank_cross_top1" in card or "cross_top1" in card
    assert "CompatibleLoss" in card
    assert "Non-Inherent Feature Compatible Learning" in card


def test_without_a_compatible_loss_nothing_is_found(data: Any, tmp_path: Path) -> None:
    texts, labels, _ = data
    model = new_model()
    train(model, cl.ClassLoss(model, CLASSES), {"text": texts, "label": labels}, tmp_path)
    result = cross_test()(model.encode)
    assert result.new_self is not None
    assert result.new_self.top1.value > 0.9
    assert result.cross.top1.value < result.old_self.top1.value
    assert result.compatible != "yes"


def test_without_labels_by_rows(data: Any, tmp_path: Path) -> None:
    """The ranking loss needs neither classes nor a usual loss: only both models' vectors of the same texts."""
    texts, labels, old = data
    teacher = new_model(seed=5)
    train(teacher, cl.ClassLoss(teacher, CLASSES), {"text": texts, "label": labels}, tmp_path)
    model = new_model()
    loss = cl.CompatibleLoss(model, cl.RankingLoss(teacher.encode(texts), old))
    before = cross_test()(model.encode).cross.top1.value
    targets = [[0, row] for row in range(len(texts))]
    train(model, loss, {"text": texts, "label": targets}, tmp_path)
    assert cross_test()(model.encode).cross.top1.value > before + 0.2


LOSSES = {
    "influence": (lambda old, labels: cl.InfluenceLoss(cl.mean_classifier(old, labels), scale=20.0), False),
    "regression": (lambda old, labels: cl.RegressionLoss(old), True),
    "neighbours": (lambda old, labels: cl.NeighbourLoss(old, labels, temperature=0.2, instance=0.5), True),
    "ranking": (lambda old, labels: cl.RankingLoss(np.tile(old, 2), old, temperature=0.2), True),
}


def reference(
    name: str, f: torch.Tensor, y: torch.Tensor, rows: torch.Tensor, old: np.ndarray, labels: np.ndarray
) -> torch.Tensor:
    """The functions of `losses`, by hand."""
    o, own = torch.from_numpy(old), rows[:, None] == torch.arange(len(old))
    temperature = 0.2 * float(o.square().sum(dim=1).mean())
    if name == "influence":
        return influence_loss(f, y, torch.from_numpy(cl.mean_classifier(old, labels)), scale=20.0)
    if name == "regression":
        return regression_loss(f, o[rows])
    instance = instance_loss(f, o[rows], o, temperature=temperature, own=own)
    if name == "neighbours":
        known = torch.from_numpy(labels)
        return neighbour_loss(f, y, o, known, temperature=temperature, own=own) + 0.5 * instance
    new = torch.from_numpy(np.tile(old, 2))
    sharp = 0.1 * float(new.var(dim=0, correction=0).sum())
    return ranking_loss(f, o, new[rows], new, temperature=temperature, new_temperature=sharp, own=own) + 0.3 * instance


@pytest.mark.parametrize("name", LOSSES)
def test_the_losses_are_those_of_the_package(name: str, data: Any) -> None:
    texts, labels, old = data
    make, by_row = LOSSES[name]
    model, rows = new_model(), torch.tensor([3, 50, 7, 121])
    loss = cl.CompatibleLoss(model, make(old, labels), weight=0.7)
    y = torch.from_numpy(labels)[rows]
    batch = model.preprocess([texts[row] for row in rows])
    parts = loss([batch], torch.stack([y, rows], dim=1) if by_row else y)
    expected = 0.7 * reference(name, model(batch)["sentence_embedding"], y, rows, old, labels)
    assert list(parts) == ["compatible"]
    torch.testing.assert_close(parts["compatible"], expected)
    found, wanted = (torch.autograd.grad(value, model.parameters())[0] for value in (parts["compatible"], expected))
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("usual", ["MultipleNegativesRankingLoss", "SoftmaxLoss", "BatchHardTripletLoss"])
def test_beside_the_losses_of_sentence_transformers(usual: str, data: Any) -> None:
    """Those that take embeddings, those that cannot, and those that need the classes; of pairs or of single texts."""
    texts, labels, old = data
    model, pairs = new_model(), usual != "BatchHardTripletLoss"
    sizes = {"embedding_dimension": D_NEW, "num_labels": CLASSES} if usual == "SoftmaxLoss" else {}
    theirs = getattr(usual_losses, usual)(model, **sizes)
    columns = [model.preprocess(texts[:20]), model.preprocess(texts[20:40])][: 2 if pairs else 1]
    y = torch.from_numpy(labels[:20])
    influence = cl.InfluenceLoss(cl.mean_classifier(old, labels), scale=20.0)
    loss = cl.CompatibleLoss(model, influence, theirs, columns=(0, 1) if pairs else (0,))
    parts = loss(columns, torch.stack([y, y], dim=1))
    own = torch.stack([influence(model(dict(column))["sentence_embedding"], y) for column in columns]).mean()
    torch.testing.assert_close(parts["compatible"], own)
    torch.testing.assert_close(parts["usual"], theirs([dict(column) for column in columns], y))
    sum(parts.values()).backward()
    assert model[0].embedding.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("scale", [20.0, None])
def test_the_class_loss_is_a_softmax(scale: float | None) -> None:
    model = new_model()
    loss = cl.ClassLoss(model, CLASSES, scale=scale, columns=(0, 1))
    batches = [model.preprocess(questions(10, seed)[0]) for seed in (1, 2)]
    y = torch.arange(10) % CLASSES
    vectors = torch.cat([model(dict(batch))["sentence_embedding"] for batch in batches])
    weight, logits = loss.classifier.weight, loss.classifier(vectors)
    if scale is not None:
        logits = scale * torch.cosine_similarity(vectors[:, None], weight[None], dim=2)
    expected = -logits.log_softmax(dim=1)[torch.arange(20), y.repeat(2)].mean()
    torch.testing.assert_close(loss(batches, y), expected)


def test_autocast_leaves_the_cosines_exact(data: Any) -> None:
    texts, labels, old = data
    model = new_model()
    influence = cl.InfluenceLoss(cl.random_walk_classifier(old, labels), scale=20.0)
    loss = cl.CompatibleLoss(model, influence, cl.ClassLoss(model, CLASSES))
    y = torch.from_numpy(labels[:20])
    plain = loss([model.preprocess(texts[:20])], y)
    with torch.autocast("cpu", torch.bfloat16):
        cast = loss([model.preprocess(texts[:20])], y)
    torch.testing.assert_close(cast, plain)


def test_labels_that_cannot_be_used(data: Any) -> None:
    texts, labels, old = data
    model = new_model()
    influence = cl.InfluenceLoss(cl.mean_classifier(old, labels))
    batch, y = [model.preprocess(texts[:4])], torch.from_numpy(labels[:4])
    for wrong, said in ((y.float(), "torch.float32"), (torch.zeros(4, 3, dtype=torch.long), r".*\(4, 3\)"), (None, "none")):
        with pytest.raises(DataError, match=rf"its class, or \[class, row\], integers; got {said}.*; give a column label"):
            cl.CompatibleLoss(model, influence)(batch, wrong)
    with pytest.raises(IncompatibleError, match=r"RegressionLoss looks up .*; make the labels \[class, row\]"):
        cl.CompatibleLoss(model, cl.RegressionLoss(old))(batch, y)
    with pytest.raises(IncompatibleError, match=r"column 1 of the texts is asked for, and there are 1"):
        cl.CompatibleLoss(model, influence, columns=(0, 1))(batch, y)
    with pytest.raises(IncompatibleError, match="the old features have 9 dimensions, the new model gives 8"):
        cl.CompatibleLoss(model, cl.InfluenceLoss(np.eye(9, dtype=np.float32)))
    with pytest.raises(ConfigError, match=r"weight must be 0 or more, .*got -1.0 and \(0,\)"):
        cl.CompatibleLoss(model, influence, weight=-1.0)
    with pytest.raises(ConfigError, match="two classes and a known dimension; got 1 and 8"):
        cl.ClassLoss(model, 1)


def test_a_plain_loop_is_told_what_compatibility_says() -> None:
    test = cross_test()
    layer = torch.randn(D_OLD, D_NEW)
    vectors = {"q": torch.from_numpy(test.old_query.vectors) @ layer, "i": torch.from_numpy(test.old_gallery.vectors) @ layer}

    def encode(texts: Any) -> torch.Tensor:
        assert not torch.is_grad_enabled()
        return vectors["q" if len(texts) == 200 else "i"]

    found = test(encode)
    query, gallery = (
        cl.Features(vectors[key], old.labels, old.ids) for key, old in (("q", test.old_query), ("i", test.old_gallery))
    )
    given = {"old_query": test.old_query, "old_gallery": test.old_gallery, "new_query": query, "new_gallery": gallery}
    assert found.to_dict() == cl.compatibility(**given, metric="cosine").to_dict()
    metrics = to_metrics(found)
    assert json.dumps(metrics, allow_nan=False)
    assert metrics["cross_top1"] == found.cross.top1.value
    assert (metrics["cross_top1_low"], metrics["gain_high"]) == (found.cross.top1.low, found.gain.high)
    assert metrics["compatible"] == found.gain.sign
    assert "update_gain" not in metrics


def test_queries_may_be_the_gallery_and_the_reference_gives_an_update_gain() -> None:
    texts, labels = questions(60, seed=3)
    old = cl.Features(old_model(texts, labels, 4), labels)
    better = cl.Features(np.eye(CLASSES, dtype=np.float32)[labels] + 0.01 * old.vectors[:, :CLASSES], labels)
    test = cl.CrossTest(texts, old, independent=better)
    found = test(lambda asked: old.vectors)
    assert found.new_self is not None
    assert found.independent_self.top1.value == 1.0
    assert to_metrics(found)["update_gain"] == 0.0
    assert found.compatible == "undecided"


def test_judgements_and_agreement(tmp_path: Path) -> None:
    test = cross_test()
    judged = cl.Relevance.from_dict({f"q{row}": [f"i{row}"] for row in range(150)})
    bare = (
        cl.Features(test.old_query.vectors, None, test.old_query.ids),
        cl.Features(test.old_gallery.vectors, None, test.old_gallery.ids),
    )
    for relevance, primary in ((judged, "cross_ndcg10"), (None, "cross_agreement")):
        evaluator = cl.CompatibilityEvaluator(cl.CrossTest(test.queries, bare[1], bare[0], test.items, relevance))
        assert evaluator.primary_metric == primary
        assert primary in evaluator(new_model(), str(tmp_path))
    with pytest.raises(DataError, match="has no labels, and nothing else says what answers a query"):
        cl.CrossTest(test.queries, bare[1], bare[0])  # at once, not after the first epoch


def test_wrong_numbers_are_said_before_the_training() -> None:
    test = cross_test()
    with pytest.raises(IncompatibleError, match="199 queries and 200 rows of old_query; give one input per row"):
        cl.CrossTest(test.queries[1:], test.old_gallery, test.old_query)
    with pytest.raises(IncompatibleError, match="200 items and 150 rows of old_gallery"):
        cl.CrossTest(test.queries, test.old_gallery, test.old_query, test.queries)
    with pytest.raises(IncompatibleError, match="encode gave 5 vectors for 200 queries"):
        test(lambda texts: np.ones((5, D_NEW), dtype=np.float32))
    with pytest.raises(IncompatibleError, match="new_query has 4 dimensions and old_gallery 6"):
        test(lambda texts: np.ones((len(texts), 4), dtype=np.float32))
    with pytest.raises(DataError, match="NaN"):
        test(lambda texts: np.full((len(texts), D_NEW), np.nan, dtype=np.float32))


def test_the_evaluators_file(tmp_path: Path) -> None:
    test = cross_test()
    evaluator = cl.CompatibilityEvaluator(test)
    model = new_model()
    found = evaluator(model, str(tmp_path), epoch=1.0, steps=7)
    evaluator(model, str(tmp_path), epoch=2.0, steps=14)
    lines = (tmp_path / "Compatibility_evaluation_results.csv").read_text().splitlines()
    assert lines[0].startswith("epoch,steps,old_self_top1,")
    assert [line.split(",")[:2] for line in lines[1:]] == [["1.0", "7"], ["2.0", "14"]]
    assert dict(zip(lines[0].split(","), lines[1].split(","), strict=True))["cross_top1"] == str(found["cross_top1"])
    assert evaluator.get_config_dict() == {"queries": 200, "gallery": 150, "old_space": "old", "metric": "cosine"}
    silent = tmp_path / "silent"
    cl.CompatibilityEvaluator(test, write_csv=False)(model, str(silent))
    assert not silent.exists()
