"""Results on stdout: JSON for machines, tables for people; progress on stderr."""

import json
import sys
from typing import Any


def show(result: Any) -> None:
    if isinstance(result, dict):
        print(json.dumps(result, indent=2))
    else:
        from rich.console import Console

        console = Console()
        console.print(result) if console.is_terminal else Console(width=120).print(result)


def tell(line: str) -> None:
    """A line of progress on stderr, at once."""
    print(line, file=sys.stderr, flush=True)
