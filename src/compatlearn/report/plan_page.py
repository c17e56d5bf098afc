"""A plan as one HTML page that needs no network: the rung to take, what every rung gains and costs, the way back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ..evaluation.figures import Figure
from ..evaluation.table import bounds
from ..files import write_text
from ..upgrade.advice import TITLES
from .page import fill

FAR = 0.1  # share of far queries from which on a reader is warned
LONGEST = 160  # characters of a text
WORDS = {
    "old": "old queries in the old gallery: what you have today",
    "old+head": "old queries through a head that knows the labels: no new model",
    "mapped": "new queries mapped into the old space",
    "mapped+csls": "mapped, where items that are near to all kinds of queries go back",
    "fused": "the mapped query mixed with the old query",
    "translated": "stored vectors mapped into the new space, searched by new queries",
    "translated+fused": "translated, with the old query and the stored vector beside it",
    "cascade": "for each query, candidates embedded anew and ranked",
    "partial": "translated, with a share of the gallery embedded anew",
    "backfill": "the whole gallery embedded anew",
    "backfill+head": "the same, with new queries through a head that knows the labels",
}
BACK = "Nothing has changed yet: a plan only reads. Until you carry it out, there is nothing to undo."
CHANGES = {"gained": "Gained: wrong before, right after", "lost": "Lost: right before, wrong after"}


@dataclass(frozen=True)
class Shown:
    """What the page shows of queries, or of items, beside their ids.

    Attributes:
        texts: by id as text.
        pictures: by id as text, as `data:image/…` addresses; anything else is not shown.
    """

    texts: Mapping[str, str] = field(default_factory=dict)
    pictures: Mapping[str, str] = field(default_factory=dict)


Chart = tuple[str, str, Markup]  # title, caption, SVG


def write_plan_page(
    path: Path,
    plan: Mapping[str, Any],
    *,
    command: str = "",
    queries: Shown = Shown(),
    items: Shown = Shown(),
) -> None:
    """Write a plan as one HTML file: recommendation, every rung, plots and example queries, everything inside it.

    Args:
        path: the file to write, whole or not at all.
        plan: what `Plan.to_dict` gives or `plan.json` holds; `next`, a list of commands, and `back`, how to go back in
            words, are shown where they are there. Parts that are missing are left out.
        command: that made the plan.
        queries: what is shown of the example queries.
        items: what is shown of their answers; a query and an item may have the same id.

    Raises:
        DataError: the file cannot be written.
    """
    write_text(path, fill("plan.html.jinja", _content(plan, command, queries, items)))


def _content(plan: Mapping[str, Any], command: str, queries: Shown, items: Shown) -> dict[str, Any]:
    taken = str(plan["recommended"])
    primary = str(plan.get("primary") or "")
    title = TITLES.get(primary, primary)
    why = str(plan.get("why") or "")
    old, gain = taken == "old", next((rung.get("gain") for rung in plan["rungs"] if rung["name"] == taken), None)
    examples = [_example(one, queries, items) for one in plan.get("examples") or ()]
    return {
        "verdict": "undecided" if old or gain is None else "yes",
        "headline": "Keep the old model for now" if old else f"Recommended: {taken}",
        "what": WORDS.get(taken, ""),
        "why": why[:1].upper() + why[1:],
        "command": command,
        "next": [*(plan.get("next") or ()), *(f"{line}  # on a live index" for line in plan.get("commands") or ())],
        "back": _lines(plan.get("back")) or [BACK],
        "far": plan.get("far_queries"),
        "far_limit": FAR,
        "facts": _facts(plan),
        "rows": [_row(rung, taken) for rung in plan["rungs"]],
        "names": list(dict.fromkeys(TITLES.get(name, name) for rung in plan["rungs"] for name in rung["figures"])),
        "title": title,
        "frontier": _frontier(plan, title),
        "charts": _charts(plan, title),
        "shares": _shares(plan),
        "live": _live(plan.get("live")),
        "notes": list(plan.get("notes") or ()),
        "examples": [
            (text, shown) for kind, text in CHANGES.items() if (shown := [e for e in examples if e["change"] == kind])
        ],
    }


def _lines(text: Any) -> list[str]:
    if not text:
        return []
    return [text] if isinstance(text, str) else [str(line) for line in text]


def _facts(plan: Mapping[str, Any]) -> dict[str, str]:
    """What was measured on what, in a few lines."""
    budget, methods = plan.get("budget"), plan.get("methods") or {}
    facts = {
        "Measured on": plan.get("measured"),
        "Gallery": f"{plan['items']:,} items" if plan.get("items") else None,
        "Pairs": f"{plan['pairs']:,}" if plan.get("pairs") else None,
        "Budget": None if budget is None else f"{budget:.0%} of the gallery may be embedded anew",
        "Ranked by": plan.get("metric"),
        "Methods": methods and f"{methods.get('query')} for queries, {methods.get('gallery')} for the gallery",
    }
    return {key: str(value) for key, value in facts.items() if value}


def _row(rung: Mapping[str, Any], taken: str) -> dict[str, Any]:
    """A row of the table; texts of figures are in % and points."""
    cost, reason, old = rung["cost"], rung.get("reason") or "", rung["name"] == "old"
    share = rung.get("update_gain")
    unknown = bool(reason) and rung["name"] == "cascade"  # what it embeds depends on what is found
    return {
        "name": rung["name"],
        "words": WORDS.get(rung["name"], ""),
        "method": rung.get("method") or "",
        "best": rung["name"] == taken,
        "reason": reason,
        "figures": {TITLES.get(name, name): _split(figure) for name, figure in rung["figures"].items()},
        "gain": _split(None if old else rung.get("gain"), "+"),
        "share": "—" if old or share is None else f"{share:.2f}".replace("-", "−"),
        "flips": _split(None if old else rung.get("negative_flips")),
        "items": "—" if unknown else f"{cost['encoder_items']:,}",
        "bytes": "—" if unknown else _size(cost["bytes_written"]),
        "micro": "—" if reason else f"{cost['query_microseconds']:,.0f}",
        "needs": ", ".join(rung.get("needs") or ()),
    }


def _live(live: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What the live index itself was asked: a row for each rung that asks the first vectors."""
    if not live or not live.get("rungs"):
        return None
    rows = [
        {
            "name": one["name"],
            "exact": _split(one["exact"]),
            "as_is": _split(one["as_is"]),
            "change": _split(one["change"], "+"),
            "recall": _split(one["recall"]),
            "loses": one["loses"],
        }
        for one in live["rungs"]
    ]
    return {"queries": live["queries"], "title": TITLES.get(str(live.get("primary")), ""), "rows": rows}


