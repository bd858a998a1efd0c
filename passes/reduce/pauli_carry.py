"""Carry a Pauli through a run: the next operation on each wire, a heap of those to visit."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.gates import GATES, NUM_QUBITS, G
from qcomp.kernels import kernel
from qcomp.passes.reduce.families import FAMILY, MODE, ROTATION
from qcomp.passes.reduce.pauli_tables import AXIS_BITS

__all__ = [
    "ARITY",
    "AXES",
    "AXIAL",
    "FREE",
    "GONE",
    "NONE",
    "ROLE",
    "TABLE",
    "TURN",
    "WIDE",
    "carry",
    "link_wires",
    "pop",
    "push",
]

NONE, TABLE, TURN, AXIAL, WIDE = range(5)
_BARRIER = G.BARRIER
GONE, FREE = 0, 4
"""Turns of a rotation: 0 to 3 multiples of pi/2, which are Cliffords, 4 for any other angle."""


def _roles() -> NDArray[np.int64]:
    """How a Pauli passes each gate, by code."""
    role = np.full(len(GATES), AXIAL, dtype=np.int64)
    for row in GATES:
        if row.clifford:
            role[row.code] = TABLE
        if FAMILY[row.code] >= 0 and MODE[FAMILY[row.code]] == ROTATION:
            role[row.code] = TURN
    role[[G.ID, G.GPHASE]] = NONE
    role[[G.BARRIER, G.MCX]] = WIDE
    return role


def _axes() -> NDArray[np.int64]:
    """Axis of each gate on operand k at 3 c + k; a measurement is diagonal."""
    axes = AXIS_BITS.copy()
    axes[3 * G.MEASURE] = 2
    return axes


ROLE = _roles()
AXES = _axes()
ARITY = np.maximum(NUM_QUBITS, 0).astype(np.int64)


@kernel()
def link_wires(
    n: int, code: Any, qubit: Any, extra: Any, arity: Any, role: Any, last: Any, link: Any
) -> int:
    """For each operand of each operation the next operation on its wire, n for none.

    last: int[wires], n. link: int[3 n + extra], at 3 i + k, or at 3 n + e for operand e of extra.
    """
    for j in range(n):
        i = n - 1 - j
        if role[code[i]] == WIDE:
            for k in range(qubit[3 * i], qubit[3 * i] + qubit[3 * i + 1]):
                link[3 * n + k] = last[extra[k]]
                last[extra[k]] = i
        else:
            for k in range(arity[code[i]]):
                w = qubit[3 * i + k]
                link[3 * i + k] = last[w]
                last[w] = i
    return n


def push(heap: Any, size: int, item: int) -> int:
    """Put an item on a heap whose least item comes first; the new size is returned."""
    i = size
    while i > 0 and heap[(i - 1) >> 1] > item:
        heap[i] = heap[(i - 1) >> 1]
        i = (i - 1) >> 1
    heap[i] = item
    return size + 1


def pop(heap: Any, size: int) -> int:
    """Drop the least item of a heap; the new size is returned."""
    size -= 1
    item = heap[size]
    i = 0
    while 2 * i + 1 < size:
        k = 2 * i + 1
        if k + 1 < size and heap[k + 1] < heap[k]:
            k += 1
        if heap[k] >= item:
            break
        heap[i] = heap[k]
        i = k
    heap[i] = item
    return size


def carry(
    start: int,
    now: int,
    reach: int,
    n: int,
    code: Any,
    qubit: Any,
    extra: Any,
    link: Any,
    role: Any,
    arity: Any,
    axis: Any,
    forward: Any,
    product: Any,
    turn: Any,
    pauli: Any,
    marked: Any,
    touched: Any,
    heap: Any,
    visited: Any,
) -> int:
    """Carry the Pauli of rotation ``start`` forward to rotation ``now``.

    Only operations on wires where the Pauli is not the identity are visited, in order, by a heap
    of the next operation on each. Returns 1 or -1 where it arrives as plus or minus the Pauli of
    ``now``, 2 + i where operation i lets it not pass, 0 where it is another one or more than
    ``reach`` operations away. visited: int64[1], the operations visited are added.
    """
    size = 0
    marks = 0
    minus = 0
    steps = 0
    result = 0
    c = code[start]
    for k in range(arity[c]):
        w = qubit[3 * start + k]
        pauli[w] = axis[3 * c + k]
        marked[w] = 1
        touched[marks] = w
        marks += 1
        size = push(heap, size, link[3 * start + k])
    while size > 0 and heap[0] < now and result == 0 and steps < reach:
        i = heap[0]
        while size > 0 and heap[0] == i:
            size = pop(heap, size)
        steps += 1
        c = code[i]
        what = role[c]
        if what == TABLE:
            a = qubit[3 * i]
            if arity[c] == 1:
                p = forward[16 * c + pauli[a]]
                pauli[a] = p & 3
            else:
                b = qubit[3 * i + 1]
                p = forward[16 * c + pauli[a] + 4 * pauli[b]]
                pauli[a] = p & 3
                pauli[b] = (p >> 2) & 3
            minus ^= p >> 4
        elif what == TURN:
            t = turn[i]
            if t != GONE:
                anti = 0
                power = 4 - t
                for k in range(arity[c]):
                    p = axis[3 * c + k]
                    q = pauli[qubit[3 * i + k]]
                    power += product[4 * p + q]
                    if q != 0 and p != q:
                        anti ^= 1
                if anti != 0:
                    if t == FREE:
                        result = 2 + i
                    elif t == 2:
                        minus ^= 1
                    else:
                        # exp(-i t pi/2 P) Q = (-i)^t P Q
                        minus ^= (power >> 1) & 1
                        for k in range(arity[c]):
                            pauli[qubit[3 * i + k]] ^= axis[3 * c + k]
        elif what == AXIAL:
            for k in range(arity[c]):
                q = pauli[qubit[3 * i + k]]
                if q != 0 and q != axis[3 * c + k]:
                    result = 2 + i
        else:
            first = qubit[3 * i]
            past = first + qubit[3 * i + 1]
            for k in range(first, past):
                q = pauli[extra[k]]
                if q != 0 and (c == _BARRIER or q != (1 if k == past - 1 else 2)):
                    result = 2 + i
            for k in range(first, past):
                if pauli[extra[k]] != 0:
                    size = push(heap, size, link[3 * n + k])
        if what != WIDE:
            for k in range(arity[c]):
                w = qubit[3 * i + k]
                if pauli[w] != 0:
                    if marked[w] == 0:
                        marked[w] = 1
                        touched[marks] = w
                        marks += 1
                    size = push(heap, size, link[3 * i + k])
    visited[0] += steps
    if result == 0 and (size == 0 or heap[0] >= now):
        result = 1 - 2 * minus
        c = code[now]
        for k in range(arity[c]):
            w = qubit[3 * now + k]
            if pauli[w] != axis[3 * c + k]:
                result = 0
            pauli[w] = 0
    for k in range(marks):
        w = touched[k]
        if pauli[w] != 0:
            pauli[w] = 0
            if -1 <= result <= 1:
                result = 0
        marked[w] = 0
    return result
