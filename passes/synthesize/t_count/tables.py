"""TOHPE and FastTODD: parity tables with fewer columns and the same third-order tensor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qcomp.passes.reduce.leaves import call
from qcomp.passes.synthesize.t_count.elimination import eliminate, masks, pack, search, unpack

__all__ = ["fasttodd", "odd_columns", "tohpe"]

_PAIRS = 1 << 21
_STEP_WORK = 500_000_000
_WORK = 20_000_000_000
_TRIES = 8
_TRIES_WORK = 1_000_000
_LARGEST = 3_000_000_000
"""Words read by one elimination, from which on a table is reduced in parts."""


def odd_columns(columns: Sequence[int]) -> list[int]:
    """Return the columns that stand an odd number of times, but zero, as they come."""
    return [c for c, times in Counter(columns).items() if times % 2 and c]


def _labels(table: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return a linear label of each column; the column itself up to 62 variables."""
    n = table.shape[1]
    base = np.array([1 << v for v in range(min(n, 62))], dtype=np.int64)
    if n > 62:
        base = np.random.default_rng(n).integers(0, 1 << 62, size=(n,), dtype=np.int64)
    result = np.bitwise_xor.reduce(np.where(table, base, 0), axis=1)
    return np.asarray(result, dtype=np.int64)


