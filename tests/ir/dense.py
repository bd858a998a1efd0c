"""Dense matrices of small circuits, written apart from the simulator, for tests."""

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import gate
from qcomp.ir.transform import operation_angles


def embed(matrix: NDArray, qubits: tuple[int, ...], n: int) -> NDArray:
    """The matrix on these qubits of n, operand 0 being the lowest bit of the small index."""
    full = np.zeros((2**n, 2**n), complex)
    for column in range(2**n):
        small = sum(((column >> q) & 1) << k for k, q in enumerate(qubits))
        for row in range(2 ** len(qubits)):
            target = column
            for k, q in enumerate(qubits):
                target = (target & ~(1 << q)) | (((row >> k) & 1) << q)
            full[target, column] += matrix[row, small]
    return full


def dense(circuit: Circuit, **values: float) -> NDArray:
    """The unitary of a small straight-line circuit, global phase included."""
    circuit = circuit.bind(values)
    n = circuit.num_qubits
    total = np.eye(2**n, dtype=complex) * np.exp(1j * float(circuit.global_phase))
    run = circuit.run
    for i, (name, qubits, _) in enumerate(run.operations()):
        row = gate(name)
        if not row.is_unitary:
            continue
        angles = [float(angle) for angle in operation_angles(circuit, run, i)]
        matrix = row.matrix(*angles, num_qubits=len(qubits))
        total = (embed(matrix, qubits, n) if qubits else matrix[0, 0] * np.eye(2**n)) @ total
    return total
