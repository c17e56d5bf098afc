"""A Ray cluster of two nodes gives the files and figures of one machine, also where processes die."""

import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

pytest.importorskip("ray.data")

from compatlearn import mean_classifier, search
from compatlearn.adapters.adapter import fit_adapter, save_adapter
from compatlearn.cluster import jobs as cluster
from compatlearn.cluster import workers
from compatlearn.data.sources import open_images
from compatlearn.encoders.encoder import load_encoder
from compatlearn.errors import ConfigError, DataError
from compatlearn.features.features import Features
from compatlearn.features.writer import FeatureWriter
from compatlearn.pseudo.table import build_classifier, load_classifier
from samples import CAT, DOG, call, clusters, complaint, image_folder, mean_colour

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")  # of Ray's own parts among themselves
FILES = ["manifest.json", "rows.parquet", "skipped.json", "vectors.npy"]


@pytest.fixture
def pets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """40 images in the current folder, one of them unreadable."""
    monkeypatch.chdir(tmp_path)
    image_folder(tmp_path / "pets", {CAT: 20, DOG: 20})
    (tmp_path / "pets" / DOG / "3.png").write_bytes(b"no picture")
    return tmp_path / "pets"


def extraction(out: object, model: str = "samples:mean_colour", *, tolerance: float = 0.03) -> list[object]:
    options = ["--shard-rows", 5, "--tolerance", tolerance, "--dtype", "float16"]
    return ["extract", "--data", "pets", "--model", model, "--out", out, *options]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks are done here, one after the other, in another order."""

    def each(work: Callable[..., Any], tasks: Sequence[tuple[Any, ...]], what: str, **options: bool) -> Iterator[Any]:
        return (work(*task) for task in reversed(pickle.loads(pickle.dumps(tasks))))

    monkeypatch.setattr(cluster, "each", each)
    monkeypatch.setattr(cluster, "capacity", lambda gpu=True: (2, {}))
    monkeypatch.setattr(cluster, "put", lambda vectors: vectors)
    monkeypatch.setattr(cluster, "_vectors", lambda place: Features.load(place).vectors if isinstance(place, Path) else place)


# models


def dying(pictures: list[Image.Image]) -> np.ndarray:
    """The first process that is asked a second time dies."""
    if Path("asked").exists() and not Path("dead").exists():
        Path("dead").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    Path("asked").touch()
    return mean_colour(pictures)


def slow(pictures: list[Image.Image]) -> np.ndarray:
    time.sleep(0.3)
    return mean_colour(pictures)


# extract


def test_a_killed_worker_changes_nothing(capsys: pytest.CaptureFixture[str], address: str, pets: Path, tmp_path: Path) -> None:
    summary = "39 features of 3 dimensions, 1 unreadable images skipped"
    assert call(capsys, *extraction("here"))[:2] == (0, f"here: {summary}\n")
    command = extraction("there", "test_cluster:dying")
    code, out, err = call(capsys, *command, "--engine", "ray", "--address", address)
    assert (code, out) == (0, f"there: {summary}\n")
    assert "8 of 8 shards" in err
    assert Path("dead").exists()
    here, there = contents(tmp_path / "here"), contents(tmp_path / "there")
    assert list(here) == list(there) == FILES
    here["manifest.json"] = here["manifest.json"].replace(b"samples:mean_colour", b"test_cluster:dying")
    assert here == there


def test_either_engine_goes_on_where_a_killed_command_stopped(
    capsys: pytest.CaptureFixture[str], address: str, pets: Path, tmp_path: Path
) -> None:
    killed, engine = tmp_path / "killed", ["--engine", "ray", "--address", address]
    process = subprocess.Popen(
        [sys.executable, "-m", "compatlearn", *map(str, extraction(killed, "test_cluster:slow")), *engine],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 300
    while len(list(killed.glob("shards/0*.npz"))) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    _, errors = process.communicate()
    copy = shutil.copytree(killed, tmp_path / "copy", ignore=shutil.ignore_patterns(".*", "*.attempts"))  # whole files
    assert 2 <= len(list(copy.glob("shards/0*.npz"))) < 8, errors
    for folder, chosen in ((copy, []), (killed, engine), (tmp_path / "whole", [])):
        assert call(capsys, *extraction(folder, "test_cluster:slow"), *chosen)[0] == 0
    assert contents(copy) == contents(killed) == contents(tmp_path / "whole")


def test_the_tolerance_is_that_of_the_whole_job(inline: None, pets: Path, tmp_path: Path) -> None:
    (pets / CAT / "7.png").write_bytes(b"no picture")
    source = ("pets", "samples:mean_colour", None, None, None)
    arguments = source, load_encoder("samples:mean_colour"), open_images("pets"), tmp_path / "out"
    options = {"batch_size": 3, "shard_rows": 5, "dtype": "float32"}
    with pytest.raises(ConfigError, match=r"batch_size must be at least 1, tolerance a share in \[0, 1\]; got .* tolerance 2"):
        cluster.extract(*arguments, **options, tolerance=2.0)
    with pytest.raises(
        DataError, match=r"2 of 40 images cannot be read, more than the tolerance of 0.03 allows \(first: image "
    ):
        cluster.extract(*arguments, **options, tolerance=0.03)
    assert not (tmp_path / "out" / "shards" / "00000.npz").exists()  # it ended early
    assert len(cluster.extract(*arguments, **options, tolerance=0.05)) == 38


def test_a_shard_that_ends_its_process_again_and_again_is_named(pets: Path, tmp_path: Path) -> None:
    class Death(BaseException):
        """The end of a process, survived."""

    def die(pictures: list[Image.Image]) -> np.ndarray:
        raise Death

    source, out = ("pets", "samples:mean_colour", None, None, None), tmp_path / "out"
    plan = {"shard_rows": 15, "source": "pets", "dtype": "float32"}
    FeatureWriter(out, rows=len(open_images("pets")), space="samples:mean_colour", **plan)
    object.__setattr__(cluster._opened(*source)[1], "forward", die)
    try:
        for _ in range(cluster.ATTEMPTS):
            with pytest.raises(Death):
                cluster._extract_shard(source, out, plan, 4, 1)
        with pytest.raises(DataError, match=rf"shard 1 \(images 15 to 29\) has ended its process {cluster.ATTEMPTS} times"):
            cluster._extract_shard(source, out, plan, 4, 1)
    finally:
        cluster._opened.cache_clear()


# pseudo and evaluate


def crowd(rows: int, dimension: int, seed: int, kind: str = "float32") -> np.ndarray:
    """Rows of small whole numbers, never zero: full of ties and duplicates."""
    return np.random.default_rng(seed).integers(1, 4, (rows, dimension)).astype(kind)


def saved(folder: Path, *columns: np.ndarray, **known: str) -> tuple[Path, Features]:
    Features(*columns, **known).save(folder)
    return folder, Features.load(folder)


def test_pseudo_classifiers_are_those_of_one_machine(inline: None, tmp_path: Path) -> None:
    vectors, labels = clusters(23, 7, 6)
    rows = np.flatnonzero(labels % 5 >= np.arange(len(labels)) % 7 // 2)  # classes of many sizes
    options = {"temperature": 0.3, "damping": 0.9, "steps": None}
    for name, order, kind in (("sorted", rows, "float16"), ("mixed", np.random.default_rng(0).permutation(rows), "float64")):
        path, old = saved(tmp_path / name, vectors[order].astype(kind), labels[order])
        build = cluster.classifier_builder(path)
        for method in ("random-walk", "normalized-mean", "mean"):
            arguments = method, old.vectors, old.labels
            here, there = (each(*arguments, classes=23, options=options) for each in (build_classifier, build))
            assert here.dtype == there.dtype
            np.testing.assert_allclose(there, here, rtol=1e-6, atol=1e-7)
    with pytest.raises(ConfigError, match="the trained classifier is one fit over all classes and cannot be divided"):
        build("trained", old.vectors, old.labels, classes=None, options=options)
    vectors[100, 1] = np.nan
    path, old = saved(tmp_path / "broken", vectors, labels)
    with pytest.raises(DataError, match=r"1 of 161 rows of vectors have NaN or infinity \(first: 100\)"):
        cluster.classifier_builder(path)("mean", old.vectors, old.labels, classes=None, options=options)


@given(
    st.integers(0, 1 << 30), st.sampled_from(["euclidean", "cosine", "dot"]), st.sampled_from(["float16", "float32", "float64"])
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_search_is_that_of_one_machine(
    inline: None, monkeypatch: pytest.MonkeyPatch, seed: int, metric: str, kind: str
) -> None:
    """Ties and duplicates across parts, k larger than a part or the gallery, unequal dimensions, rows left out."""
    random = np.random.default_rng(seed)
    q, n, d_query, d_gallery, k, part, block = random.integers([1, 1, 1, 1, 1, 9, 9], [60, 90, 6, 6, 40, 90, 60]).tolist()
    queries, gallery = crowd(q, d_query, seed, kind), crowd(n, d_gallery, seed + 1, kind)
    own = random.integers(-1, n, q)
    monkeypatch.setattr(cluster, "PART", part)
    monkeypatch.setattr(cluster, "BLOCK", block)
    expected = search(queries, gallery, k, metric, exclude=own)
    hits = cluster.searcher([])(queries, gallery, k, metric, exclude=own)
    np.testing.assert_array_equal(hits.indices, expected.indices)
    if d_query <= d_gallery or metric == "dot":
        np.testing.assert_allclose(hits.distances, expected.distances, rtol=1e-6, atol=1e-6)


def test_evaluation_on_a_cluster(
    capsys: pytest.CaptureFixture[str], address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "PART", 50)
    monkeypatch.setattr(cluster, "BLOCK", 100)
    put = []
    monkeypatch.setattr(cluster, "put", lambda vectors: put.append(vectors) or workers.put(vectors))
    labels, order = np.arange(150) % 7, np.random.default_rng(1).permutation(150)
    Features(crowd(150, 4, 0) + labels[:, None] % 3, labels, space="old").save(tmp_path / "old")
    new = np.hstack([crowd(150, 4, 2), crowd(150, 2, 3)]) + labels[:, None] % 4
    Features(new[order], labels[order], order, space="new").save(tmp_path / "new")
    command = ["evaluate", "--old-query", tmp_path / "old", "--old-gallery", tmp_path / "old", "--new-query", tmp_path / "new"]
    here = call(capsys, *command, "--json")
    there = call(capsys, *command, "--json", "--engine", "ray", "--address", address)
    assert there[:2] == here[:2]
    assert [vectors.shape for vectors in put] == [(150, 6)] * 3  # what had to be put in order; the rest is read from files
    save_adapter(fit_adapter("ridge", new.astype(np.float32), Features.load(tmp_path / "old").vectors), tmp_path / "adapter")
    command += ["--adapter", tmp_path / "adapter", "--json"]
    mapped = call(capsys, *command)
    assert mapped[:2] == call(capsys, *command, "--engine", "ray", "--address", address)[:2]
    assert mapped[1] != here[1]


# Ray itself


def test_without_an_address_ray_is_started_and_ended(tmp_path: Path) -> None:
    vectors, labels = clusters(9)
    saved(tmp_path / "old", vectors, labels, space="old")
    command = ["pseudo", "--features", "old", "--out", "p.safetensors", "--method", "mean", "--engine", "ray"]
    script = "import sys, ray; from compatlearn.cli.app import run; sys.exit(run(sys.argv[1:]) + ray.is_initialized())"
    process = subprocess.run([sys.executable, "-c", script, *command], cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert process.stdout == "p.safetensors: mean pseudo classifier, 9 classes of 4 dimensions\n"
    written = load_classifier(tmp_path / "p.safetensors")
    np.testing.assert_allclose(written.rows, mean_classifier(vectors, labels, normalize=False), rtol=1e-6)
    assert (written.method, written.space) == ("mean", "old")


def test_what_is_needed_for_ray(
    capsys: pytest.CaptureFixture[str], address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors, labels = clusters()
    Features(vectors, labels).save(tmp_path / "old")
    command = ("pseudo", "--features", tmp_path / "old", "--out", tmp_path / "p.safetensors", "--engine", "ray")
    message = complaint(capsys, 1, *command, "--address", "127.0.0.1:9")
    assert (
        message == f"this program is connected to the Ray cluster at {address}, not to 127.0.0.1:9; call ray.shutdown() first"
    )
    monkeypatch.setattr(workers.ray, "is_initialized", lambda: False)
    message = complaint(capsys, 1, *command, "--address", "127.0.0.1:9")
    assert re.fullmatch(r"no Ray cluster at 127.0.0.1:9 \(.*refused\); start one with `ray start --head`", message)
    monkeypatch.setitem(sys.modules, "ray", None)
    for name in ("compatlearn.cluster.workers", "compatlearn.cluster.jobs"):
        monkeypatch.delitem(sys.modules, name)
        monkeypatch.delattr(name)
    message = complaint(capsys, 1, *command)
    assert message == "this needs ray, which is not installed; pip install 'compatlearn[ray]'"
