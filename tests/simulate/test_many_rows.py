"""Many rows at once: fused plans and lanes against the NumPy reference, gate by gate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from qcomp.ir.angle import Parameter
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import GATES, Gate
from qcomp.simulate import (
    batched,
    engine,
    expectation_gradients,
    expectations,
    probability_gradients,
    reference_statevector,
    statevector,
    unitary,
)
from qcomp.simulate.batched import fits_lanes, kept_plan, moving_entries
from qcomp.simulate.lanes import forward_lanes
from qcomp.simulate.plan import MONO, ROTATE, plan_of

UNITARY = [gate for gate in GATES if gate.kind == "unitary"]
TEXTS = ["Z0", "0.5*Z0*Z1 + X2", "Y1*X0*Z2", "2.0"]


@pytest.fixture
def lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the compiled kernels run however little there is to do."""
    monkeypatch.setattr(engine, "COMPILED_WORK", 0)


def circuit_with(gate: Gate, angles: list[object], rng: np.random.Generator) -> Circuit:
    """The gate twice between gates with parameters of their own, on four qubits."""
    circuit = Circuit(4)
    for q in range(4):
        circuit.ry(Parameter("a") + 0.3 * q, q)
        circuit.rz(Parameter("b"), q)
    for _ in range(2):
        count = gate.num_qubits if gate.num_qubits > 0 else 4
        circuit.append(gate.name, [int(q) for q in rng.permutation(4)[:count]], angles)
        circuit.cx(0, 3)
        circuit.u(0.2, Parameter("b"), 0.7, 2)
        circuit.cz(1, 2)
        circuit.rx(0.9, 1)
        circuit.rx(Parameter("a"), 0)
    return circuit


@pytest.mark.usefixtures("lanes")
@pytest.mark.parametrize("gate", UNITARY, ids=lambda gate: gate.name)
def test_each_gate_acts_and_differentiates_side_by_side_as_in_the_reference(gate: Gate) -> None:
    rng = np.random.default_rng(gate.code)
    names = [f"t{k}" for k in range(gate.num_angles)]
    circuit = circuit_with(gate, [1.5 * Parameter(n) + 0.2 for n in names], rng)
    params = rng.normal(size=(11, circuit.num_params))
    shared = params.copy()
    shared[:, circuit.num_params - len(names) :] = 0.4  # the gate's own angles, and maybe b
    weight = rng.normal(size=(11, len(TEXTS)))
    for rows in (params, shared):
        assert np.abs(statevector(circuit, rows) - reference_statevector(circuit, rows)).max() < (
            1e-13
        )
        many = expectation_gradients(circuit, rows, TEXTS, weight)
        for b in (0, 7, 10):  # one row at a time goes through other kernels
            alone = expectation_gradients(circuit, rows[b : b + 1], TEXTS, weight[b : b + 1])
            assert np.abs(many[b] - alone[0]).max() < 1e-12
            values = expectations(circuit, rows[b : b + 1], TEXTS)
            assert np.abs(expectations(circuit, rows, TEXTS)[b] - values[0]).max() < 1e-13


def random_circuit(num_qubits: int, length: int, rng: np.random.Generator) -> Circuit:
    circuit = Circuit(num_qubits)
    for _ in range(length):
        gate = UNITARY[int(rng.integers(len(UNITARY)))]
        count = gate.num_qubits if gate.num_qubits > 0 else 3
        qubits = [int(q) for q in rng.permutation(num_qubits)[:count]]
        names = [Parameter(f"p{int(rng.integers(6))}") for _ in range(gate.num_angles)]
        circuit.append(gate.name, qubits, [n * float(rng.normal()) + 0.1 for n in names])
    return circuit


