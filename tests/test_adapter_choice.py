"""Trials on pairs kept out, against slow references; the choice between methods, and what is told of it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest

from compatlearn import Adapter
from compatlearn.adapters import trials
from compatlearn.adapters.closed import ridge_map
from compatlearn.adapters.folds import cross_fitted
from compatlearn.adapters.matched import Matched
from compatlearn.adapters.methods import ADAPTERS, CANDIDATES, UNLABELLED, AdapterMethod
from compatlearn.adapters.network import MapNetwork
from compatlearn.adapters.trials import KeptOut, Split, Trial
from compatlearn.errors import DataError, IncompatibleError, TrainingError
from compatlearn.evaluation.figures import Figure
from compatlearn.features.features import Features


def system(classes: int = 10, rows: int = 600, noise: float = 1.0, seed: int = 0) -> tuple[Features, Features]:
    """A new model that knows the classes well, an old one that knows them badly; other ids in another order."""
    random = np.random.default_rng(seed)
    labels = np.arange(rows) % classes
    new = 3 * random.normal(size=(classes, 12))[labels] + 0.3 * random.normal(size=(rows, 12))
    old = random.normal(size=(classes, 6))[labels] + noise * random.normal(size=(rows, 6))
    ids, order = np.arange(rows) + 100, random.permutation(rows)
    return Features(new.astype(np.float32), labels, ids), Features(old.astype(np.float32), labels, ids).take(order)


def bare(features: Features) -> Features:
    return Features(features.vectors, None, features.ids)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Candidates of `auto` that take no time."""
    names = ("procrustes", "ridge", "head")
    monkeypatch.setattr("compatlearn.adapters.choice.CANDIDATES", names)
    monkeypatch.setattr("compatlearn.adapters.choice.UNLABELLED", names[:2])
    monkeypatch.setitem(ADAPTERS, "head", replace(ADAPTERS["head"], home="closed.ridge_map"))
    return names


@dataclass(frozen=True)
class RidgeOf(AdapterMethod):
    """Ridge of one strength, as a method of its own."""

    strength: float = 0.0

    @property
    def fit(self) -> Callable[..., MapNetwork]:
        return partial(ridge_map, strength=self.strength)


def split_of(new: Features, old: Features, seed: int, *, choosing: bool = False) -> Split:
    return Split.of(Matched.by_id(new, old), seed, choosing=choosing, unseen_classes=False)


def first(query: np.ndarray, gallery: np.ndarray, own: int, metric: str) -> np.ndarray:
    """All gallery rows, nearest first, without the query's own; slowly."""
    query, gallery = query.astype(float), gallery.astype(float)
    lengths = np.linalg.norm(gallery, axis=1)
    far = -(gallery @ query) / lengths if metric == "cosine" else ((gallery - query) ** 2).sum(axis=1)
    far[own] = np.inf
    return np.argsort(far, kind="stable")


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_kept_out_rows_search_all_old_vectors_but_their_own(metric: str) -> None:
    new, old = system(rows=300)
    adapter = Adapter("ridge", seed=1, metric=metric).fit_features(new, old)
    out = split_of(new, old, 1).reporting.numpy()
    assert (adapter.test_.fitted, adapter.test_.tested, adapter.test_.gallery) == (270, 30, 300)
    kept = np.setdiff1d(np.arange(300), out)
    places = old.align(new.ids)
    gallery, labels = old.vectors[places], new.require_labels()
    tried = Adapter("ridge", seed=1, metric=metric).fit(new.vectors[kept], gallery[kept])
    queries = {"mapped": tried(new.vectors[out]), "old": gallery[out]}
    right = {
        name: [labels[first(query, gallery, row, metric)[0]] == labels[row] for query, row in zip(rows, out, strict=True)]
        for name, rows in queries.items()
    }
    assert adapter.test_.mapped.value == pytest.approx(np.mean(right["mapped"]))
    assert adapter.test_.old.value == pytest.approx(np.mean(right["old"]))
    assert adapter.test_.gain.value == pytest.approx(np.mean(right["mapped"]) - np.mean(right["old"]))
    assert adapter.test_.mapped.low < adapter.test_.mapped.value < adapter.test_.mapped.high
    assert adapter.trials_ == {}
    everything = Adapter("ridge", seed=1).fit(new.vectors, gallery)
    np.testing.assert_array_equal(adapter(new.vectors), everything(new.vectors))  # fitted again to all pairs


