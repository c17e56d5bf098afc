"""Whatever is wrong with the input: one line on stderr with the fact, the numbers and the remedy, and the exit code."""

import contextlib
import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from compatlearn.features.features import Features
from compatlearn.files import write_tensors
from samples import CAT, DOG, call, clusters, complaint, image_folder, write_images

TINY = ["--epochs", "1", "--batch-size", "8", "--resize", "8", "--image-size", "8"]
VECTORS, LABELS = clusters()


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_folder(tmp_path_factory.mktemp("pets"), {CAT: 8, DOG: 8})


def save(path: Path, vectors: Any = VECTORS, labels: Any = LABELS, **others: Any) -> Path:
    arrays = {"vectors": vectors, "labels": labels} | others
    np.savez(path, **{name: values for name, values in arrays.items() if values is not None})
    return path


def changed(place: Any, value: Any, values: np.ndarray = VECTORS) -> np.ndarray:
    copy = values.copy()
    copy[place] = value
    return copy


# features: what is in them

CONTENTS = {
    "NaN": (
        {"vectors": changed((3, 1), np.nan)},
        "1 of 30 rows of {path} have NaN or infinity (first: 3); drop or extract them again",
    ),
    "infinity": (
        {"vectors": changed(([4, 9, 11, 29], 0), np.inf)},
        "4 of 30 rows of {path} have NaN or infinity (first: 4, 9, 11, …); drop or extract them again",
    ),
    "zero vectors": (
        {"vectors": changed([7, 8], 0)},
        "2 of 30 rows of {path} have length zero (first: 7, 8); drop or extract them again",
    ),
    "no labels": (
        {"labels": None},
        "{path} has no labels (30 rows); store labels beside the vectors (.npz, .parquet), "
        "or name their column (--label-column)",
    ),
    "labels missing": (
        {"labels": changed(5, -1, LABELS)},
        "1 of 30 labels of {path} are negative (first: -1 in rows 5); give every row a class in range",
    ),
    "a class without rows": (
        {"labels": LABELS * 2},
        "2 of 5 classes have no feature (first: 1, 3); drop them or extract features for them",
    ),
    "labels that are not one a row": (
        {"labels": LABELS[:7]},
        "{path}: labels must hold one class for each of 30 rows; got shape (7,)",
    ),
    "labels of floats": (
        {"labels": LABELS * 0.5},
        "{path}: labels must be integers or names, not float64; number the classes from 0",
    ),
    "one dimension": (
        {"vectors": VECTORS[:, 0]},
        "{path}: vectors must be (rows, dimension), both at least 1; got shape (30,)",
    ),
    "no rows": (
        {"vectors": VECTORS[:0], "labels": LABELS[:0]},
        "{path}: vectors must be (rows, dimension), both at least 1; got shape (0, 4)",
    ),
    "integers": (
        {"vectors": VECTORS.astype(int)},
        "{path}: vectors must be float16, float32 or float64, not int64; convert them with astype",
    ),
    "no vectors": (
        {"vectors": None, "rows": VECTORS},
        "{path} has no key 'vectors' or 'vector', only: labels, rows; name the one with the vectors (--vector-column)",
    ),
}


@pytest.mark.parametrize("fault", CONTENTS)
def test_contents_of_features(capsys: pytest.CaptureFixture[str], tmp_path: Path, fault: str) -> None:
    arrays, message = CONTENTS[fault]
    path, out = save(tmp_path / "old.npz", **arrays), tmp_path / "pseudo.safetensors"
    assert complaint(capsys, 1, "pseudo", "--features", path, "--out", out) == message.format(path=path)
    assert list(tmp_path.iterdir()) == [path]


def test_labels_beyond_the_classes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = ("pseudo", "--features", save(tmp_path / "old.npz"), "--out", tmp_path / "p.safetensors", "--classes")
    message = complaint(capsys, 1, *arguments, "2")
    assert message == "10 of 30 labels are not in [0, 2) (first rows: 20, 21, 22, …); relabel them"
    message = complaint(capsys, 1, *arguments, "4")
    assert message == "1 of 4 classes have no feature (first: 3); drop them or extract features for them"


# features: files that are not what they should be


def cut(path: Path, size: int) -> Path:
    path.write_bytes(path.read_bytes()[:size])
    return path


def folder(path: Path, **others: Any) -> Path:
    Features(VECTORS, LABELS, **others).save(path)
    return path


def manifest(path: Path, **entries: Any) -> Path:
    folder(path)
    content = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(content | entries))
    return path


def flipped(path: Path) -> Path:
    folder(path)
    with (path / "vectors.npy").open("r+b") as file:
        file.seek(-5, 2)
        file.write(b"\x55")
    return path


def unfinished(path: Path) -> Path:
    folder(path)
    (path / "manifest.json").unlink()
    return path


def parquet(path: Path) -> Path:
    pq.write_table(pa.table({"vectors": list(VECTORS), "labels": LABELS}), path)
    return path


def tensors(path: Path) -> Path:
    save_file({"vectors": torch.tensor(VECTORS), "labels": torch.tensor(LABELS)}, path)
    return path


def plain(path: Path, content: bytes = b"") -> Path:
    path.write_bytes(content)
    return path


def objects(path: Path) -> Path:
    np.save(path, np.array([{"a": 1}, None], dtype=object), allow_pickle=True)
    return path


