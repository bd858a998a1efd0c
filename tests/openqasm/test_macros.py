"""Gate definitions written out in the text: the scanner then reads what the grammar reads."""

from pathlib import Path

import pytest

from qcomp.errors import SourceError
from qcomp.frontends.openqasm.interpreter import interpret
from qcomp.frontends.openqasm.macros import written_out
from qcomp.frontends.openqasm.parser import parse
from qcomp.frontends.openqasm.reader import _scan_written_out, read_text
from qcomp.frontends.openqasm.scanner import scan

TWO = 'OPENQASM 2.0;\ninclude "qelib1.inc";\n'
THREE = 'OPENQASM 3.0;\ninclude "stdgates.inc";\n'
Q2, Q3 = "qreg q[4];creg c[4];\n", "qubit[4] q;bit[4] c;\n"

MAJ = "gate maj a,b,c{cx c,b;cx c,a;ccx a,b,c;}\n"
SAME: list[str] = [
    TWO + MAJ + Q2 + "maj q[0],q[1],q[2];maj q[3],q[1],q[0];",
    TWO + "gate g(t) a{rz(t/2) a;u1(-t) a;rx(0.5*t) a;}\n" + Q2
    + "g(0.3) q[0];g(-0.7) q[1];g(pi) q[2];",
    TWO + "gate g(t) a{rz(t) a;}\n" + Q2 + "g(pi/2) q[0];g(-3*pi/8) q[1];g(1e-3) q[2];",
    TWO + "gate f(t) a{rx(t) a;}gate g(t,p) a,b{f(t) a;cx a,b;f(p) b;f(0.25) a;}\n" + Q2
    + "g(0.1,-0.2) q[1],q[0];measure q->c;",
    TWO + "gate none a{}\n" + Q2 + "none q[0];h q[1];",
    TWO + "gate unused a{h a;}\n" + Q2 + "h q[1];",
    TWO + "gate ryy(param0) a,b{rx(pi/2) a;cx a,b;rz(4.08) b;}\n" + Q2 + "ryy(1.0) q[0],q[1];",
    TWO + "// gate x y{}\ngate g a{h a; /* h a; */ x a;} // the end\n" + Q2 + "g q[0]; // g\n",
    TWO + Q2 + "h q[0];\ngate g a{h a;}\ng q[0];",
    THREE + "gate g(t) a, b { gphase(t/4); U(t, 0, -t) a; x a; }\n"
    + Q3 + "g(0.5) q[0], q[1];\nc[0] = measure q[0];\n",
    THREE + MAJ + "input float[64] w;\n" + Q3 + "maj q[0], q[1], q[2];\nrz(2*w + pi/4) q[0];\n",
    THREE + "gate g(t) a { rz(t) a; }\ninput float[64] w;\n" + Q3
    + "g(2*w - 0.1) q[0];\ng(w) q[1];\n",
    THREE + "gate g(t) a { rz(t*2) a; }\ninput float[64] w;\n" + Q3 + "g(w) q[0];\n",
]  # fmt: skip


@pytest.mark.parametrize("text", SAME)
def test_what_is_written_out_is_what_the_grammar_reads(text: str) -> None:
    assert scan(text) is None
    fast = _scan_written_out(text, "circuit")
    assert fast is not None
    slow = interpret(parse(text)).circuit
    assert fast.equals(slow)
    assert fast.global_phase == slow.global_phase


