"""States and unitaries: both engines against Qiskit, for every gate of the table."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from qcomp.errors import UsageError
from qcomp.ir.angle import Parameter
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import BY_NAME, GATES, Gate
from qcomp.simulate import engine, reference_statevector, statevector, unitary

UNITARY = [gate for gate in GATES if gate.kind == "unitary"]


def random_circuit(
    num_qubits: int, length: int, rng: np.random.Generator, gates: list[Gate] = UNITARY
) -> Circuit:
    circuit = Circuit(num_qubits)
    for _ in range(length):
        gate = gates[int(rng.integers(len(gates)))]
        count = gate.num_qubits if gate.num_qubits > 0 else 4
        if count > num_qubits:
            continue
        qubits = [int(q) for q in rng.permutation(num_qubits)[:count]]
        circuit.append(gate.name, qubits, [float(a) for a in rng.normal(size=gate.num_angles)])
    circuit.gphase(0.3)
    return circuit


def qiskit_state(circuit: Circuit) -> NDArray[np.complex128]:
    """Build the circuit again with Qiskit's own gates and let Qiskit simulate it.

    Gates that Qiskit has not enter by their matrices, which tests/native compares with vendors'.
    """
    from qiskit import QuantumCircuit
    from qiskit.circuit.library import CSXGate, UnitaryGate
    from qiskit.quantum_info import Statevector

    other = QuantumCircuit(circuit.num_qubits)
    angles = circuit.angles_for(np.zeros((1, circuit.num_params)))[0]
    for name, qubits, entry in circuit.run.operations():
        count = next(gate.num_angles for gate in GATES if gate.name == name)
        own = [float(a) for a in angles[entry : entry + count]] if count else []
        if name == "csxdg":
            other.append(CSXGate().inverse(), qubits)
        elif name == "mcx":
            other.mcx(list(qubits[:-1]), qubits[-1])
        elif name == "gphase":
            other.global_phase += own[0]
        elif hasattr(other, name) and name != "ms":
            getattr(other, name)(*own, *qubits)
        else:
            other.append(UnitaryGate(BY_NAME[name].matrix(*own)), qubits)
    other.global_phase += float(circuit.global_phase)
    return np.asarray(Statevector(other).data)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_random_circuits_have_the_state_that_qiskit_gives(
    seed: int, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "COMPILED_WORK", 0 if compiled else 1 << 60)
    circuit = random_circuit(5, 120, np.random.default_rng(seed))
    assert np.abs(statevector(circuit)[0] - qiskit_state(circuit)).max() < 1e-12


@pytest.mark.parametrize("gate", UNITARY, ids=lambda gate: gate.name)
def test_each_gate_acts_alike_in_both_engines_and_in_qiskit(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(gate.code)
    circuit = Circuit(5)
    for q in range(5):
        circuit.u(*rng.normal(size=3).tolist(), q)
    count = gate.num_qubits if gate.num_qubits > 0 else 4
    qubits = [int(q) for q in rng.permutation(5)[:count]]
    circuit.append(gate.name, qubits, rng.normal(size=gate.num_angles).tolist())
    expected = qiskit_state(circuit)
    for work in (0, 1 << 60):
        monkeypatch.setattr(engine, "COMPILED_WORK", work)
        assert np.abs(statevector(circuit)[0] - expected).max() < 1e-14 * 10


def test_a_batch_of_parameter_rows_equals_the_rows_one_by_one() -> None:
    rng = np.random.default_rng(5)
    circuit = parametrised(6, 3)
    params = rng.normal(size=(300, circuit.num_params))
    batch = statevector(circuit, params)
    for row in (0, 17, 299):
        alone = reference_statevector(circuit.bind(params[row]), np.zeros((1, 0)))
        assert np.abs(batch[row] - alone[0]).max() < 1e-13


def parametrised(num_qubits: int, layers: int) -> Circuit:
    """Gates of one, two and three operands whose angles are affine in shared parameters."""
    circuit = Circuit(num_qubits)
    x, y, z = Parameter("x"), Parameter("y"), Parameter("z")
    for layer in range(layers):
        for q in range(num_qubits):
            circuit.ry(x + 0.5 * q, q)
            circuit.u(y, 2 * z - x, 0.1 * layer, q)
        for q in range(num_qubits - 1):
            circuit.cx(q, q + 1)
            circuit.rzz(x + 2 * y, q, q + 1)
            circuit.append("cu", (q + 1, q), (z, y, x, 0.5 * z))
        circuit.append("ccx", (0, 1, 2))
        circuit.append("cswap", (0, 1, 2))
        circuit.gphase(0.25 * z)
    return circuit


def test_the_unitary_is_made_of_the_states_of_all_basis_states() -> None:
    from qiskit.quantum_info import random_unitary

    circuit = random_circuit(4, 60, np.random.default_rng(9))
    matrix = unitary(circuit)
    assert np.abs(matrix @ matrix.conj().T - np.eye(16)).max() < 1e-12
    assert np.abs(matrix[:, 0] - statevector(circuit)[0]).max() < 1e-12
    prepared = Circuit(4)
    prepared.x(0)
    prepared.x(2)
    both = prepared.compose(circuit)
    assert np.abs(matrix[:, 5] - statevector(both)[0]).max() < 1e-12
    assert np.abs(matrix - random_unitary(16, seed=1).data).max() > 0.1


def test_global_phase_of_a_parameter_is_in_the_state() -> None:
    circuit = Circuit(1, params=("a",))
    circuit.gphase(Parameter("a") * 3)
    assert np.allclose(statevector(circuit, [[0.2]])[0], [np.exp(0.6j), 0])


def test_too_many_qubits_are_refused_with_the_memory_they_need() -> None:
    circuit = Circuit(34)
    circuit.h(0)
    with pytest.raises(UsageError, match=r"34 qubits and 1 rows needs 512\.0 GiB"):
        statevector(circuit)


def test_parameters_of_the_wrong_shape_or_not_finite_are_refused() -> None:
    circuit = parametrised(3, 1)
    with pytest.raises(UsageError, match="takes 3 parameters a row"):
        statevector(circuit, np.zeros((2, 4)))
    with pytest.raises(UsageError, match="not finite"):
        statevector(circuit, np.array([[0.0, np.nan, 1.0]]))


def test_a_state_of_a_circuit_that_measures_inside_is_refused() -> None:
    circuit = Circuit(1, 1)
    circuit.h(0)
    circuit.measure(0, 0)
    circuit.h(0)
    with pytest.raises(UsageError, match="needs a unitary circuit"):
        statevector(circuit)
    with pytest.raises(UsageError, match="at most 12 qubits"):
        reference_statevector(Circuit(13), np.zeros((1, 0)))
