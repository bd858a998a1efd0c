"""Many rows of data: the text is made once, and says for each row what binding says."""

import json
from pathlib import Path

import numpy as np
import pytest

from qcomp.backends.openqasm3 import batch
from qcomp.backends.openqasm3.batch import TextTemplate
from qcomp.backends.openqasm3.writer import write_text
from qcomp.errors import TargetError, UsageError
from qcomp.frontends.openqasm.reader import read_text
from qcomp.ir.angle import Angle, Parameter, pi_fraction
from qcomp.ir.circuit import Circuit
from tests.cli.conftest import Cli, cli, folder
from tests.generators import branching_circuit, straight_circuit
from tests.openqasm.test_layouts import NATIVE, mapped

__all__ = ["cli", "folder"]

RNG = np.random.default_rng(3)


def assert_same_text(text: str, wanted: str) -> None:
    """Both read as the same circuit; angles to rounding."""
    a, b = read_text(text), read_text(wanted)
    assert a.params == b.params == ()
    assert a.layout == b.layout
    for one, two in zip(a.runs(), b.runs(), strict=True):
        np.testing.assert_array_equal(one.code, two.code)
        np.testing.assert_array_equal(one.qubit, two.qubit)
        turns = (a.angles_for((), one) - b.angles_for((), two)) / (4 * np.pi)
        assert np.abs(turns - np.rint(turns)).max(initial=0.0) < 1e-14
    phase = (float(a.global_phase) - float(b.global_phase)) / (2 * np.pi)
    assert abs(phase - round(phase)) < 1e-14


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("profile", [p for p in NATIVE if p not in ("qasm2", "quantinuum")])
def test_each_row_is_the_text_of_the_bound_circuit(
    profile: str, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "KERNEL_THRESHOLD", 0 if compiled else 10**9)
    monkeypatch.setattr(batch.fill_rows, "_compiled", None)
    circuit = mapped(profile)
    rows = RNG.uniform(-9, 9, (7, 1))
    rows[0] = 0.0
    for row, text in zip(rows, circuit.emit_batch(rows, profile), strict=True):
        assert_same_text(text, write_text(circuit.bind(row), profile))


@pytest.mark.parametrize("seed", range(6))
def test_random_circuits_with_phases_and_control_flow(seed: int) -> None:
    for circuit in (straight_circuit(seed, 25), branching_circuit(seed)):
        circuit.gphase(Parameter(circuit.params[0]) / 2 + pi_fraction(1, 4))
        rows = RNG.normal(size=(3, circuit.num_params))
        for row, text in zip(rows, circuit.emit_batch(rows), strict=True):
            assert_same_text(text, write_text(circuit.bind(row)))


def test_a_profile_without_parameters_takes_bound_ones() -> None:
    circuit = Circuit(2, 2, params=("a", "b"))
    circuit.rx(Parameter("a") - 2 * Parameter("b"), 0).cx(0, 1).measure(0, 0).measure(1, 1)
    for profile in ("portable", "qasm2"):
        with pytest.raises(TargetError, match="no free parameters"):
            write_text(circuit, profile)
        (text,) = circuit.emit_batch([0.3, 0.1], profile)
        assert_same_text(text, write_text(circuit.bind([0.3, 0.1]), profile))


def test_ionqs_json_is_made_row_by_row() -> None:
    circuit = Circuit(2, params=("a",)).append("gpi2", (0,), [Parameter("a")])
    circuit.append("ms", (0, 1), [0.0, 0.0, np.pi / 2])
    texts = circuit.emit_batch([[0.5], [1.0]], "ionq")
    phases = [json.loads(text)["circuit"][0]["phase"] for text in texts]
    np.testing.assert_allclose(phases, np.array([0.5, 1.0]) / (2 * np.pi), rtol=1e-15)


def test_many_rows_in_several_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "_MAX_BUFFER", 1000)
    circuit = Circuit(1, params=("a",)).rz(Parameter("a"), 0).rz(-1e-9 * Parameter("a"), 0)
    rows = RNG.normal(size=(5000, 1))
    template = TextTemplate(circuit, "portable")
    texts = template.fill(rows)
    assert len(texts) == 5000
    angles = template.angles(rows)
    assert texts == [template._filled(row) for row in angles.tolist()]
    assert template.fill(np.zeros((0, 1))) == []


def test_wrong_rows_are_told() -> None:
    circuit = Circuit(1, params=("a", "b")).rz(Parameter("a"), 0)
    template = TextTemplate(circuit)
    with pytest.raises(UsageError, match="2 parameters"):
        template.fill([[1.0]])
    with pytest.raises(UsageError, match="'b' in row 1 is not finite"):
        template.fill([[1.0, 2.0], [1.0, np.nan]])


