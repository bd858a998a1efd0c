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
from qcomp.passes.synthesize.parity_frame import (
    FLIP,
    LIMIT,
    MINUS,
    OUT,
    ROTATE,
    SCALE,
    SLOTS,
    SWAP,
    USED,
    WALL,
    WORD,
    add,
    change,
    ones,
    turn,
    write,
)

__all__ = ["resynthesize"]

_FRONT = 64
_CHOICES = 16


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
        x = wanted & state[USED]
        if ones(x) <= least or state[OUT] > state[LIMIT]:
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
                        d = change(wires[i], wires[k], words, arow, bcol, col, order, back)
                        if d < best:
                            best = d
                            best_c = wires[i]
                            best_t = wires[k]
        add(
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
        while state[OUT] <= state[LIMIT]:
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
                    d = change(c, t, words, arow, bcol, col, order, back)
                    if (phase == 0 and t != q) or (phase == 1 and c != q):
                        d += SCALE // 2
                    if d < best:
                        best = d
                        best_c = c
                        best_t = t
            add(
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
        write(state, out, FLIP, q, -1)
        flip[q] = 0
        state[MINUS] ^= col[q]


def _waiting(q: int, m: int, words: int, arow: Any, col: Any) -> int:
    """Which slots hold a parity that has a part in ``f_q``."""
    found = 0
    for w in range(m):
        if (arow[w * words + q // WORD] >> (q % WORD)) & 1:
            found ^= col[w]
    return found


@kernel(calls=(push, pop, ones, write, turn, add, change, _emit, _clear, _waiting))
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
    state[LIMIT] = limit
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
    while done < n and state[OUT] <= limit:
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
                    write(state, out, ROTATE, last, 2 * i + minus)
                elif state[USED] == everything:
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
                    bit = ~state[USED] & (state[USED] + 1)
                    s = ones(bit - 1)
                    state[USED] |= bit
                    if (state[MINUS] >> s) & 1 != minus:
                        state[MINUS] ^= bit
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
            write(state, out, WALL, -1, i)
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
    return int(state[OUT])
