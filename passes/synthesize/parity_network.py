"""The kernel of phase-polynomial resynthesis: CX written lazily, where a rotation or a wall asks.

Logical wires hold ``f``, what the given circuit would hold; physical wires hold ``g = A f + k``
over GF(2), and ``f = B (g + k)``. A CX of the given circuit changes A and B and writes nothing. A
rotation about ``f_q`` waits as a parity of physical wires until one wire holds it. A wall (a gate
that is not linear) on wire q needs ``g_q = f_q`` and ``f_q`` on no other wire.
"""

from __future__ import annotations

from typing import Any

from qcomp.kernels import kernel
from qcomp.passes.reduce.pauli_carry import pop, push

__all__ = ["CX", "FLIP", "ROTATE", "SLOTS", "SWAP", "WALL", "WORD", "ones", "resynthesize"]

CX, FLIP, SWAP, ROTATE, WALL = range(5)
"""Kinds of operations."""

WORD = 62
"""Bits used of each word, so that every word is a plain positive integer."""

SLOTS = WORD
"""Rotations that wait at a time."""

_SCALE = 20
_OUT, _COST, _USED, _MINUS, _LIMIT = range(5)
_FRONT = 64
_CHOICES = 16


def ones(x: int) -> int:
    """Count the bits of a word."""
    x -= (x >> 1) & 0x1555555555555555
    x = (x & 0x3333333333333333) + ((x >> 2) & 0x3333333333333333)
    x = (x + (x >> 4)) & 0x0F0F0F0F0F0F0F0F
    x += x >> 8
    x += x >> 16
    x += x >> 32
    return x & 127


def _write(state: Any, out: Any, kind: int, a: int, b: int) -> None:
    """Append an operation, unless the limit is reached."""
    at = state[_OUT]
    if at < state[_LIMIT]:
        out[3 * at] = kind
        out[3 * at + 1] = a
        out[3 * at + 2] = b
    state[_OUT] = at + 1


def _turn(state: Any, out: Any, source: Any, s: int, wire: int) -> None:
    """Write the rotation of slot ``s`` on the wire that holds its parity."""
    _write(state, out, ROTATE, wire, 2 * source[s] + ((state[_MINUS] >> s) & 1))


