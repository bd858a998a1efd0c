import json

import pytest

from qcomp.frontends.openqasm.parser import parse, version_of
from tests.openqasm.reading import error, names, read


@pytest.mark.parametrize(
    ("text", "line", "column", "what"),
    [
        ("qubit q;\nh q", 2, 4, "ends in the middle"),
        ("x y z;", 1, 5, "'z'"),
        ("int def;", 1, 5, "'def'"),
        ("qubit[3] q;\n  h q[;", 2, 7, "';'"),
        ("/* never closed", 1, 1, "'/'"),
        ("h q;\n\x00", 2, 1, "'\\x00'"),
        ("rx(1)(2) q;", 1, 6, "'('"),
        ("if (a = 1) { x q; }", 1, 7, "'='"),
        ("gate g a { h a;", 1, 16, "ends in the middle"),
        ("array[8] a;", 1, 7, "'8'"),
        ("complex[int[8]] z;", 1, 9, "complex[int]"),
        ("int[8] 3x;", 1, 8, "'3'"),
        ("switch (i) { default {} case 0 {} }", 1, 32, "case after the default"),
        ("OPENQASM 4.0; qubit q;", 1, 1, "no known version"),
        ("qubit q; OPENQASM 3.0;", 1, 10, "'OPENQASM'"),
        ("cal { port d0;", 1, 5, "never closed"),
        ("(a + b) q;", 1, 2, "gate's name"),
        ("2 = 3;", 1, 1, "variable"),
    ],
)
def test_a_syntax_error_names_what_stands_there_and_where(
    text: str, line: int, column: int, what: str
) -> None:
    found = error(text)
    assert what in found.what
    assert (found.line, found.column) == (line, column)


def test_a_syntax_error_says_what_was_expected() -> None:
    assert error("qubit[2] q;\nOPENQASM 3.0;").hint.startswith("the version stands once")
    assert "';'" in error("creg c[2]\nqubit q;").why
    assert "OPENQASM 2.0" in error("opaque g(a) q;").hint
    assert "OPENQASM 3.0" in error("OPENQASM 2.0; qubit q;").hint


def test_bytes_that_are_not_utf8_are_placed() -> None:
    found = error(b"qubit q;\nh \xff q;")
    assert "0xff" in found.what
    assert (found.line, found.column) == (2, 3)


def test_a_byte_order_mark_is_not_part_of_the_source() -> None:
    from qcomp.frontends.openqasm.parser import decode

    assert decode(b"\xef\xbb\xbfqubit q;") == "qubit q;"


def test_the_header_decides_the_language() -> None:
    assert version_of("// c\n/* d */ OPENQASM 2.0;") == (2, 0)
    assert version_of("OPENQASM 3;") == (3, 0)
    assert version_of("qubit q;") is None
    assert parse("OPENQASM 2.0; qreg input[2];").version == (2, 0)


def test_keywords_of_openqasm_3_are_names_in_openqasm_2() -> None:
    circuit = read('OPENQASM 2.0; include "qelib1.inc"; qreg input[2]; creg box[2]; h input;')
    assert [register.name for register in circuit.qregs] == ["input"]
    assert [register.name for register in circuit.cregs] == ["box"]


def test_comments_of_both_kinds_and_unicode_names_are_read() -> None:
    text = "qubit ψ; // a comment\n/* over\ntwo lines */ rx(π/2) ψ; ry(τ/4) ψ;"
    assert names(text) == ["rx", "ry"]


def test_the_body_of_a_calibration_is_not_openqasm() -> None:
    found = error("qubit q;\ncal { £$ {nested} ... }\ndefcal x $0 { play(d0, w); }\nh q;")
    assert "cal (1, first at line 2), defcal (1, first at line 3)" in found.what


def test_literals_of_every_base_are_read() -> None:
    text = "qubit[64] q; x q[0xA]; x q[0b11]; x q[0o17]; x q[1_0]; rx(1_0.5e-0_1) q[0];"
    circuit = read(text)
    operations = list(circuit.run.operations())
    assert [qubits for _, qubits, _ in operations] == [(10,), (3,), (15,), (10,), (0,)]
    assert circuit.run.rem[0] == 1.05


def test_a_grammar_cache_that_is_damaged_is_built_again(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pathlib import Path

    from qcomp.frontends.openqasm import parser

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    parser._grammar.cache_clear()
    parse("qubit q;")
    (cached,) = Path(str(tmp_path)).glob("qcomp/*.json")
    whole = cached.read_text()
    cached.write_text(whole[: len(whole) // 2])
    parser._grammar.cache_clear()
    parse("qubit q;")
    assert len(json.loads(cached.read_text())) == 2
