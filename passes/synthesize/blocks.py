"""Blocks of gates on one pair of qubits and the chains of one-qubit gates between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.gates import AXIS, GATES, IS_UNITARY, NUM_ANGLES, NUM_QUBITS, G
from qcomp.ir.run import Run
from qcomp.kernels import kernel
from qcomp.passes.reduce.leaves import call

__all__ = [
    "CX",
    "ONE",
    "TWO",
    "Index",
    "Matrices",
    "Wires",
    "collect_blocks",
    "gate_matrices",
    "kinds",
    "ordered_products",
    "oriented",
    "wires_of",
]

Matrices = NDArray[np.complex128]
Index = NDArray[np.intp]

SKIP, ONE, TWO, PASSING, WALL, WIDE_WALL = range(6)
"""Kinds of operations: a global phase; numbers on one and on two qubits; symbols, and gates on
three qubits, which others commute past by their axes; measurement and reset; barriers, ``mcx``."""

_OPEN = 8
"""Blocks that are kept open on one wire."""


def kinds(run: Run) -> NDArray[np.int8]:
    """Return the kind of each operation, int8[n]."""
    free = np.zeros(len(run), dtype=bool)
    counts = NUM_ANGLES[run.code]
    for k in range(int(counts.max(initial=0))):
        has = counts > k
        free[has] |= run.form[run.angle[has] + k] >= 0
    arity = NUM_QUBITS[run.code]
    out = np.where(arity < 0, WIDE_WALL, np.where(IS_UNITARY[run.code], PASSING, WALL))
    out = np.where(IS_UNITARY[run.code] & (arity == 1) & ~free, ONE, out)
    out = np.where(IS_UNITARY[run.code] & (arity == 2) & ~free, TWO, out)
    return np.where(arity == 0, SKIP, out).astype(np.int8)


def _cut(w: Any, size: Any, entry: Any, axis: Any) -> None:
    """Drop the open blocks of a wire that no gate can reach any more.

    A gate reaches a block if it commutes with all that came onto the wire since: the later entries
    must then all have the gate's axis.
    """
    first = w * _OPEN
    last = first + size[w] - 1
    shared = axis[last]
    e = last
    while e > first and axis[e] == shared and shared != 0:
        e -= 1
    if e > first:
        for k in range(e, last + 1):
            entry[first + k - e] = entry[k]
            axis[first + k - e] = axis[k]
        size[w] = last + 1 - e


def _push(w: Any, block: Any, own: Any, size: Any, entry: Any, axis: Any) -> None:
    """Put a block, or -1 for an operation in none, last on a wire."""
    first = w * _OPEN
    if size[w] == _OPEN:
        for k in range(first, first + _OPEN - 1):
            entry[k] = entry[k + 1]
            axis[k] = axis[k + 1]
        size[w] = _OPEN - 1
    entry[first + size[w]] = block
    axis[first + size[w]] = own
    size[w] += 1
    _cut(w, size, entry, axis)


@kernel(calls=(_cut, _push))
def _collect(
    n: int,
    code: Any,
    qubit: Any,
    extra: Any,
    kind: Any,
    table: Any,
    size: Any,
    entry: Any,
    axis: Any,
    waiting: Any,
    before: Any,
    wire_a: Any,
    wire_b: Any,
    block: Any,
) -> int:
    """Give each gate its block, -1 for none; return the number of blocks.

    size: int[wires], entries in use of entry, axis: int[wires * _OPEN], the blocks open on a wire
    in the order of their places, and the one axis of all of their gates there, 0 for none.
    waiting: int[wires], last one-qubit gate before any block, a list by ``before``.
    """
    blocks = 0
    for i in range(n):
        k = kind[i]
        if k == SKIP:
            continue
        if k == WIDE_WALL:
            for j in range(qubit[3 * i], qubit[3 * i] + qubit[3 * i + 1]):
                size[extra[j]] = 0
                waiting[extra[j]] = -1
            continue
        a = qubit[3 * i]
        if k == WALL:
            size[a] = 0
            waiting[a] = -1
            continue
        if k == PASSING:
            for j in range(3):
                w = qubit[3 * i + j]
                if w < 0:
                    continue
                waiting[w] = -1
                if size[w] > 0:
                    _push(w, -1, table[3 * code[i] + j], size, entry, axis)
            continue
        x = table[3 * code[i]]
        if k == ONE:
            e = a * _OPEN + size[a] - 1
            while e >= a * _OPEN and entry[e] < 0 and axis[e] == x and x != 0:
                e -= 1
            if e >= a * _OPEN and entry[e] >= 0:
                block[i] = entry[e]
                if axis[e] != x:
                    axis[e] = 0
                _cut(a, size, entry, axis)
            else:
                size[a] = 0
                before[i] = waiting[a]
                waiting[a] = i
            continue
        b = qubit[3 * i + 1]
        y = table[3 * code[i] + 1]
        e = a * _OPEN + size[a] - 1
        f = -1
        while e >= a * _OPEN:
            g = entry[e]
            if g >= 0 and wire_a[g] + wire_b[g] == a + b and (wire_a[g] == a or wire_a[g] == b):
                f = b * _OPEN + size[b] - 1
                while f >= b * _OPEN and entry[f] != g:
                    if axis[f] != y or y == 0:
                        f = -1
                    f -= 1
                if f < b * _OPEN:
                    f = -1
                break
            if axis[e] != x or x == 0:
                break
            e -= 1
        if f >= 0:
            block[i] = entry[e]
            if axis[e] != x:
                axis[e] = 0
            if axis[f] != y:
                axis[f] = 0
            _cut(a, size, entry, axis)
            _cut(b, size, entry, axis)
            continue
        wire_a[blocks] = a
        wire_b[blocks] = b
        block[i] = blocks
        for j in range(2):
            w = qubit[3 * i + j]
            own = table[3 * code[i] + j]
            p = waiting[w]
            if p >= 0:
                own = 0
            while p >= 0:
                block[p] = blocks
                p = before[p]
            waiting[w] = -1
            _push(w, blocks, own, size, entry, axis)
        blocks += 1
    return blocks


def _blank(size: int) -> NDArray[np.int32]:
    """Return an array for a kernel to fill: -1 everywhere."""
    return np.full(max(size, 1), -1, dtype=np.int32)


def collect_blocks(
    run: Run, kind: NDArray[np.int8], num_qubits: int
) -> tuple[NDArray[np.int32], int]:
    """Return (the block of each operation, int32[n], -1 for none; number of blocks).

    A block is all gates on a pair of qubits that can be brought together where its first two-qubit
    gate stands: neighbours, and gates that commute with all in between by the axes of the gate
    table. Its one-qubit gates are those that stand on its wires alone.

    Args:
        run: The run.
        kind: What :func:`kinds` says of it.
        num_qubits: Wires of the circuit.
    """
    n = len(run)
    two = int(np.count_nonzero(kind == TWO))
    block = _blank(n)[:n]
    count = call(
        _collect,
        n,
        (n, run.code, run.qubit.ravel(), run.extra, kind, AXIS.ravel()),
        (
            np.zeros(max(num_qubits, 1), dtype=np.int32),
            _blank(num_qubits * _OPEN),
            _blank(num_qubits * _OPEN),
            _blank(num_qubits),
            _blank(n),
            _blank(two),
            _blank(two),
            block,
        ),
    )
    return block, count


@dataclass(frozen=True, slots=True)
class Wires:
    """The chains of one-qubit gates between the other operations of a run, s chains.

    Attributes:
        chain: int64[n], the chain of each one-qubit gate, -1 for other operations.
        before: int64[n, 2], the chains that end at a two-qubit gate's operands, -1 for others.
        after: int64[n, 2], the chains that begin there.
        matrix: complex128[s, 2, 2], the product of each chain's gates.
    """

    chain: NDArray[np.int64]
    before: NDArray[np.int64]
    after: NDArray[np.int64]
    matrix: Matrices


def wires_of(run: Run, kind: NDArray[np.int8]) -> Wires:
    """Find the chains of a run; a chain may be empty.

    Args:
        run: The run.
        kind: What :func:`kinds` says of it.
    """
    n = len(run)
    op, wire, slot = _incidences(run, kind)
    order = np.lexsort((op, wire))
    op, wire, slot = op[order], wire[order], slot[order]
    single = kind[op] == ONE
    count = np.cumsum(~single)
    inside = count + wire  # a new chain after each other operation and on each wire
    total = int(inside.max(initial=-1)) + 1
    chain = np.full(n, -1, dtype=np.int64)
    chain[op[single]] = inside[single]
    before, after = (np.full((n, 2), -1, dtype=np.int64) for _ in range(2))
    two = (kind[op] == TWO) & (slot < 2)
    before[op[two], slot[two]] = inside[two] - 1
    after[op[two], slot[two]] = inside[two]
    matrix = np.tile(np.eye(2, dtype=complex), (total, 1, 1))
    gates, owner = op[single], inside[single]
    if len(gates):
        starts = np.flatnonzero(np.diff(owner, prepend=-1))
        matrix[owner[starts]] = ordered_products(gate_matrices(run, gates), starts)
    return Wires(chain, before, after, matrix)


def _incidences(
    run: Run, kind: NDArray[np.int8]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return (operation, wire, operand) of every wire that an operation touches."""
    ops, wires, slots = [], [], []
    narrow = (kind != SKIP) & (kind != WIDE_WALL)
    for j in range(3):
        has = narrow & (run.qubit[:, j] >= 0) & ((kind != WALL) | (j == 0))
        index = np.flatnonzero(has)
        ops.append(index)
        wires.append(run.qubit[index, j].astype(np.int64))
        slots.append(np.full(len(index), j))
    wide = np.flatnonzero(kind == WIDE_WALL)
    sizes = run.qubit[wide, 1].astype(np.int64)
    start = np.repeat(run.qubit[wide, 0] - (np.cumsum(sizes) - sizes), sizes)
    ops.append(np.repeat(wide, sizes))
    wires.append(run.extra[start + np.arange(int(sizes.sum()))].astype(np.int64))
    slots.append(np.full(int(sizes.sum()), 3))
    return np.concatenate(ops), np.concatenate(wires), np.concatenate(slots)


