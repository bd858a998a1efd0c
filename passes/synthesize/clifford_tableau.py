"""Kernels over bit-packed Paulis: a table of Paulis turned gate by gate, made diagonal, its phase.

A table holds r Paulis on n wires by columns: words ``q W`` to ``q W + W - 1`` of x and of z are
the bits of wire q, ``WORD`` Paulis a word, W = ceil(r / WORD); a word of sign holds their signs. A
gate on a wire is a few operations on whole words.
"""

from __future__ import annotations

from typing import Any

from qcomp.passes.synthesize.clifford_words import CX, SDG, TURN, H, S, X, Z

__all__ = [
    "MASK",
    "WORD",
    "apply",
    "bit",
    "disentangle",
    "emit",
    "ones",
    "phase",
    "shorten",
    "take_back",
]

WORD = 62
"""Bits used of each word, so that every word is a plain positive integer."""

MASK = (1 << WORD) - 1


def ones(x: int) -> int:
    """Count the bits of a word."""
    x -= (x >> 1) & 0x1555555555555555
    x = (x & 0x3333333333333333) + ((x >> 2) & 0x3333333333333333)
    x = (x + (x >> 4)) & 0x0F0F0F0F0F0F0F0F
    x += x >> 8
    x += x >> 16
    x += x >> 32
    return x & 127


