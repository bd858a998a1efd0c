"""Circuits drawn as text: the drawings are golden files, one a case."""

import re
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qcomp.errors import QcompError
from qcomp.frontends.openqasm.reader import read_text
from qcomp.ir.angle import Angle, Parameter, pi_fraction
from qcomp.ir.blocks import Block, Duration, Range
from qcomp.ir.circuit import Circuit, RegisterDecl
from qcomp.ir.classical import Binary, Bit, Call, Cast, ClassicalVar, Lit, Register, Unary, VarRef
from qcomp.ir.gates import GATES, G
from qcomp.ir.run import Run
from qcomp.report.diagram import angle_text, expression_text, plan
from qcomp.report.draw import draw
from qcomp.report.svg import circuit_svg
from tests.timing import timed

FOLDER = Path(__file__).parent / "drawings"


def bell() -> Circuit:
    """A Bell pair, measured."""
    circuit = Circuit(2, 2)
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.measure(0, 0)
    circuit.measure(1, 1)
    return circuit


def gates() -> Circuit:
    """Controls, swaps, tall boxes, wide gates, exact angles, a global phase."""
    c = Circuit(4, 1)
    c.gphase(pi_fraction(1, 4))
    c.h(0)
    c.ccx(0, 1, 3)
    c.rz(pi_fraction(-3, 8), 2)
    c.u(0.1, pi_fraction(1, 2), 0, 1)
    c.cz(1, 3)
    c.swap(0, 2)
    c.cswap(0, 1, 2)
    c.rzz(0.3, 0, 2)
    c.cp(pi_fraction(1, 4), 0, 3)
    c.append("csdg", (2, 1))
    c.sxdg(1)
    c.mcx([0, 1, 2], 3)
    c.ecr(3, 2)
    c.barrier(0, 1, 3)
    c.reset(0)
    return c


def symbols() -> Circuit:
    """Affine angles in named parameters."""
    c = Circuit(2)
    c.rx(2 * Parameter("x") + 0.5, 0)
    c.ry(-Parameter("y"), 1)
    c.rzz(Parameter("x") - Parameter("y") + pi_fraction(1, 2), 0, 1)
    return c


def control_flow() -> Circuit:
    """Nested if, else, for, while, switch, box, delay, assignments, break."""
    c = Circuit(3, 3, variables=(ClassicalVar("k", "int", 32),))
    c.h(0)
    c.measure(0, 0)
    with c.if_(Binary("==", Register("c"), Lit(3))):
        c.x(1)
    with c.else_():
        c.z(1)
    with c.for_(ClassicalVar("i", "int", 32), Range(Lit(0), Lit(3), Lit(1))):
        c.t(0)
        with c.while_(Unary("!", Bit(0))):
            c.h(0)
            c.gphase(0.25)
            c.measure(0, 0)
            c.break_()
    blocks: list[Block] = []
    with c.capture(blocks):
        c.s(2)
    with c.capture(blocks):
        c.t(2)
    c.switch(Register("c"), [((0, 1), blocks[0])], blocks[1])
    with c.box(Duration(300, "ns")):
        c.cx(1, 2)
    c.delay(Duration(100, "ns"), 1, 2)
    c.assign(Bit(2), Unary("!", Bit(0)))
    c.assign(VarRef("k"), Binary("+", VarRef("k"), Lit(1)))
    c.end()
    return c


def registers() -> Circuit:
    """Several registers, measured into each."""
    c = Circuit(
        3,
        3,
        qregs=(RegisterDecl("data", 2, 0), RegisterDecl("ancilla", 1, 2)),
        cregs=(RegisterDecl("out", 2, 0), RegisterDecl("syndrome", 1, 2)),
    )
    c.cx(0, 2)
    c.cx(1, 2)
    c.measure(2, 2)
    c.measure(0, 0)
    c.measure(1, 1)
    return c


def many_qubits() -> Circuit:
    """More qubits than are drawn, and gates that reach them."""
    c = Circuit(50)
    for q in range(0, 49, 7):
        c.cx(q, q + 1)
    c.barrier()
    c.cx(3, 49)
    c.rzz(0.5, 38, 41)
    return c


CASES = [bell, gates, symbols, control_flow, registers, many_qubits]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_drawing_is_as_recorded(case: Callable[[], Circuit], update_golden: bool) -> None:
    path = FOLDER / f"{case.__name__}.txt"
    text = f"# {case.__doc__}\n{draw(case())}"
    if update_golden:
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_no_line_is_wider_than_asked_for(case: Callable[[], Circuit], width: int) -> None:
    assert max(len(line) for line in draw(case(), width).splitlines()) <= width


