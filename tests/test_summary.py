"""Rows of `results.json` and the lines made of them: nothing is lost on the way, and one rule gives every verdict."""

import json

import numpy as np
import pytest
from scipy.stats import t as student

from compatlearn.errors import FormatError
from compatlearn.evaluation.compatibility import compatibility
from compatlearn.features.features import Features
from compatlearn.report.outcome import Outcome
from compatlearn.report.results import Measures, Row, read_rows
from compatlearn.report.summary import Estimate, interval, summarise
from report_samples import CROSS, OLD, comparison, entries, failed, results, row, sweep, with_heads


def line_of(*rows):
    (line,) = summarise(read_rows(rows))
    return line


def with_gains(*gains):
    """One row per gain, over as many seeds, with an interval of ± 1 point over the queries."""
    rows = [row("l2", seed) for seed in range(len(gains))]
    for one, gain in zip(rows, gains, strict=True):
        one["gain"], one["intervals"]["gain"] = gain, [gain - 0.01, gain + 0.01]
        one["compatible"] = "yes" if gain > 0.01 else "no" if gain < -0.01 else "undecided"
    return line_of(*rows)


# rows


def test_a_row_is_written_as_it_was_read():
    full = row("random-walk", 1) | {
        "cosine": {key: row("l2", 0)[key] for key in Measures.__dataclass_fields__ if key in row("l2", 0)}
    }
    full["cosine"]["intervals"] = row("l2", 0)["intervals"]
    unbounded = row("l2", 2) | {"update_gain": None}
    unbounded["intervals"] = unbounded["intervals"] | {"update_gain": ["-Infinity", "Infinity"]}
    alone = row("l2", 2) | {"new_self": None, "independent_self": None, "update_gain": None}
    alone["intervals"] = alone["intervals"] | dict.fromkeys(("new_self", "independent_self", "update_gain"))
    of_a_later_version = row("l2", 0) | {"judged": 12}
    for one in (full, unbounded, alone, failed("mean", 1), of_a_later_version):
        assert json.dumps(Row.from_dict(one).to_dict()) == json.dumps(one)


def test_a_row_has_the_keys_of_an_evaluation():
    features = Features(np.random.default_rng(1).normal(size=(60, 4)), np.arange(60) % 3)
    result = compatibility(old_query=features, old_gallery=features, new_query=features, independent=features)
    written = result.to_dict()
    own = {"method": "l2", "seed": 0, "temperature": 0.05, "damping": 0.9, "label_noise": 0.0}
    assert json.dumps(Row.from_dict(own | written).to_dict()) == json.dumps(own | written)
    kept = Measures.of(result)
    assert kept == Measures.from_dict(written)
    assert list(kept.to_dict().items()) == [(key, written[key]) for key in kept.to_dict()]


def test_the_references_of_a_map_with_labels_are_kept_and_averaged():
    rows = [with_heads(row("neighbour-head", seed, cross=0.55)) for seed in range(3)]
    read = read_rows(rows)
    assert [Row.from_dict(one.to_dict()) for one in read] == read
    assert read[0].measures.old_head.top1.value == 0.45
    assert {**rows[0]["intervals"]} == read[0].to_dict()["intervals"]
    (line,) = summarise(read)
    entry = line.to_dict()
    assert entry["backfill_head"]["top1"] == {"mean": 0.65, "low": 0.65, "high": 0.65, "seeds": 3}
    assert entry["update_gain_head"]["mean"] == pytest.approx(np.mean([one["update_gain_head"] for one in rows]))
    assert "old_head" not in line_of(row("l2", 0)).to_dict()


def test_rows_of_an_earlier_version_load():
    earlier = row("l2", 0)
    for key in ("label_noise", "map_r_limit", "per_class", "accuracy_at_k", "queries_without_relevant"):
        del earlier[key]
    line = line_of(earlier)
    assert line.figures.cross.top1.value == pytest.approx(CROSS["l2"] - 0.008)
    assert Outcome.of({"rows": [earlier]}).lines[0].method == "l2"


def test_a_row_without_figures_is_refused():
    half = row("l2", 0)
    del half["cross"], half["gain"]
    with pytest.raises(FormatError, match=r"without cross, gain; delete the file and evaluate again"):
        Row.from_dict(half)


# means and intervals


def test_interval_is_students_t():
    low, high = interval([0.50, 0.52, 0.57])
    half = student.ppf(0.975, 2) * np.std([0.50, 0.52, 0.57], ddof=1) / 3**0.5
    assert (low, high) == (pytest.approx(0.53 - half), pytest.approx(0.53 + half))
    assert half == pytest.approx(0.0896, abs=1e-4)  # 4.303 · 0.0361 / √3, from a printed table of t
    assert interval([0.5]) == (None, None)
    assert interval([0.5, 0.5, 0.5]) == (0.5, 0.5)


