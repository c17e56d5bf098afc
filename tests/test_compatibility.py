"""The verdict on constructed systems whose figures are known, and every refusal."""

import importlib
import inspect
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from compatlearn.errors import ConfigError, DataError, IncompatibleError
from compatlearn.evaluation.compatibility import compatibility
from compatlearn.evaluation.relevance import Relevance
from compatlearn.indexes.query_map import Cut

module = importlib.import_module("compatlearn.evaluation.compatibility")
CLASSES = 10


def features(vectors, labels, ids=None, space=""):
    return SimpleNamespace(vectors=vectors, labels=labels, ids=np.arange(len(vectors)) if ids is None else ids, space=space)


def system(noise, seed=0, rows=400, extra=0, space=""):
    """Rows around one corner per class; the less noise, the better the model. All share the corners: one space."""
    random = np.random.default_rng(seed)
    labels = np.arange(rows) % CLASSES
    vectors = np.eye(CLASSES)[labels] + noise * random.standard_normal((rows, CLASSES))
    vectors = np.concatenate([vectors, noise * random.standard_normal((rows, extra))], axis=1)
    return features(vectors.astype(np.float32), labels, space=space)


def slow_figures(query, gallery):
    """top-1, top-5 and mAP@R with loops; the row of the same id is no candidate; the query is cut to fit."""
    top1, top5, precision = [], [], []
    for vector, label, one in zip(query.vectors, query.labels, query.ids, strict=True):
        distances = ((gallery.vectors - vector[: gallery.vectors.shape[1]]).astype(np.float64) ** 2).sum(axis=1)
        ranked = [row for row in np.argsort(distances, kind="stable") if gallery.ids[row] != one]
        right = [gallery.labels[row] == label for row in ranked]
        count = sum(right)
        top1.append(any(right[:1]))
        top5.append(any(right[:5]))
        precision.append(sum(sum(right[: i + 1]) / (i + 1) for i in range(count) if right[i]) / count if count else 0)
    return np.mean(top1), np.mean(top5), np.mean(precision)


def values(scores):
    return scores.top1.value, scores.top5.value, scores.map_r.value


@pytest.fixture(scope="module")
def better():
    old, new, best = system(0.5), system(0.3, 1, extra=4), system(0.1, 2, extra=7)
    return old, new, best, compatibility(old_query=old, old_gallery=old, new_query=new, independent=best)


def test_figures_agree_with_slow_loops(better):
    old, new, best, result = better
    for scores, query, gallery in (
        (result.old_self, old, old),
        (result.cross, new, old),
        (result.new_self, new, new),
        (result.independent_self, best, best),
    ):
        np.testing.assert_allclose(values(scores), slow_figures(query, gallery), rtol=1e-12)


def test_better_model_is_compatible(better):
    *_, result = better
    assert result.compatible == "yes"
    assert result.gain.value == pytest.approx(result.cross.top1.value - result.old_self.top1.value)
    assert 0 < result.gain.low < result.gain.value < result.gain.high
    possible = result.independent_self.top1.value - result.old_self.top1.value
    assert result.update_gain.value == pytest.approx(result.gain.value / possible)
    assert result.update_gain.low < result.update_gain.value < result.update_gain.high
    assert result.map_r_limit is None


def test_worse_and_unrelated_models_are_not_compatible():
    old, worse, unrelated = system(0.3), system(0.9, 1), system(0.1, 2)
    unrelated.vectors = np.roll(unrelated.vectors, 3, axis=1)  # excellent, but in a space of its own
    result = compatibility(old_query=old, old_gallery=old, new_query=worse)
    assert result.compatible == "no"
    assert result.gain.high < 0
    result = compatibility(old_query=old, old_gallery=old, new_query=unrelated)
    assert result.compatible == "no"
    assert result.new_self.top1.value > 0.99
    assert result.cross.top1.value < 0.1


def test_model_that_changes_nothing_is_undecided():
    old = system(0.5)
    result = compatibility(old_query=old, old_gallery=old, new_query=old, independent=old)
    assert (result.gain.value, result.gain.low, result.gain.high) == (0, 0, 0)
    assert result.compatible == "undecided"
    assert result.negative_flips.value == 0
    assert result.update_gain.value == 0  # nothing gained of nothing to gain
    assert (result.update_gain.low, result.update_gain.high) == (-math.inf, math.inf)
    assert result.to_dict()["update_gain"] == 0
    assert result.to_dict()["intervals"]["update_gain"] == ["-Infinity", "Infinity"]


