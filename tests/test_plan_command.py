"""`compatlearn plan`: what it prints where, what it leaves on disk, what it refuses, and what a second run does not repeat."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import compatlearn as cl
from compatlearn import locks
from samples import call, complaint, quick_plans, write_images

ITEMS, QUERIES, CLASSES = 150, 40, 5
LABELS = np.arange(ITEMS + QUERIES) % CLASSES
IDS = np.array([f"item{row}" for row in range(ITEMS)] + [f"query{row}" for row in range(QUERIES)])
WORDS = ["ship", "harbour", "pilot", "runway", "violin", "concert", "proof", "lemma", "bread", "oven"]
EMBEDDED: list[str] = []


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quick_plans(monkeypatch)
    EMBEDDED.clear()


def files(folder: Path, *, good: bool = True) -> tuple[object, ...]:
    """A command whose new model knows the classes, or knows nothing."""
    random = np.random.default_rng(0)
    new = 3 * good * random.normal(size=(CLASSES, 8))[LABELS] + random.normal(size=(len(LABELS), 8))
    old = random.normal(size=(CLASSES, 6))[LABELS] + 0.8 * random.normal(size=(len(LABELS), 6))
    rows = {"index": (old, slice(0, ITEMS)), "pairs": (new, slice(0, 60)), "new": (new, slice(ITEMS, None))}
    rows["old"] = old, slice(ITEMS, None)
    for name, (vectors, part) in rows.items():
        labels = {} if name == "pairs" else {"labels": LABELS[part]}
        np.savez(folder / f"{name}.npz", vectors=vectors[part].astype(np.float32), ids=IDS[part], **labels)
    sides = ("--index", folder / "index.npz", "--pairs-new", folder / "pairs.npz", "--new-queries", folder / "new.npz")
    return ("plan", *sides, "--old-queries", folder / "old.npz", "--out", folder / "plan")


def test_the_table_on_stdout_and_files_on_disk(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = call(capsys, *files(tmp_path), "--require-gain")
    assert code == 0
    assert "recommended: " in out
    assert "translated+fused" in out
    assert "chosen: " in err
    left = {path.name for path in (tmp_path / "plan").iterdir()}
    assert left == {"plan.json", "plan.html", "new-to-old.safetensors", "old-to-new.safetensors", "profile.safetensors"}
    plan = json.loads((tmp_path / "plan" / "plan.json").read_text())
    assert plan["recommended"] != "old"
    assert plan["primary"] == "top1"
    assert all(line in err for line in (*plan["next"], *plan["commands"]))
    assert cl.load_adapter(tmp_path / "plan" / "new-to-old.safetensors").direction == "query"


def test_json_is_what_the_file_holds(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    _, out, _ = call(capsys, *files(tmp_path), "--json")
    assert json.loads(out) == json.loads((tmp_path / "plan" / "plan.json").read_text())


def test_a_useless_model_is_not_recommended(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = files(tmp_path, good=False)
    code, out, _ = call(capsys, *arguments, "--require-gain")
    assert code == 3
    assert "recommended: old" in out
    assert json.loads((tmp_path / "plan" / "plan.json").read_text())["recommended"] == "old"


def test_one_process_measures_into_a_folder(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "PATIENCE", 0.1)
    arguments = files(tmp_path)
    fits = tmp_path / "plan" / "fits"
    with locks.locked(fits):
        said = complaint(capsys, 1, *arguments, progress=True)
        assert said.startswith(f"{fits} is being written by process ")
        (fits / f"{'0' * 64}.safetensors").touch()
    assert not (tmp_path / "plan" / "plan.json").exists()
    code, _, err = call(capsys, *arguments)  # the folder of an interrupted plan is a plan's
    assert code == 0
    assert f"fits of an interrupted run in {fits}, which are not made again: 1" in err
    assert not fits.exists()


def test_without_old_queries_no_gain_is_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = list(files(tmp_path))
    place = arguments.index("--old-queries")
    del arguments[place : place + 2]
    code, out, _ = call(capsys, *arguments, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["recommended"] in {"mapped", "translated"}  # the new model is good; what it gains nobody measured
    assert "no gain over them can be shown" in found["why"]
    code, out, _ = call(capsys, *arguments, "--require-gain")
    assert code == 3
    assert "no gain over them can be shown" in " ".join(out.split())
    assert "Keep the old model" not in (tmp_path / "plan" / "plan.html").read_text()


def test_clicks_decide_what_is_right(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = files(tmp_path)
    clicks = tmp_path / "clicks.csv"
    pairs = [(query, item) for query in range(QUERIES) for item in range(ITEMS) if LABELS[ITEMS + query] == LABELS[item]]
    clicks.write_text("query_id,item_id\n" + "".join(f"query{query},item{item}\n" for query, item in pairs))
    _, out, _ = call(capsys, *arguments, "--clicks", clicks, "--json")
    judged = json.loads(out)
    assert judged["primary"] == "ndcg10"
    _, out, _ = call(capsys, *arguments, "--json")
    first = [next(one["figures"]["top1"]["value"] for one in found["rungs"] if one["name"] == "old")
             for found in (judged, json.loads(out))]  # fmt: skip
    assert first[0] == first[1]  # the same answers are right
    both = complaint(capsys, 1, *arguments, "--clicks", clicks, "--qrels", clicks, progress=True)
    assert both == "--qrels and --clicks both say what answers a query; give one of them"


def test_classes_as_clusters(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = files(tmp_path)
    figures = []
    for cluster in ("query", "class"):
        _, out, _ = call(capsys, *arguments, "--cluster", cluster, "--json")
        figures.append(json.loads(out)["rungs"][0]["figures"]["top1"])
    assert figures[0]["value"] == figures[1]["value"]
    assert figures[0] != figures[1]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--budget", "1.5"), "--budget is a share from 0 to 1"),
        (("--backfill", "nothing.npz"), "nothing.npz"),
        (("--new-model", "somewhere:model"), "a plan from texts or pictures needs --items and --new-model; --items is missing"),
    ],
)
def test_refused_before_any_work(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, more: tuple[str, ...], message: str
) -> None:
    assert message in complaint(capsys, 1, *files(tmp_path), *more, progress=True)
    assert not (tmp_path / "plan" / "plan.json").exists()


def embed(texts: list[str]) -> np.ndarray:
    """Counts of words: what a new model sees."""
    EMBEDDED.extend(texts)
    return np.array([[1e-3 + text.split().count(word) for word in WORDS] for text in texts], dtype=np.float32)


def embed_old(texts: list[str]) -> np.ndarray:
    """The same through a narrow door."""
    mixing = np.random.default_rng(0).normal(size=(len(WORDS), 6))
    return (np.array([[1e-3 + text.split().count(word) for word in WORDS] for text in texts]) @ mixing).astype(np.float32)


def write_texts(path: Path, rows: range) -> None:
    random = np.random.default_rng(len(rows))
    lines = []
    for row in rows:
        topic = WORDS[2 * LABELS[row] : 2 * LABELS[row] + 2]
        text = " ".join([*random.choice(topic, 4), *random.choice(WORDS, 3), f"number{row}"])
        lines.append(json.dumps({"_id": IDS[row], "text": text, "label": int(LABELS[row])}))
    path.write_text("\n".join(lines) + "\n")


def test_from_texts_and_again(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    items, queries = tmp_path / "items.jsonl", tmp_path / "queries.jsonl"
    write_texts(items, range(ITEMS))
    write_texts(queries, range(ITEMS, ITEMS + QUERIES))
    models = ("--new-model", "test_plan_command:embed", "--old-model", "test_plan_command:embed_old")
    arguments = ("plan", "--items", items, "--queries", queries, *models, "--pairs", 60, "--out", tmp_path / "plan")
    code, out, _ = call(capsys, *arguments, "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["primary"], found["pairs"], found["items"]) == ("top1", 60, ITEMS)
    assert len(EMBEDDED) - EMBEDDED.count(EMBEDDED[0]) <= 60 + QUERIES
    page = (tmp_path / "plan" / "plan.html").read_text()
    assert found["recommended"] in page
    if found["examples"]:
        assert "number" in page  # its texts are shown
    EMBEDDED.clear()
    again = json.loads(call(capsys, *arguments, "--json")[1])
    assert len(set(EMBEDDED)) <= 1  # nothing is embedded twice, but for a probe
    assert again["rungs"][0]["figures"] == found["rungs"][0]["figures"]


# pictures


def write_pictures(folder: Path, rows: range) -> Path:
    """`<folder>/<class>/<id>.png`: a square of the class's colour with noise."""
    random = np.random.default_rng(len(rows))
    colours = np.random.default_rng(1).integers(60, 200, (CLASSES, 3))
    for row in rows:
        (folder / f"class{LABELS[row]}").mkdir(parents=True, exist_ok=True)
        pixels = colours[LABELS[row]] + random.normal(scale=40, size=(6, 8, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"class{LABELS[row]}" / f"{IDS[row]}.png")
    return folder


def see(pictures: list[Image.Image]) -> np.ndarray:
    """The mean colour: what a new model sees."""
    EMBEDDED.extend(str(one.getpixel((0, 0))) for one in pictures)
    return np.stack([np.asarray(one, dtype=np.float32).mean(axis=(0, 1)) - 128 for one in pictures]) + 1e-3


def see_old(pictures: list[Image.Image]) -> np.ndarray:
    """The colour of one corner, without its blue."""
    return np.stack([np.asarray(one, dtype=np.float32)[0, 0, :2] - 128 for one in pictures]) + 1e-3


PICTURES = ("--new-model", "test_plan_command:see", "--old-model", "test_plan_command:see_old", "--pairs", 60)


def test_from_pictures_and_again(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    items, queries = write_pictures(tmp_path / "items", range(ITEMS)), tmp_path / "queries"
    write_pictures(queries, range(ITEMS, ITEMS + QUERIES))
    (queries / "class0").rename(queries / "zebra")  # other names: classes are matched by these, not by their places
    sides = ("plan", "--items", items, "--queries", queries, *PICTURES, "--budget", 1, "--out", tmp_path / "plan")
    arguments = (*sides, "--embed-gallery")
    code, out, err = call(capsys, *arguments, "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["primary"], found["pairs"], found["items"]) == ("top1", 60, ITEMS)
    assert f"gallery-old: {ITEMS} pictures by test_plan_command:see_old" in err
    figures = {one["name"]: one["figures"]["top1"]["value"] for one in found["rungs"] if one["figures"]}
    assert figures["backfill"] <= 0.8  # nothing answers a zebra
    assert figures["backfill"] > figures["old"]
    assert len(EMBEDDED) == ITEMS + QUERIES
    page = (tmp_path / "plan" / "plan.html").read_text()
    shown = [one for example in found["examples"] for one in (example["query"], *example["before"], *example["after"])]
    assert len(found["examples"]) > 0
    assert page.count('<img src="data:image/png;base64,') == len(shown)
    assert f"{shown[1].split('/')[0]} · {shown[1]}" in page
    EMBEDDED.clear()
    again = json.loads(call(capsys, *arguments, "--json")[1])
    assert not EMBEDDED  # nothing is embedded twice
    assert again["rungs"][0]["figures"] == found["rungs"][0]["figures"]
    folder = tmp_path / "plan" / "features" / "pairs-new"
    assert call(capsys, *sides)[0] == 0
    said = complaint(capsys, 1, *sides, "--seed", 1, progress=True)  # other pairs
    assert said.startswith(f"{folder} was begun with another plan (ids 'blake2b:")


def test_pictures_of_one_class_with_an_index_and_known_queries(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    labels = [0] * ITEMS
    items = write_images(tmp_path / "items.parquet", labels, id=IDS[:ITEMS].tolist())
    queries = write_images(tmp_path / "queries.parquet", [0] * QUERIES, first=ITEMS, id=IDS[ITEMS:].tolist())
    random = np.random.default_rng(0)
    np.savez(tmp_path / "index.npz", vectors=random.normal(size=(ITEMS, 3)), ids=IDS[:ITEMS])
    np.savez(tmp_path / "asked.npz", vectors=random.normal(size=(QUERIES, 3)), ids=IDS[ITEMS:])
    sides = ("--index", tmp_path / "index.npz", "--old-queries", tmp_path / "asked.npz", "--items", items, "--queries", queries)
    model = ("--new-model", "samples:mean_colour", "--pairs", 60)
    code, out, err = call(capsys, "plan", *sides, *model, "--out", tmp_path / "plan", "--json")
    assert code == 0
    assert f"{items}: all of one class, which does not say what answers a query; it is left aside" in err
    assert json.loads(out)["primary"] == "agreement"


def test_pictures_that_cannot_be_read(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    items = write_pictures(tmp_path / "items", range(ITEMS))
    (items / "class0" / "item0.png").write_bytes(b"no picture")
    command = ("plan", "--items", items, *PICTURES, "--out", tmp_path / "plan")
    assert "1 of 150 images cannot be read, more than the tolerance" in complaint(capsys, 1, *command, progress=True)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--queries texts.jsonl", "--items items holds pictures and --queries texts.jsonl holds texts; one model embeds both"),
        ("--queries items", "--items and --queries are both items; give queries that are not items of the gallery"),
        ("--queries nothing.jsonl", "--items items holds pictures and --queries nothing.jsonl holds texts"),
        ("--prompt-name query", "--prompt-name is for texts, and items holds none"),
        ("--new-model openai:m", "--new-model openai:m is for texts, and items holds none"),
        ("--old-queries old.npz", "--old-queries old.npz needs --queries"),
        ("--pairs-new pairs.npz", "--pairs-new holds vectors, and with --items they are made from these"),
    ],
)
def test_pictures_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pictures(Path("items"), range(10))
    write_texts(Path("texts.jsonl"), range(10))
    np.savez("index.npz", vectors=np.eye(10), ids=[f"class{LABELS[row]}/{IDS[row]}.png" for row in range(10)])
    given = dict(zip(more.split()[::2], more.split()[1::2], strict=True))
    given = {"--items": "items", "--index": "index.npz", "--new-model": "test_plan_command:see", "--out": "plan"} | given
    said = complaint(capsys, 1, "plan", *(part for pair in given.items() for part in pair), progress=True)
    assert message in said
    assert not Path("plan/plan.json").exists()
