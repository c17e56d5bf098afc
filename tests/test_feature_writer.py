"""An extraction that is stopped anywhere resumes to the same bytes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from compatlearn.errors import ConfigError, DataError, FormatError
from compatlearn.features.features import Features
from compatlearn.features.writer import FeatureWriter
from test_files import largest_file

ROWS, SHARD_ROWS = 23, 5
VECTORS = np.random.default_rng(0).normal(size=(ROWS, 4)).astype("float32")
IDS = np.array([f"img/{row}" for row in range(ROWS)])
UNREADABLE = {3: "truncated", 20: "empty file", 21: "empty file", 22: "empty file"}


def begin(folder, **changes):
    plan = {"rows": ROWS, "shard_rows": SHARD_ROWS, "space": "r18@1", "source": "digits", "dtype": "float32"}
    return FeatureWriter(folder, **plan | changes)


def write(writer, shard, unreadable=UNREADABLE):
    rows = [row for row in writer.planned(shard) if row not in unreadable]
    skipped = [(str(IDS[row]), unreadable[row]) for row in writer.planned(shard) if row in unreadable]
    writer.write(shard, VECTORS[rows], np.array(rows, dtype=np.int64) % 3, IDS[rows], skipped=skipped)


def extract(folder, **changes):
    writer = begin(folder, **changes)
    for shard in writer.missing():
        write(writer, shard)
    return writer.finish()


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def test_shards_become_features(tmp_path):
    features = extract(tmp_path)
    read = [row for row in range(ROWS) if row not in UNREADABLE]
    np.testing.assert_array_equal(features.vectors, VECTORS[read])
    assert features.ids.tolist() == IDS[read].tolist()
    assert features.labels.tolist() == [row % 3 for row in read]
    assert (features.space, features.source) == ("r18@1", "digits")
    assert sorted(contents(tmp_path)) == ["manifest.json", "rows.parquet", "skipped.json", "vectors.npy"]
    skipped = json.loads((tmp_path / "skipped.json").read_text())
    assert skipped == [[f"img/{row}", reason] for row, reason in UNREADABLE.items()]
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert (manifest["rows"], manifest["skipped"]) == (19, 4)
    assert [(shard["first"], shard["rows"]) for shard in manifest["shards"]] == [(0, 4), (4, 5), (9, 5), (14, 5)]
    Features.load(tmp_path, verify=True)


def test_order_of_writing_does_not_matter(tmp_path):
    extract(tmp_path / "a")
    one, other = begin(tmp_path / "b"), begin(tmp_path / "b")  # two processes
    for shard in (4, 0, 2):
        write(one, shard)
    assert other.missing() == [1, 3]
    for shard in (3, 1):
        write(other, shard)
    assert one.missing() == []
    one.finish()
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_float16_is_stored_and_never_overflows(tmp_path):
    features = extract(tmp_path / "a", dtype="float16")
    assert features.vectors.dtype == np.float16
    writer = begin(tmp_path / "b", dtype="float16")
    with pytest.raises(DataError) as caught:
        writer.write(0, np.array([[1e5], [1], [1], [-7e4], [1]], "f4"), np.zeros(5, int), np.arange(5))
    expected = "2 of 5 vectors of shard 0 overflow float16 (largest: 1e+05); extract as float32"
    assert str(caught.value) == expected
    assert writer.missing()[0] == 0


def test_unfinished_features_are_refused_and_resumed(tmp_path):
    writer = begin(tmp_path)
    for shard in (0, 3):
        write(writer, shard)
    (tmp_path / "shards" / ".00001.99.tmp.npz").write_bytes(b"killed here")
    message = rf"extraction of {tmp_path} was not finished \(2 of 5 shards\); run the same extract command again to resume it"
    for attempt in (lambda: Features.load(tmp_path), writer.finish):
        with pytest.raises(FormatError, match=message):
            attempt()
    with pytest.raises(DataError, match="holds an unfinished extraction; save elsewhere, or delete"):
        Features(np.ones((2, 2))).save(tmp_path)
    assert begin(tmp_path).missing() == [1, 2, 4]
    extract(tmp_path)
    extract(tmp_path / "whole")
    assert {name: data for name, data in contents(tmp_path).items() if "whole" not in name} == contents(tmp_path / "whole")


def test_a_finished_extraction_stays(tmp_path):
    extract(tmp_path)
    before = contents(tmp_path)
    writer = begin(tmp_path)
    assert writer.finished
    assert writer.missing() == []
    assert len(writer.finish()) == 19
    assert contents(tmp_path) == before


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "foreign"])
def test_a_damaged_shard_is_done_again(tmp_path, damage):
    extract(tmp_path / "whole")
    writer = begin(tmp_path / "a")
    for shard in range(5):
        write(writer, shard)
    path = tmp_path / "a" / "shards" / "00002.npz"
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        data[data.index(VECTORS[12].tobytes())] ^= 1
    path.write_bytes({"cut": data[:-1], "flipped": data, "empty": b"", "foreign": b"<html>"}[damage])
    assert begin(tmp_path / "a").missing() == [2]
    extract(tmp_path / "a")
    assert contents(tmp_path / "a") == contents(tmp_path / "whole")


def test_a_scrambled_shard_is_never_taken_for_a_whole_one(tmp_path):
    extract(tmp_path / "whole")
    write(begin(tmp_path / "a"), 1)
    path = tmp_path / "a" / "shards" / "00001.npz"
    data, random = path.read_bytes(), np.random.default_rng(0)
    for _ in range(100):
        scrambled = bytearray(data)
        start = int(random.integers(len(data)))
        scrambled[start : start + 8] = random.bytes(8)
        path.write_bytes(scrambled)
        if 1 not in begin(tmp_path / "a").missing():  # the change was in bytes that hold nothing, such as a date
            extract(tmp_path / "a")
            assert contents(tmp_path / "a")["vectors.npy"] == contents(tmp_path / "whole")["vectors.npy"]
            break


@pytest.mark.parametrize("finished", [False, True])
def test_another_plan_is_refused(tmp_path, finished):
    if finished:
        extract(tmp_path)
    else:
        begin(tmp_path)
    with pytest.raises(FormatError) as caught:
        begin(tmp_path, rows=24, space="r50@2")
    assert str(caught.value) == (
        f"{tmp_path} was begun with another plan (rows 23, now 24; space 'r18@1', now 'r50@2'); "
        f"use another --out or delete {tmp_path}"
    )


def test_features_of_others_are_not_overwritten(tmp_path):
    Features(np.ones((ROWS, 2))).save(tmp_path)
    with pytest.raises(FormatError, match="holds features already; use another --out or delete"):
        begin(tmp_path)


def test_rows_that_get_lost(tmp_path):
    writer = begin(tmp_path)
    with pytest.raises(DataError, match=r"shard 1 of .* has 5 rows; got 4 vectors, 4 labels, 4 ids and 0 skipped"):
        writer.write(1, VECTORS[:4], np.zeros(4, int), IDS[:4])
    for shard in range(5):
        write(writer, shard, unreadable=dict.fromkeys(range(ROWS), "empty file"))
    with pytest.raises(DataError, match=r"none of 23 rows gave a vector \(first: empty file\); check the data"):
        writer.finish()
    with pytest.raises(DataError, match="an extraction needs rows"):
        begin(tmp_path / "b", rows=0)
    with pytest.raises(ConfigError, match="unknown dtype 'float8'; did you mean 'float"):
        begin(tmp_path / "b", dtype="float8")


def test_dimensions_that_differ(tmp_path):
    writer = begin(tmp_path, rows=2, shard_rows=1)
    for shard in (0, 1):
        writer.write(shard, np.ones((1, 3 + shard), "f4"), np.zeros(1, int), np.array([shard]))
    with pytest.raises(FormatError, match=r"have dimensions \[3, 4\]; delete it and extract again"):
        writer.finish()


def test_no_room(tmp_path):
    writer = begin(tmp_path)
    with largest_file(600), pytest.raises(DataError, match=r"cannot write .*00000\.npz: File too large; free some space"):
        write(writer, 0)
    assert sorted(contents(tmp_path)) == ["plan.json"]
    for shard in range(5):
        write(writer, shard)
    with largest_file(300), pytest.raises(DataError, match=r"cannot write .*vectors\.npy: File too large"):
        writer.finish()
    extract(tmp_path)
    extract(tmp_path / "whole")
    assert contents(tmp_path / "whole").items() <= contents(tmp_path).items()


KILLER = """
import os, random, signal, sys, time
import test_feature_writer as t

CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir"}

def child(folder, changes=None):  # killed before it changes the disk once more than `changes` times
    pid = os.fork()
    if pid:
        return pid
    def hook(event, arguments):
        nonlocal changes
        if event in CHANGES or event == "open" and arguments[1] not in (None, "r", "rb"):
            changes -= 1
            if changes < 0:
                os.kill(os.getpid(), signal.SIGKILL)
    try:
        if changes is not None:
            sys.addaudithook(hook)
        t.extract(folder, shard_rows=12)
        os._exit(0)
    finally:
        os._exit(1)

def ends(pid):
    status = os.waitpid(pid, 0)[1]
    assert status in (0, signal.SIGKILL), status
    return status == 0

root, points, rng = sys.argv[1], 0, random.Random(0)
t.extract(f"{root}/first", shard_rows=12)  # imports what is imported late
os.fsync = lambda descriptor: None  # outlives a power cut, not needed to outlive a kill
while not ends(child(f"{root}/point{points}", points)):
    t.extract(f"{root}/point{points}", shard_rows=12)
    points += 1
for _ in range(10):
    pid = child(f"{root}/random")
    time.sleep(rng.uniform(0, 0.05))
    os.kill(pid, signal.SIGKILL)
    ends(pid)
t.extract(f"{root}/random", shard_rows=12)
print(points)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_every_change_to_the_disk_it_resumes_to_the_same_bytes(tmp_path):
    here = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(here), str(here.parent / "src"), *sys.path])}
    (tmp_path / "runs").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", KILLER, str(tmp_path / "runs")], env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    points = int(done.stdout)
    assert points > 20
    extract(tmp_path / "whole", shard_rows=12)
    expected = contents(tmp_path / "whole")
    folders = sorted((tmp_path / "runs").iterdir())
    assert len(folders) == points + 3
    for folder in folders:
        assert contents(folder) == expected, folder.name
