import math
from pathlib import Path

import numpy as np
import pytest

from qcomp.frontends.openqasm.powers import matrix_of, synthesised
from qcomp.frontends.openqasm.syntax import Node
from qcomp.ir.gates import GATES, gate
from qcomp.simulate import unitary
from tests.openqasm.reading import error, names, operations, read, reading

STD = 'include "stdgates.inc";\n'


def matrix(text: str) -> np.ndarray:
    return np.asarray(unitary(read(text)))


def same(text: str, expected: np.ndarray) -> None:
    np.testing.assert_allclose(matrix(text), expected, atol=1e-12)


def controlled(inner: np.ndarray, controls: int = 1) -> np.ndarray:
    """The matrix with controls as the low qubits."""
    out = np.eye(len(inner) << controls, dtype=complex)
    active = (np.arange(len(inner)) << controls) | ((1 << controls) - 1)
    out[np.ix_(active, active)] = inner
    return out


@pytest.mark.parametrize(
    "row", [row for row in GATES if row.kind == "unitary"], ids=lambda r: r.name
)
def test_every_gate_of_the_table_reads_as_itself(row) -> None:
    arity = row.num_qubits if row.num_qubits > 0 else 4
    angles = [0.3, -1.1, 2.5, 0.7][: row.num_angles]
    head = f"{row.name}({', '.join(map(str, angles))})" if angles else row.name
    operands = ", ".join(f"q[{i}]" for i in range(arity))
    found = operations(f"qubit[{arity}] q; {head} {operands};")
    assert found == [(row.name, tuple(range(arity)), tuple(angles))]


def test_every_gate_of_stdgates_and_qelib1_has_the_matrix_that_qiskit_gives_it() -> None:
    import qiskit.qasm3
    from qiskit.quantum_info import Operator

    gates = {
        "p": 1, "x": 0, "y": 0, "z": 0, "h": 0, "s": 0, "sdg": 0, "t": 0, "tdg": 0, "sx": 0,
        "rx": 1, "ry": 1, "rz": 1, "cx": 0, "cy": 0, "cz": 0, "cp": 1, "crx": 1, "cry": 1,
        "crz": 1, "ch": 0, "swap": 0, "ccx": 0, "cswap": 0, "cu": 4, "CX": 0, "phase": 1,
        "cphase": 1, "id": 0, "u1": 1, "u2": 2, "u3": 3,
    }  # fmt: skip
    for name, count in gates.items():
        arity = {"ccx": 3, "cswap": 3}.get(name, 2 if name[0] in "cC" or name == "swap" else 1)
        angles = ", ".join(["0.3", "-1.1", "2.5", "0.7"][:count])
        head = f"{name}({angles})" if count else name
        text = f"{STD}qubit[{arity}] q; {head} {', '.join(f'q[{i}]' for i in range(arity))};"
        expected = Operator(qiskit.qasm3.loads("OPENQASM 3.0;\n" + text)).data
        np.testing.assert_allclose(matrix(text), expected, atol=1e-12, err_msg=name)


