"""The rungs of a plan on a live index: its maps and weights as it wrote them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..indexes.second import Second, Upgradable
    from ..migration.search import Road


def road_of(folder: Path, said: dict[str, Any], rung: str, index: "Upgradable", second: "Second | None") -> "Road":
    """A rung with what the plan knows of it.

    Args:
        folder: of the plan.
        said: its plan.json.
        rung: its name.
        index: the first vectors.
        second: the second vectors, where the rung asks them.
    """
    from ..adapters.adapter import load_adapter
    from ..migration.search import Road
    from ..upgrade.carry import FILES

    adapters = {name: load_adapter(folder / file) for name, file in FILES.items() if (folder / file).exists()}
    weights = said["methods"]
    join = float(weights["join"][0]), float(weights["join"][1])
    return Road(rung, index, second, adapters, float(weights["fuse"]), join)
