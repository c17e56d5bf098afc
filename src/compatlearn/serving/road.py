"""What stands behind a name of the proxy: queries through the map, or documents as the old model embeds them."""

import asyncio
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ..errors import IncompatibleError
from ..evaluation.profile import Profile
from ..runtime import Map, MapError
from .refusal import RefusalError
from .upstream import BAD_ANSWER, Embedded, Upstream

DIRECT = 64  # vectors that are mapped without handing them to a thread: less than a millisecond


@dataclass(frozen=True)
class Reply:
    """Vectors of the old space.

    Attributes:
        vectors: (b, d_old) float32.
        tokens: that were counted.
        far: how many of the queries lie far from all pairs of the plan; None where there is no profile.
    """

    vectors: Float[np.ndarray, "b d"]
    tokens: int
    far: int | None = None


@dataclass(frozen=True)
class Queries:
    """Queries by the new model, mapped into the old space; or fused with the same queries by the old model.

    Attributes:
        new: the new model.
        map: into the old space.
        old: the old model, for fused queries; None: mapped ones alone.
        weight: of the mapped query beside the old one.
        profile: of the plan, to tell queries that lie far from its pairs.
    """

    new: Upstream
    map: Map
    old: Upstream | None = None
    weight: float = 1.5
    profile: Profile | None = None

    def __post_init__(self) -> None:
        _same_space(self.new, self.map.space_new, "new")
        if self.old is not None:
            _same_space(self.old, self.map.space_old, "old")
        if self.profile is not None and self.profile.pairs.shape[1] != self.map.d_in:
            raise IncompatibleError(
                f"the plan's profile has {self.profile.pairs.shape[1]} dimensions and its map takes {self.map.d_in}; "
                "make the plan again"
            )

    @property
    def dimension(self) -> int:
        """Of the answers."""
        return self.map.d_out

    @property
    def space(self) -> str:
        """Of the answers."""
        return self.map.space_old

    async def embed(self, texts: list[str], authorization: str | None) -> Reply:
        """Vectors of queries.

        Args:
            texts: at least one.
            authorization: header of the client.

        Raises:
            RefusalError: what the client is told.
        """
        if self.old is None:
            new, old = await self.new.embed(texts, authorization), None
        else:
            new, old = await asyncio.gather(self.new.embed(texts, authorization), self.old.embed(texts, authorization))
            _check_dimension(old, self.map.d_out, self.old)
        _check_dimension(new, self.map.d_in, self.new)
        if len(texts) <= DIRECT:
            vectors, far = self._mapped(new, old)
        else:
            vectors, far = await asyncio.to_thread(self._mapped, new, old)
        return Reply(vectors, new.tokens + (0 if old is None else old.tokens), far)

    def _mapped(self, new: Embedded, old: Embedded | None) -> tuple[Float[np.ndarray, "b d"], int | None]:
        try:
            vectors = self.map(new.vectors) if old is None else self.map.fused(new.vectors, old.vectors, self.weight)
        except MapError as error:
            raise RefusalError(502, f"{self.new.space} gave what cannot be mapped: {error}", BAD_ANSWER) from error
        return vectors, None if self.profile is None else int(self.profile.far(new.vectors).sum())


@dataclass(frozen=True)
class Documents:
    """Documents by the old model, as they are: what goes into the index is never mapped.

    Attributes:
        old: the old model.
        dimension: of the answers.
        space: of the answers.
    """

    old: Upstream
    dimension: int
    space: str = ""

    def __post_init__(self) -> None:
        _same_space(self.old, self.space, "old")

    async def embed(self, texts: list[str], authorization: str | None) -> Reply:
        """Vectors of documents.

        Args:
            texts: at least one.
            authorization: header of the client.

        Raises:
            RefusalError: what the client is told.
        """
        embedded = await self.old.embed(texts, authorization)
        _check_dimension(embedded, self.dimension, self.old)
        return Reply(embedded.vectors, embedded.tokens)


Road = Queries | Documents


def _same_space(upstream: Upstream, space: str, age: str) -> None:
    if upstream.space and space and upstream.space != space:
        raise IncompatibleError(
            f"the {age} model is {upstream.space!r}, and the map was made for {space!r}; name that model, or make another map"
        )


def _check_dimension(embedded: Embedded, dimension: int, upstream: Upstream) -> None:
    given = embedded.vectors.shape[1]
    if given != dimension:
        raise RefusalError(502, f"{upstream.space} gave {given} dimensions where {dimension} are needed", BAD_ANSWER)