def test_the_gates_of_braket_and_ionq_have_the_matrices_their_makers_publish() -> None:
    f, g, t = 0.4, -1.3, 0.9
    e = np.exp
    gpi = np.array([[0, e(-1j * f)], [e(1j * f), 0]])
    gpi2 = np.array([[1, -1j * e(-1j * f)], [-1j * e(1j * f), 1]]) / math.sqrt(2)
    same(f"qubit q; gpi({f}) q;", gpi)
    same(f"qubit q; gpi2({f}) q;", gpi2)
    # Braket and IonQ write the first qubit as the most significant bit: operands swapped here.
    c, s = math.cos(t / 2), -1j * math.sin(t / 2)
    ms = np.diag([c, c, c, c]).astype(complex)
    ms[0, 3], ms[1, 2] = s * e(-1j * (f + g)), s * e(-1j * (f - g))
    ms[2, 1], ms[3, 0] = s * e(1j * (f - g)), s * e(1j * (f + g))
    same(f"qubit[2] q; ms({f}, {g}, {t}) q[1], q[0];", ms)
    xy = np.eye(4, dtype=complex)
    xy[1:3, 1:3] = [[c, 1j * math.sin(t / 2)], [1j * math.sin(t / 2), c]]
    same(f"qubit[2] q; xy({t}) q[1], q[0];", xy)
    pswap = np.eye(4, dtype=complex)[[0, 2, 1, 3]]
    pswap[1, 2] = pswap[2, 1] = e(1j * t)
    same(f"qubit[2] q; pswap({t}) q[1], q[0];", pswap)
    for name, place in (("00", 0), ("01", 1), ("10", 2)):
        diagonal = np.ones(4, dtype=complex)
        diagonal[place] = e(1j * t)
        same(f"qubit[2] q; cphaseshift{name}({t}) q[1], q[0];", np.diag(diagonal))
    text = "qubit[3] q; i q[0]; si q[0]; ti q[0]; v q[0]; vi q[0]; ccnot q[0], q[1], q[2];"
    assert names(text) == ["id", "sdg", "tdg", "sx", "sxdg", "ccx"]


def test_a_standard_gate_without_an_include_is_read_and_noted() -> None:
    notes = reading("qubit q; h q;").notes
    assert len(notes) == 1
    assert "no include" in notes[0]
    assert reading(STD + "qubit q; h q;").notes == ()
    assert "'iswap'" in reading(STD + "qubit[2] q; iswap q[0], q[1];").notes[0]


def test_a_definition_shadows_the_standard_gate() -> None:
    text = "gate h a { x a; } qubit q; h q;"
    assert names(text) == ["x"]


def test_a_definition_that_spells_out_a_gate_of_the_table_is_that_gate() -> None:
    text = STD + "gate rzz(t) a, b { cx a, b; rz(t) b; cx a, b; } qubit[2] q; rzz(0.3) q[0], q[1];"
    assert names(text) == ["rzz"]
    other = text.replace("rz(t) b", "rz(2 * t) b")
    assert names(other) == ["cx", "rz", "cx"]


def test_modifiers_apply_from_the_innermost_to_the_outermost() -> None:
    x, h = gate("x").matrix(), gate("h").matrix()
    same("qubit[2] q; ctrl @ h q[0], q[1];", controlled(h))
    same("qubit[3] q; ctrl(2) @ x q[0], q[1], q[2];", controlled(x, 2))
    flip = np.kron(np.eye(2), x)
    same("qubit[2] q; negctrl @ h q[0], q[1];", flip @ controlled(h) @ flip)
    same("qubit[2] q; inv @ ctrl @ t q[0], q[1];", controlled(gate("tdg").matrix()))
    same("qubit[2] q; ctrl @ pow(2) @ s q[0], q[1];", controlled(gate("z").matrix()))
    same(
        "gate g(a) p { rx(a) p; gphase(0.2); } qubit[2] q; ctrl @ inv @ g(0.7) q[0], q[1];",
        controlled(gate("rx").matrix(-0.7) * np.exp(-0.2j)),
    )


def test_a_global_phase_counts_under_a_control() -> None:
    same("qubit q; gphase(0.3);", np.eye(2) * np.exp(0.3j))
    same("qubit q; ctrl @ gphase(0.3) q;", np.diag([1, np.exp(0.3j)]))
    same("qubit q; negctrl @ gphase(0.3) q;", np.diag([np.exp(0.3j), 1]))
    same("qubit[2] q; ctrl(2) @ gphase(0.3) q[0], q[1];", np.diag([1, 1, 1, np.exp(0.3j)]))


