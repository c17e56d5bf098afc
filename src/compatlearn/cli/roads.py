"""The rungs of a plan on a live index: its maps and weights as it wrote them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from .items import features_of

if TYPE_CHECKING:
    from ..features.features import Features
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
    from ..upgrade.files import FILES

    adapters = {name: load_adapter(folder / file) for name, file in FILES.items() if (folder / file).exists()}
    weights = said["methods"]
    join = float(weights["join"][0]), float(weights["join"][1])
    return Road(rung, index, second, adapters, float(weights["fuse"]), join)


def known_queries(folder: Path, given: Path | None, asked: "Features | None") -> "Features":
    """Queries that are known beforehand, which "mapped+csls" measures hubs with.

    Args:
        folder: of the plan.
        given: logged queries by the new model; None: those that the plan embedded, with its pairs where they are few.
        asked: what is asked now, which is not known beforehand.

    Raises:
        ConfigError: none are given, and the plan has embedded none.
    """
    import numpy as np

    from ..features.features import Features
    from ..upgrade.maps import ENOUGH

    if given is not None:
        return features_of(given)
    found: list[Features] = []
    for name in ("queries-new", "pairs-new", "gallery-new"):
        if sum(map(len, found)) < ENOUGH and (folder / "features" / name).exists():
            one = features_of(folder / "features" / name)
            fresh = np.ones(len(one), dtype=bool)
            if asked is not None and asked.ids_or_none is not None and asked.ids.dtype.kind == one.ids.dtype.kind:
                fresh = ~np.isin(one.ids, asked.ids)
            found += [one.take(fresh)] if fresh.any() else []
    if not found:
        raise ConfigError(f"mapped+csls needs known queries, and {folder} holds none; give --known-queries")
    vectors = np.concatenate([one.vectors for one in found])
    if len({one.ids.dtype.kind for one in found}) > 1:
        return Features(vectors, space=found[0].space)
    ids = np.concatenate([one.ids for one in found])
    if len(np.unique(ids)) < len(ids):  # a query and a pair of one name
        return Features(vectors, space=found[0].space)
    return Features(vectors, None, ids, found[0].space, ids_from=found[-1].ids_from)