def pickled(path: Path) -> Path:
    torch.save({"vectors": Image.new("L", (2, 2))}, path)
    return path


PICKLE = r"{path} is a pickle, which can run code when it is opened; save it as .npy, .npz, .parquet or .safetensors"
FILES: dict[str, tuple[Callable[[Path], Path], str, str]] = {
    "empty npy": (plain, "a.npy", r"{path} is empty \(0 bytes\); write it again"),
    "empty npz": (plain, "a.npz", r"{path} is empty \(0 bytes\); write it again"),
    "empty parquet": (plain, "a.parquet", r"{path} is empty \(0 bytes\); write it again"),
    "empty safetensors": (plain, "a.safetensors", r"{path} is empty \(0 bytes\); write it again"),
    "empty pt": (plain, "a.pt", r"{path} is empty \(0 bytes\); write it again"),
    "an empty folder": (
        lambda path: path.mkdir() or path,
        "a",
        r"{path} holds no features: neither manifest.json nor .*; check the path",
    ),
    "nothing": (lambda path: path, "a", r"there is no {path}; check the path"),
    "another format": (plain, "a.h5", r"{path} is no format of features; give a folder of features, or \.npy, \.npz, .*"),
    "a table of text": (
        plain,
        "a.csv",
        r"{path} is text, and features are numbers in binary; save its columns as .parquet or .npz",
    ),
    "JSON": (plain, "a.json", r"{path} is JSON, and features are numbers in binary; save its vectors, ids and labels as .*"),
    "a FAISS index": (plain, "a.faiss", r"{path} is a FAISS index; save what its reconstruct_n gives \(of an IndexIDMap: .*"),
    "half an npz": (lambda p: cut(save(p), 300), "a.npz", r"{path} is not a whole .npz file \(300 bytes, .*\); write it again"),
    "half a parquet": (
        lambda p: cut(parquet(p), 300),
        "a.parquet",
        r"{path} is not a whole .parquet file \(300 bytes, .*\); write it again",
    ),
    "half a safetensors": (
        lambda p: cut(tensors(p), 300),
        "a.safetensors",
        r"{path} is not a whole .safetensors file \(300 bytes, .*\); write it again",
    ),
    "half of vectors.npy": (
        lambda p: cut(folder(p) / "vectors.npy", 300).parent,
        "a",
        r"{path}/vectors.npy is truncated: 300 of 608 bytes; write it again",
    ),
    "a stub of vectors.npy": (
        lambda p: cut(folder(p) / "vectors.npy", 20).parent,
        "a",
        r"{path}/vectors.npy is not a whole .npy file \(20 bytes\); write it again",
    ),
    "half of rows.parquet": (
        lambda p: cut(folder(p) / "rows.parquet", 100).parent,
        "a",
        r"{path}/rows.parquet cannot be read \(.*\); extract it again",
    ),
    "another number of rows": (
        lambda p: manifest(p, rows=29, shards=[{"first": 0, "rows": 29, "checksum": ""}]),
        "a",
        r"{path}/vectors.npy is \(30, 4\) float32, but its manifest says \(29, 4\) float32; extract it again",
    ),
    "another dimension": (
        lambda p: manifest(p, dimension=5),
        "a",
        r"{path}/vectors.npy is \(30, 4\) float32, but its manifest says \(30, 5\) float32; extract it again",
    ),
    "shards that do not add up": (
        lambda p: manifest(p, shards=[]),
        "a",
        r"{path}/manifest.json lists shards that do not add up to its 30 rows; extract it again",
    ),
    "one changed byte": (flipped, "a", r"shard 0 \(rows 0 to 29\) of {path} does not match its checksum; extract it again"),
    "a manifest of something else": (
        lambda p: manifest(p, format="other"),
        "a",
        r"{path}/manifest.json is not a manifest of compatlearn features; .*",
    ),
    "a later version": (
        lambda p: manifest(p, version=2),
        "a",
        r"{path}/manifest.json has version 2, this compatlearn reads version 1; upgrade compatlearn",
    ),
    "no manifest": (unfinished, "a", r"{path} has no manifest.json: writing it was not finished; write it again"),
    "a pickle": (lambda p: plain(p, pickle.dumps(VECTORS)), "a.pkl", PICKLE),
    "a pickle named npy": (lambda p: plain(p, pickle.dumps(VECTORS)), "a.npy", PICKLE),
    "a pickle named npz": (lambda p: plain(p, pickle.dumps(VECTORS)), "a.npz", PICKLE),
    "a pickle named pt": (lambda p: plain(p, pickle.dumps(VECTORS)), "a.pt", PICKLE),
    "objects in an npy": (objects, "a.npy", PICKLE),
    "objects in a pt": (pickled, "a.pt", r"{path} is a pickle of more than tensors; save a dict of tensors, or .safetensors"),
}


@pytest.mark.parametrize("fault", FILES)
def test_files_of_features(capsys: pytest.CaptureFixture[str], tmp_path: Path, fault: str) -> None:
    make, name, message = FILES[fault]
    path, out = make(tmp_path / name), tmp_path / "pseudo.safetensors"
    pattern = message.replace("{path}", re.escape(str(path)))
    assert re.fullmatch(pattern, complaint(capsys, 1, "pseudo", "--features", path, "--out", out))
    assert not out.exists()


# two sets of features

