"""The reference simulator: plain NumPy, float64, one matrix product a gate, a batch of rows.

It reads nothing but the gate table's matrices, so it is what every other way of running or
rewriting a circuit is compared with. Meant for at most 12 qubits.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from qcomp.errors import UsageError
from qcomp.ir.angle import UNIT
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import GATES
from qcomp.ir.run import Run

__all__ = ["MAX_REFERENCE_QUBITS", "evolve_run", "phase_rows", "reference_statevector"]

MAX_REFERENCE_QUBITS = 12
"""Qubits up to which the reference is meant to be used."""

States = NDArray[np.complex128]


def reference_statevector(circuit: Circuit, params: NDArray[np.float64]) -> States:
    """Return the final state of a unitary circuit for each row of parameters.

    Args:
        circuit: Straight-line, without measurement and reset, at most 12 qubits.
        params: float64[B, P].

    Returns:
        complex128[B, 2^n], qubit 0 the least significant bit; the global phase is in it.

    Raises:
        UsageError: If the circuit is larger or is not unitary.
    """
    n = circuit.num_qubits
    if n > MAX_REFERENCE_QUBITS:
        raise UsageError(
            f"the reference simulator takes at most {MAX_REFERENCE_QUBITS} qubits, not {n}",
            hint="use qcomp.simulate.statevector",
        )
    states = np.zeros((len(params), 1 << n), dtype=np.complex128)
    states[:, 0] = 1
    states = evolve_run(circuit, circuit.run, params, states)
    return states * np.exp(1j * phase_rows(circuit, params))[:, None]


def phase_rows(circuit: Circuit, params: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the circuit's global phase for each row of parameters, float64[B]."""
    phase = circuit.global_phase
    index = {name: i for i, name in enumerate(circuit.params)}
    out = np.full(len(params), float(replace(phase, terms=())))
    for name, coef in phase.terms:
        out += coef * params[:, index[name]]
    return out


def evolve_run(circuit: Circuit, run: Run, params: NDArray[np.float64], states: States) -> States:
    """Return the states after a run of unitary gates.

    Args:
        circuit: The circuit that the run is a leaf of.
        run: The gates.
        params: float64[B, P].
        states: complex128[B, 2^n].

    Raises:
        UsageError: If an operation has no matrix.
    """
    n = circuit.num_qubits
    angles = run.frac * UNIT + run.rem + circuit.forms.evaluate(run.form, params)
    for i in range(len(run.code)):
        gate = GATES[int(run.code[i])]
        if gate.kind == "barrier":
            continue
        if not gate.is_unitary:
            raise UsageError(f"{gate.name} has no matrix", where=f"gate {i}")
        if gate.num_qubits < 0:
            start, count = int(run.qubit[i, 0]), int(run.qubit[i, 1])
            operands = [int(q) for q in run.extra[start : start + count]]
        else:
            operands = [int(q) for q in run.qubit[i, : gate.num_qubits]]
        own = [angles[:, int(run.angle[i]) + k] for k in range(gate.num_angles)]
        matrix = gate.matrix(*own, num_qubits=len(operands))
        states = _apply(states, matrix, operands, n)
    return states


def _apply(states: States, matrix: States, operands: list[int], n: int) -> States:
    """Apply matrix complex128[(B,) 2^k, 2^k] to the operands, operand 0 the low bit."""
    k = len(operands)
    tensor = states.reshape(len(states), *([2] * n))
    axes = [n - q for q in reversed(operands)]
    front = np.moveaxis(tensor, axes, range(1, k + 1))
    shape = front.shape
    moved = matrix @ front.reshape(len(states), 1 << k, -1)
    back = np.moveaxis(moved.reshape(shape), range(1, k + 1), axes)
    return np.ascontiguousarray(back).reshape(len(states), -1)
