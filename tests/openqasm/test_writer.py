"""What is written is read back, by the project's own reader and by others' tools."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import openqasm3
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcomp.backends.openqasm3 import runs
from qcomp.backends.openqasm3.expressions import expression_text
from qcomp.backends.openqasm3.profiles import PROFILES
from qcomp.backends.openqasm3.writer import write_bytes, write_file, write_text
from qcomp.errors import QcompError, TargetError
from qcomp.frontends.openqasm.reader import read_text
from qcomp.frontends.openqasm.scanner import scan
from qcomp.ir.angle import Angle, Parameter, pi_fraction
from qcomp.ir.blocks import Block, Box, Delay, Duration, If, Range, While, walk_items
from qcomp.ir.circuit import Circuit, RegisterDecl
from qcomp.ir.classical import (
    Binary,
    Bit,
    Call,
    Cast,
    ClassicalVar,
    Expr,
    Lit,
    Memory,
    Register,
    Unary,
    VarRef,
    evaluate,
)
from qcomp.ir.gates import GATES, G
from qcomp.ir.run import Run
from qcomp.simulate import unitary
from tests.generators import branching_circuit, straight_circuit

SEEDS = range(12)


@pytest.fixture(params=["plain", "compiled"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write runs of any length with one form of the printer."""
    monkeypatch.setattr(runs, "KERNEL_THRESHOLD", 0 if request.param == "compiled" else 10**9)
    return str(request.param)


def up_to_phase(a: np.ndarray, b: np.ndarray) -> float:  # type: ignore[type-arg]
    """Largest difference of two matrices after the best global phase."""
    overlap = np.vdot(a, b)
    return float(np.abs(a * (overlap / abs(overlap)) - b).max())


def assert_alike(a: Circuit, b: Circuit) -> None:
    """Same declarations, tree and operations; angles to rounding, as the grammar adds in floats."""
    assert (a.num_qubits, a.num_clbits, a.params) == (b.num_qubits, b.num_clbits, b.params)
    assert (a.qregs, a.cregs, a.variables) == (b.qregs, b.cregs, b.variables)
    for one, two in zip(walk_items(a.body), walk_items(b.body), strict=True):
        assert type(one) is type(two)
        if isinstance(one, Run) and isinstance(two, Run):
            np.testing.assert_array_equal(one.code, two.code)
            np.testing.assert_array_equal(one.qubit, two.qubit)
            np.testing.assert_array_equal(one.extra, two.extra)
            params = np.linspace(0.1, 1.0, a.num_params)
            turns = (a.angles_for(params, one) - b.angles_for(params, two)) / (4 * np.pi)
            assert np.abs(turns - np.rint(turns)).max(initial=0.0) < 1e-12
        elif isinstance(one, If | While):
            assert isinstance(two, If | While)
            assert one.condition == two.condition


def bound(circuit: Circuit) -> Circuit:
    return circuit.bind({name: 0.3 + i for i, name in enumerate(circuit.params)})


# --- full ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_full_text_is_openqasm_3_to_the_reference_parser(seed: int, form: str) -> None:
    for circuit in (straight_circuit(seed), branching_circuit(seed)):
        openqasm3.parse(write_text(circuit))


@pytest.mark.parametrize("seed", SEEDS)
def test_full_text_of_control_flow_is_read_back_with_the_same_text(seed: int, form: str) -> None:
    once = read_text(write_text(branching_circuit(seed)))
    assert_alike(read_text(write_text(once)), once)


@pytest.mark.parametrize("seed", SEEDS)
def test_qiskit_reads_full_text_with_the_same_unitary(seed: int) -> None:
    qiskit_import = pytest.importorskip("qiskit_qasm3_import")
    from qiskit.quantum_info import Operator

    circuit = bound(straight_circuit(seed, 25))
    text = write_text(circuit)
    assert np.allclose(Operator(qiskit_import.parse(text)).data, unitary(circuit), atol=1e-9)


