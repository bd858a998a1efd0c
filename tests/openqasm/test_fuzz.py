"""The reader on damaged and made-up sources: a circuit or a SourceError with a place, soon."""

import random
import re
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qcomp.errors import SourceError
from qcomp.frontends.openqasm.parser import parse
from qcomp.frontends.openqasm.reader import read_text
from qcomp.ir.verify import verify

parse("qubit q;")  # Builds the grammar once, outside the time limits.

SECONDS = 20.0
PROGRAMS = [
    b'OPENQASM 3.0; include "stdgates.inc";\nqubit[3] q; bit[3] c;\nh q[0]; cx q[0], q[1];\n'
    b"c = measure q; if (c[0] == 1) { x q[2]; } else { z q[2]; }\n",
    b'OPENQASM 2.0;\ninclude "qelib1.inc";\nqreg q[2];\ncreg c[2];\ngate g(a,b) x,y { cx x,y; '
    b"u3(a,b/2,-pi) y; }\ng(0.5,pi/3) q[0],q[1];\nmeasure q -> c;\nif(c==2) x q[0];\n",
    b"input float a; const int n = 3; qubit[n] q;\ngate g(t) p { rz(t / 2) p; gphase(-t); }\n"
    b"for int i in [0:n - 1] { ctrl @ g(2 * a) q[i], q[(i + 1) % n]; }\npow(0.5) @ x q[0];\n",
    b"def f(qubit[2] q, int[8] k) -> bit { bit c; for int i in [0:k] { c = measure q[0]; "
    b"if (c) { return c; } } return measure q[1]; }\nqubit[2] q; bit r = f(q, 3);\n"
    b"switch (r) { case 0 { x q[0]; } default { y q[1]; } }\n",
    b'array[int[8], 2, 2] a = {{1, 2}, {3, 4}}; bit[4] b = "0110"; uint[4] u = 7; float x;\n'
    b'a[0] = a[1, 0:1]; b[1:2] = "11"; u[0] = b[3]; x = sin(a[0][1]) ** 2 + sizeof(a);\n'
    b"let s = b[0:1] ++ b[3:3]; while (u > 0) { u -= 1; if (u == 2) break; }\n",
    b"qubit[2] q; bit c; box[100ns] { x q[0]; delay[20ns] q[1]; }\n#pragma braket result "
    b"expectation z(q[0])\nwhile (c == 0) { h q[0]; c = measure q[0]; }\nend;\n",
]
TOKENS = [
    *(";", "{", "}", "(", ")", "[", "]", "->", "=", "++", ",", ":", "@", "-", "!", "~", "**", "<<"),
    *("q", "c[0]", "a", "999999999999", "1e400", "0x", '"', "//", "/*", "\n", "100ns", "2.5im"),
    *("measure ", "reset ", "if (", "else ", "for int i in [0:3] ", "while (true) {", "return "),
    *("ctrl @ ", "inv @ ", "pow(0.5) @ ", "int[8] ", "bit ", "break;", "continue;", "end;", "$0"),
    *('"0101"', "pi", "\0", "def ", "gate ", "array[int[8], 2] ", "let a = ", "switch (", "box "),
    *("case 0 {", "delay[", "sizeof(", "popcount(", "%0", "/0", "input float ", "const ", "cal {"),
    "#pragma braket unitary([[1]]) ",
]


def survives(source: bytes | str) -> bool:
    """Whether the source was read; anything but a circuit or a placed SourceError fails."""
    start = time.process_time()
    caught: SourceError | None = None
    try:
        verify(read_text(source))
    except SourceError as error:
        caught = error
    assert time.process_time() - start < SECONDS
    if caught is not None:
        assert caught.line >= 1
        assert caught.column >= 1
        assert str(caught).startswith(caught.what)
    return caught is None


def reworded(rng: random.Random, source: bytes) -> bytes:
    """The source with some words and marks exchanged for others of its own: mostly good syntax."""
    parts = re.split(rb"(\w+|[-+*/%<>=!&|^~]+)", source)
    for _ in range(rng.choice((1, 2, 3))):
        kind = rng.choice((rb"[A-Za-z_]\w*", rb"\d+", rb"[-+*/%<>=!&|^~]+"))
        places = [i for i, part in enumerate(parts) if re.fullmatch(kind, part)]
        if places:
            parts[rng.choice(places)] = parts[rng.choice(places)]
    return b"".join(parts)


def mutated(rng: random.Random, source: bytes) -> bytes:
    if rng.random() < 0.6:
        return reworded(rng, source)
    data = bytearray(source)
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.randrange(len(data) + 1)
        kind = rng.random()
        if kind < 0.2:
            data[place : place + 1] = bytes([rng.randrange(256)])
        elif kind < 0.4:
            del data[place : place + rng.choice((1, 2, 8, 40))]
        elif kind < 0.75:
            data[place:place] = rng.choice(TOKENS).encode()
        elif kind < 0.9:
            other = rng.randrange(len(data) + 1)
            data[place:place] = data[min(place, other) : max(place, other)][:80]
        else:
            del data[place:]
    return bytes(data)


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_programs_themselves_are_read(program: bytes) -> None:
    assert survives(program)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_source_cut_at_any_byte_is_no_crash(program: bytes) -> None:
    for end in range(0, len(program), 3):
        survives(program[:end])


def test_mutated_programs_are_no_crash() -> None:
    rng = random.Random(20)
    for round_number in range(600):
        survives(mutated(rng, PROGRAMS[round_number % len(PROGRAMS)]))


def test_mutated_files_of_the_corpus_are_no_crash(shared: Path) -> None:
    files = [path for path in sorted((shared / "qasm3").glob("*.qasm"))
             if path.stat().st_size < 4000]  # fmt: skip
    rng = random.Random(21)
    read = 0
    for _ in range(1000):
        source = files[rng.randrange(len(files))].read_bytes()
        read += survives(mutated(rng, source))
    print(f"mutated corpus files: {read} of 1000 still read, no crash")


calm = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


@calm
@given(st.binary(max_size=200))
def test_any_bytes_are_no_crash(source: bytes) -> None:
    survives(source)


@calm
@given(st.lists(st.sampled_from(TOKENS), max_size=40))
def test_any_tokens_are_no_crash(tokens: list[str]) -> None:
    survives("qubit[2] q; bit[2] c; int a; " + " ".join(tokens))


numbers = st.recursive(
    st.sampled_from(["1", "-2", "3.5", "pi", "true", '"101"', "n", "c", "c[1]", "x", "2im", "5ns"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+ - * / % ** << >> & | ^ == < && ||".split()), inner)
        .map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        st.tuples(st.sampled_from(["-", "!", "~"]), inner).map("".join),
        st.tuples(
            st.sampled_from(["sin", "sqrt", "popcount", "int[4]", "uint", "bool", "angle[8]",
                             "bit[3]", "float", "floor", "arccos"]), inner
        ).map(lambda t: f"{t[0]}({t[1]})"),
    ),
    max_leaves=8,
)  # fmt: skip


@calm
@given(numbers, numbers)
def test_any_expression_has_a_value_or_an_error(first: str, second: str) -> None:
    survives(
        "input float x; qubit[2] q; bit[3] c; int[8] n = 3; c[1] = measure q[0];\n"
        f"rx({first}) q[0]; if ({second}) {{ n = {first}; x q[1]; }} c = {second};"
    )
