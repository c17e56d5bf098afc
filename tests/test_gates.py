"""Gates: which figures meet their limits, in which groups, how often they fail by chance, and what is reported."""

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree as xml

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_1samp

from compatlearn.adapters.adapter import fit_adapter, save_adapter
from compatlearn.cli import gates as flags
from compatlearn.cli.out import REPORTS
from compatlearn.errors import ConfigError, DataError, IncompatibleError
from compatlearn.evaluation import gates as module
from compatlearn.evaluation.compatibility import compatibility
from compatlearn.evaluation.figures import Figure, bootstrap
from compatlearn.evaluation.gates import Check, Checks, Gate, check_gates
from compatlearn.evaluation.outcome import Outcome, PerQuery
from compatlearn.evaluation.tails import difference, ratio, share
from compatlearn.features.features import Features
from compatlearn.report.gates import failed_lines, figure_of
from compatlearn.report.junit import write_junit
from compatlearn.report.markdown import escaped, write_markdown
from samples import call, complaint

# two systems of which it is known what each query finds


def answers(right, ids=None, space=""):
    """Queries among two classes; those that are right lie at the corner of their class, the others at the other one."""
    labels = np.arange(len(right)) % 2
    corners = np.where(right, labels, 1 - labels)
    return Features(
        np.eye(2, dtype=np.float32)[corners], labels, ids if ids is not None else np.arange(len(right)), space=space
    )


def verdict(before, after, **options):
    gallery = Features(np.eye(2, dtype=np.float32), [0, 1], [10**6, 10**6 + 1])
    return compatibility(old_query=answers(before), old_gallery=gallery, new_query=answers(after), **options)


def states(checks):
    return {(check.gate.name, check.group): check.state for check in checks.checks}


@pytest.fixture(scope="module")
def flipped():
    """400 queries in four groups; all were right; 0, 1, 4 and 30 of a hundred are wrong now; and a group of four."""
    before, after = np.ones(404, bool), np.ones(404, bool)
    for start, count in ((100, 1), (200, 4), (300, 30)):
        after[start : start + count] = False
    return verdict(before, after), np.array([*np.repeat(["none", "one", "four", "thirty"], 100), *["few"] * 4])


# intervals


@pytest.mark.parametrize(("hits", "count"), [(0, 30), (1, 50), (7, 90), (30, 30), (1, 1)])
@pytest.mark.parametrize("tail", [0.025, 0.0005])
def test_shares_of_right_and_wrong_have_the_exact_interval(hits: int, count: int, tail: float) -> None:
    figure = share(np.arange(count) < hits, tail)
    exact = binomtest(hits, count).proportion_ci(1 - 2 * tail, method="exact")
    assert (figure.value, figure.low, figure.high) == pytest.approx((hits / count, exact.low, exact.high))


def test_differences_have_students_interval() -> None:
    values = np.random.default_rng(0).normal(size=40)
    exact = ttest_1samp(values, 0).confidence_interval(0.95)
    figure = difference(values, 0.025)
    assert (figure.low, figure.high) == pytest.approx((exact.low, exact.high))
    assert difference(values[:1], 0.025) == Figure(values[0], -np.inf, np.inf)


@pytest.mark.parametrize("mean", [0.03, 0.5, 0.9])
def test_the_true_mean_of_scores_is_rarely_outside(mean: float) -> None:
    random = np.random.default_rng(1)
    outside = [0, 0]
    for _ in range(1000):
        scores = random.beta(2 * mean, 2 * (1 - mean), 40)  # as nDCG is: many near 0 and 1, some between
        figure = share(scores, 0.025)
        outside[0] += mean < figure.low
        outside[1] += mean > figure.high
    assert max(outside) <= 40  # 25 are allowed, and 15 are three standard deviations
    assert share(np.full(30, 0.6), 0.025).high > 0.61  # scores that are all alike do not make it sure


