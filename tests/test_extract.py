"""Model + images → features: the right model, its own preprocessing, every row in its place, whatever interrupts it."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform, resolve_model_data_config

from compatlearn.config import TrainConfig
from compatlearn.data.images import Images
from compatlearn.data.sources import open_images
from compatlearn.encoders.encoder import Encoder, load_encoder, module_encoder
from compatlearn.encoders.extract import AHEAD, encode_shards, extract
from compatlearn.encoders.model_file import save_learner
from compatlearn.encoders.networks import Embedder, Learner, ModelSpec, build_backbone
from compatlearn.errors import ConfigError, DataError, FormatError
from compatlearn.features.features import Features
from compatlearn.features.writer import FeatureWriter
from compatlearn.training.batches import TrainingSet, embed
from compatlearn.training.train import train
from samples import CAT, DOG, call, image_folder, mean_colour, picture
from test_files import largest_file

SMALL = "resnet10t"  # the smallest of timm's that takes any size


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Images:
    return open_images(str(image_folder(tmp_path_factory.mktemp("pets"), {CAT: 7, DOG: 6})))


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model(SMALL, pretrained=False, num_classes=5).eval()


@pytest.fixture(scope="module")
def weights(network: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_file(network.state_dict(), path)
    return path


def slowly(network: torch.nn.Module, pictures: list[Image.Image]) -> np.ndarray:
    """timm's own way: its transform, its pooled features, one picture at a time."""
    transform = create_transform(**resolve_model_data_config(network), is_training=False)
    rows = []
    with torch.inference_mode():
        for one in pictures:
            maps = network.forward_features(transform(one)[None])
            rows.append(network.forward_head(maps, pre_logits=True)[0].numpy())
    return np.stack(rows)


# which model


def test_a_timm_name_with_local_weights_gives_timms_own_features(network: torch.nn.Module, weights: Path) -> None:
    pictures = [picture(0, (300, 240)), picture(1, (200, 200)), picture(2, (176, 400))]
    encoder = load_encoder(SMALL, weights=weights)
    np.testing.assert_allclose(encoder.encode(pictures), slowly(network, pictures), rtol=1e-4, atol=1e-4)
    assert encoder.space.startswith(f"{SMALL}@")


@pytest.mark.parametrize("wrapped", ["bare", "state_dict", "model"])
def test_a_pt_state_dict_is_the_same_model(network: torch.nn.Module, weights: Path, tmp_path: Path, wrapped: str) -> None:
    state = network.state_dict()
    torch.save(state if wrapped == "bare" else {wrapped: state, "epoch": 3}, tmp_path / "small.pt")
    first, second = load_encoder(SMALL, weights=weights), load_encoder(SMALL, weights=tmp_path / "small.pt")
    assert first.space == second.space
    assert np.array_equal(first.encode([picture(0)]), second.encode([picture(0)]))


def test_other_weights_are_another_space(network: torch.nn.Module, weights: Path, tmp_path: Path) -> None:
    state = {name: value.clone() for name, value in network.state_dict().items()}
    next(iter(state.values())).view(-1)[0] += 1e-6
    save_file(state, tmp_path / "other.safetensors")
    assert load_encoder(SMALL, weights=weights).space != load_encoder(SMALL, weights=tmp_path / "other.safetensors").space


@pytest.mark.parametrize(
    ("name", "size", "resize", "mean", "interpolation", "squash"),
    [
        ("resnet18", 224, 235, 0.485, "bicubic", False),
        ("tv_resnet34", 224, 256, 0.485, "bilinear", False),
        ("vit_tiny_patch16_224", 224, 248, 0.5, "bicubic", False),
        ("convnext_atto", 224, 256, 0.485, "bicubic", False),
        ("shufflenet_v2_x0_5", 224, 256, 0.485, "bilinear", False),
    ],
)
def test_preprocessing_is_the_one_on_record(
    tmp_path: Path, name: str, size: int, resize: int, mean: float, interpolation: str, squash: bool
) -> None:
    from compatlearn.encoders.encoder import _preprocessing

    record = {"tv_resnet34": "resnet34.tv_in1k"}.get(name, name)
    spec = _preprocessing(record, build_backbone(record))
    found = (spec.image_size, spec.resize, spec.mean[0], spec.interpolation, spec.squash)
    assert found == (size, resize, mean, interpolation, squash)


