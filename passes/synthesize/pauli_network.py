"""The kernel of Pauli-rotation resynthesis: every Clifford is absorbed, CX are written anew.

Two sets of Paulis over the physical wires are kept: the rotations that wait, and what ``X_q`` and
``Z_q`` of each logical wire are by now. A Clifford gate of the given circuit multiplies the latter
and writes nothing; a gate that is written turns all. A rotation is written when its Pauli has come
down to one wire and nothing that it does not commute with waits before it.
"""

from __future__ import annotations

from typing import Any

from qcomp.kernels import kernel
from qcomp.passes.synthesize.parity_frame import SLOTS, WORD, ones
from qcomp.passes.synthesize.pauli_frame import (
    CX,
    CZ,
    FRAME,
    LIMIT,
    MINUS,
    MOST,
    OUT,
    QUARTER,
    READY,
    SWAP,
    TURN,
    USED,
    H,
    entangle,
    exchange,
    finish,
    multiply,
    put,
    quarter,
    score,
    to_z,
)

__all__ = ["rewrite"]

_CHOICES = 8
_PLANES = 12


def _weigh(m: int, sx: Any, sz: Any, plane: Any) -> None:
    """Count the wires of every waiting Pauli at once: bit k of each weight is in ``plane[k]``."""
    for k in range(_PLANES):
        plane[k] = 0
    for w in range(m):
        carry = sx[w] | sz[w]
        k = 0
        while carry != 0 and k < _PLANES:
            both = plane[k] & carry
            plane[k] ^= carry
            carry = both
            k += 1


def _settle(
    m: int,
    words: int,
    sx: Any,
    sz: Any,
    rx: Any,
    rz: Any,
    minus: Any,
    plane: Any,
    block: Any,
    source: Any,
    state: Any,
    out: Any,
) -> None:
    """Write the rotations that are down to one wire and have nothing to wait for."""
    while True:
        _weigh(m, sx, sz, plane)
        found = plane[0] & state[READY]
        for k in range(1, _PLANES):
            found &= found ^ plane[k]
        if found == 0:
            return
        while found != 0:
            bit = found & -found
            found ^= bit
            s = ones(bit - 1)
            a = 0
            while (sx[a] | sz[a]) & bit == 0:
                a += 1
            p = (1 if sx[a] & bit else 0) + (2 if sz[a] & bit else 0)
            to_z(a, p, words, sx, sz, rx, rz, minus, state, out)
            put(state, out, TURN, a, 2 * source[s] + ((state[MINUS] >> s) & 1))
            sz[a] &= sz[a] ^ bit
            state[USED] ^= bit
            state[READY] ^= bit
            rest = state[USED] & (state[USED] ^ state[READY])
            while rest != 0:
                low = rest & -rest
                rest ^= low
                j = ones(low - 1)
                block[j] &= block[j] ^ bit
                if block[j] == 0:
                    state[READY] |= low


def _step(
    m: int,
    words: int,
    front: int,
    ahead: int,
    rows: int,
    sx: Any,
    sz: Any,
    rx: Any,
    rz: Any,
    minus: Any,
    plane: Any,
    wires: Any,
    state: Any,
    out: Any,
) -> None:
    """Write the entangler that shortens one of the lightest rotations and all others most."""
    light = state[READY]
    for j in range(_PLANES):
        k = _PLANES - 1 - j
        lighter = light & (light ^ plane[k])
        if lighter != 0:
            light = lighter
    best = 1 << 30
    best_a = 0
    best_b = 0
    best_p = 0
    best_q = 0
    tried = 0
    while light != 0 and tried < _CHOICES:
        bit = light & -light
        light ^= bit
        tried += 1
        count = 0
        for w in range(m):
            if (sx[w] | sz[w]) & bit:
                wires[count] = w
                count += 1
        for i in range(count):
            a = wires[i]
            p = (1 if sx[a] & bit else 0) + (2 if sz[a] & bit else 0)
            for k in range(count):
                if i == k:
                    continue
                b = wires[k]
                q = (1 if sx[b] & bit else 0) + (2 if sz[b] & bit else 0)
                for other in range(1, 4):
                    if other != p:
                        d = score(a, other, b, q, words, front, ahead, rows, sx, sz, rx, rz, state)
                        if d < best:
                            best = d
                            best_a = a
                            best_b = b
                            best_p = other
                            best_q = q
    entangle(best_a, best_p, best_b, best_q, words, sx, sz, rx, rz, minus, state, out)