def test_the_ratio_agrees_with_the_bootstrap() -> None:
    random = np.random.default_rng(0)
    possible = random.normal(0.3, 0.5, 2000)
    gained = 0.6 * possible + random.normal(0, 0.3, 2000)
    figure = ratio(gained, possible, 0.025)
    drawn = bootstrap(lambda means: means[:, 0] / means[:, 1], np.stack([gained, possible], axis=1))
    assert (figure.value, figure.low, figure.high) == pytest.approx((drawn.value, drawn.low, drawn.high), abs=0.01)
    assert ratio(gained, possible - 0.3, 0.025).low == -np.inf  # perhaps there is nothing to gain
    nothing = np.zeros(50)
    assert ratio(nothing, nothing, 0.025) == Figure(0.0, -np.inf, np.inf)


# which gates are met


def test_over_all_queries_the_figure_decides(flipped) -> None:
    result, _ = flipped  # 35 of 404: 8.7 %
    assert result.negative_flips.value == 35 / 404
    for limit, met, strictly in ((0.08, False, False), (35 / 404, True, False), (0.09, True, False), (0.13, True, True)):
        [check] = check_gates(result, [Gate("negative_flips", limit)]).checks
        assert (check.met, check.state) == (met, "met" if met else "not met")
        assert check_gates(result, [Gate("negative_flips", limit)], strict=True).met is strictly
    top1 = result.cross.top1.value
    assert top1 == 369 / 404
    assert [check_gates(result, [Gate("top1", limit)]).met for limit in (top1, top1 + 1e-9)] == [True, False]


def test_the_interval_is_never_narrower_than_the_exact_one() -> None:
    result = verdict(np.ones(40, bool), np.ones(40, bool))
    assert (result.negative_flips.low, result.negative_flips.high) == (0, 0)
    gate = Gate("negative_flips", 0.01)
    [check] = check_gates(result, [gate], strict=True).checks
    assert not check.met  # none of 40 flips: it may still be one in 20
    assert check.figure.high == pytest.approx(binomtest(0, 40).proportion_ci(method="exact").high)
    assert check_gates(result, [gate]).met


def test_a_group_fails_only_if_its_whole_interval_is_beyond(flipped) -> None:
    result, groups = flipped
    checks = check_gates(result, [Gate("negative_flips", 0.1)], groups)
    assert [(check.group, check.queries, check.state) for check in checks.checks] == [
        (None, 404, "met"),
        ("thirty", 100, "not met"),
        ("four", 100, "met"),
        ("one", 100, "met"),
        ("none", 100, "met"),
        ("few", 4, "too few queries"),
    ]
    assert not checks.met
    at_three = states(check_gates(result, [Gate("negative_flips", 0.03)], groups))
    assert at_three["max-negative-flips", "four"] == "undecided"
    checks = check_gates(result, [Gate("negative_flips", 0.03)], groups, strict=True)
    assert [check.group for check in checks.failed] == [None, "thirty", "four", "one", "none"]  # worst first
    assert states(checks)["max-negative-flips", "few"] == "too few queries"
    assert check_gates(result, [Gate("negative_flips", 0.4)], groups, fewest=4).checks[-1].state == "met"


def test_the_more_checks_the_wider_the_intervals_of_groups(flipped) -> None:
    result, groups = flipped
    gates = [Gate("negative_flips", 0.1), Gate("top1", 0.5)]
    assert check_gates(result, gates).tail is None
    assert check_gates(result, gates, groups).tail == pytest.approx(0.025 / 8)  # two gates, four groups that are large enough
    assert check_gates(result, gates, groups, strict=True).tail == pytest.approx(0.025)  # all must meet it: none is chosen


def test_compatible_is_the_verdict_and_no_group_that_is_surely_worse() -> None:
    random = np.random.default_rng(0)
    before, after = random.random(600) < 0.5, random.random(600) < 0.8
    groups = np.repeat(["a", "b", "c"], 200)
    after[400:] = before[400:] & (random.random(200) < 0.5)  # c has lost half of its right answers
    after[200:400] = before[200:400]  # b is as it was
    result = verdict(before, after)
    checks = check_gates(result, [Gate("compatible")], groups)
    found = states(checks)
    assert found["require-compatible", None] == ("met" if result.compatible == "yes" else "not met")
    assert (found["require-compatible", "a"], found["require-compatible", "c"]) == ("met", "not met")
    assert found["require-compatible", "b"] == "met"  # nothing gained and nothing lost
    strict = states(check_gates(result, [Gate("compatible")], groups, strict=True))
    assert [strict["require-compatible", group] for group in "abc"] == ["met", "not met", "not met"]