def test_every_gate_of_the_table_can_be_drawn() -> None:
    for gate in GATES:
        size = gate.num_qubits if gate.num_qubits >= 0 else 4
        circuit = Circuit(max(size, 1), 1)
        if gate.name == "gphase":
            with circuit.box():
                circuit.gphase(0.1)
        else:
            angles = [0.1] * gate.num_angles
            clbit = 0 if gate.name == "measure" else -1
            circuit.append(gate.name, range(size), angles, clbit=clbit)
        assert plan(circuit).columns, gate.name


@timed
def test_a_million_gates_are_drawn_as_fast_as_four_hundred() -> None:
    rng = np.random.default_rng(0)
    n = 1_000_000
    a = rng.integers(0, 30, n)
    b = (a + rng.integers(1, 30, n)) % 30
    circuit = Circuit(30)
    circuit.append_item(Run.of(np.full(n, G.CX, np.uint8), np.stack([a, b, 0 * a - 1], 1)))
    start = time.process_time()
    text = circuit.draw()
    assert time.process_time() - start < 1.0
    assert "the drawing stops after 400 of 1,000,000 operations" in text


def test_a_circuit_without_drawn_operations_is_only_scanned_so_far() -> None:
    n = 500_000
    circuit = Circuit(100)
    qubit = np.full((n, 3), -1)
    qubit[:, 0] = 99
    circuit.append_item(Run.of(np.full(n, G.X, np.uint8), qubit))
    diagram = plan(circuit)
    assert not diagram.columns
    assert len(diagram.footer) == 2


def test_empty_circuits_are_drawn() -> None:
    assert draw(Circuit(0)) == "(no wires)\n"
    assert "q[1]" in draw(Circuit(2))


def test_what_a_terminal_would_obey_is_not_printed() -> None:
    c = Circuit(1, qregs=(RegisterDecl("q\x1b[31m", 1, 0),))
    c.x(0)
    assert "\x1b" not in draw(c)


@pytest.mark.parametrize(
    ("angle", "text"),
    [
        (Angle(), "0"),
        (pi_fraction(1), "π"),
        (pi_fraction(-3, 8), "-3π/8"),
        (Angle.of(0.123456), "0.1235"),
        (pi_fraction(1, 2) + 0.25, "π/2 + 0.25"),
        (Angle(12345678901), "3.364e-08"),
        (2 * Parameter("a") - Parameter("b") - 1.5, "2·a - b - 1.5"),
    ],
)
def test_angles_are_written_for_people(angle: Angle, text: str) -> None:
    assert angle_text(angle) == text


def test_expressions_are_written_as_openqasm_spells_them() -> None:
    c = Circuit(1, 4, cregs=(RegisterDecl("a", 2, 0), RegisterDecl("b", 2, 2)))
    inner = Binary("&", Register("a"), Cast("uint", 2, Bit(3)))
    expr = Binary("==", inner, Call("popcount", (VarRef("k"),)))
    assert expression_text(expr, c) == "(a & uint[2](b[1])) == popcount(k)"
    assert expression_text(Lit(True), c) == "true"


def test_controls_are_read_off_the_matrices() -> None:
    c = Circuit(3)
    c.append("cu", (0, 1), (0.1, 0.2, 0.3, 0.4))
    c.append("dcx", (0, 1))
    c.ccz(0, 1, 2)
    controlled, dcx, ccz = (e for column in plan(c).columns for e in column)
    assert [m.sign for m in controlled.marks] == ["dot", "box"]
    assert dcx.kind == "tall"
    assert [m.sign for m in ccz.marks] == ["dot", "dot", "dot"]
    assert re.fullmatch(r"U\(0\.1, 0\.2, 0\.3, 0\.4\)", controlled.marks[1].text)


def test_blocks_without_any_wire_are_drawn() -> None:
    c = Circuit(0)
    with c.box(), c.box():
        pass
    assert draw(c) == "(no wires)\n"


def test_bits_with_long_numbers_are_not_cut() -> None:
    c = Circuit(1, 20_000)
    c.measure(0, 12_345)
    assert "12345" in draw(c)


def test_circuits_of_the_corpora_are_drawn_within_the_width(shared: Path) -> None:
    files = [*(shared / "qasm3").glob("*.qasm"), *(shared / "bench/circuits").glob("*.qasm")]
    drawn = 0
    for path in sorted(files)[::4]:
        try:
            circuit = read_text(path.read_bytes(), folder=path.parent)
        except QcompError:
            continue
        for width in (40, 100):
            text = draw(circuit, width, max_operations=100)
            assert max(len(line) for line in text.splitlines()) <= width, path.name
        ET.fromstring(circuit_svg(circuit, max_operations=100))
        drawn += 1
    assert drawn > 120