@kernel(calls=(*FRAME, _weigh, _settle, _step))
def rewrite(
    n: int,
    m: int,
    words: int,
    limit: int,
    most: int,
    front: int,
    ahead: int,
    rows: int,
    kind: Any,
    wire: Any,
    arity: Any,
    aux: Any,
    product: Any,
    sx: Any,
    sz: Any,
    rx: Any,
    rz: Any,
    minus: Any,
    plane: Any,
    block: Any,
    source: Any,
    wires: Any,
    pauli: Any,
    state: Any,
    out: Any,
) -> int:
    """Write a segment of n operations on m wires anew; the number of operations written.

    kind[n], wire[3 n], arity[n], aux[n]: the axis of a rotation on each operand, two bits each, and
    from bit 4 on the quarters of one that is a Clifford. sx[m], sz[m]: waiting rotations by wire,
    one bit a slot; block, source[slots]: what waits before each, its operation. rx, rz[m words],
    minus[words]: rows 2 q and 2 q + 1 are what ``X_q`` and ``Z_q`` are, one bit a row. out, int32[3
    limit], (kind, a, b): H, SDG, X, Z on a, ``cx a, b``, rotation of operation b // 2 about Z on
    wire a, negated where b is odd. More than ``limit`` says that this limit was reached, or that of
    ``most`` CX. front, ahead, rows: weights of what can be written next, of all that waits and of
    the rows.
    """
    state[LIMIT] = limit
    state[MOST] = most
    everything = (1 << SLOTS) - 1
    i = 0
    while i < n and state[OUT] <= limit:
        what = kind[i]
        a = wire[3 * i]
        b = wire[3 * i + 1]
        if what == H:
            exchange(2 * a, 2 * a + 1, m, words, rx, rz, minus)
        elif what == CX:
            multiply(2 * b + 1, 2 * a + 1, 0, m, words, rx, rz, minus, product)
            multiply(2 * a, 2 * b, 0, m, words, rx, rz, minus, product)
        elif what == CZ:
            multiply(2 * a, 2 * b + 1, 0, m, words, rx, rz, minus, product)
            multiply(2 * b, 2 * a + 1, 0, m, words, rx, rz, minus, product)
        elif what == SWAP:
            exchange(2 * a, 2 * b, m, words, rx, rz, minus)
            exchange(2 * a + 1, 2 * b + 1, m, words, rx, rz, minus)
        elif what == QUARTER:
            quarter(a, aux[i] & 3, (aux[i] >> 4) & 3, m, words, rx, rz, minus, product)
        else:
            if state[USED] == everything:
                _settle(m, words, sx, sz, rx, rz, minus, plane, block, source, state, out)
                if state[USED] == everything:
                    _step(
                        m,
                        words,
                        front,
                        ahead,
                        rows,
                        sx,
                        sz,
                        rx,
                        rz,
                        minus,
                        plane,
                        wires,
                        state,
                        out,
                    )
                continue
            power = 0
            for w in range(m):
                pauli[w] = 0
            for k in range(arity[i]):
                axis = (aux[i] >> (2 * k)) & 3
                if axis == 3:
                    power += 1
                for part in range(2):
                    if (axis >> part) & 1:
                        row = 2 * wire[3 * i + k] + part
                        j = row // WORD
                        s = row % WORD
                        power += 2 * ((minus[j] >> s) & 1)
                        for w in range(m):
                            p = ((rx[w * words + j] >> s) & 1) + 2 * ((rz[w * words + j] >> s) & 1)
                            power += product[4 * pauli[w] + p]
                            pauli[w] ^= p
            bit = ~state[USED] & (state[USED] + 1)
            s = ones(bit - 1)
            before = 0
            for w in range(m):
                p = pauli[w]
                if p & 1:
                    before ^= sz[w]
                if p & 2:
                    before ^= sx[w]
            for w in range(m):
                p = pauli[w]
                if p & 1:
                    sx[w] |= bit
                if p & 2:
                    sz[w] |= bit
            source[s] = i
            block[s] = before
            state[USED] |= bit
            state[MINUS] |= bit
            if (power >> 1) & 1 == 0:
                state[MINUS] ^= bit
            if before == 0:
                state[READY] |= bit
        i += 1
    while state[OUT] <= limit:
        _settle(m, words, sx, sz, rx, rz, minus, plane, block, source, state, out)
        if state[USED] == 0:
            break
        _step(m, words, front, ahead, rows, sx, sz, rx, rz, minus, plane, wires, state, out)
    for q in range(m):
        finish(q, m, words, sx, sz, rx, rz, minus, wires, state, out)
    return int(state[OUT])
