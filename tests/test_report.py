"""What the terminal and the sentences say: one order, one rule, every number as it was measured."""

import re

import numpy as np
import pytest
from scipy.stats import t as student

from compatlearn.cli.app import app
from compatlearn.evaluation.compatibility import compatibility
from compatlearn.evaluation.result import TESTS
from compatlearn.features.features import Features
from compatlearn.report.advice import Files, advice, seeds_needed
from compatlearn.report.columns import columns
from compatlearn.report.outcome import Outcome
from compatlearn.report.sentences import details, headline, rule
from compatlearn.report.summary import Estimate
from compatlearn.report.tables import table
from report_samples import MADE, METHODS, OLD, comparison, failed, printed, results, row, sweep, with_heads

FILES = Files("seed-0/old-train", "seed-0/independent/train", "seed-0/old-val", "seed-0/x/val", None)


def seeds(method, *, count=3, **more):
    return [row(method, seed, **more) for seed in range(count)]


def outcome_of(*rows, **more):
    return Outcome.of(results(list(rows), **more))


# the terminal


def test_table_has_every_method_and_its_figures_in_100_columns():
    text = printed(table(comparison()))
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    lines = {method: re.search(rf"^\s*{method} .*$", text, re.MULTILINE) for method in METHODS}
    assert all(lines.values())
    half = 100 * 0.008 * student.ppf(0.975, 2) / 3**0.5
    line = lines["random-walk"][0]
    assert f"51.9 ± {half:.1f}" in line
    assert line.split()[1:4] == ["yes", "+9.6", "±"]  # the verdict, then what it rests on
    assert f"+9.6 ± {1.5 * half:.1f}" in line
    assert " 71.9 " in line  # top-5
    assert " 0.53 " in line


def test_rows_are_in_the_order_of_the_result_and_the_best_is_bold():
    rendered = table(comparison())
    order = [str(cell) for cell in rendered.columns[0]._cells]
    assert order == ["bct", "random-walk", "normalized-mean", "trained", "mean", "l2", "independent"]
    assert [line.style for line in rendered.rows] == [None, "bold", None, None, None, None, None]
    nobody = table(results([*seeds("l2"), *seeds("independent")]))
    assert [line.style for line in nobody.rows] == ["bold", None]  # also where no line is compatible


def test_table_shows_how_seeds_that_differ_from_the_verdict_voted():
    text = printed(table(comparison()))
    assert re.search(r"^mean +undecided ", text, re.MULTILINE)
    assert "2/3 yes" in text
    assert "1/3 diverged" in text
    assert "3/3 yes" not in text
    alone = printed(table(results([failed("mean", 0)])))
    assert "diverged" in alone
    assert re.search(r"^mean +no ", alone, re.MULTILINE)


def test_table_of_one_seed_says_where_the_interval_comes_from():
    text = printed(table(results([row(method, 1) for method in METHODS])))
    assert "51.9 ± 1.2" in text
    assert "bootstrap" in text
    assert "/3" not in text


def test_table_of_a_sweep_has_the_columns_that_vary():
    text = printed(table(sweep()))
    assert max(map(len, text.splitlines())) <= 100
    assert "damping" in text
    assert "label noise" not in text
    assert len(re.findall(r"^\s*random-walk ", text, re.MULTILINE)) == 9
    line = next(line for line in text.splitlines() if line.lstrip().startswith("normalized-mean"))
    assert line.split()[1:3] == ["—", "—"]  # it has neither temperature nor damping


def test_a_map_with_labels_is_never_shown_without_what_the_labels_give():
    rows = [with_heads(row("neighbour-head", 0, cross=0.55)), row("independent", 0)]
    said = " ".join(printed(table(results(rows))).split())
    sentence = (
        "neighbour-head is fitted with labels. Through a head fitted with the same labels, old queries alone reach 45.0 % "
        "and a full backfill 65.0 %; against that backfill its update gain is 0.52."
    )
    assert sentence in said
    assert sentence in details(Outcome.of(results(rows)))
    headings = [column.heading for column in columns(Outcome.of(results(rows)))]
    assert headings[-3:] == ["old self\n+ head", "backfill\n+ head", "update gain\nagainst that"]
    assert not [column for column in columns(Outcome.of(comparison())) if "head" in column.heading]