def test_several_controls_take_a_number_of_gates_linear_in_them() -> None:
    rng = np.random.default_rng(5)
    for name in (
        "h",
        "y",
        "sx",
        "t",
        "rx",
        "ry",
        "rz",
        "u",
        "r",
        "swap",
        "cu",
        "iswap",
        "rzz",
        "cs",
    ):
        row = gate(name)
        angles = rng.normal(size=row.num_angles)
        head = f"{name}({', '.join(map(repr, angles.tolist()))})" if row.num_angles else name
        for controls in (2, 3):
            total = controls + row.num_qubits
            text = f"qubit[{total}] q; ctrl({controls - 1}) @ ctrl @ {head} "
            text += ", ".join(f"q[{i}]" for i in range(total)) + ";"
            same(text, controlled(row.matrix(*angles), controls))
    same("qubit[3] q; ctrl @ negctrl @ s q[0], q[1], q[2];",
         np.diag([1, 1, 1, 1, 1, 1j, 1, 1]))  # fmt: skip
    assert (
        len(names("qubit[21] q; ctrl(20) @ h " + ", ".join(f"q[{i}]" for i in range(21)) + ";"))
        < 200
    )


def test_many_controls_stay_one_gate_where_the_table_has_it() -> None:
    assert operations(
        "qubit[9] q; ctrl(8) @ x " + ", ".join(f"q[{i}]" for i in range(9)) + ";"
    ) == [("mcx", tuple(range(9)), ())]


@pytest.mark.parametrize(
    ("text", "root", "times"),
    [
        ("pow(1/2.) @ x q;", "x", 2),
        ("pow(0.25) @ x q;", "x", 4),
        ("pow(0.5) @ y q;", "y", 2),
        ("pow(1/3.) @ h q;", "h", 3),
        ("pow(0.5) @ z q;", "z", 2),
        ("pow(-0.5) @ sx q;", "sxdg", 2),
        ("pow(0.2) @ s q;", "s", 5),
    ],
)
def test_a_real_power_is_a_root_of_the_gate(text: str, root: str, times: int) -> None:
    found = np.linalg.matrix_power(matrix("qubit q; " + text), times)
    np.testing.assert_allclose(found, gate(root).matrix(), atol=1e-12)


def test_a_real_power_takes_the_principal_branch() -> None:
    same("qubit q; pow(0.5) @ z q;", gate("s").matrix())
    same("qubit q; pow(0.5) @ p(-3) q;", np.diag([1, np.exp(-1.5j)]))
    same("qubit q; pow(0.5) @ p(4) q;", np.diag([1, np.exp(0.5j * (4 - 2 * math.pi))]))
    same("qubit q; pow(0.5) @ rx(0.8) q;", gate("rx").matrix(0.4))
    assert names("qubit q; pow(0.5) @ rx(0.8) q;") == ["rx"]


def test_a_real_power_of_a_definition_is_computed_from_its_matrix() -> None:
    g = "gate g a, b { h a; cx a, b; t b; swap a, b; } qubit[2] q; "
    whole = matrix(g + "g q[0], q[1];")
    third = matrix(g + "pow(1/3.) @ g q[0], q[1];")
    np.testing.assert_allclose(np.linalg.matrix_power(third, 3), whole, atol=1e-8)
    phases = np.angle(np.linalg.eigvals(third))
    assert np.abs(phases).max() <= math.pi / 3 + 1e-9


def test_a_real_power_of_a_controlled_gate_keeps_its_control() -> None:
    same("qubit[2] q; pow(0.5) @ cx q[0], q[1];", controlled(gate("sx").matrix()))
    same("qubit[3] q; pow(0.5) @ ccz q[0], q[1], q[2];", controlled(gate("s").matrix(), 2))


def test_an_integer_power_of_a_rotation_is_one_rotation() -> None:
    assert operations("qubit q; pow(-3) @ rz(0.2) q;")[0][2] == pytest.approx((-0.6,))
    assert names("qubit q; pow(3) @ h q; pow(0) @ x q;") == ["h", "h", "h"]


def test_a_register_broadcasts_and_single_qubits_repeat() -> None:
    text = STD + "qubit[3] a; qubit[3] b; qubit c; h a; cx a, b; cx c, a[{2, 0}];"
    found = operations(text)
    assert [op[1] for op in found[:3]] == [(0,), (1,), (2,)]
    assert [op[1] for op in found[3:6]] == [(0, 3), (1, 4), (2, 5)]
    assert [op[1] for op in found[6:]] == [(6, 2), (6, 0)]