class _Table:
    """A parity table with the echelon form of the pairwise products of its rows.

    Args:
        columns: m masks, distinct and not zero.
        n: Variables.
    """

    def __init__(self, columns: Sequence[int], n: int) -> None:
        self.columns = columns
        used = 0
        for column in columns:
            used |= column
        bit = masks(columns, n)[:, [v for v in range(n) if used >> v & 1]]
        self.m, self.n = bit.shape
        self.point = bit
        self.label = _labels(bit)
        high, low = np.triu_indices(self.n)
        values = pack(bit[:, high] & bit[:, low])
        self.words = values.shape[1]
        rows = np.concatenate([values, pack(np.eye(self.m, dtype=np.bool_))], axis=1)
        self.total = rows.shape[1]
        flat, pivot = rows.ravel(), np.zeros(self.m, dtype=np.int64)
        call(eliminate, self.m**2, (self.m, self.words, self.total), (flat, pivot))
        rows = flat.reshape(self.m, self.total)
        self.rows, self.pivot = rows[pivot >= 0], pivot[pivot >= 0]
        self.null = unpack(rows[pivot < 0][:, self.words :], self.m)

    def changed(self, z: int, y: NDArray[np.bool_]) -> list[int]:
        """Return ``P + z y``, with z itself as a column where y has odd weight."""
        new = [c ^ z if flip else c for c, flip in zip(self.columns, y.tolist(), strict=True)]
        if int(y.sum()) % 2:
            new.append(z)
        return odd_columns(new)

    def best_for_any_z(self, pairs: int = _PAIRS) -> list[int] | None:
        """Return the table after the best step of TOHPE; None where none saves a column.

        Args:
            pairs: Pairs of columns looked at, after which the first step that saves one is taken.
        """
        best, found = 0, None
        spent = 0
        for y in self.null:
            one, other = np.flatnonzero(y), np.flatnonzero(~y)
            pair = self.label[one][:, None] ^ self.label[other][None, :]
            values = np.concatenate([self.label[one], pair.ravel()])
            gains = np.concatenate([np.ones(len(one)), np.full(pair.size, 2)]).astype(np.int64)
            z, place = np.unique(values, return_inverse=True)
            gain = np.bincount(place, gains).astype(np.int64)
            if len(one) % 2:
                gain += np.where(np.isin(z, self.label[other]), 1, -1)
            top = int(gain.argmax())
            if gain[top] > best:
                best = int(gain[top])
                k = int(np.flatnonzero(place == top)[0])
                if k < len(one):
                    found = self.columns[one[k]], y
                else:
                    i, j = divmod(k - len(one), len(other))
                    found = self.columns[one[i]] ^ self.columns[other[j]], y
            spent += pair.size
            if best and spent > pairs:
                break
        return None if found is None else self.changed(*found)

    def best_for_each_z(self, work: int) -> tuple[list[int] | None, int]:
        """Return the table after the best step of FastTODD, and the words read.

        Pairs are tried in parts where all take long, up to the first part that saves a column.
        There is no table where none does, or where ``work`` is used up.

        Args:
            work: Most words read.
        """
        m, n, rank = self.m, self.n, len(self.rows)
        left, right = np.triu_indices(m, 1)
        left = np.concatenate([np.arange(m), left]).astype(np.int64)
        right = np.concatenate([np.full(m, -1), right]).astype(np.int64)
        price = (n + 1) * (rank + n) * self.total
        step = max(1, -(-len(left) * price // _STEP_WORK))
        order = np.argsort(self.label, kind="stable")
        room = np.zeros((rank + n + 1, self.total), dtype=np.int64)
        room[:rank] = self.rows
        flat = room.ravel()
        pivot = np.concatenate([self.pivot, np.full(n + 1, -1)])
        mate, best = np.zeros(m, np.int64), np.zeros(2 + self.total - self.words, np.int64)
        sizes = (n, m, self.words, self.total)
        known = (self.point.astype(np.int64).ravel(), self.label, self.label[order], order)
        spent = 0
        for part in range(min(step, len(left))):
            pair = left[part::step].copy(), right[part::step].copy()
            count = len(pair[0])
            spent += count * price
            if spent > work:
                break
            inputs = (*sizes, count, rank, *known, *pair)
            call(search, count * n, inputs, (flat, pivot, mate, best))
            if best[1]:
                i, j = int(pair[0][best[0]]), int(pair[1][best[0]])
                z = self.columns[i] ^ (self.columns[j] if j >= 0 else 0)
                return self.changed(z, unpack(best[2:].reshape(1, -1), m)[0]), spent
        return None, spent


def _halves(columns: list[int], largest: int) -> tuple[list[int], list[int]] | None:
    """Return the halves of a table that is too large for one elimination; None where it fits."""
    used = 0
    for column in columns:
        used |= column
    m, n = len(columns), used.bit_count()
    words = (n * (n + 1) // 2 + m) // 63 + 2
    if m < 16 or m * m * words <= largest:
        return None
    return columns[: m // 2], columns[m // 2 :]


def tohpe(
    columns: Sequence[int], n: int, tries: int = _TRIES, largest: int = _LARGEST
) -> list[int]:
    """Return fewer columns with the same tensor ``sum_j P_aj P_bj P_cj`` modulo 2.

    ``P + z y`` has the tensor of P for every z where ``sum_j y_j P_aj P_bj = 0`` for all a, b and y
    has even weight; for odd weight z becomes a column. Equal columns go in pairs.

    Args:
        columns: Masks over n variables.
        n: Variables.
        tries: Ways down, fewer for large tables, of which the best counts: first the best step
            each time, then the first step that saves a column, in random orders of the columns.
        largest: Words that one elimination may read; the tensor of a table is the sum of those of
            its parts, so a larger one is reduced in halves.

    Source: Vandaele 2024 (arXiv:2407.08695), theorem 1 and algorithm 2.
    """
    start = sorted(odd_columns(columns))
    halves = _halves(start, largest)
    if halves is not None:
        ends = [tohpe(half, n, tries, largest) for half in halves]
        return sorted(odd_columns([*ends[0], *ends[1]]))
    best = start
    for k in range(max(min(tries, 2), min(tries, _TRIES_WORK // (len(start) ** 2 + 1)))):
        order = np.random.default_rng(k).permutation(len(start)) if k else np.arange(len(start))
        end = _descend([start[i] for i in order], n, 0 if k else _PAIRS)
        if len(end) < len(best):
            best = end
        elif not k:
            break
    return sorted(best)


def _descend(current: list[int], n: int, pairs: int) -> list[int]:
    """Take steps of TOHPE as long as they save columns."""
    while current:
        new = _Table(current, n).best_for_any_z(pairs)
        # A label of more than 62 variables may promise what the columns do not hold.
        if new is None or len(new) >= len(current):
            break
        current = new
    return current


def fasttodd(columns: Sequence[int], n: int, work: int = _WORK) -> list[int]:
    """Return fewer columns with the same tensor, where y may depend on z.

    For one z it is enough that ``sum_j y_j P_j P_j^T = z v^T + v z^T + c z z^T`` for some v and c.
    Steps are taken from the table and from the end of TOHPE; the better end counts. A table too
    large for one elimination is left to TOHPE.

    Args:
        columns: Masks over n variables.
        n: Variables.
        work: Most words read from either beginning.

    Source: Vandaele 2024 (arXiv:2407.08695), theorem 2 and algorithm 4; Heyfron, Campbell 2018
    (arXiv:1712.01557), TODD.
    """
    if _halves(odd_columns(columns), _LARGEST) is not None:
        return tohpe(columns, n)
    ends = []
    for current in (tohpe(columns, n), sorted(odd_columns(columns))):
        left = work
        while current:
            table = _Table(current, n)
            new, spent = table.best_for_each_z(left)
            left -= spent
            if new is None or len(new) >= len(current):
                new = table.best_for_any_z()
            if new is None or len(new) >= len(current):
                break
            current = new
        ends.append(sorted(current))
    return min(ends, key=len)
