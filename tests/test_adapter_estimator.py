"""`Adapter` composes with scikit-learn, takes every kind of array, and its file says where it comes from."""

import os
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import Normalizer
from sklearn.utils.validation import check_is_fitted

import compatlearn
from compatlearn import Adapter, ConfigError, DataError, Features, FormatError, fit_adapter, load_adapter, slerp
from compatlearn.adapters.methods import ADAPTERS, CANDIDATES, UNLABELLED, method_help

RANDOM = np.random.default_rng(0)
NEW = RANDOM.normal(size=(60, 6)).astype(np.float32)
ROTATION = np.linalg.qr(RANDOM.normal(size=(6, 6)))[0].astype(np.float32)
OLD = NEW @ ROTATION


def test_init_only_stores_and_fit_returns_self() -> None:
    options = {"strength": 0.1}
    adapter = Adapter("ridge", seed=3, metric="cosine", options=options)
    expected = {"method": "ridge", "direction": "query", "seed": 3, "metric": "cosine"}
    assert adapter.get_params() == expected | {"unseen_classes": False, "options": options}
    assert adapter.options is options
    assert vars(Adapter("nonsense", "sideways", -1)) == {  # faults are told by fit
        "method": "nonsense",
        "direction": "sideways",
        "seed": -1,
        "metric": "euclidean",
        "unseen_classes": False,
        "options": None,
    }
    assert adapter.fit(NEW, OLD) is adapter
    assert {name for name in vars(adapter) if name.endswith("_")} == {
        *("method_", "network_", "trials_", "test_", "record_", "n_features_in_"),
    }
    assert (adapter.n_features_in_, adapter.d_new, adapter.d_old) == (6, 6, 6)
    assert (adapter.trials_, adapter.test_) == ({}, None)


def test_an_unfitted_adapter_says_so() -> None:
    adapter = Adapter("ridge")
    assert repr(adapter) == str(adapter) == "Adapter(method='ridge')"
    for use in (lambda: adapter.transform(NEW), lambda: adapter.d_old, lambda: adapter.save("nowhere")):
        with pytest.raises(NotFittedError, match="not fitted yet; call fit"):
            use()
    assert not hasattr(adapter, "d_new")


def test_a_clone_is_unfitted_and_fits_the_same() -> None:
    fitted = Adapter("residual-mlp", seed=1, options={"epochs": 2}).fit(NEW, OLD)
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    with pytest.raises(NotFittedError):
        copy.transform(NEW)
    np.testing.assert_array_equal(copy.fit(NEW, OLD).transform(NEW), fitted.transform(NEW))
    assert copy.set_params(seed=2) is copy
    assert not np.array_equal(copy.fit(NEW, OLD).transform(NEW), fitted.transform(NEW))


def test_it_stands_in_a_pipeline_before_a_search() -> None:
    pipeline = make_pipeline(Adapter("procrustes"), NearestNeighbors(n_neighbors=1)).fit(NEW, OLD)
    distances, rows = pipeline[-1].kneighbors(pipeline[:-1].transform(NEW))
    np.testing.assert_array_equal(rows[:, 0], np.arange(60))
    assert distances.max() < 1e-3
    pipeline[-1].fit(OLD)  # the index of old vectors
    np.testing.assert_array_equal(pipeline[-1].kneighbors(pipeline[:-1].transform(NEW))[1][:, 0], np.arange(60))


def test_a_pipeline_that_ends_in_a_map_behaves_as_any_other(tmp_path: Path) -> None:
    pipeline = make_pipeline(Normalizer(), Adapter("ridge"))
    with pytest.raises(NotFittedError):
        check_is_fitted(pipeline[-1])
    mapped = pipeline.fit_transform(NEW, OLD)
    check_is_fitted(pipeline)
    np.testing.assert_array_equal(mapped, pipeline.transform(NEW))
    np.testing.assert_array_equal(mapped, pipeline[-1].transform(Normalizer().transform(NEW)))
    fresh = clone(pipeline)
    assert fresh.get_params()["adapter__method"] == "ridge"
    with pytest.raises(NotFittedError):
        fresh.transform(NEW)
    assert fresh.set_params(adapter__method="procrustes", adapter__seed=2) is fresh
    assert (fresh[-1].method, fresh[-1].seed, pipeline[-1].method) == ("procrustes", 2, "ridge")
    pipeline[-1].save(tmp_path / "map.safetensors")
    fresh.set_params(adapter=load_adapter(tmp_path / "map.safetensors"))  # fitted, from a file that is no pickle
    check_is_fitted(fresh)
    np.testing.assert_array_equal(fresh.transform(NEW), mapped)


