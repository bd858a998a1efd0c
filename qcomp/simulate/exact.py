"""Exact results of circuits: states, unitaries, expectation values, distributions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit
from qcomp.ir.observable import Observable
from qcomp.ir.run import Run
from qcomp.simulate.batched import words_of_batch
from qcomp.simulate.control_flow import Leaf, final_measurements, is_unitary, leaves
from qcomp.simulate.engine import (
    check_memory,
    evolve,
    ground_states,
    lane_plan,
    parameter_rows,
    row_chunks,
)
from qcomp.simulate.paulis import pauli_table
from qcomp.simulate.reference import phase_rows

__all__ = [
    "bit_distribution",
    "expectations",
    "probabilities",
    "statevector",
    "unitary",
    "unitary_runs",
]

MAX_BITS = 24
"""Classical bits up to which a distribution over all their values is made."""


def unitary_runs(circuit: Circuit, what: str) -> list[Run]:
    """Return the runs of a circuit that is unitary up to measurements at its end.

    Args:
        circuit: The circuit.
        what: What needs it, for the message.

    Raises:
        UsageError: If the circuit measures before its end, resets or has control flow.
    """
    if not is_unitary(circuit):
        raise UsageError(
            f"{what} needs a unitary circuit, and '{circuit.name}' is none",
            why="it measures before its end, resets, or has classical control",
            hint="ask for expectation values, probabilities or samples instead",
        )
    body, _ = final_measurements(circuit)
    return _flat(body)


def _flat(body: Sequence[object]) -> list[Run]:
    out: list[Run] = []
    for item in body:
        if isinstance(item, Run):
            out.append(item)
        else:
            out.extend(_flat(getattr(item, "body", ())))
    return out


def statevector(circuit: Circuit, params: ArrayLike | None = None) -> NDArray[np.complex128]:
    """Return the final state for each row of parameters; measurements at the end are ignored.

    Args:
        circuit: A unitary circuit.
        params: float64[B, P], one row, or None for a circuit without parameters.

    Returns:
        complex128[B, 2^n], qubit 0 the least significant bit, global phase included.

    Raises:
        UsageError: If the circuit is not unitary, or the states do not fit in memory.
    """
    rows = parameter_rows(circuit, params)
    check_memory(circuit.num_qubits, len(rows))
    runs = unitary_runs(circuit, "a statevector")
    out = ground_states(circuit.num_qubits, len(rows))
    for part in row_chunks(circuit.num_qubits, len(rows)):
        states = out[part]
        for number, run in enumerate(runs):
            states = evolve(circuit, run, rows[part], states, grounded=number == 0)
        out[part] = states * np.exp(1j * phase_rows(circuit, rows[part]))[:, None]
    return out


def unitary(circuit: Circuit, params: ArrayLike | None = None) -> NDArray[np.complex128]:
    """Return the circuit's matrix at one row of parameters, complex128[2^n, 2^n].

    Raises:
        UsageError: If the circuit is not unitary, or the matrix does not fit in memory.
    """
    row = parameter_rows(circuit, params)
    if len(row) != 1:
        raise UsageError(f"a unitary is made for one row of parameters, not {len(row)}")
    size = 1 << circuit.num_qubits
    check_memory(circuit.num_qubits, size)
    runs = unitary_runs(circuit, "a unitary")
    columns = np.eye(size, dtype=np.complex128)
    for part in row_chunks(circuit.num_qubits, size):
        states = columns[part]
        params_of = np.repeat(row, len(states), axis=0)
        for run in runs:
            states = evolve(circuit, run, params_of, states)
        columns[part] = states
    phase = np.exp(1j * phase_rows(circuit, row))[0]
    return np.ascontiguousarray(columns.T) * phase


def expectations(
    circuit: Circuit, params: ArrayLike | None, observables: Sequence[Observable | str]
) -> NDArray[np.float64]:
    """Return exact expectation values in the final state, averaged over measured outcomes.

    Args:
        circuit: Any circuit.
        params: float64[B, P], one row, or None.
        observables: K observables or their texts.

    Returns:
        float64[B, K].

    Raises:
        UsageError: If an observable does not fit, or the circuit is too large.
    """
    rows = parameter_rows(circuit, params)
    table = pauli_table(observables, circuit.num_qubits)
    table = table.dephased([qubit for qubit, _ in final_measurements(circuit)[1]])
    if is_unitary(circuit):
        run = Run.concat(unitary_runs(circuit, "an expectation value"))
        plan = lane_plan(circuit, run, rows)
        if plan is not None:
            return words_of_batch(plan, rows, table) @ table.coefficients
    out = np.zeros((len(rows), table.coefficients.shape[1]))
    for part in row_chunks(circuit.num_qubits, len(rows)):
        words = np.zeros((part.stop - part.start, len(table)))
        for leaf in leaves(circuit, rows[part]):
            words[leaf.rows] += table.word_values(leaf.states)
        out[part] = words @ table.coefficients
    return out


def probabilities(circuit: Circuit, params: ArrayLike | None = None) -> NDArray[np.float64]:
    """Return the exact distribution of a measurement of all qubits at the circuit's end.

    Args:
        circuit: Any circuit.
        params: float64[B, P], one row, or None.

    Returns:
        float64[B, 2^n]; index bit q is qubit q.

    Raises:
        UsageError: If the circuit is too large.
    """
    rows = parameter_rows(circuit, params)
    check_memory(circuit.num_qubits, len(rows), copies=1)
    out = np.zeros((len(rows), 1 << circuit.num_qubits))
    for part in row_chunks(circuit.num_qubits, len(rows)):
        into = out[part]
        for leaf in leaves(circuit, rows[part]):
            into[leaf.rows] += squared(leaf.states)
    return out


def bit_distribution(circuit: Circuit, params: ArrayLike | None = None) -> NDArray[np.float64]:
    """Return the exact distribution of the classical bits.

    Args:
        circuit: A circuit with classical bits.
        params: float64[B, P], one row, or None.

    Returns:
        float64[B, 2^num_clbits]; index bit c is classical bit c.

    Raises:
        UsageError: If the circuit is too large.
    """
    rows = parameter_rows(circuit, params)
    if circuit.num_clbits > MAX_BITS:
        raise UsageError(
            f"a distribution over {circuit.num_clbits} classical bits has "
            f"2^{circuit.num_clbits} entries, the limit is 2^{MAX_BITS}",
            hint="ask for samples instead",
        )
    out = np.zeros((len(rows), 1 << circuit.num_clbits))
    for part in row_chunks(circuit.num_qubits, len(rows)):
        into = out[part]
        for leaf in leaves(circuit, rows[part]):
            weight = squared(leaf.states)
            values = outcome_bits(leaf, weight.shape[1])
            for i, row in enumerate(leaf.rows.tolist()):
                into[row] += np.bincount(values, weight[i], minlength=into.shape[1])
    return out


def squared(states: NDArray[np.complex128]) -> NDArray[np.float64]:
    """Return |amplitude|^2, float64 of the same shape."""
    result: NDArray[np.float64] = states.real**2 + states.imag**2
    return result


def outcome_bits(leaf: Leaf, size: int) -> NDArray[np.int64]:
    """Return the classical bits as one number for each basis state, int64[size]."""
    index = np.arange(size, dtype=np.int64)
    values = np.full(size, sum(bit << c for c, bit in enumerate(leaf.bits)), dtype=np.int64)
    for qubit, clbit in leaf.final:
        values &= ~(1 << clbit)
        values |= ((index >> qubit) & 1) << clbit
    return values
