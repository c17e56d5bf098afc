"""The page of a plan: what it recommends, every rung, nothing from the network, and nothing that runs."""

import copy
import json
import re
import subprocess
import sys

import pytest

from compatlearn.report.plan_page import BACK, Shown, write_plan_page

MAKE = """
import json, sys
import numpy as np
import compatlearn as cl

random = np.random.default_rng(0)
labels = random.integers(0, 6, 200)
new = np.eye(6)[labels] + 0.2 * random.normal(size=(200, 6))
old = new[:, :4] + 0.3 * random.normal(size=(200, 4))
items = np.array([f"item-{row}" for row in range(150)])
queries = np.array([f"query-<script>{row}" for row in range(50)])
judged = {queries[row]: {items[item]: 1 for item in range(150) if labels[item] == labels[150 + row]} for row in range(50)}
found = cl.plan(
    old_gallery=cl.Features(old[:150], ids=items),
    pairs_new=cl.Features(new[:45], ids=items[:45]),
    new_queries=cl.Features(new[150:], ids=queries),
    old_queries=cl.Features(old[150:], ids=queries),
    backfill=cl.Features(new[:150], ids=items),
    relevance=cl.Relevance.from_dict(judged),
    budget=0.6,
)
json.dump(found.to_dict(), sys.stdout)
"""


@pytest.fixture(scope="module")
def plan():
    """A real plan of 150 items and 50 queries with markup in their ids, through JSON as a reader of its file gets it."""
    return json.loads(subprocess.run([sys.executable, "-c", MAKE], check=True, capture_output=True, text=True).stdout)


@pytest.fixture
def write(tmp_path):
    def written(plan, **given):
        path = tmp_path / "plan.html"
        write_plan_page(path, plan, **given)
        assert [each.name for each in tmp_path.iterdir()] == ["plan.html"]
        return path.read_text(encoding="utf-8")

    return written


def body(html):
    return re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)


def test_the_page_has_the_recommendation_and_every_rung_with_its_figures(plan, write):
    html = write(plan, command="compatlearn plan --out x")
    assert f"Recommended: {plan['recommended']}" in html
    assert "compatlearn plan --out x" in html
    assert BACK in html
    for rung in plan["rungs"]:
        row = next(part for part in html.split("<tr") if f'class="label">{rung["name"]}<' in part)
        if rung["reason"]:
            assert rung["name"] in ("old+head", "backfill+head")  # without labels
            continue
        assert f"{100 * rung['figures'][plan['primary']]['value']:.1f}<small>[" in row
        assert f"<td>{rung['cost']['encoder_items']:,}</td>" in row
    for order in plan["partial_curve"]:
        assert f'class="label">{order}</th>' in html
    assert html.count("<svg ") == html.count('role="img" aria-label="') == 3
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", html.replace("xlink:href", "href"))
    assert "Warning" not in body(html)


def test_the_page_shows_commands_and_the_way_back_where_the_plan_has_them(plan, write):
    html = write(plan | {"next": ["compatlearn translate --out a", "compatlearn serve"], "back": "Drop <the> column."})
    assert "compatlearn translate --out a\ncompatlearn serve" in html
    assert "Drop &lt;the&gt; column." in html
    assert BACK not in html


def test_ids_and_texts_are_escaped_and_only_data_addresses_become_pictures(plan, write):
    examples = [
        {"query": "q<script>1", "change": "gained", "before": [1, "x<script>"], "after": [2, 3]},
        {"query": "lost", "change": "lost", "before": [2], "after": [1]},
    ]
    texts = {"1": "shoes </style><script>alert(1)</script>", "lost": "an item of the same name as a query"}
    html = write(
        plan | {"examples": examples, "notes": ["<script>"]},
        queries=Shown({"lost": "z" * 500}),
        items=Shown(texts, {"2": "data:image/png;base64,AAAA", "3": "https://example.org/spy.png"}),
        command="<script>",
    )
    assert "<script" not in html
    assert "q&lt;script&gt;1" in html
    assert "shoes &lt;/style&gt;&lt;script&gt;" in html
    assert html.count('<img src="data:image/png;base64,AAAA" alt="2">') == 2
    assert "example.org" not in html
    assert "of the same name" not in html
    assert "z" * 159 + "…" in html
    assert "z" * 160 not in html


def test_examples_of_a_real_plan_stand_on_the_page_by_their_ids(plan, write):
    assert plan["examples"], "the sample should gain or lose a query"
    html = write(plan)
    assert "<script" not in html
    for example in plan["examples"]:
        assert str(example["query"]).replace("<", "&lt;").replace(">", "&gt;") in html


@pytest.mark.parametrize(("far", "warned"), [(0.1, False), (0.11, True), (None, False)])
def test_many_far_queries_give_a_warning(plan, write, far, warned):
    html = write(plan | {"far_queries": far})
    assert ("Warning: 11 % of the queries are far from all pairs." in html) == warned
    assert ("Far queries" in html) == (far is not None)


def test_parts_that_are_missing_are_left_out(plan, write):
    rungs = copy.deepcopy(plan["rungs"])
    for rung in rungs:
        rung |= {"gain": None, "update_gain": None, "negative_flips": None}
        if rung["name"] in ("cascade", "old"):
            rung |= {"figures": {}, "reason": "needs <more>"}
    html = write({"rungs": rungs, "recommended": "old", "why": "no gain can be shown", "primary": plan["primary"]})
    assert "Keep the old model for now" in html
    assert "No gain can be shown." in html
    assert html.count("not measured: needs &lt;more&gt;") == 2
    assert html.count("<svg ") == 1
    assert "Example queries" not in html
    nothing = [rung | {"figures": {}, "reason": "no queries"} for rung in rungs]
    assert "<svg " not in write({"rungs": nothing, "recommended": "old"})


def test_a_gain_without_bounds_and_a_curve_without_a_bend_are_shown(plan, write):
    rungs = copy.deepcopy(plan["rungs"])
    next(rung for rung in rungs if rung["name"] == "mapped")["gain"] = {"value": 0.1, "low": "-Infinity", "high": "Infinity"}
    html = write(plan | {"rungs": rungs, "learning_curve": plan["learning_curve"] | {"bend": None}})
    assert "[−∞, +∞]" in html or "[-inf, +inf]" in html or "[−inf, +inf]" in html
    assert "more pairs may help" in html
    assert "hardly help" not in html
