"""Streams of Clifford gates written anew, many at a time, each with its phase."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.run import Run
from qcomp.kernels import kernel
from qcomp.passes.reduce.leaves import call
from qcomp.passes.synthesize.clifford_tableau import (
    WORD,
    apply,
    bit,
    class_of,
    cx,
    disentangle,
    emit,
    left_h,
    pair_cost,
    phase,
    right_cx,
    right_cz,
    right_s,
    shorten,
    spill,
    take_back,
    to_x,
    to_xz,
    to_z,
)
from qcomp.passes.synthesize.clifford_words import CODES, CX, SDG, S, local_words

__all__ = ["PHASE_CALLS", "SYNTHESIS_CALLS", "Rewrite", "Stream", "inverted", "rewrite", "to_run"]

Stream = NDArray[np.int32]
"""int32[k, 4], as in ``clifford_words``."""

PHASE_CALLS = (right_cx, right_cz, right_s, left_h, phase)
SYNTHESIS_CALLS = (
    *(bit, apply, take_back, emit, to_x, to_z, to_xz, cx, class_of, pair_cost, disentangle),
    *(spill, shorten),
)
"""What the kernels over streams call, callees first."""


def inverted(count: int, begin: int, stream: Any, at: int, out: Any) -> int:
    """Write the inverse of ``count`` Cliffords from row ``begin`` on; the rows are returned."""
    for t in range(count):
        i = 4 * (begin + count - 1 - t)
        kind = stream[i]
        if kind == S:
            kind = SDG
        elif kind == SDG:
            kind = S
        out[4 * (at + t)] = kind
        out[4 * (at + t) + 1] = stream[i + 1]
        out[4 * (at + t) + 2] = stream[i + 2]
    return at + count


def copied(count: int, begin: int, stream: Any, at: int, out: Any) -> int:
    """Copy ``count`` rows from row ``begin`` on; the number of rows is returned."""
    for t in range(4 * count):
        out[4 * at + t] = stream[4 * begin + t]
    return at + count


def start_state(n: int, words: int, f: Any, g: Any, m: Any, low: Any, high: Any, v: Any) -> int:
    """Set the arrays of ``phase`` to |0...0>; v holds its v, s and u."""
    for k in range(n * words):
        f[k] = 0
        g[k] = 0
        m[k] = 0
    for q in range(n):
        f[q * words + q // WORD] = 1 << (q % WORD)
        g[q * words + q // WORD] = 1 << (q % WORD)
        v[q] = 0
    for k in range(words):
        low[k] = 0
        high[k] = 0
    return words


@kernel(calls=(*SYNTHESIS_CALLS, *PHASE_CALLS, inverted, copied, start_state))
def _rewrite(
    count: int,
    slack: int,
    first: Any,
    wires: Any,
    cost: Any,
    gates: Any,
    stream: Any,
    follow: Any,
    length: Any,
    word: Any,
    x: Any,
    z: Any,
    m: Any,
    sign: Any,
    high: Any,
    live: Any,
    s: Any,
    u: Any,
    one: Any,
    two: Any,
    three: Any,
    rows: Any,
    turns: Any,
    out: Any,
) -> int:
    """Write each of ``count`` streams anew where that is cheaper.

    first: int[count + 1], first row of each stream; wires, cost, gates: int[count], its wires, CX
    gates and gates. rows: int[count + 1], first row of each in out; none where it stays. turns:
    int[count], k with ``old = exp(i pi k / 4) new``. The arrays between are room to work in.
    """
    total = 0
    for r in range(count):
        n = wires[r]
        begin = first[r]
        size = first[r + 1] - begin
        words = (2 * n + WORD - 1) // WORD
        least = cost[r]
        fewest = gates[r]
        best = 0
        for back in range(2):
            for k in range(n * words):
                x[k] = 0
                z[k] = 0
            for k in range(words):
                sign[k] = 0
            for q in range(n):
                live[q] = 1
            if back == 0:
                copied(size, begin, stream, 0, one)
            else:
                inverted(size, begin, stream, 0, one)
            take_back(size, n, 0, words, one, x, z, sign)
            made = disentangle(n, 0, words, 0, x, z, sign, live, one)
            if back == 0:
                copied(made, 0, one, 0, two)
            else:
                inverted(made, 0, one, 0, two)
            made = shorten(made, n, two, follow, length, word, live, one)
            price = 0
            for t in range(made):
                if one[4 * t] == CX:
                    price += 1
            most = gates[r] + slack * (cost[r] - price)
            if made <= most and (price < least or (price == least and made < fewest)):
                least = price
                fewest = made
                best = made
                copied(made, 0, one, 0, three)
        rows[r] = total
        if best == 0 and (cost[r] == 0 or least == cost[r]):
            continue
        at = copied(size, begin, stream, 0, one)
        at = inverted(best, 0, three, at, one)
        half = start_state(n, (n + WORD - 1) // WORD, x, z, m, sign, high, live)
        for q in range(n):
            s[q] = 0
            u[q] = 0
        turns[r] = phase(at, n, half, one, x, z, m, sign, high, live, s, u)
        total = copied(best, 0, three, total, out)
        turns[r] += 8
    rows[count] = total
    return total


@dataclass(frozen=True, slots=True)
class Rewrite:
    """What became of several streams.

    Attributes:
        changed: bool[count], which were written anew.
        rows: int64[count + 1], first row of each in ``stream``.
        turns: int64[count], eighths of a turn that the new ones lack.
        stream: The new streams.
    """

    changed: NDArray[np.bool_]
    rows: NDArray[np.int64]
    turns: NDArray[np.int64]
    stream: Stream


def rewrite(
    stream: Stream,
    first: NDArray[np.int64],
    wires: NDArray[np.int64],
    cost: NDArray[np.int64],
    gates: NDArray[np.int64],
    slack: int = 0,
) -> Rewrite:
    """Write streams of Cliffords anew where they take fewer CX, or as many and fewer gates.

    Args:
        stream: All streams, wires counted from 0 in each.
        first: int64[count + 1], first row of each.
        wires: int64[count].
        cost: int64[count], CX gates that each may take at most.
        gates: int64[count], gates that each may take at most.
        slack: Gates more for each CX gate fewer.
    """
    count = len(wires)
    n = int(wires.max(initial=1))
    words = -(-2 * n // WORD)
    longest = int(np.diff(first).max(initial=0))
    # Freeing a wire of n takes at most 2 n CX gates, each after at most 5 one-qubit gates a wire.
    room = 4 * (longest + 20 * n * (n + 4))
    rows = np.zeros(count + 1, dtype=np.int64)
    turns = np.zeros(count, dtype=np.int64)
    columns = [np.zeros(n * words, dtype=np.int64) for _ in range(3)]
    masks = [np.zeros(words, dtype=np.int64) for _ in range(2)]
    flags = [np.zeros(n, dtype=np.int64) for _ in range(3)]
    rooms = [np.zeros(room, dtype=np.int32) for _ in range(3)]
    out = np.zeros(4 * int((gates + slack * cost).sum() + 1), dtype=np.int32)
    total = call(
        _rewrite,
        int((wires**3).sum()) + 16 * len(stream),
        (count, slack, first, wires, cost, gates, stream.ravel(), *local_words()),
        (*columns, *masks, *flags, *rooms, rows, turns, out),
    )
    return Rewrite(turns >= 8, rows, turns % 8, out.reshape(-1, 4)[:total])


def to_run(stream: Stream, wire: NDArray[np.int32]) -> Run:
    """Return a stream of Cliffords as a run; its wire q is ``wire[q]``."""
    qubit = np.full((len(stream), 3), -1, dtype=np.int32)
    qubit[:, 0] = wire[stream[:, 1]]
    two = stream[:, 0] == CX
    qubit[two, 1] = wire[stream[two, 2]]
    return Run.of(CODES[stream[:, 0]], qubit)