def _add(
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
    _write(state, out, CX, c, t)
    state[_COST] += 1
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
            _turn(state, out, source, s, t)
            col[t] ^= bit
            parity[s * words + t // WORD] = 0
            state[_USED] ^= bit


def _change(
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
    change = _SCALE * (ones(col[t]) - 2 * ones(col[t] & col[c]))
    for j in range(words):
        b = bcol[t * words + j]
        a = arow[t * words + j]
        change += order * (ones(b) - 2 * ones(b & bcol[c * words + j]))
        change += back * (ones(a ^ arow[c * words + j]) - ones(a))
    return change


def _emit(
    wanted: int,
    least: int,
    words: int,
    order: int,
    back: int,
    arow: Any,
    bcol: Any,
    flip: Any,
    col: Any,
    parity: Any,
    weight: Any,
    source: Any,
    state: Any,
    out: Any,
    wires: Any,
) -> None:
    """Write CX until at most ``least`` of the slots ``wanted`` are still waiting.

    Each CX shortens one of the lightest parities, the one that shortens all of them most.
    """
    while True:
        x = wanted & state[_USED]
        if ones(x) <= least or state[_OUT] > state[_LIMIT]:
            return
        light = 1 << 30
        rest = x
        while rest != 0:
            bit = rest & -rest
            rest ^= bit
            s = ones(bit - 1)
            if weight[s] < light:
                light = weight[s]
        best = 1 << 30
        best_c = 0
        best_t = 0
        tried = 0
        while x != 0 and tried < _CHOICES:
            bit = x & -x
            x ^= bit
            s = ones(bit - 1)
            if weight[s] != light:
                continue
            tried += 1
            count = 0
            for j in range(words):
                rest = parity[s * words + j]
                while rest != 0:
                    low = rest & -rest
                    rest ^= low
                    wires[count] = j * WORD + ones(low - 1)
                    count += 1
            for i in range(count):
                for k in range(count):
                    if i != k:
                        d = _change(wires[i], wires[k], words, arow, bcol, col, order, back)
                        if d < best:
                            best = d
                            best_c = wires[i]
                            best_t = wires[k]
        _add(
            best_c,
            best_t,
            words,
            arow,
            bcol,
            flip,
            col,
            parity,
            weight,
            source,
            state,
            out,
        )


def _clear(
    q: int,
    m: int,
    words: int,
    order: int,
    back: int,
    arow: Any,
    bcol: Any,
    flip: Any,
    col: Any,
    parity: Any,
    weight: Any,
    source: Any,
    state: Any,
    out: Any,
    wires: Any,
) -> None:
    """Write CX and X until wire q holds ``f_q``, and no other wire has a part in it."""
    word = q // WORD
    one = 1 << (q % WORD)
    for phase in range(2):
        while state[_OUT] <= state[_LIMIT]:
            count = 0
            mine = 0
            for w in range(m):
                if phase == 0:
                    has = bcol[w * words + word] & one
                else:
                    has = arow[w * words + word] & one
                if has != 0:
                    if w == q:
                        mine = 1
                    wires[count] = w
                    count += 1
            if count == 1 and mine == 1:
                break
            best = 1 << 30
            best_c = q
            best_t = q
            for i in range(count):
                for k in range(count):
                    c = wires[i]
                    t = wires[k]
                    if mine == 0:
                        c = q
                    if c == t or (phase == 0 and mine == 1 and c == q) or (phase == 1 and t == q):
                        continue
                    d = _change(c, t, words, arow, bcol, col, order, back)
                    if (phase == 0 and t != q) or (phase == 1 and c != q):
                        d += _SCALE // 2
                    if d < best:
                        best = d
                        best_c = c
                        best_t = t
            _add(
                best_c,
                best_t,
                words,
                arow,
                bcol,
                flip,
                col,
                parity,
                weight,
                source,
                state,
                out,
            )
    if flip[q] != 0:
        _write(state, out, FLIP, q, -1)
        flip[q] = 0
        state[_MINUS] ^= col[q]


def _waiting(q: int, m: int, words: int, arow: Any, col: Any) -> int:
    """Which slots hold a parity that has a part in ``f_q``."""
    found = 0
    for w in range(m):
        if (arow[w * words + q // WORD] >> (q % WORD)) & 1:
            found ^= col[w]
    return found


@kernel(calls=(push, pop, ones, _write, _turn, _add, _change, _emit, _clear, _waiting))
def resynthesize(
    n: int,
    m: int,
    words: int,
    limit: int,
    eager: int,
    order: int,
    back: int,
    kind: Any,
    wire: Any,
    arity: Any,
    link: Any,
    need: Any,
    ready: Any,
    front: Any,
    arow: Any,
    bcol: Any,
    flip: Any,
    col: Any,
    parity: Any,
    weight: Any,
    source: Any,
    wires: Any,
    state: Any,
    out: Any,
) -> int:
    """Write a segment of n operations on m wires anew; the number of operations written.

    n operations: kind[n], wire[3 n], arity[n]; link[3 n] the next operation on each wire, n for
    none; need[n] how many of an operation's wires others hold before it. ready[n], front[n]: work
    space. words: words of a row of m bits. arow[m words], bcol[m words]: the rows of A, the columns
    of B, unit at first. flip[m]: k. col[m]: the slots whose parity has a wire; parity[slots words]:
    the same by slot; weight, source: by slot. out[3 limit]: (kind, a, b): ``cx a, b``, ``x a``,
    rotation of operation b // 2 on wire a, negated where b is odd, wall b as it was. More than
    ``limit`` says that the limit was reached. eager: rotations are written before the next wall,
    else where a wall asks for them.
    """
    state[_LIMIT] = limit
    heap = 0
    walls = 0
    done = 0
    everything = (1 << SLOTS) - 1
    for i in range(n):
        if need[i] == 0:
            if kind[i] == WALL:
                front[walls] = i
                walls += 1
            else:
                heap = push(ready, heap, i)
    while done < n and state[_OUT] <= limit:
        i = -1
        if heap > 0:
            i = ready[0]
            a = wire[3 * i]
            if kind[i] == ROTATE:
                count = 0
                last = 0
                minus = 0
                for w in range(m):
                    if (bcol[w * words + a // WORD] >> (a % WORD)) & 1:
                        wires[count] = w
                        count += 1
                        last = w
                        minus ^= flip[w]
                if count == 1:
                    _write(state, out, ROTATE, last, 2 * i + minus)
                elif state[_USED] == everything:
                    _emit(
                        everything,
                        SLOTS - 1,
                        words,
                        order,
                        back,
                        arow,
                        bcol,
                        flip,
                        col,
                        parity,
                        weight,
                        source,
                        state,
                        out,
                        wires,
                    )
                    continue
                else:
                    bit = ~state[_USED] & (state[_USED] + 1)
                    s = ones(bit - 1)
                    state[_USED] |= bit
                    if (state[_MINUS] >> s) & 1 != minus:
                        state[_MINUS] ^= bit
                    source[s] = i
                    weight[s] = count
                    for k in range(count):
                        w = wires[k]
                        col[w] ^= bit
                        parity[s * words + w // WORD] |= 1 << (w % WORD)
            else:
                b = wire[3 * i + 1]
                steps = 1
                if kind[i] == SWAP:
                    steps = 3
                elif kind[i] == FLIP:
                    steps = 0
                    for w in range(m):
                        if (arow[w * words + a // WORD] >> (a % WORD)) & 1:
                            flip[w] ^= 1
                for _ in range(steps):
                    # f_b += f_a: column a of A gains column b, row b of B gains row a.
                    for w in range(m):
                        if (arow[w * words + b // WORD] >> (b % WORD)) & 1:
                            arow[w * words + a // WORD] ^= 1 << (a % WORD)
                        if (bcol[w * words + a // WORD] >> (a % WORD)) & 1:
                            bcol[w * words + b // WORD] ^= 1 << (b % WORD)
                    w = a
                    a = b
                    b = w
            heap = pop(ready, heap)
        else:
            if eager != 0:
                _emit(
                    everything,
                    0,
                    words,
                    order,
                    back,
                    arow,
                    bcol,
                    flip,
                    col,
                    parity,
                    weight,
                    source,
                    state,
                    out,
                    wires,
                )
            least = 1 << 30
            at = 0
            for j in range(min(walls, _FRONT)):
                cost = 0
                for k in range(arity[front[j]]):
                    q = wire[3 * front[j] + k]
                    rest = _waiting(q, m, words, arow, col)
                    while rest != 0:
                        bit = rest & -rest
                        rest ^= bit
                        cost += weight[ones(bit - 1)]
                    for w in range(m):
                        cost += (bcol[w * words + q // WORD] >> (q % WORD)) & 1
                        cost += (arow[w * words + q // WORD] >> (q % WORD)) & 1
                if cost < least or (cost == least and front[j] < front[at]):
                    least = cost
                    at = j
            i = front[at]
            walls -= 1
            for j in range(at, walls):
                front[j] = front[j + 1]
            for k in range(arity[i]):
                _emit(
                    _waiting(wire[3 * i + k], m, words, arow, col),
                    0,
                    words,
                    order,
                    back,
                    arow,
                    bcol,
                    flip,
                    col,
                    parity,
                    weight,
                    source,
                    state,
                    out,
                    wires,
                )
            for k in range(arity[i]):
                _clear(
                    wire[3 * i + k],
                    m,
                    words,
                    order,
                    back,
                    arow,
                    bcol,
                    flip,
                    col,
                    parity,
                    weight,
                    source,
                    state,
                    out,
                    wires,
                )
            _write(state, out, WALL, -1, i)
        done += 1
        for k in range(arity[i]):
            j = link[3 * i + k]
            if j < n:
                need[j] -= 1
                if need[j] == 0:
                    if kind[j] == WALL:
                        front[walls] = j
                        walls += 1
                    else:
                        heap = push(ready, heap, j)
    _emit(
        everything,
        0,
        words,
        order,
        back,
        arow,
        bcol,
        flip,
        col,
        parity,
        weight,
        source,
        state,
        out,
        wires,
    )
    for q in range(m):
        _clear(
            q,
            m,
            words,
            order,
            back,
            arow,
            bcol,
            flip,
            col,
            parity,
            weight,
            source,
            state,
            out,
            wires,
        )
    return int(state[_OUT])