def test_small_change_is_undecided():
    old, new = system(0.5), system(0.5, 3)
    assert compatibility(old_query=old, old_gallery=old, new_query=new).compatible == "undecided"


def test_gain_where_nothing_was_to_be_gained_is_unbounded():
    old, new = system(0.5), system(0.2, 1)
    result = compatibility(old_query=old, old_gallery=old, new_query=new, independent=old)
    assert result.update_gain.value == math.inf
    assert result.to_dict()["update_gain"] is None
    json.dumps(result.to_dict(), allow_nan=False)


def test_own_row_is_left_out_of_the_cross_test():
    """The same model twice and classes at random: only a query's own row could answer it, and would answer all."""
    random = np.random.default_rng(0)
    old = features(random.standard_normal((300, 8)).astype(np.float32), random.integers(0, 50, 300))
    result = compatibility(old_query=old, old_gallery=old, new_query=old)
    assert result.cross.top1.value < 0.1
    other = features(old.vectors, old.labels, ids=np.arange(300) + 1000)  # other ids: other items
    result = compatibility(old_query=old, old_gallery=other, new_query=old)
    assert result.cross.top1.value == result.old_self.top1.value == 1


def test_negative_flips_count_over_all_queries():
    """Five queries: one flips to wrong, two to right, one stays right, one stays wrong."""
    gallery = features(np.array([[0.0], [10.0]]), np.array([0, 1]), np.array(["g0", "g1"]))
    labels, ids = np.array([0, 0, 0, 1, 1]), np.array(["a", "b", "c", "d", "e"])
    old = features(np.array([[1.0], [9.0], [9.0], [9.0], [1.0]]), labels, ids)
    new = features(np.array([[9.0], [1.0], [1.0], [9.0], [1.0]]), labels, ids)
    result = compatibility(old_query=old, old_gallery=gallery, new_query=new)
    assert result.negative_flips.value == 0.2
    assert result.gain.value == pytest.approx(0.2)
    assert result.new_self is None
    assert result.update_gain is None
    assert [tuple(vars(change).values()) for change in result.per_class] == [(0, 3, 1 / 3, 2 / 3), (1, 2, 0.5, 0.5)]
    assert result.accuracy_at_k["cross"] == [0.6] + [1.0] * 19


def test_queries_without_relevant_rows_are_counted_as_misses():
    old = system(0.1, rows=20)
    old.labels = old.labels.copy()
    old.labels[3] = 77  # the only one of its class
    result = compatibility(old_query=old, old_gallery=old, new_query=old)
    assert result.queries == 20
    assert result.queries_without_relevant == 2  # and row 13, which row 3 was the answer to
    assert result.old_self.top5.value == result.old_self.map_r.value == 0.9
    assert (result.per_class[-1].label, result.per_class[-1].queries, result.per_class[-1].cross) == (77, 1, 0)


def test_rows_are_matched_by_id(better):
    old, new, best, result = better
    order = np.random.default_rng(3).permutation(len(old.ids))
    shuffled = [features(f.vectors[order], f.labels[order], f.ids[order]) for f in (new, best)]
    shuffled[0].vectors = torch.from_numpy(shuffled[0].vectors)
    assert compatibility(old_query=old, old_gallery=old, new_query=shuffled[0], independent=shuffled[1]) == result
    named = [features(f.vectors, f.labels, np.array([f"image{i}" for i in f.ids])) for f in (old, new, best)]
    assert compatibility(old_query=named[0], old_gallery=named[0], new_query=named[1], independent=named[2]) == result


def test_galleries_of_their_own(better):
    old, new, best, _ = better
    part = np.arange(100)
    few, new_few, best_few = (features(f.vectors[part], f.labels[part], f.ids[part]) for f in (old, new, best))
    given = {"old_query": few, "old_gallery": old, "new_query": new_few}
    assert compatibility(**given).new_self is None
    full = compatibility(**given, new_gallery=new, independent=best_few, independent_gallery=best)
    for scores, query, gallery in (
        (full.cross, new_few, old),
        (full.new_self, new_few, new),
        (full.independent_self, best_few, best),
    ):
        np.testing.assert_allclose(values(scores), slow_figures(query, gallery), rtol=1e-12)


