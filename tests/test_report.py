"""The report: every method in it, every number as it was measured, nothing from the network, and a browser that agrees."""

import inspect
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from scipy.stats import t as student

from compatlearn.config import Recipe
from compatlearn.errors import DataError, IncompatibleError
from compatlearn.report.page import write_html
from compatlearn.report.pictures import PictureRow, choose_pictures
from compatlearn.report.sentences import verdict
from compatlearn.report.summary import Estimate, interval, lines, summarise
from compatlearn.report.tables import table, verdict_table

METHODS = ("independent", "l2", "trained", "mean", "normalized-mean", "random-walk", "bct")
CROSS = dict(zip(METHODS, (0.011, 0.402, 0.498, 0.471, 0.508, 0.519, 0.526), strict=True))
SELF = dict(zip(METHODS, (0.604, 0.431, 0.571, 0.552, 0.579, 0.583, 0.588), strict=True))
OLD, FULL = 0.423, 0.604
CLASSES = [f"class name {number}" for number in range(10)]
CLASSES[5], CLASSES[2] = "<b>&", 'the "least"'  # the ends of the sorted bars


def scores(top1):
    return {"top1": top1, "top5": min(1.0, top1 + 0.2), "map_r": top1 / 2}


def around(value, half):
    return [value - half, value + half]


def bounds(top1):
    return {part: around(value, 0.012) for part, value in scores(top1).items()}


def curve(start, end):
    return [round(start + (end - start) * (1 - 0.8**k), 4) for k in range(20)]


def row(method, seed, *, cross=None, temperature=0.05, damping=0.9, label_noise=0.0, classes=10):
    """A row as `compatlearn.compare` writes it; the seeds differ by a point or so."""
    shift = 0.008 * (seed - 1)
    cross = (CROSS[method] if cross is None else cross) + shift
    old, own, full = OLD - shift / 2, SELF[method] + shift, FULL + shift
    gain = cross - old
    wave = np.cos(np.arange(classes) + seed) * 0.2
    tests = {"old_self": old, "cross": cross, "new_self": own, "independent_self": full}
    figures = {"gain": gain, "update_gain": gain / (full - old), "negative_flips": 0.061 - shift}
    return {
        "method": method,
        "seed": seed,
        "temperature": temperature,
        "damping": damping,
        "label_noise": label_noise,
        **{name: scores(value) for name, value in tests.items()},
        **figures,
        "compatible": "yes" if gain > 0.01 else "no" if gain < -0.01 else "undecided",
        "intervals": {name: bounds(value) for name, value in tests.items()}
        | {name: around(value, 0.015) for name, value in figures.items()},
        "queries": 2000,
        "queries_without_relevant": 3,
        "map_r_limit": None,
        "per_class": [{"label": k, "queries": 200, "old_self": 0.4, "cross": 0.4 + gain + wave[k]} for k in range(classes)],
        "accuracy_at_k": {name: curve(value, min(1.0, value + 0.3)) for name, value in tests.items()},
    }


def failed(method, seed):
    settings = {"temperature": 0.05, "damping": 0.9, "label_noise": 0.0}
    return {"method": method, "seed": seed, **settings, "error": "training diverged in epoch 3", "compatible": "no"}


def results(rows, **more):
    recipe = {
        "data": "tiny-imagenet",
        "old_backbone": "resnet18",
        "new_backbone": "resnet50",
        "old_fraction": 0.3,
        "training": {"epochs": 90, "batch_size": 1024},
    }
    versions = {"compatlearn": "0.1.0", "torch": "2.6.0"}
    return {"recipe": recipe, "versions": versions, "rows": rows, "summary": summarise(rows), **more}


@pytest.fixture(scope="module")
def comparison():
    """Seven methods, three seeds, one model diverged."""
    rows = [failed(m, s) if (m, s) == ("mean", 2) else row(m, s) for s in range(3) for m in METHODS]
    return results(rows, classes=CLASSES)


