"""The backend that writes a program of one circuit."""

from pathlib import Path

import numpy as np
import pytest

from qcomp.backends.openqasm3.backend import OpenQasm3Backend
from qcomp.errors import TargetError
from qcomp.frontends.openqasm.reader import read_text
from qcomp.ir.angle import Parameter
from qcomp.ir.circuit import Circuit
from qcomp.ir.program import Program
from qcomp.passmanager import Context
from qcomp.simulate import unitary
from qcomp.target import get_target


def small(name: str = "theta") -> Circuit:
    return Circuit(2, params=(name,)).h(0).rz(2 * Parameter(name), 0).cx(0, 1)


def test_a_program_of_one_circuit_becomes_one_text(tmp_path: Path) -> None:
    circuit = small()
    program = Program.of_circuit(circuit)
    out = tmp_path / "c.qasm"
    assert OpenQasm3Backend().write(program, out, None, Context()) == [out]
    assert read_text(out.read_text()).equals(circuit)


def test_the_portable_target_keeps_the_parameters_of_a_circuit_that_has_them(
    tmp_path: Path,
) -> None:
    out = tmp_path / "c.qasm"
    OpenQasm3Backend().write(Program.of_circuit(small()), out, get_target("portable"), Context())
    text = out.read_text()
    assert "input float[64] theta;" in text
    assert "cx" not in text
    assert np.allclose(unitary(read_text(text), [0.4]), unitary(small(), [0.4]))


def test_a_name_that_had_to_change_is_told(tmp_path: Path) -> None:
    context = Context()
    told = context.warnings
    OpenQasm3Backend().write(Program.of_circuit(small("x")), tmp_path / "c.qasm", None, context)
    assert len(told) == 1
    assert "'x'" in told[0]
    assert "'x_'" in told[0]


def test_a_program_without_a_single_circuit_is_refused(tmp_path: Path) -> None:
    program = Program.of_circuit(small())
    program.circuits.clear()
    with pytest.raises(TargetError, match="one circuit"):
        OpenQasm3Backend().write(program, tmp_path / "c.qasm", None, Context())
    assert list(tmp_path.iterdir()) == []