def _split(figure: Mapping[str, Any] | None, sign: str = "") -> tuple[str, str]:
    """A value, and its interval to stand below it."""
    if figure is None:
        return "—", ""
    value, _, interval = bounds(Figure.from_dict(dict(figure)), 100, sign).partition(" ")
    return value, interval


def _size(number: int) -> str:
    count = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def _frontier(plan: Mapping[str, Any], title: str) -> Chart | None:
    """Quality against cost; None where no rung has the primary figure."""
    from . import plan_plots as plots  # matplotlib takes a second

    points = [
        plots.Point(rung["name"], rung["cost"]["encoder_items"], Figure.from_dict(figure), rung["name"] == plan["recommended"])
        for rung in plan["rungs"]
        if (figure := rung["figures"].get(plan.get("primary"))) is not None
    ]
    if not points:
        return None
    spoken = "; ".join(f"{one.name} {_percent(one.figure)} for {one.items:,} items" for one in points)
    svg = plots.frontier(points, title, alt=f"{title} in %, with 95 % intervals, by items to embed: {spoken}.")
    caption = "Further up is better, further left is cheaper. Whiskers: 95 % intervals."
    return "What every rung gives, and what it costs", caption, Markup(svg)


def _charts(plan: Mapping[str, Any], title: str) -> list[Chart]:
    """How quality grows, as far as there are figures for it."""
    from . import plan_plots as plots

    curve = plan.get("learning_curve") or {}
    charts = [_learning(curve, title)] if curve.get("at") else []
    if curves := _partial(plan):
        spoken = "; ".join(f"{name} from {_percent(each[0])} to {_percent(each[-1])}" for name, (_, each) in curves.items())
        caption = "Which items are embedded first: curves by order. The intervals are in the table below."
        svg = plots.partial(curves, title, alt=f"{title} in % by share of the gallery embedded anew: {spoken}.")
        charts.append(("A partial backfill", caption, Markup(svg)))
    return charts


def _learning(curve: Mapping[str, Any], title: str) -> Chart:
    from . import plan_plots as plots

    figures, bend = _known(curve), curve.get("bend")
    spoken = "; ".join(f"{count:,.0f} pairs {_percent(one)}" for count, one in zip(curve["at"], figures, strict=True))
    said = "The curve still rises at the last point: more pairs may help."
    if bend is not None:
        said = f"From {bend:,.0f} pairs on, more of them hardly help."
    svg = plots.learning(curve["at"], figures, bend, title, alt=f"{title} in % of the translated gallery: {spoken}. {said}")
    return "How many pairs are enough", f"{said} Shade: 95 % intervals.", Markup(svg)


def _partial(plan: Mapping[str, Any]) -> dict[str, tuple[Sequence[float], list[Figure]]]:
    curves = plan.get("partial_curve") or {}
    return {str(name): (curve["at"], _known(curve)) for name, curve in curves.items() if curve.get("at")}


def _shares(plan: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """The partial curves as a table: an order and, by share, the figure with its interval."""
    curves = _partial(plan)
    return [
        (name, [(f"{share:.0%}", _percent(one)) for share, one in zip(at, figures, strict=True)])
        for name, (at, figures) in curves.items()
    ]


def _known(curve: Mapping[str, Any]) -> list[Figure]:
    return [Figure.from_dict(figure) for figure in curve["figures"]]


def _percent(figure: Figure) -> str:
    return bounds(figure, 100)


def _example(example: Mapping[str, Any], queries: Shown, items: Shown) -> dict[str, Any]:
    ways = [("before: old", example["before"]), ("after", example["after"])]
    return {
        "change": example["change"],
        "query": _thing(example["query"], queries),
        "ways": [(way, [_thing(name, items) for name in names]) for way, names in ways],
    }


def _thing(name: Any, shown: Shown) -> dict[str, str]:
    key = str(name)
    text, picture = shown.texts.get(key, ""), shown.pictures.get(key, "")
    text = text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
    return {"id": key, "text": text, "picture": picture if picture.startswith("data:image/") else ""}