def bit(column: Any, wire: int, row: int, words: int) -> int:
    """Read one bit of a table."""
    return (column[wire * words + row // WORD] >> (row % WORD)) & 1


def apply(kind: int, a: int, b: int, start: int, words: int, x: Any, z: Any, sign: Any) -> None:
    """Turn every Pauli P of the words from ``start`` on into ``g P g^-1``."""
    i = a * words
    if kind == CX:
        j = b * words
        for k in range(start, words):
            xa = x[i + k]
            zb = z[j + k]
            both = xa & zb
            if both != 0:
                sign[k] ^= both & ((x[j + k] ^ z[i + k]) ^ MASK)
            x[j + k] ^= xa
            z[i + k] ^= zb
    elif kind == H:
        for k in range(start, words):
            u = x[i + k]
            v = z[i + k]
            sign[k] ^= u & v
            x[i + k] = v
            z[i + k] = u
    elif kind == S:
        for k in range(start, words):
            sign[k] ^= x[i + k] & z[i + k]
            z[i + k] ^= x[i + k]
    elif kind == SDG:
        for k in range(start, words):
            z[i + k] ^= x[i + k]
            sign[k] ^= x[i + k] & z[i + k]
    elif kind == X:
        for k in range(start, words):
            sign[k] ^= z[i + k]
    elif kind == Z:
        for k in range(start, words):
            sign[k] ^= x[i + k]


def take_back(
    count: int, n: int, rotations: int, words: int, stream: Any, x: Any, z: Any, sign: Any
) -> int:
    """Fill a table with the Paulis of a stream's rotations and of its Clifford, from the start.

    With C the Cliffords before a rotation about P its row is ``C^-1 P C``, in order; after them
    come ``C^-1 X_q C`` for each q and ``C^-1 Z_q C``, C all Cliffords. The table comes in zero.
    """
    for q in range(n):
        row = rotations + q
        x[q * words + row // WORD] |= 1 << (row % WORD)
        row += n
        z[q * words + row // WORD] |= 1 << (row % WORD)
    # Rows of rotations further back are still the identity: they need no word of their own yet.
    left = rotations
    for t in range(count):
        i = 4 * (count - 1 - t)
        kind = stream[i]
        if kind == TURN:
            left -= 1
            for k in range(2):
                q = stream[i + 1 + k]
                p = (stream[i + 3] >> (2 * k)) & 3
                if q >= 0:
                    x[q * words + left // WORD] |= (p & 1) << (left % WORD)
                    z[q * words + left // WORD] |= (p >> 1) << (left % WORD)
            continue
        if kind == S:
            kind = SDG
        elif kind == SDG:
            kind = S
        apply(kind, stream[i + 1], stream[i + 2], left // WORD, words, x, z, sign)
    return 0


def emit(out: Any, at: int, kind: int, a: int, b: int) -> int:
    """Append a row of a stream where there is room; the number of rows is returned."""
    if 4 * at + 3 < len(out):
        out[4 * at] = kind
        out[4 * at + 1] = a
        out[4 * at + 2] = b
        out[4 * at + 3] = 0
    return at + 1


def to_x(q: int, row: int, words: int, x: Any, z: Any, sign: Any, out: Any, at: int) -> int:
    """Turn wire q so that row ``row``, not the identity there, is X."""
    if bit(x, q, row, words) == 0:
        apply(H, q, 0, 0, words, x, z, sign)
        at = emit(out, at, H, q, -1)
    elif bit(z, q, row, words) == 1:
        apply(S, q, 0, 0, words, x, z, sign)
        at = emit(out, at, S, q, -1)
    return at


def to_z(q: int, row: int, words: int, x: Any, z: Any, sign: Any, out: Any, at: int) -> int:
    """Turn wire q so that row ``row``, not the identity there, is Z."""
    if bit(x, q, row, words) == 1:
        if bit(z, q, row, words) == 1:
            apply(S, q, 0, 0, words, x, z, sign)
            at = emit(out, at, S, q, -1)
        apply(H, q, 0, 0, words, x, z, sign)
        at = emit(out, at, H, q, -1)
    return at


def to_xz(q: int, r: int, s: int, words: int, x: Any, z: Any, sign: Any, out: Any, at: int) -> int:
    """Turn wire q so that row r is X there and row s is Z, the two being unlike."""
    at = to_x(q, r, words, x, z, sign, out, at)
    if bit(x, q, s, words) == 1:
        for kind in (H, S, H):
            apply(kind, q, 0, 0, words, x, z, sign)
            at = emit(out, at, kind, q, -1)
    return at


def cx(c: int, t: int, words: int, x: Any, z: Any, sign: Any, out: Any, at: int) -> int:
    """Apply and write a CX gate."""
    apply(CX, c, t, 0, words, x, z, sign)
    return emit(out, at, CX, c, t)


def class_of(q: int, r: int, s: int, words: int, x: Any, z: Any) -> int:
    """Classify wire q by rows r, s: 0 neither, 1 only r, 2 only s, 3 one Pauli, 4 unlike Paulis."""
    a = bit(x, q, r, words) + 2 * bit(z, q, r, words)
    b = bit(x, q, s, words) + 2 * bit(z, q, s, words)
    if a == 0:
        return 0 if b == 0 else 2
    if b == 0:
        return 1
    return 3 if a == b else 4


def pair_cost(q: int, base: int, n: int, words: int, x: Any, z: Any, live: Any) -> int:
    """Twice the CX gates that make rows base + q and base + n + q into X_q and Z_q."""
    unlike = 0
    same = 0
    single = 0
    for j in range(n):
        if live[j] == 0:
            continue
        c = class_of(j, base + q, base + n + q, words, x, z)
        if c == 4:
            unlike += 1
        elif c == 3:
            same += 1
        elif c != 0:
            single += 1
    cost = 3 * (unlike - 1) + 2 * single
    if same > 0:
        cost += 2 * (same + 1)
    own = class_of(q, base + q, base + n + q, words, x, z)
    if own == 0:
        cost += 6
    elif own != 4:
        cost += 2
    return cost


def disentangle(
    n: int, base: int, words: int, at: int, x: Any, z: Any, sign: Any, live: Any, out: Any
) -> int:
    """Write gates that turn rows base + q and base + n + q of a table into X_q and Z_q, all q.

    Wire after wire, the one that takes the fewest CX gates first. live: int[n], ones; out: the
    stream, from row ``at`` on. Returns the rows of the stream.
    """
    for _ in range(n):
        q = -1
        least = 0
        for j in range(n):
            if live[j] == 1:
                cost = pair_cost(j, base, n, words, x, z, live)
                if q < 0 or cost < least:
                    q = j
                    least = cost
                if cost == 0:
                    break
        r = base + q
        s = r + n
        if least > 0:
            own = class_of(q, r, s, words, x, z)
            if own != 4:
                # Another wire has unlike Paulis: two rows that do not commute differ somewhere.
                p = 0
                while live[p] == 0 or class_of(p, r, s, words, x, z) != 4:
                    p += 1
                at = to_xz(p, r, s, words, x, z, sign, out, at)
                if own == 0:
                    at = cx(p, q, words, x, z, sign, out, at)
                    at = cx(q, p, words, x, z, sign, out, at)
                elif own == 2:
                    at = to_z(q, s, words, x, z, sign, out, at)
                    at = cx(p, q, words, x, z, sign, out, at)
                else:
                    at = to_x(q, r, words, x, z, sign, out, at)
                    at = cx(q, p, words, x, z, sign, out, at)
            at = to_xz(q, r, s, words, x, z, sign, out, at)
            first = -1
            for j in range(n):
                if live[j] == 1 and j != q and class_of(j, r, s, words, x, z) == 4:
                    at = to_xz(j, r, s, words, x, z, sign, out, at)
                    if first < 0:
                        first = j
                    else:
                        at = cx(j, first, words, x, z, sign, out, at)
                        at = cx(first, q, words, x, z, sign, out, at)
                        at = cx(q, j, words, x, z, sign, out, at)
                        first = -1
            first = -1
            for j in range(n):
                if live[j] == 1 and j != q and class_of(j, r, s, words, x, z) == 3:
                    at = to_x(j, r, words, x, z, sign, out, at)
                    if first < 0:
                        first = j
                    else:
                        at = cx(first, j, words, x, z, sign, out, at)
            if first >= 0:
                at = cx(q, first, words, x, z, sign, out, at)
            for j in range(n):
                if live[j] == 0 or j == q:
                    continue
                c = class_of(j, r, s, words, x, z)
                if c == 1:
                    at = to_x(j, r, words, x, z, sign, out, at)
                    at = cx(q, j, words, x, z, sign, out, at)
                elif c == 2:
                    at = to_z(j, s, words, x, z, sign, out, at)
                    at = cx(j, q, words, x, z, sign, out, at)
        at = to_xz(q, r, s, words, x, z, sign, out, at)
        live[q] = 0
    for q in range(n):
        if (sign[(base + q) // WORD] >> ((base + q) % WORD)) & 1:
            apply(Z, q, 0, 0, words, x, z, sign)
            at = emit(out, at, Z, q, -1)
        if (sign[(base + n + q) // WORD] >> ((base + n + q) % WORD)) & 1:
            apply(X, q, 0, 0, words, x, z, sign)
            at = emit(out, at, X, q, -1)
    return at


def spill(q: int, frame: Any, length: Any, word: Any, out: Any, at: int) -> int:
    """Write the one-qubit gates that wire q is waiting for."""
    g = frame[q]
    frame[q] = 0
    for k in range(length[g]):
        at = emit(out, at, word[4 * g + k], q, -1)
    return at


def shorten(
    count: int, n: int, stream: Any, follow: Any, length: Any, word: Any, frame: Any, out: Any
) -> int:
    """Write every chain of one-qubit Clifford gates as its shortest word.

    frame: int[n], zeros. Returns the rows written.
    """
    at = 0
    for t in range(count):
        i = 4 * t
        kind = stream[i]
        a = stream[i + 1]
        if kind < CX:
            frame[a] = follow[5 * frame[a] + kind]
            continue
        at = spill(a, frame, length, word, out, at)
        if kind == CX:
            at = spill(stream[i + 2], frame, length, word, out, at)
        at = emit(out, at, kind, a, stream[i + 2])
    for q in range(n):
        at = spill(q, frame, length, word, out, at)
    return at


def right_cx(q: int, r: int, words: int, f: Any, g: Any, m: Any) -> None:
    """Multiply U_C by CX(q, r) from the right."""
    for k in range(words):
        g[q * words + k] ^= g[r * words + k]
        f[r * words + k] ^= f[q * words + k]
        m[q * words + k] ^= m[r * words + k]


def right_cz(q: int, r: int, words: int, f: Any, m: Any, high: Any) -> None:
    """Multiply U_C by CZ(q, r) from the right."""
    for k in range(words):
        a = f[q * words + k]
        b = f[r * words + k]
        m[q * words + k] ^= b
        m[r * words + k] ^= a
        high[k] ^= a & b


def right_s(q: int, words: int, f: Any, m: Any, low: Any, high: Any) -> None:
    """Multiply U_C by S(q) from the right."""
    for k in range(words):
        a = f[q * words + k]
        m[q * words + k] ^= a
        # gamma -= 1: the high bit falls where the low one is 0.
        high[k] ^= a & (low[k] ^ MASK)
        low[k] ^= a


def left_h(
    q: int, n: int, words: int, f: Any, g: Any, m: Any, low: Any, high: Any, v: Any, s: Any, u: Any
) -> int:
    """Apply H to wire q of a state; the eighths of a turn that its phase gains are returned."""
    alpha = 0
    beta = 0
    pivot = -1
    wire_word = q // WORD
    shift = q % WORD
    for j in range(n):
        fj = (f[j * words + wire_word] >> shift) & 1
        gj = (g[j * words + wire_word] >> shift) & 1
        mj = (m[j * words + wire_word] >> shift) & 1
        if v[j] == 1:
            u[j] = s[j] ^ mj
            beta += fj & (mj ^ s[j])
            s[j] ^= gj
        else:
            u[j] = s[j] ^ fj
            alpha += gj & s[j]
            beta += mj & s[j]
        if u[j] != s[j] and (pivot < 0 or (v[pivot] == 1 and v[j] == 0)):
            pivot = j
    delta = ((low[wire_word] >> shift) & 1) + 2 * ((high[wire_word] >> shift) & 1)
    delta = (delta + 2 * (alpha + beta)) & 3
    turn = 4 * (alpha & 1)
    if pivot < 0:
        # (1 + i^delta) / sqrt(2), delta odd
        return turn + (1 if delta == 1 else 7)
    p = pivot
    for j in range(n):
        if j != p and u[j] != s[j]:
            if v[p] == 0:
                if v[j] == 0:
                    right_cx(p, j, words, f, g, m)
                else:
                    right_cz(p, j, words, f, m, high)
            else:
                right_cx(j, p, words, f, g, m)
    # |y> + i^delta |z>, y and z unlike at the pivot alone; s becomes y but for the pivot.
    y = 0
    if s[p] == 1:
        for j in range(n):
            s[j] = u[j]
        y = 1
    if v[p] == 0:
        turn += 2 * delta * y
        other = (4 - delta) & 3 if y == 1 else delta
        c = other >> 1
        if other & 1:
            right_s(p, words, f, m, low, high)
        v[p] = 1
    elif delta & 1 == 0:
        c = delta >> 1
        turn += 4 * (c & y)
        v[p] = 0
    else:
        turn += 1 if delta == 1 else 7
        right_s(p, words, f, m, low, high)
        c = 1 - ((delta >> 1) ^ y)
    s[p] = c
    return turn


def phase(
    count: int,
    n: int,
    words: int,
    stream: Any,
    f: Any,
    g: Any,
    m: Any,
    low: Any,
    high: Any,
    v: Any,
    s: Any,
    u: Any,
) -> int:
    """Return k with ``W |0> = exp(i pi k / 4) |0>`` for a stream W that is a multiple of 1.

    The state is ``omega U_C U_H |s>``: U_C of cx, cz and s, U_H Hadamards on the wires of v.
    f, g, m: int64[n words], columns, f and g units; low, high: int64[words], bits of gamma, row by
    row. v, s, u: int[n], zeros. Rotations are passed over.
    """
    turn = 0
    for t in range(count):
        i = 4 * t
        kind = stream[i]
        if kind == TURN:
            continue
        a = stream[i + 1]
        aw = a // WORD
        ash = a % WORD
        if kind == CX:
            b = stream[i + 2]
            bw = b // WORD
            bsh = b % WORD
            odd = 0
            for j in range(n):
                j0 = j * words
                ma = (m[j0 + aw] >> ash) & 1
                fb = (f[j0 + bw] >> bsh) & 1
                odd ^= ma & fb
                g[j0 + bw] ^= ((g[j0 + aw] >> ash) & 1) << bsh
                f[j0 + aw] ^= fb << ash
                m[j0 + aw] ^= ((m[j0 + bw] >> bsh) & 1) << ash
            la = (low[aw] >> ash) & 1
            lb = (low[bw] >> bsh) & 1
            high[aw] ^= (((high[bw] >> bsh) & 1) ^ (la & lb) ^ odd) << ash
            low[aw] ^= lb << ash
        elif kind == H or kind == X:
            turn += left_h(a, n, words, f, g, m, low, high, v, s, u)
        if kind == S or kind == SDG:
            for j in range(n):
                m[j * words + aw] ^= ((g[j * words + aw] >> ash) & 1) << ash
            # gamma -= 1 for s, += 1 for sdg
            one = (low[aw] >> ash) & 1
            if (kind == S) == (one == 0):
                high[aw] ^= 1 << ash
            low[aw] ^= 1 << ash
        elif kind == Z or kind == X:
            high[aw] ^= 1 << ash
            if kind == X:
                turn += left_h(a, n, words, f, g, m, low, high, v, s, u)
    return turn & 7