def every_gate() -> Circuit:
    """Each gate of the table once, on many angles."""
    circuit = Circuit(5, params=("theta", "phi"))
    theta, phi = Parameter("theta"), Parameter("phi")
    angles = [pi_fraction(3, 8), Angle.of(-0.1), 2 * theta - phi / 3 + pi_fraction(1, 4), theta]
    for row in GATES:
        if row.is_unitary or row.name == "mcx":
            size = row.num_qubits if row.num_qubits >= 0 else 5
            circuit.append(row.name, range(size), angles[: row.num_angles])
    return circuit


def test_every_gate_of_the_table_reads_back_identical(form: str) -> None:
    circuit = every_gate()
    text = write_text(circuit)
    assert read_text(text).equals(circuit)
    with_flow = text + "\nif (true) { x q[0]; }\n"
    again = read_text(with_flow)
    assert [g for g, _, _ in again.runs()[0].operations()][: len(circuit)] == [
        g for g, _, _ in circuit.run.operations()
    ]


def test_the_text_is_what_a_person_would_write() -> None:
    circuit = Circuit(3, 2, params=("theta",), name="small")
    theta = Parameter("theta")
    circuit.gphase(pi_fraction(1, 8))
    circuit.h(0).rz(0.5 * theta + pi_fraction(1, 4), 1).rz(-theta, 1).u(
        0.1, pi_fraction(-3, 8), 0, 2
    )
    circuit.rzz(pi_fraction(1), 0, 1).mcx([0, 1], 2).barrier(0, 2).reset(0).measure(1, 0)
    with circuit.if_(Binary("==", Bit(0), Lit(1))):
        circuit.x(0).delay(Duration(100, "ns"), 0)
    with circuit.else_():
        circuit.gphase(0.25)
    assert write_text(circuit) == (
        "OPENQASM 3.0;\n"
        'include "stdgates.inc";\n'
        "gate rzz(p0) a, b { cx a, b; rz(p0) b; cx a, b; }\n"
        "input float[64] theta;\n"
        "qubit[3] q;\n"
        "bit[2] c;\n"
        "gphase(pi/8);\n"
        "h q[0];\n"
        "rz(0.5*theta + pi/4) q[1];\n"
        "rz(-theta) q[1];\n"
        "U(0.1, -3*pi/8, 0.0) q[2];\n"
        "rzz(pi) q[0], q[1];\n"
        "ccx q[0], q[1], q[2];\n"
        "barrier q[0], q[2];\n"
        "reset q[0];\n"
        "c[0] = measure q[1];\n"
        "if (c[0] == 1) {\n"
        "  x q[0];\n"
        "  delay[100ns] q[0];\n"
        "} else {\n"
        "  gphase(0.25);\n"
        "}\n"
    )


def test_registers_and_parameters_keep_their_names_and_order(form: str) -> None:
    circuit = Circuit(
        5,
        3,
        params=("zeta", "alpha"),
        qregs=(RegisterDecl("left", 2, 0), RegisterDecl("ρ", 3, 2)),
        cregs=(RegisterDecl("m", 1, 0), RegisterDecl("out", 2, 1)),
    )
    circuit.rx(Parameter("alpha") - 2.5 * Parameter("zeta"), 3).measure(4, 2)
    text = write_text(circuit)
    again = read_text(text)
    assert again.equals(circuit)
    assert (again.qregs, again.cregs, again.params) == (
        circuit.qregs,
        circuit.cregs,
        circuit.params,
    )
    assert "rx(-2.5*zeta + alpha) ρ[1];" in text


