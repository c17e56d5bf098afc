"""Every rung against the obvious way: all scores in a matrix, sorted."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compatlearn.cli.app import app
from compatlearn.evaluation.relevance import Relevance
from compatlearn.upgrade.carry import commands, way_back
from compatlearn.upgrade.case import Case, directed, mixed
from compatlearn.upgrade.choice import Bench, kept_out
from compatlearn.upgrade.cost import Cost, cost_of
from compatlearn.upgrade.curves import SHARES, partial_curve
from compatlearn.upgrade.given import Given
from compatlearn.upgrade.maps import NEW_HEAD, OLD_HEAD, Maps, Methods, Pairs, Sample, fit, known_queries, sampled
from compatlearn.upgrade.measure import Part
from compatlearn.upgrade.order import NONE, ORDERS, order_of
from compatlearn.upgrade.rungs import CANDIDATES, RUNGS, SPACE, proposed
from compatlearn.upgrade.truth import Agreeing, Judged

METRICS = ["cosine", "euclidean", "dot"]
BY_NAME = {rung.name: rung for rung in RUNGS}


def case_of(metric: str, queries: int = 9, items: int = 130, seed: int = 0, own: bool = True) -> tuple[Case, Maps]:
    """Random vectors; the queries are the first items where `own`."""
    random = np.random.default_rng(seed)

    def vectors(rows: int, width: int, scale: float = 1.0) -> np.ndarray:
        return directed((scale * random.normal(size=(rows, width)) + 0.3).astype(np.float32), metric)

    truth = Agreeing(np.zeros((queries, 1), dtype=np.int64))
    mine = np.arange(queries) if own else np.full(queries, -1)
    case = Case(
        new=vectors(queries, 5, 3.0),
        old=vectors(queries, 4),
        items=vectors(items, 4),
        fresh=vectors(items, 5, 3.0),
        own=mine,
        truth=truth,
        metric=metric,
        query_ids=np.arange(queries),
        item_ids=np.arange(items),
        what="",
    )
    methods = Methods("ridge", "ridge", fuse=0.7, join=(0.3, 0.4))
    sides = vectors(queries, 4), vectors(items, 5, 3.0), vectors(queries, 5, 3.0)
    sample = Sample(vectors(13, 4), np.where(np.arange(items) % 9, -1, np.arange(items) % 13))
    return case, Maps(methods, *sides, sample=sample, old_head=vectors(queries, 4), new_head=vectors(queries, 5, 3.0))


def cost(name: str, case: Case, found: np.ndarray | None = None, paid: int = 50) -> Cost:
    """Of a gallery of 1,000 items, a tenth of which may be embedded."""
    given = Given(linear_pairs(), case, None, 1000, paid, ())
    return cost_of(BY_NAME[name], case, found, given, 0.1, {"query": 7.0, "gallery": 3.0, OLD_HEAD: 5.0, NEW_HEAD: 9.0})


def scores(queries: np.ndarray, items: np.ndarray, metric: str) -> np.ndarray:
    """Bigger is nearer, of every query and item."""
    queries, items = queries.astype(float), items.astype(float)
    if metric == "euclidean":
        return -((queries[:, None] - items[None]) ** 2).sum(axis=2)
    if metric == "cosine":
        items = items / np.linalg.norm(items, axis=1, keepdims=True)
    return queries @ items.T


def ranked(matrix: np.ndarray, own: np.ndarray, k: int = 100) -> np.ndarray:
    matrix = matrix.copy()
    for row, place in enumerate(own):
        if place >= 0:
            matrix[row, place] = -np.inf
    order = np.argsort(-matrix, axis=1, kind="stable")[:, :k]
    return np.where(np.isinf(np.take_along_axis(matrix, order, axis=1)), -1, order)


def length_one(vectors: np.ndarray, metric: str) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True) if metric == "cosine" else vectors


def slow_joined(case: Case, maps: Maps, items: np.ndarray) -> np.ndarray:
    share, weight = maps.methods.join
    queries = length_one((case.new.astype(float) + share * maps.asked) / (1 + share), case.metric)
    if case.metric != "cosine":  # both spaces count alike, whatever their size
        weight *= case.new.var(axis=0).sum() / case.items.var(axis=0).sum()
    return scores(queries, items, case.metric) + weight * scores(case.old, case.items, case.metric)


def slow_csls(case: Case, maps: Maps, near: np.ndarray) -> np.ndarray:
    """2 s − r of the first hundred, with distances that are no squares where these rank."""
    theirs = scores(maps.sample.mapped, case.items, case.metric)
    near, theirs = (-np.sqrt(-one) if case.metric == "euclidean" else one for one in (near, theirs))
    corrected = np.full_like(near, -np.inf)
    for query, items in enumerate(ranked(near, case.own)):
        for item in items[items >= 0]:
            others = [score for number, score in enumerate(theirs[:, item]) if number != maps.sample.own[item]]
            corrected[query, item] = 2 * near[query, item] - np.mean(sorted(others)[-10:])
    return ranked(corrected, case.own)


def slow(name: str, case: Case, maps: Maps, first: np.ndarray) -> np.ndarray:
    fused = length_one((case.old.astype(float) + maps.methods.fuse * maps.mapped) / (1 + maps.methods.fuse), case.metric)
    partly = maps.translated.copy()
    partly[first] = case.fresh[first]
    matrices = {
        "old": scores(case.old, case.items, case.metric),
        "mapped": scores(maps.mapped, case.items, case.metric),
        "fused": scores(fused, case.items, case.metric),
        "translated": scores(case.new, maps.translated, case.metric),
        "translated+fused": slow_joined(case, maps, maps.translated),
        "partial": slow_joined(case, maps, partly),
        "backfill": scores(case.new, case.fresh, case.metric),
        "old+head": scores(maps.old_head, case.items, case.metric),
        "backfill+head": scores(maps.new_head, case.fresh, case.metric),
    }
    if name == "mapped+csls":
        return slow_csls(case, maps, matrices["mapped"])
    if name != "cascade":
        return ranked(matrices[name], case.own)
    candidates = ranked(matrices["fused"], case.own)
    inside = np.full_like(matrices["backfill"], -np.inf)
    for row, items in enumerate(candidates):
        inside[row, items] = matrices["backfill"][row, items]
    return ranked(inside, case.own)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("name", [rung.name for rung in RUNGS])
def test_a_rung_ranks_by_its_score(name: str, own: bool, metric: str) -> None:
    case, maps = case_of(metric, own=own)
    first = np.array([5, 2, 77, 129])
    found = BY_NAME[name].search(case, maps, case.rows, first)
    np.testing.assert_array_equal(found, slow(name, case, maps, first))
    assert found.shape == (9, CANDIDATES)


@pytest.mark.parametrize("name", [rung.name for rung in RUNGS])
def test_some_queries_are_asked_as_all_are(name: str) -> None:
    case, maps = case_of("cosine")
    rows, first = np.array([1, 4, 8]), np.arange(20)
    found = BY_NAME[name].search(case, maps, case.rows, first)
    np.testing.assert_array_equal(BY_NAME[name].search(case, maps.of(rows), rows, first), found[rows])


@settings(max_examples=8, deadline=None)
@given(st.sampled_from(METRICS), st.sampled_from([rung.name for rung in RUNGS]), st.integers(2, 40), st.integers(0, 99))
def test_a_query_never_finds_itself(metric: str, name: str, items: int, seed: int) -> None:
    case, maps = case_of(metric, queries=2, items=items, seed=seed)
    found = BY_NAME[name].search(case, maps, case.rows, np.arange(items // 2))
    for row, places in enumerate(found):
        assert set(places.tolist()) == set(range(items)) - {row} | {-1}  # all others, once each, and -1 where none is left
        assert (places[:-1] >= 0).all()


@settings(max_examples=8, deadline=None)
@given(st.sampled_from(METRICS), st.integers(0, 999))
def test_the_limits_of_the_weights(metric: str, seed: int) -> None:
    case, maps = case_of(metric, seed=seed)

    def ask(name: str, case: Case = case, first: int = 0, **weights: object) -> np.ndarray:
        some = replace(maps, methods=replace(maps.methods, **weights))
        return BY_NAME[name].search(case, some, case.rows, np.arange(first))

    np.testing.assert_array_equal(ask("fused", fuse=0.0), ask("old"))
    mostly = mixed(case.old, maps.mapped, 1e9, metric)
    np.testing.assert_allclose(mostly, maps.mapped, atol=1e-5)
    np.testing.assert_array_equal(ask("translated+fused", join=(0.0, 0.0)), ask("translated"))
    np.testing.assert_array_equal(ask("partial"), ask("translated+fused"))
    np.testing.assert_array_equal(ask("partial", first=130, join=(0.0, 0.0)), ask("backfill"))
    alone = replace(case, old=None)
    np.testing.assert_array_equal(ask("partial", alone), ask("translated"))
    np.testing.assert_array_equal(ask("partial", alone, first=130), ask("backfill"))
    everything = case_of(metric, items=60, seed=seed)
    found = BY_NAME["cascade"].search(*everything, everything[0].rows, NONE)
    np.testing.assert_array_equal(found, BY_NAME["backfill"].search(*everything, everything[0].rows, NONE))


def test_without_old_queries_a_cascade_asks_with_mapped_ones() -> None:
    case, maps = case_of("cosine")
    alone = replace(case, old=None)
    np.testing.assert_array_equal(proposed(alone, maps, case.rows), slow("mapped", case, maps, NONE))


@pytest.mark.parametrize("items", [130, 60])
def test_a_cascade_costs_every_item_that_it_embeds_once(items: int) -> None:
    case, maps = case_of("cosine", items=items)
    distinct = {place for row in slow("fused", case, maps, NONE).tolist() for place in row} - {-1}
    found = cost("cascade", case, BY_NAME["cascade"].search(case, maps, case.rows, NONE))
    assert found.encoder_items == len(distinct)
    assert found.bytes_written == len(distinct) * 5 * 4
    assert found.query_microseconds == 7.0


@pytest.mark.parametrize(
    ("name", "embedded", "vectors", "microseconds"),
    [
        ("old", 0, 0, 0.0),
        ("old+head", 0, 0, 5.0),
        ("mapped", 0, 0, 7.0),
        ("fused", 0, 0, 7.0),
        ("translated", 0, 1000, 0.0),
        ("translated+fused", 0, 1000, 3.0),
        ("partial", 95, 1000, 3.0),
        ("backfill", 950, 1000, 0.0),
        ("backfill+head", 950, 1000, 9.0),
    ],
)
def test_what_a_rung_costs(name: str, embedded: int, vectors: int, microseconds: float) -> None:
    found = cost(name, case_of("cosine")[0])
    assert (found.encoder_items, found.bytes_written, found.query_microseconds) == (embedded, vectors * 5 * 4, microseconds)


def test_csls_costs_one_number_per_item_and_the_time_to_rank() -> None:
    found = cost("mapped+csls", case_of("cosine")[0])
    assert (found.encoder_items, found.bytes_written) == (0, 1000 * 4)
    assert 7.0 < found.query_microseconds < 1e5


@pytest.mark.parametrize("asked", [99, 100])
def test_known_queries_are_those_of_the_log_where_there_are_enough(asked: int) -> None:
    case, pairs = case_of("cosine", queries=120)[0], linear_pairs()
    log = np.random.default_rng(0).permutation(120)[:asked]
    known, own = known_queries(case, pairs, log)
    np.testing.assert_array_equal(known, case.new[log] if asked == 100 else np.concatenate([pairs.new, case.new[log]]))
    for item in range(130):  # the first 120 items are the queries
        assert (known[own[item]] == case.new[item]).all() if item in log else own[item] == -1
    np.testing.assert_array_equal(known_queries(case, pairs)[0], pairs.new)
    apart, own = known_queries(replace(case, own=np.full(120, -1)), pairs, log)
    np.testing.assert_array_equal(apart, known)
    assert (own == -1).all()


def test_a_sample_of_known_queries_knows_its_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compatlearn.upgrade.maps.SAMPLED", 25)
    pairs = linear_pairs()
    adapter = fit(pairs, "ridge", "query", "euclidean", 0)
    own = np.append(np.arange(60), -1)
    found = sampled(pairs.new, own, adapter, "euclidean")
    assert found.mapped.shape == (25, 4)
    assert found.own[-1] == -1
    kept = np.flatnonzero(found.own >= 0)
    assert sorted(found.own[kept].tolist()) == list(range(25))
    np.testing.assert_allclose(found.mapped[found.own[kept]], adapter.transform(pairs.new[kept]), rtol=1e-5)


def test_a_partial_backfill_costs_its_share_of_what_is_not_paid_for() -> None:
    assert cost("partial", case_of("cosine")[0], paid=500).encoder_items == 50


def test_judged_queries_score_what_they_find() -> None:
    relevance = Relevance.from_labels([0, 1, 2], [0, 1, 1, 0, 5])
    truth = Judged(relevance, np.array([0, -1, -1]), "top1")
    found = np.array([[1, 3, 2], [1, 2, 0], [0, 1, -1]])
    figures = truth.scores(np.arange(3), found)
    assert figures["top1"].tolist() == [0, 1, 0]
    assert figures["mrr10"].tolist() == [0.5, 1, 0]
    assert figures["recall100"].tolist()[:2] == [1, 1]  # its own row does not count
    np.testing.assert_allclose(figures["ndcg10"][:2], [1 / np.log2(3), 1])
    assert truth.first_right(np.arange(3), found).tolist() == [False, True, False]


def test_agreement_is_the_share_of_the_wanted_items() -> None:
    truth = Agreeing(np.array([[1, 2], [3, 4]]))
    found = np.array([[2, 9, 1], [4, 3, 0]])
    assert truth.scores(np.arange(2), found)["agreement"].tolist() == [0.5, 1.0]
    assert truth.first_right(np.arange(2), found).tolist() == [True, True]


def linear_pairs(rows: int = 60, seed: int = 0) -> Pairs:
    random = np.random.default_rng(seed)
    new = random.normal(size=(rows, 5)).astype(np.float32)
    return Pairs(new, (new @ random.normal(size=(5, 4)) + 0.3 * random.normal(size=(rows, 4))).astype(np.float32))


@pytest.mark.parametrize("metric", METRICS)
def test_pairs_kept_out_are_fitted_nowhere(metric: str) -> None:
    raw = linear_pairs()
    pairs = Pairs(directed(raw.new, metric), directed(raw.old, metric))
    case, inside = kept_out(pairs, metric, 3)
    assert (len(case), len(inside), len(case.items)) == (12, 48, 60)
    assert not set(inside.tolist()) & set(case.own.tolist())
    np.testing.assert_array_equal(case.truth.wanted, ranked(scores(pairs.new[case.own], pairs.new, metric), case.own, 10))
    maps = Bench.of(pairs, metric, 3).maps(Methods("ridge", "ridge"))
    fold_of = dict(zip(inside.tolist(), (np.random.default_rng(3).permutation(48) % 5).tolist(), strict=True))
    for row in range(0, 60, 7):
        kept = [other for other in inside.tolist() if row not in fold_of or fold_of[other] != fold_of[row]]
        assert row not in kept
        alone = fit(pairs.take(np.array(kept)), "ridge", "gallery", metric, 3).transform(pairs.old[row : row + 1])
        np.testing.assert_allclose(maps.translated[row], directed(alone, metric)[0], atol=1e-4)


@pytest.mark.parametrize("name", ORDERS)
def test_an_order_holds_every_item_once(name: str) -> None:
    case, maps = case_of("cosine")
    pairs = linear_pairs()
    order = order_of(name, case, maps.translated, pairs, pairs.new + 0.1, case.new, 0)
    assert sorted(order.tolist()) == list(range(130))
    np.testing.assert_array_equal(order, order_of(name, case, maps.translated, pairs, pairs.new + 0.1, case.new, 0))


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "dot"])
def test_items_that_many_queries_find_come_first(metric: str) -> None:
    case, maps = case_of(metric)
    maps.translated[:20] *= 1 if metric == "cosine" else 5  # long ones: near by inner product alone
    order = order_of("density", case, maps.translated, linear_pairs(), linear_pairs().new, case.new, 0)
    near = ranked(scores(case.new, maps.translated, metric), np.full(9, -1), 20)
    counts = np.bincount(near.ravel(), minlength=130)
    assert (np.diff(counts[order]) <= 0).all()


def test_items_with_large_errors_come_first() -> None:
    pairs = linear_pairs(200)
    far = pairs.old[:, 0] > 0
    crossed = pairs.new + np.where(far, 2.0, 0.0)[:, None].astype(np.float32)
    case, maps = case_of("euclidean")
    order = order_of("error", case, maps.translated, pairs, crossed, case.new, 0)
    assert case.items[order[:40], 0].mean() > case.items[order[-40:], 0].mean() + 0.5


def test_a_partial_backfill_ends_where_a_backfill_does() -> None:
    case, maps = case_of("cosine", queries=20)
    wanted = BY_NAME["backfill"].search(case, maps, case.rows, NONE)[:, :10]
    case, maps = replace(case, truth=Agreeing(wanted)), replace(maps, methods=replace(maps.methods, join=(0.0, 0.0)))
    order = np.random.default_rng(0).permutation(130)
    halves = [np.arange(0, 20, 2), np.arange(1, 20, 2)]
    curves = partial_curve(case, [Part(rows, maps.of(rows)) for rows in halves], {"random": [order, order]}, 0)
    assert curves["random"].at == SHARES
    values = [figure.value for figure in curves["random"].figures]
    assert values[-1] == 1.0
    assert values[0] < 0.5


@pytest.mark.parametrize("name", [rung.name for rung in RUNGS])
def test_a_rung_says_how_to_go_back(name: str) -> None:
    assert ("old column" in way_back(name)) == (SPACE in BY_NAME[name].needs)
    assert ("by hubness" in way_back(name)) == (name == "mapped+csls")


@pytest.mark.parametrize("name", [rung.name for rung in RUNGS])
def test_the_commands_for_a_live_index_exist(name: str) -> None:
    for line in commands(name, Path("plan")):
        words = line.replace("INDEX", "faiss:file").replace("SHARE", "0.1").split()
        app.parse_args(words[1:], exit_on_error=False, print_error=False)
    assert any("translate" in line for line in commands(name, Path("plan"))) == (SPACE in BY_NAME[name].needs)
    assert bool(commands(name, Path("plan"))) == (name != "old")
