"""The kernel of Pauli network synthesis: rotations freed one by one, by the CX that help most.

A table (see ``clifford_tableau``) holds the Paulis of all rotations and of the Clifford after them.
The next rotations stand in a window of ``WORD`` slots beside it, with what each has to wait for.
"""

from __future__ import annotations

from typing import Any

from qcomp.passes.synthesize.clifford_tableau import MASK, WORD, apply, bit, emit, ones
from qcomp.passes.synthesize.clifford_words import CX, TURN, H, S

__all__ = ["NETWORK_CALLS", "free_rotations"]

_FULL = MASK
_CHOICES = 8
_PAIRS = 40


def turn_wire(
    kind: int,
    a: int,
    b: int,
    start: int,
    words: int,
    x: Any,
    z: Any,
    sign: Any,
    wx: Any,
    wz: Any,
    ws: Any,
    out: Any,
    at: int,
) -> int:
    """Apply a gate to the table from word ``start`` on and to the window, and write it."""
    apply(kind, a, b, start, words, x, z, sign)
    apply(kind, a, b, 0, 1, wx, wz, ws)
    return emit(out, at, kind, a, b)


def load(row: int, slot: int, n: int, words: int, x: Any, z: Any, wx: Any, wz: Any) -> int:
    """Copy a row of the table to a slot of the window; its number of wires is returned."""
    weight = 0
    for q in range(n):
        a = bit(x, q, row, words)
        b = bit(z, q, row, words)
        if a | b:
            weight += 1
            wx[q] |= a << slot
            wz[q] |= b << slot
    return weight


def fights(slot: int, n: int, used: int, wx: Any, wz: Any) -> int:
    """Slots whose Paulis do not commute with that of ``slot``."""
    odd = 0
    for q in range(n):
        if (wx[q] >> slot) & 1:
            odd ^= wz[q]
        if (wz[q] >> slot) & 1:
            odd ^= wx[q]
    return odd & used


def layers(used: int, before: Any, layer: Any, count: int) -> None:
    """Part the slots in layers by what they wait for; the last layer takes the rest."""
    left = used
    for k in range(count - 1):
        free = 0
        rest = left
        while rest != 0:
            low = rest & -rest
            rest ^= low
            if before[ones(low - 1)] & left == 0:
                free |= low
        layer[k] = free
        left ^= free
    layer[count - 1] = left


def worth(up: int, down: int, layer: Any, weigh: Any, count: int) -> int:
    """Weighed number of slots that gain a wire, less those that lose one."""
    total = 0
    for k in range(count):
        total += weigh[k] * (ones(up & layer[k]) - ones(down & layer[k]))
    return total


def gain(
    i: int,
    p: int,
    j: int,
    r: int,
    rotations: int,
    words: int,
    x: Any,
    z: Any,
    wx: Any,
    wz: Any,
    layer: Any,
    weigh: Any,
    count: int,
) -> int:
    """How much heavier the Paulis get by the gate that is CX for Pauli p of wire i, r of wire j."""
    # a: what does not commute with p on i gains r on j; b: the other way round.
    a = (wz[i] if p & 1 else 0) ^ (wx[i] if p & 2 else 0)
    b = (wz[j] if r & 1 else 0) ^ (wx[j] if r & 2 else 0)
    old = wx[i] | wz[i]
    new = (wx[i] ^ (b if p & 1 else 0)) | (wz[i] ^ (b if p & 2 else 0))
    total = worth(new & ~old, old & ~new, layer, weigh, count)
    old = wx[j] | wz[j]
    new = (wx[j] ^ (a if r & 1 else 0)) | (wz[j] ^ (a if r & 2 else 0))
    total += worth(new & ~old, old & ~new, layer, weigh, count)
    tail = weigh[count]
    if tail != 0:
        i0 = i * words
        j0 = j * words
        first = rotations // WORD
        for k in range(first, words):
            keep = _FULL
            if k == first:
                keep = _FULL ^ ((1 << (rotations % WORD)) - 1)
            xi = x[i0 + k] & keep
            zi = z[i0 + k] & keep
            xj = x[j0 + k] & keep
            zj = z[j0 + k] & keep
            a = (zi if p & 1 else 0) ^ (xi if p & 2 else 0)
            b = (zj if r & 1 else 0) ^ (xj if r & 2 else 0)
            if a | b:
                change = ones((xi ^ (b if p & 1 else 0)) | (zi ^ (b if p & 2 else 0)))
                change += ones((xj ^ (a if r & 1 else 0)) | (zj ^ (a if r & 2 else 0)))
                total += tail * (change - ones(xi | zi) - ones(xj | zj))
    return total


