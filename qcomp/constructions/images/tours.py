"""Short walks through parities: the order of a multiplexer's factors that has least CX."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qcomp.constructions.multiplexers import gray_code

__all__ = ["short_walk", "walk_length"]

_ROUNDS = 40
"""Most sweeps of improvements over a walk."""


def walk_length(walk: NDArray[np.int64]) -> int:
    """Return the CX of a walk that ends at parity 0: bits that change from step to step."""
    return int(np.bitwise_count(walk ^ np.append(walk[1:], 0)).sum())


def short_walk(masks: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    """Return the masks in an order whose walk to parity 0 is short; it may begin anywhere.

    A target in |0> takes a controlled Z for nothing, so the way to the first parity is free. The
    walk is no longer than that of the Gray code, ``2^bits - 1``. Improved by reversing parts and by
    moving single steps (2-opt and Or-opt) from there; deterministic.

    Cost: masks squared times at most 40 sweeps.

    Args:
        masks: Different numbers below ``2^bits``, int64[m]; 0 counts for nothing and comes last.
        bits: Number of controls.
    """
    wanted = masks[masks != 0]
    if not len(wanted):
        return masks
    rank = np.argsort(gray_code(bits))
    walk = wanted[np.argsort(rank[wanted])]
    ways = [_improved(way) for way in (walk, walk[::-1], _nearest(wanted))]
    best = min(ways, key=walk_length)
    return np.append(best, 0) if (masks == 0).any() else best


def _nearest(masks: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return a walk backwards from 0, always to the nearest mask that is left."""
    left = np.sort(masks)
    here, order = np.int64(0), []
    while len(left):
        at = int(np.argmin(np.bitwise_count(left ^ here)))
        here = left[at]
        order.append(here)
        left = np.delete(left, at)
    return np.array(order[::-1])


def _improved(walk: NDArray[np.int64]) -> NDArray[np.int64]:
    for _ in range(_ROUNDS):
        if walk_length(walk) == len(walk):
            break  # no step can be shorter than one CX
        before = walk_length(walk)
        walk = _moved(_reversed(walk))
        if walk_length(walk) == before:
            break
    return walk


def _reversed(walk: NDArray[np.int64]) -> NDArray[np.int64]:
    """Reverse parts of the walk where that is shorter, once from each place."""
    size = len(walk)
    tour = np.append(walk, 0)
    for i in range(size):
        # reverse tour[i..j]; nothing stands before tour[0]
        ends = tour[i:size]
        after = tour[i + 1 :]
        new = np.bitwise_count(tour[i] ^ after).astype(np.int64)
        old = np.bitwise_count(ends ^ after).astype(np.int64)
        if i:
            new += np.bitwise_count(tour[i - 1] ^ ends)
            old += np.bitwise_count(tour[i - 1] ^ tour[i])
        gain = old - new
        best = int(np.argmax(gain))
        if gain[best] > 0:
            j = i + best
            tour[i : j + 1] = tour[i : j + 1][::-1].copy()
    return tour[:-1]


def _moved(walk: NDArray[np.int64]) -> NDArray[np.int64]:
    """Move single masks to where they cost least, once each."""
    tour = np.append(walk, 0)
    for mask in walk:
        at = int(np.flatnonzero(tour[:-1] == mask)[0])
        rest = np.delete(tour, at)
        steps = np.bitwise_count(rest[:-1] ^ rest[1:]).astype(np.int64)
        near = np.bitwise_count(rest ^ mask).astype(np.int64)
        cost = np.append(near[:1], near[:-1] + near[1:] - steps)
        saved = near[at] if at == 0 else near[at - 1] + near[at] - steps[at - 1]
        best = int(np.argmin(cost))
        if cost[best] < saved:
            tour = np.insert(rest, best, mask)
    return tour[:-1]
