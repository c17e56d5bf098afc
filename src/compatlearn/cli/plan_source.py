"""Items and queries, texts or pictures, become the vectors of a plan, in folders that an interrupted run resumes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import ConfigError
from .columns import Columns
from .medium import Medium, medium_of, medium_with
from .output import tell
from .texts import TextModel

if TYPE_CHECKING:
    from ..data.by_id import ContentsById
    from ..evaluation.relevance import Relevance
    from ..features.features import Features
    from ..report.plan_page import Shown
    from .medium import Content


@dataclass(frozen=True)
class Request:
    """What a plan is made from: the flags of `compatlearn plan` of the same names.

    Attributes:
        out: folder of the plan.
        items: texts or pictures of the gallery; where they are asked for by id, what these are called.
        by_id: gives them by id, or None.
        queries: of the queries, or None.
        new_model: what embeds pairs and queries.
        old_model: what embeds the queries and, without an index, the items as the index was embedded; or None.
        index: old vectors of the items: a file, a live index, or None.
        relevance: judgements: the items that they name are read in any case; or None.
        old_queries: old vectors of the queries, or None.
        pairs: how many.
        sampling: how they are drawn.
        seed: of the draw.
        whole: whether all items are embedded by the new model.
        text_column: of the texts.
        columns: names of other columns.
        text_model: how texts are embedded.
    """

    out: Path
    items: str
    by_id: "ContentsById | None"
    queries: str | None
    new_model: str
    old_model: str | None
    index: Any
    relevance: "Relevance | None"
    old_queries: Path | None
    pairs: int
    sampling: Literal["proportional", "coverage"]
    seed: int
    whole: bool
    text_column: str | None
    columns: Columns
    text_model: TextModel

    def __post_init__(self) -> None:
        if self.index is None and self.by_id is not None:
            raise ConfigError(f"--items {self.items} gives contents of ids; give --index, which says which ids there are")
        if self.index is None and self.old_model is None:
            raise ConfigError(
                "a plan from texts or pictures needs the old vectors: give --index, or --old-model to embed the items with it"
            )
        if self.old_queries and self.queries is None:
            raise ConfigError(f"--old-queries {self.old_queries} needs --queries: the same queries, for the new model")
        if self.old_queries and self.old_model and self.index is not None:
            raise ConfigError("--index and --old-queries hold what --old-model would embed; leave one of them out")
        if self.items == self.queries:
            raise ConfigError(f"--items and --queries are both {self.items}; give queries that are not items of the gallery")


@dataclass(frozen=True)
class Source:
    """The vectors of a plan, and where they come from.

    Attributes:
        vectors: the arguments of `compatlearn.plan`.
        count: items of the live index; None: the gallery is all there is.
        medium: texts or pictures.
        items: the gallery's, or what gives them by id.
        queries: the queries', or None.
    """

    vectors: "dict[str, Features]"
    count: int | None
    medium: Medium
    items: "Content | ContentsById"
    queries: "Content | None"

    def shown(self, examples: list[Mapping[str, Any]]) -> "dict[str, Shown]":
        """What the page of a plan shows of its examples: `queries` and `items`, as `write_plan_page` takes them."""
        if self.queries is None:
            return {}
        import numpy as np

        from ..data.by_id import ContentsById

        asked = {str(one["query"]) for one in examples}
        found = {str(name): name for one in examples for name in (*one["before"], *one["after"])}
        items = self.items
        if isinstance(items, ContentsById):
            if not found:
                return {"queries": self.medium.show(self.queries, asked)}
            items = items.open(np.array(list(found.values())))
        return {"queries": self.medium.show(self.queries, asked), "items": self.medium.show(items, found)}


@dataclass(frozen=True)
class _Opened:
    """What there is before the new model has seen anything.

    Attributes:
        medium: texts or pictures.
        queries: as they are embedded, or nothing.
        stored: old vectors of the gallery and, where they can be had, of the queries.
        count: items of the live index; None: the gallery is all there is.
        chosen: (m,) ids of the pairs.
        part: the items that the new model embeds.
        items: all of them, or what gives them by id.
    """

    medium: Medium
    queries: "dict[str, Content]"
    stored: "dict[str, Features]"
    count: int | None
    chosen: Any
    part: "Content"
    items: "Content | ContentsById"


def open_source(request: Request) -> Source:
    """Embed what a plan needs, each model being loaded once.

    Args:
        request: what from, by which models.

    Returns:
        The vectors, with the contents that they were made of.

    Raises:
        CompatlearnError: data that cannot be opened, models that cannot be loaded or fail, ids that do not match.
    """
    import numpy as np

    from ..features.classes import same_classes
    from ..features.features import Features

    opened = _from_data(request) if request.by_id is None else _by_id(request, request.by_id)
    medium, gallery = opened.medium, opened.stored["gallery"]
    name = "gallery" if request.whole else "pairs"
    fresh = _embedded(request, medium, "new", request.new_model, {name: opened.part, **opened.queries})
    own = fresh[name]
    pairs = own.take(np.isin(own.ids, opened.chosen))
    vectors = {"pairs_new": Features(pairs.vectors, None, pairs.ids, pairs.space, request.items, ids_from=gallery.ids_from)}
    if request.whole:
        gallery = gallery.take(np.isin(gallery.ids, own.ids))
        vectors["backfill"] = own
    if not opened.queries:
        return Source(vectors | {"old_gallery": gallery}, opened.count, medium, opened.items, None)
    vectors["old_gallery"], vectors["new_queries"] = same_classes(gallery, fresh["queries"])
    vectors |= {"old_queries": opened.stored["queries"]} if "queries" in opened.stored else {}
    return Source(vectors, opened.count, medium, opened.items, opened.queries["queries"])


def _from_data(request: Request) -> _Opened:
    """Items that lie in a file or folder: they are the gallery."""
    medium = medium_of(request.items, request.queries, request.text_column)
    items, queries = medium.open(request.items, request.columns, request.text_column), _queries(request, medium)
    _note(request)
    old, count = _old_vectors(request, queries, items.ids)
    stored = _stored(request, medium, {"gallery": items, **queries}, old)
    gallery = _gallery(request, items, stored["gallery"])
    chosen = _chosen(request, gallery)
    part = _of(items, gallery.ids if request.whole else chosen)
    return _Opened(medium, queries, stored | {"gallery": gallery}, count, chosen, part, items)


def _by_id(request: Request, contents: "ContentsById") -> _Opened:
    """Items that the index names, and whose contents are asked for by id: those of the pairs alone, unless all are wanted."""
    import numpy as np

    from ..features.features import Features

    asked = None if request.queries is None else medium_of(request.queries, None, request.text_column)
    queries = {} if asked is None else _queries(request, asked)
    _note(request)
    stored, count = _old_vectors(request, queries)
    old = stored["gallery"]
    order = np.argsort(old.ids, kind="stable")  # not as the store happens to give them: the next run shall draw the same
    ids_from = old.ids_from or "the index"
    gallery = Features(old.vectors[order], None, old.ids[order], old.space, request.items, ids_from=ids_from)
    wanted = gallery.ids if request.whole else _chosen(request, gallery)
    part = contents.open(wanted, ids_from)
    medium = medium_with(part)
    if asked is not None and asked is not medium:
        raise ConfigError(
            f"{request.items} gives {medium.name} and --queries {request.queries} holds {asked.name}; one model embeds both"
        )
    if lost := len(wanted) - len(part):
        first = wanted[~np.isin(wanted, part.ids)][0].item()
        tell(f"{lost} of {len(wanted)} items have no text in {request.items} (first: id {first!r}) and are left out")
    chosen = _chosen(request, gallery) if request.whole else wanted
    stored = _stored(request, medium, queries, stored) | {"gallery": gallery}
    return _Opened(medium, queries, stored, count, chosen, part, contents)


def _queries(request: Request, medium: Medium) -> "dict[str, Content]":
    names = request.columns, request.text_column
    return {} if request.queries is None else {"queries": medium.open(request.queries, *names)}


def _note(request: Request) -> None:
    """Leave in the plan's folder what it is made from, before any of it is embedded."""
    from ..files import write_json

    said = {"items": request.items, "queries": request.queries, "new_model": request.new_model}
    request.out.mkdir(parents=True, exist_ok=True)
    write_json(request.out / "request.json", said)


