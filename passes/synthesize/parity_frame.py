"""Parities that wait, and the linear map between what wires hold and what they should hold.

Logical wires hold ``f``, physical wires ``g = A f + k`` over GF(2), and ``f = B (g + k)``: rows of
A in ``arow[m words]``, columns of B in ``bcol[m words]``, k in ``flip[m]``. Rotations wait as
parities of physical wires, one a slot: ``col[m]`` has a bit a slot, ``parity[slots words]`` a bit a
wire, ``weight`` their wires, ``source`` their operations.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "COST",
    "CX",
    "FLIP",
    "LIMIT",
    "MINUS",
    "OUT",
    "ROTATE",
    "SCALE",
    "SLOTS",
    "SWAP",
    "USED",
    "WALL",
    "WORD",
    "add",
    "change",
    "ones",
    "turn",
    "write",
]

CX, FLIP, SWAP, ROTATE, WALL = range(5)
"""Kinds of operations."""

WORD = 62
"""Bits used of each word, so that every word is a plain positive integer."""

SLOTS = WORD
"""Rotations that wait at a time."""

SCALE = 20
"""What one CX less in a waiting parity weighs."""

OUT, COST, USED, MINUS, LIMIT = range(5)
"""Entries of the state: operations and CX written, slots in use, their complements, most operations
to write."""


def ones(x: int) -> int:
    """Count the bits of a word."""
    x -= (x >> 1) & 0x1555555555555555
    x = (x & 0x3333333333333333) + ((x >> 2) & 0x3333333333333333)
    x = (x + (x >> 4)) & 0x0F0F0F0F0F0F0F0F
    x += x >> 8
    x += x >> 16
    x += x >> 32
    return x & 127


def write(state: Any, out: Any, kind: int, a: int, b: int) -> None:
    """Append an operation, unless the limit is reached."""
    at = state[OUT]
    if at < state[LIMIT]:
        out[3 * at] = kind
        out[3 * at + 1] = a
        out[3 * at + 2] = b
    state[OUT] = at + 1


def turn(state: Any, out: Any, source: Any, s: int, wire: int) -> None:
    """Write the rotation of slot ``s`` on the wire that holds its parity."""
    write(state, out, ROTATE, wire, 2 * source[s] + ((state[MINUS] >> s) & 1))


def add(
    c: int,
    t: int,
    words: int,
    arow: Any,
    bcol: Any,
    flip: Any,
    col: Any,
    parity: Any,
    weight: Any,
    source: Any,
    state: Any,
    out: Any,
) -> None:
    """Write ``cx c, t``: wire t gains wire c, every parity that has t loses or gains c."""
    write(state, out, CX, c, t)
    state[COST] += 1
    for j in range(words):
        arow[t * words + j] ^= arow[c * words + j]
        bcol[c * words + j] ^= bcol[t * words + j]
    flip[t] ^= flip[c]
    x = col[t]
    both = x & col[c]
    col[c] ^= x
    while x != 0:
        bit = x & -x
        x ^= bit
        s = ones(bit - 1)
        parity[s * words + c // WORD] ^= 1 << (c % WORD)
        if both & bit == 0:
            weight[s] += 1
            continue
        weight[s] -= 1
        if weight[s] == 1:
            turn(state, out, source, s, t)
            col[t] ^= bit
            parity[s * words + t // WORD] = 0
            state[USED] ^= bit


def change(
    c: int,
    t: int,
    words: int,
    arow: Any,
    bcol: Any,
    col: Any,
    order: int,
    back: int,
) -> int:
    """How much heavier ``cx c, t`` makes what waits; ``order`` and ``back`` weigh B and A."""
    heavier = SCALE * (ones(col[t]) - 2 * ones(col[t] & col[c]))
    for j in range(words):
        b = bcol[t * words + j]
        a = arow[t * words + j]
        heavier += order * (ones(b) - 2 * ones(b & bcol[c * words + j]))
        heavier += back * (ones(a ^ arow[c * words + j]) - ones(a))
    return heavier
