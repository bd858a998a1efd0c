"""Two-level minimisation of a table of few values: a constant and numbers added on cubes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Cube", "added_cubes", "cube_cost"]

_MOST = 1 << 21
"""Most (subcube, value) pairs that are looked at; a table of more is not minimised."""


@dataclass(frozen=True, slots=True)
class Cube:
    """The places that agree with ``values`` on the bits of ``mask``, and what is added there."""

    mask: int
    values: int
    added: float

    def holds(self, bits: int) -> NDArray[np.bool_]:
        """Return which of the ``2^bits`` places are inside."""
        found: NDArray[np.bool_] = (np.arange(1 << bits) & self.mask) == self.values
        return found


def cube_cost(literals: int) -> int:
    """Return the CX of a rotation that so many controls choose one place of.

    ``2^m`` as a multiplexer; for m >= 5 the product of two halves, whose phases meet twice.
    """
    if literals < 5:
        return (1 << literals) if literals else 0
    return 2 * ((1 << (literals // 2)) + (1 << (literals - literals // 2)))


def added_cubes(
    table: Sequence[int] | NDArray[np.int64], levels: Sequence[float]
) -> tuple[float, list[Cube]] | None:
    """Return (constant, cubes) whose sum is ``levels[table[x]]``, of least total cost.

    The least over all ways to split along one bit at a time or to add a number on a whole subcube:
    equal pixels in one subcube are one term, whatever lies inside of it and differs is added to it
    (Quine and McCluskey's cubes; the tree of cases that covers them is found by dynamic programming
    over all 3^k subcubes).

    Args:
        table: Index of each place's level, [2^k].
        levels: Values.

    Returns:
        None where there are too many subcubes and levels to look at.
    """
    values = np.asarray(table, dtype=np.int64)
    bits = len(values).bit_length() - 1
    count = 3**bits
    if count * len(levels) > _MOST:
        return None
    digits = np.zeros((count, bits), dtype=np.int8)
    code = np.arange(count)
    for i in range(bits):
        digits[:, i] = code // 3**i % 3
    free = (digits == 2).sum(axis=1)
    cost = np.zeros((count, len(levels)), dtype=np.int64)
    split = np.zeros((count, len(levels)), dtype=np.int64)
    choice = np.full((count, len(levels)), -1, dtype=np.int8)
    leaves = np.flatnonzero(free == 0)
    place = (digits[leaves] << np.arange(bits)).sum(axis=1)
    far = 1 << 40
    split[leaves] = np.where(np.arange(len(levels)) == values[place][:, None], 0, far)
    cost[leaves] = np.minimum(split[leaves], cube_cost(bits))
    for number in range(1, bits + 1):
        codes = np.flatnonzero(free == number)
        best = np.full((len(codes), len(levels)), far)
        which = np.full((len(codes), len(levels)), -1, dtype=np.int8)
        for i in range(bits):
            own = digits[codes, i] == 2
            low = codes[own] - 2 * 3**i
            total = cost[low] + cost[low + 3**i]
            better = total < best[own]
            best[own] = np.where(better, total, best[own])
            which[own] = np.where(better, i, which[own])
        split[codes], choice[codes] = best, which
        jump = best.min(axis=1, keepdims=True) + cube_cost(bits - number)
        cost[codes] = np.minimum(best, jump)
    top = count - 1
    start = int(split[top].argmin())
    cubes: list[Cube] = []
    todo = [(top, start)]
    while todo:
        here, level = todo.pop()
        if cost[here, level] < split[here, level]:
            other = int(split[here].argmin())
            fixed = digits[here] != 2
            mask = int((fixed << np.arange(bits)).sum())
            where = int(((digits[here] * fixed).astype(np.int64) << np.arange(bits)).sum())
            cubes.append(Cube(mask, where, levels[other] - levels[level]))
            level = other
        if cost[here, level] or (free[here] and split[here, level]):
            i = int(choice[here, level])
            low = here - 2 * 3**i
            todo += [(low, level), (low + 3**i, level)]
    return levels[start], cubes
