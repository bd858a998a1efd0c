"""The compiled scanner against the grammar: what it takes, it takes as the grammar does."""

import mmap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from qcomp.backends.openqasm3.writer import write_bytes
from qcomp.frontends.openqasm import scanner
from qcomp.frontends.openqasm.scanner import scan, scan_file
from qcomp.ir.angle import PI, Angle, Parameter, pi_fraction
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import G
from qcomp.ir.verify import verify
from tests.generators import straight_circuit
from tests.openqasm.reading import reading

THREE = 'OPENQASM 3.0;\ninclude "stdgates.inc";\n'
TWO = 'OPENQASM 2.0;\ninclude "qelib1.inc";\n'


@pytest.fixture(params=["plain", "compiled"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the test on both forms of the kernel, whatever the size of the text."""
    least = 0 if request.param == "compiled" else 10**9
    monkeypatch.setattr(scanner, "KERNEL_THRESHOLD", least)
    monkeypatch.setattr(scanner, "LOADED_THRESHOLD", least)
    return str(request.param)


def assert_whole_turns(turns: NDArray[np.float64]) -> None:
    assert np.abs(turns - np.rint(turns)).max(initial=0.0) < 1e-9


def assert_same(a: Circuit, b: Circuit) -> None:
    """Same declarations and operations; angles to rounding, as the grammar adds in floats."""
    assert (a.num_qubits, a.num_clbits, a.params) == (b.num_qubits, b.num_clbits, b.params)
    assert (a.qregs, a.cregs) == (b.qregs, b.cregs)
    one, two = a.run.normal(), b.run.normal()
    np.testing.assert_array_equal(one.code, two.code)
    np.testing.assert_array_equal(one.qubit, two.qubit)
    np.testing.assert_array_equal(one.extra, two.extra)
    assert_whole_turns((one.frac - two.frac) / (4 * PI) + (one.rem - two.rem) / (4 * np.pi))
    np.testing.assert_array_equal(
        a.forms.dense(one.form, a.num_params), b.forms.dense(two.form, b.num_params)
    )
    assert a.global_phase.terms == b.global_phase.terms
    one_phase, two_phase = a.global_phase, b.global_phase
    units, radians = one_phase.frac - two_phase.frac, one_phase.rem - two_phase.rem
    assert_whole_turns(np.array([units / (4 * PI) + radians / (4 * np.pi)]))


def taken(text: str | bytes) -> Circuit:
    circuit = scan(text)
    assert circuit is not None
    verify(circuit)
    return circuit


def angle_of(expression: str, head: str = THREE, params: str = "") -> Angle:
    circuit = taken(f"{head}{params} qreg q[1]; rz({expression}) q[0];")
    run = circuit.run
    terms = circuit.forms.row(int(run.form[0]))
    return Angle(
        int(run.frac[0]), float(run.rem[0]), tuple((circuit.params[c], v) for c, v in terms)
    )


def named(circuit: Circuit) -> Circuit:
    """Call X with at most two controls x, cx, ccx, as a text does."""
    new = Circuit(circuit.num_qubits, circuit.num_clbits, circuit.params, circuit.name)
    new.forms, new.global_phase = circuit.forms, circuit.global_phase
    for index, (name, qubits, _) in enumerate(circuit.run.operations()):
        if name == "mcx" and len(qubits) <= 3:
            new.append(("x", "cx", "ccx")[len(qubits) - 1], qubits)
        else:
            new.append_item(circuit.run.select(np.array([index])))
    return new


PROGRAMS = [
    THREE + "qubit[3] q; bit[3] c; h q; cx q[0], q[1]; c = measure q;",
    THREE + "qubit a; qubit[2] b; bit m; cx a, b; m = measure a; reset b; barrier a, b; barrier;",
    THREE + "qubit[4] q; ctrl(3) @ x q[3], q[0], q[2], q[1]; gphase(pi/8); U(1, 2.5, -pi) q[1];",
    THREE + "input float[64] th; input float w; qubit[2] q; gphase(th); gphase(0.5);"
    " rz(-2*th + w/4 + 3*pi/8) q[0]; cu(th, w, th, 0.1) q[1], q[0]; p(w*0.5) q[1]; p(w) q;",
    THREE + "/* c */ qubit[2] q; // comment ; x q[9];\n x/**/q[0]; y q[1] ;\n/* ; */ z q [ 1 ] ;",
    THREE + "qreg q[2]; creg c[2]; measure q[1] -> c[0]; measure q -> c; rz(π) q[0];",
    THREE + "qubit[2] q; u1(0.25) q[0]; u2(0, pi) q[1]; u3(1e-3, .5, 5.) q[0]; phase(1) q;",
    THREE
    + "gate rzz(a) x1, y1 { cx x1, y1; rz(a) y1; cx x1, y1; } qubit[2] q; rzz(pi/2) q[0], q[1];",
    TWO + "qreg q[2];qreg r[2];creg c[2];u3(0.1,0.2,0.3) q[0];u2(0.1,-pi/2) r;cx q,r;cx q[0],r;"
    "barrier q,r[1];measure q->c;reset r;cu3(1,2,3) q[0],q[1];cu1(pi/2) q[0],r[0];",
    TWO
    + "qreg q[5]; c3x q[0],q[1],q[2],q[3]; c4x q[4],q[1],q[2],q[3],q[0]; rz(1/2) q[0];"
    "rz(3*(1)) q[1];".replace("3*(1)", "3*1")
    + "CX q[0],q[1]; U(0,0,pi/4) q[2]; sx q[1];",
    "OPENQASM 3;qubit[2] q;U(pi,0,pi) q[0];gphase(0.25);",
    "OPENQASM 3.1;" + THREE.partition("\n")[2] + "qubit q;h q;",
    "// first\nOPENQASM 2.0;\nqreg q[1];\nU(0,0,0) q[0];",
]


@pytest.mark.parametrize("text", PROGRAMS)
def test_programs_of_the_subset_are_taken_as_the_grammar_reads_them(text: str, form: str) -> None:
    assert_same(taken(text), reading(text).circuit)


OUTSIDE = [
    "qubit[2] q; h q[0];",
    THREE + "qubit[2] q; h q[2];",
    THREE + "qubit[2] q; h q[0]",
    THREE + "qubit[2] q; cx q[0], q[0];",
    THREE + "qubit[2] q; qubit[3] r; cx q, r;",
    THREE + "qubit[2] q; rz q[0];",
    THREE + "qubit[2] q; h(0.5) q[0];",
    THREE + "qubit[2] q; rz(1/2) q[0];",
    THREE + "qubit[2] q; rz(sin(1)) q[0];",
    THREE + "qubit[2] q; rz(1e999) q[0];",
    THREE + "qubit[2] q; rz(+1) q[0];",
    THREE + "qubit[2] q; rz(1e200*1e200) q[0];",
    THREE + "qubit[2] q; rz(1e200/1e-200) q[0];",
    THREE + "qubit[2] q; rz(9e299 + 9e299) q[0];",
    THREE + "qubit[2] q; rz(9007199254740993) q[0];",
    THREE + "qubit[2] q; rz(2**3) q[0];",
    THREE + "qubit[2] q; rz(pi/0) q[0];",
    THREE + "qubit[2] q; rz(0x1f) q[0];",
    THREE + "qubit[2] q; rz(1.5.2) q[0];",
    THREE + "qubit[2] q; rz(1e) q[0];",
    THREE + "qubit[2] q; rz(theta) q[0];",
    THREE + "input float[64] t0; qubit q; rz(t0*t0) q;",
    THREE + "input float[64] t0; qubit q; rz(1/t0) q;",
    THREE + "qubit[2] q; if (true) { x q[0]; }",
    THREE + "qubit[2] q; q[0] = measure q[1];",
    THREE + "qubit[2] q; bit[3] c; c = measure q;",
    THREE + "qubit[2] q; bit[2] q;",
    THREE + "qubit[2] h; h h[0];",
    THREE + "qubit[2] if;",
    THREE + "qubit[0] q;",
    THREE + "qubit[99999999] q;",
    THREE + "qubit[2] q; /* open",
    THREE + "qubit[2] q; barrier q[0], q[0];",
    THREE + "qubit[2] q; rzz(1) q[0], q[1];",
    THREE + "gate rzz(a) x1, y1 { cx x1, y1; } qubit[2] q; rzz(pi/2) q[0], q[1];",
    THREE + "gate rzz(a) x1, y1 { qubit z1; cx x1, y1; rz(a) y1; cx x1, y1; } qubit q;",
    THREE + "gate mine a { h a; } qubit q; mine q;",
    THREE + 'include "stdgates.inc"; qubit q;',
    TWO + "qreg q[2]; if (c == 1) x q[0];",
    TWO + "qubit[2] q; x q[0];",
    TWO + "qreg q[2]; gphase(1);",
    TWO + "qreg q[2]; barrier;",
    TWO + "qreg Q[2];",
    TWO + "qreg q[5]; c3x q[0],q[1],q[2];",
    "OPENQASM 4.0; qubit q;",
    "",
    " ",
    "\xff",
]


@pytest.mark.parametrize("text", OUTSIDE)
def test_what_is_outside_the_subset_is_left_to_the_grammar(text: str, form: str) -> None:
    assert scan(text) is None


@pytest.mark.parametrize(
    ("expression", "angle"),
    [
        ("0", Angle()),
        ("pi", pi_fraction(1)),
        ("-pi/2", pi_fraction(-1, 2)),
        ("3*pi/4", pi_fraction(3, 4)),
        ("pi*3/4", pi_fraction(3, 4)),
        ("7*pi/1152921504606846976", Angle(7)),
        ("pi/3", Angle.of(np.pi / 3)),
        ("2*pi/6", Angle.of(2 * np.pi / 6)),
        ("6*pi/3", pi_fraction(2)),
        ("9*pi", pi_fraction(9)),
        ("0.5*pi", pi_fraction(1, 2)),
        ("1.5707963267948966", pi_fraction(1, 2)),
        ("0.78539816339744831", pi_fraction(1, 4)),
        ("0.7853981633974484", Angle.of(0.7853981633974484)),
        ("-0.1", Angle.of(-0.1)),
        ("pi/4 + 0.1", pi_fraction(1, 4) + 0.1),
        ("100.5", Angle.of(100.5)),
        ("0.1000000000000000055511151231257827021181583404541015625", Angle.of(0.1)),
        ("123456789012345678901234567890e-29", Angle.of(1.2345678901234568)),
        ("9007199254740993.0", Angle.of(9007199254740993.0)),
        ("4.9e-324", Angle.of(5e-324)),
        ("2.2250738585072011e-308", Angle.of(2.2250738585072011e-308)),
        ("1e-400", Angle()),
        ("1.25E+1", Angle.of(12.5)),
    ],
)
def test_angles_are_exact_where_they_can_be(expression: str, angle: Angle, form: str) -> None:
    assert angle_of(expression) == angle


@pytest.mark.parametrize(
    ("expression", "angle"),
    [
        ("a", Parameter("a")),
        ("-a", -Parameter("a")),
        ("2*a", 2 * Parameter("a")),
        ("a/4", Parameter("a") / 4),
        ("0.5*b + a - pi/4", Parameter("a") + 0.5 * Parameter("b") - pi_fraction(1, 4)),
        ("a - a", Angle()),
        ("a + b - a", Parameter("b")),
        ("pi*a", np.pi * Parameter("a")),
        ("0*a + 1.5", Angle.of(1.5)),
        ("a + a + 0.25", 2 * Parameter("a") + 0.25),
    ],
)
def test_angles_are_affine_in_the_inputs(expression: str, angle: Angle, form: str) -> None:
    assert angle_of(expression, params="input float[64] a; input float[64] b;") == angle


@settings(max_examples=300, deadline=None)
@given(st.floats(-1e300, 1e300), st.sampled_from(["r", "e", "f", "g"]))
def test_any_float_is_read_as_python_reads_it(value: float, style: str) -> None:
    text = repr(abs(value)) if style == "r" else f"{abs(value):.20{style}}"
    if "." not in text and "e" not in text:
        text += "."
    assert angle_of(text) == Angle.of(float(text))


SPACES = st.sampled_from(["", " ", "\n", "\t", " // c\n", "/* * / */"])
GAPS = st.sampled_from([" ", "\n", "\t ", " // c\n", "/**/ "])
NUMBERS = st.one_of(
    st.integers(0, 50).map(str),
    st.floats(0, 10).map(repr),
    st.sampled_from(["pi", "a", "b", "π", "1.", ".5", "1e-3", "tau", "sin(a)", "(pi)", "1/2"]),
)
OPERANDS = st.one_of(
    st.builds("q[{}]".format, st.integers(0, 3)), st.sampled_from(["q", "r", "r[0]", "c[0]"])
)


@st.composite
def statements(draw: st.DrawFn) -> str:
    kind = draw(st.integers(0, 9))
    gap, space = draw(GAPS), draw(SPACES)
    if kind == 0:
        return f"c[{draw(st.integers(0, 2))}]{space}={space}measure{gap}{draw(OPERANDS)};"
    if kind == 1:
        return f"measure{gap}{draw(OPERANDS)}{space}->{space}c[{draw(st.integers(0, 2))}];"
    if kind == 2:
        head = draw(st.sampled_from(["barrier", "reset", "ctrl(3) @ x"]))
        return f"{head}{gap}{','.join(draw(st.lists(OPERANDS, max_size=4)))};"
    name, qubits, angles = draw(
        st.sampled_from(
            [("h", 1, 0), ("rz", 1, 1), ("u2", 1, 2), ("u3", 1, 3), ("cx", 2, 0), ("cp", 2, 1),
             ("ccx", 3, 0), ("cu", 2, 4), ("rzz", 2, 1), ("nope", 1, 0), ("gphase", 0, 1)]
        )
    )  # fmt: skip
    operator = st.sampled_from(["*", "/", "+", "-", " - ", " * "])
    texts = []
    for _ in range(angles):
        text = draw(st.sampled_from(["", "-"])) + draw(NUMBERS)
        for _ in range(draw(st.integers(0, 2))):
            text += draw(operator) + draw(NUMBERS)
        texts.append(text)
    call = f"({space}{','.join(texts)})" if angles else ""
    return f"{name}{call}{gap}{(',' + space).join(draw(OPERANDS) for _ in range(qubits))}{space};"


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(statements(), max_size=4), st.booleans())
def test_whatever_is_taken_the_grammar_reads_alike(lines: list[str], two: bool) -> None:
    inputs = "" if two else "input float[64] a; input float[64] b;"
    text = (
        (TWO if two else THREE) + inputs + "qreg q[4]; qreg r[1]; creg c[3];\n" + "\n".join(lines)
    )
    circuit = scan(text)
    if circuit is not None:
        assert_same(circuit, reading(text).circuit)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(PROGRAMS), st.data())
def test_a_changed_byte_never_makes_it_take_what_the_grammar_refuses(
    text: str, data: st.DataObject
) -> None:
    source = bytearray(text.encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(source) - 1))
        source[at : at + data.draw(st.integers(0, 2))] = bytes(
            data.draw(st.lists(st.sampled_from(b" ;,()[]{}/*+-.0123eqxhpi=@\xcf\xff"), max_size=2))
        )
    circuit = scan(bytes(source))
    if circuit is not None:
        assert_same(circuit, reading(bytes(source)).circuit)


def test_every_file_of_the_corpus_that_is_taken_is_taken_as_the_grammar_reads_it(
    shared: Path, form: str
) -> None:
    count = 0
    for path in sorted((shared / "qasm3").glob("*.qasm")):
        data = path.read_bytes()
        circuit = scan(data)
        if circuit is not None:
            count += 1
            assert circuit.equals(reading(data).circuit), path.name
    assert count >= 90


def test_no_file_of_the_corpus_that_must_fail_is_taken(shared: Path) -> None:
    import json

    manifest = json.loads((shared / "qasm3" / "manifest.json").read_text())
    wrong = [entry["file"] for entry in manifest["files"] if entry["expected"] == "parse_error"]
    assert len(wrong) > 90
    assert [name for name in wrong if scan((shared / "qasm3" / name).read_bytes())] == []


@pytest.mark.parametrize("seed", range(40))
def test_a_written_circuit_is_taken_and_identical(seed: int, form: str) -> None:
    circuit = named(straight_circuit(seed, 80))
    assert taken(write_bytes(circuit)).equals(circuit)


def test_long_texts_and_mapped_files_grow_and_agree(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = []
    for i in range(60_000):
        kind = int(rng.integers(4))
        if kind == 0:
            lines.append(f"rz({float(rng.uniform(-9, 9))!r}) q[{i % 50}];")
        elif kind == 1:
            lines.append(f"ry(2*a + {float(rng.uniform())!r}) q[{i % 50}];")
        elif kind == 2:
            lines.append(f"cx q[{i % 50}], q[{(i + 1) % 50}];")
        else:
            lines.append(f"barrier q[{i % 50}], q[{(i + 1) % 50}];")
    # The dense end is what a guess from the beginning gets wrong: broadcasts and wide barriers.
    lines += ["h q;", "barrier q;", "rz(a) q;"] * 3000
    text = THREE + "input float[64] a;\nqubit[50] q;\n" + "\n".join(lines)
    circuit = taken(text)
    assert len(circuit) == 60_000 + 3000 * 101
    path = tmp_path / "long.qasm"
    path.write_text(text)
    steps: list[int] = []
    from_file = scan_file(path, advance=steps.append)
    assert from_file is not None
    assert from_file.equals(circuit)
    assert from_file.name == "long"
    assert sum(steps) == len(text)
    run = circuit.run
    first = int(np.flatnonzero(run.code == G.RZ)[0])
    line = next(line for line in lines if line.startswith("rz"))
    assert run.rem[run.angle[first]] == float(line[3 : line.index(")")])


def test_both_forms_of_the_kernel_give_the_same_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    text = write_bytes(straight_circuit(3, 300))
    monkeypatch.setattr(scanner, "KERNEL_THRESHOLD", 0)
    monkeypatch.setattr(scanner, "LOADED_THRESHOLD", 0)
    compiled = taken(text)
    monkeypatch.setattr(scanner, "KERNEL_THRESHOLD", 10**9)
    monkeypatch.setattr(scanner, "LOADED_THRESHOLD", 10**9)
    plain = taken(text)
    assert plain.equals(compiled)
    np.testing.assert_array_equal(plain.run.rem, compiled.run.rem)


def test_registers_that_multiply_the_gates_without_bound_are_left_to_the_grammar() -> None:
    head = THREE + "qubit[1000000] q;\n"
    for line in ("h q;", "barrier q;", "reset q;"):
        assert scan(head + line * 6) is None
        circuit = scan(head + line)
        assert circuit is not None
        assert circuit.stats().qubits == 1_000_000


def test_many_declarations_take_linear_time() -> None:
    lines = [f"qubit[2] r{i}; input float[64] w{i}; rz(w{i}) r{i}[1];" for i in range(4000)]
    circuit = scan(THREE + "\n".join(lines))
    assert circuit is not None
    assert circuit.num_qubits == 8000
    assert circuit.params[-1] == "w3999"
    assert circuit.forms.row(int(circuit.run.form[-1])) == ((3999, 1.0),)


def test_empty_and_missing_files_are_no_circuits(tmp_path: Path) -> None:
    (tmp_path / "empty.qasm").write_bytes(b"")
    assert scan_file(tmp_path / "empty.qasm") is None
    with pytest.raises(OSError, match=r"gone\.qasm"):
        scan_file(tmp_path / "gone.qasm")


def test_a_mapped_text_is_taken_like_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.qasm"
    path.write_text(PROGRAMS[0])
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        circuit = scan(mapped)
    assert circuit is not None
    assert circuit.equals(taken(PROGRAMS[0]))
