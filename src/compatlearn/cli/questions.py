"""What a search is asked with: texts, pictures, or vectors; and their vectors by each model."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from .columns import Columns
from .items import embedded, features_of
from .medium import MEDIA, Medium
from .texts import TextModel

if TYPE_CHECKING:
    from ..data.images import Images
    from ..features.features import Features


@dataclass(frozen=True)
class Question:
    """What is asked; exactly one of these is given.

    A command takes it all with `question: Annotated[Question, Parameter(name="*")] = Question()`.

    Attributes:
        query: texts, one or several.
        query_image: files of pictures, one or several.
        queries: a file of texts, or pictures as --data of `extract`.
        new_queries: vectors by the new model.
        old_queries: vectors by the old model: alone, or of the same queries as --new-queries.
    """

    query: list[str] | None = None
    query_image: list[Path] | None = None
    queries: str | None = None
    new_queries: Path | None = None
    old_queries: Path | None = None

    def check(self) -> None:
        """Refuse no question, and two of them."""
        vectors = self.new_queries or self.old_queries
        given = {"--query": self.query, "--query-image": self.query_image, "--queries": self.queries, "vectors": vectors}
        flags = [flag for flag, value in given.items() if value]
        if not flags:
            raise ConfigError(
                "nothing is asked; give --query TEXT, --query-image FILE, --queries FILE, or vectors by --new-queries"
            )
        if len(flags) > 1:
            raise ConfigError(f"{' and '.join(flags)} both ask; give one of them")

    def vectors(self) -> "tuple[Features | None, Features | None]":
        """New and old vectors as they were given, in one order."""
        new, old = (None if path is None else features_of(path) for path in (self.new_queries, self.old_queries))
        if new is not None and old is not None:
            old = old.take(old.align(new.ids, "the old queries", "the new queries", new.ids_from))
        return new, old

    def content(self, text_column: str | None) -> tuple[Medium, Any, list[str]]:
        """What is to be embedded, and what each query is called."""
        import numpy as np

        if self.query_image:
            return MEDIA[False], _pictures(self.query_image), [str(path) for path in self.query_image]
        if self.query:
            from ..data.texts import Texts

            return MEDIA[True], Texts.of(self.query, source="--query"), self.query
        from ..data.texts import holds_texts

        assert self.queries is not None  # something is asked
        medium = MEDIA[holds_texts(self.queries, text_column=text_column)]
        content: Any = medium.open(self.queries, Columns(), text_column)
        names = content.texts if medium is MEDIA[True] else np.asarray(content.ids).tolist()
        return medium, content, [str(name) for name in names]


def embedded_by(
    models: dict[str, str | None], medium: Medium, content: Any, source: str, text_model: TextModel
) -> "list[Features | None]":
    """Vectors of queries by each model.

    Args:
        models: by the flag that named it.
        medium: texts or pictures.
        content: what is embedded.
        source: where it is from.
        text_model: how texts are embedded.

    Raises:
        ConfigError: no model was named.
    """
    if not any(models.values()):
        what = medium.name
        raise ConfigError(f"{what} need a model; give --new-model, and --old-model for the rungs that ask with old queries")
    return [
        None if model is None else embedded(medium, medium.load(model, flag, source, text_model), content)
        for flag, model in models.items()
    ]


def _pictures(paths: list[Path]) -> "Images":
    """Pictures from single files."""
    import numpy as np

    from ..data.images import Images, to_rgb
    from ..extras import require

    opened = require("PIL.Image").open

    def read(row: int) -> Any:
        with opened(paths[row]) as picture:
            return to_rgb(picture)

    count = len(paths)
    return Images(
        read, np.zeros(count, np.int64), np.array([str(one) for one in paths]), np.arange(count), ("",), "--query-image"
    )
