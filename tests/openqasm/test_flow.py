import itertools

import numpy as np
import pytest

from qcomp.ir.blocks import Assign, Box, Delay, Duration, For, If, Range, Switch, While
from qcomp.ir.circuit import Circuit
from qcomp.ir.classical import Binary, Bit, Lit, Register, VarRef
from qcomp.simulate import sample
from tests.openqasm.reading import block_operations, error, names, operations, read, reading


def outcomes(circuit: Circuit, shots: int = 40) -> set[str]:
    """The bit strings that can be measured, bit 0 last."""
    rows = sample(circuit, None, shots, np.random.default_rng(3))[0]
    return {"".join(str(int(b)) for b in row[::-1]) for row in rows}


def only(text: str) -> str:
    """The one bit string that a deterministic program gives."""
    (found,) = outcomes(read(text))
    return found


def test_loops_over_known_ranges_sets_and_arrays_are_unrolled() -> None:
    text = """
    qubit[8] q; array[int, 2] a = {6, 7};
    for int i in [0:2:4] { x q[i]; }
    for int i in {1, 3} x q[i];
    for int i in a { y q[i]; }
    for int i in [2:-1:1] z q[i];
    """
    wires = [(name, q[0]) for name, q, _ in operations(text)]
    assert wires == [("x", 0), ("x", 2), ("x", 4), ("x", 1), ("x", 3), ("y", 6), ("y", 7),
                     ("z", 2), ("z", 1)]  # fmt: skip


def test_known_conditions_choose_their_branch_now() -> None:
    text = """
    qubit q; int n = 3;
    if (n > 2) { x q; } else { y q; }
    if (n > 5) y q; else if (n == 3) z q; else h q;
    switch (n) { case 1, 2 { y q; } case 3 { s q; } default { t q; } }
    while (n > 0) { n -= 1; if (n == 1) { continue; } h q; }
    while (true) { n += 1; if (n == 2) break; id q; }
    """
    assert names(text) == ["x", "z", "s", "h", "h", "id"]


def test_a_condition_on_a_measurement_stays_an_if() -> None:
    circuit = read("qubit[2] q; bit[2] c; c[0] = measure q[0]; if (c[0]) x q[1]; else z q[1];")
    branch = circuit.body[-1]
    assert isinstance(branch, If)
    assert branch.condition == Bit(0)
    assert block_operations(circuit, branch.then) == [("x", (1,), ())]
    assert block_operations(circuit, branch.orelse) == [("z", (1,), ())]


def test_conditions_keep_their_shape() -> None:
    head = "qubit q; bit[2] c; c[0] = measure q; "
    shapes = {
        "c[0] == 1": Binary("==", Bit(0), Lit(1)),
        "c == 3": Binary("==", Register("c"), Lit(3)),
        "c": Binary("!=", Register("c"), Lit(0)),
        "c[0] && true": Bit(0),
        'c == "01"': Binary("==", Register("c"), Lit(1)),
    }
    for text, expected in shapes.items():
        branch = read(f"{head} if ({text}) x q;").body[-1]
        assert isinstance(branch, If)
        assert branch.condition == expected, text
    assert len(read(f"{head} if (c[0] && false) x q;").runs()) == 1


def test_a_variable_that_a_branch_assigns_lives_at_run_time_from_there_on() -> None:
    text = """
    qubit[3] q; bit[3] c; int[8] n = 5;
    x q[0]; c[0] = measure q[0];
    if (n == 5) x q[1];
    if (c[0]) { n = n + 1; }
    if (n == 6) { x q[2]; }
    n = 9;
    if (n == 9) x q[1];
    c = measure q;
    """
    circuit = read(text)
    assert [v.name for v in circuit.variables] == ["n"]
    first = next(item for item in circuit.body if isinstance(item, Assign))
    assert first == Assign(VarRef("n"), Lit(5))
    assert only(text) == "101"


