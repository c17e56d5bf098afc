"""Compatible losses as sentence-transformers' trainer calls them: loss(sentence_features, labels)."""

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..errors import ConfigError, DataError, IncompatibleError
from ..losses import gather
from ..losses.batch import exact

SCALE = 20.0  # of cosines in a softmax, as sentence-transformers has it
CITATION = """
@misc{nicl-2020,
    title = "Non-Inherent Feature Compatible Learning",
    note = "Submitted to ICLR 2021",
    year = "2020",
}
"""


def _dimension(model: Any) -> int | None:
    return model.get_embedding_dimension() if hasattr(model, "get_embedding_dimension") else None


class CompatibleLoss(nn.Module):
    """A usual loss, and a compatible one of the same embeddings: `usual + weight · compatible`.

    The trainer logs both parts. The label column holds the class of each text, in [0, c); losses that look up the old feature
    of the text itself (`RegressionLoss`, `NeighbourLoss`, `RankingLoss`) need its row too: then each label is `[class, row]`.
    Losses without classes ignore the class, which may be 0.

    Args:
        model: the `SentenceTransformer` that is trained; its embeddings have at least as many dimensions as the old features.
        compatible: a loss of this package, called as loss(features, labels, rows), such as `InfluenceLoss`.
        usual: any loss of sentence-transformers for the same model, or `ClassLoss`; it is given the classes as labels. Where it
            cannot take embeddings (the gradient-cached ones), every text is embedded twice. None: the compatible loss alone.
        weight: of the compatible loss; the paper has 1.
        columns: which columns of texts the labels are about; the compatible loss is their mean. (0,) is the anchor alone;
            (0, 1) where the positive has the same class.

    Raises:
        ConfigError: a negative weight, or no column.
        IncompatibleError: the model has fewer dimensions than the old features.

    Source: Non-Inherent Feature Compatible Learning, Eq. 6.
    """

    def __init__(
        self,
        model: nn.Module,
        compatible: nn.Module,
        usual: nn.Module | None = None,
        *,
        weight: float = 1.0,
        columns: Sequence[int] = (0,),
    ) -> None:
        super().__init__()
        if weight < 0 or not columns:
            raise ConfigError(
                f"weight must be 0 or more, and columns must name one at least; got {weight} and {tuple(columns)}"
            )
        dimension, check = _dimension(model), getattr(compatible, "check_dimension", None)
        if dimension is not None and check is not None:
            check(dimension)
        self.model, self.compatible, self.usual = model, compatible, usual
        self.weight, self.columns = weight, tuple(columns)

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None) -> dict[str, Tensor]:
        """The two parts, which the trainer adds up.

        Args:
            sentence_features: the tokens of each column.
            labels: (b,) classes, or (b, 2) classes and rows.

        Returns:
            `usual` and `compatible`, each a scalar; the weight is in the latter.

        Raises:
            DataError: the labels are no integers of these shapes.
            IncompatibleError: the loss needs rows, or a column is not there.
        """
        texts = list(sentence_features)
        classes, rows = self._labels(labels)
        if max(self.columns) >= len(texts):
            raise IncompatibleError(f"column {max(self.columns)} of the texts is asked for, and there are {len(texts)}")
        shared = self.usual is not None and hasattr(self.usual, "compute_loss_from_embeddings")
        embedded = range(len(texts)) if shared else sorted(set(self.columns))
        vectors = {column: self.model(dict(texts[column]))["sentence_embedding"] for column in embedded}
        parts = {}
        if shared:
            usual: Any = self.usual
            parts["usual"] = usual.compute_loss_from_embeddings(list(vectors.values()), classes)
        elif self.usual is not None:
            parts["usual"] = self.usual(texts, classes)
        losses = [self.compatible(vectors[column], classes, rows) for column in self.columns]
        return parts | {"compatible": self.weight * torch.stack(losses).mean()}

    def _labels(self, labels: Tensor | None) -> tuple[Int[Tensor, " b"], Int[Tensor, " b"] | None]:
        if labels is None or labels.is_floating_point() or labels.shape[1:] not in ((), (2,)):
            found = "none" if labels is None else f"{labels.dtype} of shape {tuple(labels.shape)}"
            raise DataError(
                f"the label of a text must be its class, or [class, row], integers; got {found}; give a column label"
            )
        if labels.ndim == 2:
            return labels[:, 0], labels[:, 1]
        parameter = inspect.signature(self.compatible.forward).parameters.get("rows")
        if parameter is not None and parameter.default is inspect.Parameter.empty:
            name = type(self.compatible).__name__
            raise IncompatibleError(
                f"{name} looks up the old feature of each text; make the labels [class, row] instead of the class"
            )
        return labels, None

    def get_config_dict(self) -> dict[str, Any]:
        """What the model card says of this loss."""
        return {"usual": self.usual, "compatible": self.compatible, "weight": self.weight, "columns": list(self.columns)}

    @property
    def citation(self) -> str:
        """BibTeX for the model card."""
        return CITATION


class ClassLoss(nn.Module):
    """Softmax over classes, the paper's `CE(W f, y)`, for single texts (`SoftmaxLoss` of sentence-transformers takes pairs).

    W is trained with the model and thrown away afterwards. With several processes, each computes the loss of all their
    texts, so that W stays the same in all of them.

    Args:
        model: the `SentenceTransformer` that is trained.
        classes: how many there are.
        scale: of the cosines; None for raw inner products and a bias, the paper's form, for models without unit length.
        columns: which columns of texts have the class of the label.

    Raises:
        ConfigError: fewer than two classes, or a model that does not say its dimension.
    """

    def __init__(self, model: nn.Module, classes: int, *, scale: float | None = SCALE, columns: Sequence[int] = (0,)) -> None:
        super().__init__()
        dimension = _dimension(model)
        if dimension is None or classes < 2:
            raise ConfigError(f"a softmax needs two classes and a known dimension; got {classes} and {dimension}")
        self.model, self.scale, self.columns = model, scale, tuple(columns)
        self.classifier = nn.Linear(dimension, classes, bias=scale is None, device=getattr(model, "device", None))

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> Float[Tensor, ""]:
        """The mean over columns and texts.

        Args:
            sentence_features: the tokens of each column.
            labels: (b,) classes in [0, c).

        Returns:
            A scalar.
        """
        return self.compute_loss_from_embeddings(
            [self.model(dict(features))["sentence_embedding"] for features in sentence_features], labels
        )

    def compute_loss_from_embeddings(
        self, embeddings: list[Float[Tensor, "b d"]], labels: Int[Tensor, " b"]
    ) -> Float[Tensor, ""]:
        """The same where the texts are embedded already.

        Args:
            embeddings: (b, d) of each column.
            labels: (b,) classes in [0, c).

        Returns:
            A scalar.
        """
        vectors = torch.cat([gather(embeddings[column].float()) for column in self.columns])
        targets = gather(labels).repeat(len(self.columns))
        with exact(vectors):
            if self.scale is None:
                return F.cross_entropy(self.classifier(vectors), targets)
            rows = F.normalize(self.classifier.weight, dim=1)
            return F.cross_entropy(self.scale * F.normalize(vectors, dim=1) @ rows.T, targets)

    def get_config_dict(self) -> dict[str, Any]:
        """What the model card says of this loss."""
        return {"classes": self.classifier.out_features, "scale": self.scale, "columns": list(self.columns)}
