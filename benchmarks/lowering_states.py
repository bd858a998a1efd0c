"""Vectors as circuits, for ``lowering.py``: exact ones beside peers, less fidelity beside exact."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchmarks.lowering_rows import Row, our_row, pennylane_row, qiskit_row
from qcomp.passes.synthesize.state.preparation import prepare_state

if TYPE_CHECKING:
    from pennylane.operation import Operator
    from qiskit import QuantumCircuit

Vector = NDArray[np.complex128]


def random_state(n: int, *, real: bool = False) -> Vector:
    """Return a random vector of norm 1."""
    rng = np.random.default_rng([n, int(real)])
    vector = rng.normal(size=1 << n) + (0 if real else 1j * rng.normal(size=1 << n))
    return (vector / np.linalg.norm(vector)).astype(complex)


def of_ones(n: int, places: list[int]) -> Vector:
    """Return equal amplitudes at some basis states."""
    vector = np.zeros(1 << n, dtype=complex)
    vector[places] = len(places) ** -0.5
    return vector


def gaussian(n: int) -> Vector:
    """Return a Gaussian over four standard deviations on both sides."""
    vector = np.exp(-(np.linspace(-4, 4, 1 << n) ** 2) / 2).astype(complex)
    return vector / np.linalg.norm(vector)


def of_state(construction: str, vector: Vector, fidelity: float = 1.0) -> list[Row]:
    """Return the rows of one vector: ours, Qiskit's StatePreparation, PennyLane's Moettoenen."""
    n = len(vector).bit_length() - 1

    def gate() -> QuantumCircuit:
        from qiskit import QuantumCircuit
        from qiskit.circuit.library import StatePreparation

        circuit = QuantumCircuit(n)
        circuit.append(StatePreparation(vector), range(n))
        return circuit

    def operator() -> list[Operator]:
        import pennylane as qml

        return [qml.MottonenStatePreparation(vector, wires=range(n - 1, -1, -1))]

    return [
        our_row(
            construction,
            n,
            lambda: prepare_state(vector, fidelity=fidelity).circuit,
            note="" if fidelity == 1 else f"ours to fidelity {fidelity}",
        ),
        qiskit_row(construction, n, gate, tool="qiskit StatePreparation"),
        pennylane_row(construction, n, operator, tool="pennylane Mottonen"),
    ]


def rows(limit: int = 10) -> list[Row]:
    """Return the rows of vectors on 2 to ``limit`` qubits."""
    out: list[Row] = []
    for n in range(2, min(limit, 10) + 1):
        out += of_state("random", random_state(n))
        out += of_state("random, real", random_state(n, real=True))
        out += of_state("W", of_ones(n, [1 << i for i in range(n)]))
        out += of_state("GHZ", of_ones(n, [0, (1 << n) - 1]))
        out += of_state("Gaussian at .998", gaussian(n), 0.998)
    return out