def test_summary_counts_the_models_that_failed_and_averages_the_others():
    entry = next(entry for entry in comparison()["summary"] if entry["method"] == "mean")
    assert (entry["seeds"], entry["failed"], entry["verdict"]) == (3, 1, "undecided")
    assert entry["compatible"] == {"yes": 2, "no": 1, "undecided": 0}
    assert entry["cross"]["top1"]["mean"] == pytest.approx(0.471 - 0.004)  # seeds 0 and 1
    assert entry["cross"]["top1"]["seeds"] == 2


def test_summary_has_none_where_nobody_measured():
    rows = [{**row("l2", seed), "new_self": None, "update_gain": None} for seed in range(2)]
    for one in rows:
        one["intervals"] |= {"new_self": None, "update_gain": None}
    (entry,) = entries(rows)
    assert entry["new_self"] is None
    assert entry["update_gain"] is None
    (entry,) = entries([failed("mean", 0)])
    assert entry["gain"] is None
    assert entry["cross"] is None


def test_summary_averages_what_there_is_and_says_how_much():
    rows = [row("l2", 0) | {"update_gain": None}, row("l2", 1)]
    (entry,) = entries(rows)
    assert entry["update_gain"] == {"mean": rows[1]["update_gain"], "low": None, "high": None, "seeds": 1}


def test_one_seed_has_the_interval_of_its_bootstrap():
    line = line_of(row("random-walk", 1))
    assert line.figures.gain.half == pytest.approx(0.015)
    assert line.figures.cross.top1.half == pytest.approx(0.012)
    assert line.to_dict()["gain"]["low"] is None  # the file keeps intervals over seeds there


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (Estimate(0.0912, 0.0789, 0.1035), "+9.1 ± 1.2"),
        (Estimate(-0.0912), "−9.1"),
        (Estimate(-0.0001, -0.0101, 0.0099), "+0.0 ± 1.0"),
        (Estimate(0.5, float("-inf"), float("inf")), "+50.0"),
    ],
)
def test_points_have_a_sign_and_no_minus_zero(estimate, text):
    assert estimate.percent(signed=True) == text


# the verdict


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [
        ((0.05, 0.06, 0.07), "yes"),
        ((0.02, 0.05, 0.10), "undecided"),  # each seed says yes, their mean is not sure
        ((0.005, 0.006, 0.007), "yes"),  # no seed is sure, their mean is
        ((-0.05, -0.06, -0.07), "no"),
        ((0.0, 0.0, 0.0), "undecided"),
        ((0.02,), "yes"),
        ((0.005,), "undecided"),
        ((-0.02,), "no"),
    ],
)
def test_the_verdict_is_the_interval_of_the_mean_over_the_seeds_or_of_the_queries_of_one(gains, verdict):
    line = with_gains(*gains)
    assert line.verdict == verdict
    low, high = interval(gains) if len(gains) > 1 else (gains[0] - 0.01, gains[0] + 0.01)
    assert verdict == ("yes" if low > 0 else "no" if high < 0 else "undecided")


def test_a_method_that_failed_once_is_never_surely_compatible():
    rows = [*(row("bct", seed) for seed in range(2)), failed("bct", 2)]
    assert line_of(*rows[:2]).figures.gain.low > 0
    assert line_of(*rows).verdict == "undecided"
    assert line_of(failed("bct", 0)).verdict == "no"


def test_lines_are_ordered_by_gain_and_the_best_is_one_that_can_be_deployed():
    rows = [failed("mean", 0), *(row(method, 0) for method in ("l2", "bct", "random-walk", "independent"))]
    outcome = Outcome.of(results(rows))
    assert [line.method for line in outcome.lines] == ["bct", "random-walk", "l2", "independent", "mean"]
    assert outcome.best is outcome.lines[1]  # bct needs the old classifier


def test_a_sure_gain_is_better_than_a_larger_one_that_is_not():
    wild = [row("trained", s) | {"gain": gain} for s, gain in enumerate((0.0, 0.1, 0.2))]
    outcome = Outcome.of(results(wild + [row("l2", s) | {"gain": 0.02 + 0.001 * s} for s in range(3)]))
    assert [line.method for line in outcome.lines] == ["trained", "l2"]
    assert outcome.best.method == "l2"


def test_a_sweep_names_lines_by_what_varies():
    outcome = Outcome.of(sweep())
    assert outcome.varying == ["temperature", "damping"]
    assert outcome.name(outcome.lines[0]) == "random-walk (T 0.05, damping 0.9)"
    assert "normalized-mean" in map(outcome.name, outcome.lines)


# the update gain


def test_update_gain_needs_something_to_divide_by():
    def share(*rows):
        return line_of(*rows).figures.share

    assert share(*(row("random-walk", s) for s in range(3))).value == pytest.approx(0.53, abs=0.01)
    assert share(*(row("random-walk", s, full=OLD + 0.02) for s in range(3))) is None  # 2 points
    one = row("random-walk", 1)
    assert share(one).half == pytest.approx(0.015)
    one["intervals"]["update_gain"] = ["-Infinity", "Infinity"]
    assert share(one) is None
    unsure = [row("l2", s, full=OLD + full) for s, full in enumerate((0.01, 0.1, 0.3))]
    assert share(*unsure) is None  # the mean is 14 points, its interval holds zero
