"""Two sets of Paulis over wires, as bits, and the Clifford gates that turn both.

The rotations that wait have one bit a slot in ``sx[m]``, ``sz[m]``; the rows, what ``X_q`` and
``Z_q`` of each logical wire are by now, one bit a row (2 q, 2 q + 1) in ``rx``, ``rz[m words]``.
Signs stand in ``state[MINUS]`` and ``minus[words]``. A gate that is written turns all of them; one
that is read multiplies rows.

Source: Aaronson, Gottesman 2004 (arXiv:quant-ph/0406196), section III, for the signs.
"""

from __future__ import annotations

from typing import Any

from qcomp.passes.synthesize.parity_frame import WORD, ones

__all__ = [
    "COST",
    "CX",
    "CZ",
    "FENCE",
    "FRAME",
    "H",
    "LIMIT",
    "MINUS",
    "MOST",
    "OUT",
    "QUARTER",
    "READY",
    "SDG",
    "SWAP",
    "TURN",
    "USED",
    "X",
    "Z",
    "entangle",
    "exchange",
    "finish",
    "multiply",
    "put",
    "quarter",
    "score",
    "to_z",
]

H, CX, CZ, SWAP, QUARTER, TURN, FENCE = range(7)
"""Kinds of operations read; a quarter is a Clifford rotation on one wire."""

SDG, X, Z = 2, 3, 4
"""Kinds of operations written, beside H, CX and TURN."""

OUT, COST, USED, MINUS, LIMIT, READY, MOST = range(7)
"""Entries of the state: operations and CX written, slots in use, their signs, most operations to
write, slots that nothing keeps from being written, most CX to write."""


def put(state: Any, out: Any, kind: int, a: int, b: int) -> None:
    """Append an operation, unless the limit is reached."""
    at = state[OUT]
    if at < state[LIMIT]:
        out[3 * at] = kind
        out[3 * at + 1] = a
        out[3 * at + 2] = b
    state[OUT] = at + 1


def local(
    kind: int,
    a: int,
    words: int,
    sx: Any,
    sz: Any,
    rx: Any,
    rz: Any,
    minus: Any,
    state: Any,
    out: Any,
) -> None:
    """Write H, S^-1, X or Z on wire a and turn all Paulis."""
    put(state, out, kind, a, -1)
    x = sx[a]
    z = sz[a]
    if kind == H:
        state[MINUS] ^= x & z
        sx[a] = z
        sz[a] = x
    elif kind == SDG:
        state[MINUS] ^= x & (x ^ z)
        sz[a] = x ^ z
    elif kind == X:
        state[MINUS] ^= z
    else:
        state[MINUS] ^= x
    for j in range(words):
        x = rx[a * words + j]
        z = rz[a * words + j]
        if kind == H:
            minus[j] ^= x & z
            rx[a * words + j] = z
            rz[a * words + j] = x
        elif kind == SDG:
            minus[j] ^= x & (x ^ z)
            rz[a * words + j] = x ^ z
        elif kind == X:
            minus[j] ^= z
        else:
            minus[j] ^= x


def cx(
    c: int, t: int, words: int, sx: Any, sz: Any, rx: Any, rz: Any, minus: Any, state: Any, out: Any
) -> None:
    """Write ``cx c, t`` and turn all Paulis."""
    put(state, out, CX, c, t)
    state[COST] += 1
    if state[COST] > state[MOST]:
        state[OUT] = state[LIMIT] + 1
    x = sx[c] & sz[t]
    state[MINUS] ^= x & (x ^ sx[t] ^ sz[c])
    sx[t] ^= sx[c]
    sz[c] ^= sz[t]
    for j in range(words):
        x = rx[c * words + j] & rz[t * words + j]
        minus[j] ^= x & (x ^ rx[t * words + j] ^ rz[c * words + j])
        rx[t * words + j] ^= rx[c * words + j]
        rz[c * words + j] ^= rz[t * words + j]


def to_z(
    a: int, p: int, words: int, sx: Any, sz: Any, rx: Any, rz: Any, minus: Any, state: Any, out: Any
) -> None:
    """Turn the Pauli p of wire a into Z or -Z."""
    if p == 3:
        local(SDG, a, words, sx, sz, rx, rz, minus, state, out)
    if p != 2:
        local(H, a, words, sx, sz, rx, rz, minus, state, out)


def to_x(
    a: int, p: int, words: int, sx: Any, sz: Any, rx: Any, rz: Any, minus: Any, state: Any, out: Any
) -> None:
    """Turn the Pauli p of wire a into X or -X."""
    if p == 3:
        local(SDG, a, words, sx, sz, rx, rz, minus, state, out)
    elif p == 2:
        local(H, a, words, sx, sz, rx, rz, minus, state, out)