def test_names_that_a_text_cannot_have_are_changed_and_told(tmp_path: Path) -> None:
    circuit = Circuit(1, params=("x", "x_", "in", "2th"), qregs=(RegisterDecl("h", 1, 0),))
    circuit.rz(Parameter("x") + Parameter("x_"), 0).h(0)
    changed = write_file(circuit, tmp_path / "a.qasm")
    assert changed == {"x": "x__", "in": "in_", "2th": "_2th", "h": "h_"} or changed == {
        "x": "x_", "x_": "x__", "in": "in_", "2th": "_2th", "h": "h_"
    }  # fmt: skip
    again = read_text((tmp_path / "a.qasm").read_text())
    assert len(again.params) == 4
    assert np.allclose(unitary(again, [0.1, 0.2, 0.3, 0.4]), unitary(circuit, [0.1, 0.2, 0.3, 0.4]))


def test_both_forms_of_the_printer_write_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    circuit = every_gate()
    rng = np.random.default_rng(0)
    for value in rng.uniform(-7, 7, 300).tolist():
        circuit.rz(value, 0).rz(value * 1e-9, 1).rz(value * 1e17, 2)
    for k in range(62):
        circuit.append("rz", (0,), (Angle((1 << k) - (k > 60) * (1 << 62)),))
        circuit.append("rz", (0,), (Angle(-((1 << k) // 3), 0.5, (("phi", -1.0),)),))
    circuit.barrier().reset(2)
    for name in ("full", "qasm2", "portable-param"):
        texts = []
        for threshold in (0, 10**9):
            monkeypatch.setattr(runs, "KERNEL_THRESHOLD", threshold)
            plain = circuit if name != "qasm2" else bound(circuit)
            if name == "portable-param":
                plain = circuit.map_runs(lambda run: run.select(run.code != G.RESET))
            texts.append(write_bytes(plain, name))
        assert texts[0] == texts[1]
    full = write_bytes(circuit)
    again = scan(full)
    assert again is not None
    assert again.equals(circuit)


def test_a_line_longer_than_the_buffer_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "KERNEL_THRESHOLD", 0)
    monkeypatch.setattr(runs, "_BUFFER", 64)
    circuit = Circuit(300)
    circuit.h(0).barrier().h(1)
    again = scan(write_bytes(circuit))
    assert again is not None
    assert again.equals(circuit)


@settings(max_examples=200, deadline=None)
@given(st.floats(-50, 50), st.integers(-(1 << 61), (1 << 61) - 1))
def test_any_angle_reads_back_bit_by_bit(value: float, units: int) -> None:
    circuit = Circuit(1)
    circuit.rz(value, 0)
    circuit.append("rz", (0,), (Angle(units),))
    again = scan(write_bytes(circuit))
    assert again is not None
    assert again.equals(circuit)


# --- other profiles ------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_portable_text_has_only_what_every_reader_takes(seed: int, form: str) -> None:
    circuit = bound(straight_circuit(seed, 25))
    text = write_text(circuit, "portable")
    openqasm3.parse(text)
    again = scan(text)
    assert again is not None
    assert {name for name, _, _ in again.run.operations()} <= PROFILES["portable"].gates
    assert "pi" not in text.replace("include", "")
    assert up_to_phase(unitary(again), unitary(circuit)) < 1e-9


@pytest.mark.parametrize("seed", SEEDS)
def test_portable_text_with_parameters_keeps_them(seed: int) -> None:
    circuit = straight_circuit(seed, 25)
    again = scan(write_text(circuit, "portable-param"))
    assert again is not None
    assert again.params == circuit.params
    assert up_to_phase(unitary(again, [0.7, -1.1]), unitary(circuit, [0.7, -1.1])) < 1e-9


@pytest.mark.parametrize("seed", SEEDS)
def test_qiskit_reads_openqasm_2_text_with_the_same_unitary(seed: int, form: str) -> None:
    from qiskit import qasm2
    from qiskit.quantum_info import Operator

    circuit = bound(straight_circuit(seed, 25))
    text = write_text(circuit, "qasm2")
    loaded = qasm2.loads(text, custom_instructions=qasm2.LEGACY_CUSTOM_INSTRUCTIONS)
    assert up_to_phase(Operator(loaded).data, unitary(circuit)) < 1e-9
    again = read_text(text)
    assert up_to_phase(unitary(again), unitary(circuit)) < 1e-9


def test_portable_measurements_stand_at_the_end_as_one() -> None:
    circuit = Circuit(2, 2)
    circuit.h(0).barrier().measure(0, 0).h(1).measure(1, 1)
    text = write_text(circuit, "portable")
    assert text.endswith("h q[1];\nc = measure q;\n")
    assert "barrier" not in text


def test_portable_measurements_of_some_qubits_are_indexed() -> None:
    circuit = Circuit(3, 2)
    circuit.h(0).measure(2, 0).measure(0, 1)
    assert write_text(circuit, "portable").endswith("c[0] = measure q[2];\nc[1] = measure q[0];\n")


def mid_measurement() -> Circuit:
    return Circuit(1, 1).h(0).measure(0, 0).h(0)


def conditional() -> Circuit:
    circuit = Circuit(1, 1)
    with circuit.if_(Bit(0)):
        circuit.x(0)
    return circuit


REFUSED: list[tuple[Callable[[], Circuit], str, str]] = [
    (mid_measurement, "portable", "at the end only"),
    (lambda: Circuit(1).reset(0), "portable", "reset"),
    (conditional, "portable", "if (1)"),
    (conditional, "qasm2", "if (1)"),
    (lambda: Circuit(1).rz(Parameter("t1"), 0), "portable", "t1"),
    (lambda: Circuit(1).rz(Parameter("t1"), 0), "qasm2", "t1"),
    (lambda: Circuit(2).h(0).h(1).cx(0, 1), "ibm", "cx (1), h (2)"),
    (lambda: Circuit(1).rz(Angle(0, float("inf")), 0), "full", "not finite"),
    (lambda: Circuit(1), "nope", "no OpenQASM profile 'nope'"),
]


@pytest.mark.parametrize(("make", "profile", "told"), REFUSED)
def test_what_a_profile_cannot_say_is_named(
    make: Callable[[], Circuit], profile: str, told: str
) -> None:
    with pytest.raises(TargetError) as caught:
        write_text(make(), profile)
    assert told in str(caught.value)


def test_ibm_text_has_the_basis_decimals_and_plain_conditions() -> None:
    circuit = Circuit(2, 1)
    circuit.rz(pi_fraction(1, 4), 0).sx(0).cz(0, 1).x(1).measure(0, 0)
    with circuit.if_(Binary("==", Bit(0), Lit(1))):
        circuit.x(1)
    with circuit.if_(Binary("==", Bit(0), Lit(0))):
        circuit.x(0)
    text = write_text(circuit, "ibm")
    assert "rz(0.7853981633974483) q[0];" in text
    assert "if (c[0]) {" in text
    assert "if (!c[0]) {" in text
    loaded = pytest.importorskip("qiskit_qasm3_import").parse(text)
    assert loaded.count_ops()["if_else"] == 2


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "c.qasm"
    path.write_text("old")
    with pytest.raises(TargetError):
        write_file(conditional(), path, "portable")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["c.qasm"]
    with pytest.raises(QcompError):
        write_file(conditional(), tmp_path / "c.qasm" / "x.qasm")


# --- classical expressions -----------------------------------------------------------------

NAMES: dict[str, int] = {"u": 5, "v": 3}
INTEGERS = st.one_of(
    st.builds(Lit, st.integers(0, 9)),
    st.builds(Bit, st.integers(0, 2)),
    st.sampled_from([VarRef("u"), VarRef("v"), Register("c")]),
)


def combined(parts: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
    operators = ["+", "-", "*", "&", "|", "^", "<<", ">>", "==", "!=", "<", "<=", "&&", "||"]
    return st.one_of(
        st.builds(Binary, st.sampled_from(operators), parts, parts),
        st.builds(Unary, st.sampled_from(["-", "!"]), parts),
        st.builds(lambda a: Cast("uint", 8, a), parts),
        st.builds(lambda a: Call("popcount", (Cast("uint", 8, a),)), parts),
    )


EXPRESSIONS: st.SearchStrategy[Expr] = st.recursive(INTEGERS, combined, max_leaves=8)


@settings(max_examples=300, deadline=None)
@given(EXPRESSIONS)
def test_brackets_keep_the_meaning_of_an_expression(expr: Expr) -> None:
    text = expression_text(expr, lambda i: f"c{i}", lambda name: name)
    openqasm3.parse(f"v = {text};")
    scope: dict[str, object] = {"u": 5, "v": 3, "c": 5, "c0": 1, "c1": 0, "c2": 1}
    scope["uint"] = [0] * 8 + [lambda value: int(value) & 255]
    scope["popcount"] = lambda value: int(value).bit_count()
    memory = Memory([1, 0, 1], {"c": (0, 3)}, {"u": 5, "v": 3})
    try:
        meant = evaluate(expr, memory)
    except QcompError:
        return
    # Python binds like OpenQASM 3 but for !, &&, || and comparisons, which get brackets here.
    python = _python(openqasm3.parse(f"v = {text};").statements[0].rvalue)
    assert int(eval(python, scope)) == int(meant)  # noqa: S307  the text of the test's own


def _python(node: object) -> str:
    """The reference parser's tree as bracketed Python."""
    from openqasm3 import ast

    match node:
        case ast.IntegerLiteral(value=value):
            return str(value)
        case ast.Identifier(name=name):
            return name
        case ast.UnaryExpression(op=op, expression=inner):
            return f"({'not ' if op.name == '!' else op.name} {_python(inner)})"
        case ast.BinaryExpression(op=op, lhs=left, rhs=right):
            sign = {"&&": "and", "||": "or"}.get(op.name, op.name)
            text = f"({_python(left)} {sign} {_python(right)})"
            return f"bool{text}" if sign in ("and", "or") else text
        case ast.Cast(argument=inner):
            return f"uint[8]({_python(inner)})"
        case ast.FunctionCall(arguments=[inner]):
            return f"popcount({_python(inner)})"
    raise AssertionError(node)


def test_all_of_control_flow_reads_back_with_the_same_text() -> None:
    circuit = Circuit(3, 3, params=("a",), variables=(ClassicalVar("n", "uint", 8),))
    a = Parameter("a")
    circuit.assign(VarRef("n"), Lit(0))
    circuit.measure(0, 0).measure(1, 1)
    with circuit.while_(Binary("<", VarRef("n"), Lit(3))):
        circuit.rx(a, 1).measure(1, 1)
        circuit.assign(VarRef("n"), Binary("+", VarRef("n"), Lit(1)))
        with circuit.if_(Bit(1)):
            circuit.break_()
        with circuit.else_():
            circuit.continue_()
    blocks: list[Block] = []
    with circuit.capture(blocks):
        circuit.y(0)
    with circuit.capture(blocks):
        circuit.rz(2 * a, 0).gphase(0.5)
    circuit.switch(Register("c"), [((0, 3), blocks[0])], blocks[1])
    with circuit.box(Duration(1.5, "us")):
        circuit.x(0)
    circuit.append_item(Delay(Duration(20, "dt"), (0, 2)))
    circuit.append_item(Box(()))
    with circuit.for_(ClassicalVar("i", "int", 32), Range(Lit(0), VarRef("n"), Lit(2))):
        circuit.x(2)
    text = write_text(circuit)
    openqasm3.parse(text)
    again = read_text(text)
    assert write_text(again) == write_text(read_text(write_text(again)))
    for line in (
        "uint[8] n;", "while (n < 3) {", "break;", "continue;", "switch (c) {", "case 0, 3 {",
        "default {", "box[1.5us] {", "delay[20dt] q[0], q[2];", "for int[32] i in [0:2:n] {",
        "n = n + 1;",
    ):  # fmt: skip
        assert line in text
