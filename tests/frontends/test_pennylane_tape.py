"""PennyLane tapes and circuits: there and back, and the transform inside a QNode."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

qml = pytest.importorskip("pennylane")

import qcomp  # noqa: E402  behind the skip
from qcomp.errors import SourceError, TargetError, UsageError  # noqa: E402
from qcomp.ir.angle import Parameter  # noqa: E402
from qcomp.ir.circuit import Circuit  # noqa: E402
from qcomp.ir.classical import Bit  # noqa: E402
from qcomp.ir.gates import GATES  # noqa: E402
from qcomp.ir.program import readout_of  # noqa: E402
from qcomp.pennylane_transform import optimize_tape  # noqa: E402
from qcomp.simulate import bit_distribution, unitary  # noqa: E402


def matrix_of(tape: Any, wires: int) -> np.ndarray:
    """Return a tape's matrix with qubit 0 the least significant bit."""
    return np.asarray(qml.matrix(tape, wire_order=list(reversed(range(wires)))))


def every_gate() -> Circuit:
    circuit = Circuit(4)
    random = np.random.default_rng(0)
    for gate in GATES:
        if gate.is_unitary and gate.name != "gphase":
            wires = random.permutation(4)[: gate.num_qubits if gate.num_qubits > 0 else 4]
            circuit.append(gate.name, wires.tolist(), random.normal(size=gate.num_angles).tolist())
    circuit.gphase(0.7)
    return circuit


def test_every_gate_goes_to_pennylane_and_back_with_its_matrix_and_phase() -> None:
    circuit = every_gate()
    tape = circuit.to_pennylane()
    assert np.abs(matrix_of(tape, 4) - unitary(circuit)).max() < 1e-12
    back = Circuit.from_pennylane(tape.copy(operations=[qml.Barrier(range(4)), *tape.operations]))
    assert np.abs(unitary(back) - unitary(circuit)).max() < 1e-12


def test_parameters_take_tensors_and_gradients_go_through_them() -> None:
    torch = pytest.importorskip("torch")
    circuit = Circuit(2, params=["a", "b"])
    circuit.rx(2 * Parameter("a") - Parameter("b") + 0.5, 0).cx(0, 1).ry(Parameter("b"), 1)

    @qml.qnode(qml.device("default.qubit"), interface="torch")
    def node(a: Any, b: Any) -> Any:
        for operation in circuit.to_pennylane([a, b], wires=["left", "right"]):
            qml.apply(operation)
        return qml.expval(qml.Z("right"))

    a = torch.tensor([0.3, 0.4], requires_grad=True)
    node(a, torch.tensor(0.2)).sum().backward()
    want = -2 * torch.sin(2 * a - 0.2 + 0.5) * math.cos(0.2)
    assert torch.allclose(a.grad, want.detach().float(), atol=1e-6)
    with pytest.raises(UsageError, match="without a value: b"):
        circuit.to_pennylane({"a": 1.0})
    with pytest.raises(UsageError, match="1 wires are too few"):
        circuit.to_pennylane([1.0, 2.0], wires=["a"])


def test_measurements_and_conditions_go_there_and_back() -> None:
    circuit = Circuit(3, 2)
    circuit.ry(0.8, 0).h(1).measure(0, 0).measure(1, 1)
    with circuit.if_(Bit(0)):
        circuit.rx(1.1, 2)
    with circuit.else_():
        circuit.rx(0.2, 2)
    circuit.reset(0)
    tape = circuit.to_pennylane()
    tape = qml.tape.QuantumScript(tape.operations, [qml.probs(wires=[2])])
    (tape,), _ = qml.defer_measurements(tape)
    want = circuit.copy()
    final = Circuit(3, 3)
    for item in want.body:
        final.append_item(item)
    final.measure(2, 2)
    both = bit_distribution(final)[0].reshape(2, 4).sum(1)
    theirs = qml.device("default.qubit").execute(tape)
    assert np.abs(np.asarray(theirs) - both).max() < 1e-12
    loop = Circuit(1, 1)
    with loop.while_(Bit(0)):
        loop.x(0)
    with pytest.raises(TargetError, match="no counterpart of 'while'"):
        loop.to_pennylane()


