"""Affine forms: the sparse rows that tie a circuit's angles to its parameters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["Forms"]

Row = Sequence[tuple[int, float]]


class Forms:
    """Rows of a sparse matrix [forms, parameters] in CSR layout; rows are shared and immutable.

    Attributes:
        indptr: int64[rows + 1], row i lies at indptr[i] .. indptr[i + 1].
        col: int32[nonzeros], the parameter of each entry, ascending in a row.
        coef: float64[nonzeros], its coefficient, never 0.
    """

    __slots__ = ("coef", "col", "indptr")

    def __init__(
        self,
        indptr: NDArray[np.int64] | None = None,
        col: NDArray[np.int32] | None = None,
        coef: NDArray[np.float64] | None = None,
    ) -> None:
        self.indptr = np.zeros(1, dtype=np.int64) if indptr is None else indptr
        self.col = np.zeros(0, dtype=np.int32) if col is None else col
        self.coef = np.zeros(0, dtype=np.float64) if coef is None else coef

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.indptr) - 1

    def row(self, index: int) -> tuple[tuple[int, float], ...]:
        """Return row ``index`` as (parameter index, coefficient) pairs; -1 is the empty row."""
        if index < 0:
            return ()
        part = slice(int(self.indptr[index]), int(self.indptr[index + 1]))
        return tuple(zip(self.col[part].tolist(), self.coef[part].tolist(), strict=True))

    def append(self, rows: Iterable[Row]) -> tuple[Forms, NDArray[np.int32]]:
        """Return (forms with these rows added, their indices int32[n]).

        An empty row gets index -1. Equal rows of one call share an index.
        """
        known: dict[tuple[tuple[int, float], ...], int] = {}
        where: list[int] = []
        lengths: list[int] = []
        cols: list[int] = []
        coefs: list[float] = []
        for row in rows:
            key = tuple(sorted((int(c), float(v)) for c, v in row if v))
            if not key:
                where.append(-1)
                continue
            if key not in known:
                known[key] = len(self) + len(known)
                lengths.append(len(key))
                cols.extend(c for c, _ in key)
                coefs.extend(v for _, v in key)
            where.append(known[key])
        if not lengths:
            return self, np.array(where, dtype=np.int32)
        grown = Forms(
            np.concatenate([self.indptr, self.indptr[-1] + np.cumsum(lengths)]),
            np.concatenate([self.col, np.array(cols, dtype=np.int32)]),
            np.concatenate([self.coef, np.array(coefs)]),
        )
        return grown, np.array(where, dtype=np.int32)

    def _gather(
        self, form: NDArray[np.int32], scale: NDArray[np.float64], group: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float64]]:
        """Expand scaled rows into (group, parameter, coefficient) triples."""
        keep = form >= 0
        form, scale, group = form[keep].astype(np.int64), scale[keep], group[keep]
        lengths = self.indptr[form + 1] - self.indptr[form]
        start = np.repeat(
            self.indptr[form] - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths
        )
        entry = start + np.arange(int(lengths.sum()))
        return (
            np.repeat(group, lengths),
            self.col[entry],
            self.coef[entry] * np.repeat(scale, lengths),
        )

    def combine(
        self,
        form: NDArray[np.int32],
        scale: NDArray[np.float64],
        group: NDArray[np.int64],
        num_groups: int,
    ) -> tuple[Forms, NDArray[np.int32]]:
        """Return (forms with the combined rows added, int32[num_groups] their indices).

        Combined row g is ``sum over k with group[k] == g of scale[k] * row(form[k])``: the sparse
        product ``S @ forms``. A sum that is empty, or cancels, has index -1; a group whose sum is
        one row unchanged keeps that row's index.

        Args:
            form: int32[n], the row of each term, -1 for none.
            scale: float64[n], its factor.
            group: int64[n], the combined row it adds to, in [0, num_groups).
            num_groups: Number of combined rows.
        """
        result = np.full(num_groups, -1, dtype=np.int32)
        live = form >= 0
        if not live.any():
            return self, result
        count = np.bincount(group[live], minlength=num_groups)
        plain = live & (count[group] == 1) & (scale == 1.0)
        result[group[plain]] = form[plain]
        mixed = live & ~plain
        g, col, coef = self._gather(form[mixed], scale[mixed], group[mixed])
        if not len(g):
            return self, result
        order = np.lexsort((col, g))
        g, col, coef = g[order], col[order], coef[order]
        first = np.concatenate([[True], (g[1:] != g[:-1]) | (col[1:] != col[:-1])])
        start = np.flatnonzero(first)
        coef = np.add.reduceat(coef, start)
        g, col = g[start], col[start]
        live = coef != 0
        g, col, coef = g[live], col[live], coef[live]
        owners, lengths = np.unique(g, return_counts=True)
        result[owners] = len(self) + np.arange(len(owners), dtype=np.int32)
        grown = Forms(
            np.concatenate([self.indptr, self.indptr[-1] + np.cumsum(lengths)]),
            np.concatenate([self.col, col]),
            np.concatenate([self.coef, coef]),
        )
        return grown, result

    def dense(self, form: NDArray[np.int32], num_params: int) -> NDArray[np.float64]:
        """Return float64[n, num_params], row k being row ``form[k]``, zeros for -1."""
        out = np.zeros((len(form), num_params))
        row, col, coef = self._gather(form, np.ones(len(form)), np.arange(len(form)))
        out[row, col] = coef
        return out

    def evaluate(self, form: NDArray[np.int32], params: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return float64[B, n] with ``row(form[k]) . params[b]``.

        Args:
            form: int32[n], rows, -1 for 0.
            params: float64[B, P].
        """
        out = np.zeros((len(params), len(form)))
        used = np.unique(form[form >= 0])
        if not len(used):
            return out
        values = (
            params @ self.dense(used, params.shape[1]).T
            if len(used) * params.shape[1] <= 1 << 22
            else self._evaluate_sparse(used, params)
        )
        live = form >= 0
        out[:, live] = values[:, np.searchsorted(used, form[live])]
        return out

    def _evaluate_sparse(
        self, form: NDArray[np.int32], params: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        row, col, coef = self._gather(form, np.ones(len(form)), np.arange(len(form)))
        start = np.searchsorted(row, np.arange(len(form)))
        return np.add.reduceat(params[:, col] * coef, start, axis=1)

    def remap(self, columns: NDArray[np.int32]) -> Forms:
        """Return the same rows over renumbered parameters, ``col -> columns[col]``.

        Rows stay sorted because entries are put in order again.
        """
        col = columns[self.col].astype(np.int32)
        row = np.repeat(np.arange(len(self)), np.diff(self.indptr))
        order = np.lexsort((col, row))
        return Forms(self.indptr, col[order], self.coef[order])
