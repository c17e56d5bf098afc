"""Anyone's files through the commands: columns by name, where ids come from, classes with names, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors import safe_open

from compatlearn.cli.columns import Columns
from compatlearn.data.sources import open_images
from compatlearn.errors import CompatlearnError, DataError, FormatError, IncompatibleError
from compatlearn.evaluation.compatibility import compatibility
from compatlearn.features.classes import same_classes
from compatlearn.features.features import Features
from compatlearn.features.ids import pair
from compatlearn.pseudo.table import PseudoClassifier, load_classifier, save_classifier
from samples import CAT, DOG, call, clusters, complaint, image_folder, write_images

VECTORS, LABELS = clusters()
SKUS = np.array([f"p{row:02}" for row in range(30)])
NAMES = np.array(["cat", "dog", "eel"])[LABELS]


def parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table({name: list(values) for name, values in columns.items()}), path)
    return path


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# columns


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    return parquet(tmp_path / "shop.parquet", embedding=VECTORS, product_id=SKUS, category=NAMES)


def test_columns_are_named_by_flags(capsys: pytest.CaptureFixture[str], foreign: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.safetensors"
    command = ["pseudo", "--features", foreign, "--out", out]
    assert complaint(capsys, 1, *command) == (
        f"{foreign} has no column 'vectors' or 'vector', only: embedding, product_id, category; "
        "pass --vector-column 'embedding'"
    )
    command += ["--vector-column", "embedding"]
    assert complaint(capsys, 1, *command) == (
        f"{foreign} has no column 'ids' or 'id', but column 'product_id' has another value in every row; "
        "pass --id-column 'product_id' to take it for the ids, or --id-column 'row' to number the rows"
    )
    command += ["--id-column", "product_id"]
    assert complaint(capsys, 1, *command).startswith(f"{foreign} has no labels (30 rows); ")
    assert complaint(capsys, 1, *command, "--label-column", "categroy") == (
        f"there is no column 'categroy' for --label-column ({foreign}: embedding, product_id, category); name one of these"
    )
    assert not out.exists()
    assert call(capsys, *command, "--label-column", "category", "--space", "vendor v1")[0] == 0
    classifier = load_classifier(out)
    assert (classifier.classes, classifier.space, classifier.rows.shape) == (("cat", "dog", "eel"), "vendor v1", (3, 4))
    with safe_open(out, "pt") as file:
        assert json.loads(file.metadata()["classes"]) == ["cat", "dog", "eel"]


@pytest.mark.parametrize("suffix", ["parquet", "npz", "pt", "safetensors"])
def test_any_format_has_columns(tmp_path: Path, suffix: str) -> None:
    import torch
    from safetensors.torch import save_file

    path, ids = tmp_path / f"a.{suffix}", np.arange(30) * 7
    columns = {"embedding": VECTORS, "sku": ids, "kind": LABELS}
    tensors = {name: torch.from_numpy(values) for name, values in columns.items()}
    match suffix:
        case "parquet":
            parquet(path, **columns)
        case "npz":
            np.savez(path, **columns)
        case "pt":
            torch.save(tensors, path)
        case _:
            save_file(tensors, path)
    kind = "column" if suffix == "parquet" else "key"
    with pytest.raises(FormatError, match=f"has no {kind} 'ids' or 'id', but {kind} 'sku' has another value in every row"):
        Features.load(path, vector_column="embedding")
    with pytest.raises(FormatError, match=f"has no {kind} 'nope' for id_column, only: "):
        Features.load(path, vector_column="embedding", id_column="nope")
    features = Features.load(path, vector_column="embedding", id_column="sku", label_column="kind", space="v1")
    np.testing.assert_array_equal(features.vectors, VECTORS)
    assert features.ids.tolist() == ids.tolist()
    assert features.labels is not None
    assert features.labels.tolist() == LABELS.tolist()
    assert (features.ids_from, features.space, features.classes) == (f"{kind} 'sku'", "v1", None)
    by_row = Features.load(path, vector_column="embedding", id_column="row")
    assert (by_row.ids.tolist(), by_row.ids_from) == (list(range(30)), "row numbers, as asked")


def test_a_column_that_repeats_is_not_taken_for_ids(tmp_path: Path) -> None:
    features = Features.load(parquet(tmp_path / "a.parquet", vector=VECTORS, category=NAMES, price=VECTORS[:, 0]))
    assert features.ids_from == "row numbers"


def test_parquet_shards_are_looked_at_together(tmp_path: Path) -> None:
    for part in range(2):
        parquet(tmp_path / f"{part}.parquet", vector=VECTORS, sku=SKUS)
    assert Features.load(tmp_path).ids_from == "row numbers"  # each value comes twice
    parquet(tmp_path / "1.parquet", vector=VECTORS, sku=[f"q{sku}" for sku in SKUS])
    with pytest.raises(FormatError, match=f"{tmp_path} has no column 'ids' or 'id', but column 'sku' has another value"):
        Features.load(tmp_path)


def test_a_name_serves_those_of_several_files_that_have_it(foreign: Path, tmp_path: Path) -> None:
    Features(VECTORS[:, :3], NAMES, SKUS, space="new").save(tmp_path / "new")
    columns = Columns("embedding", "product_id", "category")
    loaded = columns.load({"old": foreign, "new": tmp_path / "new"}, {"old": "v1"})
    assert [(one.space, one.ids_from, one.classes) for one in loaded.values()] == [
        ("v1", "column 'product_id'", ("cat", "dog", "eel")),
        ("new", "", ("cat", "dog", "eel")),
    ]
    with pytest.raises(IncompatibleError, match="says that it is of space 'new', not 'newer'; give the right one"):
        Columns().load({"new": tmp_path / "new"}, {"new": "newer"})


# ids


def test_bare_arrays_are_paired_by_row_and_this_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    old, new = tmp_path / "old.npy", tmp_path / "new.npy"
    np.save(old, VECTORS)
    np.save(new, VECTORS[:, :3])
    loaded = Columns().load({"old": old, "new": new})
    assert capsys.readouterr() == ("", f"{old} and {new}: no ids, so rows are paired by their numbers\n")
    assert pair(loaded["new"], loaded["old"]).tolist() == list(range(30))
    Columns().load({"query": old, "gallery": old})
    assert capsys.readouterr() == ("", "")  # a file is itself


def test_row_numbers_do_not_meet_ids(tmp_path: Path, foreign: Path) -> None:
    np.save(tmp_path / "new.npy", VECTORS)
    new = Features.load(tmp_path / "new.npy")
    for ids in (SKUS, np.arange(30)):  # numbers as well: they are somebody's numbers
        path = parquet(tmp_path / "old.parquet", vector=VECTORS, sku=ids)
        with pytest.raises(IncompatibleError) as caught:
            pair(new, Features.load(path, id_column="sku"), ("new.npy", "old.parquet"))
        assert str(caught.value).startswith(
            f"the ids of new.npy are row numbers, those of old.parquet come from column 'sku' (first: {ids[0]}, {ids[1]}, "
        )
        assert str(caught.value).endswith("or pair both by row number (id_column='row')")
        assert pair(new, Features.load(path, id_column="row")).tolist() == list(range(30))


def test_where_ids_come_from_is_kept_on_disk(tmp_path: Path) -> None:
    for name, features in {
        "rows": Features(VECTORS),
        "column": Features(VECTORS, None, SKUS, ids_from="column 'sku'"),
        "given": Features(VECTORS, None, SKUS),
    }.items():
        features.save(tmp_path / name)
        assert Features.load(tmp_path / name).take(slice(3, 9)).ids_from == features.ids_from
    assert "ids_from" not in json.loads((tmp_path / "given" / "manifest.json").read_text())


def test_ids_that_name_two_rows_or_two_things() -> None:
    old = Features(VECTORS, LABELS, SKUS)
    twice = Features(VECTORS, LABELS, np.r_[SKUS[:1], SKUS[:-1]])
    for new, other in ((twice, old), (old, twice)):
        with pytest.raises(
            DataError, match=r"1 ids of .* features occur more than once \(first: p00\); give every row its own"
        ):
            pair(new, other)
    changed = LABELS.copy()
    changed[[4, 7]] = 2
    with pytest.raises(IncompatibleError) as caught:
        pair(Features(VECTORS, changed, SKUS), old)
    assert str(caught.value) == (
        "2 of 30 rows of new features have another class in old features under the same id (first: p04, p07); "
        "an id must name one item everywhere, and its class must not change"
    )
    pair(Features(VECTORS, None, SKUS), old)  # one side without labels contradicts nothing


def test_pairs_in_another_order_and_those_that_are_not_there() -> None:
    order = np.random.default_rng(0).permutation(30)
    old = Features(VECTORS, LABELS, SKUS).take(order)
    new = Features(VECTORS, LABELS, SKUS).take(slice(5, 20))
    rows = pair(new, old)
    np.testing.assert_array_equal(old.ids[rows], new.ids)
    with pytest.raises(IncompatibleError) as caught:
        pair(old, new, ("b.npz", "a.npz"))
    first = ", ".join([sku for sku in old.ids if sku not in new.ids][:3])
    assert str(caught.value) == (
        f"15 of 30 ids of b.npz are not in a.npz (first: {first}, …); extract the same rows with both models"
    )


# classes


def test_classes_with_names_come_back(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", vectors=VECTORS, labels=NAMES)
    features = Features.load(tmp_path / "a.npz")
    assert features.labels is not None
    assert (features.classes, features.labels.tolist()) == (("cat", "dog", "eel"), LABELS.tolist())
    features.take(LABELS != 1).save(tmp_path / "folder")
    again = Features.load(tmp_path / "folder", verify=True)
    assert (again.classes, set(again.require_labels())) == (("cat", "dog", "eel"), {0, 2})
    manifest = tmp_path / "folder" / "manifest.json"
    for classes, message in ((["cat"], "labels reach from 0 to 2, but 1 classes have names"), ([1, 2, 3], "no usable classes")):
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"classes": classes}))
        with pytest.raises(DataError, match=message):
            Features.load(tmp_path / "folder").require_labels()


def test_one_numbering_for_several_files() -> None:
    ant = Features(VECTORS[:2], ["ant", "dog"], ["a", "b"])
    cat = Features(VECTORS[:3], ["cat", "dog", "cat"], ["x", "b", "y"], space="s")
    bare = Features(VECTORS)
    one, two, three = same_classes(ant, cat, bare)
    assert one.classes == two.classes == ("ant", "cat", "dog")
    assert (one.require_labels().tolist(), two.require_labels().tolist()) == ([0, 2], [1, 2, 1])
    assert (two.ids.tolist(), two.space) == (["x", "b", "y"], "s")
    assert three is bare
    assert pair(ant.take(slice(1, 2)), cat).tolist() == [1]  # dog is 1 of ant's classes and 1 of cat's; compared by name
    with pytest.raises(IncompatibleError, match=r"have another class in old features under the same id \(first: b\)"):
        pair(Features(VECTORS[:1], ["cat"], ["b"]), cat)


def test_compatibility_asks_by_name() -> None:
    names = np.array(["ant", "dog", "eel"])[LABELS]
    some = names != "ant"  # the gallery numbers dog and eel 0 and 1, the queries 1 and 2
    query = Features(VECTORS, names, SKUS)
    gallery = Features(VECTORS[some], names[some], SKUS[some])
    verdict = compatibility(old_query=query, old_gallery=gallery, new_query=query)
    assert verdict.queries_without_relevant == 10  # the ants
    assert verdict.old_self.top1.value == pytest.approx(2 / 3)
    with pytest.raises(IncompatibleError, match=r"classes of old_query are names .*, those of new_query numbers"):
        compatibility(old_query=query, old_gallery=gallery, new_query=Features(VECTORS, LABELS, SKUS))


def test_a_pseudo_classifier_is_used_by_name(tmp_path: Path) -> None:
    rows = np.eye(3, 4, dtype=np.float32)
    path = tmp_path / "p.safetensors"
    save_classifier(PseudoClassifier(rows, "mean", "", {}, ("cat", "dog", "eel")), path)
    loaded = load_classifier(path)
    np.testing.assert_array_equal(loaded.rows_for(("eel", "cat", "dog")), rows[[2, 0, 1]])
    np.testing.assert_array_equal(loaded.rows_for(("cat", "dog", "eel")), rows)
    with pytest.raises(
        IncompatibleError, match=r"1 of 3 classes of the training data are not in .* \(first: ant; it has cat, dog"
    ):
        loaded.rows_for(("ant", "cat", "dog"))
    with pytest.raises(IncompatibleError, match="has 3 classes, the training data 2"):
        loaded.rows_for(("cat", "dog"))
    np.testing.assert_array_equal(PseudoClassifier(rows, "", "", {}).rows_for(("ant", "bee", "cat")), rows)


def test_names_and_numbers_do_not_meet(tmp_path: Path) -> None:
    named, numbered = tmp_path / "named.npz", tmp_path / "numbered.npz"
    np.savez(named, vectors=VECTORS, labels=NAMES)
    np.savez(numbered, vectors=VECTORS, labels=LABELS)
    message = (
        f"the classes of {named} are names (cat, dog, eel), those of {numbered} numbers; give both names, or number both alike"
    )
    with pytest.raises(IncompatibleError) as caught:
        Columns().load({"old": named, "new": numbered})
    assert str(caught.value) == message
    with pytest.raises(IncompatibleError, match="are names"):
        pair(Features.load(numbered), Features.load(named))


# what `pseudo` refuses


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"vectors": np.ones((30, 4), "f4")}, "all 30 rows of {} are the same vector; extract them again"),
        ({"vectors": np.zeros((30, 4), "f4")}, "all 30 rows of {} are zeros; extract them again"),
        (
            {"vectors": VECTORS[:1], "labels": LABELS[:1], "ids": SKUS[:1]},
            "{} has a single row, which nothing can be learned from; give more items",
        ),
        (
            {"labels": LABELS * 10**12},
            "labels reach 2000000000000, but there are only 30 rows of 3 classes; number the classes from 0, without gaps",
        ),
        (
            {"vectors": np.where(np.arange(30)[:, None] == 3, np.nan, VECTORS)},
            "1 of 30 rows of {} have NaN or infinity (first: 3 (id p03)); drop or extract them again",
        ),
        (
            {"vectors": np.where(np.arange(30)[:, None] == 7, 0, VECTORS)},
            "1 of 30 rows of {} have length zero (first: 7 (id p07)); drop or extract them again",
        ),
    ],
)
def test_features_nothing_can_be_made_of(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arrays: dict[str, Any], message: str
) -> None:
    path, out = tmp_path / "old.npz", tmp_path / "p.safetensors"
    np.savez(path, **({"vectors": VECTORS, "labels": LABELS, "ids": SKUS} | arrays))
    assert complaint(capsys, 1, "pseudo", "--features", path, "--out", out) == message.format(path)
    assert list(tmp_path.iterdir()) == [path]


# what `--out` must not be


def test_pseudo_leaves_its_input_and_foreign_files(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "old.npz"
    np.savez(path, vectors=VECTORS, labels=LABELS)
    foreign = tmp_path / "notes.safetensors"
    foreign.write_text("not yours")
    before = bytes_of(tmp_path)
    for out, message in {
        path: f"--out {path} is the same as --features {path}, which would be destroyed; name another place",
        foreign: f"--out {foreign} is there already and is no safetensors file (9 bytes), not a pseudo classifier; .*",
        tmp_path: f"--out {tmp_path} contains --features {path}, which is read; name a place of its own",
        tmp_path / "b.onnx": f"--out {tmp_path}/b.onnx is written as safetensors; call it {tmp_path}/b.safetensors",
    }.items():
        said = complaint(capsys, 1, "pseudo", "--features", path, "--out", out)
        assert said.startswith(message.removesuffix(".*"))
        assert bytes_of(tmp_path) == before


def test_extract_leaves_the_images(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_images(Path("shop/train.parquet"), [0, 1, 0], id=["a", "b", "c"])
    Path("notes").mkdir()
    Path("notes/todo.txt").write_text("mine")
    before = bytes_of(tmp_path)
    for out in ("shop", "shop/features", ".", "notes", "notes/todo.txt", "notes/todo.txt/x"):
        said = complaint(capsys, 1, "extract", "--data", "shop:train", "--model", "samples:mean_colour", "--out", out)
        assert said.startswith(f"--out {out} ")
        assert bytes_of(tmp_path) == before
    command = ("extract", "--data", "shop:train", "--model", "samples:mean_colour", "--out", "features")
    assert call(capsys, *command)[0] == call(capsys, *command)[0] == 0  # ours: again is no harm


# ids of images


def test_an_id_column_of_images(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    data = write_images(tmp_path / "shop.parquet", [0, 1, 0], sku=["x", "y", "z"])
    command = ("extract", "--data", data, "--model", "samples:mean_colour", "--out")
    code, _, err = call(capsys, *command, tmp_path / "rows")
    assert (code, err) == (0, f"{data}: ids are row numbers; --id-column sku would use column 'sku'\n")
    features = Features.load(tmp_path / "rows")
    assert (features.ids.tolist(), features.ids_from) == ([0, 1, 2], "row numbers")
    assert call(capsys, *command, tmp_path / "asked", "--id-column", "row")[::2] == (0, "")
    assert call(capsys, *command, tmp_path / "skus", "--id-column", "sku")[::2] == (0, "")
    features = Features.load(tmp_path / "skus")
    assert (features.ids.tolist(), features.ids_from) == (["x", "y", "z"], "column 'sku'")
    said = complaint(capsys, 1, *command, tmp_path / "skus", "--id-column", "row")  # a folder has ids of one kind
    assert "was begun with another plan (ids_from \"column 'sku'\", now 'row numbers, as asked')" in said


def test_id_columns_of_images_that_cannot_be(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    data = write_images(tmp_path / "shop.parquet", [0, 1, 0], sku=["x", "y", "z"], url=["1", "2", "3"], size=[1, 1, 2])
    command = ("extract", "--data", data, "--model", "samples:mean_colour", "--out", tmp_path / "out")
    assert complaint(capsys, 1, *command) == (
        f"{data} has no id column, and several that could be one: sku, url; "
        "pass --id-column with one of these, or --id-column row to number the rows"
    )
    assert complaint(capsys, 1, *command, "--id-column", "skus") == (
        f"{data} has no column 'skus' for --id-column, only: image, label, sku, url, size; name one of these"
    )
    assert "cannot be the ids: it must hold an integer or a text in every row, no two alike; it is" in complaint(
        capsys, 1, *command, "--id-column", "size"
    )
    assert not (tmp_path / "out").exists()
    data = write_images(tmp_path / "twice.parquet", [0, 1, 0], filename=["x", "x", "z"])
    code, _, err = call(capsys, "extract", "--data", data, *command[3:])
    assert (code, err) == (0, f"{data}: ids are row numbers, because column 'filename' repeats a value\n")
    assert open_images(str(image_folder(tmp_path / "pets", {CAT: 1, DOG: 1}))).ids_from == "file names"


@pytest.mark.parametrize("name", ["clinc.json", "texts.csv"])
def test_files_of_texts_without_a_column_of_texts(capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text('{"a": 1}\n' * 10)
    said = complaint(capsys, 1, "extract", "--data", path, "--model", "samples:mean_colour", "--out", tmp_path / "out")
    assert said.startswith(f"{path} has no column 'text', only: ")
    assert said.endswith("; name the one with the texts (--text-column)")
    with pytest.raises(FormatError, match=f"is a {path.suffix} file, and images are read from Parquet"):
        open_images(str(path))


@pytest.mark.parametrize("name", ["vectors.faiss", "noname"])
def test_files_that_hold_no_images(capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text('{"a": 1}\n' * 10)
    said = complaint(capsys, 1, "extract", "--data", path, "--model", "samples:mean_colour", "--out", tmp_path / "out")
    kind = Path(name).suffix or "nameless"
    assert said.startswith(f"{path} is a {kind} file, and images are read from Parquet, class folders or the hub; ")
    assert list(tmp_path.iterdir()) == [path]


def test_messages_name_flags_only_on_the_command_line(foreign: Path) -> None:
    with pytest.raises(CompatlearnError, match="pass vector_column='embedding'"):
        Features.load(foreign)
    with pytest.raises(CompatlearnError, match="pass --vector-column 'embedding'"):
        Columns().load({"features": foreign})
