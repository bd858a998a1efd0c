"""GPTQ and GPTAQ: columns rounded in turn, each error made good by the columns to come.

With H^-1 = U^T U and the columns in their order, column i of the (already changed) weights is
rounded and all later columns move:

    e = (w_i - q_i) / U_ii,        W[:, i:] <- W[:, i:] - e U[i, i:] + w_i P[i, i:].

The first term is GPTQ's (Frantar et al. 2022, arXiv:2210.17323, equations 2 to 5 in the Cholesky
form of section 3.3). The second makes good what quantized predecessors have done to the input
(GPTAQ, Li et al. 2025, arXiv:2504.02692, equations 14 to 18):

    P = triu(D U^T, 1) U,          D = sum (x~ - x) x^T.

Updates are lazy (section 3.3, step 2) and come from the left: a block of 128 columns takes all that
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

_BLOCK = 128
"""Columns that take the errors of all columns before them at once."""

_STEP = 32
"""Columns of a block that the kernel takes; what they do to the block is a matrix product."""

_TILE = 256


@kernel(fastmath=True)
def _round_columns(
    w: Any, upper: Any, carry: Any, scale: Any, zero: Any, top: Any, levels: Any, errors: Any
) -> None:
    """Round m columns of n rows in turn.

    ``w`` float32[n, m] holds on return what each weight was when its turn came; ``errors`` gets
    its error over U_ii. ``carry`` is P[m, m], or empty.
    """
    n, m = w.shape
    carried = carry.size > 0
    for r in range(n):
        row = w[r]
        for i in range(m):
            x = row[i]
            s, z = scale[r, i], zero[r, i]
            q = min(max(np.rint(x / s) + z, np.float32(0)), top)
            levels[r, i] = np.uint8(q)
            e = (x - (q - z) * s) / upper[i, i]
            errors[r, i] = e
            if carried:
                for j in range(i + 1, m):
                    row[j] += x * carry[i, j] - e * upper[i, j]
            else:
                for j in range(i + 1, m):
                    row[j] -= e * upper[i, j]


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
    rows, columns = weight.shape
    turn = np.arange(columns) if order is None else order
    grid, size, single = start.grid, start.size, start.scale.shape[1] == 1
    if not static and not single:
        block = -(-block // size) * size
    w = np.array(weight if order is None else weight[:, turn], dtype=np.float32, order="C")
    if factor.dead.any():
        w[:, factor.dead] = 0.0
    upper = _by_rows(factor.upper)
    carry = None
    if drift is not None:
        d = drift if order is None else drift[np.ix_(turn, turn)]
        carry = _carry(d, upper)
    group = (turn // size).astype(np.intp)
    levels = np.empty((rows, columns), dtype=np.uint8)
    scale, zero = start.scale.copy(), start.zero.copy()
    step = min(block, _STEP) if static or single else size
    errors = np.empty_like(w)
    for begin in range(0, columns, block):
        end = min(begin + block, columns)
        _catch_up(w, slice(begin, end), slice(0, begin), errors, upper, carry)
        for first in range(begin, end, step):
            part = slice(first, min(first + step, end))
            _catch_up(w, part, slice(begin, first), errors, upper, carry)
            here = np.ascontiguousarray(w[:, part])
            if not static and not single:
                h = None if importance is None else importance[part]
                fitted = grid.fitted(here, h)
                b = first // size
                scale[:, b], zero[:, b] = fitted.scale[:, 0], fitted.zero[:, 0]
            own = np.ascontiguousarray(upper[part, part])
            own_carry = np.empty((0, 0), np.float32)
            if carry is not None:
                own_carry = np.ascontiguousarray(carry[part, part])
            found = np.empty(here.shape, dtype=np.uint8)
            error = np.empty_like(here)
            g = group[part]
            _round_columns(
                here, own, own_carry, scale[:, g], zero[:, g], np.float32(grid.top), found, error
            )
            w[:, part], levels[:, part], errors[:, part] = here, found, error
    if order is None:
        return levels, Grids(grid, size, scale, zero)
    back = np.empty_like(turn)
    back[turn] = np.arange(columns)
    return levels[:, back], Grids(grid, size, scale, zero)


def _by_rows(upper: npt.NDArray[np.floating[Any]]) -> Floats:
    """A triangle that lies in memory column by column, as rows: by tiles, for the cache's sake."""
    size = len(upper)
    rows = np.zeros((size, size), dtype=np.float32)
    for i in range(0, size, _TILE):
        for j in range(i, size, _TILE):
            rows[i : i + _TILE, j : j + _TILE] = upper[i : i + _TILE, j : j + _TILE]
    return rows


def _carry(drift: Floats, upper: Floats) -> Floats:
    """P = triu(D U^T, 1) U, by products with a triangle: half the multiplications."""
    from scipy.linalg import blas

    turned = np.triu(blas.strmm(1.0, upper, drift, side=1, trans_a=1), 1)
    return np.ascontiguousarray(blas.strmm(1.0, upper, turned, side=1))


def _catch_up(
    w: Floats, here: slice, done: slice, errors: Floats, upper: Floats, carry: Floats | None
) -> None:
    """Move the columns ``here`` for the errors of the columns ``done`` before them."""
    if done.start >= done.stop:
        return
    w[:, here] -= errors[:, done] @ upper[done, here]
    if carry is not None:
        w[:, here] += w[:, done] @ carry[done, here]
