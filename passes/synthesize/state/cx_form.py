"""Circuits of CX and one-qubit gates on |0>, as arrays, in a form without superfluous angles.

A circuit of n wires and K CX has ``n + 2 K`` places for one-qubit gates: one on each wire at the
start, one on the control and one on the target after each CX. RZ passes a control and RX a target,
so a gate ``RZ(b) RY(a) RZ(c)`` behind a control is left with a and b, one ``RZ(b) RY(a) RX(c)``
behind a target too, and on |0> the first RZ is a phase: two angles a place, four a CX. A circuit of
real gates keeps RY only, one angle a place.

Source: the count of Shende, Markov, Bullock 2004 (arXiv:quant-ph/0308033), theorem 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.circuit import Circuit
from qcomp.kernels import kernel

__all__ = ["CxForm", "Op", "assemble", "one_qubit", "slopes"]

Array = NDArray[np.float64]
Matrices = NDArray[Any]
"""complex128, or float64 where a state is real: its circuits are RY and CX then."""
Op = tuple[int, int, Matrices | None]
"""``(wire, -1, matrix)`` is a gate on one qubit, ``(control, target, None)`` a CX."""

_HALF_Y = np.array([[0.0, -0.5], [0.5, 0.0]])
_HALF_Z = np.array([-0.5j, 0.5j])
_FLAT = 1e-12


def _step_kernel(
    v: Matrices, control: int, target: int, on_control: Matrices, on_target: Matrices
) -> None:
    """``(on_control x on_target) CX v`` in place; complex128[2^n] or float64[2^n]."""
    low, high = min(control, target), max(control, target)
    c, t = 1 << control, 1 << target
    for i in range(len(v) >> 2):
        k = ((i >> low) << (low + 1)) | (i & ((1 << low) - 1))
        k = ((k >> high) << (high + 1)) | (k & ((1 << high) - 1))
        v00, v01, v10, v11 = v[k], v[k | t], v[k | c | t], v[k | c]
        a00 = on_target[0, 0] * v00 + on_target[0, 1] * v01
        a01 = on_target[1, 0] * v00 + on_target[1, 1] * v01
        a10 = on_target[0, 0] * v10 + on_target[0, 1] * v11
        a11 = on_target[1, 0] * v10 + on_target[1, 1] * v11
        v[k] = on_control[0, 0] * a00 + on_control[0, 1] * a10
        v[k | t] = on_control[0, 0] * a01 + on_control[0, 1] * a11
        v[k | c] = on_control[1, 0] * a00 + on_control[1, 1] * a10
        v[k | c | t] = on_control[1, 0] * a01 + on_control[1, 1] * a11


def _start_kernel(v: Matrices, one: Matrices, slope: Matrices, place: int) -> None:
    """The product of the gates at the start on |0>, one of them replaced by its slope."""
    v[:] = 0
    v[0] = 1
    size = 1
    while size < len(v):
        wire = 0
        while 1 << wire < size:
            wire += 1
        gate = slope if wire == place else one[wire]
        for i in range(size):
            v[size + i] = gate[1, 0] * v[i]
            v[i] = gate[0, 0] * v[i]
        size *= 2


@kernel(calls=(_step_kernel, _start_kernel))
def run_steps(v: Matrices, wires: int, pairs: NDArray[np.int64], one: Matrices) -> None:
    """Write the state of a circuit to ``v``."""
    _start_kernel(v, one, one[0], -1)
    for k in range(len(pairs)):
        at = wires + 2 * k
        _step_kernel(v, pairs[k, 0], pairs[k, 1], one[at], one[at + 1])


@kernel(calls=(_step_kernel, _start_kernel))
def run_slopes(
    v: Matrices,
    jacobian: Matrices,
    wires: int,
    pairs: NDArray[np.int64],
    one: Matrices,
    slope: Matrices,
) -> None:
    """Write the state to ``v`` and its slope by angle p of place s to row ``s * P + p``.

    Shapes: one [n + 2 K, 2, 2], slope [n + 2 K, P, 2, 2], jacobian [(n + 2 K) P, 2^n].
    """
    angles = slope.shape[1]
    for place in range(wires):
        for p in range(angles):
            row = jacobian[place * angles + p]
            _start_kernel(row, one, slope[place, p], place)
            for h in range(len(pairs)):
                at = wires + 2 * h
                _step_kernel(row, pairs[h, 0], pairs[h, 1], one[at], one[at + 1])
    _start_kernel(v, one, one[0], -1)
    for k in range(len(pairs)):
        here = wires + 2 * k
        for side in range(2):
            for p in range(angles):
                row = jacobian[(here + side) * angles + p]
                row[:] = v
                if side == 0:
                    _step_kernel(row, pairs[k, 0], pairs[k, 1], slope[here, p], one[here + 1])
                else:
                    _step_kernel(row, pairs[k, 0], pairs[k, 1], one[here], slope[here + 1, p])
                for h in range(k + 1, len(pairs)):
                    at = wires + 2 * h
                    _step_kernel(row, pairs[h, 0], pairs[h, 1], one[at], one[at + 1])
        _step_kernel(v, pairs[k, 0], pairs[k, 1], one[here], one[here + 1])


def one_qubit(angles: Array) -> Matrices:
    """Return ``RY(a)``, float64[s, 2, 2], of angles [s, 1], or ``RZ(b) RY(a)`` of angles [s, 2]."""
    c, s = np.cos(angles[:, 0] / 2), np.sin(angles[:, 0] / 2)
    turned: Matrices = np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2)
    if angles.shape[1] == 1:
        return turned
    result: Matrices = np.exp(angles[:, 1:] * _HALF_Z)[:, :, None] * turned
    return result


def slopes(angles: Array) -> tuple[Matrices, Matrices]:
    """Return the gates of :func:`one_qubit` and their slopes by each angle, [s, P, 2, 2]."""
    gates = one_qubit(angles)
    by_y = gates @ _HALF_Y
    if angles.shape[1] == 1:
        return gates, np.ascontiguousarray(by_y[:, None])
    by_z = _HALF_Z[:, None] * gates
    return gates, np.ascontiguousarray(np.stack([by_y, by_z], axis=1))


@dataclass(frozen=True, slots=True)
class CxForm:
    """A circuit that makes a state of |0>.

    Attributes:
        wires: Qubits.
        pairs: int64[K, 2], control and target of each CX.
        angles: float64[n + 2 K, P], radians: of RY, and of RZ after it where P is 2.
    """

    wires: int
    pairs: NDArray[np.int64]
    angles: Array

    @property
    def is_real(self) -> bool:
        """Whether all gates are RY and CX."""
        return self.angles.shape[1] == 1

    def state(self) -> Matrices:
        """Return the state, complex128[2^n]; float64 of a real circuit. Bit i is wire i."""
        one = one_qubit(self.angles)
        v: Matrices = np.empty(1 << self.wires, dtype=one.dtype)
        run_steps.by_size(len(v) * (len(self.pairs) + 1))(v, self.wires, self.pairs, one)
        return v

    def then(self, ops: Sequence[Op]) -> CxForm:
        """Return this circuit followed by more operations."""
        real = self.is_real and all(m is None or not np.iscomplexobj(m) for _, _, m in ops)
        return assemble(self.wires, [*self.ops(), *ops], real)

    def ops(self) -> list[Op]:
        """Return the circuit as operations."""
        one = one_qubit(self.angles)
        out: list[Op] = [(q, -1, one[q]) for q in range(self.wires)]
        for k, (control, target) in enumerate(self.pairs.tolist()):
            at = self.wires + 2 * k
            out += [
                (control, target, None),
                (control, -1, one[at]),
                (target, -1, one[at + 1]),
            ]
        return out

    def circuit(self, name: str = "state") -> Circuit:
        """Write the circuit in ``cx``, ``ry`` and ``rz``; angles that are 0 are left out."""
        circuit = Circuit(self.wires, name=name)
        turns = np.remainder(self.angles + 2 * np.pi, 4 * np.pi) - 2 * np.pi
        turns[np.abs(turns) < _FLAT] = 0
        for q in range(self.wires):
            _turn(circuit, turns[q], q)
        for k, (control, target) in enumerate(self.pairs.tolist()):
            circuit.cx(control, target)
            _turn(circuit, turns[self.wires + 2 * k], control)
            _turn(circuit, turns[self.wires + 2 * k + 1], target)
        return circuit


def _turn(circuit: Circuit, turns: Array, wire: int) -> None:
    if turns[0]:
        circuit.ry(float(turns[0]), wire)
    if len(turns) > 1 and turns[1]:
        circuit.rz(float(turns[1]), wire)


def assemble(wires: int, ops: Sequence[Op], real: bool) -> CxForm:
    """Return the form of a circuit on |0>, up to a global phase.

    Args:
        wires: Qubits.
        ops: The operations; those on one qubit are any unitaries, real ones where ``real`` is set.
        real: Keep one angle a place.
    """
    kind = np.float64 if real else np.complex128
    pairs = np.array([(c, t) for c, t, m in ops if m is None], dtype=np.int64).reshape(-1, 2)
    one = np.tile(np.eye(2, dtype=kind), (wires + 2 * len(pairs), 1, 1))
    last, k = list(range(wires)), 0
    for first, second, matrix in ops:
        if matrix is None:
            last[first], last[second] = wires + 2 * k, wires + 2 * k + 1
            k += 1
        else:
            one[last[first]] = matrix @ one[last[first]]
    angles = np.zeros((len(one), 1 if real else 2))
    # From the back: what commutes with a CX goes to the place before it.
    before = _places_before(wires, pairs)
    for at in range(len(one) - 1, -1, -1):
        behind_target = at >= wires and (at - wires) % 2 == 1
        angles[at], rest = _split(one[at], behind_target)
        if at >= wires:
            one[before[at]] = rest @ one[before[at]]
    return CxForm(wires, pairs, angles)


def _places_before(wires: int, pairs: NDArray[np.int64]) -> list[int]:
    """Return the place on the same wire before each place; -1 for the first ones."""
    out, last = [-1] * wires, list(range(wires))
    for k, (control, target) in enumerate(pairs.tolist()):
        out += [last[control], last[target]]
        last[control], last[target] = wires + 2 * k, wires + 2 * k + 1
    return out


_X = np.array([[0.0, 1.0], [1.0, 0.0]])
_Z = np.diag([1.0, -1.0])


def _split(matrix: Matrices, behind_target: bool) -> tuple[Array, Matrices]:
    """Return angles and a rest with ``matrix ~ RZ(b) RY(a) rest``; the rest passes the CX."""
    if not np.iscomplexobj(matrix):
        rest = np.eye(2)
        if np.linalg.det(matrix) < 0:
            rest = _X if behind_target else _Z
            matrix = matrix @ rest
        return np.array([2 * np.arctan2(matrix[1, 0].real, matrix[0, 0].real)]), rest
    if behind_target:
        # In the frame where X is Z: the row space is split along |+>, |->.
        # RZ(b) RY(a) is fixed by the direction where it takes Z once X is taken out.
        bloch = _bloch(matrix)
        # rest = RX(c): columns of the rotation about x stay; R e_x = Rz(b) Ry(a) e_x.
        x = bloch[:, 0]
        a = -np.arcsin(np.clip(x[2], -1, 1))
        b = np.arctan2(x[1], x[0]) if np.hypot(x[0], x[1]) > 1e-15 else 0.0
    else:
        z = _bloch(matrix)[:, 2]
        a = np.arctan2(np.hypot(z[0], z[1]), z[2])
        b = np.arctan2(z[1], z[0]) if np.hypot(z[0], z[1]) > 1e-15 else 0.0
    angles = np.array([a, b])
    return angles, one_qubit(angles[None])[0].conj().T @ matrix


def _bloch(matrix: Matrices) -> Array:
    """Return the rotation of the Bloch sphere, float64[3, 3]."""
    paulis = np.array([[[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])
    moved = matrix @ paulis @ matrix.conj().T
    return np.real(np.einsum("aij,bji->ab", paulis, moved)) / 2
