"""The benchmark of other packages: its split, its score, its data and what it does with a peer that fails; no network."""

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from compatlearn import ConfigError

ROOT = Path(__file__).parents[1]
FAKE = """
class OrthogonalProcrustesAdapter:
    def fit(self, source, target):
        self.width = target.shape[1]
        return self
    def transform(self, vectors):
        return vectors[:, :self.width]
class LowRankAffineAdapter(OrthogonalProcrustesAdapter):
    def fit(self, source, target):
        raise ValueError("no rank\\nand more")
class ResidualMLPAdapter(OrthogonalProcrustesAdapter):
    pass
"""


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return pytest.importorskip("peers")


@pytest.fixture
def data(peers: ModuleType) -> ModuleType:
    return sys.modules["peers_data"]


def unit_vectors(rows: int, dimension: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def write_lines(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_cranfield(folder: Path, items: int, queries: int) -> None:
    (folder / "qrels").mkdir(parents=True)
    write_lines(folder / "corpus.jsonl", [{"_id": f"d{number}"} for number in range(items)])
    write_lines(folder / "queries.jsonl", [{"_id": f"q{number}"} for number in range(queries)])
    judged = "query-id\tcorpus-id\tscore\nq0\td1\t2\nq0\td3\t-1\nq1\td0\t1\nq1\tgone\t3\nlost\td0\t3\n"
    (folder / "qrels" / "test.tsv").write_text(judged)
    for number, model in enumerate(("m2v", "l6")):
        for name, rows in (("docs", items), ("queries", queries)):
            np.save(folder / f"{name}.{model}.npy", unit_vectors(rows, 3 + number, number).astype(np.float16))


def test_pairs_are_left_out_of_the_gallery_and_fewer_pairs_search_the_same_one(data: ModuleType) -> None:
    many, gallery = data.split(100, 60, 60, seed=3)
    few, same = data.split(100, 10, 60, seed=3)
    assert sorted([*many, *gallery]) == list(range(100))
    np.testing.assert_array_equal(same, gallery)
    np.testing.assert_array_equal(few, many[:10])
    assert (data.split(100, 60, 60, seed=4)[0] != many).any()


def test_every_setting_leaves_its_pairs_out(data: ModuleType) -> None:
    assert all(setting.pairs <= setting.left_out for setting in data.SETTINGS.values())


def test_items_are_ranked_by_cosine_then_by_row(data: ModuleType) -> None:
    items = np.array([[0, 1], [2, 0], [9, 9], [1, 0]], dtype=np.float32)
    np.testing.assert_array_equal(data.ranked(np.array([[5, 0]], dtype=np.float32), items), [[1, 3, 2, 0]])
    bias = np.array([2, 0, 0, 0.5], dtype=np.float32)
    np.testing.assert_array_equal(data.ranked(np.array([[5, 0]], dtype=np.float32), items, bias), [[0, 3, 1, 2]])


def test_a_query_that_nothing_answers_does_not_count(data: ModuleType) -> None:
    grades = np.array([[0, 2, 1], [0, 0, 0], [1, 0, 0]], dtype=np.float32)
    found = np.array([[1, 0, 2], [0, 1, 2], [1, 0, 2]])
    assert data.figure(found, grades, top1=True) == 0.5
    first = (2 + 1 / np.log2(4)) / (2 + 1 / np.log2(3))
    assert data.figure(found, grades, top1=False) == pytest.approx((first + 1 / np.log2(3)) / 2)


def test_judgements_of_unknown_ids_and_negative_grades_count_nothing(data: ModuleType, tmp_path: Path) -> None:
    write_cranfield(tmp_path, items=4, queries=2)
    np.testing.assert_array_equal(data.judgements(tmp_path), [[0, 2, 0, 0], [1, 0, 0, 0]])


def test_banking_is_judged_by_intent(data: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "banking77"
    folder.mkdir()
    for name, labels in (("train", [7, 8, 7, 9, 8]), ("test", [8, 7])):
        write_lines(folder / f"{name}.jsonl", [{"label": label} for label in labels])
        for model in ("lsa", "l6"):
            np.save(folder / f"{name}.{model}.npy", unit_vectors(len(labels), 4, 0).astype(np.float16))
    bed = data.load_bed(tmp_path, data.Setting("banking77", "lsa", 2, 2), seed=0)
    intents = np.array([7, 8, 7, 9, 8])[bed.gallery]
    np.testing.assert_array_equal(bed.grades, [intents == 8, intents == 7])
    assert bed.top1
    assert len(bed.gallery) == 3
    np.testing.assert_allclose(np.linalg.norm(bed.old[0], axis=1), 1, rtol=1e-5)


def test_a_map_that_fails_is_a_line_and_the_others_are_scored(
    peers: ModuleType, data: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cranfield(tmp_path / "cranfield", items=60, queries=2)
    (tmp_path / "vectormigrate.py").write_text(FAKE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    bed = data.load_bed(tmp_path, data.Setting("cranfield", "m2v", 20, 20), seed=0)
    made, failed = peers.theirs(bed, 0, Path(sys.executable))
    expected = bed.score(bed.new[1][:, :3], bed.old[0][bed.gallery])
    found = [row[:4] for row in made if row[0] == "vectormigrate"]
    assert found == [
        ("vectormigrate", "mapped", f"{kind}Adapter", expected) for kind in ("OrthogonalProcrustes", "ResidualMLP")
    ]
    assert "vectormigrate, LowRankAffineAdapter, mapped: ValueError: no rank" in failed


def test_ours_are_measured_on_every_rung_that_is_fitted(peers: ModuleType, data: ModuleType, tmp_path: Path) -> None:
    write_cranfield(tmp_path / "cranfield", items=60, queries=2)
    bed = data.load_bed(tmp_path, data.Setting("cranfield", "m2v", 20, 20), seed=0)
    rows = list(peers.ours(bed, 0, ["distilled", "kernel-ridge"]))
    methods = ("procrustes", "centred-procrustes", "ridge")
    for rung in ("mapped", "fused", "translated", "translated+fused"):
        assert [row[1] for row in rows if row[0] == rung] == [*methods]
    assert all(0 <= row[2] <= 1 for row in rows)


def test_the_table_has_means_intervals_and_dashes(peers: ModuleType) -> None:
    rows = [
        peers.Row("a", seed, "mapped", "ours", "ridge", score, gain, 0.0)
        for seed, score, gain in ((0, 0.5, -0.2), (1, 0.6, 0.1))
    ] + [peers.Row("b", 0, "old", "–", "old queries", 0.25, 0.0, 0.0)]
    assert peers.table(rows).splitlines() == [
        "| rung | package | method | a | b |",
        "|---|---|---|---|---|",
        "| `old` | – | old queries | – | 25.0 (0.00) |",
        "| `mapped` | ours | ridge | 55.0 ± 63.5 (−0.05 ± 1.91) | – |",
    ]


def test_a_command_that_fails_says_why_in_one_line(peers: ModuleType) -> None:
    code = "import sys; sys.exit('WARNING: x\\nERROR: no such release\\nERROR: nothing found')"
    with pytest.raises(ConfigError, match=r"exit code 1: ERROR: no such release$"):
        peers.called([sys.executable, "-c", code])


def test_an_unknown_setting_is_refused_before_anything_is_installed(peers: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="there is no setting banking"):
        peers.main(tmp_path, tmp_path / "environment", setting=["banking"])
    with pytest.raises(SystemExit, match="cranfield-l3-500 needs the folder"):
        peers.main(tmp_path, tmp_path / "environment", setting=["cranfield-l3-500"])
    assert not (tmp_path / "environment").exists()
