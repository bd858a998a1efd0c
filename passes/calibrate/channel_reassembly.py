"""Which channels of an activation are taken apart, and which are merged to make room for them.

A channel beyond a threshold becomes T = ceil(max|x_j| / theta) channels x_j / T, each with the row
W_j: exact. To keep the width, as many others are left out, each for one that is like it,

    x_i W_i + x_k W_k  ~  x_k (W_k + r W_i),     r = <x_k, x_i> / <x_k, x_k>

with the error D(i, k) = ||x_i - r x_k||^2 ||W_i||^2. Pairs come from two halves of the channels
that are no outliers, every other one in each: for every channel of the first half the best of the
second, and of these pairs the cheapest. The threshold is the one whose rounded product is nearest,

    theta = argmin || Q_t(x') Q(W') - x W ||^2,     Q_t by token, Q as the weights will be,

from a row of shares of the largest value; the largest itself leaves all as it is.

Source: Liu et al. 2023, arXiv:2310.08041 (QLLM), sections 4.1.1 to 4.1.3; bipartite matching:
Bolya et al. 2023, arXiv:2210.09461. Ours: one channel stands for two (the paper takes their mean,
equations 4 and 5), which columns before a nonlinear operator can do; the error of the layers' own
outputs in place of the block's (equation 6).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qcomp.passes.quantize.grids import Grid

__all__ = ["Reassembly", "find_reassembly", "round_tokens"]

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

_LEAST_SHARE = 0.02
"""Of the largest value: the smallest threshold that is tried."""


@dataclass(frozen=True, slots=True, eq=False)
class Reassembly:
    """What becomes of the channels of a tensor.

    Attributes:
        index: Old channel of every new one, int64[K'].
        parts: T of every old channel, float32[K].
        merged: Old channels (i, k) and r: i is left out, k stands for it.
        gain: Decibels of the rounded product.
    """

    index: Indices
    parts: Floats
    merged: tuple[tuple[int, int, float], ...]
    gain: float

    def rows(self, W: Floats) -> Floats:
        """The rows of the new channels, float32[K', N] of [K, N]."""
        made = np.array(W, np.float32)
        for left_out, kept, share in self.merged:
            made[kept] += np.float32(share) * W[left_out]
        return made[self.index]


def find_reassembly(
    x: Floats,
    peak: Floats,
    weights: Sequence[tuple[Floats, Grid]],
    tokens: int,
    thresholds: int,
    assemble: bool,
) -> Reassembly | None:
    """The reassembly with the least error; None where no threshold gains.

    Args:
        x: Rows of the activation, float32[n, K].
        peak: Largest magnitude of every channel, float32[K].
        weights: float32[N, K] of every layer that reads it, with its grid.
        tokens: Bits that activations are rounded to.
        thresholds: How many are tried.
        assemble: Whether the number of channels stays.
    """
    wanted = [x @ W.T for W, _ in weights]
    energy = np.sum([np.square(W).sum(axis=0) for W, _ in weights], axis=0)
    gram = x.T @ x

    def error(found: Reassembly) -> float:
        rounded = round_tokens((x / found.parts)[:, found.index], tokens)
        total = 0.0
        for (W, grid), y in zip(weights, wanted, strict=True):
            rows = np.ascontiguousarray(found.rows(W.T).T)
            grids = grid.fitted(rows)
            off = rounded @ grids.real(grids.round(rows)).T - y
            total += float(np.sum(np.square(off), dtype=np.float64))
        return total

    ones = np.ones(x.shape[1], np.float32)
    plain = error(Reassembly(np.arange(x.shape[1]), ones, (), 0.0))
    best, least = None, plain
    for share in np.geomspace(1.0, _LEAST_SHARE, thresholds + 1)[1:]:
        parts = np.maximum(np.ceil(peak / (share * peak.max())), 1).astype(np.float32)
        found = _reassembled(parts, gram, energy, assemble)
        if found is None:
            break
        off = error(found)
        if off < least:
            best, least = found, off
    if best is None:
        return None
    gain = float(10.0 * np.log10(plain / max(least, 1e-300)))
    return Reassembly(best.index, best.parts, best.merged, gain)


def _reassembled(parts: Floats, gram: Floats, energy: Floats, assemble: bool) -> Reassembly | None:
    """The channels for numbers of parts; None where too few are left to merge."""
    whole = np.flatnonzero(parts == 1)
    extra = int((parts - 1).sum())
    first, second = whole[0::2], whole[1::2]
    merged: list[tuple[int, int, float]] = []
    if assemble and extra:
        if extra > len(first) or not len(second):
            return None
        own, theirs = np.diag(gram)[first], np.diag(gram)[second]
        between = gram[np.ix_(first, second)]
        share = between / np.maximum(theirs, 1e-30)
        cost = np.maximum(own[:, None] - share * between, 0.0) * energy[first][:, None]
        nearest = cost.argmin(axis=1)
        rows = np.arange(len(first))
        for row in np.argsort(cost[rows, nearest], kind="stable")[:extra]:
            k = nearest[row]
            merged.append((int(first[row]), int(second[k]), float(share[row, k])))
    counts = parts.astype(np.int64)
    counts[[left_out for left_out, _, _ in merged]] = 0
    return Reassembly(np.repeat(np.arange(len(parts)), counts), parts, tuple(merged), 0.0)


def round_tokens(x: Floats, bits: int) -> Floats:
    """Every row on its own symmetric grid, as ``quantize-tokens`` rounds it.

    Args:
        x: float32[n, K].
        bits: 4 or 8.
    """
    scale = np.abs(x).max(axis=-1, keepdims=True) / np.float32((1 << (bits - 1)) - 1)
    scale[scale == 0] = 1.0
    return np.asarray(np.rint(x / scale) * scale, np.float32)
