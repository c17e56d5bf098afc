"""A live index upgraded from end to end: texts, plan, translate, a partial backfill, search, and the way back.

    python examples/live_upgrade.py --index postgresql://localhost/shop#items.embedding \\
        --items train.jsonl --queries test.jsonl --new-model sentence-transformers/all-MiniLM-L6-v2 --out upgrade
    python examples/live_upgrade.py --index lancedb:shop.lance#items.embedding --items … (the same)

ITEMS and QUERIES are JSON lines with `id`, `text` and `label`: an item answers a query of its label. Items are written to the
index with the vectors of an old model, TF-IDF and SVD, unless they are there. Then everything is done by the commands that
you would type, and after each step the share of queries whose first hit is right is printed, and written to OUT/figures.json.
The last step takes the new column away again and compares every row with what it was.
"""

import json
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from cyclopts import run

import compatlearn as cl
from compatlearn.adapters.methods import GALLERY, QUERY
from compatlearn.cli.app import run as compatlearn
from compatlearn.evaluation.figures import mean_of
from compatlearn.migration.search import Road
from compatlearn.upgrade.files import FILES

OLD_MODEL, CORPUS = "live_upgrade:old_model", "LIVE_UPGRADE_ITEMS"
SECOND = "embedding_v2"


@cache
def _fitted(corpus: str) -> Any:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline

    texts = cl.open_texts(corpus).texts
    words = TfidfVectorizer(sublinear_tf=True)
    width = min(128, words.fit_transform(texts).shape[1] - 1)
    return make_pipeline(words, TruncatedSVD(width, random_state=0)).fit(texts)


def old_model(texts: list[str]) -> np.ndarray:
    """TF-IDF and SVD, fitted to the items: a text without a known word gets a small vector of its own length."""
    vectors = _fitted(os.environ[CORPUS]).transform(texts)
    lost = ~vectors.any(axis=1)
    vectors[lost, 0] = 1e-3
    return vectors.astype(np.float32)


def fill(address: str, ids: np.ndarray, texts: list[str], vectors: np.ndarray) -> None:
    """What the application has: a table of ids, texts and old vectors, with an index on them."""
    place, name = address.rsplit("#", 1)
    table = name.split(".")[0]
    if place.startswith("lancedb:"):
        import lancedb
        import pyarrow as pa

        rows = pa.table(
            {"id": ids, "embedding": pa.array(list(vectors), pa.list_(pa.float32(), vectors.shape[1])), "text": texts}
        )
        lancedb.connect(place.removeprefix("lancedb:")).create_table(table, rows, mode="overwrite")
        return
    import psycopg
    from pgvector.psycopg import register_vector

    with psycopg.connect(place, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        register_vector(connection)
        connection.execute(f"DROP TABLE IF EXISTS {table}")
        connection.execute(f"CREATE TABLE {table} (id text PRIMARY KEY, embedding vector({vectors.shape[1]}), text text)")
        with connection.cursor() as cursor:
            rows = zip(ids.tolist(), vectors, texts, strict=True)
            cursor.executemany(f"INSERT INTO {table} VALUES (%s, %s, %s)", rows)
        connection.execute(f"CREATE INDEX ON {table} USING hnsw (embedding vector_cosine_ops)")


def call(*arguments: object) -> None:
    """One command, as it would be typed; the example ends where it fails."""
    words = [str(one) for one in arguments]
    print(f"\n$ compatlearn {words[0]} …", flush=True)
    if code := compatlearn(words):
        sys.exit(f"compatlearn {words[0]} ended with {code}")


def contents(index: Any) -> dict[Any, bytes]:
    """Every first vector by its id."""
    return {item: row.tobytes() for block in index.scan() for item, row in zip(block.ids.tolist(), block.vectors, strict=True)}


def main(index: str, items: Path, queries: Path, new_model: str, out: Path, budget: float = 0.1, pairs: int = 1500) -> None:
    """Run all of it; figures are of queries that took no part in choosing the maps."""
    os.environ[CORPUS] = str(items)
    sys.path.insert(0, str(Path(__file__).parent))
    gallery, asked = cl.open_texts(str(items)), cl.open_texts(str(queries))
    fill(index, gallery.ids, gallery.texts, old_model(gallery.texts))
    metric = () if index.startswith("postgres") else ("--metric", "cosine")
    live, plan = ("--index", index, *metric), out / "plan"
    models = ("--new-model", new_model, "--old-model", OLD_MODEL)
    before = contents(cl.open_index(index, metric="cosine"))

    call("plan", *live, "--items", items, "--queries", queries, *models, "--pairs", pairs, "--out", plan)
    folder = plan / "features"
    new, old = (cl.Features.load(folder / f"queries-{age}") for age in ("new", "old"))
    maps = {way: cl.load_adapter(plan / FILES[way]) for way in (QUERY, GALLERY)}
    weights = json.loads((plan / "plan.json").read_text())["methods"]
    wanted = dict(zip(asked.ids.tolist(), np.array(asked.classes)[asked.labels], strict=True))
    label = dict(zip(gallery.ids.tolist(), np.array(gallery.classes)[gallery.labels], strict=True))
    figures: dict[str, dict[str, float]] = {}

    def measure(name: str, rung: str) -> None:
        opened = cl.open_index(index, metric="cosine")
        road = Road(rung, opened, opened.second(SECOND), maps, weights["fuse"], tuple(weights["join"]))
        right = [
            label[ids[0]] == wanted[query]
            for query, ids in zip(new.ids.tolist(), road.search(new, old, 1, exact=True).ids.tolist(), strict=True)
        ]
        found = mean_of(np.array(right), seed=0)
        figures[name] = {"value": found.value, "low": found.low, "high": found.high}
        print(f"{name}: first hit right for {found.value:.1%} [{found.low:.1%}, {found.high:.1%}]", flush=True)

    target = ("--to", SECOND, *live)
    measure("before: old queries", "old")
    measure("index untouched: fused", "fused")
    call("translate", "--plan", plan, *target)
    measure("translated", "translated")
    measure("translated+fused", "translated+fused")
    backfill = ("backfill", "--plan", plan, "--items", items, "--new-model", new_model, *target)
    call(*backfill, "--queries", folder / "queries-new", "--budget", budget)
    call("status", *target)
    measure(f"{budget:.0%} embedded", "partial")
    call(
        "search", "--plan", plan, *target, "--rung", "translated", "--query", asked.texts[0], "--new-model", new_model, "--k", 3
    )
    call(*backfill, "--budget", 1)
    measure("after: full backfill", "backfill")
    call("rollback", *target, "--yes")
    if contents(cl.open_index(index, metric="cosine")) != before:
        sys.exit("the index is not what it was")
    print("every row is as it was")
    (out / "figures.json").write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    run(main)
