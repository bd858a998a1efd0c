"""Matrices as circuits, for ``lowering.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchmarks.lowering_rows import Row, our_row, pennylane_row, qiskit_row
from qcomp.passes.synthesize.unitary.synthesis import synthesize_unitary

if TYPE_CHECKING:
    from qiskit import QuantumCircuit

Matrix = NDArray[np.complex128]


def random_unitary(n: int, seed: int = 0) -> Matrix:
    """Return a matrix of the Haar measure."""
    rng = np.random.default_rng([seed, n])
    size = 1 << n
    q, r = np.linalg.qr(rng.normal(size=(size, size)) + 1j * rng.normal(size=(size, size)))
    return q * (np.diag(r) / np.abs(np.diag(r)))


def of_unitary(construction: str, matrix: Matrix) -> list[Row]:
    """Return the rows of one matrix: ours, Qiskit's UnitaryGate, PennyLane's QubitUnitary."""
    n = len(matrix).bit_length() - 1

    def gate() -> QuantumCircuit:
        from qiskit import QuantumCircuit
        from qiskit.circuit.library import UnitaryGate

        circuit = QuantumCircuit(n)
        circuit.append(UnitaryGate(matrix), range(n))
        return circuit

    def operator() -> list[object]:
        import pennylane as qml

        return [qml.QubitUnitary(matrix, wires=range(n - 1, -1, -1))]

    return [
        our_row(construction, n, lambda: synthesize_unitary(matrix)),
        qiskit_row(construction, n, gate, tool="qiskit UnitaryGate"),
        pennylane_row(construction, n, operator, tool="pennylane QubitUnitary"),
    ]


def rows(limit: int = 8) -> list[Row]:
    """Return the rows of matrices on 2 to ``limit`` qubits."""
    out: list[Row] = []
    for n in range(2, min(limit, 8) + 1):
        out += of_unitary("random", random_unitary(n))
    return out
