"""Gray-synth: CX gates after which each of some parities has stood on a wire, by Amy et al.

Parities are split by one wire j after another into those without and those with it. Those with it
get a target wire; as long as all parities at hand that are left have a wire besides the target, a
CX takes it away from all of them at once. On all 2^n parities that walks a Gray code, with one CX
a parity. What the wires hold in the end is some linear map, which the caller has to undo.

Source: Amy, Azimzadeh, Mosca 2018 (arXiv:1712.01859), algorithm 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcomp.kernels import kernel
from qcomp.passes.reduce.leaves import call

__all__ = ["CX", "PARITY", "gray_synth"]

CX, PARITY = 0, 1
"""Kinds of what is written."""


@kernel()
def _walk(
    n: int, k: int, limit: int, y: Any, order: Any, done: Any, stack: Any, free: Any, out: Any
) -> int:
    """Write a network; the number of rows written, more than ``limit`` where it was reached.

    y: int[k n], the parities over what the wires hold; order: int[k], 0 to k - 1; done: int[k],
    zeros; stack: int[3 (2 n + 2)], (start, stop, target) of parities in ``order`` still to split,
    target n for none; free: int[(2 n + 2) n], ones: wires to split by. out: int[3 limit]: (CX,
    control, target) or (PARITY, which, wire).
    """
    count = 0
    for p in range(k):
        weight = 0
        at = 0
        for j in range(n):
            if y[p * n + j] != 0:
                weight += 1
                at = j
        if weight <= 1:
            done[p] = 1
            if weight == 1:
                if count < limit:
                    out[3 * count] = 1
                    out[3 * count + 1] = p
                    out[3 * count + 2] = at
                count += 1
    depth = 1
    stack[0] = 0
    stack[1] = k
    stack[2] = n
    while depth > 0 and count <= limit:
        depth -= 1
        start = stack[3 * depth]
        stop = stack[3 * depth + 1]
        target = stack[3 * depth + 2]
        while target < n:
            # A wire that all parities left have besides the target.
            control = -1
            some = False
            for j in range(n):
                if j == target:
                    continue
                every = True
                some = False
                for i in range(start, stop):
                    p = order[i]
                    if done[p] == 0:
                        some = True
                        if y[p * n + j] == 0:
                            every = False
                            break
                if some and every:
                    control = j
                    break
            if control < 0:
                break
            if count < limit:
                out[3 * count] = 0
                out[3 * count + 1] = control
                out[3 * count + 2] = target
            count += 1
            # target' = target + control: a parity with the target loses or gains the control.
            for p in range(k):
                if done[p] == 0 and y[p * n + target] != 0:
                    y[p * n + control] ^= 1
                    weight = 0
                    for j in range(n):
                        weight += y[p * n + j]
                    if weight == 1:
                        done[p] = 1
                        if count < limit:
                            out[3 * count] = 1
                            out[3 * count + 1] = p
                            out[3 * count + 2] = target
                        count += 1
        best = -1
        wire = -1
        left = 0
        for i in range(start, stop):
            left += 1 - done[order[i]]
        if left == 0:
            continue
        for j in range(n):
            if free[depth * n + j] == 0:
                continue
            ones = 0
            for i in range(start, stop):
                p = order[i]
                if done[p] == 0:
                    ones += y[p * n + j]
            larger = max(ones, left - ones)
            if larger > best:
                best = larger
                wire = j
        if wire < 0:
            continue
        middle = start
        for i in range(start, stop):
            p = order[i]
            if done[p] != 0 or y[p * n + wire] == 0:
                order[i] = order[middle]
                order[middle] = p
                middle += 1
        for j in range(n):
            rest = free[depth * n + j]
            free[depth * n + j] = rest
            free[(depth + 1) * n + j] = rest
        free[depth * n + wire] = 0
        free[(depth + 1) * n + wire] = 0
        stack[3 * depth] = middle
        stack[3 * depth + 1] = stop
        stack[3 * depth + 2] = wire if target == n else target
        stack[3 * depth + 3] = start
        stack[3 * depth + 4] = middle
        stack[3 * depth + 5] = target
        depth += 2
    return count


def gray_synth(parities: NDArray[np.integer], limit: int | None = None) -> NDArray[np.int64] | None:
    """Write CX gates that bring each parity to a wire.

    Args:
        parities: [k, n], zeros and ones: the wires whose sums are wanted, none of them empty.
        limit: Rows up to which it is written; 4 n + 2 n k by default.

    Returns:
        int64[m, 3], in order: (CX, control, target), or (PARITY, i, wire) where the wire now holds
        the sum of parity i; None where there are more than ``limit``.

    Raises:
        ValueError: If a parity is empty.
    """
    k, n = parities.shape
    y = (np.asarray(parities, dtype=np.int64) & 1).ravel()
    if not y.reshape(k, n).any(axis=1).all():
        raise ValueError("a parity of no wires is a constant, which stands on no wire")
    most = 4 * n + 2 * n * k if limit is None else limit
    out = np.zeros(3 * max(most, 1), dtype=np.int64)
    count = call(
        _walk,
        n * k,
        (n, k, most),
        (
            y,
            np.arange(k, dtype=np.int64),
            np.zeros(k, dtype=np.int64),
            np.zeros(3 * (2 * n + 4), dtype=np.int64),
            np.ones((2 * n + 4) * n, dtype=np.int64),
            out,
        ),
    )
    return None if count > most else out[: 3 * count].reshape(-1, 3)
