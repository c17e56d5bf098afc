"""How tables of figures look in a terminal."""

from rich import box
from rich.table import Table
from rich.text import Text

from .figures import Figure


def grid(title: str, caption: str) -> Table:
    """An empty table with a heading above and a note below; columns and rows are for the caller to add."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.title, table.title_justify = Text(title, style="bold"), "left"
    table.caption, table.caption_justify = Text(caption, style="dim"), "left"
    return table


def bounds(figure: Figure, factor: int, sign: str = "") -> str:
    """A figure and its interval, times `factor`: `16.3 [15.5, 17.1]`.

    Args:
        figure: what is shown.
        factor: 100 for percent, with one digit; 1 for ratios, with two.
        sign: "+" shows the sign of what is above zero too.
    """
    digits = 1 if factor == 100 else 2
    parts = (f"{factor * part:{sign}.{digits}f}" for part in (figure.value, figure.low, figure.high))
    value, low, high = (part.replace("-", "−").replace("inf", "∞") for part in parts)
    return f"{value} [{low}, {high}]"
