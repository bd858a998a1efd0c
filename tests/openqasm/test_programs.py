import os
from pathlib import Path

import numpy as np
import pytest

from qcomp.errors import SourceError
from qcomp.frontends.openqasm.reader import OpenQasmFrontend, read_text
from qcomp.ir.angle import Angle
from qcomp.ir.circuit import Circuit
from qcomp.ir.program import Readout, readout_of
from qcomp.ir.transform import operation_angles
from qcomp.simulate import sample, unitary
from tests.openqasm.reading import block_operations, error, names, operations, read, reading


def angle_of(text: str) -> Angle:
    circuit = read(text)
    return operation_angles(circuit, circuit.run, 0)[0]


# ---------------------------------------------------------------- inputs and outputs


def test_inputs_become_parameters_and_affine_angles_stay_symbolic() -> None:
    text = "input float a; input angle[16] b; qubit q; float x = 2 * a - b / 4; rx(x + pi/2) q;"
    angle = angle_of(text)
    assert angle.terms == (("a", 2.0), ("b", -0.25))
    assert float(angle.bind({"a": 0.0, "b": 0.0})) == np.pi / 2
    assert read(text).params == ("a", "b")


def test_an_array_of_inputs_becomes_a_parameter_for_each_element() -> None:
    text = "input array[float[64], 2, 2] w; qubit q; for int i in [0:1] rx(w[i][0] + w[i, 1]) q;"
    circuit = read(text)
    assert circuit.params == ("w_0_0", "w_0_1", "w_1_0", "w_1_1")
    assert operation_angles(circuit, circuit.run, 1)[0].terms == (("w_1_0", 1.0), ("w_1_1", 1.0))


def test_inputs_pass_through_gate_definitions_and_modifiers() -> None:
    text = "input float a; gate g(t) q { rz(t / 2) q; } qubit q; inv @ g(3 * a) q; pow(2) @ g(a) q;"
    circuit = read(text)
    found = [operation_angles(circuit, circuit.run, i)[0].terms for i in range(len(circuit.run))]
    assert found == [(("a", -1.5),), (("a", 1.0),)]


@pytest.mark.parametrize("angle", ["sin(a)", "a * a", "1 / a", "a ** 2", "a * b", "mod(a, 2)"])
def test_an_angle_that_is_not_affine_is_refused_and_says_so(angle: str) -> None:
    found = error(f"input float a; input float b; qubit q; rx({angle}) q;")
    assert "affine" in found.what
    assert "one more input" in found.hint


def test_an_integer_input_is_a_parameter_until_its_value_is_needed() -> None:
    text = "input int[8] n; qubit[4] q; int[8] m = n * 2; rx(m) q[0];"
    assert read(text).params == ("n",)
    indexed = "input int[8] n; input bit[2] c; qubit[4] q; x q[n]; if (c[1]) x q[0];"
    assert "inputs=" in error(indexed).hint
    assert [q for _, q, _ in operations(indexed, inputs={"n": 2, "c": 2})] == [(2,), (0,)]


def test_a_bit_input_without_a_value_may_stand_unused() -> None:
    assert names("input bool b; qubit q; x q;") == ["x"]
    assert "inputs={'b': ...}" in error("input bool b; qubit q; if (b) x q;").what


def test_a_value_for_no_input_is_an_error() -> None:
    with pytest.raises(SourceError, match="no input 'b'"):
        reading("input float a; qubit q; rx(a) q;", inputs={"b": 1.0})


def test_an_output_that_is_known_is_put_where_the_machine_returns_it() -> None:
    circuit = read('output int[8] n; output bit[2] c; n = 3; c = "10";')
    assert [v.name for v in circuit.variables] == ["n"]
    assert [r.name for r in circuit.cregs] == ["c"]
    assert len(circuit.body) == 2


# ---------------------------------------------------------------- subroutines and aliases


