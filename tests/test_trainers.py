"""Compatible losses and the cross test inside sentence-transformers' trainer, with tiny models of texts made here."""

import csv
import json
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
TOPICS = [[f"{topic}{number}" for number in range(12)] for topic in ("card", "rate", "pin", "fee", "top")]
FILLER = ["please", "my", "the", "help", "now"]


def questions(rows: int, seed: int) -> tuple[list[str], np.ndarray]:
    """Short texts, each with two words of its topic, and the topics."""
    random = np.random.default_rng(seed)
    labels = np.arange(rows) % CLASSES
    return [" ".join([*random.choice(TOPICS[label], 2), *random.choice(FILLER, 2)]) for label in labels], labels


def old_model(texts: list[str], labels: np.ndarray, seed: int) -> np.ndarray:
    """(n, D_OLD) noisy unit vectors around a direction per topic; a black box that nobody can train."""
    random = np.random.default_rng(seed)
    vectors = np.random.default_rng(99).normal(size=(CLASSES, D_OLD))[labels] + 1.1 * random.normal(size=(len(texts), D_OLD))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def new_model(seed: int = 0) -> SentenceTransformer:
    torch.manual_seed(seed)
    words = {word: number for number, word in enumerate(["[UNK]", *FILLER, *sum(TOPICS, [])])}
    tokenizer = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    return SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=D_NEW)], device="cpu")


def cross_test(**options: Any) -> cl.CrossTest:
    asked, asked_labels = questions(100, seed=11)
    items, labels = questions(150, seed=12)
    old_query = cl.Features(old_model(asked, asked_labels, 21), asked_labels, [f"q{row}" for row in range(100)])
    old_gallery = cl.Features(old_model(items, labels, 22), labels, [f"i{row}" for row in range(150)], space="old")
    return cl.CrossTest(asked, old_gallery, old_query, items, **{"metric": "cosine", **options})


def tokens(model: SentenceTransformer, texts: list[str]) -> dict[str, torch.Tensor]:
    return model.preprocess(texts)


@pytest.fixture(scope="module")
def data() -> tuple[list[str], np.ndarray, np.ndarray]:
    """Training texts, their topics, and what the old model gave for them."""
    texts, labels = questions(200, seed=1)
    return texts, labels, old_model(texts, labels, 2)


def train(model: SentenceTransformer, loss: nn.Module, columns: dict[str, Any], folder: Path, **options: Any) -> Any:
    settings = {"num_train_epochs": 4, "eval_strategy": "epoch", "logging_strategy": "epoch", "learning_rate": 0.05}
    arguments = SentenceTransformerTrainingArguments(
        str(folder),
        per_device_train_batch_size=32,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
        **settings | {name: value for name, value in options.items() if name != "evaluator"},
    )
    evaluator = options.get("evaluator")
    if evaluator is None:
        arguments.eval_strategy = "no"
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
    assert untrained["bank_cross_top1"] < 0.5 < after["bank_cross_top1"]
    assert after["bank_cross_top1"] > after["bank_old_self_top1"]
    assert after["bank_compatible"] == 1.0
    assert evaluator.primary_metric == "bank_cross_top1"
    assert not torch.equal(weight, loss.usual.classifier.weight)  # what belongs to the loss is trained too
    with (tmp_path / "eval" / "Compatibility_evaluation_bank_results.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [float(line["epoch"]) for line in lines] == [1, 2, 3, 4]
    assert all(float(line["cross_top1"]) <= after["bank_cross_top1"] for line in lines)  # the best one was loaded
    logged = [entry for entry in trainer.state.log_history if "usual" in entry]
    assert len(logged) == 4
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
    assert result.cross.top1.value < 0.5
    assert result.compatible == "no"
