"""Mapped circuits as text: where their qubits are is written and read back."""

from dataclasses import replace

import numpy as np
import pytest

from qcomp.backends.openqasm3 import runs
from qcomp.backends.openqasm3.profiles import PROFILES
from qcomp.backends.openqasm3.writer import write_text
from qcomp.frontends.openqasm.interpreter import interpret
from qcomp.frontends.openqasm.layouts import layout_comment, placed
from qcomp.frontends.openqasm.parser import parse
from qcomp.frontends.openqasm.reader import read_text
from qcomp.frontends.openqasm.scanner import scan
from qcomp.ir.angle import Parameter, pi_fraction
from qcomp.ir.blocks import Duration
from qcomp.ir.circuit import Circuit
from qcomp.ir.classical import Bit
from qcomp.ir.layout import Layout

LAYOUT = Layout((3, 4), (4, 3), 7)
NATIVE = {
    "full": ("rz", "sx", "cz"),
    "ibm": ("rz", "sx", "cz"),
    "portable-param": ("rz", "h", "cz"),
    "braket": ("rz", "sx", "cx"),
    "braket-rigetti": ("rz", "rz", "iswap"),
    "braket-iqm": ("r", "r", "cz"),
    "braket-ionq": ("gpi", "gpi2", "rzz"),
    "quantinuum": ("rz", "r", "zzmax"),
    "qasm2": ("rz", "sx", "cx"),
}


def mapped(profile: str, *, bound: bool = False) -> Circuit:
    """A circuit of the profile's gates on the qubits 3 and 4 of seven."""
    inputs = PROFILES[profile].inputs and not bound
    circuit = Circuit(7, 2, params=("theta",) if inputs else ())
    angle = 0.5 * Parameter("theta") + 0.3 if inputs else 0.3
    first, second, pair = NATIVE[profile]
    for name in (first, second):
        count = {"r": 2, "sx": 0, "h": 0}.get(name, 1)
        circuit.append(name, (3,), [angle, 0.1][:count])
        circuit.append(name, (4,), [0.25, angle][:count])
    circuit.append(pair, (3, 4), [0.2] if pair == "rzz" else [])
    circuit.measure(4, 0).measure(3, 1)
    circuit.layout = LAYOUT
    return circuit


def by_grammar(text: str) -> Circuit:
    comment = layout_comment(text.encode())
    assert comment is not None
    return placed(interpret(parse(text), mapped=True).circuit, comment)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("profile", NATIVE)
def test_a_mapped_circuit_is_read_back_identical_with_its_layout(
    profile: str, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "KERNEL_THRESHOLD", 0 if compiled else 10**9)
    circuit = mapped(profile)
    text = write_text(circuit, profile)
    again = read_text(text)
    assert again.layout == LAYOUT
    assert again.equals(circuit)
    assert scan(text) is not None or profile in ("qasm2", "quantinuum")
    assert by_grammar(text).equals(circuit)
    assert by_grammar(text).layout == LAYOUT


def test_the_text_of_a_mapped_circuit_is_what_a_person_would_write() -> None:
    assert write_text(mapped("braket-iqm"), "braket-iqm") == (
        "OPENQASM 3.0;\n"
        "// layout physical: 7\n"
        "// layout initial: 3, 4\n"
        "// layout final: 4, 3\n"
        "input float[64] theta;\n"
        "bit[2] c;\n"
        "#pragma braket verbatim\n"
        "box {\n"
        "  prx(0.5*theta + 0.3, 0.1) $3;\n"
        "  prx(0.25, 0.5*theta + 0.3) $4;\n"
        "  prx(0.5*theta + 0.3, 0.1) $3;\n"
        "  prx(0.25, 0.5*theta + 0.3) $4;\n"
        "  cz $3, $4;\n"
        "}\n"
        "c[0] = measure $4;\n"
        "c[1] = measure $3;\n"
    )


def test_a_mapped_dynamic_circuit_keeps_its_layout_and_its_width() -> None:
    circuit = Circuit(7, 1, params=("theta",))
    circuit.sx(3).measure(3, 0)
    with circuit.if_(Bit(0)):
        circuit.rz(0.5 * Parameter("theta") + pi_fraction(1, 4) + 0.1, 4).x(4)
        circuit.delay(Duration(100, "ns"), 4)
    circuit.layout = LAYOUT
    for profile in ("ibm", "full"):
        again = read_text(write_text(circuit, profile))
        assert again.layout == LAYOUT
        assert again.num_qubits == 7
        if profile == "full":
            assert again.equals(circuit)
    assert "$4" in write_text(circuit, "ibm")


def test_ancillas_that_swaps_moved_are_kept() -> None:
    circuit = Circuit(7).swap(5, 6).swap(0, 1)
    circuit.layout = Layout((3, 4), (4, 3), 7, ((5, 6), (6, 5), (0, 1), (1, 0)))
    again = read_text(write_text(circuit)).layout
    assert again is not None
    assert again.moved == circuit.layout.moved


def test_comments_that_do_not_fit_are_told_and_not_used() -> None:
    head = "OPENQASM 3.0;\n"
    for comments, told in (
        ("// layout physical: 3\n// layout initial: 0\n// layout final: 0\n", "2 qubits, not 3"),
        ("// layout physical: 2\n// layout initial: 0, 0\n// layout final: 0, 1\n", "one physical"),
        (
            "// layout physical: 2\n// layout initial: 0, 9\n// layout final: 0, 1\n",
            "names a qubit",
        ),
    ):
        circuit = read_text(head + comments + "qubit[2] q;\nU(0, 0, 0) q[0];\n")
        assert circuit.layout is None
        assert told in circuit.notes[-1]
    for comments in (
        "// layout physical: many\n",
        "// layout initial: 0, 1\n",
        "// layout physical: 99999999999999\n",
        "// the layout is nice\n",
    ):
        circuit = read_text(head + comments + "qubit[2] q;\nU(0, 0, 0) q[0];\n")
        assert (circuit.layout, circuit.notes) == (None, ())


def test_physical_and_declared_qubits_in_one_text_are_refused_with_comments_too() -> None:
    from qcomp.errors import SourceError

    text = "OPENQASM 3.0;\n// layout physical: 2\nqubit[2] q;\nU(0, 0, 0) q[0];\nU(0, 0, 0) $1;\n"
    with pytest.raises(SourceError, match="physical qubits and declared qubits"):
        read_text(text)


@pytest.mark.parametrize("seed", range(12))
def test_full_text_of_control_flow_with_parameters_is_read_back_identical(seed: int) -> None:
    from tests.generators import branching_circuit

    circuit = branching_circuit(seed)
    once = read_text(write_text(circuit))
    assert read_text(write_text(once)).equals(once)


def test_angles_beside_control_flow_are_exact() -> None:
    theta, phi = Parameter("theta"), Parameter("phi")
    circuit = Circuit(1, 1, params=("theta", "phi"))
    circuit.measure(0, 0)
    with circuit.if_(Bit(0)):
        for angle in (
            theta / 3 - 0.1 * phi + pi_fraction(3, 1 << 40) + 1e-9,
            pi_fraction(-7, 8) + 0.1,
            -theta + pi_fraction(1),
            replace(pi_fraction(1, 4), rem=1e-20),
            pi_fraction(5, 1 << 59),
        ):
            circuit.rz(angle, 0)
    again = read_text(write_text(circuit))
    assert again.equals(circuit)
    rng = np.random.default_rng(0)
    values = rng.normal(size=2).tolist()
    assert again.bind(values).equals(circuit.bind(values))
