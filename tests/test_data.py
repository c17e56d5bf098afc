"""Labelled images as they lie on disks: Parquet, image folders, ImageNet, Places365; and what is made of them."""

import pickle
import warnings
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from compatlearn.comparison.situations import noisy_labels
from compatlearn.data import hub
from compatlearn.data.images import Images, decode, load_pixels, to_square
from compatlearn.data.sources import open_images
from compatlearn.data.splits import split_rows
from compatlearn.errors import ConfigError, DataError, FormatError
from samples import CAT, DOG, EEL, encoded, image_folder, image_table, picture, write_images


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """Tables are converted here, not in the user's home."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "datasets")


def same_pictures(images, seeds):
    """Row n is `picture(seeds[n])`."""
    return len(images) == len(seeds) and all(
        np.array_equal(images.picture(row), picture(seed)) for row, seed in enumerate(seeds)
    )


# Parquet


def class_label_table(labels, names, **options):
    """As `datasets` itself writes it: features in the schema's metadata."""
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    return image_table(labels, **options).replace_schema_metadata(features.arrow_schema.metadata)


def test_parquet_with_the_class_names_of_hugging_face(tmp_path):
    pq.write_table(class_label_table([2, 0, 2], [CAT, DOG, EEL]), tmp_path / "x.parquet")
    images = open_images(str(tmp_path / "x.parquet"))
    assert images.classes == (CAT, DOG, EEL)
    assert images.labels.tolist() == [2, 0, 2]
    assert images.labels.dtype == np.int64
    assert images.ids.tolist() == [0, 1, 2]
    assert same_pictures(images, [0, 1, 2])


def test_parquet_with_plain_numbers_counts_classes_over_every_split(tmp_path):
    write_images(tmp_path / "train.parquet", [0, 1, 4, 1])
    write_images(tmp_path / "val.parquet", [1, 0])
    images = open_images(f"{tmp_path}:val")
    assert images.classes == ("0", "1", "2", "3", "4")
    assert images.labels.tolist() == [1, 0]


def test_parquet_with_text_labels_numbers_them_over_every_split(tmp_path):
    write_images(tmp_path / "train.parquet", [EEL, CAT, DOG])
    write_images(tmp_path / "val.parquet", [EEL, EEL], first=7)
    images = open_images(str(tmp_path), "val")
    assert images.classes == (CAT, DOG, EEL)
    assert images.labels.tolist() == [2, 2]
    assert same_pictures(images, [7, 8])
    assert open_images(str(tmp_path)).labels.tolist() == [2, 0, 1]


def test_shards_are_read_in_the_order_of_their_names(tmp_path):
    for shard in (1, 0):
        write_images(tmp_path / "data" / f"train-0000{shard}-of-00002.parquet", [shard, shard, 0], first=10 * shard)
    write_images(tmp_path / "data" / "validation-00000-of-00001.parquet", [1], first=20)
    write_images(tmp_path / "data" / "test-00000-of-00001.parquet", [0, 0], first=30)
    images = open_images(str(tmp_path))
    assert images.labels.tolist() == [0, 0, 0, 1, 1, 0]
    assert same_pictures(images, [0, 1, 2, 10, 11, 12])
    assert same_pictures(open_images(f"{tmp_path}:val"), [20])  # test is not mixed into it
    assert same_pictures(open_images(f"{tmp_path}:test"), [30, 31])


@pytest.mark.parametrize("name", ["binary", "no bytes", "large struct"])
def test_other_ways_to_store_images(tmp_path, name):
    table, contents = image_table([0, 1]), [encoded(picture(0)), encoded(picture(1))]
    paths = [tmp_path / "0.png", tmp_path / "1.png"]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    columns = {
        "binary": contents,
        "no bytes": [{"bytes": None, "path": str(path)} for path in paths],
        "large struct": pa.array(
            [{"path": "x", "bytes": one} for one in contents], pa.struct({"path": pa.string(), "bytes": pa.large_binary()})
        ),
    }
    pq.write_table(table.set_column(0, "img", pa.array(columns[name])), tmp_path / "x.parquet")
    assert same_pictures(open_images(str(tmp_path / "x.parquet")), [0, 1])


