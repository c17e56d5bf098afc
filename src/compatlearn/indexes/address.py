"""Addresses of live indexes."""

from ..errors import ConfigError


def parts_of(address: str, form: str) -> tuple[str, str]:
    """The two sides of an address's `#`; ConfigError if one is missing.

    Args:
        address: as a user gives it.
        form: how it must look, for the message.
    """
    place, _, name = address.rpartition("#")
    if not place or not name:
        raise ConfigError(f"the address of such an index is {form}; got {address!r}")
    return place, name


def table_and_column(name: str, form: str) -> tuple[str, str]:
    """The two sides of the last dot of an address's `table.column`; ConfigError if there is no table.

    Args:
        name: what stands after the `#`.
        form: how the address must look, for the message.
    """
    table, _, column = name.rpartition(".")
    if not table:
        raise ConfigError(f"the address of such an index is {form}; got {'#' + name!r}")
    return table, column
