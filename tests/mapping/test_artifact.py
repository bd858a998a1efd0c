"""Mapped circuits in artifacts: hybrid models keep their observables, the runtime remaps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import qcomp
from qcomp.equivalence.graphs import random_inputs
from qcomp.execute import HybridSession
from qcomp.ir.circuit import Circuit
from qcomp.ir.observable import Observable
from qcomp.ir.program import Program, Readout
from tests.generators import GRAPHS


def chain() -> Circuit:
    circuit = Circuit(4)
    circuit.h(0).cx(0, 3).ry(0.4, 3).cx(3, 1).cx(1, 2).rx(0.3, 2).cx(2, 0).ry(1.1, 1).cx(0, 1)
    return circuit


@pytest.mark.parametrize("kind", ["expval", "probs", "state"])
def test_an_artifact_for_a_device_gives_what_the_circuit_gives(kind: str, tmp_path: Path) -> None:
    observables = tuple(Observable.parse(t) for t in ("Z0", "X1*Y3", "0.5*Z2 - Z3"))
    readout = Readout(kind, observables if kind == "expval" else ())  # type: ignore[arg-type]
    program = Program.of_circuit(chain(), readout)
    plain = qcomp.compile(program.copy(), target="portable")
    mapped = qcomp.compile(
        program.copy(), target="ibm-heron", device="line-7", initial_layout=[6, 0, 3, 2],
        out=tmp_path / "out",
    )  # fmt: skip
    manifest = json.loads((tmp_path / "out" / "program.json").read_text())
    layout = manifest["stages"][0]["layout"]
    assert layout["initial"] == [6, 0, 3, 2]
    again = qcomp.load(tmp_path / "out")
    (circuit,) = again.circuits.values()
    assert circuit.layout is not None
    assert list(circuit.layout.final) == layout["final"]
    expected, got = np.asarray(plain()), np.asarray(again())
    if kind == "state":  # up to global phase
        assert abs(abs(np.vdot(expected, got)) - 1) < 1e-9
    else:
        assert np.abs(expected - got).max() < 1e-9
        assert np.abs(np.asarray(mapped()) - expected).max() < 1e-9


def test_a_hybrid_model_keeps_its_observables() -> None:
    program = GRAPHS["hybrid"](1)
    inputs = random_inputs(program, 0)
    expected = HybridSession(program).run(inputs)
    artifact = qcomp.compile(
        program, target="cpu-dynamic-int8+ibm-heron", device="grid-3x3", pipeline="canonicalise"
    )
    got = artifact(inputs)
    circuits = artifact.circuits.values()
    assert all(circuit.layout is not None for circuit in circuits)
    for name, values in expected.items():
        mine = got[name] if isinstance(got, dict) else got
        assert np.abs(mine - values).max() < 1e-5


def test_aer_reads_the_qubits_of_the_circuit_before_mapping() -> None:
    pytest.importorskip("qiskit_aer")
    readout = Readout("expval", (Observable.parse("Z0*Z2"), Observable.parse("X1")))
    artifact = qcomp.compile(
        Program.of_circuit(chain(), readout), target="ibm-heron", device="line-6"
    )
    exact = np.asarray(artifact())
    assert np.abs(np.asarray(artifact(device="aer", shots=0)) - exact).max() < 1e-9
    sampled = qcomp.compile(
        Program.of_circuit(chain(), Readout("probs")), target="ibm-heron", device="line-6"
    )
    exact = np.asarray(sampled())
    assert exact.shape[-1] == 16
    assert np.abs(np.asarray(sampled(device="aer", shots=3000)) - exact).max() < 0.05


def test_a_layout_of_another_machine_is_damage(tmp_path: Path) -> None:
    qcomp.compile(chain(), target="ibm-heron", device="line-5", out=tmp_path / "out")
    path = tmp_path / "out" / "program.json"
    manifest = json.loads(path.read_text())
    manifest["stages"][0]["layout"]["num_physical"] = 9
    path.write_text(json.dumps(manifest))
    with pytest.raises(qcomp.errors.SourceError):
        qcomp.load(tmp_path / "out")


def test_circuits_wider_than_the_machine_are_refused_by_compile() -> None:
    wide = Circuit(12).cx(0, 11)
    for target, device in (("ibm-heron", "line-5"), ("ionq-forte", "all-to-all-8")):
        with pytest.raises(qcomp.errors.QcompError, match="12"):
            qcomp.compile(wide, target=target, device=device)