def test_ids_are_a_column_of_unique_ones_else_row_numbers(tmp_path):
    write_images(tmp_path / "own" / "x.parquet", [0, 1], image_id=[71, 7])
    write_images(tmp_path / "text" / "x.parquet", [0, 1], filename=["b.jpg", "a.jpg"])
    write_images(tmp_path / "twice" / "x.parquet", [0, 1], filename=["a.jpg", "a.jpg"])
    assert open_images(str(tmp_path / "own")).ids.tolist() == [71, 7]
    assert open_images(str(tmp_path / "text")).ids.tolist() == ["b.jpg", "a.jpg"]
    assert open_images(str(tmp_path / "twice")).ids.tolist() == [0, 1]


def test_rows_and_classes_can_be_chosen(tmp_path):
    images = open_images(str(write_images(tmp_path / "x.parquet", [0, 1, 2, 1, 0])))
    some = images.take(np.array([3, 0]))
    assert (some.labels.tolist(), some.ids.tolist()) == ([1, 0], [3, 0])
    assert same_pictures(some, [3, 0])
    first = images.first_classes(2)
    assert first.classes == ("0", "1")
    assert same_pictures(first, [0, 1, 3, 4])
    assert images.first_classes(None) is images
    with pytest.raises(ConfigError, match=r"classes must be in \[1, 3\], the classes of .*; got 4"):
        images.first_classes(4)


def test_table_reader_crosses_chunks_and_travels_as_the_name_of_its_file(tmp_path):
    labels = list(range(6)) * 400  # more rows than datasets keeps in one chunk
    images = open_images(str(write_images(tmp_path / "x.parquet", labels)))
    assert len(images.read.chunks) > 1
    copy = pickle.loads(pickle.dumps(images.read))
    for row in (0, 999, 1000, 2399):
        assert np.array_equal(copy(row), picture(row))
        assert np.array_equal(images.read(row), picture(row))
    held = sum(len(encoded(picture(row))) for row in range(0, 2400, 24)) * 24
    assert len(pickle.dumps(images.read)) < held / 50


def test_workers_read_a_table(tmp_path):
    images = open_images(str(write_images(tmp_path / "x.parquet", [0, 1, 0, 1])))

    class Set(torch.utils.data.Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, row):
            return torch.from_numpy(images.square(row, 8).copy())

    read = torch.cat(list(torch.utils.data.DataLoader(Set(), batch_size=2, num_workers=1)))
    assert np.array_equal(read, decode(images, 8)[1])


BAD_TABLES = {
    "no image column": (pa.table({"pixels": [b""], "label": [0]}), "has no image column .*, only pixels, label; rename"),
    "no label column": (image_table([0]).drop_columns("label"), "has no label column .*, only image; rename"),
    "no rows": (image_table([0]).slice(0, 0), "has no rows"),
    "labels of -1": (image_table([0, -1, -1]), r"2 of 3 rows of .* have no label \(first: 1, 2\)"),
    "labels of none": (image_table([0, None, 1]), r"1 of 3 rows of .* have no label \(first: 1\)"),
    "labels of floats": (image_table([0.5, 1.0]), "labels of .* must be integers or text"),
    "labels of lists": (image_table([[0], [1]]), "labels of .* must be integers or text"),
    "labels like ids": (image_table([10**9, 5]), "reach 1000000000, but there are only 2 rows"),
    "labels below zero": (image_table([0, -7]), r"1 of 2 labels of .* are not in \[0, 1\) \(first rows: 1\)"),
    "labels beyond the names": (class_label_table([0, 3], [CAT, DOG]), r"not in \[0, 2\)|[Cc]lass label"),
    "images of numbers": (pa.table({"image": [1, 2], "label": [0, 1]}), "column 'image' of .* not images"),
}


@pytest.mark.parametrize("fault", BAD_TABLES)
def test_tables_that_cannot_be_used(tmp_path, fault):
    table, message = BAD_TABLES[fault]
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(DataError, match=message):
        open_images(str(tmp_path / "x.parquet"))


