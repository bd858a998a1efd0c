"""Artifacts under a machine's noise: it is the machine's, and what is asked for is made up for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import qcomp
from qcomp.cli.main import app
from qcomp.device import get_device
from qcomp.errors import UsageError
from qcomp.ir.angle import Parameter
from qcomp.ir.circuit import Circuit
from qcomp.ir.classical import Bit
from qcomp.ir.layout import Layout
from qcomp.ir.observable import Observable
from qcomp.ir.program import Readout
from qcomp.mitigation import Mitigation
from qcomp.runtime.aer import run_aer
from qcomp.runtime.noise import machine
from qcomp.simulate import expectations, probabilities

pytest.importorskip("qiskit_aer")

NOISE = "fake_torino"
CHAIN = (3, 4, 5)
TEXTS = ("Z0*Z1*Z2", "X0", "Z2 + 0.5*Y0*Y1")


def chain() -> Circuit:
    """A circuit with a parameter on three qubits in a row of the machine, in its gates."""
    circuit = Circuit(133, params=("a",))
    a, b, c = CHAIN
    for q in CHAIN:
        circuit.sx(q).rz(Parameter("a") + 0.4 * q, q).sx(q)
    for _ in range(3):
        circuit.cz(a, b).sx(b).rz(0.7, b).cz(b, c).sx(c).sx(a)
    circuit.layout = Layout(CHAIN, CHAIN, 133)
    return circuit


def virtual() -> Circuit:
    from qcomp.ir.layout import unmapped

    return unmapped(chain())


def expval(*texts: str) -> Readout:
    return Readout("expval", tuple(Observable.parse(t) for t in texts), 0, ())


ROWS = np.array([[0.3], [1.1]])


def test_the_noise_is_qiskit_aers_own_model_of_the_backend() -> None:
    from qiskit.quantum_info import Operator, SuperOp
    from qiskit_aer.noise import NoiseModel
    from qiskit_ibm_runtime.fake_provider import FakeManilaV2

    theirs = NoiseModel.from_backend(FakeManilaV2())
    wires = (3, 2, 1)
    circuit = Circuit(3)
    circuit.sx(0).cx(0, 1).cx(1, 2)
    made = machine(get_device("fake_manila"), circuit, wires).model
    ours = made._local_quantum_errors
    for name, places in (("sx", [(0,), (2,)]), ("cx", [(0, 1), (1, 0), (1, 2)])):
        for place in places:
            physical = tuple(wires[q] for q in place)
            a = SuperOp(ours[name][place])
            b = SuperOp(theirs._local_quantum_errors[name][physical])
            assert np.abs(a.data - b.data).max() < 1e-9
            assert np.abs(a.data - SuperOp(Operator(np.eye(2 ** len(place)))).data).max() > 1e-5
    for q, physical in enumerate(wires):
        a = made._local_readout_errors[(q,)].probabilities
        assert np.allclose(a, theirs._local_readout_errors[(physical,)].probabilities)
        assert a[0, 1] == pytest.approx(get_device("fake_manila").errors["measure"][physical])


def test_extrapolation_brings_exact_values_nearer_to_those_without_noise() -> None:
    exact = expectations(virtual(), ROWS, TEXTS)
    raw = run_aer(chain(), expval(*TEXTS), ROWS, 0, 0, NOISE)
    error = np.abs(raw - exact).mean()
    assert error > 0.005
    for method in ("auto", "richardson", "exponential"):
        for folding in ("global", "local"):
            wanted = Mitigation(method, folding=folding)
            found = run_aer(chain(), expval(*TEXTS), ROWS, 0, 0, NOISE, wanted)
            assert np.abs(found - exact).mean() < 0.5 * error
    quiet = run_aer(chain(), expval(*TEXTS), ROWS, 0, 0)
    assert np.abs(quiet - exact).max() < 1e-9


def test_readout_mitigation_takes_back_what_wrong_readings_changed() -> None:
    gates_only = run_aer(chain(), expval(*TEXTS), ROWS, 0, 0, NOISE)
    raw = run_aer(chain(), expval(*TEXTS), ROWS, 20_000, 1, NOISE)
    found = run_aer(chain(), expval(*TEXTS), ROWS, 20_000, 1, NOISE, Mitigation(readout=True))
    assert np.abs(raw - gates_only).mean() > 0.012
    assert np.abs(found - gates_only).mean() < 0.5 * np.abs(raw - gates_only).mean()


def test_distributions_are_mitigated_measured_or_not() -> None:
    ideal = probabilities(virtual(), ROWS)
    measured = chain()
    measured.num_clbits = 3
    measured = measured.copy()
    for bit, q in enumerate(CHAIN):
        measured.measure(q, 2 - bit)
    measured.layout = Layout(CHAIN, CHAIN, 133)
    for circuit, order in ((chain(), ()), (measured, (2, 1, 0))):
        readout = Readout("probs", (), 20_000, order)
        raw = run_aer(circuit, readout, ROWS, None, 2, NOISE)
        found = run_aer(circuit, readout, ROWS, None, 2, NOISE, Mitigation(readout=True))
        assert np.allclose(found.sum(axis=1), 1.0)
        assert found.min() >= 0
        assert np.abs(found - ideal).sum() < 0.6 * np.abs(raw - ideal).sum()


def test_sampled_groups_agree_with_exact_values_without_noise() -> None:
    exact = expectations(virtual(), ROWS, TEXTS)
    sampled = run_aer(chain(), expval(*TEXTS), ROWS, 20_000, 3)
    assert np.abs(sampled - exact).max() < 0.03
    assert np.array_equal(sampled, run_aer(chain(), expval(*TEXTS), ROWS, 20_000, 3))


def test_delays_relax_qubits() -> None:
    from qcomp.ir.blocks import Duration

    waits = Circuit(1)
    waits.x(0).delay(Duration(100.0, "us"), 0)
    quick = Circuit(1)
    quick.x(0)
    values = [
        float(run_aer(c, expval("Z0"), np.zeros((1, 0)), 0, 0, NOISE)[0, 0]) for c in (quick, waits)
    ]
    t1 = get_device(NOISE).t1[0]
    assert (1 - values[1]) / (1 - values[0]) == pytest.approx(np.exp(-100e-6 / t1), rel=1e-3)


def test_what_cannot_be_had_is_a_clear_error() -> None:
    logical = Circuit(2)
    logical.h(0).cx(0, 1)
    wide = Circuit(11)
    far = Circuit(60)
    far.cz(0, 50)
    for circuit, readout, shots, wanted, text in (
        (logical, expval("Z0"), 0, None, "no error rate of"),
        (far, expval("Z0"), 0, None, "no error rate of cz on qubit 0, 50"),
        (wide, expval("Z0"), 0, None, "up to 10 qubits"),
        (Circuit(200).x(199), expval("Z0"), 0, None, "has 133"),
        (chain(), Readout("probs", (), 0, ()), 10, Mitigation("linear"), "expectation values"),
        (chain(), Readout("samples", (), 0, ()), 10, Mitigation(readout=True), "corrects"),
        (chain(), expval("Z0"), 0, Mitigation(readout=True), "no readout errors"),
    ):
        rows = np.zeros((1, circuit.num_params))
        with pytest.raises(UsageError, match=text):
            run_aer(circuit, readout, rows, shots, 0, NOISE, wanted)
    inside = Circuit(2, 1)
    inside.x(0).measure(0, 0)
    with inside.if_(Bit(0)):
        inside.x(1)
    with pytest.raises(UsageError, match="at its end only"):
        run_aer(inside, Readout("probs", (), 9, ()), np.zeros((1, 0)), None, 0, NOISE,
                Mitigation(readout=True))  # fmt: skip
    with pytest.raises(UsageError, match="no extrapolation"):
        Mitigation("cubic")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="2 different"):
        Mitigation("linear", scales=(1.0,))


def test_the_command_line_runs_an_artifact_under_noise(tmp_path: Path) -> None:
    circuit = Circuit(2, 2)
    circuit.sx(0).cz(0, 1).sx(1).measure(0, 0).measure(1, 1)
    out = tmp_path / "out"
    qcomp.compile(circuit, target="ibm-heron", pipeline="cancel-inverses", out=out)
    base = ["run", str(out), "--json", "--shots", "2000"]
    runner = CliRunner()
    done = runner.invoke(app, [*base, "--device", "aer", "--noise", NOISE, "--readout-mitigation"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)
    wrong = runner.invoke(app, [*base, "--noise", NOISE])
    assert wrong.exit_code != 0
    typo = runner.invoke(app, [*base, "--device", "aer", "--noise", "fake_turino"])
    assert typo.exit_code != 0
