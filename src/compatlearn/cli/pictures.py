"""What is said about pictures before they are embedded."""

import sys
from typing import TYPE_CHECKING

from ..errors import CompatlearnError, DataError
from .columns import as_flags

if TYPE_CHECKING:
    from ..data.images import Images


def open_named_images(data: str, id_column: str | None) -> "Images":
    """Images, with a word on stderr where a column that could name them is not used.

    Args:
        data: as for `open_images`.
        id_column: of the ids.

    Returns:
        The images.

    Raises:
        DataError: as `open_images`, in the words of the command line; or there is no id column, and several could be one.
    """
    from ..data.sources import open_images

    try:
        images = open_images(data, id_column=id_column)
    except CompatlearnError as error:
        raise type(error)(as_flags(str(error))) from error
    candidates = images.could_be_ids
    if len(candidates) > 1:
        raise DataError(
            f"{data} has no id column, and several that could be one: {', '.join(candidates)}; pass --id-column with one of "
            "these, or --id-column row to number the rows"
        )
    if candidates:
        hint = f"--id-column {candidates[0]} would use column {candidates[0]!r}"
        print(f"{data}: ids are {images.ids_from}; {hint}", file=sys.stderr)
    elif "because" in images.ids_from:
        print(f"{data}: ids are {images.ids_from}", file=sys.stderr)
    return images
