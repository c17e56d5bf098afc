"""Adapters: maps from the vectors of a frozen new model to those of a frozen old one, both black boxes."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from sklearn.exceptions import NotFittedError
from torch import Tensor

from ..arrays import Array, as_tensor, check_rows, like
from ..errors import ConfigError, IncompatibleError
from ..features.features import Features
from ..metric import check_metric
from . import file
from .choice import Wish, choose, record
from .estimator import Conventional
from .matched import NAMES, Matched, as_rows, facts, inspect
from .methods import GALLERY, QUERY, check_method
from .pairs import BLOCK
from .task import Tell, silent
from .trials import Trial


class Adapter(Conventional):
    """New vectors in, old vectors out: a map between two frozen models, by scikit-learn's conventions.

    Fitted, it is called as a function or with `transform`: (n, d_new) → (n, d_old) float32, NumPy or torch as given, on the
    same device. If every old vector it was fitted to has unit length, so has what it gives.

    Args:
        method: a name in `ADAPTERS`, or "auto": several are tried on pairs kept out, and the best is taken.
        direction: "query": new queries become old ones, and the index stays as it is; "gallery": old vectors become new
            ones, and a translated index answers new queries.
        seed: of the pairs kept out and of training.
        metric: what ranks the index, and therefore the trials: "euclidean", "cosine" or "dot".
        unseen_classes: for "auto": the gallery's classes are not those of the pairs, so whole classes are kept out.
        options: of the method, see `ADAPTERS[method].options`.

    Attributes:
        method_: what was fitted.
        trials_: a `Trial` for each candidate of "auto", on the pairs that chose; otherwise empty.
        test_: the `Trial` of what was fitted, on pairs that took no part in choosing it, or None.
        network_: the `torch.nn.Module`: (b, d_new) → (b, d_old) float32; it can be trained on and traced.
        record_: date, version, hashes of the inputs, figures: what the file's header says.
        n_features_in_: d_new.
        space_new: the new model; "" is unknown.
        space_old: the old model; "" is unknown.

    Example:
        >>> import numpy as np
        >>> new = np.random.default_rng(0).normal(size=(200, 4))
        >>> old = new[:, ::-1]
        >>> adapter = Adapter("procrustes").fit(new, old)
        >>> bool(np.allclose(adapter.transform(new), old, atol=1e-5))
        True
        >>> adapter.method_, adapter.d_new, adapter.d_old
        ('procrustes', 4, 4)
    """

    space_new = space_old = ""

    def __init__(
        self,
        method: str = "auto",
        direction: str = "query",
        seed: int = 0,
        metric: str = "euclidean",
        unseen_classes: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.method = method
        self.direction = direction
        self.seed = seed
        self.metric = metric
        self.unseen_classes = unseen_classes
        self.options = options

    def fit(self, new: Any, old: Any, labels: Any = None, *, others: Any = None) -> "Adapter":
        """Fit to new and old vectors of the same items, row by row.

        Args:
            new: (n, d_new) finite floats, NumPy (memory maps are read in blocks), torch, or lists.
            old: (n, d_old) likewise.
            labels: (n,) integer classes, for the methods that need them; `auto` uses them where they are given.
            others: (m, d_old) old vectors of further items of the gallery, for the methods that learn from them.

        Returns:
            The adapter itself.

        Raises:
            ConfigError: no such method, option, metric or direction.
            DataError: fewer than ten pairs, vectors that nothing can be fitted to, or no labels where they are needed.
            IncompatibleError: another number of rows.
            TrainingError: training does not converge.
        """
        self._check()
        classes = as_tensor(torch.as_tensor(labels)) if isinstance(labels, list) else labels
        matched = Matched.by_row(as_rows(new, NAMES[0]), as_rows(old, NAMES[1]), classes)
        gallery = None if others is None else as_tensor(as_rows(others, "the other items"))
        return self._fit(matched, tested=False, tell=silent, gallery=gallery)

    def fit_features(self, new: Features, old: Features, *, names: tuple[str, str] = NAMES, tell: Tell = silent) -> "Adapter":
        """Fit to two sets of features, matched by id; a named method, too, is first tried on pairs kept out.

        Args:
            new: the new model's features, with labels where there are any.
            old: the old model's features of the same items, in any order, and of others.
            names: what messages call the two.
            tell: takes lines of progress.

        Returns:
            The adapter itself, with `test_`.

        Raises:
            ConfigError: as `fit`.
            DataError: as `fit`, naming the row and its id; or an id that occurs more than once.
            IncompatibleError: ids that do not match, or have another class on the other side.
            TrainingError: as `fit`.
        """
        self._check()
        matched = Matched.by_id(new, old, names)
        return self._fit(matched, tested=True, tell=tell, gallery=matched.others(old, self.seed))

    @torch.no_grad()
    def transform(self, vectors: Any) -> Any:
        """Map new vectors into the old space, or with direction "gallery" old vectors into the new one.

        Args:
            vectors: (n, d_new) float16, float32 or float64, finite; NumPy, torch, or lists; (n, d_old) for the gallery. Under
                the cosine they are scaled to unit length first, if those were that the map was fitted to.

        Returns:
            (n, d_old) float32, or (n, d_new) for the gallery; of the kind that was given, on its device; NumPy for lists.

        Raises:
            IncompatibleError: another dimension.
            DataError: vectors that cannot be used.
        """
        side = "old" if self.direction == GALLERY else "new"
        name = f"the {side} features"
        rows = as_rows(vectors, name)
        check_rows(rows, name)
        if rows.shape[1] != self._widths[0]:
            raise IncompatibleError(
                f"the adapter maps {self._widths[0]} dimensions, {name} have {rows.shape[1]}; "
                "fit it on features of the same model"
            )
        device = self._fitted().centre.device
        blocks = (as_tensor(rows[start : start + BLOCK]).to(device, torch.float32) for start in range(0, len(rows), BLOCK))
        return like(torch.cat([self._fitted()(self.record_.scaled(block)) for block in blocks]), rows)

    def __call__(self, vectors: Any) -> Any:
        """`transform`."""
        return self.transform(vectors)

    @property
    def d_new(self) -> int:
        """Dimensions of the new model."""
        return self._widths[1 if self.direction == GALLERY else 0]

    @property
    def d_old(self) -> int:
        """Dimensions of the old model."""
        return self._widths[0 if self.direction == GALLERY else 1]

    @property
    def _widths(self) -> tuple[int, int]:
        """Dimensions that go in, and that come out."""
        sizes = self._fitted().sizes
        return int(sizes["d_new"]), int(sizes["d_old"])

    def to(self, device: torch.device | str) -> "Adapter":
        """Move the network to a device; the adapter itself comes back."""
        self._fitted().to(device)
        return self

    def save(self, path: str | Path) -> None:
        """Write a safetensors file whose header says what `record_` says; atomic.

        Args:
            path: the .safetensors file.

        Raises:
            DataError: the disk is full, or the path cannot be written.
        """
        network = self._fitted()
        file.write(Path(path), network, replace(self.record_, space_new=self.space_new, space_old=self.space_old))

    def __repr__(self, N_CHAR_MAX: int = 700) -> str:
        network = getattr(self, "network_", None)
        if network is None:
            return str(super().__repr__(N_CHAR_MAX))
        rows = "" if self.record_.rows is None else f", {self.record_.rows} pairs"
        when = f", {self.record_.date}" if self.record_.date else ""
        return f"Adapter({self.method_}, {self._widths[0]} to {self._widths[1]} dimensions{rows}{when})"

    def __str__(self) -> str:
        if getattr(self, "network_", None) is None:
            return repr(self)
        record = asdict(self.record_) | {"space_new": self.space_new, "space_old": self.space_old}
        if self.test_ is not None:
            record["figures"] = str(self.test_)
        return "\n".join([repr(self), *(f"  {name}: {value}" for name, value in record.items() if value not in ("", {}, None))])

    def _check(self) -> None:
        if self.direction not in (QUERY, GALLERY):
            raise ConfigError(f"direction {self.direction!r} is unknown; use 'query' (new to old) or 'gallery' (old to new)")
        check_metric(self.metric)
        check_method(self.method, self.options or {}, unseen_classes=self.unseen_classes)

    def _fit(self, matched: Matched, *, tested: bool, tell: Tell, gallery: Tensor | None = None) -> "Adapter":
        seen = inspect(matched, directions=self.metric == "cosine")
        known = facts(matched, seen[1])
        tell(f"data: {known}")
        turned = self.direction == GALLERY
        others = None if turned else gallery  # old vectors are what a map of the gallery is given, not what it gives
        metric = check_metric(self.metric)
        wish = Wish(self.method, self.options or {}, metric, self.seed, self.unseen_classes, self.direction, others)
        facing = matched.turned() if turned else matched
        choice = choose(facing, seen[0 if turned else 1], wish, tested=tested, tell=tell)
        self.method_, self.network_, self.trials_, self.test_ = choice.method, choice.network, choice.trials, choice.test
        self.n_features_in_ = self._widths[0]
        self.space_new, self.space_old = matched.space_new, matched.space_old
        self.record_ = record(matched, choice, wish, known, seen[1 if turned else 0].unit)
        return self

    def _fitted(self) -> file.Network:
        network: file.Network | None = getattr(self, "network_", None)
        if network is None:
            raise NotFittedError("this Adapter is not fitted yet; call fit(new, old) first")
        return network


def fit_adapter(
    method: str,
    new: Float[Array, "n d_new"],
    old: Float[Array, "m d_old"],
    labels: Int[Array, " n"] | None = None,
    *,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> Adapter:
    """`Adapter(method, seed=seed, options=options).fit(new, old, labels)`.

    Args:
        method: a name in `ADAPTERS`, or "auto".
        new: (n, d_new) new vectors, finite, any dimension; memory maps are read in blocks.
        old: (n, d_old) old vectors of the same items, row by row.
        labels: (n,) integer classes, for the methods that need them.
        seed: of the pairs held out and of training.
        options: of the method, see `ADAPTERS[method].options`.

    Returns:
        The fitted adapter.

    Raises:
        ConfigError: no such method or option.
        DataError: unusable vectors, or no labels where they are needed.
        IncompatibleError: another number of rows.

    Example:
        >>> import numpy as np
        >>> new = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
        >>> adapter = fit_adapter("ridge", new, 2 * new[:, :3] + 1)
        >>> adapter(new).shape, adapter(new).dtype
        ((200, 3), dtype('float32'))
    """
    return Adapter(method, seed=seed, options=options).fit(new, old, labels)


def save_adapter(adapter: Adapter, path: str | Path) -> None:
    """`adapter.save(path)`."""
    adapter.save(path)


def load_adapter(path: str | Path) -> Adapter:
    """Read what `Adapter.save` wrote; files of earlier versions too.

    Args:
        path: the .safetensors file.

    Returns:
        A fitted adapter.

    Raises:
        DataError: there is no such file.
        FormatError: it is something else, or not whole.
    """
    network, record = file.read(Path(path))
    adapter = Adapter(record.method, record.direction, record.seed or 0, record.metric or "euclidean")
    adapter.options = record.options or None
    adapter.method_, adapter.network_, adapter.record_ = record.method, network, record
    adapter.trials_ = {}
    adapter.test_ = Trial.from_dict(record.figures) if record.figures else None
    adapter.n_features_in_ = adapter._widths[0]
    adapter.space_new, adapter.space_old = record.space_new, record.space_old
    return adapter