def extra(p: int, q: int) -> int:
    """Gates on one wire that an entangler of p and q takes beside its CX."""
    forth = (0, 1, 0, 2)[p] + (0, 0, 1, 1)[q]
    back = (0, 1, 0, 2)[q] + (0, 0, 1, 1)[p]
    return min(forth, back)


def entangle(
    a: int,
    p: int,
    b: int,
    q: int,
    words: int,
    sx: Any,
    sz: Any,
    rx: Any,
    rz: Any,
    minus: Any,
    state: Any,
    out: Any,
) -> None:
    """Write the gate that multiplies by ``q_b`` what does not commute with ``p_a``, and reverse."""
    if (0, 1, 0, 2)[p] + (0, 0, 1, 1)[q] <= (0, 1, 0, 2)[q] + (0, 0, 1, 1)[p]:
        to_z(a, p, words, sx, sz, rx, rz, minus, state, out)
        to_x(b, q, words, sx, sz, rx, rz, minus, state, out)
        cx(a, b, words, sx, sz, rx, rz, minus, state, out)
    else:
        to_x(a, p, words, sx, sz, rx, rz, minus, state, out)
        to_z(b, q, words, sx, sz, rx, rz, minus, state, out)
        cx(b, a, words, sx, sz, rx, rz, minus, state, out)


def heavier(xa: int, za: int, p: int, xb: int, zb: int, q: int, mask: int) -> int:
    """How much the weight of Paulis in ``mask`` grows by the entangler of p and q."""
    anti_a = 0
    if p & 1:
        anti_a ^= za
    if p & 2:
        anti_a ^= xa
    anti_b = 0
    if q & 1:
        anti_b ^= zb
    if q & 2:
        anti_b ^= xb
    before = ones((xa | za) & mask) + ones((xb | zb) & mask)
    if q & 1:
        xb ^= anti_a
    if q & 2:
        zb ^= anti_a
    if p & 1:
        xa ^= anti_b
    if p & 2:
        za ^= anti_b
    return ones((xa | za) & mask) + ones((xb | zb) & mask) - before


def score(
    a: int,
    p: int,
    b: int,
    q: int,
    words: int,
    front: int,
    ahead: int,
    rows: int,
    sx: Any,
    sz: Any,
    rx: Any,
    rz: Any,
    state: Any,
) -> int:
    """How much heavier the entangler makes all that waits, and the gates it takes."""
    score = 2 * extra(p, q)
    score += front * heavier(sx[a], sz[a], p, sx[b], sz[b], q, state[READY])
    score += ahead * heavier(sx[a], sz[a], p, sx[b], sz[b], q, state[USED])
    if rows != 0:
        everything = (1 << WORD) - 1
        for j in range(words):
            score += rows * heavier(
                rx[a * words + j],
                rz[a * words + j],
                p,
                rx[b * words + j],
                rz[b * words + j],
                q,
                everything,
            )
    return score


def multiply(
    target: int, by: int, power: int, m: int, words: int, rx: Any, rz: Any, minus: Any, product: Any
) -> None:
    """Row ``target`` becomes ``i^power * row by * row target``."""
    i = target // WORD
    j = by // WORD
    s = target % WORD
    t = by % WORD
    power += 2 * ((minus[i] >> s) & 1) + 2 * ((minus[j] >> t) & 1)
    for w in range(m):
        x = (rx[w * words + j] >> t) & 1
        z = (rz[w * words + j] >> t) & 1
        if x | z:
            here = ((rx[w * words + i] >> s) & 1) + 2 * ((rz[w * words + i] >> s) & 1)
            power += product[4 * (x + 2 * z) + here]
            rx[w * words + i] ^= x << s
            rz[w * words + i] ^= z << s
    if ((power >> 1) ^ (minus[i] >> s)) & 1:
        minus[i] ^= 1 << s


def exchange(first: int, second: int, m: int, words: int, rx: Any, rz: Any, minus: Any) -> None:
    """Two rows trade places."""
    i = first // WORD
    j = second // WORD
    s = first % WORD
    t = second % WORD
    for w in range(m):
        if ((rx[w * words + i] >> s) ^ (rx[w * words + j] >> t)) & 1:
            rx[w * words + i] ^= 1 << s
            rx[w * words + j] ^= 1 << t
        if ((rz[w * words + i] >> s) ^ (rz[w * words + j] >> t)) & 1:
            rz[w * words + i] ^= 1 << s
            rz[w * words + j] ^= 1 << t
    if ((minus[i] >> s) ^ (minus[j] >> t)) & 1:
        minus[i] ^= 1 << s
        minus[j] ^= 1 << t


