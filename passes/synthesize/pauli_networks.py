"""resynthesize-pauli-networks: Pauli rotations in their order, with few CX between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.angle import PI, wrap
from qcomp.ir.circuit import Circuit
from qcomp.ir.forms import Forms
from qcomp.ir.gates import INVERSE_CODE, G
from qcomp.ir.run import Run
from qcomp.kernels import kernel
from qcomp.passes.reduce.families import PHASED
from qcomp.passes.reduce.leaves import Leaf, Phase, call, rewrite_leaves
from qcomp.passes.reduce.sums import summands
from qcomp.passes.synthesize.clifford_tableau import (
    WORD,
    disentangle,
    phase,
    shorten,
    take_back,
)
from qcomp.passes.synthesize.clifford_words import (
    CODES,
    CX,
    NEITHER,
    OTHER,
    ROTATION,
    SDG,
    TURN,
    Reading,
    S,
    local_words,
    read,
)
from qcomp.passes.synthesize.cliffords import (
    PHASE_CALLS,
    SYNTHESIS_CALLS,
    Stream,
    copied,
    inverted,
    start_state,
)
from qcomp.passes.synthesize.network import NETWORK_CALLS, free_rotations
from qcomp.passmanager import CircuitPass, Context, Guarantee

__all__ = ["ResynthesizePauliNetworks"]

_ROUNDS = 8
_WEIGHTS: tuple[tuple[int, ...], ...] = (
    (8, 4, 2, 0, 0),
    (8, 4, 2, 1, 1),
    (4, 3, 2, 0, 1),
    (8, 1, 0, 1, 0),
    (2, 2, 2, 1, 1),
    (1, 0, 0, 0, 1),
    (4, 3, 2, 2, 0),
    (16, 12, 9, 1, 1),
)
"""What a wire counts in the first layer, the second, those after and the Clifford, and an eighth of
what a one-qubit gate counts, for each two tries."""


@kernel(calls=(*SYNTHESIS_CALLS, *NETWORK_CALLS))
def _network(
    size: int,
    n: int,
    rotations: int,
    words: int,
    count: int,
    limit: int,
    stream: Any,
    weigh: Any,
    follow: Any,
    length: Any,
    word: Any,
    x: Any,
    z: Any,
    sign: Any,
    wx: Any,
    wz: Any,
    ws: Any,
    before: Any,
    weight: Any,
    source: Any,
    layer: Any,
    wires: Any,
    live: Any,
    tx: Any,
    tz: Any,
    ts: Any,
    room: Any,
    out: Any,
) -> int:
    """Write a stream of ``size`` rows anew; -1 where it takes more than ``limit`` CX gates.

    x, z: int64[n words], sign: int64[words], tx, tz: int64[n small], ts: int64[small], zeros, with
    room for ``rotations + 2 n`` and for ``2 n`` Paulis; the rest as in ``free_rotations``.
    """
    take_back(size, n, rotations, words, stream, x, z, sign)
    made = free_rotations(
        n,
        rotations,
        words,
        x,
        z,
        sign,
        count,
        weigh,
        limit,
        wx,
        wz,
        ws,
        before,
        weight,
        source,
        layer,
        wires,
        room,
    )
    if made < 0:
        return -1
    small = len(ts)
    for k in range(2 * n):
        row = rotations + k
        for q in range(n):
            tx[q * small + k // WORD] |= ((x[q * words + row // WORD] >> (row % WORD)) & 1) << (
                k % WORD
            )
            tz[q * small + k // WORD] |= ((z[q * words + row // WORD] >> (row % WORD)) & 1) << (
                k % WORD
            )
        ts[k // WORD] |= ((sign[row // WORD] >> (row % WORD)) & 1) << (k % WORD)
    for q in range(n):
        live[q] = 1
    made = disentangle(n, 0, small, made, tx, tz, ts, live, room)
    if 4 * made > len(room):
        return -1
    return shorten(made, n, room, follow, length, word, live, out)


@kernel(calls=(*PHASE_CALLS, inverted, copied, start_state))
def _phase(
    old: int,
    new: int,
    n: int,
    before: Any,
    after: Any,
    f: Any,
    g: Any,
    m: Any,
    low: Any,
    high: Any,
    v: Any,
    s: Any,
    u: Any,
    room: Any,
) -> int:
    """Return k with ``before = exp(i pi k / 4) after``, the rotations of both left out."""
    at = copied(old, 0, before, 0, room)
    at = inverted(new, 0, after, at, room)
    words = start_state(n, len(low), f, g, m, low, high, v)
    return phase(at, n, words, room, f, g, m, low, high, v, s, u)


def _backwards(stream: Stream, rotations: int) -> Stream:
    """Return the inverse of a stream, the angles of its rotations not negated."""
    out = stream[::-1].copy()
    kind = stream[::-1, 0]
    out[kind == S, 0], out[kind == SDG, 0] = SDG, S
    written = (kind == TURN) & (out[:, 3] == 0)
    out[written, 2] = 2 * (rotations - 1 - out[written, 2] // 2) + out[written, 2] % 2
    return out


def _written(
    stream: Stream, n: int, cost: int, gates: int, tries: int, slack: int
) -> tuple[Stream, int] | None:
    """Return (the stream with fewer CX and no more gates, eighths of a turn) or None."""
    rotations = int(np.count_nonzero(stream[:, 0] == TURN))
    words, small = -(-(rotations + 2 * n) // WORD), -(-2 * n // WORD)
    # Beside CX each rotation takes two gates, and each CX four; the Clifford 20 n (n + 4) at most.
    room = 3 * rotations + 5 * (cost + 1) + 20 * n * (n + 4)
    work = len(stream) * (words + n) + (rotations + n * n) * n
    words_of = local_words()
    best: Stream | None = None
    gates += slack * cost
    fewest = 0
    for k in range(tries):
        weigh, back = _WEIGHTS[k // 2], k % 2 == 1
        read_in = _backwards(stream, rotations) if back else stream
        out = np.zeros(4 * (7 * room + 3 * n), dtype=np.int32)
        sizes = (n * words, n * words, words, n, n, 1, WORD, WORD, WORD, len(weigh) - 2, n, n)
        spaces = [np.zeros(k, dtype=np.int64) for k in (*sizes, n * small, n * small, small)]
        made = call(
            _network,
            work,
            (
                *(len(stream), n, rotations, words, len(weigh) - 2, cost, read_in.ravel()),
                *(np.array(weigh, dtype=np.int64), *words_of),
            ),
            (*spaces, np.zeros(4 * room, dtype=np.int32), out),
        )
        if made < 0:
            continue
        new = out.reshape(-1, 4)[:made]
        price = int(np.count_nonzero(new[:, 0] == CX))
        if made + slack * price <= gates and (price, made) < (cost, fewest):
            cost, fewest = price, made
            best = _backwards(new, rotations) if back else new.copy()
    if best is None:
        return None
    columns = [np.zeros(n * -(-n // WORD), dtype=np.int64) for _ in range(3)]
    masks = [np.zeros(-(-n // WORD), dtype=np.int64) for _ in range(2)]
    flags = [np.zeros(n, dtype=np.int64) for _ in range(3)]
    rows = np.zeros(4 * (len(stream) + len(best)), dtype=np.int32)
    turn = call(
        _phase,
        work,
        (len(stream), len(best), n, stream.ravel(), best.ravel()),
        (*columns, *masks, *flags, rows),
    )
    return best, turn


@dataclass(frozen=True, slots=True)
class _Piece:
    """Part of a run: operations of it, or what they became.

    Attributes:
        index: int64[k], the operations.
        stream: Their gates written anew, over the run's wires; rotation j is ``turns[j]``.
        turns: int64[rotations].
    """

    index: NDArray[np.int64]
    stream: Stream | None = None
    turns: NDArray[np.int64] | None = None


def _segments(reading: Reading, window: int) -> Iterator[tuple[int, int, bool]]:
    """Yield (start, stop, whether it may be rewritten): between fences, ``window`` at most."""
    start = 0
    for fence in [*np.flatnonzero(reading.role == OTHER).tolist(), len(reading.role)]:
        while start < fence:
            stop = min(start + window, fence)
            yield start, stop, True
            start = stop
        if fence < len(reading.role):
            yield fence, fence + 1, False
        start = fence + 1


def resynthesize_run(
    run: Run, forms: Forms, tries: int, window: int, work: int, slack: int
) -> Leaf:
    """Rewrite the segments of one run where that is cheaper; the same run where none is.

    Args:
        run: The run.
        forms: The circuit's forms.
        tries: Ways in which each segment is written; the cheapest counts.
        window: Most operations of a segment.
        work: Most cubed wires of a segment for each operation.
        slack: Gates more that a segment may take for each CX gate fewer.
    """
    reading = read(run)
    pieces: list[_Piece] = []
    eighths = 0
    for start, stop, free in _segments(reading, window):
        found = _rewritten(run, reading, start, stop, tries, work, slack) if free else None
        pieces.append(found[0] if found else _Piece(np.arange(start, stop)))
        eighths += found[1] if found else 0
    if all(piece.stream is None for piece in pieces):
        return run, forms, Phase()
    return _write(run, forms, pieces, eighths)


def _rewritten(
    run: Run, reading: Reading, start: int, stop: int, tries: int, work: int, slack: int
) -> tuple[_Piece, int] | None:
    """Return (operations start to stop written anew, eighths of a turn) or None."""
    role = reading.role[start:stop]
    index = start + np.flatnonzero(role != NEITHER)
    cost = int(reading.cost[index].sum())
    if cost < 2:
        return None
    qubit = run.qubit[index, :2]
    used, local = np.unique(qubit, return_inverse=True)
    if used[0] < 0:
        used, local = used[1:], local - 1
    operands: NDArray[np.int32] = local.reshape(-1, 2).astype(np.int32)
    if len(used) ** 3 > work * len(index):
        return None
    stream, _, lacking = reading.stream(run, index, operands)
    found = _written(stream, len(used), cost, len(index), tries, slack)
    if found is None:
        return None
    new, turn = found
    wires = used.astype(np.int32)
    new[:, 1] = wires[new[:, 1]]
    new[new[:, 0] == CX, 2] = wires[new[new[:, 0] == CX, 2]]
    kept = start + np.flatnonzero(role == NEITHER)
    turns = index[reading.role[index] == ROTATION]
    return _Piece(kept, new, turns), turn + int(lacking.sum())


def _write(run: Run, forms: Forms, pieces: list[_Piece], eighths: int) -> Leaf:
    """Put pieces together: Cliffords new, rotations about Z, moved and negated, the rest kept."""
    add = summands(run)
    frac, rem, form = run.frac.copy(), run.rem.copy(), run.form.copy()
    codes: list[NDArray[np.uint8]] = []
    qubits: list[NDArray[np.int32]] = []
    angles: list[NDArray[np.int32]] = []
    minus: list[NDArray[np.int64]] = []
    for piece in pieces:
        codes.append(run.code[piece.index])
        qubits.append(run.qubit[piece.index])
        angles.append(run.angle[piece.index])
        if piece.stream is None or piece.turns is None:
            continue
        kind, wire, last = piece.stream[:, 0], piece.stream[:, 1], piece.stream[:, 2]
        turning = kind == TURN
        code = CODES[np.where(turning, 0, kind)]
        source = piece.turns[last[turning] // 2]
        negated = last[turning] % 2 == 1
        old = run.code[source]
        phased = PHASED[old] == 1
        code[turning] = np.where(phased, np.where(negated, INVERSE_CODE[old], old), G.RZ)
        qubit = np.full((len(kind), 3), -1, dtype=np.int32)
        qubit[:, 0] = wire
        qubit[kind == CX, 1] = last[kind == CX]
        angle = np.full(len(kind), -1, dtype=np.int32)
        angle[turning] = run.angle[source]
        codes.append(code)
        qubits.append(qubit)
        angles.append(angle)
        minus.append(source[negated])
    negated_rows = np.concatenate(minus)
    carried = negated_rows[PHASED[run.code[negated_rows]] == 1]
    total = Phase.halved(
        2 * int(add.frac[carried].sum(dtype=np.int64)) + eighths % 8 * (PI >> 1),
        2 * float(add.rem[carried].sum()),
        forms,
        add.form[carried],
        np.full(len(carried), 2.0),
    )
    entry = run.angle[negated_rows]
    entry = entry[entry >= 0]
    frac[entry], rem[entry] = wrap(-frac[entry]), -rem[entry]
    forms, form[entry] = forms.combine(
        form[entry], np.full(len(entry), -1.0), np.arange(len(entry)), len(entry)
    )
    code = np.concatenate(codes)
    joined = Run(code, np.concatenate(qubits), np.concatenate(angles), frac, rem, form, run.extra)
    return joined.select(np.arange(len(code))), forms, total


@dataclass(frozen=True)
class ResynthesizePauliNetworks(CircuitPass):
    """``C R_m ... R_1``, R_k = exp(-i a_k/2 P_k), with few CX: each P_k is brought to one wire.

    All Cliffords of a segment are moved to its end, which leaves its Pauli rotations in their order
    and one Clifford. Rotations may trade places where they commute. One that is about a Pauli of
    one wire is written there and then; otherwise one of the lightest Paulis that may come first
    loses a wire to a CX gate (with one-qubit Cliffords before it), the one that takes most wires
    off all Paulis that come next. What was written is never undone: the Clifford at the end takes
    it in, and is written from its tableau as by resynthesize-cliffords.

    A segment is rewritten only where it takes fewer CX gates (a ``swap`` counts as three) and no
    more gates. The number of rotations does not change; they become ``rz``, or ``t``, ``tdg``,
    ``p`` where they were these.

    Preconditions: none. Gates that are neither Clifford nor Pauli rotations, measurements, resets
    and barriers part segments; each run of a circuit with control flow stands alone.

    Preserves: the unitary exactly, global phase included; symbols move like numbers.

    Cost: for each gate written some words, and for each CX gate the pairs of wires of the lightest
    Paulis, over a window of 62 rotations; for the Clifford the wires cubed; times ``tries``.

    Source: de Brugiere, Martiel 2024 (arXiv:2404.03280), section 4, and Paykin, Schmitz, Ibrahim,
    Wu, Matsuura 2023 (arXiv:2304.08814), with a window and weighed layers instead of the whole
    order; Bravyi, Shaydulin, Hu, Maslov 2021 (arXiv:2105.02291) for the Clifford.

    Attributes:
        tries: Ways in which each segment is written, 1 to 16, forwards and backwards
            by turns; the cheapest counts.
        window: Most operations of a segment.
        work: Most cubed wires of a segment, per operation in it.
        slack: Gates more that a segment may take for each CX gate fewer.
    """

    name: ClassVar[str] = "resynthesize-pauli-networks"
    preserves: ClassVar[Guarantee] = Guarantee.EXACT

    tries: int = 2
    window: int = 4096
    work: int = 2000
    slack: int = 0

    def run(self, circuit: Circuit, context: Context) -> Circuit:
        """Return the circuit with fewer CX; the same object when none were saved."""
        for _ in range(_ROUNDS):
            result = rewrite_leaves(
                circuit,
                lambda run, forms: resynthesize_run(
                    run, forms, self.tries, self.window, self.work, self.slack
                ),
            )
            if result is circuit:
                break
            circuit = result
        return circuit