def test_damaged_parquet_is_named(tmp_path):
    write_images(tmp_path / "train-0.parquet", [0, 1])
    whole = write_images(tmp_path / "train-1.parquet", [0, 1]).read_bytes()
    for content in (whole[:-20], b"", b"nothing like it"):
        (tmp_path / "train-1.parquet").write_bytes(content)
        with pytest.raises(FormatError, match=rf"train-1.parquet is not a whole Parquet file \({len(content)} bytes\)"):
            open_images(str(tmp_path))


def test_shards_with_other_columns_are_refused(tmp_path):
    write_images(tmp_path / "train-0.parquet", [0, 1])
    write_images(tmp_path / "train-1.parquet", [CAT, DOG], extra=[1, 2])
    with pytest.raises(FormatError, match=r"cannot be read as Parquet images: .*; give every file the same columns"):
        open_images(str(tmp_path))


# folders


def test_class_folders(tmp_path):
    root = image_folder(tmp_path / "pets", {DOG: 2, CAT: 3})
    images = open_images(str(root))
    assert images.classes == (CAT, DOG)
    assert images.labels.tolist() == [0, 0, 0, 1, 1]
    assert images.ids.tolist() == ["cat/0.png", "cat/1.png", "cat/2.png", "dog/0.png", "dog/1.png"]
    assert same_pictures(images, [2, 3, 4, 0, 1])
    assert open_images(f"{root}:all").ids.tolist() == open_images(str(root), "train").ids.tolist() == images.ids.tolist()


def test_class_folders_are_torchvisions(tmp_path):
    image_folder(tmp_path, {"n2": 12, "n10": 2, "B": 1})
    image_folder(tmp_path / "n2", {"deeper": 2, "a": 1}, suffix="JPEG", first=20)
    (tmp_path / "n2" / "notes.txt").touch()
    (tmp_path / "list.png").touch()
    images, folder = open_images(str(tmp_path)), ImageFolder(tmp_path)
    assert images.classes == tuple(folder.classes)
    assert images.labels.tolist() == folder.targets
    assert images.ids.tolist() == [Path(file).relative_to(tmp_path).as_posix() for file, _ in folder.samples]


def test_train_and_val_folders_share_their_labels(tmp_path):
    image_folder(tmp_path / "train", {CAT: 1, DOG: 1, EEL: 1})
    image_folder(tmp_path / "val", {EEL: 2, CAT: 1}, first=5)
    (tmp_path / "val" / DOG).mkdir()
    for there in (True, False):  # dog: a folder with no image in it, then no folder
        images = open_images(f"{tmp_path}:val")
        assert images.classes == (CAT, DOG, EEL)
        assert images.labels.tolist() == [0, 2, 2]
        assert images.ids.tolist() == ["cat/0.png", "eel/0.png", "eel/1.png"]
        if there:
            (tmp_path / "val" / DOG).rmdir()
    assert len(open_images(str(tmp_path))) == 3


def test_a_folder_named_test_serves_as_val_only_where_there_is_no_other(tmp_path):
    image_folder(tmp_path / "training", {CAT: 1})
    image_folder(tmp_path / "test", {CAT: 2})
    assert len(open_images(str(tmp_path), "val")) == 2
    image_folder(tmp_path / "valid", {CAT: 3})
    assert len(open_images(str(tmp_path), "val")) == 3
    assert len(open_images(str(tmp_path), "test")) == 2
    assert len(open_images(str(tmp_path), "train")) == 1


def test_imagenet_as_unpacked(tmp_path):
    image_folder(tmp_path / "train", {"n01440764": 2, "n01443537": 1}, suffix="JPEG")
    image_folder(tmp_path / "val", {"n01440764": 1, "n01443537": 1}, suffix="JPEG", first=9)
    train, val = open_images(str(tmp_path)), open_images(f"{tmp_path}:val")
    assert train.classes == val.classes == ("n01440764", "n01443537")
    assert train.labels.tolist() == [0, 0, 1]
    assert val.ids.tolist() == ["n01440764/0.JPEG", "n01443537/0.JPEG"]
    assert val.picture(1).size == (12, 10)


