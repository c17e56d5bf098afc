"""The page: every method in it, every number as it was measured, nothing from the network, and a browser that agrees."""

import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from compatlearn.config import Recipe
from compatlearn.errors import DataError
from compatlearn.report.advice import ROLLBACK, Files
from compatlearn.report.page import write_html
from compatlearn.report.pictures import PictureRow, choose_pictures
from compatlearn.report.plots import Dot, axis_of, differences
from report_samples import MADE, METHODS, OLD, Page, comparison, failed, results, row, sweep


@pytest.fixture(scope="module")
def picture_rows():
    """120 queries of 4 classes, one of them named like markup; the new model is right more often."""
    random = np.random.default_rng(0)
    labels = np.arange(120) % 4
    names = ["<b>&", "golden retriever", "space shuttle", "teapot"]

    def indices(accuracy):
        found = random.integers(0, 120, (120, 5))
        hit = random.random(120) < accuracy
        found[hit, 0] = (labels[hit] + 4 * random.integers(0, 30, hit.sum())) % 120
        return found

    def picture(number):
        across, down = np.meshgrid(np.linspace(0, 1, 96), np.linspace(0, 1, 64))
        base = np.eye(4)[labels[number]][:3] * 120 + 60
        waves = 60 * np.sin(across * (3 + number % 7)) * np.cos(down * (2 + number % 5))
        return Image.fromarray((base + waves[..., None]).clip(0, 255).astype(np.uint8))

    return choose_pictures(indices(0.3), indices(0.6), labels, picture, classes=names)


@pytest.fixture(scope="module")
def page(picture_rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_html(comparison(), path, pictures=picture_rows)
    return path


def written(tmp_path, content, **more):
    write_html(content, tmp_path / "page.html", **more)
    return (tmp_path / "page.html").read_text(encoding="utf-8")


def body_rows(text):
    """Cells of the table's body, as text."""
    body = re.search(r"<tbody>(.*?)</tbody>", text, re.DOTALL)[1]
    return [
        (opening, [re.sub(r"<[^>]+>", "", cell).strip().split("\n")[0] for cell in re.split(r"</t[hd]>", cells)[:-1]])
        for opening, cells in re.findall(r"<tr([^>]*)>(.*?)</tr>", body, re.DOTALL)
    ]


def test_page_loads_nothing(page):
    text = page.read_text(encoding="utf-8")
    for tag, attributes in Page(text).tags:
        assert tag not in {"script", "link", "iframe", "object"}
        for name in ("src", "href", "xlink:href", "srcset", "action", "poster"):
            if (tag, name, attributes.get(name)) != ("a", "href", "results.json"):  # a link to go to, not a thing to load
                assert (attributes.get(name) or "data:").startswith(("data:", "#")), (tag, attributes)
    assert not re.search(r"@import|url\((?!#)", text)
    rest = text.replace('xmlns:xlink="http://www.w3.org/1999/xlink"', "").replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.search("https?://", rest)


def test_page_holds_every_method_and_figure(page):
    parsed = Page(page.read_text(encoding="utf-8"))
    text = " ".join(parsed.text)
    for method in METHODS:
        assert method in text
    assert "+9.6 ± 3.0" in text
    assert "resnet18" in text
    assert "2000, of which 3 have no relevant row" in text
    assert len(parsed.all("svg")) == 3
    assert all(each.get("aria-label") and each.get("role") == "img" for each in parsed.all("svg"))
    assert all(each["scope"] in {"row", "col"} for each in parsed.all("th"))
    assert "7 of 10 classes gain, 3 lose, 0 stay as they are" in text


def test_page_says_when_and_how_it_was_made_and_where_all_figures_are(page):
    parsed = Page(page.read_text(encoding="utf-8"))
    top = " ".join(parsed.text[: parsed.text.index("What to do next")])
    for fact in (MADE["date"], MADE["command"], "compatlearn 0.1.0, commit abc1234"):
        assert fact in top
    assert {"href": "results.json"} in parsed.all("a")


def test_the_box_has_the_colour_the_shape_and_the_word_of_one_verdict(tmp_path):
    for verdict, mark, word, cross in (
        ("yes", "●", "Yes", 0.55),
        ("undecided", "◆", "Undecided", OLD + 0.01),
        ("no", "■", "No", 0.3),
    ):
        text = written(tmp_path, results([row("l2", seed, cross=cross) for seed in range(3)]))
        box = re.search(rf'<section class="verdict {verdict}".*?</p>', text, re.DOTALL)[0]
        assert mark in box
        assert f"{word}: " in box
        assert re.search(rf"\.{verdict} {{ --shade: var\(", text)
        (_, cells) = body_rows(text)[0]
        assert cells[1].startswith(f"{mark} {verdict}")


def test_table_and_first_plot_have_the_same_order_and_the_verdict_stands_by_the_method(page):
    text = page.read_text(encoding="utf-8")
    rows = body_rows(text)
    names = [cells[0].removesuffix("reference") for _, cells in rows]
    assert names == ["bct", "random-walk", "normalized-mean", "trained", "mean", "l2", "independent"]
    assert [cells[1].split()[1][:3] for _, cells in rows] == ["yes", "yes", "yes", "yes", "und", "und", "no3"]
    assert [opening for opening, _ in rows] == ["", ' class="best"', "", "", "", "", ""]
    spoken = Page(text).all("svg")[0]["aria-label"]
    assert [part.split()[0] for part in spoken.split("intervals: ")[1].split("; ")] == names
    assert "random-walk +9.6 ± 3.0, compatible" in spoken


def test_page_says_what_to_do_next(tmp_path):
    files = Files("seed-0/old-train", "seed-0/new/train", "seed-0/old-val", "seed-0/walk/val", None)
    text = written(tmp_path, comparison(), files=files)
    block = re.search(r'<section class="next".*?</section>', text, re.DOTALL)[0]
    assert "Upgrade with random-walk" in block
    assert "compatlearn evaluate --require-compatible --old-query seed-0/old-val" in block
    assert ROLLBACK[True] in " ".join(Page(block).text)


def test_ids_are_unique_and_references_meet(page):
    text = page.read_text(encoding="utf-8")
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"(?:url\(|href=\")#([^\")]+)", text)) <= set(ids)


