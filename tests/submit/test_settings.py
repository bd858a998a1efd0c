"""Bits from a machine become what the simulator gives: bases, groups, layouts, every readout."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

import qcomp
from qcomp import Circuit, Observable, TargetError, UsageError
from qcomp.ir.gates import BY_NAME
from qcomp.ir.layout import Layout
from qcomp.ir.program import Program, Readout
from qcomp.runtime.artifact import Artifact
from qcomp.simulate import run_readout, unitary
from qcomp.submit import plan
from qcomp.submit.settings import Call, pending_calls, turned
from tests.submit.conftest import submitted

PAULIS = {
    "X": np.array([[0, 1], [1, 0]]),
    "Y": np.array([[0, -1j], [1j, 0]]),
    "Z": np.diag([1, -1]),
}
FAMILIES = {
    "all": None,
    "portable": "h x y z s t rx ry rz cy cz",
    "heron": "cz rz sx x",
    "eagle": "ecr rz sx x",
    "iqm": "r cz",
    "ionq": "gpi gpi2 ms",
    "rigetti": "rx rz iswap",
    "quantinuum": "r rz zzmax rzz",
    "clifford+t": "h s sdg t tdg x cx",
    "nam": "h x rz cx",
}


@pytest.mark.parametrize("letter", "XY")
@pytest.mark.parametrize("family", FAMILIES)
def test_every_basis_is_turned_to_z_in_the_target_s_gates(family: str, letter: str) -> None:
    names = FAMILIES[family]
    gates = None if names is None else frozenset(BY_NAME[n].name for n in names.split())
    circuit = Circuit(1)
    for name, angles in turned(letter, gates):
        assert gates is None or name in gates
        circuit.append(name, [0], angles)
    u = unitary(circuit)
    np.testing.assert_allclose(u @ PAULIS[letter] @ u.conj().T, PAULIS["Z"], atol=1e-12)


def test_a_target_that_cannot_turn_a_qubit_is_refused() -> None:
    with pytest.raises(TargetError, match="cannot measure in the X basis"):
        turned("X", frozenset({"cz", "rz", "t"}))


def state(qubits: int = 3, seed: int = 0) -> Circuit:
    """A circuit whose Pauli values are all different and far from zero."""
    rng = np.random.default_rng(seed)
    circuit = Circuit(qubits, params=("a",), name="state")
    for q in range(qubits):
        circuit.ry(float(rng.uniform(0.5, 1)), q)
        circuit.rz(float(rng.uniform(0.5, 1)), q)
    for q in range(qubits - 1):
        circuit.append("rzz", [q, q + 1], [0.4])
    circuit.rx(qcomp.Parameter("a"), 0)
    return circuit


def only_call(artifact: Artifact, feeds: dict[str, object], shots: int | None = None) -> Call:
    (call,) = pending_calls(artifact, [feeds], {}, shots, None)[0]
    return call


def saved(circuit: Circuit, readout: Readout, out: Path) -> Artifact:
    return qcomp.compile(
        Program.of_circuit(circuit, readout), target="portable", out=out, effort="fast"
    )


def test_expectations_from_groups_are_those_of_the_simulator(tmp_path: Path) -> None:
    texts = ("Z0", "X0*Y1 + 0.5*Z2", "Y0", "Z0*Z1 - 2.0", "X0*X1*X2 + 3*Y0*Y1", "1.25")
    readout = Readout("expval", tuple(Observable.parse(text) for text in texts))
    artifact = saved(state(), readout, tmp_path / "out")
    rows = np.array([[0.1], [1.3]])
    call = only_call(artifact, {"params": rows}, shots=20_000)
    assert len(call.settings) == 4 < sum(len(o.terms) for o in readout.observables)
    bits = [
        np.asarray(run_readout(s.circuit, Readout("samples", shots=s.shots), s.rows, seed=7))
        for s in call.settings
    ]
    exact = run_readout(state(), readout, rows)
    np.testing.assert_allclose(call.decode(bits), exact, atol=0.1)
    assert np.all(call.decode(bits)[:, 5] == 1.25)


def test_an_observable_that_is_a_number_needs_no_circuit(home: Path, tmp_path: Path) -> None:
    readout = Readout("expval", (Observable.parse("0.75"),))
    artifact = saved(state(), readout, tmp_path / "out")
    call = only_call(artifact, {"params": np.zeros((3, 1))})
    assert call.settings == ()
    np.testing.assert_array_equal(call.decode([]), np.full((3, 1), 0.75))


def test_qubits_of_a_mapped_circuit_are_read_where_they_end(tmp_path: Path) -> None:
    virtual = state()
    physical = Circuit(7, params=("a",), name="state")
    physical = physical.compose(virtual, [4, 2, 5])
    physical.append("swap", [2, 6])
    physical.layout = Layout((4, 2, 5), (4, 6, 5), 7)
    rows = np.array([[0.7]])
    kinds = (
        Readout("expval", (Observable.parse("Z1"), Observable.parse("Y0*X1"))),
        Readout("probs"),
        Readout("probs", order=(1, 2)),
    )
    for readout in kinds:
        calls: list[Call] = []

        class Walk:
            manifest: ClassVar[dict[str, object]] = {}

            def walk(self, feeds, answer, readout=readout):  # type: ignore[no-untyped-def]
                answer(0, physical, readout, rows)
                return {}

        calls, _ = pending_calls(Walk(), [{}], {}, 40_000, None)  # type: ignore[arg-type]
        (call,) = calls
        assert all(s.circuit.num_clbits <= 3 for s in call.settings)
        bits = [
            np.asarray(run_readout(s.circuit, Readout("samples", shots=s.shots), rows, seed=3))
            for s in call.settings
        ]
        exact = run_readout(virtual, readout, rows)
        np.testing.assert_allclose(call.decode(bits), exact, atol=0.03)


@pytest.mark.parametrize(
    ("kind", "shots", "shape"),
    [("probs", 0, (2, 4)), ("bits", 0, (2, 2)), ("samples", 50, (2, 50, 2))],
)
def test_bits_keep_the_order_that_the_readout_wants(
    kind: str, shots: int, shape: tuple[int, ...], tmp_path: Path
) -> None:
    circuit = Circuit(3, params=("a",), name="basis")
    circuit.x(2)
    circuit.rz(qcomp.Parameter("a"), 0)
    readout = Readout(kind, shots=shots, order=(2, 0))  # type: ignore[arg-type]
    call = only_call(saved(circuit, readout, tmp_path / "out"), {"params": np.zeros((2, 1))})
    (setting,) = call.settings
    assert setting.shots == {"probs": 1024, "bits": 1, "samples": 50}[kind]
    bits = np.asarray(
        run_readout(setting.circuit, Readout("samples", shots=setting.shots), setting.rows)
    )
    value = call.decode([bits])
    assert value.shape == shape
    exact = run_readout(circuit, readout, np.zeros((2, 1)))
    np.testing.assert_array_equal(value, exact)


def test_amplitudes_are_refused(tmp_path: Path) -> None:
    artifact = saved(state(), Readout("state"), tmp_path / "out")
    with pytest.raises(TargetError, match="amplitudes"):
        plan(artifact, {"params": np.zeros((1, 1))})


def test_a_distribution_of_many_bits_is_kept_as_counts(home: Path, tmp_path: Path) -> None:
    circuit = Circuit(26, 26, name="wide")
    for q in range(26):
        circuit.measure(q, q)
    call = only_call(saved(circuit, Readout("probs"), tmp_path / "out"), {}, shots=2)
    with pytest.raises(TargetError, match="26 bits"):
        call.decode([np.zeros((1, 2, 26), dtype=np.uint8)])


def test_a_classical_artifact_and_zero_shots_are_refused(home: Path, tmp_path: Path) -> None:
    from tests import models

    artifact = qcomp.compile(models.mlp(), target="cpu-int4", out=tmp_path / "out")
    with pytest.raises(UsageError, match="no circuit to submit"):
        plan(artifact, {"x": np.zeros((2, 8), np.float32)})
    with pytest.raises(UsageError, match="at least 1 shot"):
        plan(artifact, {}, shots=0)
    with pytest.raises(UsageError, match="was not given"):
        plan(artifact, {})


def test_two_circuits_in_a_row_make_two_legs(artifacts: Path, home: Path) -> None:
    rows = np.random.default_rng(5).normal(size=(6, 4)).astype(np.float32)
    job = submitted(artifacts / "hybrid", "local", "sim", rows=rows, shots=200_000)
    outputs = job.fetch()
    assert outputs is not None
    assert [len(leg.tasks) for leg in job.record.legs] == [1, 1]
    np.testing.assert_allclose(outputs["y"], qcomp.load(artifacts / "hybrid")(rows), atol=0.02)