def test_preprocessing_that_squashes_and_that_is_not_known() -> None:
    from compatlearn.encoders.encoder import _preprocessing

    network = torch.nn.Identity()
    record = {"input_size": (3, 224, 224), "crop_pct": 0.9, "crop_mode": "squash", "mean": (0.5,) * 3, "std": (0.2,) * 3}
    network.pretrained_cfg = record | {"interpolation": "bicubic"}
    spec = _preprocessing("some", network)
    assert (spec.resize, spec.squash, spec.std) == (248, True, (0.2, 0.2, 0.2))
    network.pretrained_cfg = network.pretrained_cfg | {"crop_mode": "border"}
    with pytest.raises(
        ConfigError, match=r"some wants images of 224 × 224 pixels, cropped by 'border'; .* pass module:function"
    ):
        _preprocessing("some", network)


def test_squashing_and_bilinear_scaling_reach_the_pixels() -> None:
    class Pixels(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return pixels.flatten(1)

    image = picture(3, (40, 20))
    for interpolation in ("bicubic", "bilinear"):
        spec = ModelSpec("x", 12, 16, mean=(0.5,) * 3, std=(0.25,) * 3, interpolation=interpolation, squash=True)
        encoder = module_encoder(Embedder(spec, Pixels()), "x")
        squashed = image.resize((16, 16), Image.Resampling[interpolation.upper()]).crop((2, 2, 14, 14))
        expected = (np.asarray(squashed).transpose(2, 0, 1) / 255 - 0.5) / 0.25
        np.testing.assert_allclose(encoder.encode([image])[0], expected.ravel(), atol=1e-5)


def test_a_torchvision_name(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = torchvision.models.shufflenet_v2_x0_5(weights=None).eval()
    save_file(network.state_dict(), tmp_path / "net.safetensors")
    encoder = load_encoder("shufflenet_v2_x0_5", weights=tmp_path / "net.safetensors")
    network.fc = torch.nn.Identity()
    preset = torchvision.models.ShuffleNet_V2_X0_5_Weights.DEFAULT.transforms()
    image = picture(0, (256, 256))
    with torch.inference_mode():
        expected = network(preset(image)[None]).numpy()
    np.testing.assert_allclose(encoder.encode([image]), expected, rtol=1e-4, atol=1e-4)
    assert encoder.space.startswith("shufflenet_v2_x0_5@")


def test_a_run_of_ours_by_folder_and_by_file(pets: Images, tmp_path: Path) -> None:
    config = TrainConfig(epochs=1, batch_size=8, resize=10, image_size=8, dimension=6, workers=0)
    learner = train(pets, config, tmp_path / "run", backbone="small_resnet4")
    folder, file = load_encoder(str(tmp_path / "run")), load_encoder(str(tmp_path / "run" / "model.safetensors"))
    assert folder.space == file.space
    assert folder.space.startswith("small_resnet4@")
    vectors = folder.encode([pets.picture(row) for row in range(len(pets))])
    inside, rows = embed(learner.embedder, TrainingSet(pets, 10, None, 0.0))
    assert rows.tolist() == list(range(13))
    np.testing.assert_allclose(vectors, inside, atol=1e-5)
    squares = torch.tensor(np.stack([pets.square(row, 10)[:, 1:9, 1:9] for row in range(13)]))
    with torch.inference_mode():
        np.testing.assert_allclose(vectors, learner.eval()(squares)[0].numpy(), atol=1e-5)
    assert vectors.shape == (13, 6)


def test_features_do_not_depend_on_the_batch(pets: Images, weights: Path) -> None:
    encoder = load_encoder(SMALL, weights=weights)
    pictures = [pets.picture(row) for row in range(3)]
    together, alone = encoder.encode(pictures), [encoder.encode([one])[0] for one in pictures]
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)


def test_a_black_box_is_given_pictures_as_they_are_stored(pets: Images) -> None:
    encoder = load_encoder("samples:mean_colour")
    assert encoder.space == "samples:mean_colour"
    pictures = [pets.picture(row) for row in (4, 9)]
    np.testing.assert_allclose(encoder.encode(pictures), mean_colour([picture(4), picture(9)]), rtol=1e-6)
    assert encoder.encode(pictures).dtype == np.float32


def half(pictures: list[Image.Image]) -> torch.Tensor:
    return torch.tensor(mean_colour(pictures), dtype=torch.bfloat16, requires_grad=True)


def test_a_black_box_may_return_any_floats_of_torch() -> None:
    vectors = load_encoder("test_extract:half").encode([picture(0), picture(1)])
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, mean_colour([picture(0), picture(1)]), rtol=0.01)


