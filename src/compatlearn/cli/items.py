"""The items of a live index, texts or pictures, embedded by id; and what that costs."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, DataError
from .columns import Columns
from .medium import Medium, medium_of, medium_with
from .output import tell
from .texts import TextModel

if TYPE_CHECKING:
    from ..data.by_id import ContentsById
    from ..features.features import Features
    from ..features.ids import Items as Matched
    from ..migration.money import Money

BATCH = 64  # pictures that are given to a model together
SAMPLE = 1000  # items that a mean price is taken of
FIRST = 100  # items that are asked for until one has content


@dataclass(frozen=True)
class Spending:
    """What new vectors cost, and what may be spent on them.

    A command takes it all with `spending: Annotated[Spending, Parameter(name="*")] = Spending()`.

    Attributes:
        most_dollars: most dollars that are spent on items now; needs a price. Queries that are embedded to measure with do not
            count.
        price_per_item: dollars for an item, where --price of a service does not say it: of one's own machine, say.
    """

    most_dollars: float | None = None
    price_per_item: float | None = None

    def check(self, text_model: TextModel) -> None:
        """Refuse what does not fit together, before anything is loaded.

        Args:
            text_model: with the price of a service.

        Raises:
            ConfigError: a budget without a price, two prices, or one below 0.
        """
        if self.price_per_item is not None and text_model.price is not None:
            raise ConfigError("--price and --price-per-item both say what an item costs; give one of them")
        for flag, value in (("--most-dollars", self.most_dollars), ("--price-per-item", self.price_per_item)):
            if value is not None and not 0 <= value < float("inf"):
                raise ConfigError(f"{flag} must be 0 or more dollars; got {value:g}")
        if self.most_dollars is not None and self.price_per_item is None and text_model.price is None:
            raise ConfigError(
                f"--most-dollars {self.most_dollars:g} needs a price: give --price-per-item, or of a service --price, in "
                "dollars per million tokens"
            )


class Items:
    """Contents by id, and the model that embeds them.

    Args:
        data: texts or pictures, by the ids of the index: as --data of `extract`; or what gives them by id, and then only those
            are held that are just embedded.
        model: what embeds them.
        text_column: column with the texts, where it has no usual name.
        columns: names of other columns.
        text_model: how texts are embedded.
        index: says which items there are, where contents are asked for by id.
    """

    def __init__(
        self,
        data: "str | ContentsById",
        model: str,
        text_column: str | None,
        columns: Columns,
        text_model: TextModel,
        index: Any = None,
    ) -> None:
        self.index, self.lacking, self.priced = index, dict[Any, None](), dict[Any, float]()
        self.by_id = None if isinstance(data, str) else data
        self.data = data if isinstance(data, str) else data.name
        self.medium: Medium = medium_of(data, None, text_column) if isinstance(data, str) else self._medium(data)
        self.content: Any = self.medium.open(data, columns, text_column) if isinstance(data, str) else None
        self.encoder: Any = self.medium.load(model, "--new-model", self.data, text_model)
        self.rows = {} if self.content is None else {item: row for row, item in enumerate(self.content.ids.tolist())}

    def __call__(self, ids: list[Any]) -> Any:
        """(m, d) vectors of items."""
        return embedded(self.medium, self.encoder, self._of(ids), quiet=True).vectors

    def asked(self, queries: str, text_column: str | None, folder: Path) -> "Features":
        """Queries by the same model: vectors as they are, contents embedded into the folder of the plan, where they stay."""
        if holds_vectors(queries):
            return features_of(Path(queries))
        from ..encoders import embed, extract

        if self.by_id is None:
            medium_of(self.data, queries, text_column)  # refuses texts beside pictures
        elif (other := medium_of(queries, None, text_column)) is not self.medium:
            raise ConfigError(
                f"{self.data} gives {self.medium.name} and --queries {queries} holds {other.name}; one model embeds both"
            )
        content: Any = self.medium.open(queries, Columns(), text_column)
        checksum: Any = embed.checksum if self.medium.name == "texts" else extract.checksum
        tell(f"{queries}: {len(content)} {self.medium.name} by {self.encoder.space}")
        out = folder / "features" / f"asked-{checksum(content).removeprefix('blake2b:')}"
        return self.medium.extract(self.encoder, content, out)

    def known(self) -> "Matched":
        """Ids and classes of the items, as `Judge.of` takes them."""
        import numpy as np

        from ..features.ids import Items as Matched

        (ids, ids_from), labels = self._ids, getattr(self.content, "labels", None)
        varied = labels is not None and len(np.unique(labels)) > 1
        origin = ids_from, self.content.classes if varied else None
        return Matched("the items", np.empty((0, 1), np.float32), labels if varied else None, ids, "", *origin)

    def receipt(self) -> None:
        """Say what the model counted, and which items had no content."""
        if self.lacking:
            first = next(iter(self.lacking))
            tell(f"{len(self.lacking):,} items have no content in {self.data} (first: id {first!r}) and are left out")
        if self.medium.name == "texts" and (line := self.encoder.receipt()):
            tell(line)

    def money(self, spending: Spending) -> "Money | None":
        """What items cost; None where no price is known."""
        import numpy as np

        from ..migration.money import Money

        each, cost = spending.price_per_item, getattr(self.encoder, "cost", None)
        if each is not None:
            return Money(lambda ids: np.full(len(ids), each), spending.most_dollars)
        if cost is None:
            return None
        billed: Callable[[], float | None] = self.encoder.billed
        return Money(lambda ids: np.array(self._costs(cost, ids), dtype=np.float64), spending.most_dollars, billed)

    def mean_price(self, money: "Money", spending: Spending) -> float:
        """Dollars for an item, in the mean over a sample."""
        if spending.price_per_item is not None:
            return spending.price_per_item
        ids = self._ids[0]
        return float(money.price(ids[:: max(1, len(ids) // SAMPLE)].tolist()).mean())

    def _costs(self, cost: Callable[[list[str]], list[float]], ids: Any) -> list[float]:
        """What the texts of items cost; nothing where there is none."""
        if self.by_id is None:
            return cost(self._of(ids).texts)
        if any(one not in self.priced for one in ids):
            texts: Any = self.by_id.held([*ids])[0]
            found = {} if texts is None else dict(zip(texts.ids.tolist(), cost(texts.texts), strict=True))
            self.priced = {one: found.get(one, 0.0) for one in ids}
        return [self.priced[one] for one in ids]

    @cached_property
    def _ids(self) -> "tuple[Any, str]":
        """Ids of all items, and where these come from: of a live index in one pass over it."""
        import numpy as np

        if self.content is not None:
            return self.content.ids, self.content.ids_from
        blocks = [(some.ids, some.ids_from) for some in self.index.scan()]
        return np.concatenate([ids for ids, _ in blocks]), blocks[0][1]

    def _medium(self, contents: "ContentsById") -> Medium:
        """Whether texts or pictures are given: as for the first item that has any."""
        count = 0
        for some in self.index.scan(FIRST):
            content, lacking = contents.held(some.ids.tolist())
            if content is not None:
                return medium_with(content)
            count += len(lacking)
        raise DataError(f"{self.data} has no content for any of {count:,} items; name where the contents are")

    def _of(self, ids: Any) -> Any:
        """The contents of items."""
        import numpy as np

        if self.by_id is not None:
            content, lacking = self.by_id.held([*ids])
            if lacking:
                from ..upgrade.fresh import WithoutContent

                self.lacking |= dict.fromkeys(lacking)
                said = f"{len(lacking)} of {len(ids)} items have no content in {self.data} (first: id {lacking[0]!r})"
                raise WithoutContent(said, lacking)
            if content is not None and medium_with(content) is not self.medium:
                raise DataError(
                    f"{self.data} returned {medium_with(content).name} (first: id {ids[0]!r}) and before {self.medium.name}"
                )
            return content
        missing = [one for one in ids if one not in self.rows]
        if missing:
            raise DataError(f"{len(missing)} items of the index are not in {self.data} (first: {missing[0]!r})")
        return self.content.take(np.array([self.rows[one] for one in ids], dtype=np.int64))


def embedded(medium: Medium, encoder: Any, content: Any, *, quiet: bool = False) -> "Features":
    """Features of a few contents, in memory.

    Args:
        medium: texts or pictures.
        encoder: of these.
        content: to be embedded.
        quiet: say nothing of its price: it was said once for all.
    """
    import numpy as np

    from ..encoders.embed import embed_texts
    from ..features.features import Features

    if medium.name == "texts":
        silent = {"notice": lambda texts: "", "receipt": lambda: ""} if quiet else {}
        return embed_texts(replace(encoder, **silent), content)
    starts = range(0, len(content), BATCH)
    batches = ([content.picture(row) for row in range(first, min(first + BATCH, len(content)))] for first in starts)
    vectors = np.concatenate([encoder.encode(pictures) for pictures in batches])
    return Features(vectors, None, content.ids, encoder.space, content.source, ids_from=content.ids_from)


def features_of(path: Path) -> "Features":
    """Features from a file or folder, with its checksums compared."""
    from ..features.features import Features

    return Features.load(path, verify=True)


def holds_vectors(path: str) -> bool:
    """Whether a path is of features, and not of contents that are to be embedded."""
    from ..features.formats import column_names

    place = Path(path)
    if place.suffix == ".parquet" and place.is_file():
        return bool({"vector", "vectors"} & {*column_names(place)})
    return (place / "manifest.json").is_file() or place.suffix in (".npy", ".npz", ".safetensors", ".pt")
