import math

import pytest

from tests.openqasm.reading import error, operations, read, reading


def angle(expression: str, before: str = "") -> float:
    """The angle that an expression gives a gate."""
    return operations(f"qubit q; {before} rx({expression}) q;")[0][2][0]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3 - 4", 5),
        ("2 ** 3 ** 2 / 512", 1),
        ("-2 ** 2", -4),
        ("7 / 2", 3),
        ("-7 / 2", -3),
        ("7 / 2.0", 3.5),
        ("-7 % 3", -1),
        ("2 ** -1", 0.5),
        ("1 << 3 | 1", 9),
        ("12 & 10 ^ 1", 9),
        ("~5 + 6", 0),
        ("3 > 2 && !(1 == 2)", 1),
        ("int[8](200) + 0", -56),
        ("uint[4](-1)", 15),
        ("int(2.9) + int(-2.9)", 0),
        ("bool(3)", 1),
        ("sin(pi/6) + cos(0) + sqrt(4)", 3.5),
        ("arccos(0) - pi/2 + exp(0) + ln(euler)", 2),
        ("mod(7, 3) + floor(1.5) + ceiling(1.5) + popcount(7)", 7),
        ("real(1.5 + 2im) + imag(2im)", 3.5),
        ("abs(-1.25)", 1.25),
        ("angle[4](2 * pi * 3 / 16) / angle[4](2 * pi / 16)", 3),
        ('uint[4](rotl(bit[4](3), 1)) + uint("0110") - 12', 0),
        ("100ns / 50ns", 2),
    ],
)
def test_an_expression_is_computed_as_the_specification_says(expression: str, value: float) -> None:
    assert angle(expression) == pytest.approx(value, abs=1e-12)


def test_a_long_sum_is_no_deep_nesting() -> None:
    assert angle("+".join(["0.01"] * 400)) == pytest.approx(4.0)


def test_angles_keep_exact_fractions_of_pi() -> None:
    circuit = read("qubit q; rx(3 * pi / 8) q; rx(pi/4 + pi/8) q;")
    run = circuit.run
    assert run.rem.tolist() == [0.0, 0.0]
    assert run.frac[0] == run.frac[1] == 3 * (1 << 57)


def test_a_gate_definition_divides_the_angle_it_was_given() -> None:
    # 5 pi is pi modulo 4 pi, but 5 pi / 8 is not pi / 8.
    text = "gate g(a) q { rz(a / 8) q; } qubit q; g(5 * pi) q;"
    assert operations(text)[0][2][0] == pytest.approx(5 * math.pi / 8)


def test_variables_arrays_and_slices_are_known_at_compile_time() -> None:
    text = """
    array[int[8], 2, 3] a = {{1, 2, 3}, {4, 5, 6}};
    int[8] n = a[1, 2] + a[0][1];
    array[int[8], 2] column = a[:, 1];
    a[0, 0:1] = a[1, 1:2];
    a[1] = a[0];
    """
    assert angle("n", text) == 8
    assert angle("column[0] * 10 + column[1]", text) == 25
    assert angle("a[1][0] * 10 + a[1][1] - 6 * 8", text) == 56 - 48
    assert angle("sizeof(a) * 10 + sizeof(a, 1) - 20", text) == 3
    assert angle("a[-1, -1]", text) == 3


def test_bits_of_an_integer_are_indexed_from_the_least_significant() -> None:
    before = 'uint[4] n = 6; bit[4] b = "0110"; n[0] = 1; n[2:3] = "10";'
    assert angle("n", before) == 11
    assert angle("n[1] + 2 * n[3]", before) == 3
    assert angle("uint[2](b[1:2])", before) == 3
    assert angle("uint[4](b[3:-1:0])", before) == 6


def test_indices_beyond_the_dimensions_are_bits_of_the_elements() -> None:
    before = """
    array[bit[4], 2, 2] a; array[bit[2], 2] b = {"11", "01"};
    a[:, 0, 1:2] = b; a[0, 1, 3] = 1; a[1][1][0] = true;
    array[uint[4], 2] n = {5, 10};
    """
    assert angle("uint[4](a[0, 0])", before) == 6
    assert angle("uint[4](a[1, 0])", before) == 2
    assert angle("uint[4](a[0, 1]) * 16 + uint[4](a[1, 1])", before) == 8 * 16 + 1
    assert angle("uint[2](a[:, 0, 1:2][1])", before) == 1
    assert angle("n[0, 0] + 2 * n[1, 0] + 4 * n[1, 3]", before) == 5
    assert "shape" in error(f"{before} a[:, 0, 1:2] = 3;").what


def test_a_sized_angle_is_rounded_to_its_grid() -> None:
    assert angle("x", "angle[3] x = 1.0;") == pytest.approx(math.pi / 4)
    assert angle("x", "angle x = 3 * pi;") == pytest.approx(math.pi)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("int x = y;", "'y' is not declared"),
        ("int[8] count; int x = cout;", "'cout' is not declared"),
        ("int x = 1 / 0;", "no value here"),
        ("float x = sqrt(-1);", "no value here"),
        ("int x = 2 ** 999999999;", "bits"),
        ("uint[8] x = 1 << 99999999;", "bits"),
        ("int[8] a; int x = a[8];", "out of range"),
        ("array[int, 2] a; int x = a[2];", "out of range"),
        ("array[int, 2] a = {1, 2, 3};", "3 values for a dimension of 2"),
        ("array[int, 2] a; int x = a + 1;", "whole arrays"),
        ("duration d = 2;", "cannot be converted to duration"),
        ("duration d = 1ns + 1dt;", "dt"),
        ("complex z = 1im; float x = z;", "real()"),
        ('bit[3] b = "0101";', "sizes differ"),
        ("const int n = 2; n = 3;", "constant"),
        ("int n = 2; qubit[n] q;", "must be constant, 'n' is a variable"),
        ("qubit[0] q;", "must be positive"),
        ("int pi = 3;", "built-in constant"),
        ("int x; int x;", "declared twice"),
        ("int x = f(2);", "no function 'f'"),
        ("qubit q; int x = q;", "measure it"),
        ("int x = sizeof(3);", "needs an array"),
        ("rotl(3, 1);", "sized"),
        ("int[8] a; a[0][1] = 1;", "no entries"),
    ],
)
def test_an_expression_without_a_meaning_is_an_error_that_says_why(text: str, what: str) -> None:
    found = error(text)
    assert what in str(found)


def test_a_misspelt_name_gets_the_nearest_one() -> None:
    assert error("int[8] count; int x = cuont;").hint == "did you mean 'count'?"


def test_an_integer_division_with_a_remainder_is_noted() -> None:
    assert any("1/2 is an integer division" in note for note in
               reading("qubit q; rx(1/2) q;").notes)  # fmt: skip


def test_openqasm_2_divides_numbers_and_writes_powers_with_a_caret() -> None:
    text = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[1]; rx(1/2) q[0]; rx(2^3^0) q[0];'
    assert [op[2][0] for op in operations(text)] == [0.5, 2.0]