def test_an_update_gain_of_nothing_to_gain_is_none() -> None:
    random = np.random.default_rng(0)
    before = random.random(400) < 0.5
    gallery = Features(np.eye(2, dtype=np.float32), [0, 1], [900, 901])
    given = {"old_query": answers(before), "old_gallery": gallery, "independent_gallery": gallery}
    for full, after, met in ((0.9, 0.9, True), (0.9, 0.55, False), (0.5, 0.9, False)):
        queries = {"new_query": answers(random.random(400) < after), "independent": answers(random.random(400) < full)}
        checks = check_gates(compatibility(**given, **queries), [Gate("update_gain", 0.5)], np.arange(400) % 2)
        assert checks.checks[0].met is met
        if full == 0.5:
            assert "a full backfill is not surely better than the old queries" in failed_lines(checks)[0]
            assert [check.met for check in checks.checks] == [False, True, True]  # of a group that proves nothing
            assert json.loads(json.dumps(checks.to_dict()))["checks"][0]["low"] == "-Infinity"


# how often they fail by chance


def simulated(runs: int, draw, gates, groups, **options) -> tuple[float, float]:
    """Share of the runs in which a group fails, and in which one would if its figure alone decided.

    Args:
        draw: random numbers → what each query scores before and after.
    """
    random = np.random.default_rng(0)
    some = verdict(np.arange(len(groups)) % 3 > 0, np.arange(len(groups)) % 4 > 0)
    failed = alone = 0
    for _ in range(runs):
        scores = {test: np.asarray(one, dtype=float) for test, one in zip(("old_self", "cross"), draw(random), strict=True)}
        outcomes = {test: Outcome({"top1": one, "ndcg10": one}, one == 1) for test, one in scores.items()}
        checks = check_gates(replace(some, per_query=PerQuery(outcomes, None)), gates, groups, **options).checks
        parts = [check for check in checks if check.group is not None]
        failed += any(not check.met for check in parts)
        alone += any(check.beyond > 0 for check in parts)
    return failed / runs, alone / runs


GROUPS = np.repeat(np.arange(20), 50)


def flips_at_the_limit(random):  # 20 groups of 50 queries, and every group truly has the 2 % flips that are allowed
    return np.ones(1000), random.random(1000) >= 0.02


def no_difference(random):  # both systems are right on 60 %, on other queries
    return random.random(1000) < 0.6, random.random(1000) < 0.6


def ndcg_at_the_limit(random):
    return np.zeros(1000), random.beta(0.8, 1.2, 1000)  # its mean is 0.4


@pytest.mark.parametrize(
    ("draw", "gate"),
    [
        (flips_at_the_limit, Gate("negative_flips", 0.02)),
        (no_difference, Gate("compatible")),
        (ndcg_at_the_limit, Gate("ndcg10", 0.4)),
    ],
)
def test_a_group_fails_by_chance_in_one_of_forty_runs_at_most(draw, gate: Gate) -> None:
    failed, alone = simulated(150, draw, [gate], GROUPS)
    assert failed <= 0.025 + 3 * np.sqrt(0.025 * 0.975 / 150)
    assert alone > 0.99  # were the figure to decide, some group would fail in nearly every run


def test_a_group_that_is_truly_worse_fails() -> None:
    def one_is_worse(random):
        return np.ones(1000), random.random(1000) >= np.where(GROUPS == 7, 0.3, 0.02)

    failed, _ = simulated(50, one_is_worse, [Gate("negative_flips", 0.02)], GROUPS)
    assert failed > 0.95


