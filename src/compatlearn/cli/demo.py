"""`compatlearn demo`."""

from pathlib import Path

from ..config import bundled_recipe
from .compare import compare


def demo(*, out: Path = Path("runs/demo"), seeds: int = 3) -> int:
    """The paper's methods and four maps on the embedded digits: a table, results.json and one HTML page; about a minute.

    ```
    compatlearn demo
    ```

    Args:
        out: folder of the run; the same command resumes an interrupted run.
        seeds: training runs per method.
    """
    return compare(recipe=bundled_recipe("digits"), out=out, seeds=str(seeds))
