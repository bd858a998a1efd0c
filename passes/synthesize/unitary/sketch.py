"""Circuits under construction: CX gates and one-qubit unitaries, chains of which are one gate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.angle import wrap
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import G
from qcomp.ir.run import Run
from qcomp.kernels import kernel
from qcomp.passes.reduce.euler import euler_angles, snapped

__all__ = ["Matrix", "Sketch"]

Matrix = NDArray[np.complex128]

_EYE: Matrix = np.eye(2, dtype=complex)

_NONE = 1e-13
"""A gate this near to the identity is left out, and its phase kept."""


@kernel()
def _merge(
    first: NDArray[np.int32], second: NDArray[np.int32], unit: Matrix, keep: NDArray[np.bool_]
) -> None:
    """Multiply one-qubit unitaries into the last one on their wire that no CX gate separates."""
    last = np.full(256, -1, np.int64)
    for i in range(len(first)):
        q, t = first[i], second[i]
        if t >= 0:
            last[q] = -1
            last[t] = -1
            continue
        j = last[q]
        if j < 0:
            last[q] = i
            continue
        a, b, c, d = unit[j, 0, 0], unit[j, 0, 1], unit[j, 1, 0], unit[j, 1, 1]
        for r in range(2):
            x, y = unit[i, r, 0], unit[i, r, 1]
            unit[j, r, 0] = x * a + y * c
            unit[j, r, 1] = x * b + y * d
        keep[i] = False


class Sketch:
    """Gates in order: CX gates and one-qubit unitaries, and a global phase.

    Args:
        num_qubits: Wires.
    """

    def __init__(self, num_qubits: int) -> None:
        self.num_qubits = num_qubits
        self.phase = 0.0
        self._first: list[int] = []
        self._second: list[int] = []
        self._unit: list[Matrix] = []

    @property
    def cx_count(self) -> int:
        """CX gates so far."""
        return len(self._first) - len(self._unit)

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """The CX gates in order, (control, target) each."""
        return [(c, t) for c, t in zip(self._first, self._second, strict=True) if t >= 0]

    def operations(self) -> Iterator[tuple[int, int, Matrix]]:
        """Yield (control, target, identity) of CX gates and (wire, -1, matrix) of the others."""
        units = iter(self._unit)
        for q, t in zip(self._first, self._second, strict=True):
            yield q, t, (_EYE if t >= 0 else next(units))

    def cx(self, control: int, target: int) -> None:
        """Append a CX gate."""
        self._first.append(control)
        self._second.append(target)

    def one(self, wire: int, matrix: Matrix) -> None:
        """Append a one-qubit unitary, complex128[2, 2]."""
        self._first.append(wire)
        self._second.append(-1)
        self._unit.append(matrix)

    def rz(self, wire: int, angle: float) -> None:
        """Append ``exp(-i angle/2 Z)``."""
        self.one(wire, np.diag(np.exp([-0.5j * angle, 0.5j * angle])))

    def ry(self, wire: int, angle: float) -> None:
        """Append ``exp(-i angle/2 Y)``."""
        c, s = np.cos(angle / 2), np.sin(angle / 2)
        self.one(wire, np.array([[c, -s], [s, c]], dtype=complex))

    def extend(self, other: Sketch, wires: Sequence[int] | None = None) -> None:
        """Append another sketch, its wire i on ``wires[i]``."""
        where = list(range(other.num_qubits)) if wires is None else list(wires)
        self._first += [where[q] for q in other._first]
        self._second += [where[q] if q >= 0 else -1 for q in other._second]
        self._unit += other._unit
        self.phase += other.phase

    def inverted(self) -> Sketch:
        """Return the inverse: gates in reverse order, each inverted."""
        new = Sketch(self.num_qubits)
        new._first, new._second = self._first[::-1], self._second[::-1]
        new._unit = [matrix.conj().T for matrix in self._unit[::-1]]
        new.phase = -self.phase
        return new

    def circuit(self, name: str = "unitary") -> Circuit:
        """Return the circuit over ``cx``, ``u``, ``rz`` and the global phase."""
        circuit = Circuit(self.num_qubits, name=name)
        if not self._first:
            circuit.gphase(self.phase)
            return circuit
        first = np.array(self._first, dtype=np.int32)
        second = np.array(self._second, dtype=np.int32)
        unit = np.zeros((len(first), 2, 2), dtype=complex)
        if self._unit:
            unit[second < 0] = np.stack(self._unit)
        keep = np.ones(len(first), dtype=bool)
        _merge.by_size(8 * len(first))(first, second, unit, keep)
        first, second, unit = first[keep], second[keep], unit[keep]
        run, phase = _written(first, second, unit)
        circuit = circuit.copy(body=(run,) if len(run) else ())
        circuit.gphase(self.phase + phase)
        return circuit


def _written(
    first: NDArray[np.int32], second: NDArray[np.int32], unit: Matrix
) -> tuple[Run, float]:
    """Return the gates as a run, and the global phase that it lacks."""
    single = second < 0
    theta, phi, lam = euler_angles(np.where(single[:, None, None], unit, np.eye(2)))
    # u(theta, phi, lam) has a real corner cos(theta/2), or exp(i phi) sin(theta/2) below it.
    corner = np.abs(unit[:, 0, 0]) > 0.5
    phase = np.where(corner, np.angle(unit[:, 0, 0]), np.angle(unit[:, 1, 0]) - phi)
    turn = (theta < _NONE) & single
    bare = turn & (np.abs(np.angle(np.exp(1j * (phi + lam)))) < _NONE)
    # rz(a) = exp(-i a/2) p(a)
    phase = phase + np.where(turn & ~bare, (phi + lam) / 2, 0.0)
    total = float(np.where(single, phase, 0.0).sum())
    code = np.where(single, np.where(turn, G.RZ, G.U), G.CX)
    qubit = np.stack([first, second, np.full_like(first, -1)], axis=1)
    rows = np.flatnonzero(~bare)
    counts = np.where(code == G.U, 3, np.where(code == G.RZ, 1, 0))[rows]
    angles = np.stack([np.where(turn, phi + lam, theta), phi, lam], axis=1)[rows]
    flat = angles[np.arange(3)[None, :] < counts[:, None]]
    frac, rem = snapped(flat)
    return Run.of(code[rows].astype(np.uint8), qubit[rows], wrap(frac), rem), total
