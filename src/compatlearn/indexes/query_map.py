"""What turns a new model's queries into queries of the old gallery: an adapter, a mixture, or a cut."""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float

from ..arrays import Array
from ..errors import IncompatibleError


@runtime_checkable
class QueryMap(Protocol):
    """Callable: (q, d_new) new queries to (q, d_old) queries of the old gallery, NumPy or torch as given.

    Attributes:
        d_new: dimension of what it takes; None: any that is at least d_old.
        d_old: dimension of what it gives.
        space_new: the model whose queries it takes; "" is unknown.
        space_old: the model whose gallery it asks; "" is unknown.
    """

    @property
    def d_new(self) -> int | None: ...
    @property
    def d_old(self) -> int: ...
    @property
    def space_new(self) -> str: ...
    @property
    def space_old(self) -> str: ...

    def __call__(self, new: Any, /) -> Any: ...


@dataclass(frozen=True)
class Cut:
    """The first d_old dimensions: how queries of a model that was trained to be compatible ask the old gallery.

    `search` does the same by itself where queries are longer than the gallery; an index that it does not own needs it said.

    Attributes:
        d_old: dimensions that are kept.
        d_new: dimensions that come in; None: any that is at least d_old.
        space_new: the model whose queries it takes; "" is unknown.
        space_old: the model whose gallery it asks; "" is unknown.
    """

    d_old: int
    d_new: int | None = None
    space_new: str = ""
    space_old: str = ""

    def __call__(self, new: Float[Array, "q d_new"]) -> Float[Array, "q d_old"]:
        """The queries without their tail; a view, not a copy.

        Args:
            new: (q, d_new) NumPy or torch.

        Returns:
            (q, d_old) of the same kind and dtype.

        Raises:
            IncompatibleError: queries of another dimension than d_new, or of less than d_old.
        """
        width = new.shape[1]
        if width < self.d_old or self.d_new not in (None, width):
            wanted = f"at least {self.d_old}" if self.d_new is None else str(self.d_new)
            raise IncompatibleError(
                f"the cut to {self.d_old} dimensions takes queries of {wanted}; these have {width}: "
                "embed them with the new model, or fit an adapter"
            )
        return new[:, : self.d_old]
