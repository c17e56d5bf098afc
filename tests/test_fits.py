"""Fits that are kept: the same bits, whether read or made; nothing is taken for a fit that is none."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import compatlearn as cl
from compatlearn.adapters.methods import ADAPTERS, GALLERY, QUERY
from compatlearn.errors import DataError
from compatlearn.locks import LOCK
from compatlearn.upgrade.fits import Fits, forget, keeping
from compatlearn.upgrade.maps import Methods, Pairs, fit, fit_heads, fit_maps

ROWS = 60
RANDOM = np.random.default_rng(0)
NEW = RANDOM.normal(size=(ROWS, 6)).astype(np.float32)
OLD = (NEW @ RANDOM.normal(size=(6, 4)) + RANDOM.normal(size=(ROWS, 4))).astype(np.float32)
OTHERS = RANDOM.normal(size=(40, 4)).astype(np.float32)
LABELS = np.arange(ROWS) % 5


@pytest.fixture(autouse=True)
def keep_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compatlearn.upgrade.fits.WORTH", 0.0)


def pairs(folder: Path, told: list[str], labels: np.ndarray | None = None) -> Pairs:
    return Pairs(NEW, OLD, labels, Fits(folder, told.append))


def weights(adapter: cl.Adapter) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in adapter.network_.state_dict().items()}


def inode(folder: Path) -> dict[str, int]:
    """Files by name and number: one that was written again is another file."""
    return {path.name: path.stat().st_ino for path in folder.glob("*.safetensors")}


@pytest.mark.parametrize(
    ("method", "direction", "options"),
    [
        ("procrustes", QUERY, {}),
        ("ridge", GALLERY, {}),
        ("kernel-ridge", GALLERY, {}),
        ("distilled", QUERY, {"epochs": 1, "hidden": 8}),
        ("residual-mlp", QUERY, {"epochs": 1}),
    ],
)
def test_what_is_read_is_what_was_fitted(tmp_path: Path, method: str, direction: str, options: dict[str, int]) -> None:
    told: list[str] = []
    found = [fit(known, method, direction, "cosine", 3, OTHERS, options=options) for known in (
        Pairs(NEW, OLD), pairs(tmp_path, told), pairs(tmp_path, told)
    )]  # fmt: skip
    assert len(inode(tmp_path)) == 1
    asked = NEW if direction == QUERY else OLD
    for one in found[1:]:
        assert weights(one) == weights(found[0])
        assert one.transform(asked).tobytes() == found[0].transform(asked).tobytes()
        assert one.get_params() | {"options": options} == found[0].get_params()
        assert (one.method_, one.network_.sizes, one.record_.inputs) == (
            (found[0].method_, found[0].network_.sizes, found[0].record_.inputs)
        )
    assert not told


def test_a_fit_is_read_only_for_all_of_its_inputs(tmp_path: Path) -> None:
    known = pairs(tmp_path, [])
    log = Pairs(NEW[:5], OLD[:5])
    usual = {"pairs": known, "method": "ridge", "direction": QUERY, "metric": "cosine", "seed": 0}
    others = [
        {"seed": 1}, {"metric": "euclidean"}, {"direction": GALLERY}, {"method": "procrustes"}, {"others": OTHERS},
        {"log": log}, {"options": {"strength": 1.0}}, {"pairs": known.take(slice(0, 50))},
        {"pairs": pairs(tmp_path, [], LABELS)}, {"pairs": known + log},
    ]  # fmt: skip
    for number, other in enumerate([{}, *others[:-1]], 1):
        fit(**usual | other)
        assert len(inode(tmp_path)) == number, other
    fit(**usual | others[-1])  # the same pairs as with the log
    fit(**usual)
    assert len(inode(tmp_path)) == len(others)


def test_both_maps_and_the_heads_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ADAPTERS, "neighbour-head", replace(ADAPTERS["neighbour-head"], home="closed.ridge_map"))
    methods = Methods("ridge", "kernel-ridge")
    for _ in range(2):
        known = pairs(tmp_path, [], LABELS)
        fit_maps(known, methods, "cosine", 0)
        fit_heads(known, Methods("ridge", "ridge"), 0)
        assert len(inode(tmp_path)) == 4


@pytest.mark.parametrize("fault", ["short", "empty", "foreign", "other", "no tensors"])
def test_a_file_that_is_no_such_fit_is_named_and_made_again(tmp_path: Path, fault: str) -> None:
    told: list[str] = []
    first = fit(pairs(tmp_path, told), "ridge", QUERY, "cosine", 0)
    [path] = tmp_path.glob("*.safetensors")
    whole = path.read_bytes()
    if fault == "foreign":
        cl.Adapter("ridge", "query", 0, "cosine").fit(NEW[:, ::-1].copy(), OLD).save(path)
    elif fault == "other":
        cl.Adapter("procrustes", "query", 0, "cosine").fit(NEW, OLD).save(path)
    else:
        path.write_bytes({"short": whole[:-1], "empty": b"", "no tensors": b"no tensors at all"}[fault])
    again = fit(pairs(tmp_path, told), "ridge", QUERY, "cosine", 0)
    assert told == [f"{path} is no whole fit of this plan and is made again"]
    assert weights(again) == weights(first)
    assert weights(cl.load_adapter(path)) == weights(first)


def test_a_quick_fit_is_not_worth_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compatlearn.upgrade.fits.WORTH", 60.0)
    fit(pairs(tmp_path, []), "ridge", QUERY, "cosine", 0)
    assert not list(tmp_path.iterdir())


def test_one_process_keeps_fits_in_a_folder(tmp_path: Path) -> None:
    told: list[str] = []
    with keeping(tmp_path / "fits", told.append) as fits:
        fit(Pairs(NEW, OLD, None, fits), "ridge", QUERY, "cosine", 0)
        with pytest.raises(DataError, match=r"fits is being written by process \d+"), keeping(tmp_path / "fits"):
            pass
    assert not told
    with keeping(tmp_path / "fits", told.append):
        pass
    assert told == [f"fits of an interrupted run in {tmp_path / 'fits'}, which are not made again: 1"]
    with keeping(tmp_path / "empty"):
        pass
    assert not (tmp_path / "empty").exists()


def test_only_fits_are_removed(tmp_path: Path) -> None:
    folder = tmp_path / "fits"
    forget(folder)
    fit(pairs(folder, []), "ridge", QUERY, "cosine", 0)
    [path] = folder.iterdir()
    shutil.copy(path, folder / "mine.safetensors")
    forget(folder)
    assert [left.name for left in folder.iterdir()] == ["mine.safetensors"]
    (folder / "mine.safetensors").unlink()
    forget(folder)
    assert not folder.exists()
    assert not (tmp_path / LOCK).exists()


def test_a_distilled_query_map_takes_over_the_kernel_that_is_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    settled = {"whitening": 0.0, "temperature": 0.4}
    monkeypatch.setattr("compatlearn.adapters.kernel_fit._best_kernel", lambda *_: pytest.fail("the kernel is chosen anew"))
    monkeypatch.setattr("compatlearn.adapters.heads.STEPS", 1)
    maps = fit_maps(Pairs(NEW, OLD), Methods("distilled", "kernel-ridge", settled=settled), "cosine", 0, OTHERS)
    assert [adapter.record_.options for adapter in maps.values()] == [settled, settled]
    maps = fit_maps(Pairs(NEW, OLD), Methods("ridge", "kernel-ridge", settled=settled), "cosine", 0, OTHERS)
    assert maps[QUERY].record_.options == {}
