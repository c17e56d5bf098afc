"""NCCL: contrast with a memory of old features, in which close neighbours of the same class count most."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...arrays import Array, as_tensor, check_labels, check_vectors, unit_rows
from ...errors import ConfigError
from ...pseudo.centres import mean_classifier
from ..batch import check_dimension, exact, whole_batch

BLOCK = 8192  # rows whose class probabilities are held at a time
KEPT = 0.9  # share of the old features that the entropy filter lets through


def nccl_loss(
    features: Float[Tensor, "b d"],
    labels: Int[Tensor, " b"],
    old: Float[Tensor, "b d"],
    memory: Float[Tensor, "m d"],
    memory_labels: Int[Tensor, " m"],
    *,
    temperature: float = 0.1,
) -> Float[Tensor, ""]:
    """Mean over anchors of −Σ_j w_ij log(e^{f̂_i·ô_j/τ} / Σ_k e^{f̂_i·ô_k/τ}) / Σ_j w_ij over the memory's rows j of i's class.

    The weight of a positive is w_ij = (ô_i·ô_j + 1) / 2: what resembles the image's own old feature counts for more.

    Args:
        features: (b, d) new features of the batch.
        labels: (b,) their classes.
        old: (b, d) old features of the same images.
        memory: (m, d) unit old features.
        memory_labels: (m,) their classes.
        temperature: τ > 0.

    Returns:
        The mean over the anchors that have a positive; 0 where none has.

    Source: Wu et al., Neighborhood consensus contrastive learning for backward-compatible representation, AAAI 2022; its
    second term, on the logits, is missing here.
    """
    new, own = F.normalize(features, dim=1), F.normalize(old, dim=1)
    with exact(features):
        logits = new @ memory.T / temperature
        weights = ((own @ memory.T + 1) / 2).clamp(min=0) * (labels[:, None] == memory_labels)
        total = weights.sum(dim=1)
        found = total > 0
        each = logits.logsumexp(dim=1) - (weights * logits).sum(dim=1) / total.clamp(min=1e-12)
        return (each * found).sum() / found.sum().clamp(min=1)


def class_entropy(
    vectors: Float[Tensor, "n d"], centres: Float[Tensor, "c d"], *, temperature: float = 0.1
) -> Float[Tensor, " n"]:
    """Entropy of softmax(ô·ĉ / τ) over the classes: how uncertain the old space is about an image.

    Args:
        vectors: (n, d) old features.
        centres: (c, d) class centres, of any length.
        temperature: τ > 0.

    Returns:
        (n,) entropies in nats.
    """
    rows, directions = unit_rows(vectors), unit_rows(centres)
    blocks = [F.log_softmax(block @ directions.T / temperature, dim=1) for block in rows.split(BLOCK)]
    return torch.cat([-(block.exp() * block).sum(dim=1) for block in blocks])


class NcclLoss(nn.Module):
    """`nccl_loss` against rows drawn anew for every batch from the whole cache, the least certain tenth left out.

    Args:
        old: (n, d_old) old feature of every training image, in the order of the training set.
        labels: (n,) their classes, each number up to the largest occurs.
        temperature: τ > 0, of the loss and of the entropy.
        sample: rows of the cache that a batch is compared with; n or more takes all.
        seed: of the draws, which are the same on every process.

    Raises:
        ConfigError: temperature or sample out of range.
        DataError: the old features or labels are unusable.
    """

    old: Tensor
    labels: Tensor
    kept: Tensor
    batches: Tensor

    def __init__(
        self,
        old: Float[Array, "n d_old"],
        labels: Int[Array, " n"],
        *,
        temperature: float = 0.1,
        sample: int = 4096,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if temperature <= 0 or sample < 1:
            raise ConfigError(f"temperature must be above 0 and sample at least 1; got {temperature} and {sample}")
        vectors = check_vectors(old, "old features", nonzero=True)
        classes = check_labels(labels, len(vectors)).to(vectors.device)
        entropy = class_entropy(vectors, as_tensor(mean_classifier(unit_rows(vectors), classes)), temperature=temperature)
        self.register_buffer("old", unit_rows(vectors), persistent=False)
        self.register_buffer("labels", classes, persistent=False)
        self.register_buffer("kept", sure_rows(entropy), persistent=False)
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))
        self.temperature, self.sample, self.seed = temperature, sample, seed

    def check_dimension(self, dimension: int) -> None:
        """Check that the new model has room for the old space.

        Args:
            dimension: of the new model's features.

        Raises:
            IncompatibleError: it is below that of the old features.
        """
        check_dimension(dimension, self.old.shape[1])

    def forward(
        self, features: Float[Tensor, "b d_new"], labels: Int[Tensor, " b"], rows: Int[Tensor, " b"]
    ) -> Float[Tensor, ""]:
        new, classes, places = whole_batch(features, labels, rows, self.old.shape[1])
        drawn = self.kept
        if self.sample < len(drawn):
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + int(self.batches))
            drawn = drawn[torch.randint(len(drawn), (self.sample,), generator=generator).to(drawn.device)]
        self.batches += 1
        old, memory = self.old[places].to(new.dtype), self.old[drawn].to(new.dtype)
        return nccl_loss(new, classes, old, memory, self.labels[drawn], temperature=self.temperature)


def sure_rows(entropy: Float[Tensor, " n"]) -> Int[Tensor, " kept"]:
    """The nine tenths of the rows with the smallest entropy.

    Args:
        entropy: (n,) of each row.

    Returns:
        (kept,) row numbers, ascending.
    """
    return entropy.argsort(stable=True)[: max(1, int(KEPT * len(entropy)))].sort().values