def test_a_method_with_labels_stands_beside_old_queries_through_the_same_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ADAPTERS, "head", replace(ADAPTERS["head"], home="closed.ridge_map"))
    new, old = system(rows=300)
    test = Adapter("head", seed=3).fit_features(new, old).test_
    out = split_of(new, old, 3).reporting.numpy()
    kept, gallery, labels = np.setdiff1d(np.arange(300), out), old.vectors[old.align(new.ids)], new.require_labels()
    moved = Adapter("ridge", seed=3).fit(gallery[kept], gallery[kept])(gallery[out])
    right = [labels[first(query, gallery, row, "euclidean")[0]] == labels[row] for query, row in zip(moved, out, strict=True)]
    assert test.old_head.value == pytest.approx(np.mean(right))
    assert f"old queries through the same head {test.old_head:.1%}" in str(test)
    assert Trial.from_dict(test.to_dict()) == test
    assert Adapter("ridge").fit_features(new, old).test_.old_head is None


def test_agreement_is_the_share_of_the_new_models_ten_among_the_ten_found() -> None:
    new, old = system(rows=300)
    test = Adapter("ridge", seed=2).fit_features(bare(new), bare(old)).test_
    out = split_of(new, old, 2).reporting.numpy()
    kept = np.setdiff1d(np.arange(300), out)
    gallery = old.vectors[old.align(new.ids)]
    mapped = Adapter("ridge", seed=2).fit(new.vectors[kept], gallery[kept])(new.vectors[out])
    wanted = [first(new.vectors[row], new.vectors, row, "euclidean")[:10] for row in out]
    for queries, figure in ((mapped, test.mapped), (gallery[out], test.old)):
        found = [first(query, gallery, row, "euclidean")[:10] for query, row in zip(queries, out, strict=True)]
        shares = [len(set(mine) & set(its)) / 10 for mine, its in zip(found, wanted, strict=True)]
        assert figure.value == pytest.approx(np.mean(shares))
    assert test.measure == "agreement"


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_no_item_of_a_translated_gallery_is_mapped_by_a_fit_that_saw_it(metric: str) -> None:
    new, old = system(rows=150)
    adapter = Adapter("ridge", "gallery", seed=3, metric=metric).fit_features(new, old)
    split = split_of(new, old, 3)
    gallery, labels = old.vectors[old.align(new.ids)], new.require_labels()
    fitted, out = split.fitted.numpy(), split.reporting.numpy()
    assert (adapter.test_.fitted, adapter.test_.tested, adapter.test_.gallery) == (len(fitted), len(out), 150)
    fold_of = dict(zip(fitted.tolist(), (np.random.default_rng(3).permutation(len(fitted)) % 5).tolist(), strict=True))
    translated, fits = np.empty((150, 12), dtype=np.float32), {}
    for row in range(150):  # a fit to the fitted pairs that are not in its fold
        kept = [other for other in fitted.tolist() if row not in fold_of or fold_of[other] != fold_of[row]]
        assert row not in kept
        if tuple(kept) not in fits:
            fits[tuple(kept)] = Adapter("ridge", "gallery", seed=3, metric=metric).fit(new.vectors[kept], gallery[kept])
        translated[row] = fits[tuple(kept)](gallery[row : row + 1])[0]
    for queries, items, figure in (
        (new.vectors, translated, adapter.test_.mapped),
        (gallery, gallery, adapter.test_.old),
    ):
        right = [labels[first(queries[row], items, row, metric)[0]] == labels[row] for row in out]
        assert figure.value == pytest.approx(np.mean(right))


