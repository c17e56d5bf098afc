"""Contents that a command asks for by id: of the index itself (--items-column), or of a function (--items MODULE:FUNCTION)."""

import importlib.util
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError

if TYPE_CHECKING:
    from ..data.by_id import ContentsById


def contents_by_id(items: str | None, items_column: str | None, index: Any) -> "ContentsById | None":
    """What gives the contents of items by their ids, if the flags name such a thing.

    Args:
        items: value of --items, or None.
        items_column: value of --items-column, or None.
        index: the live index, or None where it is none.

    Returns:
        The contents; None where --items names data to be opened, or nothing is named.

    Raises:
        ConfigError: both flags, a column of an index that is not live, or a function that cannot be imported.
    """
    if items_column is None and (items is None or not is_function(items)):
        return None
    from ..data.by_id import ContentsById

    if items_column is None:
        from ..encoders.networks import load_function

        return ContentsById(load_function(str(items)), str(items))
    if items is not None:
        raise ConfigError("--items and --items-column both say where the contents are; give one of them")
    if index is None:
        raise ConfigError(f"--items-column {items_column} is a column of a live index; give its address by --index")
    from ..indexes.contents import contents_of

    return ContentsById(lambda ids: contents_of(index, ids, items_column), f"column {items_column!r} of the index")


def contents_of_items(what: str, items: str | None, items_column: str | None, index: Any) -> "str | ContentsById":
    """Where a command that embeds items of a live index finds their contents.

    Args:
        what: needs them, in words.
        items: value of --items, or None.
        items_column: value of --items-column, or None.
        index: the live index.

    Returns:
        Data to be opened, or what gives the contents by id.

    Raises:
        ConfigError: as `contents_by_id`, or nothing is named.
    """
    found = contents_by_id(items, items_column, index) or items
    if found is None:
        raise ConfigError(f"{what} embeds items; give --items, or --items-column where the index holds their texts")
    return found


def is_function(items: str) -> bool:
    """Whether data is called `module:function`, of a module that can be found, and is no file or folder with a split."""
    match = re.fullmatch(r"([A-Za-z_][\w.]*):[A-Za-z_]\w*", items)
    if match is None or Path(match[1]).exists() or Path(items).exists():
        return False
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.util.find_spec(match[1]) is not None
    except (ImportError, ValueError):
        return False