def test_synthesis_gives_back_random_unitaries_with_their_phase() -> None:
    rng = np.random.default_rng(7)
    for size in (2, 4, 8):
        raw = rng.normal(size=(size, size)) + 1j * rng.normal(size=(size, size))
        unitary_matrix, _ = np.linalg.qr(raw)
        ops = synthesised(unitary_matrix, Node(1, 1))
        np.testing.assert_allclose(matrix_of(ops, size.bit_length() - 1), unitary_matrix, atol=1e-7)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("qubit q; foo q;", "no gate 'foo'"),
        ("qubit q; rxx(1) q;", "acts on 2 qubits, 1 were given"),
        ("qubit q; rx q;", "takes 1 angle, 0 were given"),
        ("qubit q; rx(1, 2) q;", "takes 1 angle, 2 were given"),
        ("qubit[2] q; cx q[0], q[0];", "same qubit twice"),
        ("qubit[2] a; qubit[3] b; cx a, b;", "different sizes: 2, 3"),
        ("qubit q; x q[2];", "out of range"),
        ("bit c; x c;", "'c' is not a qubit"),
        ("qubit q; rx(1ns) q;", "of type duration"),
        ("qubit q; rx(2im) q;", "of type complex"),
        ("qubit[2] q; ctrl(0) @ x q[0];", "at least one control"),
        ("qubit[2] q; ctrl(1.5) @ x q[0], q[1];", "must be an integer"),
        ("qubit q; bit c; c = measure q; rx(c) q;", "depends on a measurement"),
        ("input float a; qubit q; pow(0.5) @ rx(a) q;", "principal root"),
        ("qubit[4] q; gate g a,b,c,d { cx a,b; cx c,d; h a; } pow(0.5) @ g q[0],q[1],q[2],q[3];",
         "on 4 qubits"),
        ("gate g a { h b; }", "'b' is not a qubit of the gate 'g'"),
        ("gate g a { reset a; }", "a gate is unitary"),
        ("gate g a { g a; }", "calls itself"),
        ("gate f a { g a; } gate g a { f a; }", "no gate 'g'"),
        ("gate g(a, a) q { }", "'a' twice"),
        ("gate g a { h a[0]; }", "cannot be indexed"),
        ("qubit q; gate g a { h a; } gate g a { x a; }", "declared twice"),
        ("qubit q; x(1)[20ns] q;", "a duration on the gate"),
        ("qubit q; h[20ns] q;", "a duration on the gate"),
        ("OPENQASM 2.0; opaque g(a) q; qreg q[1]; g(1) q[0];", "the opaque gate 'g'"),
        ("qubit q; h $0;", "physical"),
    ],
)  # fmt: skip
def test_a_wrong_gate_is_an_error_that_says_why(text: str, what: str) -> None:
    assert what in str(error(text))


def test_the_library_holds_no_gate_of_the_table() -> None:
    from qcomp.frontends.openqasm.gates import library
    from qcomp.ir.gates import BY_NAME

    assert not set(library()) & set(BY_NAME)
    text = (Path(__file__).parents[2] / "frontends/openqasm/library.inc").read_text()
    assert text.count("gate ") - text.count("the gate table") >= len(library())


def test_physical_qubits_are_wires_by_their_number() -> None:
    circuit = read("x $2; cx $0, $5;")
    assert circuit.num_qubits == 6
    assert [q for _, q, _ in circuit.run.operations()] == [(2,), (0, 5)]


def test_expansions_are_forgotten_before_they_fill_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from qcomp.frontends.openqasm import gates

    monkeypatch.setattr(gates, "MAX_REMEMBERED", 10)
    text = "gate g(a) q { rz(a) q; h q; rz(2 * a) q; } qubit q; "
    calls = [f"g({i}) q;" for i in (1, 2, 3, 4, 1, 2)]
    found = [op[2][0] for op in operations(text + " ".join(calls)) if op[0] == "rz"]
    assert found == [1, 2, 2, 4, 3, 6, 4, 8, 1, 2, 2, 4]
