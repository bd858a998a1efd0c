"""What the tests of commands share."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.cli.conftest import Result


CIRCUIT = """OPENQASM 3.0;
include "stdgates.inc";
qubit[3] q;
bit[3] c;
h q[0];
h q[0];
t q[1];
t q[1];
rz(0.3) q[2];
cx q[0], q[1];
cx q[1], q[2];
c = measure q;
"""


def done(result: Result) -> str:
    """Return the output of a command that has to succeed, without a word on standard error."""
    assert result.code == 0, result.err
    assert result.err == ""
    assert "\x1b" not in result.out
    assert "\r" not in result.out
    return result.out


def strict(text: str) -> Any:
    """Parse JSON and nothing beside it."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)