def test_models_that_cannot_be(tmp_path: Path, weights: Path, network: torch.nn.Module) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    (tmp_path / "cut.safetensors").write_bytes(weights.read_bytes()[:5000])
    (tmp_path / "empty.pt").touch()
    (tmp_path / "text.pt").write_text("not weights")
    torch.save(network, tmp_path / "whole.pt")
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    torch.save({"other": torch.zeros(3)}, tmp_path / "other.pt")
    torch.save({name: value.new_zeros(2, 3) for name, value in network.state_dict().items()}, tmp_path / "narrow.pt")
    save_file({"conv1.weight": torch.zeros(3)}, tmp_path / "foreign.safetensors")
    cases = {
        (str(tmp_path / "run"), None): (
            DataError,
            r"holds a training that is not finished; go on with `compatlearn train --resume`",
        ),
        (str(tmp_path / "no"), None): (
            DataError,
            r"^there is no .*; give a run of `compatlearn train`, a timm or torchvision name",
        ),
        ("no.safetensors", None): (DataError, r"^there is no no.safetensors; give a run"),
        ("reznet18", None): (ConfigError, r"unknown backbone 'reznet18'; did you mean 'resnet18'\?"),
        ("resnet18.nope", weights): (ConfigError, r"timm cannot make 'resnet18.nope': .*; see timm.list_pretrained"),
        ("small_resnet4", None): (ConfigError, r"small_resnet4 has no weights of its own; give the folder of a run"),
        (str(tmp_path / "foreign.safetensors"), None): (
            FormatError,
            r"is no model of `compatlearn train` .its header has no format.; train one, or",
        ),
        (str(tmp_path / "run"), weights): (DataError, "holds a training that is not finished"),
        ("test_extract:half", weights): (
            ConfigError,
            r"--weights is for a timm or torchvision name; test_extract:half has its own",
        ),
        ("test_extract:nothing", None): (
            ConfigError,
            r"cannot import 'test_extract:nothing': AttributeError: .*; give module:function",
        ),
        ("no_module:f", None): (ConfigError, r"cannot import 'no_module:f': ModuleNotFoundError: No module named 'no_module'"),
        ("test_extract:SMALL", None): (ConfigError, "'test_extract:SMALL' is not a function but str"),
        (SMALL, tmp_path / "no.pt"): (DataError, r"there are no weights .*no.pt; check --weights"),
        (SMALL, tmp_path / "cut.safetensors"): (
            FormatError,
            r"is not a whole file of weights \(5000 bytes: .*\); write it again",
        ),
        (SMALL, tmp_path / "empty.pt"): (FormatError, r"is not a whole file of weights \(0 bytes: .*\); write it again"),
        (SMALL, tmp_path / "text.pt"): (FormatError, r"text.pt (is not a whole file of weights|holds more than tensors)"),
        (SMALL, tmp_path / "whole.pt"): (FormatError, r"holds more than tensors and is not opened; save its state dict"),
        (SMALL, tmp_path / "tensor.pt"): (FormatError, r"holds a Tensor, not a state dict; save model.state_dict\(\)"),
        (SMALL, tmp_path / "other.pt"): (
            ConfigError,
            r"lacks (\d+) of the network's \1 tensors \(first: conv1.*; the file begins with other\); is it another",
        ),
        (SMALL, tmp_path / "narrow.pt"): (ConfigError, r"does not fit the network: .*size mismatch.*"),
    }
    for (model, file), (kind, message) in cases.items():
        with pytest.raises(kind, match=message):
            load_encoder(model, weights=file)
    with pytest.raises(ConfigError, match=r"device 'warp' cannot be used: .*; name another, or none for the default"):
        load_encoder("test_extract:half", device="warp")


