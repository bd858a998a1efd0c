"""Expectation values of a circuit that begins in states of the caller's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit
from qcomp.ir.observable import Observable
from qcomp.simulate.control_flow import final_measurements
from qcomp.simulate.engine import check_memory, evolve, ground_states, parameter_rows, row_chunks
from qcomp.simulate.exact import unitary_runs
from qcomp.simulate.paulis import pauli_table

__all__ = ["expectations_from", "rows_of"]

States = NDArray[np.complex128]


def rows_of(
    circuit: Circuit, states: ArrayLike | None, params: ArrayLike | None
) -> tuple[States, NDArray[np.float64]]:
    """Return initial states and parameters, a row each: complex128[B, 2^n] and float64[B, P].

    Args:
        circuit: The circuit.
        states: [B, 2^n] or [2^n], each of norm 1; |0...0> where None.
        params: [B, P] or one row; none where None.

    Raises:
        UsageError: If a shape or a norm is wrong.
    """
    rows = parameter_rows(circuit, params)
    if states is None:
        return ground_states(circuit.num_qubits, len(rows)), rows
    size = 1 << circuit.num_qubits
    begin = np.atleast_2d(np.array(states, dtype=np.complex128))
    if begin.ndim != 2 or begin.shape[1] != size:
        raise UsageError(
            f"states of shape {list(begin.shape)} do not fit the circuit '{circuit.name}' with "
            f"{circuit.num_qubits} qubits",
            hint=f"give an array of shape [rows, {size}], qubit 0 the least significant bit",
        )
    if not np.all(np.abs(np.linalg.norm(begin, axis=1) - 1) < 1e-6):
        raise UsageError("states must have norm 1", hint="divide each row by its norm")
    if len(rows) not in (1, len(begin)):
        raise UsageError(f"{len(begin)} states do not go with {len(rows)} rows of parameters")
    return np.ascontiguousarray(begin), np.repeat(rows, len(begin) // len(rows), axis=0)


def expectations_from(
    circuit: Circuit,
    states: ArrayLike | None,
    params: ArrayLike | None,
    observables: Sequence[Observable | str],
) -> NDArray[np.float64]:
    """Return the observables of every row, float64[B, K].

    Args:
        circuit: A circuit that is unitary up to measurements at its end.
        states: As for :func:`rows_of`.
        params: The same.
        observables: K observables or their texts.

    Raises:
        UsageError: If the circuit is not unitary, or the data does not fit it.
    """
    begin, rows = rows_of(circuit, states, params)
    check_memory(circuit.num_qubits, len(begin))
    runs = unitary_runs(circuit, "expectation values from states")
    table = pauli_table(observables, circuit.num_qubits)
    table = table.dephased([qubit for qubit, _ in final_measurements(circuit)[1]])
    out = np.zeros((len(begin), len(observables)))
    for part in row_chunks(circuit.num_qubits, len(begin)):
        psi = np.ascontiguousarray(begin[part])
        for run in runs:
            psi = evolve(circuit, run, rows[part], psi)
        out[part] = table.word_values(psi) @ table.coefficients
    return out