def test_update_gain_is_left_out_with_a_reason():
    nothing = printed(table(results([line for m in ("l2", "random-walk") for line in seeds(m, full=OLD + 0.02)])))
    assert "update" not in nothing.splitlines()[2]
    assert "No update gain where a full backfill gains less than 5 points" in nothing
    far = printed(table(results([*seeds("random-walk"), *seeds("independent")])))
    assert re.search(r"^independent .* < −1 ", far, re.MULTILINE)
    assert "No update gain" not in far


def test_verdict_table_has_every_interval():
    random = np.random.default_rng(0)
    labels = np.arange(60) % 3
    centres = np.eye(3, 8)[labels].astype(np.float32)
    old, new = (Features(centres + s * random.normal(size=(60, 8)).astype(np.float32), labels) for s in (0.8, 0.2))
    result = compatibility(old_query=old, old_gallery=old, new_query=new, independent=new)
    text = printed(result)
    figure = result.cross.top1
    assert f"{100 * figure.value:.1f} [{100 * figure.low:.1f}, {100 * figure.high:.1f}]" in text
    assert f"compatible: {result.compatible}" in text
    for word in (*TESTS.values(), "update gain", "negative flips"):
        assert word in text


# sentences


def test_the_verdict_in_words():
    outcome = Outcome.of(comparison())
    assert headline(outcome) == "Yes: random-walk, normalized-mean and trained are compatible."  # bct cannot be deployed
    assert "the whole 95 % interval of the mean gain over 3 seeds is above zero" in rule(outcome)
    said = " ".join(details(outcome))
    assert "Best: random-walk" in said  # bct is better and cannot be deployed
    assert "bct, at 52.6 ± 2.0 %, needs the old model's own classifier" in said
    assert "would reach 60.4 ± 2.0 % (+18.1 points)" in said
    assert "random-walk gives 0.53 of that" in said
    assert "mean diverged in 1 of 3 seeds" in said


def test_a_sweep_is_counted_where_it_cannot_be_listed():
    outcome = Outcome.of(sweep())
    assert headline(outcome) == "Yes: 10 of 10 settings are compatible."
    assert details(outcome)[0].startswith("Best: random-walk (T 0.05, damping 0.9).")


def test_the_headline_is_the_verdict_of_the_best_line():
    nobody = outcome_of(*seeds("l2", cross=0.35), *seeds("independent"))
    assert headline(nobody).startswith("No: new queries find less in the old gallery")
    assert details(nobody)[0].startswith("Nearest: l2")
    unsure = outcome_of(*seeds("l2", cross=OLD + 0.01), *seeds("mean", cross=0.3))
    assert (unsure.verdict, headline(unsure).split(":")[0]) == ("undecided", "Undecided")
    nothing = outcome_of(failed("mean", 0))
    assert headline(nothing) == "No: not one training run finished."
    assert details(nothing) == ["mean diverged in 1 of 1 seed."]
    assert "the whole 95 % interval of the gain is above zero" in rule(nothing)
    assert headline(outcome_of()) == "No: not one training run finished."


def test_seeds_that_agree_and_a_mean_that_is_not_sure_are_explained():
    rows = seeds("trained")
    for one, gain in zip(rows, (0.02, 0.05, 0.10), strict=True):
        one["gain"] = gain
    assert any("trained is undecided although each seed on its own says yes" in text for text in details(outcome_of(*rows)))


# what to do next


def parses(command):
    """The command line accepts it."""
    words = command.split()
    assert words[0] == "compatlearn"
    app.parse_args(words[1:], exit_on_error=False, print_error=False)