def test_deep_rankings_are_cut_and_it_is_said(monkeypatch):
    for each in (module, importlib.import_module("compatlearn.evaluation.outcome")):
        monkeypatch.setattr(each, "DEEPEST", 30)
    old = system(0.5)
    result = compatibility(old_query=old, old_gallery=old, new_query=old)
    assert result.map_r_limit == 30
    assert result.queries_without_relevant == 0
    assert 0 < result.old_self.map_r.value < 1


def test_json(better):
    *_, result = better
    written = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert written["old_self"] == {
        "top1": result.old_self.top1.value,
        "top5": result.old_self.top5.value,
        "map_r": result.old_self.map_r.value,
        "ndcg10": result.old_self.ndcg10.value,
        "recall100": result.old_self.recall100.value,
        "mrr10": result.old_self.mrr10.value,
    }
    assert (written["primary"], written["classes"], written["queries_without_judgement"]) == ("top1", None, 0)
    assert written["intervals"]["cross"]["top1"] == [result.cross.top1.low, result.cross.top1.high]
    assert written["intervals"]["gain"] == [result.gain.low, result.gain.high]
    assert written["update_gain"] == result.update_gain.value
    assert written["compatible"] == "yes"
    assert set(written["accuracy_at_k"]) == {"old_self", "cross", "new_self", "independent_self"}
    for curve in written["accuracy_at_k"].values():
        assert len(curve) == 20
        assert curve == sorted(curve)
    assert written["accuracy_at_k"]["cross"][4] == written["cross"]["top5"]
    assert len(written["per_class"]) == CLASSES
    assert sum(row["queries"] * row["cross"] for row in written["per_class"]) / 400 == pytest.approx(written["cross"]["top1"])


def test_cosine(better):
    old, new, *_ = better
    unit = [features(f.vectors / np.linalg.norm(f.vectors[:, :CLASSES], axis=1, keepdims=True), f.labels) for f in (old, new)]
    result = compatibility(old_query=old, old_gallery=old, new_query=new, metric="cosine")
    assert result.cross.top1 == compatibility(old_query=unit[0], old_gallery=unit[0], new_query=unit[1]).cross.top1


def test_inner_product(better):
    """Unit rows rank by inner product as they do by distance."""
    old, new, *_ = better
    unit = [
        features(f.vectors[:, :CLASSES] / np.linalg.norm(f.vectors[:, :CLASSES], axis=1, keepdims=True), f.labels)
        for f in (old, new)
    ]
    given = {"old_query": unit[0], "old_gallery": unit[0], "new_query": unit[1]}
    by_product, by_distance = (compatibility(**given, metric=metric) for metric in ("dot", "euclidean"))
    assert by_product.cross.top1 == by_distance.cross.top1
    assert by_product.metric == by_product.to_dict()["metric"] == "dot"


def test_judgements_need_no_labels():
    """Judgements that say what the labels say give the same figures; ids may be text."""
    old, new = system(0.5), system(0.3, 1)
    by_label = compatibility(old_query=old, old_gallery=old, new_query=new)
    judged = Relevance.from_dict(
        {f"item{i}": [f"item{j}" for j in range(400) if old.labels[i] == old.labels[j]] for i in range(400)}
    )
    bare = [features(f.vectors, None, np.array([f"item{i}" for i in range(400)])) for f in (old, new)]
    result = compatibility(old_query=bare[0], old_gallery=bare[0], new_query=bare[1], relevance=judged)
    for name in ("old_self", "cross", "new_self", "negative_flips", "queries_without_relevant", "accuracy_at_k"):
        assert getattr(result, name) == getattr(by_label, name), name
    assert result.per_class == []
    assert (result.unknown_queries, result.unknown_items, result.queries_without_judgement) == (0, 0, 0)
    assert (by_label.primary, result.primary) == ("top1", "ndcg10")
    same = Relevance.from_labels(old.labels, old.labels)
    assert compatibility(old_query=bare[0], old_gallery=bare[0], new_query=bare[1], relevance=same).gain == by_label.gain
    assert result.gain.value == pytest.approx(result.cross.ndcg10.value - result.old_self.ndcg10.value)
    assert by_label.gain.value == pytest.approx(result.cross.top1.value - result.old_self.top1.value) != result.gain.value
    assert str(result).startswith("compatible: yes, by nDCG@10\n")


