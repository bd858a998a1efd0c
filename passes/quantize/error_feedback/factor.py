"""The factor U of an inverse Hessian, damped as little as makes it positive definite.

GPTQ needs the upper triangular U with H^-1 = U^T U (Frantar et al. 2022, arXiv:2210.17323, section
3.3, step 3). Reversing rows and columns turns an ordinary Cholesky factor into R with H = R R^T, R
upper triangular; then U = R^-1. That is one factorisation and one triangular inverse, 2/3 K^3
multiplications, where factor, inverse and factor again take 4/3 K^3.

From K = 1024 on this is done in float32, at twice the rate. The factor is then tried on a vector
of signs v: where U H U^T v is not v to within 3e-4 of its length, or H is not positive definite in
float32, float64 does it again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Factor", "inverse_factor"]

Floats = npt.NDArray[np.float32]
AnyFloats = npt.NDArray[np.floating]

_TRIES = 6
"""Times that the damping is made ten times larger before a Hessian is given up."""

_SINGLE = 1024
"""K from which on float32 is tried."""

_OFF = 3e-4
"""||U H U^T v - v|| / ||v|| that a factor in float32 may have."""


@dataclass(frozen=True, slots=True, eq=False)
class Factor:
    """What became of one Hessian.

    Attributes:
        upper: U, float32[K, K].
        damping: Share of the mean diagonal that was added to the diagonal.
        dead: Which inputs were zero for every token, bool[K]: their weights do not matter.
    """

    upper: Floats
    damping: float
    dead: npt.NDArray[np.bool_]


def inverse_factor(hessian: AnyFloats, damping: float) -> Factor | None:
    """U with U^T U = (H + damping mean(diag H) I)^-1.

    The diagonal of a dead input becomes the mean, which makes it a column on its own. Where H with
    this damping is not positive definite, ten times as much is added, up to six times.

    Args:
        hessian: float[K, K], symmetric, positive semidefinite but for rounding.
        damping: Share of the mean diagonal, > 0.

    Returns:
        The factor, or None where H has NaN or no damping makes it positive definite.
    """
    diagonal = np.array(np.einsum("ii->i", hessian), dtype=np.float64)
    if not all(np.isfinite(row).all() for row in hessian):
        return None
    dead = diagonal <= 0
    live = diagonal[~dead]
    mean = float(live.mean()) if live.size else 1.0
    diagonal[dead] = mean
    share = damping
    for _ in range(_TRIES):
        damped = diagonal + share * mean
        upper = None
        if len(hessian) >= _SINGLE:
            upper = _factored(hessian, damped, dead, np.float32)
            if upper is not None and _off(upper, hessian, damped, dead) > _OFF:
                upper = None
        if upper is None:
            upper = _factored(hessian, damped, dead, np.float64)
        if upper is not None:
            return Factor(upper, share, dead)
        share *= 10
    return None


def _factored(
    hessian: AnyFloats,
    diagonal: npt.NDArray[np.float64],
    dead: npt.NDArray[np.bool_],
    dtype: type[np.floating],
) -> Floats | None:
    """U of a matrix with another diagonal, computed in ``dtype``; None if it is not definite."""
    from scipy.linalg import lapack

    # Reversed, and factored in place. LAPACK counts by columns, and takes it for its transpose,
    # which is the same; so the triangle that it leaves is U from its end, row by row.
    matrix = np.array(hessian[::-1, ::-1], dtype=dtype)
    if dead.any():
        matrix[dead[::-1], :] = 0.0
        matrix[:, dead[::-1]] = 0.0
    np.einsum("ii->i", matrix)[...] = diagonal[::-1]
    single = dtype is np.float32
    factor = lapack.spotrf if single else lapack.dpotrf
    invert = lapack.strtri if single else lapack.dtrtri
    upper, info = factor(matrix.T, lower=0, clean=1, overwrite_a=1)
    if info == 0:
        upper, info = invert(upper, lower=0, overwrite_c=1)
    if info != 0:
        return None
    return np.ascontiguousarray(upper.T[::-1, ::-1], dtype=np.float32)


def _off(
    upper: Floats,
    hessian: AnyFloats,
    diagonal: npt.NDArray[np.float64],
    dead: npt.NDArray[np.bool_],
) -> float:
    """||U H U^T v - v|| / ||v|| for signs v, H with another diagonal."""
    v = np.random.default_rng(0).choice(np.array([-1, 1], np.float32), len(upper))
    x = v @ upper
    alive = np.where(dead, np.float32(0), x)
    moved = np.where(dead, np.float32(0), alive @ hessian)
    moved += (diagonal - np.where(dead, 0.0, np.einsum("ii->i", hessian))).astype(np.float32) * x
    return float(np.linalg.norm(upper @ moved - v) / np.sqrt(len(v)))