def test_a_loop_that_a_measurement_ends_stays_a_loop() -> None:
    circuit = read("""
    qubit q; bit c = 0; int n = 0;
    while (c == 0 && n < 20) { h q; c = measure q; n += 1; }
    """)
    assert any(isinstance(item, While) for item in circuit.body)
    assert outcomes(circuit) == {"1"}


def test_a_loop_with_a_break_on_a_measurement_inside_while_true_stays_a_loop() -> None:
    circuit = read("""
    qubit q; bit c;
    while (true) { h q; c = measure q; if (c) { break; } }
    x q; c = measure q;
    """)
    assert outcomes(circuit) == {"0"}


def test_a_range_that_depends_on_a_measurement_stays_a_loop() -> None:
    circuit = read("""
    qubit[2] q; bit[2] c; int n = 0;
    x q[0]; c[0] = measure q[0];
    for int i in [0:c[0] + 1] { n += i; }
    if (n == 3) x q[1];
    c = measure q;
    """)
    loop = next(item for item in circuit.body if isinstance(item, For))
    assert isinstance(loop.values, Range)
    assert outcomes(circuit) == {"11"}


def test_a_loop_of_too_many_rounds_is_kept_as_a_loop_and_noted() -> None:
    result = reading("qubit q; for int i in [1:1000000] { h q; }")
    (loop,) = result.circuit.body
    assert isinstance(loop, For)
    assert loop.values == Range(Lit(1), Lit(1000000), Lit(1))
    assert any("1000000 rounds" in note for note in result.notes)


@pytest.mark.parametrize("pattern", list(itertools.product((0, 1), repeat=3)))
def test_a_break_on_a_measurement_leaves_an_unrolled_loop(pattern: tuple[int, ...]) -> None:
    flips = "".join(f"x q[{i}];" for i, bit in enumerate(pattern) if bit)
    text = f"""
    qubit[4] q; bit[4] c; int n = 0; {flips}
    for int i in [0:2] {{
      c[i] = measure q[i];
      if (c[i]) {{ break; }}
      n += 1;
    }}
    if (n == {(*pattern, 1).index(1)}) x q[3];
    c[3] = measure q[3];
    """
    assert only(text)[0] == "1"


@pytest.mark.parametrize("pattern", list(itertools.product((0, 1), repeat=3)))
def test_a_continue_on_a_measurement_skips_the_rest_of_an_unrolled_round(
    pattern: tuple[int, ...],
) -> None:
    flips = "".join(f"x q[{i}];" for i, bit in enumerate(pattern) if bit)
    text = f"""
    qubit[4] q; bit[4] c; int n = 0; {flips}
    for int i in [0:2] {{
      c[i] = measure q[i];
      if (c[i]) {{ n += 10; continue; }}
      n += 1;
    }}
    if (n == {sum(10 if bit else 1 for bit in pattern)}) x q[3];
    c[3] = measure q[3];
    """
    assert only(text)[0] == "1"


@pytest.mark.parametrize(("first", "second"), list(itertools.product((0, 1), repeat=2)))
def test_a_return_on_a_measurement_leaves_a_subroutine(first: int, second: int) -> None:
    text = f"""
    def pick(qubit[2] q, qubit out) -> int[8] {{
      bit[2] c;
      c[0] = measure q[0];
      if (c[0]) {{ x out; return 1; }}
      for int i in [0:1] {{
        c[1] = measure q[1];
        if (c[1]) {{ return 2; }}
      }}
      x out;
      return 3;
    }}
    qubit[2] q; qubit out; qubit flag; bit[2] c;
    {"x q[0];" if first else ""} {"x q[1];" if second else ""}
    int[8] n = pick(q, out);
    if (n == {1 if first else 2 if second else 3}) x flag;
    c[0] = measure out; c[1] = measure flag;
    """
    circuit = read(text)
    start = next(r.start for r in circuit.cregs if r.name == "c")
    for row in sample(circuit, None, 3, np.random.default_rng(1))[0]:
        assert row[start] == (0 if second and not first else 1)
        assert row[start + 1] == 1


