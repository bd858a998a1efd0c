"""The gates of machines in the gate table mean what the vendors' own tools say."""

from __future__ import annotations

import numpy as np
import pytest

from qcomp.equivalence import check
from qcomp.ir.angle import Parameter
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import gate
from qcomp.simulate import unitary

TURNED = np.ix_([0, 2, 1, 3], [0, 2, 1, 3])
"""From operand 0 on the low bit to operand 0 on the high bit."""

BRAKET = {
    "gpi": ("GPi", (0.3,)),
    "gpi2": ("GPi2", (0.3,)),
    "ms": ("MS", (0.3, -0.5, 0.9)),
    "zz": ("ZZ", (0.9,)),
    "xy": ("XY", (0.9,)),
    "iswap": ("ISwap", ()),
    "ecr": ("ECR", ()),
    "prx": ("PRx", (0.3, 0.5)),
}
"""Name -> Braket's class, angles in radians."""

PYTKET = {
    "gpi": ("GPI", (0.3,)),
    "gpi2": ("GPI2", (0.3,)),
    "ms": ("AAMS", (0.3, -0.5, 0.9)),
    "zz": ("ZZPhase", (0.9,)),
    "ZZPhase": ("ZZPhase", (0.9,)),
    "ZZMax": ("ZZMax", ()),
    "xy": ("ISWAP", (0.9,)),
    "iswap": ("ISWAPMax", ()),
    "U1q": ("PhasedX", (0.3, 0.5)),
}
"""Name -> pytket's operation; pytket takes half turns, and the angle of AAMS first."""


def matrix(name: str, angles: tuple[float, ...]) -> np.ndarray:
    """Our matrix with operand 0 on the high bit, as both tools have it."""
    made = gate(name).matrix(*angles)
    return made[TURNED] if gate(name).num_qubits == 2 else made


@pytest.mark.parametrize("name", BRAKET)
def test_matrix_equals_brakets(name: str) -> None:
    gates = pytest.importorskip("braket.circuits.gates", reason="needs amazon-braket-sdk")
    kind, angles = BRAKET[name]
    theirs = getattr(gates, kind)(*angles).to_matrix()
    assert np.abs(matrix(name, angles) - theirs).max() < 1e-15


@pytest.mark.parametrize("name", PYTKET)
def test_matrix_equals_pytkets(name: str) -> None:
    pytket = pytest.importorskip("pytket", reason="needs pytket")
    kind, angles = PYTKET[name]
    given = (angles[2], *angles[:2]) if name == "ms" else angles
    circuit = pytket.Circuit(gate(name).num_qubits)
    op = getattr(pytket.OpType, kind)
    circuit.add_gate(op, [a / np.pi for a in given], list(range(gate(name).num_qubits)))
    assert np.abs(matrix(name, angles) - circuit.get_unitary()).max() < 1e-15


def test_roots_of_iswap_are_points_of_xy() -> None:
    assert np.abs(gate("xy").matrix(np.pi) - gate("iswap").matrix()).max() < 1e-15
    twice = gate("siswap").matrix() @ gate("siswap").matrix()
    assert np.abs(twice - gate("iswap").matrix()).max() < 1e-15


def every_vendor_gate() -> Circuit:
    circuit = Circuit(2, params=("a",))
    a = Parameter("a")
    circuit.gpi(0.3 - a, 0).gpi2(2 * a, 1).ms(0.1, a + 1, 0.5 * a, 0, 1).xy(0.7 + a, 1, 0)
    circuit.siswap(0, 1).append("siswapdg", (1, 0)).zzmax(1, 0)
    return circuit.append("zz", (0, 1), (a,)).append("U1q", (0,), (0.4, a))


def test_inverse_of_every_vendor_gate_undoes_it() -> None:
    circuit = every_vendor_gate()
    both = unitary(circuit.inverse().bind([0.37])) @ unitary(circuit.bind([0.37]))
    assert np.abs(both - np.eye(4)).max() < 1e-14


def test_vendor_gates_are_written_with_definitions_and_read_back() -> None:
    circuit = every_vendor_gate()
    verdict = check(circuit, Circuit.from_qasm(circuit.to_qasm3()))
    assert verdict.equal is True
    assert verdict.rung == "same"


def test_vendor_gates_go_to_qiskit_with_their_parameters() -> None:
    info = pytest.importorskip("qiskit.quantum_info")
    circuit = every_vendor_gate()
    theirs = info.Operator(circuit.to_qiskit().assign_parameters([0.37])).data
    assert np.abs(theirs - unitary(circuit.bind([0.37]))).max() < 1e-14