def test_a_grid_search_goes_through_a_pipeline() -> None:
    def score(pipeline: Pipeline, new: np.ndarray, old: np.ndarray) -> float:
        return -float(((pipeline.transform(new) - old) ** 2).mean())

    grid = {"adapter__options": [{"strength": 1e3}, {"strength": 1e-3}]}
    search = GridSearchCV(make_pipeline(Normalizer(), Adapter("ridge")), grid, scoring=score, cv=3).fit(NEW, OLD)
    assert search.best_params_ == {"adapter__options": {"strength": 1e-3}}


def test_columns_have_names() -> None:
    adapter = Adapter("procrustes")
    with pytest.raises(NotFittedError):
        adapter.get_feature_names_out()
    frame = adapter.set_output(transform="pandas").fit(NEW, OLD[:, :4]).transform(NEW)
    names = [f"adapter{column}" for column in range(4)]
    assert list(frame.columns) == list(adapter.get_feature_names_out()) == names
    np.testing.assert_array_equal(frame.to_numpy(), adapter.set_output(transform="default").transform(NEW))
    tags = adapter.__sklearn_tags__()
    assert (tags.target_tags.required, tags.target_tags.multi_output) == (True, True)
    assert tags.transformer_tags.preserves_dtype == ["float32"]


def test_a_grid_search_finds_the_method_that_fits() -> None:
    def score(adapter: Adapter, new: np.ndarray, old: np.ndarray) -> float:
        return -float(((adapter.transform(new) - old) ** 2).mean())

    bent = np.abs(NEW) + 1  # no rotation gives this
    search = GridSearchCV(Adapter("ridge"), {"method": ["procrustes", "ridge"]}, scoring=score, cv=3).fit(NEW, bent)
    assert search.best_params_ == {"method": "ridge"}
    assert search.best_estimator_.transform(NEW).shape == (60, 6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_same_kind_comes_back(dtype: type) -> None:
    adapter = fit_adapter("procrustes", NEW.astype(dtype), OLD.astype(dtype))
    mapped = adapter(NEW.astype(dtype))
    assert isinstance(mapped, np.ndarray)
    assert mapped.dtype == np.float32
    np.testing.assert_allclose(mapped, OLD, atol=0.02)
    tensor = adapter.transform(torch.from_numpy(NEW.astype(dtype)))
    assert isinstance(tensor, torch.Tensor)
    np.testing.assert_array_equal(tensor.numpy(), mapped)
    assert not tensor.requires_grad


def test_lists_single_vectors_and_what_is_no_vector() -> None:
    adapter = Adapter("procrustes").fit(NEW.tolist(), OLD.tolist())
    np.testing.assert_allclose(adapter(NEW[:2].tolist()), OLD[:2], atol=1e-4)
    for single in (NEW[0], torch.from_numpy(NEW[0]), NEW[0].tolist()):
        with pytest.raises(DataError, match=r"got shape \(6,\); pass vectors\[None\] for a single one"):
            adapter(single)
    np.testing.assert_allclose(adapter(NEW[0][None]), OLD[:1], atol=1e-4)
    with pytest.raises(DataError, match="must be float16, float32 or float64; got int"):
        adapter([[1, 2, 3, 4, 5, 6]])
    with pytest.raises(DataError, match="give every row the same length"):
        adapter([[1.0], [1.0, 2.0]])
    with pytest.raises(DataError, match="got object"):
        adapter(np.array([["a", None]], dtype=object))
    labelled = Adapter("head", options={"epochs": 1}).fit(NEW, OLD, [row % 3 for row in range(60)])
    assert labelled(NEW).shape == (60, 6)


def test_the_network_is_trainable_and_traceable() -> None:
    adapter = fit_adapter("residual-mlp", NEW, OLD, options={"epochs": 1})
    network, rows = adapter.network_, torch.from_numpy(NEW)
    traced = torch.export.export(network, (rows,)).module()
    assert torch.allclose(traced(rows), network(rows), atol=1e-6)
    network.requires_grad_(True)
    (network(rows) - torch.from_numpy(OLD)).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def test_faults_in_parameters_are_told_by_fit() -> None:
    for adapter, message in (
        (Adapter("ridge", direction="sideways"), "'sideways' is unknown"),
        (Adapter("ridge", metric="euclid"), "did you mean 'euclidean'"),
        (Adapter("ridge", unseen_classes=True), "ridge is named; use auto"),
        (Adapter("low-rank"), "unknown adapter 'low-rank'"),
        (Adapter(options={"epochs": 3}), "auto takes no options; name a method for epochs"),
    ):
        with pytest.raises(ConfigError, match=message):
            adapter.fit(NEW, OLD)


def test_auto_from_python() -> None:
    adapter = Adapter().fit(NEW, OLD)
    assert tuple(adapter.trials_) == UNLABELLED
    assert adapter.method_ == adapter.test_.method
    assert adapter.record_.figures == adapter.test_.to_dict()
    assert f"method: {adapter.method_}" in str(adapter)
    assert str(adapter.test_) in str(adapter)
    again = fit_adapter("auto", NEW, OLD)
    assert again.method_ == adapter.method_
    np.testing.assert_array_equal(again(NEW), adapter(NEW))


def test_the_header_says_what_it_is_and_where_it_comes_from(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    mask = os.umask(0o027)
    try:
        adapter = Adapter("ridge", seed=5, metric="cosine", options={"strength": 0.5})
        adapter.fit_features(Features(NEW, space="n@1"), Features(OLD, space="o@2")).save(path)
    finally:
        os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o640
    with safe_open(path, "np") as file:
        header = file.metadata()
    assert {name: header[name] for name in ("format", "method", "version", "metric", "direction")} == {
        "format": "compatlearn-adapter",
        "method": "ridge",
        "version": compatlearn.__version__,
        "metric": "cosine",
        "direction": "query",
    }
    assert (header["rows"], header["seed"], header["space_new"], header["space_old"]) == ("60", "5", "n@1", "o@2")
    assert datetime.fromisoformat(header["date"]).utcoffset().total_seconds() == 0
    again = load_adapter(path)
    assert asdict(again.record_) == asdict(adapter.record_)
    assert again.get_params() == adapter.get_params()
    assert again.test_ == adapter.test_
    assert str(again) == str(adapter)
    assert (again(NEW) == adapter(NEW)).all()
    changed = NEW.copy()
    changed[59, 5] += 1e-6
    others = [Adapter("ridge").fit(rows, OLD).record_.inputs for rows in (NEW, changed, NEW.astype(np.float64))]
    assert others[0] == adapter.record_.inputs
    assert len({each["new"] for each in others}) == 3
    assert len({each["old"] for each in others}) == 1


def test_files_of_earlier_versions_load(tmp_path: Path) -> None:
    fitted = fit_adapter("ridge", NEW, OLD)
    header = {"format": "compatlearn-adapter", "method": "low-rank", "space_new": "n", "space_old": "o"}
    header["sizes"] = '{"d_new": 6, "d_old": 6, "hidden": 0, "blocks": 0, "unit": false}'
    save_file(fitted.network_.state_dict(), tmp_path / "old.safetensors", header)
    adapter = load_adapter(tmp_path / "old.safetensors")
    assert (adapter(NEW) == fitted(NEW)).all()
    assert (adapter.method_, adapter.space_old, adapter.record_.rows, adapter.test_) == ("low-rank", "o", None, None)
    assert str(adapter).startswith("Adapter(low-rank, 6 to 6 dimensions)\n")
    adapter.save(tmp_path / "again.safetensors")
    assert (load_adapter(tmp_path / "again.safetensors")(NEW) == fitted(NEW)).all()
    save_file(fitted.network_.state_dict(), tmp_path / "later.safetensors", header | {"direction": "sideways"})
    with pytest.raises(FormatError, match="maps sideways vectors, which this version cannot use"):
        load_adapter(tmp_path / "later.safetensors")


def test_help_is_made_from_the_table() -> None:
    text = method_help()
    assert all(name in text for name in ADAPTERS)
    assert {*CANDIDATES, *UNLABELLED} <= set(ADAPTERS)
    assert not any(ADAPTERS[name].needs_labels for name in UNLABELLED)
    assert all(callable(method.fit) for method in ADAPTERS.values())
    labelled = text[text.index("with labels also") :]
    assert all((name in labelled) == method.needs_labels for name, method in ADAPTERS.items() if name != "head")


def test_mixing_takes_tensors_of_another_kind() -> None:
    assert isinstance(slerp(OLD, Adapter("procrustes").fit(NEW, OLD)(torch.from_numpy(NEW)), 0.5), np.ndarray)