def test_a_return_leaves_the_run_time_loops_around_it() -> None:
    text = """
    def f(qubit q) -> int {
      bit c; int n = 0;
      while (n < 4) {
        for int i in [0:1] { c = measure q; if (c) { return 7; } }
        x q; n += 1;
      }
      return 1;
    }
    qubit q; qubit out; bit r;
    int n = f(q);
    if (n == 7) x out;
    r = measure out;
    """
    circuit = read(text)
    start = next(r.start for r in circuit.cregs if r.name == "r")
    assert {int(row[start]) for row in sample(circuit, None, 3, np.random.default_rng(1))[0]} == {1}


def test_bits_declared_in_a_run_time_loop_are_fresh_in_every_round() -> None:
    text = """
    qubit[2] q; bit[2] r; bit c; int n = 0;
    x q[0];
    while (n < 3) {
      bit[2] local;
      local[0] = measure q[0];
      if (local == 1) { n += 1; } else { n += 10; }
      local[1] = 1;
    }
    if (n == 3) x q[1];
    r[1] = measure q[1]; c = measure q[0];
    while (c) { x q[0]; c = measure q[0]; }
    """
    circuit = read(text.replace("while (n < 3)", "while (n < 3 && c == 0)"))
    start = next(r.start for r in circuit.cregs if r.name == "r")
    row = sample(circuit, None, 1, np.random.default_rng(0))[0][0]
    assert row[start + 1] == 1


def test_a_switch_on_a_measurement_stays_a_switch() -> None:
    circuit = read("""
    qubit[3] q; bit[2] c; x q[1];
    c[0] = measure q[0]; c[1] = measure q[1];
    switch (c) { case 0, 1 { y q[2]; } case 2 { x q[2]; } default { h q[2]; } }
    c[0] = measure q[2];
    """)
    choice = next(item for item in circuit.body if isinstance(item, Switch))
    assert [labels for labels, _ in choice.cases] == [(0, 1), (2,)]
    assert outcomes(circuit) == {"11"}


def test_end_stops_the_program_now_or_at_run_time() -> None:
    assert names("qubit q; x q; end; y q;") == ["x"]
    text = "qubit q; bit c; x q; c = measure q; if (c) { end; } x q; c = measure q;"
    assert outcomes(read(text)) == {"1"}


def test_boxes_and_delays_are_kept() -> None:
    circuit = read(
        "qubit[2] q; duration d = 2 * 50ns; box[200ns] { x q[0]; delay[d] q; } delay[4dt];"
    )
    box, delay = circuit.body
    assert isinstance(box, Box)
    assert box.duration == Duration(200.0, "ns")
    assert box.body[1] == Delay(Duration(100.0, "ns"), (0, 1))
    assert delay == Delay(Duration(4.0, "dt"), (0, 1))


def test_a_delay_that_qiskit_writes_into_openqasm_2_is_a_delay() -> None:
    head = 'OPENQASM 2.0; include "qelib1.inc"; opaque delay(t) q; qreg q[2]; '
    assert read(head + "delay(172) q[1];").body == (Delay(Duration(172.0, "dt"), (1,)),)
    assert "not negative" in error(head + "delay(-1) q[1];").what


def test_bits_of_an_integer_are_assigned_at_run_time() -> None:
    text = """
    qubit[2] q; bit[2] c; uint[4] n = 9; array[bit[3], 2] a;
    x q[0]; c[0] = measure q[0];
    n[1] = c[0]; n[0] = !c[0]; n[2:3] = "01";
    a[1][2] = c[0]; a[0][0] = c[0];
    if (n == 6 && a[1] == 4 && a[0] == 1) x q[1];
    c[1] = measure q[1];
    """
    assert only(text) == "11"