def test_over_all_queries_the_chance_of_a_false_failure_is_a_matter_of_the_margin() -> None:
    random, failures = np.random.default_rng(0), []
    for margin in (0.0, 0.5, 1.0, 1.5):  # in half intervals, from the true share to the limit
        half = 1.96 * np.sqrt(0.02 * 0.98 / 1000)
        failures.append((random.binomial(1000, 0.02, 4000) / 1000 > 0.02 + margin * half).mean())
    assert failures == pytest.approx([0.44, 0.17, 0.034, 0.003], abs=0.02)  # the table of docs/gates.md


# refusals of the library


def test_refusals(flipped) -> None:
    result, groups = flipped
    gate = Gate("negative_flips", 0.1)
    with pytest.raises(ConfigError, match="unknown figure 'flips'"):
        Gate("flips", 0.1)
    for figure, limit in (("top1", 1.5), ("negative_flips", -0.1), ("update_gain", np.inf), ("compatible", 0.1)):
        with pytest.raises(ConfigError, match="limit"):
            Gate(figure, limit)
    with pytest.raises(ConfigError, match="there is no gate"):
        check_gates(result, [])
    with pytest.raises(IncompatibleError, match="one for each of 404 queries; got 3"):
        check_gates(result, [gate], ["a", "b", "c"])
    with pytest.raises(DataError, match=r"none of 5 groups has 101 queries \(largest: four, 100\)"):
        check_gates(result, [gate], groups, fewest=101)
    with pytest.raises(ConfigError, match="an update gain needs what a full backfill scores"):
        check_gates(result, [Gate("update_gain", 0.5)])
    with pytest.raises(DataError, match="does not have the scores of single queries"):
        check_gates(replace(result, per_query=None), [gate])
    drawn = verdict(np.ones(40, bool), np.ones(40, bool), cluster="class")
    with pytest.raises(ConfigError, match="figures of groups draw queries"):
        check_gates(drawn, [gate], np.arange(40) % 2, fewest=5)


def test_without_truth_only_agreement_can_be_gated() -> None:
    bare = SimpleNamespace(vectors=np.random.default_rng(0).normal(size=(50, 4)), labels=None, ids=np.arange(50), space="")
    result = compatibility(old_query=bare, old_gallery=bare, new_query=bare)
    with pytest.raises(ConfigError, match="there is no nDCG@10 by agreement@10; give labels or judgements"):
        check_gates(result, [Gate("ndcg10", 0.5)])
    assert check_gates(result, [Gate("agreement", 0.9), Gate("negative_flips", 0.01)]).met


# reports


def checks_of(*states: tuple[str | None, float, bool | None], gate: Gate = Gate("negative_flips", 0.01)) -> Checks:  # noqa: B008
    rows = [Check(gate, group, 40, Figure(value, value / 2, value * 2), met) for group, value, met in states]
    return Checks(tuple(rows), False, 30, 0.001)


def test_one_line_for_each_gate_and_its_groups_by_name() -> None:
    both = checks_of((None, 0.02, False), ("a\nb", 0.2, False), ("c", 0.1, False), ("d", 0.0, True), ("e", 0.5, None))
    assert failed_lines(both) == [
        "--max-negative-flips 1% is not met: negative flips 2.0% [1.0%, 4.0%] of 40 queries, asked: at most 1%; "
        "2 of 3 groups, worst first: 'a\\nb' 20.0% [10.0%, 40.0%] of 40 queries, 'c' 10.0% [5.0%, 20.0%] of 40 queries"
    ]
    many = checks_of((None, 0.0, True), *((f"g{number}", 0.3, False) for number in range(15)))
    assert failed_lines(many)[0].endswith("'g9' 30.0% [15.0%, 60.0%] of 40 queries, 5 more")
    assert figure_of(checks_of((None, 0.0104, False)).checks[0]) == "1.040% [0.520%, 2.080%]"  # 1.0% would puzzle
    assert failed_lines(checks_of((None, 0.0, True))) == []


