"""qcomp opt --allow: rules that use more than the unitary, off unless they are asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Cli

SOURCE = """OPENQASM 3.0;
include "stdgates.inc";
qubit[3] q;
bit[2] c;
cx q[0], q[1];
h q[0];
cx q[0], q[1];
swap q[1], q[2];
t q[0];
c[0] = measure q[0];
c[1] = measure q[2];
"""


@pytest.mark.parametrize(
    ("rules", "gone", "how"),
    [
        (("zero-start",), "cx q[0], q[1];\nh q[0];", "the state made of |0...0>"),
        (("permutation",), "swap", "layouts undone"),
        (("only-bits",), "t q[0]", "joint distributions of the bits"),
    ],
)
def test_a_rule_that_is_allowed_is_used_and_its_promise_is_checked(
    cli: Cli, folder: Path, rules: tuple[str, ...], gone: str, how: str
) -> None:
    Path("in.qasm").write_text(SOURCE)
    options = [word for rule in rules for word in ("--allow", rule)]
    plain = ("opt", "in.qasm", "-p", "merge-rotations", "-o")
    assert cli(*plain, "plain.qasm").code == 0
    assert gone in Path("plain.qasm").read_text()
    said = cli(*plain, "out.qasm", *options).out
    assert gone not in Path("out.qasm").read_text()
    assert "equivalence: equal" in said
    assert how in " ".join(said.split())


def test_a_rule_that_there_is_not_is_refused_with_the_nearest_name(cli: Cli, folder: Path) -> None:
    Path("in.qasm").write_text(SOURCE)
    result = cli("opt", "in.qasm", "-o", "out.qasm", "--allow", "permutations")
    assert result.code == 2
    assert "did you mean 'permutation'?" in result.err
    assert not Path("out.qasm").exists()