def quarter(
    q: int, axis: int, turns: int, m: int, words: int, rx: Any, rz: Any, minus: Any, product: Any
) -> None:
    """Read a rotation of ``turns`` times pi/2 about an axis of logical wire q."""
    i = 2 * q // WORD
    s = 2 * q % WORD
    if axis == 3:
        if turns & 1:
            exchange(2 * q, 2 * q + 1, m, words, rx, rz, minus)
            minus[i] ^= (2 if turns == 1 else 1) << s
        elif turns == 2:
            minus[i] ^= 3 << s
    elif turns & 1:
        target = 2 * q if axis == 2 else 2 * q + 1
        by = 2 * q + 1 if axis == 2 else 2 * q
        multiply(target, by, turns, m, words, rx, rz, minus, product)
    elif turns == 2:
        minus[i] ^= (1 if axis == 2 else 2) << s


def rank(x: int, z: int) -> int:
    """Rank of two Paulis on one wire, given as two bits of x and two of z."""
    first = (x & 1) + 2 * (z & 1)
    second = (x >> 1) + 2 * (z >> 1)
    if first == 0 or second == 0 or first == second:
        return 1 if first + second > 0 else 0
    return 2


def ranks(xa: int, za: int, p: int, xb: int, zb: int, q: int, keep_a: bool, keep_b: bool) -> int:
    """How the ranks of two rows on wires a and b change by the entangler of p and q."""
    before = (0 if keep_a else rank(xa, za)) + (0 if keep_b else rank(xb, zb))
    anti_a = (za if p & 1 else 0) ^ (xa if p & 2 else 0)
    anti_b = (zb if q & 1 else 0) ^ (xb if q & 2 else 0)
    xb ^= anti_a if q & 1 else 0
    zb ^= anti_a if q & 2 else 0
    xa ^= anti_b if p & 1 else 0
    za ^= anti_b if p & 2 else 0
    return (0 if keep_a else rank(xa, za)) + (0 if keep_b else rank(xb, zb)) - before


def finish(
    q: int,
    m: int,
    words: int,
    sx: Any,
    sz: Any,
    rx: Any,
    rz: Any,
    minus: Any,
    wires: Any,
    state: Any,
    out: Any,
) -> None:
    """Write gates until the rows of logical wire q are X and Z of physical wire q."""
    i = 2 * q // WORD
    s = 2 * q % WORD
    while state[OUT] <= state[LIMIT]:
        count = 0
        for w in range(m):
            if (rx[w * words + i] | rz[w * words + i]) >> s & 3:
                wires[count] = w
                count += 1
        if count == 1:
            break
        best = 1 << 30
        best_a = 0
        best_b = 0
        best_p = 0
        best_q = 0
        for j in range(count):
            a = wires[j]
            xa = rx[a * words + i] >> s & 3
            za = rz[a * words + i] >> s & 3
            for k in range(count):
                b = wires[k]
                if a == b:
                    continue
                xb = rx[b * words + i] >> s & 3
                zb = rz[b * words + i] >> s & 3
                for p in range(1, 4):
                    for r in range(1, 4):
                        if a > b:
                            continue
                        change = ranks(xa, za, p, xb, zb, r, a == q, b == q)
                        if change >= 0:
                            continue
                        d = 200 * change + score(a, p, b, r, words, 0, 0, 4, sx, sz, rx, rz, state)
                        if d < best:
                            best = d
                            best_a = a
                            best_b = b
                            best_p = p
                            best_q = r
        if best == 1 << 30:
            break
        entangle(best_a, best_p, best_b, best_q, words, sx, sz, rx, rz, minus, state, out)
    a = q
    for w in range(m):
        if (rx[w * words + i] | rz[w * words + i]) >> s & 3:
            a = w
    if a != q:
        cx(a, q, words, sx, sz, rx, rz, minus, state, out)
        cx(q, a, words, sx, sz, rx, rz, minus, state, out)
        cx(a, q, words, sx, sz, rx, rz, minus, state, out)
    i = q * words + i
    to_z(
        q, (rx[i] >> s + 1 & 1) + 2 * (rz[i] >> s + 1 & 1), words, sx, sz, rx, rz, minus, state, out
    )
    if rz[i] >> s & 1:
        local(SDG, q, words, sx, sz, rx, rz, minus, state, out)
    i = 2 * q // WORD
    if minus[i] >> s & 1:
        local(Z, q, words, sx, sz, rx, rz, minus, state, out)
    if minus[i] >> s & 2:
        local(X, q, words, sx, sz, rx, rz, minus, state, out)


FRAME = (
    ones,
    put,
    local,
    cx,
    to_z,
    to_x,
    extra,
    entangle,
    heavier,
    score,
    multiply,
    exchange,
    quarter,
    rank,
    ranks,
    finish,
)
"""The functions of this module, callees first, for kernels that call them."""