def test_junit_survives_any_name(tmp_path: Path) -> None:
    name = 'a <b> & "c"\x00\x1b \ud800 ü 東'
    write_junit(tmp_path / "g.xml", checks_of((None, 0.0, True), (name, 0.2, False), ("small", 0.5, None)))
    raw = (tmp_path / "g.xml").read_bytes()
    suites = xml.fromstring(raw)
    [suite] = suites
    assert (suites.tag, suites.attrib, suite.tag) == ("testsuites", {}, "testsuite")
    assert {key: suite.get(key) for key in ("tests", "failures", "errors", "skipped")} == {
        **{"tests": "3", "failures": "1", "errors": "0", "skipped": "1"},
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.get("timestamp"))
    assert [child.tag for child in suite] == ["properties", *["testcase"] * 3, "system-out", "system-err"]  # in this order
    whole, bad, small = suite.iter("testcase")
    assert {key: whole.get(key) for key in ("classname", "name", "time")} == {
        **{"classname": "compatlearn.max-negative-flips", "name": "all queries", "time": "0"},
    }
    assert (len(whole), small[0].tag) == (0, "skipped")
    assert bad.get("name") == 'group a <b> & "c"\ufffd\ufffd \ufffd ü 東'
    assert (bad[0].tag, bad[0].get("type")) == ("failure", "max-negative-flips")
    assert "negative flips 20.0% [10.0%, 40.0%] of 40 queries, asked: at most 1%" in bad[0].get("message")
    assert REPORTS["--junit"] in raw[:1000]


def test_markdown_survives_any_name(tmp_path: Path, flipped) -> None:
    name = "a|b\n# <script>`x` [y](z) @all"
    assert escaped(name) == r"a\|b \# &lt;script&gt;\`x\` \[y\]\(z\) &\#64;all"
    checks = checks_of((None, 0.0, True), (name, 0.2, False), ("u", 0.02, True), *((f"g{n}", 0.0, True) for n in range(300)))
    write_markdown(tmp_path / "m.md", flipped[0], checks)
    text = (tmp_path / "m.md").read_text()
    assert REPORTS["--markdown"] in text.encode()[:1000]
    assert "<script>" not in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in tables} == {6, 7, 8}  # columns of its three kinds of table
    assert "**Not all gates are met.**" in text
    assert "❔ undecided" in text
    assert "… and 101 more" in text
    write_markdown(tmp_path / "m.md", flipped[0], None)
    assert "gate" not in (tmp_path / "m.md").read_text()