@pytest.mark.usefixtures("quick")
def test_the_rows_that_report_took_no_part_in_fitting_or_choosing() -> None:
    new, old = system(rows=400)
    split = split_of(new, old, 0, choosing=True)
    parts = [set(part.tolist()) for part in (split.fitted, split.choosing, split.reporting)]
    assert [len(part) for part in parts] == [320, 40, 40]
    assert set.union(*parts) == set(range(400))
    assert split.gallery.tolist() == list(range(400))
    adapter = Adapter().fit_features(new, old)
    assert adapter.method_ == max(adapter.trials_, key=lambda name: adapter.trials_[name].mapped.value)
    matched = Matched.by_id(new, old)
    tried = Adapter(adapter.method_).fit(
        new.vectors[split.fitted], matched.pairs.old[matched.pairs.old_rows[split.fitted]], matched.labels_at(split.fitted)
    )
    for rows, trial in ((split.choosing, adapter.trials_[adapter.method_]), (split.reporting, adapter.test_)):
        kept_out = KeptOut(matched, rows, split.gallery, "euclidean")
        again = kept_out.try_out(adapter.method_, tried.network_, 320, trial.seconds, 0)
        assert again == replace(trial, old_head=None)


def test_the_winners_own_trial_promises_too_much_and_its_test_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"ridge-{number}" for number in range(8)]
    monkeypatch.setattr("compatlearn.adapters.choice.CANDIDATES", tuple(names))
    for name in names:
        strength = 10.0 ** (int(name[-1]) - 5)
        monkeypatch.setitem(ADAPTERS, name, RidgeOf("", "", strength=strength))
    random = np.random.default_rng(0)
    promised, reported = [], []
    for seed in range(8):  # nothing can be learned: every method's figure is luck
        new, old = (random.normal(size=(200, 4)).astype(np.float32) for _ in range(2))
        labels = random.integers(0, 4, 200)
        adapter = Adapter(seed=seed).fit_features(Features(new, labels), Features(old, labels))
        promised.append(adapter.trials_[adapter.method_].mapped.value)
        reported.append(adapter.test_.mapped.value)
    assert np.mean(promised) > np.mean(reported) + 0.03


def test_the_neighbour_head_beats_the_old_queries_and_ridge_does_not() -> None:
    new, old = system(classes=20, rows=1500, noise=1.5)
    head, ridge = (Adapter(name).fit_features(new, old).test_ for name in ("neighbour-head", "ridge"))
    assert head.worth_it
    assert head.mapped.value > head.old.value + 0.1 > ridge.mapped.value


@pytest.mark.usefixtures("quick")
def test_auto_keeps_whole_classes_out() -> None:
    new, old = system(rows=300)
    split = Split.of(Matched.by_id(new, old), 0, choosing=True, unseen_classes=True)
    classes = [set((part % 10).tolist()) for part in (split.fitted, split.choosing, split.reporting)]
    assert [len(each) for each in classes] == [8, 1, 1]
    assert len(set.union(*classes)) == 10
    adapter = Adapter(unseen_classes=True).fit_features(new, old)
    assert {(trial.fitted, trial.tested, trial.gallery) for trial in adapter.trials_.values()} == {(240, 30, 300)}