PAIRS: dict[str, tuple[dict[str, dict[str, Any]], str]] = {
    "another dimension": (
        {"old_gallery": {"vectors": VECTORS[:, :3], "space": "old"}},
        "old_query has 4 dimensions and old_gallery 3; a self test needs both by one model",
    ),
    "another space": (
        {"old_gallery": {"space": "older"}},
        "old_query is in space 'old' and old_gallery in 'older'; a self test needs both by one model",
    ),
    "ids of other rows": (
        {"new_query": {"ids": np.r_[100:105, 5:30], "space": "new"}},
        "5 of 30 ids of old_query are not in new_query (first: 0, 1, 2, …), and 5 of its 30 not in old_query; "
        "extract the same rows with both models",
    ),
    "ids of another kind": (
        {"new_query": {"ids": np.arange(30).astype(str), "space": "new"}},
        "the ids of old_query are numbers (row numbers) and those of new_query text (first: 0, 1, 2, …); "
        "give both the same kind of id",
    ),
    "ids that are not unique": (
        {"new_query": {"ids": np.arange(30) // 2, "space": "new"}},
        "15 ids of new_query occur more than once (first: 0, 1, 2, …); give every row its own",
    ),
    "other labels": (
        {"new_query": {"labels": LABELS[::-1], "space": "new"}},
        "20 of 30 rows of old_query have another class in new_query under the same id (first: 0, 1, 2, …); "
        "an id must name one item everywhere, and its class must not change",
    ),
    "no labels": (
        {"old_gallery": {"labels": None, "space": "old"}},
        "old_gallery has no labels, and nothing else says what answers a query; give every row a class, or give judgements "
        "(--qrels or --clicks)",
    ),
}


@pytest.mark.parametrize("fault", PAIRS)
def test_features_that_do_not_fit_together(capsys: pytest.CaptureFixture[str], tmp_path: Path, fault: str) -> None:
    faults, message = PAIRS[fault]
    arguments = []
    for name in ("old_query", "old_gallery", "new_query"):
        columns = {"vectors": VECTORS, "labels": LABELS, "space": name.split("_")[0]} | faults.get(name, {})
        Features(columns.pop("vectors"), **columns).save(tmp_path / name)
        arguments += [f"--{name.replace('_', '-')}", tmp_path / name]
        message = re.sub(rf"\b{name}\b", f"{name} ({tmp_path / name})", message)
    assert complaint(capsys, 1, "evaluate", *arguments, "--require-compatible", progress=True) == message


def test_evaluate_names_the_features_that_are_not_finite(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    good, bad = save(tmp_path / "good.npz"), save(tmp_path / "bad.npz", vectors=changed((3, 1), np.nan))
    arguments = ("evaluate", "--old-query", good, "--old-gallery", good, "--new-query", bad)
    message = complaint(capsys, 1, *arguments, progress=True)  # after a line that says that rows are paired by number
    assert message == f"1 of 30 rows of new_query ({bad}) have NaN or infinity (first: 3); drop or extract them again"
    save(bad, vectors=changed((3, slice(None)), 0.0))
    message = complaint(capsys, 1, *arguments, "--metric", "cosine", progress=True)
    assert message == f"1 of 30 rows of new_query ({bad}) have length zero (first: 3); drop or extract them again"


def test_evaluate_refuses_narrow_queries_unless_they_are_to_be_padded(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    Features(VECTORS, LABELS, np.arange(30), space="o").save(old)
    Features(VECTORS[:, :3], LABELS, np.arange(30), space="n").save(new)
    arguments = ("evaluate", "--old-query", old, "--old-gallery", old, "--new-query", new)
    message = complaint(capsys, 1, *arguments)
    assert message.startswith(f"new_query ({new}) has 3 dimensions and old_gallery ({old}) 4: without a map")
    assert "; give --adapter, or --pad if the new model" in message
    assert call(capsys, *arguments, "--pad")[0] == 0


def test_evaluate_with_judgements(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    old, new, qrels = tmp_path / "old", tmp_path / "new", tmp_path / "test.tsv"
    for path in (old, new):
        Features(VECTORS, ids=[f"d{row}" for row in range(30)], space=path.name).save(path)
    lines = [f"d{row}\td{(row + 10) % 30}\t1" for row in range(30)]
    qrels.write_text("\n".join(["query-id\tcorpus-id\tscore", *lines, "d3\tother\t1"]))
    arguments = ("evaluate", "--old-query", old, "--old-gallery", old, "--new-query", new, "--qrels", qrels, "--json")
    code, out, err = call(capsys, *arguments)
    assert (code, err) == (0, "")
    figures = json.loads(out)
    assert (figures["queries"], figures["queries_without_relevant"], figures["unknown_items"]) == (30, 0, 1)
    assert figures["per_class"] == []
    assert (figures["primary"], set(figures["cross"])) == ("ndcg10", {"top1", "top5", "map_r", "ndcg10", "recall100", "mrr10"})
    code, out, _ = call(capsys, *arguments[:-1])
    assert code == 0
    assert out.startswith("compatible: undecided, by nDCG@10")
    assert "judged but unknown: 0 queries, 1 items" in " ".join(out.split())
    for text, message in (
        ("d1 d2\n", f"line 1 of {qrels} is no judgement ('d1 d2')"),
        ("d1\td2\t1\nd1\td3\tgood\n", f"line 2 of {qrels} is no judgement ('d1\\td3\\tgood')"),
        (
            "Q1\tP1\t1\n",
            f"no row of old_gallery ({old}) answers any of the 30 queries: 1 judged queries and 0 judged items are",
        ),
        ("Q1\tP1\t1\n", "not among the ids (judged queries: 'Q1'; old_query"),
    ):
        qrels.write_text(text)
        assert message in complaint(capsys, 1, *arguments)


def test_evaluate_with_clicks(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    old, new, clicks = tmp_path / "old", tmp_path / "new", tmp_path / "clicks.csv"
    for path in (old, new):
        Features(VECTORS, space=path.name).save(path)
    clicks.write_text("query_id,item_id,count\n" + "".join(f"{row},{(row + 10) % 30},2\n" for row in range(28)))
    arguments = ("evaluate", "--old-query", old, "--old-gallery", old, "--new-query", new, "--clicks", clicks)
    code, out, _ = call(capsys, *arguments, "--json")
    figures = json.loads(out)
    assert (code, figures["primary"], figures["queries_without_judgement"]) == (0, "ndcg10", 2)
    assert call(capsys, *arguments, "--require-compatible")[0] == 3
    both = complaint(capsys, 1, *arguments, "--qrels", clicks, progress=True)
    assert both == "--qrels and --clicks both say what answers a query; give one of them"
    clicks.write_text("query,document\n1,2\n")
    message = complaint(capsys, 1, *arguments, progress=True)
    assert message.startswith(f"{clicks} has no column 'item_id', only: 'query', 'document'")


def test_evaluate_over_classes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    bare, labelled = tmp_path / "bare", tmp_path / "labelled"
    Features(VECTORS, ids=np.arange(30), space="s").save(bare)
    Features(VECTORS, LABELS, np.arange(30), space="s").save(labelled)

    def arguments(path: Path) -> tuple[object, ...]:
        return "evaluate", "--old-query", path, "--old-gallery", path, "--new-query", path, "--cluster", "class"

    message = complaint(capsys, 1, *arguments(bare))
    assert message == (
        f"there are no labels of old_query ({bare}), so --cluster class has no classes to draw; give labels, or --cluster query"
    )
    code, out, _ = call(capsys, *arguments(labelled))
    assert code == 0
    assert f"[95 % intervals over {len(set(LABELS.tolist()))} classes, too few to rely on]" in " ".join(out.split())


def test_evaluate_without_any_truth(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    queries, gallery = tmp_path / "queries", tmp_path / "gallery"
    Features(VECTORS[:5], ids=np.arange(100, 105), space="s").save(queries)
    Features(VECTORS, ids=np.arange(30), space="s").save(gallery)
    arguments = ("evaluate", "--old-query", queries, "--old-gallery", gallery, "--new-query", queries)
    assert complaint(capsys, 1, *arguments) == (
        f"old_query ({queries}) has no labels, and nothing else says what answers a query; give every row a class, "
        "or give judgements (--qrels or --clicks), or --new-gallery: the new model's own ranking then stands for the truth"
    )
    code, out, _ = call(capsys, *arguments, "--new-gallery", gallery)
    assert code == 0
    assert out.startswith("compatible: undecided, by agreement@10")


# names and options

USAGE = [
    ("trian", 2, r'Unknown command "trian". Did you mean "train"\? .*'),
    ("pseudo --features x --out y --temprature 1", 2, r"Unknown option: --temprature. Did you mean --temperature\?"),
    ("train --data digits --backbone x --out y --epoch 3", 2, r"Unknown option: --epoch. Did you mean --epochs\?"),
    ("train --backbone x --out y", 2, "train needs --data; see compatlearn train --help"),
    (
        "train --data digits --backbone x --out y --epochs many",
        2,
        r'Invalid value for --epochs: unable to convert "many" into int.',
    ),
    (
        "train --data digits --backbone x --out y --schedule cosine",
        2,
        r'Invalid value "cosine" for --schedule. Choose from: "step", .*',
    ),
    (
        "evaluate --old-query a --old-gallery b --new-query c --metric l1",
        2,
        r'Invalid value "l1" for --metric. Choose from: .*',
    ),
    ("compare --out y stray", 2, r"Unused Tokens: \['stray'\]."),
    ("compare --out y --epochs", 2, r'Command "compare" parameter --epochs requires an argument.'),
    ("compare --out y --epoch 3", 1, r"unknown recipe key 'epoch'; did you mean 'epochs'\?"),
    ("sweep --out y --learning_rat 3", 1, r"unknown recipe key 'learning_rat'; did you mean 'learning_rate'\?"),
    ("compare --out y --epochs many", 1, r"epochs must be a whole number; got 'many'"),
    ("compare --out y --training.epochs 0", 1, r"epochs must be at least 1; got 0"),
    ("compare --out y", 1, r"no data: the recipe names none, so pass --data .*"),
    ("compare --out y --recipe no.toml", 1, r"cannot read recipe no.toml: No such file or directory; check the path"),
    ("compare --out y --recipe digts", 1, r"unknown recipe 'digts'; did you mean 'digits'\?"),
    ("compare --out y --data digits --methods random-wlak", 1, r"unknown method 'random-wlak'; did you mean 'random-walk'\?"),
    ("sweep --out y --data digits --methods l1 mean", 1, r"unknown method 'l1'; known: adjoint, .*, independent, .*"),
    ("train --data digits --backbone x --out y --dimension 0", 1, r"dimension must be at least 1; got 0"),
    ("train --data digits --backbone x --out y --seed -1", 1, r"seed must be in \[0, 2³²\); got -1"),
    ("train --data digits --backbone x --out y --image-size 300", 1, r"a crop of 300 pixels does not fit in resize 256 .*"),
    (
        "train --data /no/where --backbone x --out y",
        1,
        r"there is no /no/where; give digits, Parquet files, an image folder .*",
    ),
    (
        "train --data digits:tset --backbone x --out y",
        1,
        r"digits has no split 'tset', only train, val, all; name one as DATA:SPLIT",
    ),
    (
        "train --data digits --backbone small_resnet4 --out y --method mena --resize 8 --image-size 8",
        1,
        r"unknown method 'mena'; did you mean 'mean'\?",
    ),
    (
        "train --data digits --backbone small_resnet4 --out y --method l2 --resize 8 --image-size 8",
        1,
        r"--method l2 says how --features are used; pass --features, or leave --method out",
    ),
    (
        "train --data digits --backbone reznet18 --out y --resize 8 --image-size 8",
        1,
        r"unknown backbone 'reznet18'; did you mean .*\?",
    ),
    (
        "extract --data digits --model vit_tiny_patch16_225 --out y",
        1,
        r"unknown backbone '.*'; did you mean 'vit_tiny_patch16_224'\?",
    ),
    (
        "extract --data digits --model no_module:f --out y",
        1,
        r"cannot import 'no_module:f': ModuleNotFoundError: .*; give module:function",
    ),
    (
        "extract --data digits --model samples:no --out y",
        1,
        r"cannot import 'samples:no': AttributeError: .*; give module:function",
    ),
    ("extract --data digits --model samples:mean_colour --out y --batch-size 0", 1, r"batch_size must be at least 1, .*"),
    ("extract --data digits --model samples:mean_colour --out y --device warp", 1, r"device 'warp' cannot be used: .*"),
    (
        "extract --data digits --model samples:mean_colour --out y --dtype int8",
        2,
        r'Invalid value "int8" for --dtype. Choose .*',
    ),
    ("recipe no.toml", 1, r"cannot read recipe no.toml: No such file or directory; check the path"),
    (
        "evaluate --old-query a --old-gallery b --new-query c --address node:1",
        1,
        r"--address node:1 is that of a Ray cluster; pass --engine ray too, or leave it out",
    ),
    ("pseudo --features x --out y --engine dask", 2, r'Invalid value "dask" for --engine. Choose from: "local", "ray".'),
]


@pytest.mark.parametrize(("line", "code", "message"), USAGE, ids=[line for line, _, _ in USAGE])
def test_names_and_options(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str, code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert re.fullmatch(message, complaint(capsys, code, *line.split()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--method random-wolk", "unknown pseudo classifier 'random-wolk'; did you mean 'random-walk'?"),
        ("--temperature 0", "temperature must be above 0; got 0.0"),
        ("--damping 1", "damping must be in [0, 1), or 1 with a number of steps; got 1.0"),
        ("--steps -1", "steps must be 0 or more; got -1"),
    ],
)
def test_options_of_pseudo(capsys: pytest.CaptureFixture[str], tmp_path: Path, options: str, message: str) -> None:
    arguments = ("pseudo", "--features", save(tmp_path / "old.npz"), "--out", tmp_path / "p.safetensors")
    assert complaint(capsys, 1, *arguments, *options.split()) == message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("epochs = ", "{path} is not TOML: Invalid value (at end of document); mend it there"),
        ("[training]\nepochs = 'x'", "epochs must be a whole number; got 'x'"),
        ("[training]\nepoch = 3", "unknown key in [training] of {path} 'epoch'; did you mean 'epochs'?"),
        ("epochs = 3", "key 'epochs' of {path} stands in the wrong place; put it below [training]"),
    ],
)
def test_recipes(capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "some.toml"
    path.write_text(content)
    said = complaint(capsys, 1, "compare", "--recipe", path, "--data", "digits", "--out", tmp_path / "out")
    assert said == message.format(path=path)
    assert not (tmp_path / "out").exists()


# data


def test_data_that_cannot_be_used(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    write_images(tmp_path / "cut.parquet", [0, 1])
    cut(tmp_path / "cut.parquet", 200)
    cases = {
        tmp_path / "none": rf"{tmp_path}/none holds no class folders with images; expected <class>/<image>.jpg, .*",
        tmp_path
        / "cut.parquet": rf"{tmp_path}/cut.parquet is not a whole Parquet file \(200 bytes\); write or download it again",
        f"{tmp_path}/cut.parquet:val": rf"{tmp_path}/cut.parquet has no split 'val', only all; name one as DATA:SPLIT",
    }
    for data, message in cases.items():
        said = complaint(capsys, 1, "extract", "--data", data, "--model", "samples:mean_colour", "--out", tmp_path / "out")
        assert re.fullmatch(message, said)


def test_more_unreadable_images_than_are_tolerated(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    root = image_folder(tmp_path / "pets", {CAT: 20, DOG: 20})
    for name in ("cat/4.png", "dog/7.png"):
        (root / name).write_bytes(b"no picture")
    message = (
        rf"2 of 40 images cannot be read, more than the tolerance of 0.03 allows \(first: image cat/4.png of {root} cannot be "
        r"read: cannot identify image file .*\); mend or remove them, or raise the tolerance"
    )
    out = ("--out", tmp_path / "out", "--tolerance", "0.03")
    assert re.fullmatch(message, complaint(capsys, 1, "extract", "--data", root, "--model", "samples:mean_colour", *out))
    train = ("train", "--data", root, "--backbone", "small_resnet4", *TINY)
    assert re.fullmatch(message, complaint(capsys, 1, *train, "--out", tmp_path / "new", "--tolerance", "0.03"))
    assert call(capsys, *train, "--out", tmp_path / "run", "--tolerance", "0.05")[0] == 0


# models


def wide(pictures: list[Image.Image]) -> np.ndarray:
    return np.zeros((len(pictures), 2, 3))


def one_less(pictures: list[Image.Image]) -> np.ndarray:
    return np.zeros((len(pictures) - 1, 3))


def ragged(pictures: list[Image.Image]) -> list[list[float]]:
    return [[0.0] * (row + 1) for row in range(len(pictures))]


def whole(pictures: list[Image.Image]) -> np.ndarray:
    return np.zeros((len(pictures), 3), dtype=int)


def raising(pictures: list[Image.Image]) -> np.ndarray:
    raise KeyError("no\nsuch layer")


def not_a_number(pictures: list[Image.Image]) -> np.ndarray:
    return np.full((len(pictures), 3), np.nan)


MODELS = {
    "wide": r"{} was given 16 images and must return \(16, d\) floats; it returned float64 of shape \(16, 2, 3\)",
    "one_less": r"{} was given 16 images and must return \(16, d\) floats; it returned float64 of shape \(15, 3\)",
    "whole": r"{} was given 16 images and must return \(16, d\) floats; it returned int64 of shape \(16, 3\)",
    "ragged": r"{} failed on 16 images: ValueError: .*inhomogeneous.*",
    "raising": r"{} failed on 16 images: KeyError: .*such layer'",
    "not_a_number": r"{} gave NaN or infinity for 16 of 16 images \(first: cat/0.png, .*, …\); check the model .*",
}


@pytest.mark.parametrize("name", MODELS)
def test_black_boxes(capsys: pytest.CaptureFixture[str], pets: Path, tmp_path: Path, name: str) -> None:
    model, out = f"test_cli_errors:{name}", tmp_path / "out"
    said = complaint(capsys, 1, "extract", "--data", pets, "--model", model, "--out", out)
    assert re.fullmatch(MODELS[name].format(model), said)
    assert not (out / "manifest.json").exists()


def test_weights(capsys: pytest.CaptureFixture[str], pets: Path, tmp_path: Path) -> None:
    cases = {
        pickled(tmp_path / "a.pt"): r"{} holds more than tensors and is not opened; save its state dict as .safetensors",
        plain(tmp_path / "b.pt", pickle.dumps(VECTORS)): r"{} holds more than tensors and is not opened; .*",
        plain(
            tmp_path / "c.safetensors", pickle.dumps(VECTORS)
        ): r"{} is not a whole file of weights \(\d+ bytes: .*\); write .*",
        tmp_path / "d.pt": r"there are no weights {}; check --weights",
        tensors(
            tmp_path / "e.safetensors"
        ): r"{} lacks \d+ of .* \(first: conv1.*; the file begins with \w+\); is it another .*",
    }
    for weights, message in cases.items():
        arguments = ("extract", "--data", pets, "--model", "resnet10t", "--weights", weights, "--out", tmp_path / "out")
        assert re.fullmatch(message.format(re.escape(str(weights))), complaint(capsys, 1, *arguments))


# training


@pytest.fixture
def pseudo(tmp_path: Path) -> Path:
    """Two classes, 20 dimensions: more than the 16 of small_resnet4."""
    path = tmp_path / "pseudo.safetensors"
    save_file({"classifier": torch.eye(2, 20)}, path)
    return path


def training(data: object, out: Path, *options: object, backbone: str = "small_resnet4") -> tuple[object, ...]:
    return ("train", "--data", data, "--backbone", backbone, "--out", out, *TINY, *options)


def test_a_pseudo_classifier_with_more_dimensions_than_the_model(
    capsys: pytest.CaptureFixture[str], pets: Path, pseudo: Path, tmp_path: Path
) -> None:
    said = complaint(capsys, 1, *training(pets, tmp_path / "a", "--pseudo", pseudo))
    remedy = "train it with --dimension 20, which adds a linear layer"
    assert said == f"the old features have 20 dimensions, the new model gives 16; {remedy}"
    code, out, _ = call(capsys, *training(pets, tmp_path / "b", "--pseudo", pseudo, "--dimension", "20"))
    assert (code, out) == (0, f"{tmp_path / 'b'}: trained on 16 images of 2 classes, 0 unreadable ones skipped\n")
    code, out, _ = call(capsys, "extract", "--data", pets, "--model", tmp_path / "b", "--out", tmp_path / "features")
    assert (code, out) == (0, f"{tmp_path / 'features'}: 16 features of 20 dimensions, 0 unreadable images skipped\n")


def test_pseudo_classifiers_that_cannot_be_used(
    capsys: pytest.CaptureFixture[str], pets: Path, pseudo: Path, tmp_path: Path
) -> None:
    save_file({"classifier": torch.eye(3, 4)}, tmp_path / "three.safetensors")
    save_file({"other": torch.eye(2)}, tmp_path / "other.safetensors")
    save_file({"classifier": changed_tensor()}, tmp_path / "nan.safetensors")
    torch.save(torch.eye(2), tmp_path / "a.pt")
    cases = {
        tmp_path
        / "three.safetensors": "the pseudo classifier {} has 3 classes, the training data 2; make it from features of .*",
        tmp_path / "other.safetensors": r"{} has no tensor 'classifier' or 'weight', only other; rename it",
        tmp_path / "nan.safetensors": r"1 of 2 rows of the pseudo classifier {} have NaN or infinity \(first: 1\); .*",
        tmp_path / "a.pt": r"{} is not a whole safetensors file \(\d+ bytes: a pickle is not opened\); make one with .*",
        plain(
            tmp_path / "a.pkl", pickle.dumps(VECTORS)
        ): r"{} is not a whole safetensors file .*: a pickle is not opened\); .*",
        cut(plain(tmp_path / "cut.safetensors", pseudo.read_bytes()), 99): r"{} is not a whole safetensors file \(99 bytes: .*",
        plain(tmp_path / "empty.safetensors"): r"{} is not a whole safetensors file \(0 bytes: .*",
        tmp_path / "no.safetensors": "there is no pseudo classifier {}; make one with `compatlearn pseudo`",
    }
    for path, message in cases.items():
        said = complaint(capsys, 1, *training(pets, tmp_path / "run", "--pseudo", path))
        assert re.fullmatch(message.format(re.escape(str(path))), said)
        assert not (tmp_path / "run").exists()


def changed_tensor() -> torch.Tensor:
    rows = torch.eye(2)
    rows[1, 0] = torch.nan
    return rows


def test_old_features_that_do_not_fit_the_images(
    capsys: pytest.CaptureFixture[str], pets: Path, pseudo: Path, tmp_path: Path
) -> None:
    numbers, some = tmp_path / "numbers.npz", tmp_path / "some.npz"
    ids = np.array([f"{name}/{number}.png" for name in (CAT, DOG) for number in range(8)])
    save(numbers, VECTORS[:16], LABELS[:16])
    save(some, VECTORS[:13], LABELS[:13], ids=ids[:13])
    cases = {
        numbers: f"the ids of {numbers} are row numbers, those of the training images come from file names (first: cat/0.png, "
        "cat/1.png, cat/2.png, …); give both the ids of the items (id_column names their column), "
        "or pair both by row number (id_column='row')",
        some: f"3 of 16 ids of the training images are not in {some} (first: dog/5.png, dog/6.png, dog/7.png); "
        "extract the same rows with both models",
    }
    for path, message in cases.items():
        assert complaint(capsys, 1, *training(pets, tmp_path / "run", "--features", path)) == message
    both = training(pets, tmp_path / "run", "--features", numbers, "--pseudo", pseudo)
    assert complaint(capsys, 1, *both) == "--pseudo and --features are two ways to give the old model; pass one"
    old = save(tmp_path / "old.npz", VECTORS[:16], LABELS[:16], ids=ids)
    bct = training(pets, tmp_path / "run", "--features", old, "--method", "bct")
    assert complaint(capsys, 1, *bct).startswith("method 'bct' needs the old model's own classifier, which is not known here")
    alone = training(pets, tmp_path / "run", "--features", old, "--method", "bt2")
    said = "method 'bt2' needs an independently trained model's features of these images; pass --independent"
    assert complaint(capsys, 1, *alone) == said
    narrow = save(tmp_path / "new.npz", np.tile(VECTORS[:16], 4)[:, :16], LABELS[:16], ids=ids)
    said = complaint(capsys, 1, *alone, "--independent", narrow)
    assert said.startswith("bt2 embeds in more dimensions than the independent model's 16")
    assert not (tmp_path / "run").exists()  # nothing is begun before everything is known to fit
    walk = training(pets, tmp_path / "run", "--features", old, "--independent", narrow)
    assert complaint(capsys, 1, *walk) == (
        "--independent is for --method bt2; leave it out, or pass that instead of random-walk"
    )
    fitting = ("--independent", narrow, "--dimension", "20")
    assert call(capsys, *alone, *fitting)[0] == 0


def test_a_folder_that_holds_a_run(capsys: pytest.CaptureFixture[str], pets: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert call(capsys, *training(pets, run))[0] == 0
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    said = complaint(capsys, 1, *training(pets, run))
    assert said == f"{run} already holds a run; pass --resume to go on with it, or another --out"
    said = complaint(capsys, 1, *training(pets, run, "--resume", "--learning-rate", "0.2", "--seed", "3"))
    assert said == (
        f"{run} was begun with other settings: learning_rate was 0.1, is 0.2; seed was 0, is 3; "
        "resume with the same, or another --out"
    )
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_a_comparison_of_another_recipe(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text(json.dumps({"data": "digits", "temperature": 1.0}))
    said = complaint(capsys, 1, "compare", "--recipe", "digits", "--out", tmp_path)
    assert said.startswith(f"{tmp_path} was begun with other settings: ")
    assert "temperature was 1.0, is 0.05" in said
    assert said.endswith("; resume with the same, or another --out")


def test_an_extraction_of_another_model(capsys: pytest.CaptureFixture[str], pets: Path, tmp_path: Path) -> None:
    arguments = ("extract", "--data", pets, "--out", tmp_path / "out", "--model")
    assert call(capsys, *arguments, "samples:mean_colour")[0] == 0
    said = complaint(capsys, 1, *arguments, "test_cli_errors:wide")
    plan = "space 'samples:mean_colour', now 'test_cli_errors:wide'"
    assert said == f"{tmp_path}/out was begun with another plan ({plan}); use another --out or delete {tmp_path}/out"


def two_outputs() -> torch.nn.Module:
    class Two(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return pixels, pixels

    return Two()


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ("test_cli_errors:two_outputs", r"a backbone must return \(batch, dimension\) features; got tuple"),
        ("test_cli_errors:wide", r"test_cli_errors:wide\(\) failed: TypeError: .*"),
        ("time:time", r"time:time\(\) must return a torch module; it returned float"),
        ("resnet18.no_such_weights", r"timm cannot make 'resnet18.no_such_weights': .*; see timm.list_pretrained\(\)"),
    ],
)
def test_backbones(capsys: pytest.CaptureFixture[str], pets: Path, tmp_path: Path, backbone: str, message: str) -> None:
    assert re.fullmatch(message, complaint(capsys, 1, *training(pets, tmp_path / "run", backbone=backbone)))


def test_training_that_diverges(capsys: pytest.CaptureFixture[str], pets: Path, tmp_path: Path) -> None:
    said = complaint(capsys, 1, *training(pets, tmp_path / "run", "--learning-rate", "1e30"), progress=True)
    assert re.fullmatch(
        r"training diverged in epoch 1 of 1: class loss (nan|inf), compatible loss 0; lower learning_rate .*", said
    )
    assert not (tmp_path / "run" / "model.safetensors").exists()


# the disk


@contextlib.contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """No file of this process can grow beyond `limit` bytes: writing fails as it does on a full disk."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_no_half_pseudo_classifier(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    vectors, labels = clusters(dimension=400)
    features, out = save(tmp_path / "old.npz", vectors, labels), tmp_path / "p.safetensors"
    with full_disk(2000):
        said = complaint(capsys, 1, "pseudo", "--features", features, "--out", out)
    assert re.fullmatch(rf"cannot write {out}: .*; free some space or write elsewhere", said)
    assert list(tmp_path.iterdir()) == [features]
    write_tensors(out, {"classifier": torch.ones(3, 4)}, {"format": "compatlearn-pseudo"})
    older = out.read_bytes()
    with full_disk(2000):
        complaint(capsys, 1, "pseudo", "--features", features, "--out", out)
    assert out.read_bytes() == older
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old.npz", "p.safetensors"]


def test_a_full_disk_stops_an_extraction_that_goes_on_later(
    capsys: pytest.CaptureFixture[str], pets: Path, tmp_path: Path
) -> None:
    out, weights = tmp_path / "out", tmp_path / "p.safetensors"
    arguments = ("extract", "--data", pets, "--model", "samples:mean_colour", "--out", out)
    with full_disk(800):
        said = complaint(capsys, 1, *arguments)
    assert re.fullmatch(rf"cannot write {out}/shards/00000.npz: .*; free some space or write elsewhere", said)
    assert [path.name for path in out.rglob("*") if path.is_file()] == ["plan.json"]
    assert "was not finished (0 of 1 shards)" in complaint(capsys, 1, "pseudo", "--features", out, "--out", weights)
    assert call(capsys, *arguments)[0] == 0
    assert len(Features.load(out, verify=True)) == 16


def test_a_full_disk_leaves_no_half_model(capsys: pytest.CaptureFixture[str], pets: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with full_disk(8000):
        said = complaint(capsys, 1, *training(pets, out), progress=True)
    assert re.fullmatch(rf"cannot write {out}/model.safetensors: .*; free some space or write elsewhere", said)
    assert sorted(path.name for path in out.iterdir()) == ["log.jsonl", "run.json"]
    assert call(capsys, *training(pets, out, "--resume"))[0] == 0


def test_no_space_left_on_a_real_process(tmp_path: Path) -> None:
    """The command itself, as a shell sees it: one line, one exit code, nothing left behind."""
    pytest.importorskip("resource")
    vectors, labels = clusters(dimension=400)
    save(tmp_path / "old.npz", vectors, labels)
    script = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000));from compatlearn.cli import main; main()"
    command = [sys.executable, "-B", "-c", script, "pseudo", "--features", "old.npz", "--out", "p.safetensors"]
    process = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert (process.returncode, process.stdout) == (1, "")
    assert re.fullmatch(r"compatlearn: cannot write p.safetensors: .*; free some space or write elsewhere\n", process.stderr)
    assert [path.name for path in tmp_path.iterdir()] == ["old.npz"]


def test_an_output_that_cannot_be(capsys: pytest.CaptureFixture[str], pets: Path, tmp_path: Path) -> None:
    file = plain(tmp_path / "file")
    for arguments in (
        ("extract", "--data", pets, "--model", "samples:mean_colour", "--out", file / "x"),
        ("pseudo", "--features", save(tmp_path / "old.npz"), "--out", file / "x" / "p.safetensors"),
        training(pets, file / "x"),
    ):
        said = complaint(capsys, 1, *arguments)
        assert re.fullmatch(
            rf"--out {file}/x.* lies below {file}, which is a file; name a folder that is one"
            rf"|cannot write {file}/x/.*: (Not a directory|File exists); check the path and its permissions",
            said,
        )
