"""Real texts that the maps of `peers.py` are fitted to and judged by: the split, the judgements and the score."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compatlearn.evaluation.metrics import ndcg
from compatlearn.evaluation.qrels import read_qrels
from compatlearn.upgrade.case import directed

NEW = "l6"
DEPTH = 10


@dataclass(frozen=True)
class Setting:
    """A data set, an old model, how many pairs there are, and how many items are left out of the gallery."""

    data: str
    old: str
    pairs: int
    left_out: int


SETTINGS = {
    "banking77-m2v-1500": Setting("banking77", "m2v", 1500, 1500),
    "banking77-lsa-1500": Setting("banking77", "lsa", 1500, 1500),
    "banking77-m2v-300": Setting("banking77", "m2v", 300, 1500),  # the gallery stays that of 1,500 pairs
    "cranfield-m2v-500": Setting("cranfield", "m2v", 500, 500),
    "cranfield-l3-500": Setting("cranfield", "l3", 500, 500),
}


@dataclass(frozen=True)
class Bed:
    """Everything a map is fitted to and judged by; vectors are float32 of unit length.

    Attributes:
        old: (n, d_old) items by the old model, and (q, d_old) queries.
        new: the same two by the new model.
        pairs: (m,) items whose two vectors are known.
        gallery: (g,) items that are searched, none of them a pair.
        grades: (q, g) how relevant each of these is to each query; 0 is not at all.
        top1: the figure is the share of queries whose first hit is relevant; otherwise nDCG@10.
    """

    old: tuple[np.ndarray, np.ndarray]
    new: tuple[np.ndarray, np.ndarray]
    pairs: np.ndarray
    gallery: np.ndarray
    grades: np.ndarray
    top1: bool

    def score(self, queries: np.ndarray, items: np.ndarray, bias: np.ndarray | None = None) -> float:
        """The figure, in [0, 1], of queries among items of the same space."""
        return figure(ranked(queries, items, bias), self.grades, top1=self.top1)


def split(rows: int, pairs: int, left_out: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(pairs,) rows that are pairs and (rows − left_out,) rows that are searched, drawn at random; none is both."""
    order = np.random.default_rng(seed).permutation(rows)
    return order[:pairs], order[left_out:]


def ranked(queries: np.ndarray, items: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    """(q, 10) items by cosine, plus a term for each item where there is one; equal ones by row number."""
    nearness = directed(queries, "cosine") @ directed(items, "cosine").T
    return np.argsort(-(nearness if bias is None else nearness + bias), axis=1, kind="stable")[:, :DEPTH]


def figure(found: np.ndarray, grades: np.ndarray, *, top1: bool) -> float:
    """Mean top-1 or nDCG@10, in [0, 1], over the queries that something in the gallery answers."""
    answered = (grades > 0).any(axis=1)
    hits = np.take_along_axis(grades, found, axis=1)[answered]
    if top1:
        return float((hits[:, 0] > 0).mean())
    depth = found.shape[1]  # 10, or all of a smaller gallery
    return float(ndcg(hits, -np.sort(-grades[answered], axis=1)[:, :depth], depth).mean())


def load_bed(data: Path, setting: Setting, seed: int) -> Bed:
    """The vectors and judgements of a setting, split by a seed."""
    banking = setting.data == "banking77"
    names = ("train", "test") if banking else ("docs", "queries")
    folder = data / setting.data

    def vectors(model: str) -> tuple[np.ndarray, np.ndarray]:
        items, queries = (np.load(folder / f"{name}.{model}.npy", allow_pickle=False) for name in names)
        return directed(items, "cosine"), directed(queries, "cosine")

    if banking:
        items, queries = (np.array([line["label"] for line in lines(folder / f"{name}.jsonl")]) for name in names)
        grades = (queries[:, None] == items).astype(np.float32)
    else:
        grades = judgements(folder)
    pairs, gallery = split(grades.shape[1], setting.pairs, setting.left_out, seed)
    return Bed(vectors(setting.old), vectors(NEW), pairs, gallery, grades[:, gallery], banking)


def lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def judgements(folder: Path) -> np.ndarray:
    """(q, n) grades of a folder in BEIR's layout; what is judged but not there does not count, nor does a negative grade."""
    queries, items = (
        {row["_id"]: number for number, row in enumerate(lines(folder / name))} for name in ("queries.jsonl", "corpus.jsonl")
    )
    grades = np.zeros((len(queries), len(items)), dtype=np.float32)
    for query, item, grade in zip(*read_qrels(folder / "qrels" / "test.tsv"), strict=True):
        if query in queries and item in items:
            grades[queries[query], items[item]] = max(grade, 0.0)
    return grades
