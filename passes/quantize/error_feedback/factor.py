"""The factor U of an inverse Hessian, damped as little as makes it positive definite.

GPTQ needs the upper triangular U with H^-1 = U^T U (Frantar et al. 2022, arXiv:2210.17323, section
3.3, step 3). Reversing rows and columns turns an ordinary Cholesky factor into R with H = R R^T, R
upper triangular; then U = R^-1. That is one factorisation and one triangular inverse, 2/3 K^3
multiplications, where factor, inverse and factor again take 4/3 K^3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Factor", "inverse_factor"]

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

_TRIES = 6
"""Times that the damping is made ten times larger before a Hessian is given up."""


@dataclass(frozen=True, slots=True, eq=False)
class Factor:
    """What became of one Hessian.

    Attributes:
        upper: U, float64[K, K].
        damping: Share of the mean diagonal that was added to the diagonal.
        dead: Which inputs were zero for every token, bool[K]: their weights do not matter.
    """

    upper: Doubles
    damping: float
    dead: npt.NDArray[np.bool_]


def inverse_factor(hessian: npt.NDArray[np.floating], damping: float) -> Factor | None:
    """U with U^T U = (H + damping mean(diag H) I)^-1.

    The diagonal of a dead input becomes the mean, which makes it a column on its own. Where H with
    this damping is not positive definite, ten times as much is added, up to six times.

    Args:
        hessian: float[K, K], symmetric, positive semidefinite but for rounding.
        damping: Share of the mean diagonal, > 0.

    Returns:
        The factor, or None where H has NaN or no damping makes it positive definite.
    """
    from scipy.linalg import lapack

    diagonal = np.array(np.einsum("ii->i", hessian)[::-1], dtype=np.float64)
    if not all(np.isfinite(row).all() for row in hessian):
        return None
    dead = diagonal <= 0
    live = diagonal[~dead]
    mean = float(live.mean()) if live.size else 1.0
    diagonal[dead] = mean
    share = damping
    for _ in range(_TRIES):
        # Reversed and in the order of columns, as LAPACK takes it, and factored in place.
        matrix = np.array(hessian[::-1, ::-1], dtype=np.float64, order="F")
        if dead.any():
            matrix[dead, :] = 0.0
            matrix[:, dead] = 0.0
        np.einsum("ii->i", matrix)[...] = diagonal + share * mean
        lower, info = lapack.dpotrf(matrix, lower=1, clean=1, overwrite_a=1)
        if info == 0:
            inverse, info = lapack.dtrtri(lower, lower=1, overwrite_c=1)
            if info == 0:
                return Factor(inverse[::-1, ::-1], share, dead[::-1].copy())
        share *= 10
    return None
