"""Circuits compiled for every target: its gates, its couplings and directions, the same meaning."""

import json
from math import pi

import numpy as np
import pytest

import qcomp
from qcomp.device import Device
from qcomp.errors import TargetError
from qcomp.ir.angle import PI
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import BY_NAME, GATES, IS_UNITARY, NUM_QUBITS
from qcomp.runtime.artifact import Artifact
from qcomp.target import Target, get_target, target_names

QUANTUM = [name for name in target_names() if get_target(name).kind == "circuit"]


def star(turns: bool = True) -> Circuit:
    """A circuit whose first qubit meets four others, in both directions."""
    circuit = Circuit(5, 5).h(0).t(0)
    for q in range(1, 5):
        circuit = circuit.cx(0, q) if q % 2 else circuit.cx(q, 0)
        circuit = circuit.rx(0.3 * q, q).rzz(0.2 * q, 0, q) if turns else circuit.h(q).t(q)
    for q in range(5):
        circuit = circuit.measure(q, q)
    return circuit


def compiled_circuit(artifact: Artifact) -> Circuit:
    (circuit,) = artifact.circuits.values()
    return circuit


def holds(artifact: Artifact, target: Target) -> Circuit:
    """Fail unless an artifact's circuit keeps to its target; return the circuit."""
    circuit = compiled_circuit(artifact)
    assert all(check["result"] in ("measured", "proved") for check in artifact.report["checks"])
    device = target.device
    for run in circuit.runs():
        used = {GATES[code].name for code in run.code}
        assert used <= {*target.basis, "measure", "barrier", "gphase"}
        two = IS_UNITARY[run.code] & (NUM_QUBITS[run.code] == 2)
        if device is not None and circuit.layout is not None:
            assert np.all(device.allows(*run.qubit[two, :2].T))
        for limit in target.native.limits:
            at = run.angle[run.code == BY_NAME[limit.gate].code] + limit.angle
            values = run.frac[at] * (pi / PI) + run.rem[at]
            assert np.all(values >= limit.least * pi - 1e-9)
            assert np.all(values <= limit.most * pi + 1e-9)
    return circuit


@pytest.mark.parametrize("name", QUANTUM)
def test_a_circuit_keeps_to_its_target_and_its_meaning(name):
    target = get_target(name)
    artifact = qcomp.compile(star(turns=name != "clifford+t"), target=name, effort="fast")
    circuit = holds(artifact, target)
    device = target.device
    if device is not None and not device.is_all_to_all:
        assert circuit.layout is not None
        assert set(circuit.layout.initial) <= set(device.present.tolist())
        assert circuit.num_qubits == device.num_qubits


@pytest.mark.parametrize("name", ["ibm-heron", "rigetti-ankaa", "clifford+t", "portable", "braket"])
def test_a_lattice_narrows_any_target(name):
    target = get_target(name).on(Device.line(6))
    artifact = qcomp.compile(star(turns=name != "clifford+t"), target=name, device="line-6")
    circuit = holds(artifact, target)
    assert circuit.layout is not None
    assert circuit.num_qubits == 6
    assert artifact.manifest["machine"]["device"] == "line-6"


def test_the_initial_layout_is_honoured():
    artifact = qcomp.compile(
        Circuit(3).h(0).cx(0, 1).cx(0, 2),
        target="ibm-heron",
        device="grid-3x3",
        initial_layout=(8, 4, 0),
    )
    circuit = holds(artifact, get_target("ibm-heron").on(Device.grid(3, 3)))
    assert circuit.layout is not None
    assert circuit.layout.initial == (8, 4, 0)


def test_qubits_of_a_machine_without_couplings_can_be_chosen():
    artifact = qcomp.compile(
        Circuit(2).h(0).cx(0, 1), target="ionq-forte", initial_layout=(30, 7), effort="fast"
    )
    circuit = holds(artifact, get_target("ionq-forte"))
    assert circuit.layout is not None
    assert circuit.layout.initial == (30, 7)


def test_a_backend_is_compiled_for_while_it_is_there():
    provider = pytest.importorskip("qiskit_ibm_runtime.fake_provider")
    for backend in (provider.FakeManilaV2(), provider.FakeFractionalBackend()):
        artifact = qcomp.compile(star(), target=backend, effort="fast")
        gates = set(artifact.manifest["machine"]["gates"])
        assert gates <= set(backend.operation_names)
        circuit = compiled_circuit(artifact)
        for run in circuit.runs():
            assert {GATES[code].name for code in run.code} <= {*gates, "measure", "gphase"}
            two = IS_UNITARY[run.code] & (NUM_QUBITS[run.code] == 2)
            for pair in map(tuple, run.qubit[two, :2].tolist()):
                assert pair in backend.coupling_map.get_edges()


def test_fractional_gates_write_an_interaction_in_one():
    circuit = Circuit(2).rzz(0.4, 0, 1)
    artifact = qcomp.compile(circuit, target="ibm-heron", device="line-2", fractional=True)
    target = get_target("ibm-heron").with_fractional().on(Device.line(2))
    run = holds(artifact, target).run
    assert [name for name, _, _ in run.operations() if name != "gphase"] == ["rzz"]


def test_a_description_in_json_is_mapped_to(tmp_path):
    path = tmp_path / "ring.json"
    data = {"basis": ["ecr", "rz", "sx", "x"],
            "device": {"num_qubits": 6, "directed": True,
                       "pairs": [[i, (i + 1) % 6] for i in range(6)]}}  # fmt: skip
    path.write_text(json.dumps(data))
    holds(qcomp.compile(star(), target=str(path)), get_target(str(path)))


def test_parts_that_are_too_small_are_refused():
    device = Device.from_pairs([[0, 1], [1, 2], [3, 4], [4, 5]])
    with pytest.raises(TargetError, match="not connected"):
        qcomp.compile(star(), target="ibm-heron", device=device)