def test_plots_have_the_colours_of_the_page(page):
    plot = re.search(r"<svg.*?</svg>", page.read_text(encoding="utf-8"), re.DOTALL)[0]
    for colour in ("ink", "grid", "good", "unsure", "bad"):
        assert f"var(--{colour})" in plot
    assert not re.search("#0[1-5]0[1-5]0[1-5]", plot)


def test_pictures_are_marked_by_more_than_colour(page, picture_rows):
    parsed = Page(page.read_text(encoding="utf-8"))
    shown = parsed.all("img")
    right = sum(hit for each in picture_rows for _, _, hit in each.old + each.new)
    total = sum(1 + len(each.old) + len(each.new) for each in picture_rows)
    assert len(shown) == total
    assert all(each["alt"] and each["src"].startswith("data:image/") for each in shown)
    assert sum(each["alt"].endswith(", right") for each in shown) == right
    marks = "".join(parsed.text[parsed.text.index("Pictures") :])
    assert marks.count("✓") == right + 1  # and once in the explanation
    assert marks.count("✗") == total - len(picture_rows) - right + 1


def test_names_are_text_and_never_markup(page):
    text = page.read_text(encoding="utf-8")
    assert "<b>&" not in text
    assert 'alt="query: &lt;b&gt;&amp;"' in text
    plot = text[text.index("Class by class") : text.index("<h2>Pictures")]
    assert ">&lt;b&gt;&amp;<" in plot  # the axis of the plot
    assert 'Most gained: <b>&, +22.9 points; least: the "least", −4.1 points.' in Page(plot).all("svg")[0]["aria-label"]