def _chosen(request: Request, gallery: "Features") -> Any:
    """(m,) ids of the pairs."""
    from ..upgrade.sample import sample_pairs

    return gallery.ids[sample_pairs(request.pairs, gallery.vectors, by=request.sampling, seed=request.seed)]


def _stored(
    request: Request, medium: Medium, contents: "Mapping[str, Content]", stored: "dict[str, Features]"
) -> "dict[str, Features]":
    """The old vectors that there are, and those that --old-model makes where there are none."""
    if request.old_model is None:
        return stored
    missing = {name: one for name, one in contents.items() if name not in stored}
    return stored | _embedded(request, medium, "old", request.old_model, missing)


def _old_vectors(
    request: Request, queries: "Mapping[str, Content]", items: Any = None
) -> "tuple[dict[str, Features], int | None]":
    """Those of the index, of a large live one a part, and of --old-queries, as far as they are given; and its items."""
    sides = {"gallery": request.index, "queries": request.old_queries}
    files = {name: side for name, side in sides.items() if isinstance(side, Path)}
    stored = request.columns.load(files) if files else {}
    if request.index is None or "gallery" in files:
        return stored, None
    from ..upgrade.part import judged_ids, read_part

    keep = judged_ids(request.relevance, queries["queries"].ids if queries else None)
    part = read_part(request.index, keep, among=items, seed=request.seed)
    if items is None:
        return stored | {"gallery": part.features}, part.items
    if len(items) < part.items:
        tell(f"{request.items} names {len(items):,} of {part.items:,} items of the index: the plan is about these")
    return stored | {"gallery": part.features}, len(items)