def test_a_compatible_model_is_deployed_behind_a_gate():
    given = advice(Outcome.of(comparison()), FILES)
    assert given.text.startswith("Upgrade with random-walk: embed queries with its model, cut them to the old dimension")
    (gate,) = given.commands
    assert gate == (
        "compatlearn evaluate --require-compatible --old-query seed-0/old-val --old-gallery seed-0/old-val "
        "--new-query seed-0/x/val"
    )
    parses(gate)


def test_an_adapter_is_fitted_and_then_gated():
    fit, gate = advice(outcome_of(*seeds("rbt", cross=0.55))).commands
    assert fit.startswith("compatlearn adapt --method rbt --old-features OLD-TRAINING --new-features NEW-TRAINING")
    assert gate.endswith("--new-query NEW --adapter adapter.safetensors")
    parses(fit)
    parses(gate)


def test_an_undecided_one_is_measured_with_more_seeds_if_they_can_decide_it():
    given = advice(outcome_of(*seeds("l2", cross=OLD + 0.02)))
    assert "Do not switch yet: l2 gains +2.0 ± 3.0 points." in given.text
    assert given.commands == ("compatlearn compare --out runs/x --methods paper --seeds 5",)
    parses(given.commands[0])
    hopeless = advice(outcome_of(*seeds("l2", cross=OLD)))
    assert "even 20 seeds" in hopeless.text
    assert hopeless.commands == ()
    alone = advice(outcome_of(row("l2", 1, cross=OLD + 0.005), made=MADE | {"command": "compatlearn demo --seeds=1"}))
    assert alone.commands == ("compatlearn demo --seeds 3",)
    unknown = advice(outcome_of(row("l2", 1, cross=OLD + 0.005), made={}))
    assert unknown.commands == ()
    assert "diverged in 1 of 3 seeds" in advice(outcome_of(*seeds("bct", count=2), failed("bct", 2))).text


def test_seeds_needed_are_those_that_put_the_interval_on_one_side():
    gain = Estimate(0.02, 0.02 - 0.06, 0.02 + 0.06, 3)
    spread = 0.06 * 3**0.5 / student.ppf(0.975, 2)
    wanted = seeds_needed(gain)
    halves = {count: student.ppf(0.975, count - 1) * spread / count**0.5 for count in (wanted - 1, wanted)}
    assert halves[wanted] < 0.02 <= halves[wanted - 1]
    assert seeds_needed(Estimate(0.0, -0.03, 0.03, 3)) is None
    assert seeds_needed(Estimate(0.02)) is None


def test_where_nothing_is_compatible_the_old_model_stays():
    maps = advice(outcome_of(*seeds("l2", cross=0.35)))
    assert "Keep the old model for queries" in maps.text
    assert maps.commands == ("compatlearn compare --out runs/x --seeds 3 --methods l2,auto",)
    parses(maps.commands[0])
    backfill = advice(outcome_of(*seeds("l2", cross=0.35), *seeds("ridge", cross=0.3)))
    assert "or plan a backfill: re-embedding the gallery would give +18.1 points" in backfill.text
    nothing = advice(outcome_of(*seeds("ridge", cross=0.3, full=0.4)))
    assert nothing.text == "Keep the old model: the new one is no better even in a gallery of its own."
    assert "smaller learning rate" in advice(outcome_of(failed("mean", 0))).text


@pytest.mark.parametrize("command", ["compatlearn demo", "compatlearn demo --out runs/d"])
def test_a_demo_is_repeated_with_other_methods_as_the_comparison_that_it_is(command):
    (again,) = advice(outcome_of(*seeds("l2", cross=0.35), made=MADE | {"command": command})).commands
    out = "runs/d" if "--out" in command else "runs/demo"
    assert again == f"compatlearn compare --recipe digits --out {out} --methods l2,auto"
    parses(again)