def test_imagenet_with_a_flat_val_folder(tmp_path):
    image_folder(tmp_path / "train", {"n01440764": 1})
    (tmp_path / "val").mkdir()
    picture(0).save(tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG")
    assert len(open_images(str(tmp_path))) == 1
    with pytest.raises(DataError, match=r"val holds no class folders with images; expected <class>/<image>.jpg"):
        open_images(f"{tmp_path}:val")


def test_folders_that_cannot_be_used(tmp_path):
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="none holds no class folders with images"):
        open_images(str(tmp_path / "none"))
    (tmp_path / "empty" / CAT).mkdir(parents=True)
    with pytest.raises(DataError, match=r"the 1 class folders of .*empty hold no images"):
        open_images(str(tmp_path / "empty"))
    image_folder(tmp_path / "some", {CAT: 1, DOG: 0, EEL: 0})
    with pytest.raises(DataError, match=r"2 of 3 class folders of .*some hold no image \(first: dog, eel\)"):
        open_images(str(tmp_path / "some"))
    image_folder(tmp_path / "extra" / "train", {CAT: 1})
    image_folder(tmp_path / "extra" / "val", {CAT: 1, DOG: 1})
    with pytest.raises(DataError, match=r"1 of 2 classes of .*val are not in .*train \(first: dog\)"):
        open_images(f"{tmp_path}/extra:val")


def places(root):
    """The layout of Places365's archives: names with letters and slashes, lists beside the folders."""
    root.mkdir()
    (root / "categories_places365.txt").write_text("/a/airfield 0\n/a/apartment_building/outdoor 1\n")
    files = ["/a/airfield/00000001.jpg", "/a/apartment_building/outdoor/00000001.jpg", "/a/airfield/00000002.jpg"]
    (root / "places365_train_standard.txt").write_text(f"{files[1]} 1\n{files[0]} 0\n{files[2]} 0\n")
    (root / "places365_val.txt").write_text("Places365_val_00000001.jpg 1\n")
    for number, file in enumerate(files):
        path = root / "data_256_standard" / file[1:]
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(path, "PNG")
    (root / "val_256").mkdir()
    picture(9).save(root / "val_256" / "Places365_val_00000001.jpg", "PNG")
    return root


def test_places365_as_its_archives_unpack(tmp_path):
    root = places(tmp_path / "places")
    train, val = open_images(str(root)), open_images(f"{root}:val")
    assert train.classes == val.classes == ("/a/airfield", "/a/apartment_building/outdoor")
    assert train.labels.tolist() == [1, 0, 0]
    assert train.ids.tolist()[:2] == ["a/apartment_building/outdoor/00000001.jpg", "a/airfield/00000001.jpg"]
    assert same_pictures(train, [1, 0, 2])
    assert val.labels.tolist() == [1]
    assert same_pictures(val, [9])


def test_places365_in_plain_folders(tmp_path):
    image_folder(tmp_path / "train", {"airfield": 1, "apartment_building-outdoor": 1})
    image_folder(tmp_path / "val", {"airfield": 1})
    (tmp_path / "categories_places365.txt").write_text("/a/airfield 0\n/a/apartment_building/outdoor 1\n")
    assert open_images(f"{tmp_path}:val").classes == ("airfield", "apartment_building-outdoor")


def test_places365_that_is_not_whole(tmp_path):
    root = places(tmp_path / "places")
    with (root / "places365_val.txt").open("a") as listing:
        listing.write("no label\nPlaces365_val_00000002.jpg 365\n")
    with pytest.raises(FormatError, match=r"2 of 3 lines of .*places365_val.txt are not .* \[0, 2\)>` \(first: 2, 3\)"):
        open_images(f"{root}:val")
    (root / "places365_val.txt").unlink()
    with pytest.raises(DataError, match=r"lacks places365_val.txt or a folder val_256 or val_large"):
        open_images(f"{root}:val")


# names


def test_digits():
    train, val, every = (open_images("digits", split) for split in ("train", "val", "all"))
    assert (len(train), len(val), len(every)) == (1258, 539, 1797)
    assert np.array_equal(np.sort(np.concatenate([train.ids, val.ids])), every.ids)
    assert open_images("digits").ids.tolist() == train.ids.tolist()
    assert open_images("digits:val").ids.tolist() == val.ids.tolist()
    assert val.picture(0).size == (8, 8)
    assert val.picture(0).mode == "RGB"
    assert np.asarray(val.picture(0)).max() == 255