@pytest.mark.parametrize(
    ("content", "plots"),
    [
        (results([row("random-walk", 1, classes=200)]), 3),
        (sweep(), 3),
        (results([failed("mean", 0), failed("mean", 1)]), 0),
        (results([row("independent", 0)]), 3),
        ({"rows": []}, 0),
    ],
    ids=["one", "sweep", "failed", "reference", "nothing"],
)
def test_pages_of_little(tmp_path, content, plots):
    parsed = Page(written(tmp_path, content))
    assert len(parsed.all("svg")) == plots
    assert "Pictures" not in parsed.text


def test_the_same_results_make_the_same_page(page, picture_rows, tmp_path):
    write_html(comparison(), tmp_path / "again.html", pictures=picture_rows)
    assert (tmp_path / "again.html").read_bytes() == page.read_bytes()


def test_a_page_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        write_html(comparison(), tmp_path / "file" / "report.html")


def test_a_picture_row_needs_no_group(tmp_path):
    picture = Image.new("L", (300, 20))
    lone = PictureRow(picture, "tall & thin", [(picture, "x", True)], [])
    assert 'alt="query: tall &amp; thin"' in written(tmp_path, comparison(), pictures=[lone])


def test_the_page_says_who_was_trained_on_what(tmp_path):
    for keys, text in (
        ({}, "30 % of each class for the old model, 70 % of each class for the new one"),
        ({"new_fraction": 1.0, "old_classes": 5}, "30 % of the first 5 classes for the old model, 100 % of each class"),
        ({"test_classes": 4, "unit_length": True}, "the last 4 classes searched for and not trained on; old features at unit"),
        ({"clusters": 12}, "12 clusters of old features for labels"),
    ):
        assert text in written(tmp_path, {"recipe": Recipe(**keys).to_dict(), "rows": [failed("l2", 0)]})


# the first plot


def dots(*values, half=0.5):
    return [Dot(f"m{place}", value, value - half, value + half, "undecided") for place, value in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "half", "left", "right"),
    [
        ((0.02, -0.01), 0.01, (-1.2, -1.0), (1.0, 1.2)),  # tiny differences are not blown up
        ((40.0, 35.0), 2.0, (-5.0, -1.0), (42.0, 46.0)),  # nor is zero left out where they are huge
        ((3.0, -90.0), 2.0, (-2.0, -1.0), (5.0, 6.0)),  # a model at chance does not set the scale
        ((2.0, 1.0), 60.0, (-10.0, -9.0), (9.0, 10.0)),  # nor do whiskers of two seeds
        ((-20.0, -30.0), 1.0, (-34.0, -31.0), (1.0, 4.0)),
    ],
)
def test_the_axis_holds_zero_and_the_best(values, half, left, right):
    low, high = axis_of(dots(*values, half=half))
    assert left[0] <= low <= left[1]
    assert right[0] <= high <= right[1]


def test_what_is_off_the_axis_has_an_arrow_and_its_value():
    assert "−90.0" in differences(dots(3.0, -90.0), 4.0, alt="")
    assert "−2.5" not in differences(dots(3.0, -2.5), None, alt="")
    assert "a full backfill" in differences(dots(3.0), 4.0, alt="")
    assert "a full backfill" not in differences(dots(3.0), 400.0, alt="")


# a browser


def chromium(*arguments, profile):
    command = shutil.which("chromium")
    if command is None:
        pytest.skip("chromium is not installed")
    quiet = ("no-first-run", "background-networking", "component-update", "sync")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    flags += [f"--disable-{name}" for name in quiet[1:]] + [f"--user-data-dir={profile}"]
    return subprocess.run([command, *flags, *arguments], capture_output=True, text=True, timeout=120, check=True).stdout


def test_a_browser_shows_the_page(page, tmp_path):
    dom = Page(chromium("--dump-dom", page.as_uri(), profile=tmp_path))
    assert len(dom.all("tr")) == 1 + len(METHODS)
    assert len(dom.all("svg")) == 3
    assert "Can the new model search the old index?" in dom.text
    assert not [attributes for name, attributes in dom.tags if name == "parsererror"]
