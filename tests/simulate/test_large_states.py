"""Large states stage by stage: blocks of few qubits against the NumPy reference."""

from __future__ import annotations

import numpy as np
import pytest

from qcomp.ir.angle import Parameter
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import GATES
from qcomp.simulate import blocked, engine, expectations, reference_statevector, statevector
from qcomp.simulate.plan import plan_of

UNITARY = [gate for gate in GATES if gate.kind == "unitary"]


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a state of 11 qubits be too large for a block."""
    monkeypatch.setattr(engine, "COMPILED_WORK", 0)
    monkeypatch.setattr(blocked, "LOCAL", 9)
    monkeypatch.setattr(blocked, "LOWEST", 3)


def mixed_circuit(num_qubits: int, seed: int) -> Circuit:
    """Every gate of the table on random qubits, angles of one parameter."""
    rng = np.random.default_rng(seed)
    circuit = Circuit(num_qubits)
    for q in range(num_qubits):
        circuit.ry(Parameter("a") + 0.1 * q, q)
    for number in rng.permutation(2 * len(UNITARY)):
        gate = UNITARY[int(number) % len(UNITARY)]
        count = gate.num_qubits if gate.num_qubits > 0 else 3
        qubits = [int(q) for q in rng.permutation(num_qubits)[:count]]
        angles = [float(c) * Parameter("a") + 0.2 for c in rng.normal(size=gate.num_angles)]
        circuit.append(gate.name, qubits, angles)
    return circuit


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("seed", range(3))
def test_every_gate_acts_on_a_state_in_blocks_as_in_the_reference(seed: int) -> None:
    circuit = mixed_circuit(11, seed)
    params = np.array([[0.7], [1.9]])
    found = statevector(circuit, params)
    assert np.abs(found - reference_statevector(circuit, params)).max() < 1e-12


@pytest.mark.usefixtures("small_blocks")
def test_a_state_that_is_given_is_evolved_in_blocks_too() -> None:
    circuit = mixed_circuit(11, 5)
    row = np.array([[0.4]])
    plan = plan_of(circuit, circuit.run)
    state = reference_statevector(mixed_circuit(11, 6), row)[0]
    expected = reference_statevector(mixed_circuit(11, 6).compose(circuit), row)[0]
    blocked.evolve_state(plan, row, state)
    assert np.abs(state - expected).max() < 1e-12


def test_a_state_of_sixteen_qubits_has_the_values_that_qiskit_gives() -> None:
    from qiskit.quantum_info import SparsePauliOp, Statevector

    circuit = mixed_circuit(16, 7)
    bound = circuit.bind([0.3])
    texts = ["Z0", "Z15*Z3", "X7*Y2"]
    words = [("Z", [0]), ("ZZ", [15, 3]), ("XY", [7, 2])]
    native = [g for g in ("gpi", "gpi2", "ms", "xy") if g in {gate.name for gate in UNITARY}]
    plain = Circuit(16)
    for name, qubits, entry in bound.run.operations():
        if name not in native:
            gate = next(g for g in UNITARY if g.name == name)
            angles = bound.angles_for(np.zeros((1, 0)))[0][entry : entry + gate.num_angles]
            plain.append(name, qubits, angles.tolist() if gate.num_angles else [])
    state = Statevector(plain.to_qiskit())
    found = expectations(plain, None, texts)[0]
    for value, (letters, qubits) in zip(found, words, strict=True):
        operator = SparsePauliOp.from_sparse_list([(letters, qubits, 1.0)], 16)
        assert abs(value - state.expectation_value(operator).real) < 1e-12