def test_subroutines_take_qubits_values_and_arrays() -> None:
    text = """
    const int n = 2;
    def twice(int[8] x) -> int[8] { return 2 * x; }
    def fill(mutable array[int[8], #dim = 1] a, int[8] v) { for int i in [0:n-1] { a[i] = v + i; } }
    def total(readonly array[int[8], 2] a) -> int[8] { return a[0] + a[1]; }
    def apply(qubit[2] q, angle t) { rx(t) q[0]; cx q[0], q[1]; }
    array[int[8], 2] a;
    array[int[8], 2, 2] b = {{1, 2}, {3, 4}};
    qubit[4] q;
    fill(a, twice(5));
    fill(b[1], 7);
    rx(total(a)) q[0];
    rx(b[1][1]) q[0];
    apply(q[{3, 1}], pi);
    """
    found = operations(text)
    assert [op[2][0] for op in found[:2]] == [21.0, 8.0]
    assert [(op[0], op[1]) for op in found[2:]] == [("rx", (3,)), ("cx", (3, 1))]


def test_a_subroutine_that_measures_returns_the_bit() -> None:
    text = """
    def flip_and_measure(qubit q) -> bit { x q; return measure q; }
    qubit[2] q; bit[2] c;
    c[0] = flip_and_measure(q[0]);
    if (flip_and_measure(q[1])) { reset q[1]; }
    c[1] = measure q[1];
    """
    circuit = read(text)
    start = next(r.start for r in circuit.cregs if r.name == "c")
    row = sample(circuit, None, 1, np.random.default_rng(0))[0][0]
    assert row[start : start + 2].tolist() == [1, 0]


def test_aliases_slice_and_join_registers() -> None:
    text = """
    qubit[3] a; qubit[2] b; bit[2] c; bit[2] d;
    let whole = a[1:2] ++ b; let last = whole[-1]; let bits = d ++ c;
    x whole[0]; y last; z whole;
    bits[0:1] = measure b;
    """
    found = operations(text)
    assert [op[1] for op in found[:6]] == [(1,), (4,), (1,), (2,), (3,), (4,)]
    circuit = read(text)
    measured = circuit.run.qubit[-2:, :2].tolist()
    assert measured == [[3, 2], [4, 3]]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("def f(int a) {} f();", "takes 1 argument, 0 were given"),
        ("def f(qubit[2] q) {} qubit q; f(q);", "takes 2 qubits, 1 were given"),
        ("def f(qubit a, qubit b) {} qubit q; f(q, q);", "same qubit twice"),
        ("def f() -> int { } int x = f();", "without a return"),
        ("def f() { } int x = f();", "without a return type"),
        ("def f() { return 1; } f();", "without a return type"),
        ("def f() -> int { return; } f();", "int is needed"),
        ("def f() { f(); } f();", "levels deep"),
        ("def f(mutable array[int, 2] a) {} array[int, 3] b; f(b);", "shape"),
        ("def f(readonly array[int, 2] a) { a[0] = 1; } array[int, 2] b; f(b);", "constant"),
        ("def f(readonly array[int, #dim=2] a) {} array[int, 2] b; f(b);", "of 2 dimensions"),
        ("def f(readonly array[int, 2] a) {} array[uint, 2] b; f(b);", "array of int"),
        ("int x; x(1);", "not a subroutine"),
        ("extern f(int) -> int; int x = f(1);", "a call of the extern 'f' (1, first at line 1)"),
        ("qubit[2] q; let a = q[0] ++ q[1];", "joins registers"),
        ("int x; let a = x;", "neither qubits nor bits"),
        ("qubit[2] q; let a = q ++ q;", "twice"),
        ("qubit[2] q; bit c; c = measure q;", "2 qubits are measured into 1 bit"),
        ("qubit q; int n; n = 1; pi = 2;", "not declared"),
        ("bit[2] c; reset c;", "not a qubit"),
        ("qubit q; measure q -> d;", "'d' is not declared"),
        ("bit c; delay[5dt] c;", "not a qubit"),
        ("qubit[2] q; delay[5dt] q, q[0];", "same qubit twice"),
        ("qubit q; x $0;", "physical qubits and declared qubits"),
        ("stretch g; qubit q; delay[g] q; box { }", "stretch (1, first at line 1)"),
        ("qubit q; duration d = durationof({ x q; });", "durationof"),
        ("bit c; c = measure_fast q;", "the measuring defcal 'measure_fast'"),
    ],
)
def test_what_cannot_be_run_is_refused_by_name(text: str, what: str) -> None:
    assert what in str(error(text))