OTHERS: list[str] = [
    # The table's own gate, read back as that gate.
    TWO + "gate rzz(t) a,b{cx a,b;rz(t) b;cx a,b;}" + Q2 + "rzz(0.1) q[0],q[1];",
    THREE + "gate rzz(p0) a, b { cx a, b; rz(p0) b; cx a, b; }\ngate g a { h a; }\n" + Q3
    + "rzz(0.1) q[0], q[1]; g q[0];",
    # Brackets would be needed.
    TWO + "gate g(t) a{rz(3/t) a;}" + Q2 + "g(pi/2) q[0];",
    TWO + "gate g(t) a{rz(2-t) a;}" + Q2 + "g(0.1+0.2) q[0];",
    # Whole registers, modifiers, control flow, functions.
    TWO + "gate g a{h a;x a;}" + Q2 + "g q;",
    THREE + "gate g a { h a; }\n" + Q3 + "ctrl @ g q[0], q[1];",
    THREE + "gate g a { ctrl @ x a, a; }\n" + Q3,
    TWO + "gate g a{h a;}" + Q2 + "if(c==1) g q[0];",
    TWO + "gate g(t) a{rz(sin(t)) a;}" + Q2 + "g(0.1) q[0];",
    THREE + "gate g a { h a; }\n" + Q3 + "if (c[0]) { g q[0]; }",
    THREE + "gate g a { for int i in [0:1] { h a; } }\n" + Q3 + "g q[0];",
    # Wrong in a gate that is never called, and what qelib1.inc has.
    TWO + "gate g a{cx a;}" + Q2 + "h q[0];",
    TWO + "gate g a{rz a;}" + Q2 + "h q[0];",
    TWO + "gate h a{x a;}" + Q2 + "h q[0];",
    THREE + "input float[64] w;\ngate g a { rz(w) a; }\n" + Q3 + "g q[0];",
    # Integers divide differently in a gate's body than in place.
    THREE + "gate g(t) a { rz(t/2) a; }\n" + Q3 + "g(1) q[0];",
]  # fmt: skip


@pytest.mark.parametrize("text", OTHERS)
def test_what_could_mean_something_else_is_left_to_the_grammar(text: str) -> None:
    assert _scan_written_out(text, "circuit") is None


WRONG: list[str] = [
    TWO + "gate g a{h a;}" + Q2 + "g q[0],q[1];",
    TWO + "gate g a{h a;}" + Q2 + "g(0.1) q[0];",
    TWO + "gate g a,b{h a;}" + Q2 + "g q[0],q[0];",
    TWO + "gate g a{h b;}" + Q2 + "g q[0];",
    TWO + "gate g a{nope a;}" + Q2 + "h q[0];",
    TWO + "gate g(t) a{rz(u) a;}" + Q2 + "g(0.1) q[0];",
    TWO + "gate g a{g a;}" + Q2 + "g q[0];",
    TWO + "gate g a{h a;}gate g a{x a;}" + Q2 + "g q[0];",
    TWO + Q2 + "g q[0];gate g a{h a;}",
    TWO + "gate g a{h a;}qreg g[2];",
    TWO + "gate g a{h a;}" + Q2 + "g q[9];",
    TWO + "gate g a{h a;}" + Q2 + "g q[0]",
    TWO + "gate g a{h a}" + Q2 + "g q[0];",
    TWO + "gate g a,a{h a;}" + Q2,
    TWO + "h gate g a{h a;}" + Q2,
    TWO + "gate g a{opaque b;}" + Q2,
    THREE + "gate g a { h $0; }\n" + Q3,
]


@pytest.mark.parametrize("text", WRONG)
def test_wrong_texts_get_the_grammars_errors(text: str) -> None:
    assert _scan_written_out(text, "circuit") is None
    with pytest.raises(SourceError) as caught:
        read_text(text)
    assert caught.value.line >= 1


def test_definitions_that_multiply_are_stopped() -> None:
    lines = ["gate g0 a{h a;h a;}"]
    lines += [f"gate g{i} a{{g{i - 1} a;g{i - 1} a;}}" for i in range(1, 40)]
    assert written_out(TWO + "".join(lines) + Q2 + "g39 q[0];") is None
    calls = "g12 q[0];" * 300
    assert written_out(TWO + "".join(lines[:13]) + Q2 + calls) is None


def test_public_programs_with_definitions_are_read_alike(shared: Path) -> None:
    folder = shared / "bench" / "circuits"
    found = 0
    for path in sorted(folder.glob("*.qasm")):
        text = path.read_text()
        if "gate " not in text or len(text) > 30_000:
            continue
        fast = _scan_written_out(text, "circuit")
        if fast is not None:
            found += 1
            assert fast.equals(interpret(parse(text)).circuit), path.stem
    assert found >= 3