@pytest.mark.usefixtures("quick")
def test_large_inputs_are_sampled_for_the_trials_and_fitted_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("FITTED", 200), ("SEARCHED", 300), ("QUERIES", 25)):
        monkeypatch.setattr(trials, name, value)
    new, old = system(rows=500)
    said: list[str] = []
    adapter = Adapter().fit_features(new, old, tell=said.append)
    for trial in (*adapter.trials_.values(), adapter.test_):
        assert (trial.fitted, trial.tested, trial.gallery) == (200, 25, 300)
    assert "500 pairs; trials are fitted to 200 of them and search 300" in said
    assert adapter.record_.rows == 500
    split = split_of(new, old, 0, choosing=True)
    matched = Matched.by_id(new, old)
    kept_out = KeptOut(matched, split.reporting, split.gallery, "euclidean")
    own = dict(zip(split.reporting.tolist(), kept_out._own.tolist(), strict=True))
    searched = split.gallery.tolist()
    assert {row: searched.index(row) if row in searched else -1 for row in own} == own
    assert -1 in own.values()


def test_what_is_told_while_it_works() -> None:
    new, old = system(rows=205, classes=4)
    said: list[str] = []
    adapter = Adapter().fit_features(new, old, tell=said.append)
    lengths = np.linalg.norm(old.vectors, axis=1)
    told = f"{lengths.min():.3g} to {lengths.max():.3g} long"
    assert said[0] == f"data: 205 pairs, 12 to 6 dimensions, old vectors {told}, 4 classes of 51 to 52 rows"
    said = [line for line in said if "trained to" not in line]  # on a slow machine
    assert [line.partition(":")[0] for line in said[1:7]] == list(CANDIDATES) == list(adapter.trials_)
    assert all(" s, top-1 " in line for line in said[1:7])
    assert said[7] == f"{adapter.method_}: the same head for old queries, to compare with"
    assert said[8].startswith(f"fitting {adapter.method_} to all 205 pairs")
    assert len(said) == 9
    unit = Features(old.vectors / lengths[:, None], None, old.ids)
    facts = Adapter("ridge").fit_features(bare(new), unit).record_.facts
    assert facts == "205 pairs, 12 to 6 dimensions, old vectors of unit length, no labels"


def test_long_training_tells_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compatlearn.adapters.network.QUIET", 0.0)
    said: list[str] = []
    Adapter("residual-mlp").fit_features(*system(rows=64), tell=said.append)
    shares = [line for line in said if "trained to" in line]
    assert shares[-1] == "residual-mlp: trained to 100%, 0 s left"


@pytest.mark.parametrize(
    ("gain", "worth_it"),
    [((0.1, 0.02, 0.2), True), ((0.1, 0.0, 0.2), None), ((-0.1, -0.2, 0.1), None), ((-0.1, -0.2, -0.01), False), (None, None)],
)
def test_the_interval_decides_whether_it_is_worth_it(gain: tuple[float, ...] | None, worth_it: bool | None) -> None:
    figure = None if gain is None else Figure(*gain)
    assert Trial("ridge", 99, 10, 99, "top1", gain=figure).worth_it is worth_it
    assert Trial("ridge", 99, 9, 99, "top1", gain=figure).worth_it is None  # too few


@pytest.mark.usefixtures("quick")
def test_auto_says_when_the_old_queries_are_best() -> None:
    random = np.random.default_rng(0)
    new, old = system(rows=400, noise=0.1)
    useless = Features(random.normal(size=(400, 12)).astype(np.float32), new.labels, new.ids)
    assert Adapter().fit_features(useless, old).test_.worth_it is False


def test_auto_without_labels_looks_for_what_a_backfill_finds() -> None:
    new, old = system(rows=300, noise=0.1)
    adapter = Adapter().fit_features(bare(new), bare(old))
    assert tuple(adapter.trials_) == UNLABELLED
    assert {trial.measure for trial in adapter.trials_.values()} == {"agreement"}
    assert "agreement with a backfill" in str(adapter.test_)