@qml.qnode(qml.device("default.qubit", wires=["a", "b", "c"]))
def node(x: Any, shift: float = 0.0) -> Any:
    qml.AngleEmbedding(x, wires=["c", "a"])
    qml.CNOT(wires=["c", "b"])
    qml.Hadamard("a")
    qml.Hadamard("a")
    qml.RZ(shift, wires="b")
    qml.RZ(0.25, wires="b")
    qml.RX(0.5, wires="b")
    return qml.expval(qml.Z("b")), qml.expval(qml.X("a") @ qml.Y("c"))


def test_a_qnode_or_tape_compiles_as_a_circuit_with_what_it_returns() -> None:
    program = qcomp.read(node, args=([0.4, 0.9],), kwargs={"shift": 0.3})
    assert program.only_circuit.num_qubits == 3
    readout = readout_of(program.circuit_nodes()[0])
    assert [str(o) for o in readout.observables] == ["Z1", "X0*Y2"]
    artifact = qcomp.compile(node, target="ibm-heron", args=([0.4, 0.9],))
    assert np.abs(np.ravel(artifact()) - np.ravel(node([0.4, 0.9]))).max() < 1e-9
    tape = qml.tape.QuantumScript([qml.RX(0.4, "u"), qml.CNOT(["u", "v"])], [qml.probs(["u"])])
    assert readout_of(qcomp.read(tape).circuit_nodes()[0]).kind == "probs"
    with pytest.raises(SourceError, match=r"has \(2,\) values"):
        Circuit.from_pennylane(node, ([[0.4, 0.9], [0.1, 0.2]],))
    with pytest.raises(SourceError, match="is no PennyLane tape"):
        Circuit.from_pennylane(3)


def test_the_transform_reduces_a_qnode_in_pennylane_and_keeps_values_and_gradients() -> None:
    reduced = optimize_tape(node)
    x = qml.numpy.array([0.4, 0.9], requires_grad=True)
    after = qml.workflow.construct_tape(reduced, level="user")(x)
    names = [operation.name for operation in after.operations if operation.wires]
    assert names == ["RX", "RX", "CNOT", "U3"]
    assert np.abs(np.array(node(x)) - np.array(reduced(x))).max() < 1e-12

    def first(function: Any) -> Any:
        return qml.grad(lambda x: function(x)[0])(x)

    assert np.abs(first(node) - first(reduced)).max() < 1e-12


def test_the_transform_leaves_what_it_cannot_read_and_reduces_the_rest() -> None:
    @qml.qnode(qml.device("default.qubit"))
    def mixed(x: Any) -> Any:
        qml.X(0)
        qml.X(0)
        qml.AmplitudeEmbedding(x, wires=[0, 1], normalize=True)
        angle = x[0]
        qml.RZ(angle, wires=0)
        qml.X(0)
        qml.RZ(angle, wires=0)
        qml.X(0)
        bit = qml.measure(0)
        qml.cond(bit, qml.RX)(x[1], wires=1)
        qml.CNOT(wires=[1, 2])
        qml.CNOT(wires=[1, 2])
        return qml.expval(qml.Z(1)), qml.expval(bit)

    torch = pytest.importorskip("torch")
    x = torch.tensor([0.3, 0.5, 0.1, 0.9], requires_grad=True, dtype=torch.float64)
    tape = qml.workflow.construct_tape(optimize_tape(mixed), level="user")(x)
    names = [type(operation).__name__ for operation in tape.operations if operation.wires]
    assert names == ["AmplitudeEmbedding", "MidMeasure", "Conditional"]
    for ours, theirs in zip(optimize_tape(mixed)(x), mixed(x), strict=True):
        assert abs(float(ours.detach()) - float(theirs.detach())) < 1e-12