def test_all_unsupported_constructs_are_listed_with_their_counts() -> None:
    found = error("""
    stretch a; stretch b;
    extern f() -> int;
    int x = f();
    cal { }
    defcal y $0 { }
    """)
    for part in ("stretch (2", "a call of the extern 'f' (1", "cal (1", "defcal (1"):
        assert part in found.what
    assert found.line == 2


# ---------------------------------------------------------------- includes


def test_files_in_the_folder_are_included_once_and_in_order(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "inner.inc").write_text("gate g q { x q; }")
    (tmp_path / "outer.inc").write_text('include "sub/inner.inc"; gate h2 q { g q; g q; }')
    main = tmp_path / "main.qasm"
    main.write_text('OPENQASM 3.0; include "stdgates.inc"; include "outer.inc"; qubit q; h2 q;')
    circuit = OpenQasmFrontend().read(main).only_circuit
    assert [op[0] for op in block_operations(circuit, circuit.body)] == ["x", "x"]
    assert circuit.name == "main"


def test_an_include_cannot_leave_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    secret = tmp_path / "secret.inc"
    secret.write_text("gate g q { x q; }")
    os.symlink(secret, folder / "link.inc")
    os.symlink(tmp_path, folder / "up")
    for path in ("../secret.inc", str(secret), "link.inc", "up/secret.inc", "sub/../../secret.inc",
                 "C:/secret.inc", "..\\\\secret.inc"):  # fmt: skip
        found = error(f'include "{path}";', folder=folder)
        assert "leaves the source's folder" in found.what, path
        assert "x q" not in str(found)


@pytest.mark.parametrize(
    ("files", "main", "what"),
    [
        ({}, 'include "nothing.inc";', "is not there"),
        ({"a.inc": 'include "a.inc";'}, 'include "a.inc";', "includes itself"),
        ({"a.inc": 'include "b.inc";', "b.inc": 'include "a.inc";'}, 'include "a.inc";',
         "includes itself"),
        ({"a.inc": ""}, 'include "a.inc"; include "a.inc";', "included twice"),
        ({}, 'include "stdgates.inc"; include "stdgates.inc";', "included twice"),
        ({}, 'if (true) { include "stdgates.inc"; }', "globally"),
    ],
)  # fmt: skip
def test_a_wrong_include_is_an_error(
    tmp_path: Path, files: dict[str, str], main: str, what: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert what in str(error(main, folder=tmp_path))


def test_an_error_in_an_included_file_names_the_file_and_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.inc").write_text("gate g q {\n  foo q;\n}")
    found = error('qubit q;\ninclude "a.inc";', folder=tmp_path)
    assert (found.line, found.column) == (2, 3)
    assert "a.inc, line 2, column 3, included at line 2, column 1" in found.where


def test_text_without_a_folder_includes_no_file() -> None:
    assert "no folder" in str(error('include "a.inc";'))


# ---------------------------------------------------------------- pragmas and feed-forward


def test_braket_expectations_become_observables() -> None:
    text = """
    qubit[3] q; h q[0];
    #pragma braket result expectation x(q[2])
    #pragma braket result expectation z(q[0]) @ y(q[1])
    """
    program = OpenQasmFrontend().read(text)
    readout = readout_of(program.circuit_nodes()[0])
    assert readout.kind == "expval"
    assert [str(o) for o in readout.observables] == ["X2", "Z0*Y1"]


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ("probability", Readout("probs", order=(1, 0))),
        ("probability all", Readout("probs", order=(1, 0))),
        ("state_vector", Readout("state", order=(1, 0))),
        ("density_matrix", Readout("probs")),
    ],
)
def test_braket_results_become_a_readout_in_their_own_order(result: str, expected: Readout) -> None:
    text = f"qubit[2] q; h q[0]; x q[1];\n#pragma braket result {result}\n"
    program = OpenQasmFrontend().read(text)
    assert readout_of(program.circuit_nodes()[0]) == expected
    noted = [note for note in program.notes if "result" in note]
    assert bool(noted) == (result == "density_matrix")