def test_a_run_time_index_into_qubits_is_a_switch() -> None:
    text = """
    qubit[3] q; bit[3] c; int n = 0; x q[0];
    c[0] = measure q[0];
    if (c[0]) { n = 2; }
    x q[n]; cx q[n], q[1];
    c[n] = measure q[n];
    c[1] = measure q[1];
    """
    circuit = read(text)
    choices = [item for item in circuit.body if isinstance(item, Switch)]
    assert [labels for labels, _ in choices[0].cases] == [(0,), (1,), (2,)]
    assert [labels for labels, _ in choices[1].cases] == [(0,), (2,)]
    assert outcomes(circuit) == {"111"}


def test_a_run_time_index_into_an_array_is_a_switch() -> None:
    text = """
    array[int[8], 3] a = {5, 6, 7}; qubit[2] q; bit[2] c; int n = 0; int m;
    x q[0]; c[0] = measure q[0]; if (c[0]) { n = 2; }
    m = a[n]; a[n] = 1; m += a[2] * 10;
    if (m == 17) x q[1];
    c[1] = measure q[1];
    """
    assert only(text) == "11"


def test_a_run_time_index_into_bits_is_a_shift() -> None:
    text = """
    qubit[2] q; bit[4] c; int n = 0; x q[0];
    c[0] = measure q[0]; c[2] = measure q[0];
    if (c[0]) { n = 2; }
    if (c[n]) x q[1];
    c[3] = measure q[1];
    """
    assert only(text) == "1101"


def test_assignments_to_bits_at_run_time_reach_the_right_ones() -> None:
    text = """
    qubit q; bit[4] c; x q;
    c[0] = measure q;
    c[1:2] = "11"; c[3] = c[0]; c[1] ^= c[0];
    """
    assert only(text) == "1101"


def test_the_pragma_of_saved_circuits_keeps_loops_and_variables() -> None:
    text = """
    #pragma qcomp circuit
    qubit q; int[8] n; n = 3;
    for int i in [0:3] { x q; }
    if (n == 3) { h q; }
    """
    circuit = read(text)
    kinds = [type(item) for item in circuit.body]
    assert kinds == [Assign, For, If]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("break;", "outside a loop"),
        ("continue;", "outside a loop"),
        ("def f() { break; } for int i in [0:1] { f(); }", "outside a loop"),
        ("return 1;", "outside a subroutine"),
        ("input float a; qubit q; if (a > 1) x q;", "input parameter"),
        ("qubit q; switch (1.5) { case 1 { x q; } }", "over an integer"),
        ("qubit q; switch (1) { case 1, 1 { x q; } }", "stands twice"),
        ("qubit q; int j = 1; switch (1) { case j { x q; } }", "must be constant"),
        ("switch (1) { default { } }", "at least one case"),
        ("qubit[2] q; bit c; c = measure q[0]; int n = 0; if (c) { n = 1; } let a = q[n:1];",
         "known only at run time"),
        ("qubit[300] q; bit c; c = measure q[0]; int n = 0; if (c) { n = 1; } x q[n];",
         "at most 256 cases"),
        ("qubit[2] q; bit c; c = measure q[0]; foo q[c];", "no gate 'foo'"),
        ("for int i in [0:0:3] { }", "step is zero"),
        ("for int i in 3 { }", "over a range"),
        ("for duration d in {1ns} { }", "variable cannot be"),
        ("if (true) { int x = 1; } int y = x;", "not declared"),
        ("qubit q; bit c; c = measure q; const int n = c;", "not known at compile time"),
        ("qubit q; delay[2] q;", "is a duration"),
        ("qubit q; delay[-2ns] q;", "negative"),
        ("if (true) { qubit q; }", "globally"),
        ("def f() { array[int, 2] a; } f();", "globally"),
        ("box { #pragma x\n }", "globally"),
        ("while (true) { }", "rounds at compile time"),
        ("int i = 0; while (i < 10) { int k = 0; while (k < 90000) { k += 1; } }",
         "steps at compile time"),
    ],
)  # fmt: skip
def test_wrong_control_flow_is_an_error_that_says_why(text: str, what: str) -> None:
    assert what in str(error(text))
