"""RACT: every new feature picks its own image's old feature out of the hardest others in the whole cache."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ...arrays import Array, check_labels, check_vectors, unit_rows
from ..batch import check_dimension, exact, whole_batch

HARDEST = 10  # old features of other classes that an anchor is compared with
GROUP = 16  # rows of one class whose largest cosine is looked at first


def ract_loss(
    features: Float[Tensor, "b d"],
    labels: Int[Tensor, " b"],
    old: Float[Tensor, "b d"],
    hardest: Float[Tensor, "b k d"],
    absent: Bool[Tensor, "b k"],
    *,
    temperature: float = 0.01,
) -> Float[Tensor, ""]:
    """Mean of −log e^{f̂·ô/τ} / (e^{f̂·ô/τ} + Σ_{k hardest} e^{f̂·ô_k/τ} + Σ_{other classes of the batch} e^{f̂·f̂_k/τ}).

    Args:
        features: (b, d) new features of the batch.
        labels: (b,) their classes.
        old: (b, d) old features of the same images.
        hardest: (b, k, d) unit old features of other classes, k per anchor.
        absent: (b, k) true where there is no such feature.
        temperature: τ > 0.

    Returns:
        The mean over the batch.

    Source: Zhang et al., Hot-refresh model upgrades with regression-free compatible training, ICLR 2022.
    """
    new = F.normalize(features, dim=1)
    with exact(features):
        own = (new * F.normalize(old, dim=1)).sum(dim=1, keepdim=True)
        others = (hardest @ new[:, :, None])[:, :, 0].masked_fill(absent, -torch.inf)
        batch = (new @ new.T).masked_fill(labels[:, None] == labels, -torch.inf)
        logits = torch.cat([own, others, batch], dim=1) / temperature
        return (logits.logsumexp(dim=1) - logits[:, 0]).mean()


class RactLoss(nn.Module):
    """`ract_loss` with an exact memory: the hardest among all cached old features, which never grow stale.

    Rows lie in groups of one class. The k largest cosines are in the k groups with the largest maxima, so only the groups'
    maxima of the (n, b) product are kept, and only k groups are searched.

    Args:
        old: (n, d_old) old feature of every training image, in the order of the training set.
        labels: (n,) their classes.
        temperature: τ > 0.

    Raises:
        DataError: the old features or labels are unusable.
    """

    grouped: Tensor  # (GROUP · g, d_old) unit rows; group j is rows j, g + j, 2g + j, …
    place: Tensor  # (n,) the place of each row
    repeated: Tensor  # (GROUP · g,) true for rows that only fill up a group
    group_class: Tensor  # (g,)

    def __init__(self, old: Float[Array, "n d_old"], labels: Int[Array, " n"], *, temperature: float = 0.01) -> None:
        super().__init__()
        vectors = check_vectors(old, "old features", nonzero=True)
        size = max(1, min(GROUP, len(vectors) // (int(check_labels(labels, len(vectors)).max()) + 1)))
        order, repeated, group_class = _groups(check_labels(labels, len(vectors)).to(vectors.device), size)
        place = torch.empty(len(vectors), dtype=torch.long, device=vectors.device)
        place[order[~repeated]] = (~repeated).nonzero()[:, 0]
        state = {"grouped": unit_rows(vectors[order]), "place": place, "repeated": repeated, "group_class": group_class}
        for name, value in state.items():
            self.register_buffer(name, value, persistent=False)
        self.temperature = temperature

    def check_dimension(self, dimension: int) -> None:
        """Check that the new model has room for the old space.

        Args:
            dimension: of the new model's features.

        Raises:
            IncompatibleError: it is below that of the old features.
        """
        check_dimension(dimension, self.grouped.shape[1])

    def forward(
        self, features: Float[Tensor, "b d_new"], labels: Int[Tensor, " b"], rows: Int[Tensor, " b"]
    ) -> Float[Tensor, ""]:
        new, classes, places = whole_batch(features, labels, rows, self.grouped.shape[1])
        chosen, absent = self.hardest(new, classes)
        own, others = (self.grouped[each].to(new.dtype) for each in (self.place[places], chosen))
        return ract_loss(new, classes, own, others, absent, temperature=self.temperature)

    @torch.no_grad()
    def hardest(
        self, features: Float[Tensor, "b d"], labels: Int[Tensor, " b"]
    ) -> tuple[Int[Tensor, "b k"], Bool[Tensor, "b k"]]:
        """The k rows of other classes with the largest cosine.

        Args:
            features: (b, d) new features.
            labels: (b,) their classes.

        Returns:
            (b, k) places in `grouped`, and (b, k) true where there is no such row.
        """
        groups = len(self.group_class)
        with exact(features):
            new = F.normalize(features, dim=1).to(self.grouped.dtype)
            maxima, buffer = new.new_full((groups, len(new)), -torch.inf), new.new_empty(groups, len(new))
            for part in self.grouped.split(groups):
                torch.maximum(maxima, torch.mm(part, new.T, out=buffer), out=maxima)
            maxima.masked_fill_(self.group_class[:, None] == labels, -torch.inf)
            best = maxima.T.topk(min(HARDEST, groups), dim=1).indices
            size = len(self.grouped) // groups
            members = (best[:, :, None] + groups * torch.arange(size, device=best.device)).flatten(1)  # (b, k · size)
            cosines = (self.grouped[members] @ new[:, :, None])[:, :, 0]
        other = self.group_class[members % groups] != labels[:, None]
        found = cosines.masked_fill(~other | self.repeated[members], -torch.inf).topk(min(HARDEST, members.shape[1]), dim=1)
        return members.gather(1, found.indices), found.values == -torch.inf


def _groups(labels: Int[Tensor, " n"], size: int) -> tuple[Int[Tensor, " m"], Bool[Tensor, " m"], Int[Tensor, " g"]]:
    """The row at each place, whether it only fills up its group, and the class of each group."""
    blocks, filled, classes = [], [], []
    for c in labels.unique().tolist():
        members = (labels == c).nonzero()[:, 0]
        missing = -len(members) % size
        places = torch.arange(len(members) + missing, device=labels.device)
        blocks.append(members[places.clamp(max=len(members) - 1)].view(-1, size))
        filled.append((places >= len(members)).view(-1, size))
        classes += [c] * len(blocks[-1])
    order, repeated = torch.cat(blocks).T.flatten(), torch.cat(filled).T.flatten()
    return order, repeated, torch.tensor(classes, device=labels.device)
