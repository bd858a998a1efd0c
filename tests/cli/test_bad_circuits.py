"""OpenQASM that is wrong, cut or meant to harm gets one clear error with its place."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Cli
from tests.cli.refusals import STANDARD, Unchanged, refused, write


def doubling(head: str, register: str, levels: int = 41) -> str:
    gates = "".join(f"gate g{i} a {{ g{i - 1} a; g{i - 1} a; }}\n" for i in range(1, levels))
    return f"{head}gate g0 a {{ x a; x a; }}\n{gates}{register}\ng{levels - 1} q;\n"


OLD = 'OPENQASM 2.0;\ninclude "qelib1.inc";\n'
CHAIN = "".join(f"gate g{i} a {{ g{i - 1} a; }}\n" for i in range(1, 5000))
CIRCUITS = {
    "doubling definitions": (doubling(STANDARD, "qubit q;"), "expands to more than"),
    "doubling definitions of version 2": (doubling(OLD, "qreg q[1];"), "expands to more than"),
    "a deep chain of definitions": (
        f"{STANDARD}gate g0 a {{ x a; }}\n{CHAIN}qubit q;\ng4999 q;\n", "levels deep",
    ),
    "a gate that calls itself": ("OPENQASM 3.0;\ngate g a { g a; }\nqubit q;\ng q;\n", "itself"),
    "a subroutine that calls itself": (
        STANDARD + "qubit q;\ndef f(int n) { f(n); }\nf(3);\n", "levels deep",
    ),
    "deep brackets": (STANDARD + "qubit q;\nrz(" + "(" * 9999 + "1" + ")" * 9999 + ") q;", "deep"),
    "deep blocks": (
        STANDARD + "qubit q; bit c;\n" + "if (c) {" * 9999 + "x q;" + "}" * 9999, "nested",
    ),
    "an enormous power": (STANDARD + "qubit q;\npow(1000000000000) @ x q;\n", "power"),
    "many controls": (STANDARD + "qubit[2] q;\nctrl(1000000000) @ x q[0], q[1];\n", "control"),
    "an enormous register": (STANDARD + "qubit[9000000000000000000] q;\nx q;\n", "more than"),
    "an enormous register of version 2": (OLD + "qreg q[4000000000];\nx q[0];\n", "more than"),
    "an enormous array": (
        STANDARD + "qubit q;\narray[int[32], 100000, 100000] a;\nx q;\n", "more than",
    ),
    "an enormous number": (STANDARD + "qubit q;\nconst int n = 9**9**9**9;\nrz(n) q;\n", "bits"),
    "nested loops": (
        STANDARD + "qubit q;\nfor int i in [0:1000] { for int j in [0:1000] { "
        "for int k in [0:1000] { rx(i*j*k) q; } } }\n", "more than",
    ),
    "an endless loop": (STANDARD + "qubit q;\nwhile (true) { x q; }\n", "more than"),
    "an infinite angle": (STANDARD + "qubit q;\nrz(1e400) q;\n", "finite"),
    "an include outside": ('OPENQASM 3.0;\ninclude "../secret.inc";\nqubit q;\n', "leaves"),
    "an include from the root": ('OPENQASM 2.0;\ninclude "/etc/passwd";\nqreg q[1];\n', "leaves"),
    "an include through a link": ('OPENQASM 3.0;\ninclude "link.inc";\nqubit q;\n', "leaves"),
    "an include of itself": ('OPENQASM 3.0;\ninclude "self.inc";\nqubit q;\n', "includes itself"),
    "an include that is missing": ('OPENQASM 3.0;\ninclude "no.inc";\nqubit q;\n', "no.inc"),
    "an unknown gate": (STANDARD + "qubit q;\nhh q;\n", "no gate 'hh'"),
    "what is no text": ("\x00\x01\x02", "line 1"),
}  # fmt: skip


@pytest.mark.parametrize("case", CIRCUITS)
def test_a_malicious_circuit_is_refused_with_its_place(cli: Cli, case: str) -> None:
    text, part = CIRCUITS[case]
    write("c.qasm", text)
    write("self.inc", 'include "self.inc";\n')
    write("../secret.inc", "gate secret a { }\n")
    Path("link.inc").symlink_to("/etc/passwd")
    start = time.process_time()
    with Unchanged(Path("..")):
        refused(cli("opt", "c.qasm", "-o", "out.qasm", "--stats", "s.json"), part, "line", code=1)
        refused(cli("compile", "c.qasm", "-t", "ibm-heron", "-o", "out"), part, "line", code=1)
    assert time.process_time() - start < 60


PROGRAM = """OPENQASM 3.0;
include "stdgates.inc";
input float theta;
gate pair(a) p, q { cx p, q; rz(a / 2) q; }
qubit[3] q;
bit[3] c;
h q[0];
ctrl @ x q[0], q[1];
pair(theta) q[1], q[2];
c[0] = measure q[0];
if (c[0]) { x q[1]; } else { z q[2]; }
for uint i in [0:1] { ry(pi * i / 4) q[i]; }
c = measure q;
"""


@pytest.mark.parametrize("step", range(0, len(PROGRAM), 3))
def test_an_error_at_any_byte_is_said_with_line_and_column(cli: Cli, step: int) -> None:
    # A backtick is nowhere in the language: the place of the error is its own.
    write("c.qasm", PROGRAM[:step] + "`" + PROGRAM[step:])
    line = PROGRAM.count("\n", 0, step) + 1
    column = step - (PROGRAM.rfind("\n", 0, step) + 1) + 1
    result = cli("opt", "c.qasm", "-o", "out.qasm")
    refused(result, code=1)
    place = re.search(r"line (\d+), column (\d+)", result.err)
    assert place, result.err
    assert int(place[1]) == line
    # Where it cuts a word in two, the first half may be what is wrong; in a text, the statement.
    word = re.search(r"\w*$|include .*$", PROGRAM[:step].splitlines()[-1] if column > 1 else "")
    assert word
    assert column - len(word[0]) <= int(place[2]) <= column
    assert os.listdir() == ["c.qasm"]


def test_a_program_cut_anywhere_or_with_a_byte_changed_is_read_or_refused(cli: Cli) -> None:
    content = PROGRAM.encode()
    rng = np.random.default_rng(5)
    refusals = 0
    for place in range(0, len(content), 4):
        changed = bytearray(content)
        changed[place] = int(rng.integers(256))
        for text in (content[:place], bytes(changed)):
            write("c.qasm", text)
            with Unchanged():
                result = cli("inspect", "c.qasm", "--json")
            if result.code:
                refused(result, "line", code=1)
                refusals += 1
    assert refusals > len(content) // 8