@pytest.fixture(scope="module")
def sweep():
    walks = [
        row("random-walk", s, cross=0.5 + 0.01 * d - 0.005 * t, temperature=t, damping=d)
        for t in (1.0, 0.1, 0.05)
        for d in (0.1, 0.5, 0.9)
        for s in range(3)
    ]
    return results(walks + [row("normalized-mean", s) for s in range(3)])


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
def page(comparison, picture_rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_html(comparison, path, pictures=picture_rows)
    return path


class Page(HTMLParser):
    """Tags with their attributes, and the text outside of styles."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.style = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.style = tag == "style"

    def handle_data(self, data):
        if not self.style:
            self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def printed(renderable, width=100):
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(renderable)
    return console.file.getvalue()


# summary


def test_interval_is_students_t():
    low, high = interval([0.50, 0.52, 0.57])
    half = student.ppf(0.975, 2) * np.std([0.50, 0.52, 0.57], ddof=1) / 3**0.5
    assert (low, high) == (pytest.approx(0.53 - half), pytest.approx(0.53 + half))
    assert half == pytest.approx(0.0896, abs=1e-4)  # 4.303 · 0.0361 / √3, from a printed table of t
    assert interval([0.5]) == (None, None)


def test_summary_counts_the_models_that_failed_and_averages_the_others(comparison):
    entry = next(entry for entry in comparison["summary"] if entry["method"] == "mean")
    assert (entry["seeds"], entry["failed"]) == (3, 1)
    assert entry["compatible"] == {"yes": 2, "no": 1, "undecided": 0}
    assert entry["cross"]["top1"]["mean"] == pytest.approx(0.471 - 0.004)  # seeds 0 and 1
    assert entry["cross"]["top1"]["seeds"] == 2


def test_summary_has_none_where_nobody_measured():
    rows = [{**row("l2", seed), "new_self": None, "update_gain": None} for seed in range(2)]
    (entry,) = summarise(rows)
    assert entry["new_self"] is None
    assert entry["update_gain"] is None
    (entry,) = summarise([failed("mean", 0)])
    assert entry["gain"] is None
    assert entry["cross"] is None


def test_summary_averages_what_there_is_and_says_how_much():
    rows = [{**row("l2", 0), "update_gain": None}, row("l2", 1)]
    (entry,) = summarise(rows)
    assert entry["update_gain"] == {"mean": rows[1]["update_gain"], "low": None, "high": None, "seeds": 1}


def test_one_seed_has_the_interval_of_its_bootstrap():
    (line,) = lines(results([row("random-walk", 1)]))
    assert line.estimate("gain").half == pytest.approx(0.015)
    assert line.estimate("cross", "top1").half == pytest.approx(0.012)


def test_an_unbounded_interval_is_not_a_number_to_print():
    one = row("random-walk", 1)
    one["intervals"]["update_gain"] = ["-Infinity", "Infinity"]
    (line,) = lines(results([one]))
    assert line.estimate("update_gain").half is None


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (Estimate(0.0912, 0.0123), "+9.1 ± 1.2"),
        (Estimate(-0.0912, None), "−9.1"),
        (Estimate(-0.0001, 0.01), "+0.0 ± 1.0"),
    ],
)
def test_points_have_a_sign_and_no_minus_zero(estimate, text):
    assert estimate.percent(signed=True) == text


# the terminal


def test_table_has_every_method_and_its_figures_in_100_columns(comparison):
    text = printed(table(comparison))
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    for method in METHODS:
        assert re.search(rf"^\s*{method} ", text, re.MULTILINE), method
    half = 100 * 0.008 * student.ppf(0.975, 2) / 3**0.5
    line = next(line for line in text.splitlines() if line.lstrip().startswith("random-walk"))
    assert f"51.9 ± {half:.1f}" in line
    assert f"+9.6 ± {1.5 * half:.1f}" in line
    assert " 71.9 " in line  # top-5
    assert line.rstrip().endswith("3/3 yes")


def test_table_shows_a_model_that_diverged(comparison):
    text = printed(table(comparison))
    assert "2/3 yes" in text
    assert "1/3 diverged" in text
    assert "diverged" in printed(table(results([failed("mean", 0)])))


def test_table_of_one_seed_says_where_the_interval_comes_from():
    text = printed(table(results([row(method, 1) for method in METHODS])))
    assert "51.9 ± 1.2" in text
    assert "bootstrap" in text
    assert "3/3" not in text


def test_table_of_a_sweep_has_the_columns_that_vary(sweep):
    text = printed(table(sweep))
    assert max(map(len, text.splitlines())) <= 100
    assert "damping" in text
    assert "label noise" not in text
    assert len(re.findall(r"^\s*random-walk ", text, re.MULTILINE)) == 9
    line = next(line for line in text.splitlines() if line.lstrip().startswith("normalized-mean"))
    assert line.split()[1:3] == ["—", "—"]  # it has neither temperature nor damping


def test_verdict_table_has_every_interval():
    from compatlearn.evaluation.compatibility import compatibility
    from compatlearn.features.features import Features

    random = np.random.default_rng(0)
    labels = np.arange(60) % 3
    centres = np.eye(3, 8)[labels].astype(np.float32)
    old, new = (Features(centres + s * random.normal(size=(60, 8)).astype(np.float32), labels) for s in (0.8, 0.2))
    result = compatibility(old_query=old, old_gallery=old, new_query=new, independent=new)
    text = printed(verdict_table(result))
    figure = result.cross.top1
    assert f"{100 * figure.value:.1f} [{100 * figure.low:.1f}, {100 * figure.high:.1f}]" in text
    assert f"compatible: {result.compatible}" in text
    for word in ("old self test", "cross test", "new self test", "independent self test", "update gain", "negative flips"):
        assert word in text


# the verdict


def test_verdict_in_words(comparison):
    said = " ".join(verdict(comparison))
    assert "trained, normalized-mean, random-walk and bct are compatible in all 3 seeds" in said
    assert "Best: random-walk" in said  # bct is better and cannot be shipped
    assert "would reach 60.4 ± 2.0 % (+18.1 points)" in said
    assert "random-walk gives 0.53 of that" in said
    assert "mean diverged in 1 of 3 seeds" in said


def test_verdict_on_a_sweep_counts_where_it_cannot_list(sweep):
    said = verdict(sweep)
    assert said[0].startswith("10 of 10 lines of the table are compatible in all 3 seeds")
    assert said[1].startswith("Best: random-walk (T 0.05, damping 0.9).")


def test_verdict_when_nobody_is_compatible():
    said = verdict(results([row("l2", seed) for seed in range(2)]))
    assert said[0].startswith("No method is compatible in all 2 seeds")
    assert said[1].startswith("Nearest: l2")
    assert verdict(results([failed("mean", 0)]))[-1] == "mean diverged in 1 of 1 seed."


# the page


def test_page_loads_nothing(page):
    text = page.read_text(encoding="utf-8")
    parsed = Page(text)
    for tag, attributes in parsed.tags:
        assert tag not in {"script", "link", "iframe", "object"}
        for name in ("src", "href", "xlink:href", "srcset", "action", "poster"):
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


def test_ids_are_unique_and_references_meet(page):
    text = page.read_text(encoding="utf-8")
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"(?:url\(|href=\")#([^\")]+)", text)) <= set(ids)


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


def test_page_of_one_seed_and_of_a_sweep_and_of_nothing(tmp_path, sweep):
    for name, content, plots in (
        ("one", results([row("random-walk", 1, classes=200)]), 3),
        ("sweep", sweep, 3),
        ("nothing", results([failed("mean", 0), failed("mean", 1)]), 0),
    ):
        write_html(content, tmp_path / f"{name}.html")
        parsed = Page((tmp_path / f"{name}.html").read_text(encoding="utf-8"))
        assert len(parsed.all("svg")) == plots
        assert "Pictures" not in parsed.text


def test_the_same_results_make_the_same_page(comparison, page, picture_rows, tmp_path):
    write_html(comparison, tmp_path / "again.html", pictures=picture_rows)
    assert (tmp_path / "again.html").read_bytes() == page.read_bytes()


def test_a_page_that_cannot_be_written_is_an_error(comparison, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        write_html(comparison, tmp_path / "file" / "report.html")


# pictures


def test_pictures_are_counted_and_evenly_spaced():
    labels = np.zeros(10, dtype=np.int64)
    gallery = np.array([0, 1])  # row 0 is right for everybody, row 1 for nobody
    old = np.array([[1], [1], [1], [1], [1], [1], [0], [0], [1], [0]])  # 6, 7, 9 right
    new = np.array([[0], [0], [0], [0], [0], [0], [1], [0], [1], [0]])  # gained 0–5, lost 6, both wrong 8
    asked = []

    def picture(number):
        asked.append(number)
        return Image.new("RGB", (8, 8))

    chosen = choose_pictures(
        old,
        new,
        labels,
        picture,
        classes=["a", "b"],
        gallery_labels=gallery,
        gallery_picture=lambda number: Image.new("RGB", (9, 9)),
        each=2,
    )
    assert asked == [1, 4, 6, 8]
    assert [each.group for each in chosen] == ["Gained", "Gained", "Lost", "Both wrong"]
    assert chosen[0].note.startswith("6 of 10 queries are wrong with the old model's query, right with the new one's; 2 of")
    assert [label for _, label, _ in chosen[0].old] == ["b"]
    assert [hit for _, _, hit in chosen[0].new] == [True]


def test_pictures_of_a_small_gallery_skip_missing_rows():
    two = np.array([[1, -1], [0, -1]])
    chosen = choose_pictures(two, two, np.array([0, 1]), lambda number: Image.new("RGB", (8, 8)), classes=["a", "b"], each=1)
    assert [len(each.old) for each in chosen] == [1]


def test_pictures_of_different_queries_are_refused():
    with pytest.raises(IncompatibleError, match="2, 3 and 2"):
        inspect.unwrap(choose_pictures)(
            np.zeros((2, 1), int), np.zeros((3, 1), int), np.zeros(2, int), lambda number: Image.new("L", (1, 1)), classes=["a"]
        )


def test_a_picture_row_needs_no_group(tmp_path, comparison):
    picture = Image.new("L", (300, 20))
    lone = PictureRow(picture, "tall & thin", [(picture, "x", True)], [])
    write_html(comparison, tmp_path / "lone.html", pictures=[lone])
    assert 'alt="query: tall &amp; thin"' in (tmp_path / "lone.html").read_text(encoding="utf-8")


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


def test_the_page_says_who_was_trained_on_what(tmp_path):
    for keys, text in (
        ({}, "30 % of each class for the old model, 70 % of each class for the new one"),
        ({"new_fraction": 1.0, "old_classes": 5}, "30 % of the first 5 classes for the old model, 100 % of each class"),
        ({"test_classes": 4, "unit_length": True}, "the last 4 classes searched for and not trained on; old features at unit"),
        ({"clusters": 12}, "12 clusters of old features for labels"),
    ):
        results = {"recipe": Recipe(**keys).to_dict(), "rows": [row("l2", 0)]}
        write_html(results, tmp_path / "page.html")
        assert text in (tmp_path / "page.html").read_text(encoding="utf-8")
