"""Texts or pictures: how a command opens them, embeds them, and shows a few of them on a page."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from .columns import Columns
from .pictures import open_named_images
from .texts import TextModel, open_named_texts

if TYPE_CHECKING:
    from ..data.images import Images
    from ..data.texts import Texts
    from ..features.features import Features
    from ..report.plan_page import Shown

    Content = Texts | Images

SHARD = 2048  # pictures between two points from which an interrupted run can resume


@dataclass(frozen=True)
class Medium:
    """What differs between texts and pictures.

    Attributes:
        name: what they are called.
        open: data, the names of its columns, the column of the texts → the content.
        load: model, flag that named it, data, how texts are embedded → the encoder.
        extract: encoder, content, folder → features of what can be read, in a folder that a second run resumes.
        show: content, ids as text → what a page shows of them.
    """

    name: str
    open: "Callable[[str, Columns, str | None], Content]"
    load: Callable[[str, str, str, TextModel], Any]
    extract: "Callable[[Any, Any, Path], Features]"
    show: "Callable[[Any, Collection[str]], Shown]"


def medium_of(items: str, queries: str | None, text_column: str | None) -> Medium:
    """Whether a gallery and its queries are texts or pictures.

    Args:
        items: as --data of `extract`.
        queries: the same, or None.
        text_column: the column that was named: then they are texts.

    Returns:
        The medium of both.

    Raises:
        ConfigError: one is texts and the other pictures.
    """
    from ..data.texts import holds_texts

    of_items = MEDIA[holds_texts(items, text_column=text_column)]
    if queries is not None and (other := MEDIA[holds_texts(queries, text_column=text_column)]) is not of_items:
        raise ConfigError(
            f"--items {items} holds {of_items.name} and --queries {queries} holds {other.name}; one model embeds both, so "
            "give two of a kind (texts in Parquet: name their --text-column)"
        )
    return of_items


def medium_with(content: "Content") -> Medium:
    """What texts, or pictures, are embedded and shown by."""
    from ..data.texts import Texts

    return MEDIA[isinstance(content, Texts)]


def _open_texts(data: str, columns: Columns, text_column: str | None) -> "Texts":
    return open_named_texts(data, text_column, columns.id_column, columns.label_column)


def _open_pictures(data: str, columns: Columns, text_column: str | None) -> "Images":
    return open_named_images(data, columns.id_column)


def _load_texts(model: str, flag: str, data: str, text_model: TextModel) -> Any:
    return text_model.load(model)


def _load_pictures(model: str, flag: str, data: str, text_model: TextModel) -> Any:
    from ..encoders.encoder import load_encoder

    text_model.refuse_for_pictures(data, model, flag)
    return load_encoder(model)


def _extract_texts(encoder: Any, texts: "Texts", out: Path) -> "Features":
    from ..encoders.embed import extract_texts

    return extract_texts(encoder, texts, out)


def _extract_pictures(encoder: Any, images: "Images", out: Path) -> "Features":
    from ..encoders.extract import checksum, extract
    from ..features.features import Features

    found = extract(encoder, images, out, shard_rows=SHARD, inputs={"ids": checksum(images)})
    # a folder of features numbers classes as its own source does, which may be another numbering than that of the other side
    names = {"ids_from": found.ids_from, "classes": images.classes}
    return Features(found.vectors, found.labels, found.ids, found.space, images.source, **names)  # type: ignore[arg-type]


def _show_texts(texts: "Texts", ids: Collection[str]) -> "Shown":
    from ..report.plan_page import Shown

    return Shown(texts={name: texts.texts[row] for name, row in _rows(texts, ids).items()})


def _show_pictures(images: "Images", ids: Collection[str]) -> "Shown":
    from ..report.pictures import data_uri
    from ..report.plan_page import Shown

    rows = _rows(images, ids)
    names = {name: images.classes[images.labels[row]] for name, row in rows.items()} if len(images.classes) > 1 else {}
    return Shown(names, {name: data_uri(images.picture(row)) for name, row in rows.items()})


def _rows(content: "Content", ids: Collection[str]) -> Mapping[str, int]:
    """The row of each id that is there."""
    return {str(name): row for row, name in enumerate(content.ids.tolist()) if str(name) in ids}


MEDIA = {
    True: Medium("texts", _open_texts, _load_texts, _extract_texts, _show_texts),
    False: Medium("pictures", _open_pictures, _load_pictures, _extract_pictures, _show_pictures),
}