def test_judgements_of_other_items_are_counted():
    old = system(0.1, rows=20)
    judged = Relevance.from_dict({0: {10: 1, 500: 1}, 1: {11: 2, 2: 0}, 900: [3]})
    result = compatibility(old_query=old, old_gallery=old, new_query=old, relevance=judged)
    assert result.queries_without_relevant == 18
    assert (result.unknown_queries, result.unknown_items) == (1, 1)
    assert result.to_dict()["unknown_items"] == 1
    printed = " ".join(str(result).split())
    assert result.queries_without_judgement == result.to_dict()["queries_without_judgement"] == 18
    assert (
        "20 queries; 18 of them have no relevant row, 18 no judgement at all; judged but unknown: 1 queries, 1 items" in printed
    )
    assert len(result.per_class) == 10  # there are labels too


def test_graded_judgements_by_hand():
    """Three queries on a line of five items; the new model finds the better answer first, or loses the first right one."""
    gallery = features(np.array([[0.0], [1.0], [2.0], [3.0], [9.0]]), None, np.array(list("abcde")))
    old = features(np.array([[2.1], [0.1], [8.0]]), None, np.array(["q", "r", "s"]))
    new = features(np.array([[0.1], [2.9], [8.0]]), None, np.array(["q", "r", "s"]))
    judged = Relevance.from_dict({"q": {"a": 3, "c": 1}, "r": {"a": 1, "b": -5}})
    result = compatibility(old_query=old, old_gallery=gallery, new_query=new, relevance=judged)
    discount = 1 / np.log2(np.arange(2, 7))
    best = 3 + discount[1]
    before = [(1 + 3 * discount[3]) / best, 1, 0]  # c d b a e; a b c d e; nobody judged s
    after = [(3 + discount[2]) / best, discount[3], 0]  # a b c d e; d c b a e
    assert result.old_self.ndcg10.value == pytest.approx(np.mean(before))
    assert result.cross.ndcg10.value == pytest.approx(np.mean(after))
    assert result.gain.value == pytest.approx(np.mean(after) - np.mean(before))
    assert result.old_self.mrr10.value == pytest.approx((1 + 1 + 0) / 3)
    assert result.cross.mrr10.value == pytest.approx((1 + 1 / 4 + 0) / 3)
    assert result.old_self.recall100.value == result.cross.recall100.value == pytest.approx(2 / 3)
    assert result.negative_flips.value == pytest.approx(1 / 3)  # r loses its first relevant hit
    assert (result.queries_without_relevant, result.queries_without_judgement) == (1, 1)


def test_without_relevance_agreement_and_nothing_else():
    old, new = system(0.5), system(0.3, 1)
    bare = [features(f.vectors, None, f.ids) for f in (old, new)]
    result = compatibility(old_query=bare[0], old_gallery=bare[0], new_query=bare[1], adapter=lambda rows: rows)

    def ten(query, gallery):
        distances = np.linalg.norm(query.vectors[:, None].astype(float) - gallery.vectors[None], axis=2)
        np.fill_diagonal(distances, np.inf)
        return np.argsort(distances, axis=1, kind="stable")[:, :10].tolist()

    wanted = ten(new, new)
    shares = {
        name: np.mean([len(set(a) & set(b)) / 10 for a, b in zip(ten(query, old), wanted, strict=True)])
        for name, query in (("old_self", old), ("cross", new))
    }
    assert result.old_self.agreement.value == pytest.approx(shares["old_self"])
    assert result.cross.agreement.value == pytest.approx(shares["cross"])
    assert result.gain.value == pytest.approx(shares["cross"] - shares["old_self"])
    flips = [a[0] in c and b[0] not in c for a, b, c in zip(ten(old, old), ten(new, old), wanted, strict=True)]
    assert result.negative_flips.value == pytest.approx(np.mean(flips))
    assert (result.primary, result.new_self, result.update_gain) == ("agreement", None, None)
    assert (result.per_class, result.accuracy_at_k, result.cross.top1) == ([], {}, None)
    written = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert set(written["cross"]) == {"agreement"}
    assert str(result).startswith(f"compatible: {result.compatible}, by agreement@10\n")
    assert "no labels and no judgements: agreement with the new model's own ranking" in " ".join(str(result).split())
    perfect = compatibility(old_query=bare[0], old_gallery=bare[0], new_query=bare[0])
    assert perfect.cross.agreement.value == 1  # the reference is the new model in its own gallery