def test_an_angle_that_the_machine_does_not_take_is_told() -> None:
    circuit = Circuit(2, params=("a",)).append("rzz", (0, 1), (Parameter("a"),))
    template = TextTemplate(circuit, "ibm")
    assert len(template.fill([[0.5], [1.5]])) == 2
    with pytest.raises(TargetError, match=r"takes rzz at angles from 0 to 1\.5708 only"):
        template.fill([[0.5], [-0.5]])
    assert "rzz(0.5" in template.fill([0.5 - 4 * np.pi])[0].decode()
    turned = Circuit(2).append("rzz", (0, 1), (Angle.of(0.5 + 4 * np.pi),))
    assert "rzz(0.5) " in write_text(turned, "ibm")
    circuit = Circuit(2).append("rzz", (0, 1), (Angle.of(2.0),))
    with pytest.raises(TargetError, match=r"the first is 2\.0"):
        write_text(circuit, "ibm")
    circuit = Circuit(1, params=("a",)).rx(Parameter("a"), 0)
    with pytest.raises(TargetError, match="depends on a free parameter"):
        TextTemplate(circuit, "braket-rigetti")


# --- the command -----------------------------------------------------------------------------


def test_the_command_binds_a_file(cli: Cli, folder: Path) -> None:
    circuit = Circuit(2, 1, params=("a", "b"))
    circuit.rx(Parameter("a"), 0).ry(Parameter("b"), 1).cx(0, 1).measure(1, 0)
    Path("c.qasm").write_text(write_text(circuit))
    rows = RNG.normal(size=(11, 2))
    np.savez("x.npz", b=rows[:, 1], a=rows[:, 0])
    np.savez("p.npz", params=rows)
    assert cli("bind", "c.qasm", "--input", "x.npz", "-o", "named").code == 0
    done = cli("bind", "c.qasm", "--input", "p.npz", "-o", "together", "--json")
    assert done.code == 0
    index = json.loads(done.out)
    assert index["circuits"]["c"][3] == "c-03.qasm"
    for i, name in enumerate(index["circuits"]["c"]):
        text = (folder / "together" / name).read_text()
        assert text == (folder / "named" / name).read_text()
        assert_same_text(text, write_text(circuit.bind(rows[i])))
    assert cli("bind", "c.qasm", "--input", "p.npz", "-o", "together").code == 0


def test_the_command_binds_an_artifact(cli: Cli, folder: Path) -> None:
    circuit = Circuit(2, 2, params=("a",))
    circuit.rx(2 * Parameter("a"), 0).cx(0, 1).measure(0, 0).measure(1, 1)
    Path("c.qasm").write_text(write_text(circuit))
    assert cli("compile", "c.qasm", "-t", "ibm-heron", "--no-map", "-o", "art").code == 0
    np.savez("p.npz", params=np.linspace(0, 1, 4)[:, None])
    assert cli("bind", "art", "--input", "p.npz", "-o", "bound").code == 0
    from qcomp.simulate import bit_distribution

    for i, value in enumerate(np.linspace(0, 1, 4)):
        bound = read_text((folder / "bound" / f"c-{i}.qasm").read_text())
        np.testing.assert_allclose(
            bit_distribution(bound), bit_distribution(circuit.bind([value])), atol=1e-12
        )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["c.qasm", "--input", "x.npz", "-o", "."], "not empty"),
        (["c.qasm", "--input", "none.npz", "-o", "y"], "no file"),
        (["c.qasm", "--input", "wrong.npz", "-o", "y"], "no array"),
        (["plain.qasm", "--input", "x.npz", "-o", "y"], "nothing to bind"),
        (["c.qasm", "--input", "x.npz", "-o", "y", "--profile", "nope"], "no OpenQASM profile"),
        (["folder", "--input", "x.npz", "-o", "y"], "no artifact"),
    ],
)
def test_wrong_use_of_the_command_is_told(
    arguments: list[str], told: str, cli: Cli, folder: Path
) -> None:
    Path("c.qasm").write_text(write_text(Circuit(1, params=("a",)).rx(Parameter("a"), 0)))
    Path("plain.qasm").write_text(write_text(Circuit(1).x(0)))
    Path("folder").mkdir()
    np.savez("x.npz", a=np.zeros(3))
    np.savez("wrong.npz", z=np.zeros(3))
    result = cli("bind", *arguments)
    assert result.code in (1, 2)
    assert told in result.err
    assert "fault inside" not in result.err
    assert not Path("y").exists()
