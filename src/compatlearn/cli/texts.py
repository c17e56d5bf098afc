"""The flags about texts and the models that embed them, and what is said about texts before they are embedded."""

import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from ..errors import CompatlearnError, ConfigError, DataError
from .columns import as_flags

if TYPE_CHECKING:
    from ..data.texts import Texts
    from ..encoders.text_encoder import TextEncoder


@dataclass(frozen=True)
class TextModel:
    """How texts are embedded; for pictures there is nothing to choose here.

    A command takes them all with `text_model: Annotated[TextModel, Parameter(name="*")] = TextModel()`.

    Attributes:
        prompt_name: what is put before every text, by its name in the model of sentence-transformers: query, document, ….
        dimensions: how many the vectors are shortened to, by models that are made for it.
        base_url: address of a service other than OpenAI's, such as http://localhost:8080/v1.
        price: dollars per million tokens of a service, for the estimate that is printed before it is asked.
        concurrency: requests to a service at a time; by default 4.
        requests_per_minute: most requests to a service.
        timeout: seconds to wait for an answer of a service; by default 60.
    """

    prompt_name: str | None = None
    dimensions: int | None = None
    base_url: str | None = None
    price: float | None = None
    concurrency: int | None = None
    requests_per_minute: float | None = None
    timeout: float | None = None

    def load(self, model: str, *, device: str | None = None, batch_size: int | None = None) -> "TextEncoder":
        """The model.

        Args:
            model: a name or folder of sentence-transformers, `openai:MODEL` or `module:function`.
            device: torch's name for it.
            batch_size: most texts at a time.

        Raises:
            CompatlearnError: as `load_text_encoder` does, in the words of the command line.
        """
        from ..encoders.text_models import load_text_encoder

        try:
            return load_text_encoder(model, device=device, batch_size=batch_size, **asdict(self))
        except CompatlearnError as error:
            raise type(error)(as_flags(str(error), FLAGS)) from error

    def refuse_for_pictures(self, data: str, model: str, flag: str = "--model") -> None:
        """Refuse flags and models that are for texts.

        Args:
            data: what holds the pictures.
            model: the model that was named.
            flag: that named it.

        Raises:
            ConfigError: there is one.
        """
        given = [f"--{name.replace('_', '-')}" for name, value in asdict(self).items() if value is not None]
        given += [f"{flag} {model}"] if model.startswith("openai:") else []
        if given:
            raise ConfigError(f"{given[0]} is for texts, and {data} holds none; name the column with the texts (--text-column)")


FLAGS = (*TextModel.__dataclass_fields__, "text_column", "id_column", "label_column", "batch_size", "device")


def open_named_texts(data: str, text_column: str | None, id_column: str | None, label_column: str | None) -> "Texts":
    """Texts, with a word on stderr where their columns were guessed.

    Args:
        data: as for `open_texts`.
        text_column: as for `open_texts`, and so the other two.
        id_column: of the ids.
        label_column: of the classes.

    Returns:
        The texts.

    Raises:
        DataError: as `open_texts`, in the words of the command line; or there is no id column, and several could be one.
    """
    from ..data.texts import open_texts

    try:
        texts = open_texts(data, text_column=text_column, id_column=id_column, label_column=label_column)
    except CompatlearnError as error:
        raise type(error)(as_flags(str(error), FLAGS)) from error
    if len(texts.could_be_ids) > 1:
        raise DataError(
            f"{data} has no id column, and several that could be one: {', '.join(texts.could_be_ids)}; pass --id-column with "
            "one of these, or --id-column row to number the rows"
        )
    notes = [] if text_column or texts.text_from == "column 'text'" else [f"texts are {texts.text_from}"]
    notes += [f"ids are {texts.ids_from}"] if texts.ids_from == "row numbers" else []
    notes += [f"--id-column {name} would use column {name!r}" for name in texts.could_be_ids]
    if notes:
        print(f"{data}: {'; '.join(notes)}", file=sys.stderr)
    return texts
