"""Sources that ask for too much: each gets one clear error, soon."""

import time

import pytest

from qcomp.errors import SourceError
from qcomp.frontends.openqasm.limits import MAX_NESTING
from qcomp.frontends.openqasm.reader import read_text
from tests.openqasm.reading import error, names

SECONDS = 30.0
"""CPU seconds, on a machine that may be slow."""


def doubling(levels: int) -> str:
    gates = ["gate g0 a { t a; h a; }"]
    gates += [f"gate g{i} a {{ g{i - 1} a; g{i - 1} a; }}" for i in range(1, levels + 1)]
    return "\n".join([*gates, "qubit q;", f"g{levels} q;"])


def chain(levels: int) -> str:
    gates = ["gate g0 a { h a; }"]
    gates += [f"gate g{i} a {{ g{i - 1} a; }}" for i in range(1, levels + 1)]
    return "\n".join([*gates, "qubit q;", f"g{levels} q;"])


def names_of(count: int) -> str:
    return ", ".join(f"a{i}" for i in range(count))


HUGE = {
    "qubits": "qubit[1000000000000] q;",
    "bits": "bit[1000000000000] c;",
    "bits of a subroutine": "def f() { bit[4000001] c; } f();",
    "qubits by number": "x $999999999;",
    "a number of digits": "qubit q; rx(" + "9" * 5000 + ") q;",
    "a hexadecimal number": "int x = 0x" + "f" * 3000 + ";",
    "a bit string": 'bit[9000] c = "' + "1" * 9000 + '";',
    "an array": "array[int, 100000, 100000] a;",
    "many dimensions": "array[int, 1, 1, 1, 1, 1, 1, 1, 1] a;",
    "a width": "int[1000000] x;",
    "a power": "int x = 10 ** 10 ** 10;",
    "a shift": "int x = 1 << 1000000000000;",
    "a float": "qubit q; rx(1e999) q;",
    "an endless loop": "int i = 0; while (i < 10) { i *= 1; }",
    "nested loops": "int n; for int i in [0:9999] { for int j in [0:9999] { n += 1; } }",
    "gates in loops": "qubit[1000] q; for int i in [0:99999] { h q; }",
    "controls": "qubit[40] q; ctrl(30) @ h " + ", ".join(f"q[{i}]" for i in range(31)) + ";",
    "controls in definitions": "gate g0 a, b { ctrl @ h a, b; }"
    + "".join(
        f"gate g{i} {names_of(i + 2)} {{ ctrl @ g{i - 1} {names_of(i + 2)}; }}"
        for i in range(1, 18)
    )
    + "qubit[40] q; g17 " + ", ".join(f"q[{i}]" for i in range(19)) + ";",
    "repetitions": "qubit q; pow(1000000000) @ h q;",
    "a power of a power": "qubit q; pow(60000) @ pow(60000) @ h q;",
    "recursion": "def f(int n) -> int { return f(n + 1); } int x = f(0);",
    "subroutines that multiply": "def f0() { int x = 1; }"
    + "".join(f"def f{i}() {{ for int i in [0:99] {{ f{i - 1}(); }} }}" for i in range(1, 8))
    + "f7();",
    "a definition that doubles": doubling(60),
    "a deep definition": chain(500),
    "run-time variables": "array[int[8], 1000, 200] a; qubit q; bit c; c = measure q; "
    "if (c) { a[0][0] = 1; }",
    "an alias of itself": "qubit[4] q; let a = q ++ q ++ q ++ q;",
    "a loop over a huge set of bits": "for int i in [0:1:99999999999999999999] { int j = i; } x q;",
    "a slice of much": "bit[4000000] c; let a = c[0:3999999]; let b = a ++ a; x q;",
}  # fmt: skip


@pytest.mark.parametrize("text", HUGE.values(), ids=HUGE.keys())
def test_a_source_that_asks_for_too_much_gets_one_error_soon(text: str) -> None:
    start = time.process_time()
    with pytest.raises(SourceError) as caught:
        read_text(text)
    assert caught.value.line >= 1
    assert time.process_time() - start < SECONDS


DEEP = 4000


@pytest.mark.parametrize(
    "text",
    [
        "int x = " + "(" * DEEP + "1" + ")" * DEEP + ";",
        "int x = " + "-" * DEEP + "1;",
        "int x = " + "!" * DEEP + "1;",
        "int x = " + "2**" * DEEP + "1;",
        "int x = " + "1+" * DEEP + "1;",
        "int x = " + "sin(" * DEEP + "1" + ")" * DEEP + ";",
        "int x = a" + "[0]" * DEEP + ";",
        "x q" + "[0]" * DEEP + ";",
        "{" * DEEP + "}" * DEEP,
        "if (true) " * DEEP + "x q;",
        "if (true) x q; " + "else if (true) x q; " * DEEP,
        "while (true) " * DEEP + "x q;",
        "for int i in [0:1] " * DEEP + "x q;",
        "box {" * DEEP + "}" * DEEP,
        "switch (1) { case 1 {" * DEEP + "}}" * DEEP,
        "@a\n" * DEEP + "qubit q;",
        "array[int, 1] a = " + "{" * DEEP + "1" + "}" * DEEP + ";",
        "inv @ " * DEEP + "x q;",
        "ctrl @ " * DEEP + "x q;",
        "cal " + "{" * DEEP,
        "/*" * DEEP,
        '"' * DEEP,
        "OPENQASM 2.0; qreg q[1]; rx(" + "(" * DEEP + "1" + ")" * DEEP + ") q[0];",
        "OPENQASM 2.0; qreg q[1]; rx(" + "2^" * DEEP + "1) q[0];",
        "//" + "x" * 100 + "\n" + " " * 100_000 + "$",
        "OPENQASM" + " " * 100_000 + "3",
        "/**/" * 20_000 + "OPENQASM x;",
    ],
    ids=lambda text: text[:24],
)
def test_deep_nesting_is_an_error_with_a_place(text: str) -> None:
    start = time.process_time()
    found = error(text)
    assert str(found)
    assert time.process_time() - start < SECONDS


def test_nesting_within_the_bound_is_read() -> None:
    depth = MAX_NESTING // 2 - 3
    assert names("qubit q; " + "if (true) { " * depth + "x q;" + "}" * depth) == ["x"]
    assert names("qubit q; rx(" + "(" * 300 + "1" + ")" * 300 + ") q;") == ["rx"]


def test_run_time_nesting_within_the_bound_is_read_and_beyond_is_an_error() -> None:
    head = "qubit q; bit c; c = measure q; "
    names(head + "if (c) { " * 20 + "x q;" + "}" * 20)
    assert "levels deep" in error(head + "if (c) " * (MAX_NESTING + 2) + "x q;").what
