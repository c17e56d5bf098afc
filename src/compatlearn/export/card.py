"""The model card of an exported model: what it is made of, how good it is, and how to use it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..adapters.adapter import Adapter
from ..evaluation.figures import Figure

CARD = "README.md"
HEADER = """---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
tags:
- sentence-transformers
- feature-extraction
- sentence-similarity
- compatlearn
# license: yours to state; the licences of the models that this one is made of bind it too
---
"""


@dataclass(frozen=True)
class Sides:
    """The two models of an export.

    Attributes:
        new: space of the new model.
        old: space of the old model; "" is unknown.
        new_prompts: of the new model, by name.
        old_prompts: of the old model, by name; None: the export holds no old model.
    """

    new: str
    old: str
    new_prompts: Mapping[str, str]
    old_prompts: Mapping[str, str] | None


def model_card(adapter: Adapter, sides: Sides, name: str, plan: Mapping[str, Any] | None, *, certain: bool = True) -> str:
    """The text of README.md.

    Args:
        adapter: the map.
        sides: the two models.
        name: of the model: that of its folder.
        plan: what `Plan.to_dict` gives, with `data` where it is known: what items and queries were read; or None.
        certain: whether the adapter itself says which models it is between.

    Returns:
        Markdown, with the header that the hub reads.
    """
    old = sides.old or "unknown"
    parts = [
        f"{HEADER}\n# {name}",
        f"Queries are embedded by `{sides.new}` and mapped into the space of `{old}`: an index of vectors of the old model "
        "answers queries of the new one, and stays as it is.",
        _usage(name, sides),
        "## What it is made of\n\n" + _table(_origin(adapter, sides, plan)),
    ]
    if not certain:
        parts.append(
            "The adapter does not say of which models the vectors were that it was fitted to; those who exported it named them."
        )
    parts.append("## Figures\n\n" + "\n\n".join(_figures(adapter, plan)))
    parts.append(
        "## Licence\n\nNone is stated here. This model holds the weights of the models above, so their licences apply."
    )
    return "\n\n".join(parts) + "\n"


def _usage(name: str, sides: Sides) -> str:
    lines = [
        "from sentence_transformers import SentenceTransformer",
        "",
        f'model = SentenceTransformer("{name}")',
        'queries = model.encode_query(["…"])  # the new model, mapped: ask the old index with these',
    ]
    if sides.old_prompts is not None:
        lines.append('documents = model.encode_document(["…"])  # the old model: what goes into that index')
        text = (
            "**Documents must not be encoded by the query side.** `encode_document` is the old model as it is, and so is "
            "`encode` without a task; only `encode_query` maps."
        )
    else:
        text = (
            "**Documents must not be encoded by this model.** It is for queries alone: embed documents with the old model, "
            f"`{sides.old or 'unknown'}`, or the index holds two kinds of vectors. `encode_document` would map them too."
        )
    return "## How to use it\n\n```python\n" + "\n".join(lines) + f"\n```\n\n{text}"


def _origin(adapter: Adapter, sides: Sides, plan: Mapping[str, Any] | None) -> dict[str, str]:
    record = adapter.record_
    facts = {
        "new model (queries)": f"`{sides.new}`, {adapter.d_new} dimensions",
        "old model (index)": f"`{sides.old or 'unknown'}`, {adapter.d_old} dimensions",
        "documents": "not in this model" if sides.old_prompts is None else "by the old model, in this model",
        "method": f"{adapter.method_}, direction {adapter.direction}",
        "metric": adapter.metric,
        "pairs": "" if record.rows is None else f"{record.rows}",
        "data": ", ".join(f"{kind}: {_public(data)}" for kind, data in (plan or {}).get("data", {}).items() if data),
        "what was known of it": record.facts,
        "hashes of the vectors": ", ".join(f"{side} `{digest}`" for side, digest in record.inputs.items()),
        "prompts of queries": _prompts(sides.new_prompts),
        "prompts of documents": _prompts(sides.old_prompts or {}),
        "made": f"{record.date} with compatlearn {record.version}".strip() if record.date else "",
    }
    return {name: text for name, text in facts.items() if text}


def _prompts(prompts: Mapping[str, str]) -> str:
    return ", ".join(f"{name} `{text}`" for name, text in prompts.items() if text)


def _public(data: object) -> str:
    """What data are called; a card is published, and whose folders they lie in is nobody's business."""
    return Path(str(data)).name if Path(str(data)).is_absolute() else str(data)


def _figures(adapter: Adapter, plan: Mapping[str, Any] | None) -> list[str]:
    paragraphs = []
    if plan is not None:
        primary = plan["primary"]
        measured = [rung for rung in plan["rungs"] if primary in rung["figures"]]
        lines = [f"| rung | {primary} | gain over the old queries |", "|---|---|---|"]
        for rung in measured:
            gain = "" if rung["gain"] is None else f"{Figure.from_dict(rung['gain']):+.1%}"
            lines.append(f"| {rung['name']} | {Figure.from_dict(rung['figures'][primary]):.1%} | {gain} |")
        paragraphs += [
            f"Of the plan: {plan['measured']}. This model is the rung `mapped`.",
            "\n".join(lines),
            f"{plan['why'].rstrip('.')}.",
        ]
    if adapter.test_ is not None:
        paragraphs.append(f"Of the map, on pairs kept out: {adapter.test_}.")
    return paragraphs or ["None were measured; `compatlearn plan` and `compatlearn evaluate` do."]


def _table(rows: Mapping[str, str]) -> str:
    return "\n".join(
        ["| | |", "|---|---|", *(f"| {name} | {text.replace('|', chr(92) + '|')} |" for name, text in rows.items())]
    )
