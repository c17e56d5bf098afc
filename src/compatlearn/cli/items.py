"""The items of a live index, texts or pictures, embedded by id; and what that costs."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, DataError
from .columns import Columns
from .medium import Medium, medium_of
from .output import tell
from .texts import TextModel

if TYPE_CHECKING:
    from ..features.features import Features
    from ..features.ids import Items as Matched
    from ..migration.money import Money

BATCH = 64  # pictures that are given to a model together


@dataclass(frozen=True)
class Spending:
    """What new vectors cost, and what may be spent on them.

    A command takes it all with `spending: Annotated[Spending, Parameter(name="*")] = Spending()`.

    Attributes:
        most_dollars: most dollars that are spent now; needs a price.
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
        data: texts or pictures, by the ids of the index: as --data of `extract`.
        model: what embeds them.
        text_column: column with the texts, where it has no usual name.
        columns: names of other columns.
        text_model: how texts are embedded.
    """

    def __init__(self, data: str, model: str, text_column: str | None, columns: Columns, text_model: TextModel) -> None:
        self.data = data
        self.medium: Medium = medium_of(data, None, text_column)
        self.content: Any = self.medium.open(data, columns, text_column)
        self.encoder: Any = self.medium.load(model, "--new-model", data, text_model)
        self.rows = {item: row for row, item in enumerate(self.content.ids.tolist())}

    def __call__(self, ids: list[Any]) -> Any:
        """(m, d) vectors of items."""
        return embedded(self.medium, self.encoder, self._of(ids), quiet=True).vectors

    def asked(self, queries: str, text_column: str | None, folder: Path) -> "Features":
        """Queries by the same model: vectors as they are, contents embedded into the folder of the plan, where they stay."""
        if holds_vectors(queries):
            return features_of(Path(queries))
        from ..encoders import embed, extract

        medium_of(self.data, queries, text_column)  # refuses texts beside pictures
        content: Any = self.medium.open(queries, Columns(), text_column)
        checksum: Any = embed.checksum if self.medium.name == "texts" else extract.checksum
        tell(f"{queries}: {len(content)} {self.medium.name} by {self.encoder.space}")
        out = folder / "features" / f"asked-{checksum(content).removeprefix('blake2b:')}"
        return self.medium.extract(self.encoder, content, out)

    def known(self) -> "Matched":
        """Ids and classes of the items, as `Judge.of` takes them."""
        import numpy as np

        from ..features.ids import Items as Matched

        labels = self.content.labels
        varied = labels is not None and len(np.unique(labels)) > 1
        origin = self.content.ids_from, self.content.classes if varied else None
        return Matched("the items", np.empty((0, 1), np.float32), labels if varied else None, self.content.ids, "", *origin)

    def receipt(self) -> None:
        """Say what the model counted."""
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
        return Money(lambda ids: np.array(cost(self._of(ids).texts), dtype=np.float64), spending.most_dollars, billed)

    def _of(self, ids: Any) -> Any:
        """The contents of items."""
        import numpy as np

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
