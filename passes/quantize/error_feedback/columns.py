"""GPTQ and GPTAQ: columns rounded in turn, each error made good by the columns to come.

With H^-1 = U^T U and the columns in their order, column i of the (already changed) weights is
rounded and all later columns move:

    e = (w_i - q_i) / U_ii,        W[:, i:] <- W[:, i:] - e U[i, i:] + w_i P[i, i:].

The first term is GPTQ's (Frantar et al. 2022, arXiv:2210.17323, equations 2 to 5 in the Cholesky
form of section 3.3). The second makes good what quantized predecessors have done to the input
(GPTAQ, Li et al. 2025, arXiv:2504.02692, equations 14 to 18):

    P = triu(D U^T, 1) U,          D = sum (x~ - x) x^T.

Updates are lazy (section 3.3, step 2) and come from the left: a block of 256 columns takes all that
the columns before it did as one matrix product when its turn comes, so that each weight is moved
once. Cost: N K^2 multiplications, K^3 for P; memory K^2 and N K.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from qcomp.kernels import kernel
from qcomp.passes.quantize.error_feedback.factor import Factor
from qcomp.passes.quantize.grids import Grids

__all__ = ["feed_back"]

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

_BLOCK = 256
"""Columns that take the errors of all columns before them at once."""

_STEP = 64
"""Columns of a block that the kernel takes; what they do to the block is a matrix product."""

_LANES = 128
"""Rows that the kernel rounds side by side: one waits for its own last column, not for another."""

_TILE = 128


@kernel(fastmath=True)
def _round_columns(
    w: Any,
    begin: Any,
    upper: Any,
    carry: Any,
    scale: Any,
    zero: Any,
    group: Any,
    top: Any,
    levels: Any,
    errors: Any,
) -> None:
    """Round m columns of n rows in turn, from column ``begin`` on; a column lies in one piece.

    ``w`` float32[K, n] holds on return what each weight was when its turn came; ``errors`` gets
    its error over U_ii. ``upper`` is U[m, m] of these columns, ``carry`` P[m, m] or empty, and
    ``group`` the row of ``scale`` and ``zero`` [B, n] that each has.
    """
    n, m = w.shape[1], len(upper)
    error = np.zeros((m, _LANES), dtype=np.float32)
    x = np.zeros(_LANES, dtype=np.float32)
    for first in range(0, n, _LANES):
        width = min(_LANES, n - first)
        for i in range(m):
            for r in range(width):
                x[r] = w[begin + i, first + r]
            for j in range(i):
                u = upper[j, i]
                if carry.size > 0:
                    p = carry[j, i]
                    for r in range(width):
                        x[r] += w[begin + j, first + r] * p - error[j, r] * u
                else:
                    for r in range(width):
                        x[r] -= error[j, r] * u
            for r in range(width):
                s, z = scale[group[i], first + r], zero[group[i], first + r]
                q = min(max(np.rint(x[r] / s) + z, np.float32(0)), top)
                error[i, r] = (x[r] - (q - z) * s) / upper[i, i]
                levels[begin + i, first + r] = np.uint8(q)
            for r in range(width):
                w[begin + i, first + r] = x[r]
                errors[begin + i, first + r] = error[i, r]


def feed_back(
    weight: Floats,
    factor: Factor,
    start: Grids,
    *,
    importance: Floats | None = None,
    order: npt.NDArray[np.intp] | None = None,
    static: bool = True,
    drift: Floats | None = None,
    block: int = _BLOCK,
) -> tuple[Bytes, Grids]:
    """Round a matrix with error feedback.

    Args:
        weight: float32[N, K], rows are output channels.
        factor: Of the inverse Hessian, its rows and columns in ``order``.
        start: What to round to.
        importance: diag(H) float32[K] for the fit of the grid, in the order of ``weight``.
        order: Which column is rounded first, second, ...; as they come by default.
        static: Whether grids stay as they are given. Else a group's grid is fitted when its turn
            comes, to the weights as they are by then; this needs columns as they come.
        drift: D float32[K, K] of asymmetric calibration, in the order of ``weight``.
        block: Columns that are updated at once; whole groups of them.

    Returns:
        Levels uint8[N, K] and their grids, in the order of ``weight``.

    Raises:
        ValueError: ``static=False`` with an order of its own.
    """
    if not static and order is not None:
        raise ValueError("groups are fitted on their turn only where columns go as they come")
    columns = weight.shape[1]
    turn = np.arange(columns) if order is None else order
    grid, size, single = start.grid, start.size, start.scale.shape[1] == 1
    if not static and not single:
        block = -(-block // size) * size
    w = _turned(weight, np.float32)  # a column in one piece
    if order is not None:
        w = w[turn]
    if factor.dead.any():
        w[factor.dead] = 0.0
    upper = factor.upper
    carry = None
    if drift is not None:
        d = drift if order is None else drift[np.ix_(turn, turn)]
        carry = _carry(d, upper)
    group = (turn // size).astype(np.intp)
    scale, zero = (np.ascontiguousarray(part.T) for part in (start.scale, start.zero))
    step = min(block, _STEP) if static or single else size
    levels, errors = np.empty(w.shape, dtype=np.uint8), np.empty_like(w)
    top = np.float32(grid.top)
    for begin in range(0, columns, block):
        end = min(begin + block, columns)
        _catch_up(w, slice(begin, end), slice(0, begin), errors, upper, carry)
        for first in range(begin, end, step):
            part = slice(first, min(first + step, end))
            _catch_up(w, part, slice(begin, first), errors, upper, carry)
            if not static and not single:
                h = None if importance is None else importance[part]
                fitted = grid.fitted(np.ascontiguousarray(w[part].T), h)
                b = first // size
                scale[b], zero[b] = fitted.scale[:, 0], fitted.zero[:, 0]
            own = np.ascontiguousarray(upper[part, part])
            own_carry = np.empty((0, 0), np.float32)
            if carry is not None:
                own_carry = np.ascontiguousarray(carry[part, part])
            _round_columns(w, first, own, own_carry, scale, zero, group[part], top, levels, errors)
    if order is not None:
        back = np.empty_like(turn)
        back[turn] = np.arange(columns)
        levels = levels[back]
    found = Grids(grid, size, np.ascontiguousarray(scale.T), np.ascontiguousarray(zero.T))
    return _turned(levels, np.uint8), found


def _turned(array: npt.NDArray[Any], dtype: type[np.generic]) -> npt.NDArray[Any]:
    """A copy with rows for columns, by tiles, for the cache's sake."""
    rows, columns = array.shape
    found = np.empty((columns, rows), dtype=dtype)
    for i in range(0, rows, _TILE):
        for j in range(0, columns, _TILE):
            found[j : j + _TILE, i : i + _TILE] = array[i : i + _TILE, j : j + _TILE].T
    return found


def _carry(drift: Floats, upper: Floats) -> Floats:
    """P = triu(D U^T, 1) U, by products with a triangle: half the multiplications."""
    from scipy.linalg import blas

    # Rows are BLAS's columns: all is multiplied as its transpose, in which U is lower.
    turned: Floats = blas.strmm(1.0, upper.T, drift.T, lower=1, trans_a=1).T
    for i, row in enumerate(turned):
        row[: i + 1] = 0.0
    carry: Floats = blas.strmm(1.0, upper.T, turned.T, lower=1, overwrite_b=1).T
    return carry


def _catch_up(
    w: Floats, here: slice, done: slice, errors: Floats, upper: Floats, carry: Floats | None
) -> None:
    """Move the columns ``here`` for the errors of the columns ``done`` before them."""
    if done.start >= done.stop:
        return
    w[here] -= upper[done, here].T @ errors[done]
    if carry is not None:
        w[here] += carry[done, here].T @ w[done]
