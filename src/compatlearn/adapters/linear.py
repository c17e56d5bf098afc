"""The maps between two spaces that have a closed form: Procrustes and ridge.

Rows are read in blocks and only their second moments are kept, in float64, so that a memory map of any length is fitted
in bounded memory. A map is (weight, bias): new (d_new,) → weight (d_old, d_new) · new + bias (d_old,).
"""

from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from .pairs import Moments, Pairs, split_moments, sum_moments

STRENGTHS = torch.logspace(-8, 2, 21, dtype=torch.float64)  # of ridge, in units of the mean variance of a new dimension
Map: TypeAlias = tuple[Float[Tensor, "d_old d_new"], Float[Tensor, " d_old"]]


def procrustes(pairs: Pairs, *, unit: bool = False, centred: bool = False) -> Map:
    """The rotation that turns unit new features onto unit old ones, with a scale where old features are not of unit length.

    R = P Qᵀ from the singular value decomposition N̂ᵀ Ô = P Σ Qᵀ. Of unequal dimensions the smaller is padded with zeros; the
    thin decomposition is the same thing. The length of a new feature is kept, times the least-squares scale
    s = Σ oᵢ·(nᵢ R) / Σ ‖nᵢ R‖². A zero vector has no direction and does not count towards the rotation.

    Args:
        pairs: n pairs.
        unit: old features have unit length: s = 1.
        centred: the rotation is of vectors around the mean of their side, not of their directions.

    Returns:
        (d_old, d_new) weight and (d_old,) bias, float64; the bias is zero unless `centred`.

    Source: Schönemann, A generalized solution of the orthogonal Procrustes problem, Psychometrika 1966.
    """
    moments = sum_moments(pairs)
    x, y = moments.new / moments.count, moments.old / moments.count
    products = moments.around(x, y).new_old if centred else sum_moments(pairs, directions=True).new_old
    left, _, right = torch.linalg.svd(products, full_matrices=False)
    rotation = left @ right  # (d_new, d_old)
    if centred:
        return rotation.T, y - x @ rotation
    size = ((moments.new_new @ rotation) * rotation).sum()
    scale = 1.0 if unit or size == 0 else float((moments.new_old * rotation).sum() / size)
    return scale * rotation.T, rotation.new_zeros(rotation.shape[1])


def ridge(pairs: Pairs, seed: int = 0, *, strength: float | None = None) -> Map:
    """The affine map with the least Σ ‖W n + b − o‖² + n σ² strength ‖W‖², σ² the mean variance of a new dimension.

    One eigen-decomposition serves all strengths.

    Args:
        pairs: n pairs.
        seed: of the rows that are held out to choose the strength; the map is then fitted to all rows.
        strength: instead of the one that does best on held-out rows, among 10⁻⁸ … 10².

    Returns:
        (d_old, d_new) weight and (d_old,) bias, float64.

    Source: Hoerl and Kennard, Ridge regression, Technometrics 1970.
    """
    return ridge_of(split_moments(pairs, seed), strength)


def ridge_of(halves: tuple[Moments, Moments], strength: float | None = None) -> Map:
    """`ridge` from the moments of the rows to fit and of those held out."""
    fitted, held = halves
    strength = _best_strength(fitted, held) if strength is None else strength
    return _ridge(_Spectrum.of(fitted if held is fitted else fitted + held), strength)


@dataclass(frozen=True)
class _Spectrum:
    """Means, and the covariance of new features in its eigenvectors: one decomposition for every strength."""

    new: Float[Tensor, " d_new"]
    old: Float[Tensor, " d_old"]
    values: Float[Tensor, " d_new"]
    vectors: Float[Tensor, "d_new d_new"]
    cross: Float[Tensor, "d_new d_old"]  # covariance with the old features, in those eigenvectors

    @classmethod
    def of(cls, moments: Moments) -> "_Spectrum":
        x, y = moments.new / moments.count, moments.old / moments.count
        centred = moments.around(x, y)
        values, vectors = torch.linalg.eigh(centred.new_new)
        return cls(x, y, values.clamp(min=0), vectors, vectors.T @ centred.new_old)


def _ridge(spectrum: _Spectrum, strength: float) -> Map:
    damped = spectrum.values + strength * spectrum.values.mean()
    inverse = torch.where(damped > 0, 1 / damped.clamp(min=torch.finfo(damped.dtype).tiny), 0)  # constant features: no slope
    weight = ((spectrum.vectors * inverse) @ spectrum.cross).T
    return weight, spectrum.old - weight @ spectrum.new


def _best_strength(fitted: Moments, held: Moments) -> float:
    spectrum = _Spectrum.of(fitted)
    errors = [_error(_ridge(spectrum, float(one)), held) for one in STRENGTHS]
    return float(STRENGTHS[int(torch.stack(errors).argmin())])


def _error(fitted: Map, moments: Moments) -> Float[Tensor, ""]:
    """Mean of ‖W n + b − o‖², from moments alone."""
    weight, bias = fitted
    m = moments.around(torch.zeros_like(moments.new), bias)
    return (weight @ m.new_new * weight).sum() - 2 * (weight.T * m.new_old).sum() + m.old_old.trace()