def test_weights_are_not_asked_of_a_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compatlearn.data.hub.reachable", lambda address: False)
    started = time.monotonic()
    with pytest.raises(
        DataError,
        match=r"the weights of resnet10t cannot be had \(the hub cannot be reached\); pass a file as --weights",
    ):
        load_encoder(SMALL)
    assert time.monotonic() - started < 20


# onto the disk


def test_rows_keep_their_order_labels_and_ids(pets: Images, tmp_path: Path) -> None:
    shuffled = pets.take(np.random.default_rng(0).permutation(13))
    encoder = load_encoder("samples:mean_colour")
    features = extract(encoder, shuffled, tmp_path / "out", batch_size=3, shard_rows=5)
    assert features.ids.tolist() == shuffled.ids.tolist()
    assert features.labels.tolist() == shuffled.labels.tolist()
    assert features.space == "samples:mean_colour"
    assert features.source == shuffled.source
    np.testing.assert_allclose(features.vectors, mean_colour([shuffled.picture(row) for row in range(13)]), rtol=1e-6)
    assert Features.load(tmp_path / "out", verify=True).dimension == 3
    assert json.loads((tmp_path / "out" / "skipped.json").read_text()) == []


def test_batches_and_shards_do_not_change_the_vectors(pets: Images, tmp_path: Path) -> None:
    encoder = load_encoder("samples:mean_colour")
    options = ({}, {"batch_size": 1}, {"batch_size": 4, "shard_rows": 3, "threads": 1}, {"shard_rows": 1})
    every = [extract(encoder, pets, tmp_path / str(number), **option).vectors for number, option in enumerate(options)]
    assert all(np.array_equal(every[0], other) for other in every[1:])


def test_half_precision_on_disk(pets: Images, tmp_path: Path) -> None:
    features = extract(load_encoder("samples:mean_colour"), pets, tmp_path / "out", dtype="float16")
    assert features.vectors.dtype == np.float16
    np.testing.assert_allclose(features.vectors, mean_colour([pets.picture(row) for row in range(13)]), rtol=1e-3)


def broken(tmp_path: Path, total: int, bad: tuple[int, ...]) -> Images:
    root = image_folder(tmp_path / "pets", {CAT: total})
    for row in bad:
        (root / CAT / f"{row}.png").write_bytes(b"no picture")
    return open_images(str(root))


@pytest.mark.parametrize("shard_rows", [1, 2, 7, 100])
def test_unreadable_images_are_skipped_recorded_and_counted(tmp_path: Path, shard_rows: int) -> None:
    images = broken(tmp_path, 20, (2, 13))
    ids = images.ids.tolist()
    bad = ["cat/2.png", "cat/13.png"]
    features = extract(
        load_encoder("samples:mean_colour"), images, tmp_path / "out", shard_rows=shard_rows, batch_size=3, tolerance=0.1
    )
    assert features.ids.tolist() == [name for name in ids if name not in bad]
    np.testing.assert_allclose(
        features.vectors, mean_colour([images.picture(ids.index(name)) for name in features.ids.tolist()]), rtol=1e-6
    )
    skipped = json.loads((tmp_path / "out" / "skipped.json").read_text())
    assert [name for name, _ in skipped] == [name for name in ids if name in bad]
    assert all("cannot be read: cannot identify image file" in reason for _, reason in skipped)