def _gallery(request: Request, items: "Content", old: "Features") -> "Features":
    """The old vectors of the items, with their classes; without those that could not be read or were not drawn."""
    import numpy as np

    from ..features.features import Features

    kept = items if isinstance(request.index, Path) else _of(items, old.ids)
    name = request.items if request.index is None else str(request.index)
    rows = old.align(kept.ids, name, request.items, kept.ids_from)
    labels, classes = kept.labels, kept.classes
    if labels is not None and len(np.unique(labels)) < 2:
        tell(f"{request.items}: all of one class, which does not say what answers a query; it is left aside")
        labels = classes = None
    return Features(old.vectors[rows], labels, kept.ids, old.space, request.items, ids_from=kept.ids_from, classes=classes)


def _of(content: "Content", ids: Any) -> "Content":
    """The part that has one of the ids, in its order."""
    import numpy as np

    return content.take(np.flatnonzero(np.isin(content.ids, ids)))


def _embedded(
    request: Request, medium: Medium, age: str, model: str, contents: "Mapping[str, Content]"
) -> "dict[str, Features]":
    """Features of several contents by one model, in `features/<content>-<age>`."""
    encoder = medium.load(model, f"--{age}-model", request.items, request.text_model) if contents else None
    found = {}
    for name, content in contents.items():
        tell(f"{name}-{age}: {len(content)} {medium.name} by {model}")
        folder = request.out / "features" / f"{name}-{age}"
        found[name] = medium.extract(encoder, content, folder)
        if lost := len(content) - len(found[name]):
            tell(f"{name}-{age}: {lost} of {len(content)} cannot be read and are left out: see {folder / 'skipped.json'}")
    return found
