"""The gate table agrees with itself and with Qiskit."""

import numpy as np
import pytest
from qiskit.circuit.library import get_standard_gate_name_mapping

from qcomp.ir.definitions import defined_gates, definition, multi_controlled_x
from qcomp.ir.gates import AXIS, BY_NAME, GATES, INVERSE_CODE, NUM_ANGLES, NUM_QUBITS, gate
from qcomp.ir.matrices import PAULI
from tests.ir.dense import embed

UNITARY = [row.name for row in GATES if row.kind == "unitary" and row.num_qubits > 0]
ANGLES = (0.37, -1.21, 2.05, 0.83)
VENDORS = {"gpi", "gpi2", "ms", "xy", "siswap", "siswapdg", "zzmax"}
"""Gates that Qiskit has not; tests/native compares them with Braket's and pytket's."""


def matrix_of_steps(steps, n, angles):
    total = np.eye(2**n, dtype=complex)
    values = dict(zip("tplg", angles, strict=False))
    for step in steps:
        bound = [float(angle.bind(values)) for angle in step.angles]
        matrix = step.gate.matrix(*bound, num_qubits=len(step.qubits))
        full = embed(matrix, step.qubits, n) if step.qubits else matrix[0, 0] * np.eye(2**n)
        total = full @ total
    return total


@pytest.mark.parametrize("name", UNITARY)
def test_matrix_equals_qiskits_gate_of_that_name(name: str) -> None:
    known = get_standard_gate_name_mapping()
    if name not in known:
        if name in VENDORS:
            return
        assert name in {"csxdg", "mcx"}, f"Qiskit has no gate '{name}': compare it another way"
        inverse = gate("csx").matrix().conj().T
        assert np.abs(gate(name).matrix() - inverse).max() < 1e-15
        return
    row = gate(name)
    theirs = known[name].__class__(*ANGLES[: row.num_angles])
    assert np.abs(theirs.to_matrix() - row.matrix(*ANGLES[: row.num_angles])).max() < 1e-15


@pytest.mark.parametrize("name", defined_gates())
def test_definition_multiplies_to_the_matrix_with_its_phase(name: str) -> None:
    row = gate(name)
    angles = ANGLES[: row.num_angles]
    made = matrix_of_steps(definition(name), row.num_qubits, angles)
    assert np.abs(made - row.matrix(*angles)).max() < 1e-14


@pytest.mark.parametrize("name", UNITARY)
def test_inverse_undoes_the_gate(name: str) -> None:
    row = gate(name)
    if not row.inverse:
        assert INVERSE_CODE[row.code] == -1
        return
    angles = ANGLES[: row.num_angles]
    backward = [sign * angles[source] for source, sign in row.inverse_angles]
    product = gate(row.inverse).matrix(*backward) @ row.matrix(*angles)
    assert np.abs(product - np.eye(len(product))).max() < 1e-14


@pytest.mark.parametrize("name", UNITARY)
def test_axes_are_the_paulis_that_commute_on_each_operand(name: str) -> None:
    row = gate(name)
    if name == "id":
        return
    matrix = row.matrix(*ANGLES[: row.num_angles])
    for operand in range(row.num_qubits):
        commuting = []
        for axis in "XYZ":
            pauli = embed(PAULI[axis], (operand,), row.num_qubits)
            if np.abs(pauli @ matrix - matrix @ pauli).max() < 1e-12:
                commuting.append(axis)
        stated = row.axes[operand].replace("-", "")
        assert "".join(commuting) == stated
        assert "-XYZ"[AXIS[row.code, operand]] == row.axes[operand]


@pytest.mark.parametrize("controls", range(1, 8))
def test_multi_controlled_x_needs_no_ancilla_and_is_exact(controls: int) -> None:
    steps = multi_controlled_x(controls)
    made = matrix_of_steps(steps, controls + 1, ())
    assert np.abs(made - gate("mcx").matrix(num_qubits=controls + 1)).max() < 1e-14


def test_multi_controlled_x_grows_quadratically() -> None:
    sizes = [len(multi_controlled_x(k)) for k in (32, 64)]
    assert sizes[1] < 4.5 * sizes[0]


def test_matrices_broadcast_over_arrays_of_angles() -> None:
    theta = np.linspace(0, 1, 6).reshape(2, 3)
    stacked = gate("cu").matrix(theta, 0.1, theta, 0.2)
    assert stacked.shape == (2, 3, 4, 4)
    assert np.array_equal(stacked[1, 2], gate("cu").matrix(1.0, 0.1, 1.0, 0.2))


def test_every_spelling_leads_to_one_gate_and_codes_are_positions() -> None:
    spellings = [s for row in GATES for s in (row.name, *row.aliases)]
    assert len(spellings) == len(set(spellings)) == len(BY_NAME)
    assert [row.code for row in GATES] == list(range(len(GATES)))
    assert NUM_QUBITS.tolist() == [row.num_qubits for row in GATES]
    assert NUM_ANGLES.tolist() == [row.num_angles for row in GATES]