def test_what_is_not_there(tmp_path):
    for name in ("/nowhere", "./nowhere", "~/nowhere/at/all", "a/b/c", str(tmp_path / "x.parquet"), "x.parquet", ""):
        with pytest.raises(DataError, match=r"^there is no .*; give digits, Parquet files, an image folder or a hub name"):
            open_images(name)


def test_a_split_that_is_not_there(tmp_path):
    write_images(tmp_path / "one.parquet", [0, 1])
    write_images(tmp_path / "train" / "train.parquet", [0, 1])
    image_folder(tmp_path / "pets" / "val", {CAT: 1})
    cases = {
        "digits:tset": "digits has no split 'tset', only train, val, all; name one as DATA:SPLIT",
        f"{tmp_path}/one.parquet:val": "has no split 'val', only all",
        f"{tmp_path}/train:val": "has no split 'val', only train",
        f"{tmp_path}/train/train.parquet:val": "has no split 'val', only train",
        f"{tmp_path}/pets:train": "has no split 'train', only val",
    }
    for data, message in cases.items():
        with pytest.raises(DataError, match=message):
            open_images(data)
    assert len(open_images(f"{tmp_path}/one.parquet:train")) == 2
    assert len(open_images(f"{tmp_path}/pets")) == 1


def test_a_path_with_a_colon_is_a_path(tmp_path):
    root = image_folder(tmp_path / "pets:val", {CAT: 1})
    assert len(open_images(str(root))) == 1


def test_a_hub_that_cannot_be_reached_is_not_waited_for(monkeypatch):
    def refused(address, timeout):
        raise OSError("no network")

    def slow(*arguments):
        raise AssertionError("the client would retry for half a minute")

    monkeypatch.setattr(hub, "getproxies", dict)
    monkeypatch.setattr(hub.socket, "create_connection", refused)
    monkeypatch.setattr("time.sleep", slow)
    offline = datasets.config.HF_HUB_OFFLINE
    with pytest.raises(
        DataError, match=r"^someone/pets is no file or folder here, and the hub did not give it \(the hub cannot be reached\); "
    ):
        open_images("someone/pets:val")
    assert datasets.config.HF_HUB_OFFLINE is offline


def test_a_hub_data_set_is_read_like_a_file(monkeypatch):
    tables = {
        name: datasets.Dataset(class_label_table([1, 0], [CAT, DOG], first=first))
        for name, first in (("train", 0), ("test", 5))
    }
    monkeypatch.setattr(hub, "reachable", lambda address: True)
    monkeypatch.setattr(datasets, "load_dataset", lambda name: {"someone/pets": datasets.DatasetDict(tables)}[name])
    images = open_images("someone/pets", "val")
    assert images.classes == (CAT, DOG)
    assert same_pictures(images, [5, 6])
    with pytest.raises(DataError, match="someone/pets has no split 'tset', only train, test"):
        open_images("someone/pets:tset")
    with pytest.raises(DataError, match=r"the hub did not give it \('someone/else'\); check the name and the network"):
        open_images("someone/else")


# pictures


def palette():
    image = Image.new("P", (8, 8))
    image.putdata(range(64))
    image.putpalette([value % 251 for value in range(768)])
    return image


def one(tmp_path, content):
    """What `open_images` makes of one stored picture."""
    (tmp_path / "pets" / CAT).mkdir(parents=True, exist_ok=True)
    (tmp_path / "pets" / CAT / "0.png").write_bytes(content)
    image = open_images(str(tmp_path / "pets")).picture(0)
    assert image.mode == "RGB"
    return np.asarray(image)


def test_grey_becomes_three_equal_channels(tmp_path):
    grey = picture(0).convert("L")
    assert np.array_equal(one(tmp_path, encoded(grey)), np.dstack([grey] * 3))
    assert np.array_equal(one(tmp_path, encoded(grey.convert("1"))), np.dstack([grey.convert("1").convert("L")] * 3))