def turns(p: int, r: int) -> int:
    """One-qubit gates before the CX for Pauli p of one wire and r of another, either way round."""
    one = (0 if p == 2 else p // 2 + 1) + (0 if r == 1 else 1)
    two = (0 if r == 2 else r // 2 + 1) + (0 if p == 1 else 1)
    return one if one <= two else two


def free_rotations(
    n: int,
    rotations: int,
    words: int,
    x: Any,
    z: Any,
    sign: Any,
    count: int,
    weigh: Any,
    limit: int,
    wx: Any,
    wz: Any,
    ws: Any,
    before: Any,
    weight: Any,
    source: Any,
    layer: Any,
    wires: Any,
    out: Any,
) -> int:
    """Write all rotations of a table and the gates between them; what is left is its Clifford.

    A rotation on one wire that waits for nothing is written about Z. Else one of the lightest that
    wait for nothing loses a wire, by the gate that lightens all of the window most. count: number
    of layers; weigh: int[count + 2], what a wire counts in each and in the Clifford, and an eighth
    of what a one-qubit gate counts. limit: CX gates from which on nothing more is worth writing; -1
    is returned there. wx, wz: int[n], ws: int[1], before, weight, source: int[WORD], layer:
    int[count], wires: int[n], room to work in.
    """
    at = 0
    spent = 0
    coming = 0
    used = 0
    for q in range(n):
        wx[q] = 0
        wz[q] = 0
    ws[0] = 0
    stale = True
    while True:
        while coming < rotations and used != _FULL:
            low = ~used & (used + 1)
            s = ones(low - 1)
            weight[s] = load(coming, s, n, words, x, z, wx, wz)
            ws[0] |= ((sign[coming // WORD] >> (coming % WORD)) & 1) << s
            source[s] = coming
            before[s] = fights(s, n, used, wx, wz)
            used |= low
            coming += 1
            stale = True
        if used == 0:
            return at
        start = coming // WORD
        least = n + 1
        pick = -1
        rest = used
        while rest != 0:
            low = rest & -rest
            rest ^= low
            s = ones(low - 1)
            if before[s] == 0 and weight[s] < least:
                least = weight[s]
                pick = s
        if least == 1:
            s = pick
            q = 0
            while ((wx[q] | wz[q]) >> s) & 1 == 0:
                q += 1
            if (wx[q] >> s) & 1:
                if (wz[q] >> s) & 1:
                    at = turn_wire(S, q, 0, start, words, x, z, sign, wx, wz, ws, out, at)
                at = turn_wire(H, q, 0, start, words, x, z, sign, wx, wz, ws, out, at)
            at = emit(out, at, TURN, q, 2 * source[s] + ((ws[0] >> s) & 1))
            hole = _FULL ^ (1 << s)
            wz[q] &= hole
            ws[0] &= hole
            used &= hole
            rest = used
            while rest != 0:
                low = rest & -rest
                rest ^= low
                before[ones(low - 1)] &= hole
            stale = True
            continue
        if spent >= limit:
            return -1
        if stale:
            layers(used, before, layer, count)
            stale = False
        best = 0
        bi = -1
        bj = -1
        bp = 0
        br = 0
        tried = 0
        rest = used
        while rest != 0 and tried < _CHOICES:
            low = rest & -rest
            rest ^= low
            s = ones(low - 1)
            if before[s] != 0 or weight[s] != least:
                continue
            tried += 1
            size = 0
            for q in range(n):
                if ((wx[q] | wz[q]) >> s) & 1:
                    wires[size] = q
                    size += 1
            pairs = 0
            for u in range(size):
                i = wires[u]
                p = ((wx[i] >> s) & 1) + 2 * ((wz[i] >> s) & 1)
                for v in range(u + 1, size):
                    if pairs >= _PAIRS:
                        break
                    pairs += 1
                    j = wires[v]
                    r = ((wx[j] >> s) & 1) + 2 * ((wz[j] >> s) & 1)
                    for other in range(1, 4):
                        # A Pauli of one wire that fights takes the Pauli of the other off.
                        if other != p:
                            cost = gain(
                                i, other, j, r, rotations, words, x, z, wx, wz, layer, weigh, count
                            )
                            cost = 8 * cost + weigh[count + 1] * turns(other, r)
                            if bi < 0 or cost < best:
                                best = cost
                                bi = i
                                bp = other
                                bj = j
                                br = r
                        if other != r:
                            cost = gain(
                                i, p, j, other, rotations, words, x, z, wx, wz, layer, weigh, count
                            )
                            cost = 8 * cost + weigh[count + 1] * turns(p, other)
                            if bi < 0 or cost < best:
                                best = cost
                                bi = i
                                bp = p
                                bj = j
                                br = other
        # The gate is symmetric: the way round with fewer turns of its wires is taken.
        if (0 if bp == 2 else bp // 2 + 1) + (0 if br == 1 else 1) > turns(bp, br):
            q = bi
            bi = bj
            bj = q
            q = bp
            bp = br
            br = q
        if bp == 3:
            at = turn_wire(S, bi, 0, start, words, x, z, sign, wx, wz, ws, out, at)
        if bp != 2:
            at = turn_wire(H, bi, 0, start, words, x, z, sign, wx, wz, ws, out, at)
        if br == 2:
            at = turn_wire(H, bj, 0, start, words, x, z, sign, wx, wz, ws, out, at)
        elif br == 3:
            at = turn_wire(S, bj, 0, start, words, x, z, sign, wx, wz, ws, out, at)
        old_i = wx[bi] | wz[bi]
        old_j = wx[bj] | wz[bj]
        at = turn_wire(CX, bi, bj, start, words, x, z, sign, wx, wz, ws, out, at)
        spent += 1
        for q in range(2):
            new = wx[bi] | wz[bi] if q == 0 else wx[bj] | wz[bj]
            old = old_i if q == 0 else old_j
            rest = new ^ old
            while rest != 0:
                low = rest & -rest
                rest ^= low
                weight[ones(low - 1)] += 1 if new & low else -1


NETWORK_CALLS = (ones, turn_wire, load, fights, layers, worth, gain, turns, free_rotations)
"""What a kernel that calls ``free_rotations`` calls, beside the calls of the tableau."""
