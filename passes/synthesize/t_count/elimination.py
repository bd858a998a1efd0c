"""Kernels over GF(2) for parity tables: null spaces, and what a change of a table gains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcomp.kernels import kernel

__all__ = ["WORD", "eliminate", "pack", "search", "unpack"]

WORD = 63
"""Bits in a word: an int64 that is never negative."""

Words = NDArray[np.int64]


def pack(bit: NDArray[np.bool_]) -> Words:
    """Return bool[m, r] as int64[m, ceil(r / 63)]; column c is bit c % 63 of word c // 63."""
    m, r = bit.shape
    words = max(1, -(-r // WORD))
    wide = np.zeros((m, words * WORD), dtype=np.int64)
    wide[:, :r] = bit
    packed: Words = wide.reshape(m, words, WORD) @ (np.int64(1) << np.arange(WORD, dtype=np.int64))
    return packed


def unpack(words: Words, r: int) -> NDArray[np.bool_]:
    """Return the first r bits of each row of int64[m, words] as bool[m, r]."""
    m, count = words.shape
    spread = (words[:, :, None] >> np.arange(WORD)) & 1
    return spread.reshape(m, count * WORD)[:, :r].astype(np.bool_)


def masks(columns: Sequence[int], n: int) -> NDArray[np.bool_]:
    """Return bool[m, n], the bits of each mask."""
    size = max(1, -(-n // 8))
    raw = np.frombuffer(b"".join(c.to_bytes(size, "little") for c in columns), dtype=np.uint8)
    table = np.unpackbits(raw.reshape(len(columns), size), axis=1, bitorder="little")
    return table[:, :n].astype(np.bool_)


def first_bit(words: int, rows: Any, start: int) -> int:
    """Return the lowest one among ``words`` words, -1 where there is none."""
    for w in range(words):
        v = rows[start + w]
        if v != 0:
            p = 0
            while (v >> p) & 1 == 0:
                p += 1
            return w * 63 + p
    return -1


def reduce_row(
    at: int, since: int, until: int, words: int, total: int, rows: Any, pivot: Any
) -> None:
    """Add to row ``at`` each of the rows since..until whose pivot it has; find its own pivot."""
    for j in range(since, until):
        p = pivot[j]
        if p >= 0 and (rows[at * total + p // 63] >> (p % 63)) & 1:
            for w in range(p // 63, total):
                rows[at * total + w] ^= rows[j * total + w]
    pivot[at] = first_bit(words, rows, at * total)


@kernel(calls=(first_bit, reduce_row))
def eliminate(m: int, words: int, total: int, rows: Any, pivot: Any) -> int:
    """Bring m rows to echelon form; the rank is returned.

    rows: int64[m * total], ``words`` words of values, then which of the first rows were added up.
    pivot: int64[m], the bit that no later row has, -1 for a row whose values are zero.
    """
    rank = 0
    for i in range(m):
        reduce_row(i, 0, i, words, total, rows, pivot)
        if pivot[i] >= 0:
            rank += 1
    return rank


def partner(label: int, m: int, labels: Any, order: Any) -> int:
    """Return the column with a label, -1 where there is none; labels in ascending order."""
    low = 0
    high = m
    while low < high:
        mid = (low + high) // 2
        if labels[mid] < label:
            low = mid + 1
        else:
            high = mid
    return order[low] if low < m and labels[low] == label else -1


def saved(
    z: int, m: int, start: int, tracker: Any, label: Any, mate: Any, here: int, none: int
) -> int:
    """Return how many columns fewer ``P + z y`` has, y from a tracker.

    mate: int64[m], the column equal to each plus z, -1 where there is none; here: the column
    equal to z, -1 where there is none. ``none`` is returned where y is zero.
    """
    gain = 0
    weight = 0
    inside = 0
    for i in range(m):
        if (tracker[start + i // 63] >> (i % 63)) & 1:
            weight += 1
            j = mate[i]
            if label[i] == z:
                inside = 1
                gain += 1
            elif j >= 0 and not (tracker[start + j // 63] >> (j % 63)) & 1:
                gain += 2
    if weight == 0:
        return none
    if weight & 1:
        gain += 1 if here >= 0 and inside == 0 else -1
    return gain


@kernel(calls=(first_bit, reduce_row, partner, saved))
def search(
    n: int,
    m: int,
    words: int,
    total: int,
    count: int,
    rank: int,
    point: Any,
    label: Any,
    labels: Any,
    order: Any,
    left: Any,
    right: Any,
    rows: Any,
    pivot: Any,
    mate: Any,
    best: Any,
) -> int:
    """Find the z, among sums of two columns and columns, and the y that save most.

    For each z the rows hold, after ``rank`` rows in echelon form, ``z e_k + e_k z`` for each k and
    ``z z``: each sum of them with a sum of the products of columns that is zero is a y.

    point: int64[m * n], the columns bit by bit; label: int64[m], one of each column, linear.
    left, right: int64[count], the pairs, right -1 for none; rows: int64[(rank + n + 1) * total].
    best: int64[2 + total - words]: the pair, what it saves, y.
    """
    track = total - words
    best[1] = 0
    for c in range(count):
        i = left[c]
        j = right[c]
        z = label[i]
        if j >= 0:
            z ^= label[j]
        for k in range(m):
            mate[k] = partner(label[k] ^ z, m, labels, order)
        here = partner(z, m, labels, order)
        for k in range(n + 1):
            at = rank + k
            for w in range(total):
                rows[at * total + w] = 0
            for a in range(n):
                bit = point[i * n + a]
                if j >= 0:
                    bit ^= point[j * n + a]
                if bit == 0:
                    continue
                if k < n:
                    if a != k:
                        low = a if a < k else k
                        high = k if a < k else a
                        e = low * n - low * (low + 1) // 2 + high
                        rows[at * total + e // 63] ^= 1 << (e % 63)
                else:
                    for b in range(a, n):
                        other = point[i * n + b]
                        if j >= 0:
                            other ^= point[j * n + b]
                        if other != 0:
                            e = a * n - a * (a + 1) // 2 + b
                            rows[at * total + e // 63] ^= 1 << (e % 63)
            reduce_row(at, 0, at, words, total, rows, pivot)
            if pivot[at] >= 0:
                continue
            gain = saved(z, m, at * total + words, rows, label, mate, here, -1)
            if gain > best[1]:
                best[0] = c
                best[1] = gain
                for w in range(track):
                    best[2 + w] = rows[at * total + words + w]
    return best[1]