@pytest.mark.usefixtures("lanes")
@pytest.mark.parametrize("seed", range(6))
def test_random_circuits_have_the_reference_states_and_gradients(seed: int) -> None:
    rng = np.random.default_rng(seed)
    circuit = random_circuit(5, 80, rng)
    params = rng.normal(size=(21, circuit.num_params))
    params[:, ::2] = params[0, ::2]
    found = statevector(circuit, params)
    assert np.abs(found - reference_statevector(circuit, params)).max() < 1e-12
    weight = rng.normal(size=(21, 32))
    many = probability_gradients(circuit, params, weight)
    alone = probability_gradients(circuit, params[20:], weight[20:])
    assert np.abs(many[20] - alone[0]).max() < 1e-11


@pytest.mark.usefixtures("lanes")
def test_states_that_are_given_are_evolved_too() -> None:
    circuit = random_circuit(4, 60, np.random.default_rng(3))
    params = np.random.default_rng(4).normal(size=circuit.num_params)
    matrix = unitary(circuit, params)
    for column in (0, 5, 15):
        prepared = Circuit(4, params=circuit.params)
        for q in range(4):
            if column >> q & 1:
                prepared.x(q)
        state = reference_statevector(prepared.compose(circuit), params[None])
        assert np.abs(matrix[:, column] - state[0]).max() < 1e-12


def test_layers_of_a_strongly_entangling_circuit_are_one_move_and_one_rotation_a_qubit() -> None:
    circuit = Circuit(4)
    for q in range(4):
        circuit.rx(Parameter(f"x{q}"), q)
    for layer in range(3):
        for q in range(4):
            circuit.rz(0.3, q).ry(0.4 + q, q).rz(0.5, q)
        for q in range(4):
            circuit.cx(q, (q + layer + 1) % 4)
    moving = circuit.run.form >= 0
    plan = plan_of(circuit, circuit.run, moving)
    assert plan.prefix == 4
    assert np.bincount(plan.kind)[[ROTATE, MONO]].tolist() == [8, 3]


def test_an_equal_circuit_has_its_plan_already() -> None:
    params = np.zeros((5, 2))
    params[:, 0] = np.arange(5)
    plans = []
    for _ in range(2):
        circuit = Circuit(2, params=("a", "b"))
        circuit.rx(Parameter("a"), 0).ry(Parameter("b"), 1).cx(0, 1)
        moving = moving_entries(circuit, circuit.run, params)
        assert moving.tolist() == [True, False]
        plans.append(kept_plan(circuit, circuit.run, moving))
    assert plans[0] is plans[1]


def test_large_states_and_few_rows_are_not_put_side_by_side() -> None:
    assert fits_lanes(8, 1000)
    assert not fits_lanes(8, 2)
    assert not fits_lanes(20, 1000)


@pytest.mark.usefixtures("lanes")
def test_what_all_rows_begin_with_is_evolved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    circuit = Circuit(4)
    for layer in range(3):
        for q in range(4):
            circuit.u(0.3 + layer, Parameter(f"w{q}"), 0.1 * q, q)
        for q in range(4):
            circuit.cx(q, (q + 1) % 4)
    for q in range(4):
        circuit.rx(Parameter(f"x{q}"), q)
        circuit.cz(q, (q + 1) % 4)
    rng = np.random.default_rng(3)
    rows = np.repeat(rng.normal(size=(1, circuit.num_params)), 19, axis=0)
    rows[:, [name.startswith("x") for name in circuit.params]] = rng.normal(size=(19, 4))
    calls: list[tuple[int, int]] = []

    def counting(*arguments: Any) -> None:
        kinds, varying = arguments[2], arguments[12]
        calls.append((len(kinds), len(varying)))
        forward_lanes(*arguments)

    monkeypatch.setattr(batched, "forward_lanes", counting)
    states = statevector(circuit, rows)
    (once, one), (rest, many) = calls
    assert (one, many) == (1, 19)
    assert once > rest
    assert np.abs(states - reference_statevector(circuit, rows)).max() < 1e-12
    values = expectations(circuit, rows, TEXTS)
    assert [count for _, count in calls[2:]] == [1, 19]
    monkeypatch.setattr(batched, "_shared_operations", lambda plan: 0)
    assert np.array_equal(statevector(circuit, rows), states)
    assert np.array_equal(expectations(circuit, rows, TEXTS), values)
