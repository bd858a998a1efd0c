"""Text for vendors' machines, against the vendors' own definitions of their gates."""

import json

import numpy as np
import pytest

from qcomp.backends.openqasm3.profiles import PROFILES
from qcomp.backends.openqasm3.writer import write_bytes, write_file, write_text
from qcomp.errors import TargetError
from qcomp.ir.angle import Angle, Parameter, pi_fraction
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import BY_NAME
from qcomp.simulate import unitary

Matrix = np.ndarray[tuple[int, ...], np.dtype[np.complex128]]


def ionq_matrix(entry: dict[str, object]) -> Matrix:
    """A gate of IonQ's JSON by IonQ's documentation: angles in turns, first target first."""

    def turn(value: object) -> complex:
        return complex(np.exp(2j * np.pi * float(value)))  # type: ignore[arg-type]

    match entry["gate"]:
        case "gpi":
            f = turn(entry["phase"])
            return np.array([[0, 1 / f], [f, 0]])
        case "gpi2":
            f = turn(entry["phase"])
            return np.array([[1, -1j / f], [-1j * f, 1]]) / np.sqrt(2)
        case "ms":
            p, q = (turn(v) for v in entry["phases"])  # type: ignore[union-attr]
            half = np.pi * float(entry["angle"])  # type: ignore[arg-type]
            c, s = np.cos(half), -1j * np.sin(half)
            return np.array(
                [
                    [c, 0, 0, s / (p * q)],
                    [0, c, s * q / p, 0],
                    [0, s * p / q, c, 0],
                    [s * p * q, 0, 0, c],
                ]
            )
        case "zz":
            half = np.pi * float(entry["angle"])  # type: ignore[arg-type]
            return np.diag(np.exp(1j * np.array([-half, half, half, -half])))
        case name:
            raise AssertionError(name)


def ionq_unitary(text: str) -> Matrix:
    """The matrix of a job, qubit 0 the least significant bit."""
    job = json.loads(text)
    assert job["format"] == "ionq.circuit.v0"
    assert job["gateset"] == "native"
    n = job["qubits"]
    total = np.eye(2**n, dtype=complex)
    for entry in job["circuit"]:
        wires = entry.get("targets", [entry.get("target")])
        gate = ionq_matrix(entry)
        k = len(wires)
        axes = [n - 1 - w for w in wires]
        full = total.reshape((2,) * n + (-1,))
        full = np.tensordot(gate.reshape((2,) * 2 * k), full, (range(k, 2 * k), axes))
        total = np.moveaxis(full, range(k), axes).reshape(2**n, -1)
    return total


def native() -> Circuit:
    circuit = Circuit(3)
    circuit.append("gpi", (0,), [0.3]).append("gpi2", (1,), [-2.9]).append("gpi2", (2,), [6.1])
    circuit.append("ms", (0, 2), [0.4, -1.3, 0.7]).append("rzz", (2, 1), [-0.9])
    circuit.append("gpi", (1,), [pi_fraction(1)]).append("ms", (1, 0), [5.0, 0.2, np.pi / 2])
    return circuit


def test_ionqs_json_has_the_circuits_matrix_by_ionqs_own_definitions() -> None:
    circuit = native()
    a, b = ionq_unitary(write_text(circuit, "ionq")), unitary(circuit)
    overlap = np.vdot(a, b)
    assert abs(abs(overlap) - 8) < 1e-12
    np.testing.assert_allclose(a * overlap / abs(overlap), b, atol=1e-12)


def test_ionqs_json_keeps_its_bounds() -> None:
    job = json.loads(write_text(native(), "ionq"))
    for entry in job["circuit"]:
        for phase in [entry.get("phase", 0.0), *entry.get("phases", [])]:
            assert -1 <= phase <= 1
        if entry["gate"] == "ms":
            assert 0 <= entry["angle"] <= 0.25
    exact = Circuit(1).append("gpi2", (0,), [pi_fraction(-1, 2)])
    assert json.loads(write_text(exact, "ionq"))["circuit"][0]["phase"] == -0.25


def test_ionqs_json_leaves_measurements_to_the_machine() -> None:
    circuit = Circuit(2, 2).append("gpi", (0,), [0.1]).measure(0, 0).measure(1, 1)
    assert [e["gate"] for e in json.loads(write_text(circuit, "ionq"))["circuit"]] == ["gpi"]
    empty = json.loads(write_bytes(Circuit(2), "ionq"))
    assert empty["circuit"] == []


def test_a_json_job_is_written_to_a_file_like_any_text(tmp_path: object) -> None:
    from pathlib import Path

    path = Path(str(tmp_path)) / "job.json"
    assert write_file(native(), path, "ionq") == {}
    assert path.read_text() == write_text(native(), "ionq")


REFUSED: list[tuple[str, Circuit, str]] = [
    ("ionq", Circuit(2).h(0).cx(0, 1), "cx (1), h (1)"),
    ("ionq", Circuit(1, params=("a",)).append("gpi", (0,), [Parameter("a")]), "bind"),
    ("ionq", Circuit(2).append("ms", (0, 1), [0.0, 0.0, 2.0]), "ms at angles from 0"),
    ("braket-iqm", Circuit(2).cx(0, 1), "cx (1)"),
    ("braket-rigetti", Circuit(1).rx(0.3, 0), "rx at multiples of 1.5708"),
    ("braket-rigetti", Circuit(1).append("rx", (0,), [Angle.of(1.5 * np.pi)]), "rx at multiples"),
    ("braket-ionq", Circuit(1, 1).reset(0), "reset"),
    ("braket", Circuit(1, 1).measure(0, 0).h(0), "at the end only"),
    ("quantinuum", Circuit(1, params=("a",)).rz(Parameter("a"), 0), "bind"),
    ("quantinuum", Circuit(1).h(0), "h (1)"),
]


@pytest.mark.parametrize(("profile", "circuit", "told"), REFUSED)
def test_what_a_machine_does_not_take_is_named(profile: str, circuit: Circuit, told: str) -> None:
    with pytest.raises(TargetError) as caught:
        write_text(circuit, profile)
    assert told in str(caught.value)


def test_every_gate_of_the_table_is_written_for_braket_in_its_words() -> None:
    circuit = Circuit(4)
    for row in BY_NAME.values():
        if row.kind == "unitary":
            size = row.num_qubits if row.num_qubits > 0 else 4
            circuit.append(row.name, range(size), [0.3, 0.4, 0.5, 0.6][: row.num_angles])
    text = write_text(circuit, "braket")
    names = {line.partition("(")[0].partition(" ")[0] for line in text.splitlines()[3:]}
    ours = {PROFILES["braket"].spelling.get(n, n) for n in PROFILES["braket"].gates}
    assert names <= ours
    assert {"cnot", "si", "ti", "v", "vi", "phaseshift", "prx", "zz", "ccnot", "U"} <= names
    assert "include" not in text


def test_registers_named_like_gates_of_braket_are_renamed() -> None:
    from qcomp.ir.circuit import RegisterDecl

    circuit = Circuit(1, params=("zz",), qregs=(RegisterDecl("v", 1, 0),))
    circuit.rz(Parameter("zz"), 0)
    text = write_text(circuit, "braket")
    assert "input float[64] zz_;" in text
    assert "rz(zz_) q[0];" in text
