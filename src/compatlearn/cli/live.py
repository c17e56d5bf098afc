"""The flags of a live index, and what every command that works on one does first."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, DataError
from ..metric import Metric

if TYPE_CHECKING:
    from ..indexes.second import Second, Upgradable


@dataclass(frozen=True)
class Live:
    """A live index.

    A command takes them all with `live: Annotated[Live, Parameter(name="*")]`.

    Attributes:
        index: where the vectors are: postgresql://…#table.column, lancedb:DIR#table.column,
            qdrant:URL_or_DIR#collection.vector, chroma:DIR#collection, faiss:FILE, or a folder of features.
        to: name of the second vector beside the first: a column, named vector, collection or file.
        metric: what ranks, where the store does not say it.
        old_space: the old model, where nobody has named it yet; the store remembers it.
    """

    index: str
    to: str = "embedding_v2"
    metric: Metric | None = None
    old_space: str = ""

    def open(self) -> "Upgradable":
        """The index."""
        from ..indexes.second import Upgradable

        found = open_index(self.index, self.metric, self.old_space)
        if not isinstance(found, Upgradable):
            raise ConfigError(f"{redacted(self.index)} cannot hold a second vector")
        if self.old_space:
            found.name_space(self.old_space)
        return found

    def second(self) -> "tuple[Upgradable, Second]":
        """The index and its second vector."""
        index = self.open()
        second = index.second(self.to)
        if second is None:
            raise DataError(f"{index!r} has no second vector {self.to!r}; translate makes one")
        return index, second


def is_live(address: str | None) -> bool:
    """Whether this names an index in a store, and no file or folder of features."""
    from ..indexes.open import STORES

    scheme, separator, _ = (address or "").partition(":")
    return bool(separator) and scheme in STORES


def open_index(address: str | None, metric: Metric | None, space: str = "") -> Any:
    """The live index at an address."""
    from ..indexes.open import open_index as look

    return look(address, metric=metric, space=space)


def redacted(text: str) -> str:
    """A text without the passwords of the addresses in it."""
    import re

    return re.sub(r"(://[^:/@\s]*):[^@/\s]*@", r"\1:***@", re.sub(r"(password=)[^&\s#]+", r"\1***", text))


def plan_of(folder: Path) -> dict[str, Any]:
    """What a plan says.

    Args:
        folder: that `plan` wrote.

    Raises:
        DataError: there is none.
    """
    from ..files import read_json

    path = folder / "plan.json"
    if not path.exists():
        raise DataError(f"{folder} holds no plan.json; make one with compatlearn plan --out {folder}")
    return dict(read_json(path))


def adapter_of(folder: Path, direction: str) -> Any:
    """A map of a plan, by its direction."""
    from ..adapters.adapter import load_adapter
    from ..upgrade.files import FILES

    return load_adapter(folder / FILES[direction])
