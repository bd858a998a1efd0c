"""Expectation values against Qiskit, gradients against finite differences."""

from __future__ import annotations

import numpy as np
import pytest

from qcomp.errors import UsageError
from qcomp.ir.angle import Parameter
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import GATES, Gate
from qcomp.simulate import (
    engine,
    expectation_gradients,
    expectations,
    probabilities,
    probability_gradients,
    statevector,
)

TEXTS = ["Z0", "0.5*Z0*Z1 + X2", "Y1*X0*Z2", "2.0", "X0 - 0.25*Y2 + 1.5*Z1*Y0"]
WITH_ANGLES = [gate for gate in GATES if gate.num_angles and gate.kind == "unitary"]


def ansatz(num_qubits: int = 3) -> Circuit:
    circuit = Circuit(num_qubits)
    a, b, c = Parameter("a"), Parameter("b"), Parameter("c")
    for q in range(num_qubits):
        circuit.ry(a + q * b, q)
        circuit.u(c, a, 0.3, q)
    for q in range(num_qubits - 1):
        circuit.cx(q, q + 1)
        circuit.append("crx", (q, q + 1), (b - 2 * c,))
        circuit.append("rxx", (q, q + 1), (0.4,))
    circuit.append("cu", (0, 1), (a, b, c, a + b + c))
    return circuit


def test_expectation_values_are_those_of_qiskit() -> None:
    from qiskit.quantum_info import SparsePauliOp, Statevector

    circuit = ansatz()
    params = np.random.default_rng(0).normal(size=(4, 3))
    values = expectations(circuit, params, TEXTS)
    operators = [
        [("IIZ", 1.0)],
        [("IZZ", 0.5), ("XII", 1.0)],
        [("ZYX", 1.0)],
        [("III", 2.0)],
        [("IIX", 1.0), ("YII", -0.25), ("IZY", 1.5)],
    ]
    for row, state in enumerate(statevector(circuit, params)):
        expected = [
            Statevector(state).expectation_value(SparsePauliOp.from_list(op)).real
            for op in operators
        ]
        assert np.abs(values[row] - expected).max() < 1e-13


@pytest.mark.parametrize("gate", WITH_ANGLES, ids=lambda gate: gate.name)
def test_the_gradient_of_each_gate_is_its_finite_difference(gate: Gate) -> None:
    rng = np.random.default_rng(gate.code)
    circuit = Circuit(3)
    for q in range(3):
        circuit.u(*rng.normal(size=3).tolist(), q)
    names = [f"t{k}" for k in range(gate.num_angles)]
    qubits = [int(q) for q in rng.permutation(3)[: gate.num_qubits]]
    circuit.append(gate.name, qubits, [1.5 * Parameter(n) + 0.2 for n in names])
    for q in range(3):
        circuit.u(*rng.normal(size=3).tolist(), q)
    params = rng.normal(size=(2, len(names)))
    weight = rng.normal(size=(2, len(TEXTS)))
    gradient = expectation_gradients(circuit, params, TEXTS, weight)
    assert np.abs(gradient - differences(circuit, params, weight)).max() < 1e-8


def differences(circuit: Circuit, params: np.ndarray, weight: np.ndarray) -> np.ndarray:
    step = 1e-5
    out = np.zeros_like(params)
    for j in range(params.shape[1]):
        for sign in (1, -1):
            moved = params.copy()
            moved[:, j] += sign * step
            values = (weight * expectations(circuit, moved, TEXTS)).sum(axis=1)
            out[:, j] += sign * values / (2 * step)
    return out


@pytest.mark.parametrize("rows", [3, 200])
def test_gradients_of_shared_affine_parameters_are_finite_differences(rows: int) -> None:
    circuit = ansatz()
    rng = np.random.default_rng(1)
    params = rng.normal(size=(rows, 3))
    weight = rng.normal(size=(rows, len(TEXTS)))
    gradient = expectation_gradients(circuit, params, TEXTS, weight)
    assert np.abs(gradient - differences(circuit, params, weight)).max() < 1e-8


def test_gradients_do_not_depend_on_which_kernel_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    circuit = ansatz(5)
    params = np.random.default_rng(2).normal(size=(40, 3))
    weight = np.ones((40, 2))
    found = []
    for work, chunk in ((0, 1 << 8), (1 << 60, 1 << 18)):
        monkeypatch.setattr(engine, "COMPILED_WORK", work)
        monkeypatch.setattr(engine, "_CHUNK_AMPLITUDES", chunk)
        found.append(expectation_gradients(circuit, params, ["Z0", "X1*Y2"], weight))
    assert np.abs(found[0] - found[1]).max() < 1e-13


def test_gradients_of_probabilities_are_finite_differences() -> None:
    circuit = ansatz()
    rng = np.random.default_rng(3)
    params, weight = rng.normal(size=(2, 3)), rng.normal(size=(2, 8))
    gradient = probability_gradients(circuit, params, weight)
    step = 1e-5
    for j in range(3):
        shift = step * np.eye(3)[j]
        up, down = probabilities(circuit, params + shift), probabilities(circuit, params - shift)
        expected = (weight * (up - down)).sum(axis=1) / (2 * step)
        assert np.abs(gradient[:, j] - expected).max() < 1e-8


def test_measurements_at_the_end_leave_only_what_they_leave() -> None:
    circuit = Circuit(2, 1)
    circuit.ry(Parameter("a"), 0)
    circuit.ry(Parameter("a"), 1)
    circuit.measure(0, 0)
    values = expectations(circuit, [[0.7]], ["Z0", "X0", "X1"])
    assert np.allclose(values, [[np.cos(0.7), 0.0, np.sin(0.7)]])
    gradient = expectation_gradients(circuit, [[0.7]], ["Z0", "X0", "X1"], [[1.0, 1.0, 1.0]])
    assert np.allclose(gradient, [[-np.sin(0.7) + np.cos(0.7)]])


def test_gradients_of_a_circuit_with_classical_control_are_refused() -> None:
    circuit = Circuit(1, 1)
    circuit.ry(Parameter("a"), 0)
    circuit.measure(0, 0)
    circuit.ry(Parameter("a"), 0)
    with pytest.raises(UsageError, match="adjoint differentiation needs a unitary circuit"):
        expectation_gradients(circuit, [[0.1]], ["Z0"], [[1.0]])


def test_observables_and_cotangents_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match="acts on qubit 7"):
        expectations(ansatz(), np.zeros((1, 3)), ["Z7"])
    with pytest.raises(UsageError, match="at least one observable"):
        expectations(ansatz(), np.zeros((1, 3)), [])
    with pytest.raises(UsageError, match="cotangent must have shape"):
        expectation_gradients(ansatz(), np.zeros((1, 3)), ["Z0"], [[1.0, 2.0]])