@pytest.mark.parametrize("shard_rows", [1, 100])
def test_too_many_unreadable_images_are_an_error(tmp_path: Path, shard_rows: int) -> None:
    images = broken(tmp_path, 20, (2, 13, 17))
    encoder = load_encoder("samples:mean_colour")
    options = {"shard_rows": shard_rows}
    with pytest.raises(
        DataError, match=r"3 of 20 images cannot be read, more than the tolerance of 0.1 allows \(first: image cat/"
    ):
        extract(encoder, images, tmp_path / "out", tolerance=0.1, **options)
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert len(extract(encoder, images, tmp_path / "out", tolerance=0.15, **options)) == 17
    with pytest.raises(DataError, match=r"3 of 20 images cannot be read, more than the tolerance of 0.1"):
        extract(encoder, images, tmp_path / "out", tolerance=0.1, **options)  # finished, and still too many


def test_what_a_model_must_not_return(pets: Images, tmp_path: Path) -> None:
    def some(rows: object) -> Encoder:
        return Encoder(lambda pictures: np.asarray(rows(pictures), dtype=np.float32), "some")

    def not_finite(pictures: list[Image.Image]) -> np.ndarray:
        vectors = mean_colour(pictures)
        vectors[1, 2] = np.inf
        return vectors

    def growing(pictures: list[Image.Image]) -> np.ndarray:
        return np.ones((len(pictures), 3 if len(pictures) == 10 else 4))

    with pytest.raises(
        DataError, match=r"some gave NaN or infinity for 1 of 13 images \(first: cat/1.png\); check the model on them"
    ):
        extract(some(not_finite), pets, tmp_path / "infinite")
    with pytest.raises(DataError, match="some gave vectors of 3 and then of 4 dimensions; it must give one kind"):
        extract(some(growing), pets, tmp_path / "growing", batch_size=10)
    with pytest.raises(FormatError, match=r"shards of .* have dimensions \[3, 4\]"):
        extract(some(growing), pets, tmp_path / "shards", shard_rows=10)
    with pytest.raises(ConfigError, match=r"batch_size must be at least 1, .*; got batch_size 0"):
        extract(some(mean_colour), pets, tmp_path / "batch", batch_size=0)
    with pytest.raises(ConfigError, match=r"tolerance a share in \[0, 1\]; got batch_size 256, tolerance -1.0"):
        extract(some(mean_colour), pets, tmp_path / "batch", tolerance=-1.0)


# side by side


def watched(images: Images) -> tuple[Images, list[int]]:
    """The same images, and the rows that have been read."""
    rows: list[int] = []

    def read(row: int) -> Image.Image:
        rows.append(row)
        return images.read(row)

    return replace(images, read=read), rows


def wait(condition: object) -> bool:
    """Whether it came true within some seconds."""
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


def test_following_batches_are_decoded_meanwhile_and_not_too_many(pets: Images) -> None:
    images, read = watched(pets)
    reached = []
    assert AHEAD > 0

    def forward(pictures: list[Image.Image]) -> np.ndarray:
        expected = min(2 * (len(reached) + 1 + AHEAD), 13)
        reached.append(wait(lambda: len(read) >= expected))
        time.sleep(0.05)
        assert len(read) == expected  # AHEAD batches more, of the next shard too
        return mean_colour(pictures)

    with ThreadPoolExecutor(4) as pool:
        done = list(encode_shards(Encoder(forward, "some"), images, [range(4), range(4, 8), range(8, 13)], 2, pool))
    assert [shard.rows for shard in done] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11, 12]]
    assert reached == [True] * 7


def test_pictures_are_prepared_where_they_are_decoded(pets: Images, tmp_path: Path) -> None:
    threads: set[int] = set()

    def prepare(one: Image.Image) -> np.ndarray:
        threads.add(threading.get_ident())
        return np.asarray(one).mean(axis=(0, 1))

    features = extract(Encoder(np.stack, "some", prepare), pets, tmp_path / "out")
    np.testing.assert_allclose(features.vectors, mean_colour([pets.picture(row) for row in range(13)]), rtol=1e-6)
    assert threads
    assert threading.get_ident() not in threads