def test_sixteen_bits_are_scaled_and_not_cut(tmp_path):
    deep = np.arange(0, 65536, 1024, dtype=np.uint16).reshape(8, 8)
    assert np.array_equal(one(tmp_path, encoded(Image.fromarray(deep))), np.dstack([deep >> 8] * 3))


def test_transparency_is_dropped(tmp_path):
    solid = picture(1)
    clear = solid.copy()
    clear.putalpha(Image.new("L", solid.size, 3))
    assert np.array_equal(one(tmp_path, encoded(clear)), solid)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mixed = one(tmp_path, encoded(palette(), transparency=bytes([0] * 9 + [255] * 247)))
    assert np.array_equal(mixed, palette().convert("RGB"))


def test_print_colours_are_converted(tmp_path):
    ink = Image.new("CMYK", (8, 8), (0, 255, 255, 0))  # magenta and yellow: red
    red = one(tmp_path, encoded(ink, "JPEG", quality=95))[4, 4]
    assert red[0] > 200
    assert (red[1:] < 60).all()


def test_exif_rotation_is_not_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° to the right
    assert one(tmp_path, encoded(picture(2), "PNG", exif=exif)).shape == (10, 12, 3)
    assert "EXIF" in Images.picture.__doc__


def test_numbers_without_a_range_are_refused(tmp_path):
    floats = Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8))
    with pytest.raises(DataError, match=r"image cat/0.png of .* cannot be read: mode F has no known range of values"):
        one(tmp_path, encoded(floats, "TIFF"))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"])
def test_damaged_pictures_are_data_errors(tmp_path, kind):
    whole = encoded(picture(3, (40, 40)), kind)
    generator = np.random.default_rng(0)
    damaged = [whole[: len(whole) // 2], whole[:20], b""]
    for _ in range(20):
        content = bytearray(whole)
        for place in generator.integers(0, min(200, len(content)), 5):
            content[place] = generator.integers(0, 256)
        damaged.append(bytes(content))
    failed = 0
    for content in damaged:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd headers that it can read after all
            try:
                one(tmp_path, content)
            except DataError:
                failed += 1
    assert failed >= 2


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 24))
@settings(max_examples=60, deadline=None)
def test_to_square_is_resize_and_center_crop(width, height, size):
    image = picture(width * 41 + height, (width, height))
    for crop in (size, max(1, size - 3)):
        expected = Compose([Resize(size, InterpolationMode.BICUBIC), CenterCrop(crop)])(image)
        square = to_square(image, size, crop=crop)
        assert square.shape == (3, crop, crop)
        assert np.array_equal(square, np.asarray(expected).transpose(2, 0, 1))


