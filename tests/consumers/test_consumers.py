"""The real readers of our text: they take it, and they see in it what qcomp sees."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from qcomp.backends.openqasm3.profiles import PROFILES
from qcomp.backends.openqasm3.writer import write_text
from qcomp.cli.main import app
from qcomp.consumers import CONSUMERS, accept
from qcomp.consumers.outcomes import distance, our_outcome
from qcomp.errors import SourceError, UsageError
from qcomp.ir.angle import Parameter
from qcomp.ir.blocks import Duration
from qcomp.ir.circuit import Circuit
from qcomp.ir.classical import Bit
from tests.generators import straight_circuit
from tests.openqasm.test_layouts import NATIVE, mapped

EMULATOR = {"braket-rigetti": "rigetti", "braket-iqm": "iqm", "braket-ionq": "ionq"}
HEAD = 'OPENQASM 3.0;\ninclude "stdgates.inc";\n'


def need(name: str) -> None:
    if not CONSUMERS[name].installed:
        pytest.skip(f"the package of the consumer '{name}' is not installed")


def entangled(measured: bool = True) -> Circuit:
    """A circuit whose distribution knows the order of its qubits and bits."""
    circuit = Circuit(3, 3 if measured else 0)
    circuit.ry(0.4, 0).ry(1.1, 1).rx(2.0, 2).cz(0, 1).rx(0.7, 0).swap(1, 2).cy(2, 0)
    if measured:
        circuit.measure(2, 0).measure(0, 1).measure(1, 2)
    return circuit


@pytest.mark.parametrize(
    ("profile", "consumer"),
    [(p.name, c) for p in PROFILES.values() for c in p.consumers if p.name in NATIVE]
    + list(EMULATOR.items()),
)
def test_a_consumer_takes_the_text_of_its_profile_and_sees_the_same(
    profile: str, consumer: str
) -> None:
    need(consumer)
    circuit = mapped(profile, bound=consumer == "rigetti")
    found = accept(write_text(circuit, profile), consumer)
    assert found.accepted, str(found)
    assert found.distance is not None, str(found)
    assert found.ok, str(found)


@pytest.mark.parametrize("consumer", ["reference", "qiskit", "pyqasm"])
@pytest.mark.parametrize("measured", [True, False])
def test_another_circuit_than_the_one_in_the_text_is_seen(consumer: str, measured: bool) -> None:
    need(consumer)
    circuit = entangled(measured)
    text = write_text(circuit, "portable")
    assert accept(text, consumer, wanted=circuit).ok
    wrong = Circuit(3, circuit.num_clbits).x(0).compose(circuit)
    found = accept(text, consumer, wanted=wrong)
    assert found.accepted
    assert found.distance is not None
    assert found.distance > 0.01
    assert not found.ok
    assert "ANOTHER DISTRIBUTION" in str(found)


def test_brakets_qubits_are_in_order_whatever_gate_comes_first() -> None:
    need("braket")
    circuit = Circuit(3, 3).ry(0.3, 2).ry(1.0, 0).ry(2.0, 1).cx(2, 0)
    circuit.measure(0, 0).measure(1, 1).measure(2, 2)
    assert accept(write_text(circuit, "braket"), "braket", wanted=circuit).ok


def test_a_text_that_measures_in_another_order_than_the_circuit_is_the_same() -> None:
    need("braket")
    circuit = entangled(measured=False)
    circuit = Circuit(3, 3).compose(circuit, range(3)).measure(2, 1).measure(0, 2).measure(1, 0)
    assert accept(write_text(circuit, "braket"), "braket", wanted=circuit).ok


@pytest.mark.parametrize(
    ("profile", "consumer"), [("braket", "braket"), ("qasm2", "pytket"), ("qasm2", "qiskit")]
)
def test_bits_in_another_order_are_another_distribution(profile: str, consumer: str) -> None:
    need(consumer)
    circuit = entangled()
    text = write_text(circuit, profile)
    assert accept(text, consumer, wanted=circuit).ok
    swapped = Circuit(3, 3).compose(entangled(measured=False), range(3))
    swapped.measure(0, 0).measure(2, 1).measure(1, 2)
    assert not accept(text, consumer, wanted=swapped).ok


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("profile", "consumer"), [("full", "qiskit"), ("full", "reference")])
def test_random_circuits_with_parameters_and_measurements(
    seed: int, profile: str, consumer: str
) -> None:
    need(consumer)
    circuit = straight_circuit(seed, 25)
    found = accept(write_text(circuit, profile), consumer, seed=seed)
    assert found.ok, str(found)
    assert set(found.values) == set(circuit.params)
    assert found.distance is not None


def test_qiskits_conditions_resets_and_measurements_inside_are_exact() -> None:
    need("qiskit")
    circuit = Circuit(3, 3)
    circuit.ry(1.0, 0).measure(0, 0)
    with circuit.if_(Bit(0)):
        circuit.ry(0.5, 1).cx(1, 2)
    with circuit.else_():
        circuit.ry(2.0, 2)
    circuit.measure(1, 1).reset(0).ry(0.3, 0).measure(0, 0).measure(2, 2)
    text = write_text(circuit, "full")
    found = accept(text, "qiskit")
    assert found.distance is not None
    assert found.ok
    other = text.replace("ry(0.5)", "ry(0.6)")
    assert not accept(text, "qiskit", wanted=Circuit.from_qasm(other)).ok


def test_wide_circuits_are_taken_and_it_is_said_that_they_were_not_compared() -> None:
    need("qiskit")
    circuit = Circuit(14)
    for q in range(14):
        circuit.h(q)
    found = accept(write_text(circuit, "portable"), "qiskit")
    assert found.ok
    assert found.distance is None
    assert "14 qubits are more than 12" in str(found)


def test_idle_wires_of_a_wide_machine_do_not_count() -> None:
    circuit = Circuit(100, 1).h(60).cx(60, 99).measure(99, 0)
    outcome = our_outcome(circuit)
    assert not isinstance(outcome, str)
    assert outcome.wires == (60, 99)


def test_boxes_and_delays_do_not_hide_what_is_in_them() -> None:
    circuit = Circuit(2).ry(0.7, 0)
    with circuit.box():
        circuit.cx(0, 1)
    circuit.delay(Duration(10, "ns"), 0)
    boxed, plain = our_outcome(circuit), our_outcome(Circuit(2).ry(0.7, 0).cx(0, 1))
    assert not isinstance(boxed, str)
    assert not isinstance(plain, str)
    assert boxed.measured == plain.measured == ()
    assert distance(boxed, plain) == 0.0


REJECTED: list[tuple[str, str, str]] = [
    ("qiskit", HEAD + "qubit q; bit c; c = measure q; if (c == 1) { x q; }", "qiskit"),
    ("braket", HEAD + "qubit q; x q;", "stdgates.inc"),
    ("pyqasm", HEAD + "input float[64] a; qubit q; rx(a) q;", "Invalid parameter"),
    ("pytket", HEAD + "qubit q; x q;", "stdgates"),
    ("reference", 'OPENQASM 2.0; include "qelib1.inc"; qreg q[1]; x q[0];', "OpenQASM 3"),
    ("iqm", "OPENQASM 3.0; qubit q; h q;", "verbatim"),
]


@pytest.mark.parametrize(("consumer", "text", "told"), REJECTED)
def test_what_a_consumer_does_not_take_is_told(consumer: str, text: str, told: str) -> None:
    need(consumer)
    found = accept(text, consumer)
    if consumer == "qiskit" and found.accepted:
        pytest.skip("this version of Qiskit takes compared bits")
    assert not found.accepted
    assert not found.ok
    if consumer != "qiskit":
        assert told in found.why
    assert "REJECTED" in str(found)


def test_ionqs_emulator_refuses_gates_of_iqm() -> None:
    need("ionq")
    found = accept(write_text(mapped("braket-iqm"), "braket-iqm"), "ionq")
    assert not found.accepted
    assert "not a native gate" in found.why


def test_text_that_qcomp_cannot_read_is_an_error_of_qcomp() -> None:
    with pytest.raises(SourceError):
        accept("OPENQASM 3.0; nonsense", "reference")


def test_a_missing_package_is_named_with_the_command() -> None:
    entry = replace(CONSUMERS["pytket"], modules=("not_there.at_all",))
    assert not entry.installed
    with pytest.raises(UsageError, match="pip install pytket"):
        accept("OPENQASM 2.0;\nqreg q[1];\nU(0,0,0) q[0];\n", entry)
    with pytest.raises(UsageError, match="did you mean 'qiskit'"):
        accept("", "qiskt")


# --- the command -----------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str) -> str:
        path = tmp_path / "a.qasm"
        path.write_text(text)
        return str(path)

    return write


def test_the_command_says_what_a_consumer_makes_of_a_file(file: Callable[[str], str]) -> None:
    need("qiskit")
    circuit = Circuit(2, 2, params=("a",))
    circuit.h(0).rx(Parameter("a"), 1).cz(0, 1).measure(0, 0).measure(1, 1)
    path = file(write_text(circuit, "portable-param"))
    result = CliRunner().invoke(app, ["verify", "--consumer", "qiskit", path])
    assert result.exit_code == 0
    assert "accepted, the same distribution" in result.output
    result = CliRunner().invoke(app, ["verify", "--consumer", "qiskit", "--json", path])
    data = json.loads(result.output)
    assert data["ok"] is True
    (answer,) = data["consumers"]
    assert answer["same"] is True
    assert list(answer["inputs"]) == ["a"]


def test_all_consumers_of_a_version_are_asked_and_one_rejection_fails(
    file: Callable[[str], str],
) -> None:
    need("braket")
    path = file(write_text(entangled(), "portable"))
    result = CliRunner().invoke(app, ["verify", "--consumer", "all", "--json", path])
    assert result.exit_code == 1
    found = {a["consumer"]: a["accepted"] for a in json.loads(result.output)["consumers"]}
    assert set(found) == {"reference", "qiskit", "braket", "pyqasm"}
    assert found == {name: name != "braket" for name in found}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--consumer", "qiskit", "A", "A"], "one file"),
        (["A"], "two files"),
        (["--consumer", "nobody", "A"], "no consumer 'nobody'"),
        (["--consumer", "qiskit", "missing.qasm"], "no file"),
    ],
)
def test_wrong_use_of_the_command_is_told(
    arguments: list[str], told: str, file: Callable[[str], str]
) -> None:
    path = file(write_text(entangled(), "portable"))
    result = CliRunner().invoke(app, ["verify", *(path if a == "A" else a for a in arguments)])
    assert result.exit_code != 0
    assert told in str(result.exception)


def test_braket_emulates_thousands_of_gates_without_listing_them_once_a_gate(monkeypatch):
    from braket.circuits.moments import Moments

    sorts = []
    sort = Moments.sort_moments
    monkeypatch.setattr(Moments, "sort_moments", lambda self: (sorts.append(1), sort(self))[1])
    gates = "rz(0.3) $0;\niswap $0, $1;\n" * 100
    text = f"OPENQASM 3.0;\n#pragma braket verbatim\nbox {{\n{gates}}}\n"
    assert accept(text, "rigetti").accepted
    assert len(sorts) < 50