def test_a_braket_unitary_is_read_with_its_own_bit_order() -> None:
    # |q0 q1>, q0 the most significant bit: exchange of |10> and |11> is cx q0, q1.
    rows = "[[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1.0], [0, 0, 1+0im, 0]]"
    circuit = read(f"qubit[2] q;\n#pragma braket unitary({rows}) q[0], q[1]\n")
    expected = Circuit(2).cx(0, 1)
    np.testing.assert_allclose(unitary(circuit), unitary(expected), atol=1e-7)


@pytest.mark.parametrize(
    ("pragma", "what"),
    [
        ("braket noise bit_flip(0.1) q[0]", "a noise pragma (1, first at line 2)"),
        ("braket abcd", "no Braket pragma 'abcd'"),
        ("braket result nothing", "no Braket result 'nothing'"),
        ("braket result expectation x(q[7])", "out of range"),
        ("braket unitary([[1, 1], [0, 1]]) q[0]", "not unitary"),
        ("braket unitary([[1, 0], [0, 1]]) q", "matrix of shape (2, 2) on 2 qubits"),
        ("braket unitary([[1, a], [0, 1]]) q[0]", "cannot be read"),
        ("braket verbatim", "stands before a box"),
    ],
)
def test_a_wrong_pragma_is_an_error_at_its_line(pragma: str, what: str) -> None:
    found = error(f"qubit[2] q;\n#pragma {pragma}\nh q[0];")
    assert what in str(found)
    assert found.line == 2


def test_other_pragmas_and_annotations_are_noted() -> None:
    notes = reading("pragma user x\n@bind a.b\nqubit q;").notes
    assert len(notes) == 2


def test_iqm_feed_forward_is_a_branch_on_a_bit() -> None:
    text = "qubit[2] q; x q[0]; measure_ff(3) q[0]; cc_prx(pi, 0, 3) q[1]; bit c = measure q[1];"
    circuit = read(text)
    assert circuit.cregs[0].name == "ff_3"
    assert sample(circuit, None, 1, np.random.default_rng(0))[0][0].tolist() == [1, 1]
    assert "key 4" in str(error(text.replace(", 3)", ", 4)")))


# ---------------------------------------------------------------- the frontend


def test_the_frontend_knows_its_sources() -> None:
    frontend = OpenQasmFrontend()
    assert frontend.accepts(Path("a.qasm"))
    assert frontend.accepts("folder/a.QASM")
    assert frontend.accepts("// c\nOPENQASM 2.0;")
    assert frontend.accepts(b"\xef\xbb\xbf OPENQASM 3;")
    assert not frontend.accepts(Path("a.onnx"))
    assert not frontend.accepts(b"\x08\x07\x12\x04")
    assert not frontend.accepts(3)


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be read") as caught:
        OpenQasmFrontend().read(tmp_path / "nothing.qasm")
    assert "nothing.qasm" in caught.value.where
    broken = tmp_path / "broken.qasm"
    broken.write_text("qubit q;\nh r;")
    with pytest.raises(SourceError) as caught:
        OpenQasmFrontend().read(broken)
    assert caught.value.where == f"{broken}, line 2, column 3"
    assert (caught.value.line, caught.value.column) == (2, 3)


def test_scanner_and_grammar_read_the_same_circuit() -> None:
    from qcomp.frontends.openqasm.scanner import scan

    text = (
        'OPENQASM 3.0;\ninclude "stdgates.inc";\ninput float[64] a;\nqubit[3] q;\nbit[3] c;\n'
        "h q[0];\ncx q[0], q[1];\nrz(0.5*a + pi/4) q[2];\nccx q[0], q[1], q[2];\nreset q[1];\n"
        "barrier q;\nc = measure q;\n"
    )
    scanned = scan(text.encode())
    assert scanned is not None
    assert scanned.equals(read(text))
    assert read_text(text).equals(scanned)