def test_a_zero_vector_does_not_take_auto_down(quick: tuple[str, ...]) -> None:
    new, old = system(rows=200)
    old.vectors[7] = 0
    said: list[str] = []
    adapter = Adapter().fit_features(new, old, names=("new.npz", "old.npz"), tell=said.append)
    assert tuple(adapter.trials_) == quick[:2]
    zero = f"row 7 of old.npz, id {old.ids[7]}"
    assert f"head: left out, 1 old vectors have length zero ({zero})" in said
    for wish in (Adapter("head"), Adapter(metric="cosine")):
        said.clear()
        with pytest.raises(DataError, match=rf"1 of 200 vectors of old.npz have length zero \(first: {zero}\)"):
            wish.fit_features(new, old, names=("new.npz", "old.npz"), tell=said.append)
        assert len(said) <= 1  # before any trial
    new.vectors[3] = 0
    with pytest.raises(DataError, match=rf"vectors of new.npz have length zero \(first: row 3 of new.npz, id {new.ids[3]}\)"):
        Adapter("ridge", metric="cosine").fit_features(new, old, names=("new.npz", "old.npz"))


def test_a_method_that_diverges_is_left_out(quick: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge(task: object) -> None:
        raise TrainingError("the loss is nan")

    monkeypatch.setattr("compatlearn.adapters.closed.procrustes_map", diverge)
    said: list[str] = []
    new, old = system(rows=100)
    adapter = Adapter().fit_features(new, old, tell=said.append)
    assert "procrustes: left out, the loss is nan" in said
    assert tuple(adapter.trials_) == quick[1:]
    with pytest.raises(TrainingError):
        Adapter("procrustes").fit_features(new, old)


@pytest.mark.usefixtures("quick")
def test_candidates_share_what_does_not_depend_on_the_method(monkeypatch: pytest.MonkeyPatch) -> None:
    from compatlearn.adapters import task

    calls = []
    original = task.split_moments
    monkeypatch.setattr(task, "split_moments", lambda pairs, seed: calls.append(len(pairs)) or original(pairs, seed))
    adapter = Adapter().fit_features(*system(rows=100))
    assert calls[0] == 60  # for all trials
    assert calls[1:] == ([] if adapter.method_ == "procrustes" else [100])  # for the last fit


def test_refusals() -> None:
    new, old = system(rows=12, classes=3)
    with pytest.raises(DataError, match="12 pairs are too few to choose a method by; give 20"):
        Adapter().fit_features(new, old)
    test = Adapter("ridge").fit_features(*system(rows=10, classes=3)).test_
    assert (test.fitted, test.tested, test.mapped, test.worth_it) == (8, 2, test.mapped, test.worth_it)
    new, old = system(rows=30, classes=3)
    with pytest.raises(DataError, match="3 classes are too few"):
        Adapter(unseen_classes=True).fit_features(new, old)
    with pytest.raises(DataError, match="needs labels"):
        Adapter(unseen_classes=True).fit_features(bare(new), bare(old))
    with pytest.raises(IncompatibleError, match="30 of 30 rows of new have another class in old under the same id"):
        Adapter().fit_features(Features(new.vectors, np.arange(30) + 50, new.ids), old, names=("new", "old"))
    twice = Features(new.vectors, new.labels, np.r_[new.ids[:28], new.ids[:2]])
    with pytest.raises(DataError, match="2 ids of new occur more than once"):
        Adapter().fit_features(twice, old, names=("new", "old"))


@pytest.mark.parametrize("count", [5, 12, 101])
def test_no_row_is_mapped_by_a_fit_that_saw_it(count: int) -> None:
    seen: list[np.ndarray] = []

    def translate(fitted: np.ndarray, others: np.ndarray) -> np.ndarray:
        assert sorted([*fitted, *others]) == list(range(count))
        seen.append(others)
        return np.stack([others, np.full(len(others), len(fitted))], axis=1).astype(np.float32)

    found = cross_fitted(count, translate, seed=3)
    assert found[:, 0].tolist() == list(range(count))
    assert sorted(np.concatenate(seen)) == list(range(count))
    assert max(map(len, seen)) - min(map(len, seen)) <= 1