def gate_matrices(run: Run, rows: NDArray[np.intp]) -> Matrices:
    """Return the matrices of operations on equally many qubits, without symbols.

    Args:
        run: The run.
        rows: Positions of k operations.

    Returns:
        complex128[k, 2^q, 2^q], operand 0 on the low bit.
    """
    code = run.code[rows]
    size = 1 << int(NUM_QUBITS[code[0]]) if len(rows) else 2
    out = np.empty((len(rows), size, size), dtype=complex)
    for kind in np.flatnonzero(np.bincount(code, minlength=len(GATES))).tolist():
        mine = np.flatnonzero(code == kind)
        entry = run.angle[rows[mine]]
        angles = [
            run.frac[entry + k] * (np.pi / (1 << 60)) + run.rem[entry + k]
            for k in range(int(NUM_ANGLES[kind]))
        ]
        out[mine] = GATES[kind].matrix(*angles)
    return out


def ordered_products(matrix: Matrices, starts: NDArray[np.intp]) -> Matrices:
    """Multiply out groups of matrices, later ones from the left.

    Args:
        matrix: complex128[n, d, d], group after group, in time order.
        starts: First matrix of each of g groups, ascending, none empty.

    Returns:
        complex128[g, d, d].
    """
    length = np.diff(starts, append=len(matrix))
    while len(matrix) > len(length):
        place = np.arange(len(matrix)) - np.repeat(np.cumsum(length) - length, length)
        even = np.flatnonzero(place % 2 == 0)
        paired = place[even] + 1 < np.repeat(length, (length + 1) // 2)
        product = matrix[even]
        at = even[paired]
        product[paired] = matrix[at + 1] @ matrix[at]
        matrix, length = product, (length + 1) // 2
    return matrix


_SWAPPED = np.array([0, 2, 1, 3])


def oriented(matrix: Matrices, turned: NDArray[np.bool_]) -> Matrices:
    """Return 4 x 4 matrices with the operands exchanged where ``turned``."""
    out = matrix.copy()
    out[turned] = matrix[turned][:, _SWAPPED][:, :, _SWAPPED]
    return out


CX: Matrices = GATES[G.CX].matrix()
"""Control on the low bit."""
