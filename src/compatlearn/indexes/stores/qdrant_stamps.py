"""What stands in the payload beside a second vector of Qdrant: stamps, and the claims under which they are written."""

from collections import Counter
from typing import Any
from uuid import uuid4

from ..second import SPACE, mark_of
from .qdrant_server import Qdrant

CLAIM = "_claim"  # a payload key that stands beside the stamp while a point is written
UNFINISHED = ", unfinished"  # after the mark of a stamp whose point has a claim yet: which vector it has is not known
PAGE = 10_000  # points without their vectors


class Stamps:
    """The stamps of one second vector.

    Args:
        server: the client.
        collection: name or alias.
        first: name of the first vector.
        name: of the second vector.
    """

    def __init__(self, server: Qdrant, collection: str, first: str, name: str) -> None:
        self.server, self.collection, self.first, self.name = server, collection, first, name
        self.key, self.claim = name + SPACE, name + CLAIM
        self._keys = [_path(self.key), _path(self.claim)]

    def of(self, ids: list[Any]) -> dict[Any, str]:
        """Id → stamp of the points that have a second vector; it says so where a write was not finished.

        An application may carry a stamp along where it replaces a point; it counts for nothing without the vector.

        Args:
            ids: of points.
        """
        models = self.server.models
        conditions = [models.HasIdCondition(has_id=ids), models.HasVectorCondition(has_vector=self.name)]
        wanted = {"limit": max(1, len(ids)), "with_payload": self._keys, "with_vectors": False}
        points = self.server.ask("scroll", self.collection, scroll_filter=models.Filter(must=conditions), **wanted)[0]
        return {point.id: self._stamp(point) for point in points}

    def counts(self) -> Counter[str]:
        """Mark → number of points that have both vectors; "" counts those without a stamp, or with a claim."""
        having = self.server.having(self.first, self.name)
        wanted = {"limit": PAGE, "with_payload": self._keys, "with_vectors": False}
        pages = self.server.pages(self.collection, scroll_filter=having, **wanted)
        marks = (mark_of(self._stamp(point)) for page in pages for point in page)
        return Counter("" if said.endswith(UNFINISHED) else said for said in marks)

    def take(self, ids: list[Any]) -> Any:
        """Put a claim beside these points' stamps.

        Args:
            ids: of points; those that are gone are passed by.

        Returns:
            The condition that a point still has this claim.
        """
        models, token = self.server.models, uuid4().hex
        self.server.ask("set_payload", self.collection, payload={self.claim: token}, points=self._named(ids))
        return models.FieldCondition(key=_path(self.claim), match=models.MatchValue(value=token))

    def put(self, rows: dict[Any, tuple[Any, str]], claim: Any) -> None:
        """Write vectors where the claim is still there, then the stamps of the same points.

        Args:
            rows: id → vector and stamp.
            claim: as `take` gave it.

        Raises:
            Gone: a point was deleted meanwhile; others may be unwritten.
        """
        models = self.server.models
        if not rows:
            return
        points = [models.PointVectors(id=one, vector={self.name: vector.tolist()}) for one, (vector, _) in rows.items()]
        self.server.ask("update_vectors", self.collection, points, update_filter=models.Filter(must=[claim]))
        payloads = [models.SetPayload(payload={self.key: stamp}, points=[one]) for one, (_, stamp) in rows.items()]
        operations = [models.SetPayloadOperation(set_payload=payload) for payload in payloads]
        self.server.ask("batch_update_points", self.collection, operations)

    def release(self, ids: list[Any], claim: Any) -> None:
        """Take the claim away.

        Args:
            ids: of points.
            claim: as `take` gave it.
        """
        self.server.ask("delete_payload", self.collection, keys=[_path(self.claim)], points=self._named(ids, claim))

    def index(self) -> None:
        """Index the claims where the server demands it, as Qdrant Cloud does; between two writes it holds nothing."""
        if self._strict():
            keyword = self.server.models.PayloadSchemaType.KEYWORD
            self.server.ask("create_payload_index", self.collection, field_name=_path(self.claim), field_schema=keyword)

    def clear(self) -> None:
        """Take all stamps, claims and their index away."""
        for page in self.server.pages(self.collection, limit=PAGE, with_payload=self._keys, with_vectors=False):
            ids = [point.id for point in page if point.payload]
            if ids:
                self.server.ask("delete_payload", self.collection, keys=self._keys, points=self._named(ids))
        if self._strict():
            self.server.ask("delete_payload_index", self.collection, field_name=_path(self.claim))

    def _strict(self) -> bool:
        config = self.server.ask("get_collection", self.collection).config.strict_mode_config
        return bool(config and config.enabled and config.unindexed_filtering_update is False)

    def _named(self, ids: list[Any], *conditions: Any) -> Any:
        """A filter: a list of ids would fail where one of them is gone."""
        models = self.server.models
        return models.Filter(must=[models.HasIdCondition(has_id=ids), *conditions])

    def _stamp(self, point: Any) -> str:
        payload = point.payload or {}
        said, _, digest = str(payload.get(self.key, "")).partition("#")
        return f"{said}{UNFINISHED if self.claim in payload else ''}#{digest}" if said else ""


def _path(key: str) -> str:
    """A payload key as one step of a path, whatever dots are in it."""
    return f'"{key}"'
