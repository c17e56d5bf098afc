"""`plan` end to end on small data: what is searched, what is measured, what is recommended, what is refused."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import compatlearn as cl
from compatlearn.errors import CompatlearnError
from compatlearn.evaluation.figures import Figure
from compatlearn.evaluation.profile import Profile
from compatlearn.features.features import Features
from compatlearn.indexes.arrays import ArrayIndex
from compatlearn.upgrade import choice, curves, given, plan
from compatlearn.upgrade.advice import Measured, recommend
from compatlearn.upgrade.carry import save_plan
from compatlearn.upgrade.case import directed
from compatlearn.upgrade.cost import Cost
from compatlearn.upgrade.given import gather
from compatlearn.upgrade.maps import Methods, Pairs, apply_maps, fit_maps
from compatlearn.upgrade.rungs import RUNGS, ask_old
from samples import quick_plans

ITEMS, QUERIES = 240, 40
IDS = np.array([f"item {number}" for number in range(ITEMS + QUERIES)])
LABELS = np.arange(ITEMS + QUERIES) % 6
GALLERY, ASKED, PAIRS = np.arange(ITEMS), np.arange(ITEMS, ITEMS + QUERIES), np.arange(0, ITEMS, 3)
NAMES = ["old", "old+head", "mapped", "mapped+csls", "fused", "translated", "translated+fused"]
NAMES += ["cascade", "partial", "backfill", "backfill+head"]
REST = np.setdiff1d(GALLERY, PAIRS)
FRESH = {"cascade", "partial", "backfill", "backfill+head"}
HEADS = {"old+head", "backfill+head"}


def system() -> tuple[np.ndarray, np.ndarray]:
    """A new model that knows the classes, an old one that sees them through noise."""
    random = np.random.default_rng(0)
    new = 2 * random.normal(size=(6, 8))[LABELS] + random.normal(size=(len(LABELS), 8))
    old = new @ random.normal(size=(8, 5)) + 3 * random.normal(size=(len(LABELS), 5))
    return new.astype(np.float32), old.astype(np.float32)


NEW, OLD = system()


def features(vectors: np.ndarray, rows: np.ndarray, labels: bool = True) -> Features:
    return Features(vectors[rows], LABELS[rows] if labels else None, IDS[rows], ids_from="column 'id'")


def sides(labels: bool = True, **others: Any) -> dict[str, Any]:
    """What `plan` is given."""
    usual = {"old_gallery": (OLD, GALLERY), "pairs_new": (NEW, PAIRS), "new_queries": (NEW, ASKED), "old_queries": (OLD, ASKED)}
    return {name: features(*side, labels) for name, side in usual.items()} | others


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quick_plans(monkeypatch)


def check(found: plan.Plan) -> None:
    """What holds of every plan."""
    assert [rung.name for rung in found.rungs] == NAMES
    assert found.recommended in NAMES
    for rung in found.rungs:
        assert bool(rung.reason) != bool(rung.figures)
        for figure in [*rung.figures.values(), *(one for one in (rung.gain, rung.negative_flips) if one is not None)]:
            assert figure.low <= figure.value <= figure.high
        assert all(figure.low >= 0 and figure.high <= 1 for figure in rung.figures.values())
    written = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert {"rungs", "recommended", "why"} <= set(written)
    for rung in written["rungs"]:
        assert {"name", "method", "figures", "gain", "negative_flips", "cost", "needs"} <= set(rung)
        assert set(rung["cost"]) == {"encoder_items", "bytes_written", "query_microseconds"}
        assert set(rung["figures"]) <= {"top1", "ndcg10", "recall100", "mrr10", "agreement"}
        assert all(set(figure) == {"value", "low", "high"} for figure in rung["figures"].values())
    assert found.why in str(found).replace("\n", " ")


def reasons(found: plan.Plan) -> set[str]:
    return {rung.name for rung in found.rungs if rung.reason}


@cache
def usual() -> plan.Plan:
    """The plan of what `sides` gives, made once."""
    return cl.plan(**sides())


def slow_top1(queries: np.ndarray, items: np.ndarray, rows: np.ndarray) -> float:
    directions = [side.astype(float) / np.linalg.norm(side, axis=1, keepdims=True) for side in (queries, items)]
    nearest = (directions[0] @ directions[1].T).argmax(axis=1)
    return float(np.mean(LABELS[rows[nearest]] == LABELS[ASKED]))


def test_with_labels_and_a_backfill_everything_is_measured() -> None:
    found = cl.plan(**sides(), backfill=features(NEW, GALLERY), budget=0.5)
    check(found)
    assert reasons(found) == set()
    assert (found.primary, found.items, found.pairs) == ("top1", ITEMS, len(PAIRS))
    rest = np.setdiff1d(GALLERY, PAIRS)
    assert found.measured.startswith(f"{QUERIES} queries, {len(rest)} items")
    old, backfill = found.rung("old"), found.rung("backfill")
    assert old.figures["top1"].value == pytest.approx(slow_top1(OLD[ASKED], OLD[rest], rest))
    assert backfill.figures["top1"].value == pytest.approx(slow_top1(NEW[ASKED], NEW[rest], rest))
    assert backfill.gain.value == pytest.approx(backfill.figures["top1"].value - old.figures["top1"].value)
    assert backfill.update_gain == pytest.approx(1.0)
    assert old.gain == Figure(0.0, 0.0, 0.0)
    assert backfill.cost.encoder_items == ITEMS - len(PAIRS)
    assert set(found.partial) == {"random", "error", "density"}
    assert found.learning.at[-1] == len(PAIRS)
    for example in found.examples:
        assert example["query"] in IDS[ASKED]
        assert set(example["before"]) | set(example["after"]) <= set(IDS[rest])


def test_with_judgements() -> None:
    judged = {IDS[row]: {IDS[item]: 1 for item in GALLERY if LABELS[item] == LABELS[row]} for row in ASKED}
    found = cl.plan(**sides(labels=False), relevance=cl.Relevance.from_dict(judged))
    check(found)
    assert found.primary == "ndcg10"
    assert reasons(found) == FRESH | HEADS
    assert found.rung("old").figures == usual().rung("old").figures  # the same answers are right


def test_with_neither_pairs_kept_out_ask() -> None:
    found = cl.plan(**sides(labels=False))
    check(found)
    assert (found.primary, found.far is None) == ("agreement", False)
    assert found.rung("backfill").figures["agreement"].value == 1.0
    assert found.measured == "pairs kept out, among all pairs"
    without = cl.plan(old_gallery=features(OLD, GALLERY, False), pairs_new=features(NEW, PAIRS, False))
    check(without)
    assert without.far is None
    assert without.rung("old").figures == found.rung("old").figures


def test_a_backfill_without_labels_is_the_truth() -> None:
    found = cl.plan(**sides(labels=False), backfill=features(NEW, GALLERY, False))
    check(found)
    assert found.primary == "agreement"
    assert found.rung("backfill").figures["agreement"].value == 1.0
    assert found.measured.startswith(f"{QUERIES} queries")


def test_without_old_queries_the_reason_is_given() -> None:
    found = cl.plan(**sides(old_queries=None))
    check(found)
    assert reasons(found) == FRESH | {"old", "old+head", "fused", "translated+fused"}
    assert "queries by the old model" in found.rung("fused").reason
    assert found.rung("mapped").gain is None
    assert found.recommended in {"mapped", "translated"}
    assert "the old queries were not given, so no gain over them can be shown" in found.why
    assert not found.gains
    assert usual().gains == (usual().recommended != "old")


def test_the_pairs_are_not_searched() -> None:
    found = gather(*(sides()[name] for name in ("old_gallery", "pairs_new")), None, sides()["new_queries"],
                   sides()["old_queries"], None, None, "cosine", 0)  # fmt: skip
    assert sorted(found.case.item_ids.tolist()) == sorted(IDS[np.setdiff1d(GALLERY, PAIRS)].tolist())
    np.testing.assert_allclose(found.pairs.old, OLD[PAIRS] / np.linalg.norm(OLD[PAIRS], axis=1, keepdims=True), rtol=1e-5)


def gathered(metric: str = "cosine", **others: Any) -> given.Given:
    """What `plan` measures with."""
    whole = dict.fromkeys(("old_gallery", "pairs_new", "pairs_old", "new_queries", "old_queries", "relevance", "backfill"))
    return gather(**whole | others, metric=metric, seed=0)


def test_of_very_many_items_those_that_were_judged_are_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    right = dict(zip(IDS[ASKED], IDS[REST[::4]], strict=True))  # 40 of 160 items
    judged = {query: {item: 1, IDS[PAIRS[0]]: 0} for query, item in right.items()}  # a pair is not searched, judged or not
    whole = sides(labels=False, relevance=cl.Relevance.from_dict(judged))
    for most, searched in ((50, 50), (30, 40)):
        monkeypatch.setattr(given, "SEARCHED", most)
        found = gathered(**whole)
        assert len(found.case.item_ids) == searched
        assert set(found.case.item_ids) >= set(right.values())
        assert found.case.truth.relevance.counts(found.case.rows).tolist() == [1] * QUERIES
        assert f"{searched} of 160 items are searched: the 40 that were judged, and others" in found.notes[0]
    note = "30 of 160 items, drawn at random, are searched; the figures are of this part, not of the whole gallery"
    assert gathered(**sides()).notes == (note,)


@pytest.mark.parametrize("judged", [True, False])
def test_a_curve_on_part_of_the_gallery_finds_what_there_is(monkeypatch: pytest.MonkeyPatch, judged: bool) -> None:
    monkeypatch.setattr(curves, "ITEMS", 50)
    sides = {"old_gallery": features(NEW, GALLERY, False), "pairs_new": features(NEW, PAIRS, False)}  # the map is perfect
    sides |= {"new_queries": features(NEW, ASKED, False), "backfill": features(NEW, GALLERY, False)}
    found = gathered(**sides)
    if judged:
        nearest = found.case.item_ids[found.case.truth.wanted[:, 0]]
        found = gathered(**sides, relevance=cl.Relevance.from_dict(dict(zip(IDS[ASKED], nearest[:, None], strict=True))))
    curve = curves.learning_curve(found.case, found.pairs, Methods("procrustes", "procrustes"), 0)
    assert curve.figures[-1].value == pytest.approx(1.0, abs=0.02)


def test_a_query_that_is_an_item_does_not_find_itself() -> None:
    rest = np.setdiff1d(GALLERY, PAIRS)[:30]
    both = {"new_queries": features(NEW, rest), "old_queries": features(OLD, rest)}
    found = gather(features(OLD, GALLERY), features(NEW, PAIRS), None, *both.values(), None, None, "cosine", 0)
    assert found.case.item_ids[found.case.own].tolist() == IDS[rest].tolist()
    check(cl.plan(**sides(**both)))


def test_a_pair_that_is_a_query_is_not_fitted() -> None:
    both = features(NEW, PAIRS[:20]), features(OLD, PAIRS[:20])
    found = gather(features(OLD, GALLERY), features(NEW, PAIRS), None, *both, None, None, "cosine", 0)
    np.testing.assert_allclose(found.pairs.new, directed(NEW[PAIRS[20:]], "cosine"))
    assert found.notes == ("20 of 80 pairs are queries as well and are not fitted",)
    assert found.case.item_ids[found.case.own].tolist() == IDS[PAIRS[:20]].tolist()  # an item still, and left out for itself
    with pytest.raises(CompatlearnError, match="20 pairs cannot tell"):
        gather(features(OLD, GALLERY), features(NEW, PAIRS), None, features(NEW, PAIRS[:60]), None, None, None, "cosine", 0)


def test_if_all_items_are_pairs_half_of_them_are_searched() -> None:
    found = cl.plan(**sides(pairs_new=features(NEW, GALLERY)))
    check(found)
    assert found.pairs == ITEMS // 2
    assert any(f"{ITEMS} of {ITEMS} items" in note and f"{ITEMS // 2} of them" in note for note in found.notes)
    assert reasons(found) == set()  # the other pairs are a backfill of what is searched


def test_pairs_need_not_be_in_the_gallery() -> None:
    gallery = GALLERY[:150]
    pairs = GALLERY[150:]
    whole = sides(old_gallery=features(OLD, gallery), pairs_new=features(NEW, pairs), pairs_old=features(OLD, pairs))
    found = cl.plan(**whole)
    check(found)
    assert found.measured.startswith(f"{QUERIES} queries, 150 items")


def test_the_order_of_rows_changes_nothing() -> None:
    first = usual()
    order = np.random.default_rng(1).permutation(QUERIES)
    again = cl.plan(**sides(old_queries=features(OLD, ASKED[order])))
    assert again.rung("old").figures == first.rung("old").figures
    assert again.rung("fused").figures == first.rung("fused").figures


def without_times(found: plan.Plan) -> Any:
    """What a plan says, without how long anything took."""

    def cleaned(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: cleaned(one) for name, one in value.items() if name not in ("query_microseconds", "seconds")}
        return [cleaned(one) for one in value] if isinstance(value, list) else value

    return cleaned(json.loads(json.dumps(found.to_dict())))


def test_the_same_seed_gives_the_same_plan() -> None:
    assert without_times(cl.plan(**sides())) == without_times(usual())


def test_intervals_may_draw_classes() -> None:
    found = cl.plan(**sides(), cluster="class")
    check(found)
    for name in ("old", "mapped"):
        ours, theirs = found.rung(name).figures["top1"], usual().rung(name).figures["top1"]
        assert ours.value == theirs.value
        assert (ours.low, ours.high) != (theirs.low, theirs.high)
    with pytest.raises(CompatlearnError, match="no labels of the new queries, so cluster='class' has no classes"):
        cl.plan(**sides(labels=False), backfill=features(NEW, GALLERY, False), cluster="class")
    with pytest.raises(CompatlearnError, match="pairs ask in their place, for nothing says what answers"):
        cl.plan(**sides(old_gallery=features(OLD, GALLERY, False)), cluster="class")


def test_heads_need_labels_and_are_references() -> None:
    found = cl.plan(**sides(), backfill=features(NEW, GALLERY))
    old, new = found.rung("old+head"), found.rung("backfill+head")
    head = found.adapters["old-head"].transform(directed(OLD[ASKED], "cosine"))
    rest = np.setdiff1d(GALLERY, PAIRS)
    assert old.figures["top1"].value == pytest.approx(slow_top1(head, OLD[rest], rest))
    assert (old.method, new.method) == ("neighbour-head", "neighbour-head")
    assert old.cost.encoder_items == 0
    assert new.cost.encoder_items == found.rung("backfill").cost.encoder_items


@pytest.mark.parametrize("metric", ["euclidean", "dot"])
def test_every_metric(metric: str) -> None:
    found = cl.plan(**sides(), metric=metric, backfill=features(NEW, GALLERY))
    check(found)
    assert found.metric == metric
    assert reasons(found) == set()


def test_queries_far_from_all_pairs_are_counted() -> None:
    random = np.random.default_rng(0)
    pairs = random.normal(size=(200, 4)).astype(np.float32)
    queries = np.concatenate([pairs[:30] + 0.001, pairs[:10] + 50]).astype(np.float32)
    between = np.sort(np.linalg.norm(pairs[:, None] - pairs[None], axis=2), axis=1)[:, 1]
    far = np.linalg.norm(queries[:, None] - pairs[None], axis=2).min(axis=1) > np.quantile(between, 0.99)
    assert Profile.of(pairs, pairs, queries, "euclidean").share_far == pytest.approx(far.mean()) == 0.25
    assert Profile.of(pairs, pairs, None, "euclidean").share_far is None


def rung(name: str, gain: tuple[float, float, float] | None, embedded: int = 0, score: float | None = 0.5) -> Measured:
    figure = None if gain is None else Figure(*map(float, gain))
    figures = {} if score is None else {"top1": Figure(score, score - 0.01, score + 0.01)}
    return Measured(name, "", figures, figure, None, None, Cost(embedded, 0, 0.0), ())


LADDER = [
    rung("old", (0.0, 0.0, 0.0)),
    rung("mapped", (0.02, 0.01, 0.03)),
    rung("translated", (0.05, 0.04, 0.06)),
    rung("cascade", (0.09, 0.08, 0.1), 500),
    rung("partial", (0.055, 0.04, 0.07), 50),
    rung("backfill", (0.1, 0.09, 0.11), 1000),
]


UNCOMPARED = [
    rung("old", None, score=None),
    rung("mapped", None, score=0.38),
    rung("translated", None, score=0.42),
    rung("backfill", None, 1000, score=0.6),
]


@pytest.mark.parametrize(
    ("rungs", "budget", "goal", "name", "says"),
    [
        (LADDER, 0.1, 0.9, "translated", "costs less"),  # 0.05 is 90 % of 0.055
        (LADDER, 0.1, 0.95, "partial", "the most of all that embed no more than 10%"),
        (LADDER, 0.0, 0.95, "translated", "a backfill gains +10.0"),
        (LADDER, 0.5, 0.9, "cascade", "a backfill gains"),
        (LADDER, 1.0, 0.85, "cascade", "of the +10.0 of backfill"),
        (LADDER, 1.0, 1.0, "backfill", "the most"),
        (LADDER, 1.0, 0.1, "mapped", "costs less"),
        (LADDER[:2], 0.1, 0.9, "mapped", "mapped gains +2.0 [+1.0, +3.0] points"),
        (LADDER[:1], 0.1, 0.9, "old", "keep the old model"),
        ([LADDER[0], rung("mapped", (0.02, -0.01, 0.05))], 0.1, 0.9, "old", "keep the old model"),  # not surely
        ([LADDER[0], rung("mapped", (-0.02, -0.03, -0.01))], 0.1, 0.9, "old", "keep the old model"),
        ([LADDER[0], LADDER[5]], 0.5, 0.9, "old", "budget of 50%"),  # a backfill helps and is too dear
        (UNCOMPARED, 0.1, 0.9, "mapped", "mapped has 38.0 [37.0, 39.0] % top-1, at least 90% of the 42.0 of translated"),
        (UNCOMPARED, 0.1, 0.95, "translated", "the most of all that embed no more than 10%"),
        (UNCOMPARED, 1.0, 0.95, "backfill", "the old queries were not given, so no gain over them can be shown"),
    ],
)
def test_what_is_recommended(rungs: list[Measured], budget: float, goal: float, name: str, says: str) -> None:
    taken, why = recommend(rungs, "top1", 1000, budget, goal)
    assert taken == name
    assert says in why


def spoiled(vectors: np.ndarray, rows: np.ndarray, value: float) -> Features:
    """The second row cannot be used."""
    part = vectors[rows].copy()
    part[1] = value
    return Features(part, LABELS[rows], IDS[rows], ids_from="column 'id'")


PARTS = {
    "old_gallery": ("the old gallery", OLD, GALLERY),
    "pairs_new": ("the new pairs", NEW, PAIRS),
    "pairs_old": ("the old pairs", OLD, PAIRS),
    "new_queries": ("the new queries", NEW, ASKED),
    "old_queries": ("the old queries", OLD, ASKED),
    "backfill": ("the backfill", NEW, GALLERY),
}


@pytest.mark.parametrize("side", PARTS)
@pytest.mark.parametrize(("value", "fault"), [(np.nan, "NaN or infinity"), (np.inf, "NaN or infinity"), (0.0, "length zero")])
def test_a_vector_that_cannot_be_used_is_named(side: str, value: float, fault: str) -> None:
    name, vectors, rows = PARTS[side]
    with pytest.raises(
        CompatlearnError, match=rf"^1 of \d+ vectors of {name} have {fault} \(first: row 1, id '{IDS[rows[1]]}'\)"
    ):
        cl.plan(**sides(**{side: spoiled(vectors, rows, value)}))


@pytest.mark.parametrize("side", PARTS)
def test_another_dimension_is_named(side: str) -> None:
    name, vectors, rows = PARTS[side]
    with pytest.raises(CompatlearnError, match=f"{vectors.shape[1] - 1}") as refused:
        cl.plan(**sides(**{side: features(vectors[:, 1:], rows)}))
    assert name in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"pairs_new": features(NEW, PAIRS[:9])}, "9 pairs cannot tell one map from another; give 30 at least"),
        ({"pairs_new": features(NEW, PAIRS[:29])}, "29 pairs cannot tell"),
        ({"pairs_new": features(NEW, ASKED)}, "40 of 40 ids of the new pairs are not in the old gallery"),
        ({"old_queries": features(OLD, ASKED - 1)}, "1 of 40 ids of the new queries are not in the old queries"),
        (
            {"relevance": cl.Relevance.from_dict({"nobody": ["nothing"]})},
            "no item of the gallery answers any of the 40 queries",
        ),
        ({"relevance": cl.Relevance.from_dict({1: [2]})}, "ids of the queries are text and those of the judgements numbers"),
        ({"old_gallery": features(np.ones_like(OLD), GALLERY)}, "are the same"),
        ({"budget": 1.5}, "budget"),
        ({"goal": 0.0}, "goal"),
    ],
)
def test_refusals(others: dict[str, Any], message: str) -> None:
    with pytest.raises(CompatlearnError, match=message) as refused:
        cl.plan(**sides(**others))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("queries", [True, False])
def test_the_fewest_pairs_are_enough(queries: bool) -> None:
    pairs = features(NEW, PAIRS[: given.FEWEST], queries)
    whole = sides(pairs_new=pairs) if queries else {"old_gallery": features(OLD, GALLERY, False), "pairs_new": pairs}
    check(cl.plan(**whole))


def test_a_small_gallery() -> None:
    gallery = GALLERY[:36]
    found = cl.plan(**sides(old_gallery=features(OLD, gallery), pairs_new=features(NEW, gallery)))
    check(found)  # six items are searched: fewer than the figures look at
    assert found.measured.startswith(f"{QUERIES} queries, 6 items")
    for example in found.examples:
        assert len(set(example["before"])) == len(example["before"])


def test_what_is_told() -> None:
    said: list[str] = []
    cl.plan(**sides(tell=said.append))
    assert any(line.startswith("fitting the maps") for line in said)
    assert all("\n" not in line for line in said)


def test_trials_of_both_directions_ask_with_old_queries_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, said = [], []
    monkeypatch.setattr(choice, "ask_old", lambda *arguments: asked.append(arguments) or ask_old(*arguments))
    pairs = Pairs(*(directed(side[PAIRS], "cosine") for side in (NEW, OLD)), LABELS[PAIRS])
    choice.choose(pairs, "cosine", 0, tell=said.append)
    assert len(asked) == 1
    before = {line.partition("old queries ")[2]: line.partition(" s, ")[2].partition(" ")[0] for line in said if "old" in line}
    assert sorted(before.values()) == ["agreement", "top-1"]  # one answer, judged by either truth
    bench = choice.Bench.of(pairs, "cosine", 0)
    for judge in (bench, bench.labelled()):
        assert f"{judge.scores(ask_old, judge.maps(Methods('', ''), ())).mean():.1%})" in before


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "dot"])
def test_the_next_steps_give_what_the_plan_measured(tmp_path: Path, metric: str) -> None:
    found = gathered(metric, **sides(), backfill=features(NEW, GALLERY))
    case, methods = found.case, Methods("ridge", "ridge", fuse=0.7, join=(0.3, 0.4))
    adapters = fit_maps(found.pairs, methods, metric, 0)
    maps = apply_maps(case, methods, adapters, found.pairs)
    made = replace(usual(), metric=metric, methods=methods, adapters=adapters, scale=case.scale)
    index, place = ArrayIndex(OLD[REST], ids=IDS[REST], metric=metric), dict(zip(IDS, range(len(IDS)), strict=True))
    given_names: dict[str, Any] = {"logged_new_queries": directed(found.pairs.new, metric)}
    given_names |= {"new_queries": NEW[ASKED], "old_queries": OLD[ASKED], "old_vectors": OLD[REST], "index": index}
    names = given_names | {"cl": cl, "np": np, "embed": lambda ids: NEW[[place[one] for one in ids]]}

    def follow(rung: str, folder: Path) -> tuple[list[str], dict[str, Any]]:
        steps = save_plan(replace(made, recommended=rung), folder, {})["next"]
        after = dict(names)
        for step in steps:
            if not step.startswith("rank by"):
                exec(step.replace("new.vectors", str(tmp_path / "new.vectors")), after)
        return steps, after

    def measured(rung: str) -> np.ndarray:
        ask = next(one.search for one in RUNGS if one.name == rung)
        return case.item_ids[ask(case, maps, case.rows, case.rows[:0])[:, :10]]

    for rung in ("mapped", "fused"):
        assert (index.search(follow(rung, tmp_path)[1]["queries"], 10).ids == measured(rung)).all()
    assert (follow("mapped+csls", tmp_path)[1]["hits"].ids[:, :10] == measured("mapped+csls")).all()
    assert (follow("cascade", tmp_path)[1]["hits"].ids == measured("cascade")).all()
    steps, after = follow("translated+fused", tmp_path)
    weight = float(re.search(r"\+ ([\d.e+-]+) ", steps[-1])[1])
    parts = [slow_scores(after["queries"], after["vectors"], metric), slow_scores(OLD[ASKED], OLD[REST], metric)]
    assert (IDS[REST][np.argsort(-(parts[0] + weight * parts[1]), axis=1)[:, :10]] == measured("translated+fused")).all()


def slow_scores(queries: np.ndarray, items: np.ndarray, metric: str) -> np.ndarray:
    queries, items = queries.astype(float), items.astype(float)
    if metric == "euclidean":
        return -np.square(queries[:, None] - items[None]).sum(axis=2)
    sizes = [np.linalg.norm(side, axis=1) if metric == "cosine" else np.ones(len(side)) for side in (queries, items)]
    return queries @ items.T / np.outer(*sizes)


def test_a_rung_by_its_name() -> None:
    found = usual()
    assert found.rung("fused") is found.rungs[4]
    assert replace(found, recommended="mapped").rung("mapped").name == "mapped"