def test_intervals_over_classes():
    """Classes that gain much or nothing: with other queries of these the gain is sure, with other classes it is not."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(12), 50)
    corners = np.eye(12)[labels]
    old = features((corners + 0.35 * random.standard_normal(corners.shape)).astype(np.float32), labels)
    noise = np.where(labels % 2, 0.2, 0.43)[:, None] * random.standard_normal(corners.shape)
    new = features((corners + noise).astype(np.float32), labels)
    given = {"old_query": old, "old_gallery": old, "new_query": new}
    by_query, by_class = (compatibility(**given, cluster=cluster) for cluster in ("query", "class"))
    assert by_query.gain.value == pytest.approx(by_class.gain.value)
    assert by_class.gain.high - by_class.gain.low > 1.5 * (by_query.gain.high - by_query.gain.low)
    assert (by_query.compatible, by_class.compatible) == ("yes", "undecided")
    assert (by_query.classes, by_class.classes, by_class.to_dict()["classes"]) == (None, 12, 12)
    assert str(by_class).endswith("600 queries; [95 % intervals over 12 classes]")
    few = [features(f.vectors[labels < 4], labels[labels < 4]) for f in (old, new)]
    result = compatibility(old_query=few[0], old_gallery=few[0], new_query=few[1], cluster="class")
    assert "[95 % intervals over 4 classes, too few to rely on]" in str(result)


def test_a_frozen_models_own_self_test_is_the_backfill(better):
    old, new, _, _ = better
    given = {"old_query": old, "old_gallery": old, "new_query": new}
    assert compatibility(**given).update_gain is None
    result = compatibility(**given, adapter=lambda rows: rows[:, :CLASSES])
    possible = result.new_self.top1.value - result.old_self.top1.value
    assert result.update_gain.value == pytest.approx(result.gain.value / possible)
    assert result.independent_self is None
    assert compatibility(**given, adapter=Cut(CLASSES)).update_gain is None  # a trained model is not the backfill
    assert compatibility(**given, adapter=Cut(CLASSES)).cross == compatibility(**given).cross


def test_narrow_queries_may_be_padded():
    old, new = system(0.3), system(0.1, 1)
    new.vectors = new.vectors[:, :7]
    result = compatibility(old_query=old, old_gallery=old, new_query=new, pad=True)
    np.testing.assert_allclose(
        values(result.cross), slow_figures(features(np.pad(new.vectors, ((0, 0), (0, 3))), new.labels), old)
    )


def test_prints_as_a_table(better):
    *_, result = better
    lines = str(result).splitlines()
    assert lines[0] == "compatible: yes"
    assert [line.split("  ")[0] for line in lines if "test" in line] == [
        "old self test",
        "cross test",
        "new self test",
        "independent self test",
    ] * 2  # top-1, top-5 and mAP@R; nDCG, Recall and MRR
    assert f"{100 * result.cross.top1.value:.1f} [" in str(result)
    assert lines[-1] == "400 queries; [95 % intervals]"


ROWS = 20
OLD = system(0.5, rows=ROWS, space="old")


def changed(**fields):
    return SimpleNamespace(**{**vars(OLD), **fields})


ZEROS = OLD.vectors * (np.isin(np.arange(ROWS), [3, 8], invert=True)[:, None])
OTHER_IDS = np.where(np.arange(ROWS) < 3, np.arange(ROWS) + 100, np.arange(ROWS))
OTHER_LABELS = np.where(np.arange(ROWS) == 4, 9, OLD.labels)
MORE = system(0.5, rows=ROWS + 1)
BARE, MORE_BARE = changed(labels=None), SimpleNamespace(**{**vars(MORE), "labels": None, "space": "old"})
GIVEN = ("old_query", "old_gallery", "new_query")


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"old_query": changed(labels=None)}, DataError, "old_query has no labels, .* every row a class, or give judgements"),
        ({"old_gallery": changed(labels=None)}, DataError, "old_gallery has no labels"),
        (
            {"new_query": changed(labels=OLD.labels[:5])},
            DataError,
            "labels of new_query must hold one class for each of",
        ),
        ({"new_query": changed(ids=OLD.ids[:5])}, DataError, r"ids of new_query must be one for each of 20 rows"),
        (
            {"old_gallery": changed(ids=OLD.ids // 2)},
            DataError,
            r"10 ids of old_gallery .* more than once \(first: 0, 1",
        ),
        (
            {"new_query": changed(ids=OTHER_IDS)},
            IncompatibleError,
            r"3 of 20 ids of old_query are not in new_query \(first: 0, 1, 2\), and 3 of its 20 not in old_query",
        ),
        (
            {"new_query": MORE},
            IncompatibleError,
            "0 of 20 ids of old_query are not in new_query, and 1 of its 21 not in",
        ),
        (
            {"new_query": changed(ids=OLD.ids.astype(str))},
            IncompatibleError,
            "the ids of old_query are numbers .* and those of new_query text",
        ),
        (
            {"new_query": changed(labels=OTHER_LABELS)},
            IncompatibleError,
            r"1 of 20 rows of old_query have another class in new_query under the same id \(first: 4\)",
        ),
        (
            {"old_gallery": changed(labels=OTHER_LABELS)},
            IncompatibleError,
            "old_query have another class in old_gallery",
        ),
        ({"old_gallery": changed(space="x")}, IncompatibleError, "old_query is in space 'old' and old_gallery in 'x'"),
        (
            {"old_gallery": changed(vectors=OLD.vectors[:, :4])},
            IncompatibleError,
            "has 10 dimensions and old_gallery 4",
        ),
        ({"new_gallery": changed(space="x")}, IncompatibleError, "new_query is in space 'old' and new_gallery in 'x'"),
        ({"new_gallery": MORE}, IncompatibleError, "old_gallery are not in new_gallery, and 1 of its 21 not in"),
        ({"independent": MORE}, IncompatibleError, "old_query are not in independent"),
        ({"independent_gallery": OLD}, IncompatibleError, "independent_gallery is given without independent"),
        ({"old_gallery": MORE, "independent": OLD}, IncompatibleError, "independent needs independent_gallery"),
        ({"metric": "cosin"}, ConfigError, "did you mean 'cosine'"),
        (
            {"new_query": changed(vectors=OLD.vectors[:, :9])},
            IncompatibleError,
            "new_query has 9 dimensions and old_gallery 10",
        ),
        (
            {"new_query": changed(vectors=ZEROS), "metric": "cosine", "names": {"new_query": "new.npz"}},
            DataError,
            r"2 of 20 rows of new.npz have length zero \(first: 3 \(id 3\), 8 \(id 8\)\)",
        ),
        ({"adapter": lambda rows: rows * np.nan}, DataError, "20 of 20 rows of new_query, mapped, have NaN"),
        (
            {"relevance": Relevance.from_dict({"a": ["b"]})},
            DataError,
            "no row of old_gallery answers any of the 20 queries: 1 judged queries and 0 judged items are not among the ids "
            r"\(judged queries: 'a'; old_query: 0, 1, 2\); give judgements by the ids",
        ),
        (
            {"relevance": Relevance.from_dict({2: [70, 71], 3: [72, 73]})},
            DataError,
            r"0 judged queries and 4 judged items .* \(judged items: 70, 71, 72; old_gallery: 0, 1, 2\)",
        ),
        ({"old_query": BARE, "old_gallery": MORE_BARE, "new_query": BARE}, DataError, "no labels, .*, or new_gallery: the new"),
        ({"cluster": "clas"}, ConfigError, "unknown cluster 'clas'; did you mean 'class'"),
        (
            dict.fromkeys(GIVEN, BARE) | {"cluster": "class", "relevance": Relevance.from_dict({0: [1]})},
            DataError,
            "there are no labels of old_query, so cluster='class' has no classes to draw",
        ),
        (
            {"cluster": "class", **{name: changed(labels=OLD.labels * 0) for name in GIVEN}},
            DataError,
            "20 queries .* one class",
        ),
        ({"old_gallery": changed(labels=OLD.labels + 50, ids=OLD.ids + 50)}, DataError, "no class has two rows"),
    ],
)
def test_errors(given, error, message):
    with pytest.raises(error, match=message):
        inspect.unwrap(compatibility)(**{"old_query": OLD, "old_gallery": OLD, "new_query": OLD} | given)
