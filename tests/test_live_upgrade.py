"""The example of a live upgrade runs from texts to rollback, on PostgreSQL and on LanceDB."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import compatlearn as cl
from samples import quick_plans
from stores import postgres

EXAMPLES = Path(__file__).parents[1] / "examples"
TOPICS = ("travel", "music", "logic", "food")
WORDS = {topic: [f"{topic}{number}" for number in range(60)] for topic in TOPICS}  # rarely the same in two texts


def new_model(texts: list[str]) -> np.ndarray:
    """A model that knows what belongs together, with some noise of its own."""
    rows = []
    for text in texts:
        about = [sum(word in WORDS[topic] for word in text.split()) for topic in WORDS]
        noise = np.random.default_rng(sum(map(ord, text))).normal(size=8)
        rows.append(np.concatenate([np.array(about, dtype=float), np.zeros(4)]) + 0.1 * noise)
    return np.array(rows, dtype=np.float32)


def write(path: Path, count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    filler = [f"word{number}" for number in range(30)]
    lines = []
    for row in range(count):
        topic = list(WORDS)[row % len(WORDS)]
        text = " ".join([*random.choice(WORDS[topic], 2), *random.choice(filler, 4), str(row)])
        lines.append(json.dumps({"id": f"{path.stem}-{row}", "text": text, "label": topic}))
    path.write_text("\n".join(lines))


@pytest.mark.parametrize("store", ["pgvector", "lancedb"])
def test_from_texts_to_rollback(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    quick_plans(monkeypatch)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import live_upgrade

    write(tmp_path / "items.jsonl", 240, 0)
    write(tmp_path / "queries.jsonl", 60, 1)
    address = f"{postgres()}#shop.embedding" if store == "pgvector" else f"lancedb:{tmp_path / 'shop.lance'}#shop.embedding"
    out = tmp_path / "out"
    live_upgrade.main(
        address, tmp_path / "items.jsonl", tmp_path / "queries.jsonl", "test_live_upgrade:new_model", out, budget=0.2, pairs=80
    )
    printed = capsys.readouterr()
    assert "every row is as it was" in printed.out
    figures = json.loads((out / "figures.json").read_text())
    assert next(iter(figures)) == "before: old queries"
    assert figures["after: full backfill"]["value"] > figures["before: old queries"]["value"]
    assert figures["translated"]["value"] > figures["before: old queries"]["value"] - 0.05
    assert cl.open_index(address, metric="cosine").second("embedding_v2") is None
    assert "112 embedded, 128 translated, 0 missing" in printed.out  # 80 pairs, and a fifth of the others
    sys.modules.pop("live_upgrade")