# the command


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """200 queries; the new model is right on more of them, but wrong on half of the 40 Danish ones."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    before, after = random.random(200) < 0.6, random.random(200) < 0.97
    before[:40], after[:40] = True, np.arange(40) % 2 == 0
    ids = [f"q{row}" for row in range(200)]
    answers(before, ids, "old").save("old")
    answers(after, ids, "new").save("new")
    Features(np.eye(2, dtype=np.float32), ["cat", "dog"], ["a", "b"], space="old").save("gallery")
    for name in ("old", "new"):
        features = Features.load(name)
        named = np.array(["cat", "dog"])[features.labels]
        Features(np.asarray(features.vectors), named, features.ids, space=name).save(f"{name}-queries")
    languages = ["da", "de", "en", "es", "fi"]
    rows = (f"q{row},{languages[row // 40]}\n" for row in range(200))
    Path("groups.csv").write_text("query_id,group\n" + "".join(rows))
    save_adapter(fit_adapter("ridge", *[np.eye(2, dtype=np.float32)[np.arange(20) % 2]] * 2), Path("map.safetensors"))
    return "evaluate", "--old-query", "old-queries", "--old-gallery", "gallery", "--new-query", "new-queries"


def test_gates_by_group(capsys: pytest.CaptureFixture[str], files: tuple[str, ...]) -> None:
    reports = ("--junit", "reports/gates.xml", "--markdown", "gates.md")
    gates = ("--require-compatible", "--max-negative-flips", "15%", "--min-top1", "0.5", "--group", "groups.csv")
    code, out, err = call(capsys, *files, *gates, *reports, "--json")
    assert code == 3
    found = json.loads(out)["gates"]
    assert (found["met"], found["strict"], found["fewest"], len(found["checks"])) == (False, False, 30, 18)
    flips = [row for row in found["checks"] if row["gate"] == "max-negative-flips"]
    assert [(row["group"], row["met"], row["value"]) for row in flips[:2]] == [
        (None, True, flips[0]["value"]),
        ("da", False, 0.5),
    ]
    assert re.fullmatch(
        r"--require-compatible is not met: 1 of 5 groups, worst first: 'da' −50.0 \[−\d.*\] points of 40 queries\n"
        r"--max-negative-flips 15% is not met: 1 of 5 groups, worst first: 'da' 50.0% \[.*\] of 40 queries\n",
        err,
    )
    suite = xml.parse("reports/gates.xml").getroot()[0]
    failed = {(case.get("classname"), case.get("name")) for case in suite.iter("testcase") if case.find("failure") is not None}
    assert failed == {("compatlearn.require-compatible", "group da"), ("compatlearn.max-negative-flips", "group da")}
    assert "| `max-negative-flips` | da | 50.0% [" in Path("gates.md").read_text()
    code, out, err = call(capsys, *files, "--max-negative-flips", "0.6", *reports)  # over their own reports
    assert (code, err) == (0, "")
    assert "gates: met" in out
    assert xml.parse("reports/gates.xml").getroot()[0].get("failures") == "0"
    assert sorted(path.name for path in Path().iterdir() if path.name.startswith(".")) == []


def test_gates_by_class(capsys: pytest.CaptureFixture[str], files: tuple[str, ...]) -> None:
    code, out, err = call(capsys, *files, "--min-top1", "99%", "--by", "class", "--strict", "--json")
    assert code == 3
    assert {row["group"] for row in json.loads(out)["gates"]["checks"]} == {None, "cat", "dog"}
    assert err.count("\n") == 1
    assert "2 of 2 groups, worst first: '" in err
    code, out, _ = call(capsys, *files, "--min-top1", "70%", "--by", "class")
    assert code == 0
    assert re.search(r"min-top1 +dog +100 .*at least 70%", out)


def test_judged_gates(capsys: pytest.CaptureFixture[str], files: tuple[str, ...]) -> None:
    message = complaint(capsys, 1, *files, "--min-ndcg", "0.45")
    assert message == "--min-ndcg needs judgements; give --qrels or --clicks, or gate classes by --min-top1"
    Path("test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(f"q{row}\t{'ab'[row % 2]}\t1\n" for row in range(200)))
    judged = (*files, "--qrels", "test.tsv", "--min-ndcg")
    assert call(capsys, *judged, "45%")[0] == 0
    code, _, err = call(capsys, *judged, "0.99", "--group", "groups.csv")
    assert code == 3
    assert re.match(r"--min-ndcg 99% is not met: nDCG@10 \d\d.\d% \[.*\] of 200 queries, asked: at least 99%; 1 of 5", err)


LIMITS = {
    "--max-negative-flips 1": "--max-negative-flips 1 would let every query turn wrong; for one percent write 1% or 0.01",
    "--max-negative-flips 100%": "--max-negative-flips 100% would let every query turn wrong; for one percent write 1% or 0.01",
    "--max-negative-flips 5": "--max-negative-flips 5 is no share from 0 to 1; write 5% or 0.05",
    "--max-negative-flips few": "--max-negative-flips few is no share; write one such as 45% or 0.45",
    "--max-negative-flips nan": "--max-negative-flips nan is no share; write one such as 45% or 0.45",
    "--min-top1 45": "--min-top1 45 is no share from 0 to 1; write 45% or 0.45",
    "--min-top1 450%": "--min-top1 450% is no share from 0 to 1; write 1% or 0.01",
    "--min-top1=-1": "--min-top1 -1 is no share from 0 to 1; write 1% or 0.01",
    "--min-update-gain 0.5": "--min-update-gain needs what a full backfill scores; give --independent, or --adapter and "
    "--new-gallery",
    "--min-update-gain 0.5 --adapter map.safetensors": "an update gain needs what a full backfill scores; "
    "give --independent, or an adapter and --new-gallery",
    "--group groups.csv": "--group is about gates, and none is given; add one, such as --max-negative-flips 1%",
    "--junit out.xml": "--junit is about gates, and none is given; add one, such as --max-negative-flips 1%",
    "--strict": "--strict is about gates, and none is given; add one, such as --max-negative-flips 1%",
    "--min-top1 0.4 --by class --group groups.csv": "--group and --by both say what the groups are; give one of them",
    "--min-top1 0.4 --by class --min-group-queries 0": "--min-group-queries is 1 or more; got 0",
    "--min-top1 0.4 --by class --cluster class": "--cluster class draws whole classes, and --by draws queries in each group; "
    "leave one out",
    "--min-top1 0.4 --by class --min-group-queries 150": "none of 2 groups has 150 queries (largest: cat, 100), so nothing "
    "would be gated; evaluate more queries, or gate smaller groups",
    "--min-top1 0.4 --junit gallery": "--junit gallery is the same as --old-gallery gallery, which would be destroyed; name "
    "another place",
    "--min-top1 0.4 --group groups.csv --markdown groups.csv": "--markdown groups.csv is the same as --group groups.csv, which "
    "would be destroyed; name another place",
    "--min-top1 0.4 --junit a.xml --markdown ./a.xml": "--junit a.xml and --markdown a.xml are one file; name two",
    "--min-top1 0.4 --junit groups.csv": "--junit groups.csv is there already and is no report of this kind (1505 bytes); "
    "name another file, or delete that one",
    "--min-top1 0.4 --markdown .": "--markdown . contains --old-query old-queries, which is read; name a place of its own",
}


@pytest.mark.parametrize("flags", LIMITS)
def test_wrong_turns(capsys: pytest.CaptureFixture[str], files: tuple[str, ...], flags: str) -> None:
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    assert complaint(capsys, 1, *files, *flags.split()) == LIMITS[flags]
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


TABLES = {
    "query_id,group\nq0,a\nq1,a\n": "198 of 200 queries of old-queries have no group in g.csv (first: 'q2', 'q3', 'q4', …); "
    "give each query a group",
    "query_id,group\nQ0,a\nQ1,a\n": "200 of 200 queries of old-queries have no group in g.csv (first: 'q0', 'q1', 'q2', …; "
    "g.csv has 'Q0', 'Q1'); give each query a group",
    "query_id,group\nq0,a\nq0,b\n": "g.csv puts query 'q0' into 'a' and 'b' (line 3); keep one of them",
    "query_id,language\nq0,a\n": "g.csv has no column 'group', only: 'query_id', 'language'",
    "query_id,group\nq0,\n": "1 of 1 rows of g.csv have no id in column 'group' (first: line 2); mend them",
    "query_id,group\n": "g.csv holds no row; write a query id and a group per row",
}


@pytest.mark.parametrize("table", TABLES)
def test_wrong_groups(capsys: pytest.CaptureFixture[str], files: tuple[str, ...], table: str) -> None:
    Path("g.csv").write_text(table)
    message = complaint(capsys, 1, *files, "--min-top1", "0.4", "--group", "g.csv", "--junit", "gates.xml")
    assert message.startswith(TABLES[table])
    assert not Path("gates.xml").exists()


def test_groups_of_other_queries_are_left_out(capsys: pytest.CaptureFixture[str], files: tuple[str, ...]) -> None:
    with Path("groups.csv").open("a") as file:
        file.write("other,da\nothers,da\n")
    code, _, err = call(capsys, *files, "--min-top1", "0.4", "--group", "groups.csv")
    assert (code, err) == (0, "2 queries of groups.csv are not in old-queries; they are left out\n")
    message = complaint(capsys, 1, *files, "--min-top1", "0.4", "--group", "none.csv")
    assert message == "there are no groups none.csv; check the path"


def test_a_limit_is_the_decimal_number_that_was_written() -> None:
    shares = {"0.7%": 0.007, "1%": 0.01, "0.01": 0.01, " 2.9 % ": 0.029, "0": 0.0, "1e-3": 0.001}
    for text, value in shares.items():
        assert flags.Gates(max_negative_flips=text).limits(False) == {"negative_flips": value}
    assert flags.Gates(min_update_gain="120%").limits(True) == {"compatible": 0.0, "update_gain": 1.2}
    assert flags.Gates().min_group_queries == module.FEWEST
