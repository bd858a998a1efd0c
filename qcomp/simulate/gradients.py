"""Gradients by adjoint differentiation (Jones, Gacon 2020, arXiv:2009.02823, algorithm 1).

``dE/dangle = 2 Re <lambda_j| dU_j |psi_j>``, where ``psi_j`` is the state before gate j and
``lambda_j`` the observable's image of the final state, taken back through the later gates. One
forward and one backward sweep give all angles; the circuit's affine forms take them to the
parameters by one matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit
from qcomp.ir.observable import Observable
from qcomp.ir.run import Run
from qcomp.simulate.control_flow import final_measurements
from qcomp.simulate.engine import (
    cached_tape,
    check_memory,
    coefficient_chunks,
    evolve,
    ground_states,
    lane_plan,
    parameter_rows,
    row_chunks,
)
from qcomp.simulate.exact import unitary_runs
from qcomp.simulate.kernels import adjoint_rows
from qcomp.simulate.paulis import PauliTable, pauli_table
from qcomp.simulate.slopes import angle_gradients

__all__ = ["expectation_gradients", "probability_gradients"]

States = NDArray[np.complex128]


def expectation_gradients(
    circuit: Circuit,
    params: ArrayLike | None,
    observables: Sequence[Observable | str],
    cotangent: ArrayLike,
) -> NDArray[np.float64]:
    """Return the gradient of ``sum_k cotangent[b, k] <O_k>_b`` in the parameters.

    Args:
        circuit: A circuit that is unitary up to measurements at its end.
        params: float64[B, P].
        observables: K observables or their texts.
        cotangent: float64[B, K].

    Returns:
        float64[B, P].

    Raises:
        UsageError: If the circuit is not unitary or a shape is wrong.
    """
    rows = parameter_rows(circuit, params)
    table = pauli_table(observables, circuit.num_qubits)
    table = table.dephased([qubit for qubit, _ in final_measurements(circuit)[1]])
    weight = _cotangent(cotangent, (len(rows), len(observables)))
    found = _side_by_side(circuit, rows, table, weight @ table.coefficients.T)
    if found is not None:
        return found
    return _adjoint(circuit, rows, lambda part, states: table.apply(states, weight[part]))


def probability_gradients(
    circuit: Circuit, params: ArrayLike | None, cotangent: ArrayLike
) -> NDArray[np.float64]:
    """Return the gradient of ``sum_i cotangent[b, i] p_b(i)``, p of :func:`probabilities`.

    Args:
        circuit: A circuit that is unitary up to measurements at its end.
        params: float64[B, P].
        cotangent: float64[B, 2^n].

    Returns:
        float64[B, P].

    Raises:
        UsageError: If the circuit is not unitary or a shape is wrong.
    """
    rows = parameter_rows(circuit, params)
    weight = _cotangent(cotangent, (len(rows), 1 << circuit.num_qubits))
    found = _side_by_side(circuit, rows, None, weight)
    if found is not None:
        return found
    return _adjoint(circuit, rows, lambda part, states: states * weight[part])


def _cotangent(value: ArrayLike, shape: tuple[int, int]) -> NDArray[np.float64]:
    weight = np.asarray(value, dtype=np.float64)
    if weight.shape != shape:
        raise UsageError(f"the cotangent must have shape {list(shape)}, not {list(weight.shape)}")
    return weight


def _side_by_side(
    circuit: Circuit,
    rows: NDArray[np.float64],
    table: PauliTable | None,
    weight: NDArray[np.float64],
) -> NDArray[np.float64] | None:
    """Return the gradient by the kernels of many rows; None where others are better."""
    run = Run.concat(unitary_runs(circuit, "adjoint differentiation"))
    plan = lane_plan(circuit, run, rows, gradient=True)
    if plan is None:
        return None
    gradient = angle_gradients(plan, rows, table, weight, len(run.form))
    return plan.angles.pull_back(gradient, len(circuit.params))


def _adjoint(
    circuit: Circuit, rows: NDArray[np.float64], observe: Callable[[slice, States], States]
) -> NDArray[np.float64]:
    """Sweep forward, apply the observable, sweep back."""
    check_memory(circuit.num_qubits, 1, copies=3)
    runs = unitary_runs(circuit, "adjoint differentiation")
    out = np.zeros((len(rows), len(circuit.params)))
    for part in row_chunks(circuit.num_qubits, len(rows)):
        psi = ground_states(circuit.num_qubits, part.stop - part.start)
        for run in runs:
            psi = evolve(circuit, run, rows[part], psi)
        lam = observe(part, psi)
        for run in reversed(runs):
            out[part] += _sweep_back(circuit, run, rows[part], psi, lam)
    return out


def _sweep_back(
    circuit: Circuit, run: Run, params: NDArray[np.float64], psi: States, lam: States
) -> NDArray[np.float64]:
    """Undo a run on both states, in place; return its share of the gradient, float64[B, P]."""
    tape = cached_tape(circuit, run)
    sweep = adjoint_rows.by_size(len(run) * psi.size)
    gradient = np.zeros((len(psi), len(run.frac)))
    for part in coefficient_chunks(tape, len(psi), arrays=4):
        sweep(
            psi[part],
            lam[part],
            tape.kind,
            tape.first,
            tape.second,
            tape.offset,
            tape.varies,
            tape.wide,
            tape.inverse_constants,
            tape.coefficients(params[part], inverse=True),
            tape.derivatives(params[part]),
            tape.entry,
            gradient[part],
        )
    return tape.angles.pull_back(gradient, len(circuit.params))
