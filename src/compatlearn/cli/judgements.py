"""What answers a query, from --qrels or --clicks."""

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigError

if TYPE_CHECKING:
    from ..evaluation.relevance import Relevance


def relevance_of(qrels: Path | None, clicks: Path | None) -> "Relevance | None":
    """Judgements or clicks as they were read; None where neither was given.

    Args:
        qrels: the file of --qrels.
        clicks: the table of --clicks.

    Raises:
        ConfigError: both were given.
        DataError: a file that cannot be read.
    """
    if qrels is not None and clicks is not None:
        raise ConfigError("--qrels and --clicks both say what answers a query; give one of them")
    from ..evaluation.relevance import Relevance

    if clicks is not None:
        return Relevance.from_clicks(clicks)
    return None if qrels is None else Relevance.from_qrels(qrels)