def test_a_shard_is_written_while_the_next_is_encoded(pets: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, overlapped, write = [], [], FeatureWriter.write

    def late(writer: FeatureWriter, shard: int, *arguments: object, **options: object) -> None:
        overlapped.append(shard == 3 or wait(lambda: len(calls) > shard + 1))
        write(writer, shard, *arguments, **options)

    def forward(pictures: list[Image.Image]) -> np.ndarray:
        calls.append(len(pictures))
        assert len(calls) - 2 <= len(overlapped)  # one shard waits at most
        return mean_colour(pictures).astype(np.float32)

    monkeypatch.setattr(FeatureWriter, "write", late)
    assert len(extract(Encoder(forward, "some"), pets, tmp_path / "out", shard_rows=4)) == 13
    assert overlapped == [True] * 4


@pytest.mark.parametrize("shard_rows", [4, 100])
def test_a_disk_that_is_full_ends_the_extraction(pets: Images, tmp_path: Path, shard_rows: int) -> None:
    encoder = load_encoder("samples:mean_colour")
    with (
        largest_file(600),
        pytest.raises(DataError, match=r"cannot write .*0000[01]\.npz: File too large; free some space"),
    ):
        extract(encoder, pets, tmp_path / "out", shard_rows=shard_rows)
    assert len(extract(encoder, pets, tmp_path / "out", shard_rows=shard_rows)) == 13


def test_a_gpu_has_its_next_batch_before_it_is_waited_for(pets: Images) -> None:
    events: list[str] = []

    class Coming(torch.Tensor):
        def cpu(self) -> torch.Tensor:
            events.append("w")
            return self.as_subclass(torch.Tensor)

    def forward(pictures: list[Image.Image]) -> torch.Tensor:
        events.append("s")
        return torch.from_numpy(mean_colour(pictures)).float().as_subclass(Coming)

    with ThreadPoolExecutor(1) as pool:
        done = list(encode_shards(Encoder(forward, "some"), pets, [range(6), range(6, 13)], 2, pool))
    vectors = np.concatenate([batch for shard in done for batch in shard.vectors])
    np.testing.assert_allclose(vectors, mean_colour([pets.picture(row) for row in range(13)]), rtol=1e-6)
    assert "".join(events) == "sswsww" + "sswswsww"  # nothing is left behind when a shard ends


# interrupted


def command(data: Path, out: Path) -> list[str]:
    options = ["--data", str(data), "--model", "samples:mean_colour", "--out", str(out)]
    return ["extract", *options, "--shard-rows", "2", "--batch-size", "2", "--tolerance", "0.1"]


def test_killed_and_run_again_is_byte_for_byte_the_uninterrupted_extraction(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    broken(tmp_path, 30, (4, 21))
    data, killed = tmp_path / "pets", tmp_path / "killed"
    assert call(capsys, *command(data, tmp_path / "whole"))[0] == 0
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from compatlearn.cli import run; sys.exit(run(sys.argv[1:]))",
            *command(data, killed),
        ],
        env={**os.environ, "SLOW_COLOUR": "0.5", "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 300
    while len(list(killed.glob("shards/0*.npz"))) < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    _, errors = process.communicate()
    done = {path.name: path.stat().st_mtime_ns for path in killed.glob("shards/0*.npz")}
    assert 3 <= len(done) < 15, errors
    assert not (killed / "manifest.json").exists()
    with pytest.raises(
        FormatError, match=rf"was not finished \({len(done)} of 15 shards\); run the same extract command again"
    ):
        Features.load(killed)
    kept = {name: killed.joinpath("shards", name).read_bytes() for name in done}
    assert all(kept.values())

    code, out, _ = call(capsys, *command(data, killed))
    assert (code, out) == (0, f"{killed}: 28 features of 3 dimensions, 2 unreadable images skipped\n")
    files = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert (
        files
        == sorted(path.name for path in killed.iterdir())
        == ["manifest.json", "rows.parquet", "skipped.json", "vectors.npy"]
    )
    for name in files:
        assert (killed / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_second_run_reads_nothing_again(pets: Images, tmp_path: Path) -> None:
    calls: list[int] = []

    def counted(pictures: list[Image.Image]) -> np.ndarray:
        calls.append(len(pictures))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return mean_colour(pictures).astype(np.float32)

    encoder = Encoder(counted, "some")
    with pytest.raises(KeyboardInterrupt):
        extract(encoder, pets, tmp_path / "out", shard_rows=4)
    assert calls == [4, 4, 4]
    assert len(extract(encoder, pets, tmp_path / "out", shard_rows=4)) == 13
    assert calls == [4, 4, 4, 4, 1]
    extract(encoder, pets, tmp_path / "out", shard_rows=4)
    assert calls == [4, 4, 4, 4, 1]


def test_another_model_or_other_images_do_not_mix(pets: Images, tmp_path: Path) -> None:
    extract(load_encoder("samples:mean_colour"), pets, tmp_path / "out")
    with pytest.raises(FormatError, match=r"begun with another plan \(space 'samples:mean_colour', now 'test_extract:half'\)"):
        extract(load_encoder("test_extract:half"), pets, tmp_path / "out")
    with pytest.raises(FormatError, match=r"begun with another plan \(rows 13, now 2\); use another --out or delete"):
        extract(load_encoder("samples:mean_colour"), pets.take(np.array([0, 1])), tmp_path / "out")


# networks


def test_backbones_give_pooled_features_without_a_classifier() -> None:
    for name, width in ((SMALL, 512), ("small_resnet4", 16), ("shufflenet_v2_x0_5", 1024), ("googlenet", 1024)):
        features = build_backbone(name).eval()(torch.zeros(2, 3, 64, 64))
        assert features.shape == (2, width), name


def two_outputs() -> torch.nn.Module:
    class Two(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return pixels, pixels

    return Two()


def flat() -> torch.nn.Module:
    return torch.nn.Flatten()


def failing() -> torch.nn.Module:
    raise KeyError("no such layer")


def test_backbones_of_anyone() -> None:
    assert Embedder(ModelSpec("test_extract:flat", 8, 8)).dimension == 192
    assert Embedder(ModelSpec("test_extract:flat", 8, 8, dimension=5)).dimension == 5
    with pytest.raises(ConfigError, match=r"a backbone must return \(batch, dimension\) features; got tuple"):
        Embedder(ModelSpec("test_extract:two_outputs", 8, 8))
    with pytest.raises(ConfigError, match=r"test_extract:failing\(\) failed: KeyError: 'no such layer'"):
        build_backbone("test_extract:failing")
    with pytest.raises(ConfigError, match=r"time:time\(\) must return a torch module; it returned float"):
        build_backbone("time:time")


def test_pixels_are_scaled_and_normalised_inside_the_model() -> None:
    spec = ModelSpec("test_extract:flat", 4, 4, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.125))
    pixels = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    expected = (pixels / 255 - torch.tensor(spec.mean).view(3, 1, 1)) / torch.tensor(spec.std).view(3, 1, 1)
    torch.testing.assert_close(Embedder(spec)(pixels), expected.flatten(1))
    torch.testing.assert_close(Embedder(spec)(pixels.float()), expected.flatten(1))


def test_a_saved_model_remembers_its_preprocessing(tmp_path: Path) -> None:
    spec = ModelSpec("small_resnet4", 8, 10, dimension=3, mean=(0.1, 0.2, 0.3), interpolation="bilinear", squash=True)
    save_learner(Learner(Embedder(spec), 2), tmp_path / "model.safetensors")
    from compatlearn.encoders.model_file import load_learner

    assert load_learner(tmp_path / "model.safetensors").embedder.spec == spec