def test_to_square_takes_the_middle():
    wide = np.zeros((4, 12, 3), np.uint8)
    wide[:, 4:8] = 9
    assert (to_square(Image.fromarray(wide), 4) == 9).all()
    squashed = to_square(Image.fromarray(wide), 4, squash=True)
    assert np.array_equal(
        squashed, np.asarray(Image.fromarray(wide).resize((4, 4), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    )
    assert not np.array_equal(to_square(picture(0), 5, interpolation="bilinear"), to_square(picture(0), 5))


# all of them at once


def test_decode_keeps_order_and_leaves_out_what_cannot_be_read(tmp_path):
    root = image_folder(tmp_path / "pets", {CAT: 70, DOG: 80})
    for name in ("cat/5.png", "dog/77.png"):
        (root / name).write_bytes(b"no picture")
    images = open_images(str(root))
    kept, pixels, skipped = decode(images, 8, tolerance=0.02)
    assert [name for name, _ in skipped] == ["cat/5.png", "dog/77.png"]
    assert all("cannot be read" in reason for _, reason in skipped)
    assert len(kept) == len(pixels) == 148
    assert set(images.ids) - set(kept.ids) == {"cat/5.png", "dog/77.png"}
    assert kept.ids.tolist() == [name for name in images.ids.tolist() if name not in ("cat/5.png", "dog/77.png")]
    for row in (0, 5, 147):
        assert np.array_equal(pixels[row], kept.square(row, 8))
    assert kept.labels[pixels.shape[0] - 1] == 1
    with pytest.raises(
        DataError, match=r"2 of 150 images cannot be read, more than the tolerance of 0.01 allows \(first: .*5.png"
    ):
        decode(images, 8, tolerance=0.01)


def test_pixels_that_do_not_fit_are_not_decoded(tmp_path, monkeypatch):
    images = open_images(str(image_folder(tmp_path / "pets", {CAT: 2, DOG: 2})))
    free = type("Memory", (), {"available": 2 * 4 * 3 * 8 * 8})
    monkeypatch.setattr("psutil.virtual_memory", lambda: free)
    assert load_pixels(images, 8)[1].shape == (4, 3, 8, 8)
    free.available -= 1
    same, pixels, skipped = load_pixels(images, 8)
    assert same is images
    assert pixels is None
    assert skipped == []


labels_of_classes = st.lists(st.integers(2, 30), min_size=1, max_size=6).flatmap(
    lambda counts: st.permutations([label for label, count in enumerate(counts) for _ in range(count)])
)


@given(labels_of_classes, st.floats(0.01, 0.99), st.integers(0, 2**31))
@settings(deadline=None)
def test_split_rows(labels, fraction, seed):
    labels = np.array(labels)
    first, second = split_rows(labels, fraction, seed)
    assert np.array_equal(np.sort(np.concatenate([first, second])), np.arange(len(labels)))  # disjoint and complete
    assert (np.diff(first) > 0).all()
    assert (np.diff(second) > 0).all()
    for label in np.unique(labels):
        count, taken = (labels == label).sum(), (labels[first] == label).sum()
        assert 1 <= taken <= count - 1
        assert abs(taken - fraction * count) <= 1
    again = split_rows(labels, fraction, seed)
    assert np.array_equal(first, again[0])


def test_split_rows_follow_the_seed_and_the_paper():
    labels = np.repeat(np.arange(5), 100)
    old, new = split_rows(labels, 0.3, seed=0)
    assert np.bincount(labels[old]).tolist() == [30] * 5
    assert np.bincount(labels[new]).tolist() == [70] * 5
    assert not np.array_equal(old, split_rows(labels, 0.3, seed=1)[0])


def test_splits_that_cannot_be_made():
    with pytest.raises(DataError, match=r"2 classes have one image and cannot be split \(first: 1, 7\)"):
        split_rows(np.array([0, 0, 1, 7]), 0.3, 0)
    for fraction in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(ConfigError, match="the fraction of a split must be between 0 and 1; got"):
            split_rows(np.array([0, 0]), fraction, 0)


@given(st.integers(2, 200), st.floats(0, 1), st.integers(2, 12), st.integers(0, 2**31))
@settings(deadline=None)
def test_noisy_labels(rows, share, classes, seed):
    labels = np.random.default_rng(seed).integers(0, classes, rows)
    noisy = noisy_labels(labels, share, classes, seed)
    assert (noisy != labels).sum() == round(share * rows)  # exactly the share, and none its own class
    assert noisy.min() >= 0
    assert noisy.max() < classes
    assert np.array_equal(noisy, noisy_labels(labels, share, classes, seed))


def test_noise_is_uniform_over_the_other_classes_and_seeded():
    labels = np.full(30_000, 2)
    counts = np.bincount(noisy_labels(labels, 1.0, 4, seed=0), minlength=4)
    assert counts[2] == 0
    assert (np.abs(counts[[0, 1, 3]] - 10_000) < 400).all()  # five standard deviations
    some, other = (noisy_labels(labels, 0.5, 4, seed) for seed in (0, 1))
    assert not np.array_equal(some, other)


def test_noise_that_cannot_be_made():
    labels = np.zeros(4, dtype=np.int64)
    assert noisy_labels(labels, 0.0, 1, 0).tolist() == [0, 0, 0, 0]
    with pytest.raises(ConfigError, match=r"label_noise 0.5 needs a second class; the data has 1"):
        noisy_labels(labels, 0.5, 1, 0)
    with pytest.raises(ConfigError, match=r"label_noise must be in \[0, 1\]; got 1.5"):
        noisy_labels(labels, 1.5, 3, 0)
