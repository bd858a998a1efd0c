"""Gates on two qubits in CX: three, two of real ones, fewer on qubits that are still |0>.

Real gates of SO(4) are RY and two CX: so(4) is the sum of two su(2), spanned by (IY, YX, YZ) and
(YI, ZY, XY), which CX exchanges: ``IY -> ZY``, ``YI -> YX``. So

``RY RY CX RY RY CX RY RY`` (control, target)
``= [e^(IY) e^(YX) e^(IY)] [e^(YI) e^(ZY) e^(YI)]``

is the Euler form of both at once. Complex gates take three CX by the Cartan decomposition; on one
qubit in |0> a gate is free up to a diagonal before it, and with the right one two CX are enough
(``tr M^T M`` real in the magic basis); on |00> it is a state, one CX.

Sources: Vatan, Williams 2004 (arXiv:quant-ph/0308006); Shende, Bullock, Markov 2006
(arXiv:quant-ph/0406176), proposition V.2; Wei, Di 2012 (arXiv:1203.0722) on real gates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from qcomp.passes.synthesize.cx_circuits import write
from qcomp.passes.synthesize.state.cx_form import Array, CxForm, Matrices, Op, assemble, one_qubit
from qcomp.passes.synthesize.state.pair_network import PairGate
from qcomp.passes.synthesize.weyl import weyl

__all__ = ["network_form"]

_NEAR_WALL = 1e-9
"""A coordinate below it is 0: the state moves by as much."""

_PAULI = {
    "I": np.eye(2),
    "X": np.array([[0.0, 1.0], [1.0, 0.0]]),
    "Z": np.diag([1.0, -1.0]),
    "Y": np.array([[0.0, -1.0], [1.0, 0.0]]),
}
"""Y times -i, which is real."""


def _word(control: str, target: str) -> Array:
    # The control is the high bit here.
    return np.kron(_PAULI[control], _PAULI[target])


_FIRST = (np.eye(4), _word("I", "Y"), _word("Y", "X"), -_word("Y", "Z"))
_SECOND = (np.eye(4), _word("Y", "I"), _word("Z", "Y"), _word("X", "Y"))
_BOTH = np.array([[p @ q for q in _SECOND] for p in _FIRST])


def network_form(wires: int, gates: Sequence[PairGate]) -> CxForm:
    """Return gates on |0> as a circuit of CX.

    Args:
        wires: Qubits.
        gates: Unitary matrices; all of them of SO(4) for a real circuit.
    """
    real = not any(np.iscomplexobj(m) for _, _, m in gates)
    ops: list[Op] = []
    zero = [True] * wires
    for a, b, matrix in gates:
        if zero[a] and zero[b]:
            ops += _state_ops(a, b, matrix[:, 0])
        elif real:
            ops += _real_ops(a, b, matrix)
        else:
            ops += _complex_ops(a, b, matrix, zero[a], zero[b])
        zero[a] = zero[b] = False
    return assemble(wires, ops, real)


def _state_ops(a: int, b: int, column: Matrices) -> list[Op]:
    """A state of two qubits: its Schmidt form ``sum_i s_i |u_i> |v_i>``, one CX."""
    # column[a + 2 b] = sum_i u[a, i] s_i v[i, b]
    u, s, v = np.linalg.svd(column.reshape(2, 2).T)
    angle = 2 * np.arctan2(s[1], s[0])
    start = one_qubit(np.array([[angle]]))[0]
    if s[1] < 1e-14:
        return [(a, -1, u), (b, -1, v.T)]
    return [(a, -1, start), (a, b, None), (a, -1, u), (b, -1, np.ascontiguousarray(v.T))]


def _real_ops(a: int, b: int, matrix: Array) -> list[Op]:
    """A gate of SO(4), control b (the high bit), target a."""
    table = np.einsum("ijkl,kl->ij", _BOTH, matrix) / 4
    left, _, right = np.linalg.svd(table)
    first, second = left[:, 0], right[0]
    if np.einsum("ij,i,j->", table, first, second) < 0:
        second = -second
    t1, c2, t3 = _euler(first)
    c1, t2, c3 = _euler(second)
    turn = one_qubit
    ops: list[Op] = []
    for control, target in ((c1, t1), (c2, t2), (c3, t3)):
        if ops:
            ops.append((b, a, None))
        ops += [
            (b, -1, turn(np.array([[control]]))[0]),
            (a, -1, turn(np.array([[target]]))[0]),
        ]
    return ops


def _euler(q: Array) -> tuple[float, float, float]:
    """Return (first, second, third) angles of ``e^(third A/2) e^(second B/2) e^(first A/2)``.

    ``q`` holds the parts along 1, A, B and A B, where A^2 = B^2 = -1 and A B = -B A.
    """
    middle = 2 * np.arctan2(np.hypot(q[2], q[3]), np.hypot(q[0], q[1]))
    total = np.arctan2(q[1], q[0])
    difference = np.arctan2(q[3], q[2])
    return total - difference, float(middle), total + difference


def _complex_ops(a: int, b: int, matrix: Matrices, zero_a: bool, zero_b: bool) -> list[Op]:
    wires = (a, b)
    ops: list[Op] = []
    if zero_a or zero_b:
        turn = _to_two_cx(matrix)
        matrix = matrix * turn
        # Where one wire is |0>, what the diagonal did is a phase of the other's |0> and |1>.
        ops.append((b if zero_a else a, -1, np.diag(turn[:2].conj())))
    point = weyl(matrix[None].astype(np.complex128))
    near = np.abs(point.y) < _NEAR_WALL
    point = replace(point, y=np.where(near, 0.0, point.y))
    pair = write(point, "turn").around(point)
    ops += [(wires[j], -1, pair.right[0, j]) for j in range(2)]
    count = int(pair.count[0])
    for k in range(count):
        control = int(pair.control[0, k])
        ops.append((wires[control], wires[1 - control], None))
        if k < count - 1:
            ops += [(wires[j], -1, pair.middle[0, k, j]) for j in range(2)]
    return [*ops, *((wires[j], -1, pair.left[0, j]) for j in range(2))]


_MAGIC: Matrices = np.array(
    [[1, 0, 1j, 0], [0, 1j, 0, 1], [0, 1j, 0, -1], [1, 0, -1j, 0]], dtype=complex
) / np.sqrt(2)
_EVEN = np.array([1, -1, 1, -1])
"""ZZ on the columns of the magic basis."""


def _to_two_cx(matrix: Matrices) -> Matrices:
    """Return the diagonal ``exp(i t ZZ)`` after which (in time: before) a gate takes two CX.

    On a qubit in |0> it is an RZ of the other qubit, which is put back here: the diagonal returned
    is 1 where the qubit is 0, up to phase, on either side.
    """
    special = matrix / np.linalg.det(matrix) ** 0.25
    m = _MAGIC.conj().T @ special @ _MAGIC
    square = np.diag(m.T @ m)
    even, odd = square[_EVEN == 1].sum(), square[_EVEN == -1].sum()
    t = 0.5 * np.arctan2(-(even.imag + odd.imag), even.real - odd.real)
    result: Matrices = np.exp(1j * t * np.array([1, -1, -1, 1]))
    return result
