"""Levels of tables for one matrix: nearest, by error feedback, by descent; and scales and tables.

    W[n, k] ~ s[n] t[b[n], q[n, k]],      E = sum_n (w^_n - w_n) H (w^_n - w_n)^T

with H the second moments of the layer's input
(:mod:`qcomp.passes.quantize.error_feedback.moments`). A table's entries ascend; they need no equal
steps, so the nearest one is found by bisection.

* :func:`feed_back` is GPTQ's (Frantar et al. 2022, arXiv:2210.17323, algorithm 1) on such levels.
* :func:`descend` is proximal coordinate descent: each weight takes the step -g_j / H_jj that is
  best with all others fixed, and is projected on its codebook, which is the proximal operator of
  'lies in the codebook'. So a weight moves to the entry next to its optimum, not to an extreme one.
* :func:`fit_scales` and :func:`fit_tables` solve for s and t with the levels fixed; E is quadratic
  in either.

Cost: N K^2 multiplications for the feedback, the fit of scales, and a sweep in which all levels
change; 2^bits as much for tables.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from qcomp.kernels import kernel
from qcomp.passes.quantize.error_feedback.factor import Factor

__all__ = ["Codes", "descend", "feed_back", "fit_scales", "fit_tables", "nearest"]

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.intp]

_BLOCK = 128
"""Columns whose errors are gathered before the columns behind them are touched."""


@dataclass(frozen=True, slots=True, eq=False)
class Codes:
    """A matrix float32[N, K] in levels of tables.

    Attributes:
        levels: q uint8[N, K].
        scale: s float32[N], not 0; may be negative.
        table: t float32[T, L], each row ascending.
        book: b intp[N].
    """

    levels: Bytes
    scale: Floats
    table: Floats
    book: Indices

    def units(self) -> Floats:
        """The matrix without its scales, float32[N, K]."""
        return np.asarray(self.table[self.book[:, None], self.levels], np.float32)

    def real(self) -> Floats:
        """The matrix, float32[N, K]."""
        return np.asarray(self.units() * self.scale[:, None], np.float32)

    def errors(self, weight: Floats, hessian: Floats) -> npt.NDArray[np.float64]:
        """E of each row, float64[N]."""
        delta = self.real() - weight
        return np.asarray(np.einsum("nk,nk->n", delta @ hessian, delta, dtype=np.float64))


def _nearest(x: Any, entries: Any) -> int:
    """Index of the entry nearest to x; entries ascend."""
    low, high = 0, entries.shape[0] - 1
    while high - low > 1:
        middle = (low + high) // 2
        if entries[middle] <= x:
            low = middle
        else:
            high = middle
    return low if x - entries[low] <= entries[high] - x else high


@kernel(calls=(_nearest,), fastmath=True)
def _round_columns(
    w: Any, upper: Any, scale: Any, table: Any, book: Any, levels: Any, errors: Any
) -> None:
    """Round m columns of n rows in turn; ``errors`` gets each error over U_ii."""
    n, m = w.shape
    for r in range(n):
        row, s, entries = w[r], scale[r], table[book[r]]
        for i in range(m):
            q = _nearest(row[i] / s, entries)
            levels[r, i] = q
            e = (row[i] - s * entries[q]) / upper[i, i]
            errors[r, i] = e
            for j in range(i + 1, m):
                row[j] -= e * upper[i, j]


@kernel(calls=(_nearest,), fastmath=True)
def _sweep(levels: Any, gradient: Any, hessian: Any, scale: Any, table: Any, book: Any) -> int:
    """One sweep over all weights; the number of levels that changed."""
    n, k = levels.shape
    changed = 0
    for r in range(n):
        g, s, entries = gradient[r], scale[r], table[book[r]]
        for j in range(k):
            h = hessian[j, j]
            if h <= 0:
                continue
            old = entries[levels[r, j]]
            q = _nearest(old - g[j] / (h * s), entries)
            if q != levels[r, j]:
                change = (entries[q] - old) * s
                if change * (2 * g[j] + change * h) < 0:
                    levels[r, j] = q
                    changed += 1
                    for i in range(k):
                        g[i] += change * hessian[j, i]
    return changed


def nearest(weight: Floats, scale: Floats, table: Floats, book: Indices) -> Codes:
    """Every weight float32[N, K] at the nearest entry of its table."""
    middles = (table[:, 1:] + table[:, :-1]) / 2
    units = weight / scale[:, None]
    levels = np.zeros(weight.shape, np.uint8)
    for column in range(middles.shape[1]):
        levels += units > middles[book, column][:, None]
    return Codes(levels, scale, table, book)


def feed_back(weight: Floats, codes: Codes, factor: Factor, order: Indices) -> Codes:
    """Levels by error feedback, for tables and scales as they are.

    Args:
        weight: float32[N, K].
        codes: Whose tables and scales are taken.
        factor: Of the inverse Hessian, its rows and columns in ``order``.
        order: Which column is rounded first, second, ...
    """
    w = np.ascontiguousarray(weight[:, order], np.float32)
    upper = np.ascontiguousarray(factor.upper, np.float32)
    columns = w.shape[1]
    levels = np.empty(w.shape, np.uint8)
    for begin in range(0, columns, _BLOCK):
        part = slice(begin, min(begin + _BLOCK, columns))
        here, found = np.ascontiguousarray(w[:, part]), np.empty_like(levels[:, part])
        errors = np.empty_like(here)
        own = np.ascontiguousarray(upper[part, part])
        _round_columns(here, own, codes.scale, codes.table, codes.book, found, errors)
        levels[:, part] = found
        w[:, part.stop :] -= errors @ upper[part, part.stop :]
    back = np.empty_like(order)
    back[order] = np.arange(columns)
    return replace(codes, levels=np.ascontiguousarray(levels[:, back]))


def descend(weight: Floats, codes: Codes, hessian: Floats, sweeps: int) -> Codes:
    """Levels that no single change improves, after at most ``sweeps`` sweeps."""
    levels = codes.levels.copy()
    gradient = (codes.real() - weight) @ hessian
    h = np.ascontiguousarray(hessian, np.float32)
    for _ in range(sweeps):
        if not _sweep(levels, gradient, h, codes.scale, codes.table, codes.book):
            break
    return replace(codes, levels=levels)


def fit_scales(weight: Floats, codes: Codes, hessian: Floats) -> Codes:
    """The scale of least E for each row; rows where it would vanish or turn keep theirs."""
    units = codes.units()
    moved = units @ hessian
    above = np.einsum("nk,nk->n", moved, weight, dtype=np.float64)
    below = np.einsum("nk,nk->n", moved, units, dtype=np.float64)
    found = above / np.where(below > 0, below, 1.0)
    kept = (below <= 0) | (found / codes.scale <= 1e-3)
    return replace(codes, scale=np.where(kept, codes.scale, found).astype(np.float32))


def fit_tables(weight: Floats, codes: Codes, hessian: Floats) -> Codes:
    """The entries of least E for each codebook, and the levels renamed so that they ascend."""
    count, size = codes.table.shape
    book, wanted = codes.book, weight @ hessian
    matrix, right = np.zeros((count, size, size)), np.zeros((count, size))
    masks = [np.where(codes.levels == q, codes.scale[:, None], np.float32(0)) for q in range(size)]
    for q in range(size):
        right[:, q] = np.bincount(book, np.einsum("nk,nk->n", masks[q], wanted), count)
        moved = masks[q] @ hessian
        for p in range(q, size):
            found = np.bincount(book, np.einsum("nk,nk->n", moved, masks[p]), count)
            matrix[:, q, p] = matrix[:, p, q] = found
    # An entry that nobody uses, or two that cannot be told apart, stay where they are.
    diagonal = np.einsum("bqq->bq", matrix)
    hold = 1e-6 * (diagonal.mean(axis=1, keepdims=True) + 1e-30)
    diagonal += hold
    entries = np.linalg.solve(matrix, (right + hold * codes.table)[:, :, None])[:, :, 0]
    order = np.argsort(entries, axis=1, kind="stable")
    renamed = np.argsort(order, axis=1).astype(np.uint8)
    return replace(
        codes,
        levels=renamed[book[:, None], codes.levels],
        table=np.take_along_axis(entries, order, axis=1).astype(np.float32),
    )
