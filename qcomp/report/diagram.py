"""The plan of a drawing: which sign stands in which column of which wire, for text and SVG alike.

Only the operations that are drawn are looked at, so a circuit of millions of gates costs no more
than a small one.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from qcomp.ir.angle import Angle, pi_text
from qcomp.ir.blocks import (
    Assign,
    Block,
    Box,
    Break,
    Continue,
    Delay,
    Duration,
    End,
    For,
    If,
    Range,
    Switch,
    While,
)
from qcomp.ir.classical import (
    Binary,
    Bit,
    Call,
    Cast,
    Expr,
    Lit,
    Register,
    Unary,
    VarRef,
    walk,
)
from qcomp.ir.gates import BY_NAME, GATES, G
from qcomp.ir.run import Run

if TYPE_CHECKING:
    from qcomp.ir.circuit import Circuit

__all__ = ["Diagram", "Element", "Mark", "Wire", "angle_text", "expression_text", "plan"]

MAX_LABEL = 40
"""Characters of one label; longer ones are cut."""

_SCAN_FACTOR = 4
"""Operations looked at for each that may be drawn, when most lie on wires that are left out."""


@dataclass(frozen=True, slots=True)
class Wire:
    """One row of the drawing: a qubit, or a whole classical register."""

    label: str
    is_qubit: bool


@dataclass(frozen=True, slots=True)
class Mark:
    """What an element puts on one row.

    Attributes:
        row: The row.
        sign: ``box`` (with ``text``), ``dot`` (a control), ``plus`` (a controlled X), ``cross`` (an
            end of a swap), ``barrier``, ``port`` (an operand of a tall box, ``text`` its number),
            or ``bit`` (where a measurement lands, ``text`` the bit's number in its register).
        text: The label.
    """

    row: int
    sign: Literal["box", "dot", "plus", "cross", "barrier", "port", "bit"]
    text: str = ""


@dataclass(frozen=True, slots=True)
class Element:
    """One operation, or one edge of a control-flow block, over the rows top..bottom.

    Attributes:
        kind: ``linked`` (marks on a common vertical line), ``tall`` (one box over all its rows),
            ``frame`` (an edge of a block), ``barrier`` or ``measure``.
        top: First row.
        bottom: Last row.
        marks: What stands on its rows.
        text: The label of a tall box or a frame.
        open_below: Whether the operation also acts on wires that are left out.
    """

    kind: Literal["linked", "tall", "frame", "barrier", "measure"]
    top: int
    bottom: int
    marks: tuple[Mark, ...] = ()
    text: str = ""
    open_below: bool = False


@dataclass(frozen=True, slots=True)
class Diagram:
    """A planned drawing.

    Attributes:
        wires: The rows, qubits first.
        columns: Elements of each column; rows of one column's elements do not overlap.
        header: Lines to stand above the drawing.
        footer: Lines that say what is not drawn.
    """

    wires: tuple[Wire, ...]
    columns: tuple[tuple[Element, ...], ...]
    header: tuple[str, ...] = ()
    footer: tuple[str, ...] = ()


def plan(circuit: Circuit, max_operations: int = 400, max_qubits: int = 40) -> Diagram:
    """Plan the drawing of a circuit.

    Args:
        circuit: The circuit.
        max_operations: Operations that are drawn; the rest is left out and the footer says so.
        max_qubits: Qubits that are drawn, and classical registers.
    """
    planner = _Planner(circuit, max_operations, max_qubits)
    planner.walk(circuit.body)
    return planner.finish()


# --- text of angles and expressions ------------------------------------------------------------


def clip(text: str, width: int = MAX_LABEL) -> str:
    """Return printable text of at most ``width`` characters."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= width else text[: width - 1] + "…"


def angle_text(angle: Angle) -> str:
    """Return an angle for people: ``-3π/8``, ``2·x + 0.5``; floats to four digits."""
    parts = []
    for name, coef in angle.terms:
        factor = "" if coef == 1 else "-" if coef == -1 else f"{coef:.4g}·"
        parts.append(f"{factor}{name}")
    if angle.frac:
        exact = pi_text(angle.frac)
        short = len(exact) <= 12
        parts.append(exact.replace("*", "").replace("pi", "π") if short else f"{_float(angle):.4g}")
        rest = angle.rem if short else 0.0
    else:
        rest = angle.rem
    if rest or not parts:
        parts.append(f"{rest:.4g}")
    return " + ".join(parts).replace("+ -", "- ")


def _float(angle: Angle) -> float:
    return float(Angle(angle.frac, angle.rem))


def expression_text(expr: Expr, circuit: Circuit) -> str:
    """Return a classical expression as OpenQASM spells it."""
    match expr:
        case Lit(value):
            return str(value).lower() if isinstance(value, bool) else str(value)
        case Bit(index):
            register = next((r for r in circuit.cregs if r.start <= index < r.start + r.size), None)
            return f"{register.name}[{index - register.start}]" if register else f"bit {index}"
        case Register(name) | VarRef(name):
            return name
        case Unary(op, operand):
            return f"{op}{_operand_text(operand, circuit)}"
        case Binary(op, left, right):
            return f"{_operand_text(left, circuit)} {op} {_operand_text(right, circuit)}"
        case Cast(kind, width, operand):
            size = f"[{width}]" if width else ""
            return f"{kind}{size}({expression_text(operand, circuit)})"
        case Call(function, arguments):
            return f"{function}({', '.join(expression_text(a, circuit) for a in arguments)})"


def _operand_text(expr: Expr, circuit: Circuit) -> str:
    text = expression_text(expr, circuit)
    return f"({text})" if isinstance(expr, Binary) else text


def _duration_text(duration: Duration) -> str:
    return f"{duration.value:g}{duration.unit}"


# --- signs of gates --------------------------------------------------------------------------


@functools.cache
def _control_count(code: int) -> int:
    """Number of leading operands that only control, read off the gate's matrix."""
    gate = GATES[code]
    if gate.num_qubits < 2 or not gate.is_unitary:
        return 0
    matrix = gate.matrix(*(0.3 + 0.2 * i for i in range(gate.num_angles)))
    index = np.arange(len(matrix))
    count = 0
    while count < gate.num_qubits - 1:
        off = index[(index >> count) & 1 == 0]
        eye = np.eye(len(matrix))
        if not (np.allclose(matrix[off], eye[off]) and np.allclose(matrix[:, off], eye[:, off])):
            break
        count += 1
    return count


@functools.cache
def _target_name(code: int) -> str:
    """Name of what a controlled gate does to its targets."""
    gate = GATES[code]
    inner = gate.name[_control_count(code) :]
    return inner if inner in BY_NAME else gate.name


def gate_label(name: str) -> str:
    """Return how a gate is written on its box: ``Rz``, ``S†``, ``√X``."""
    dagger = name.endswith("dg")
    stem = name.removesuffix("dg")
    root = stem == "sx"
    text = "√X" if root else stem[:1].upper() + stem[1:]
    return text + ("†" if dagger else "")


class _Planner:
    """Walks the tree and gathers elements, then places them in columns."""

    def __init__(self, circuit: Circuit, max_operations: int, max_qubits: int) -> None:
        self.circuit = circuit
        self.max_wires = max(1, max_qubits)
        self.shown_qubits = min(circuit.num_qubits, self.max_wires)
        self.max_operations = max_operations
        self.drawn = 0
        self.scanned = 0
        self.is_cut = False
        self.elements: list[Element] = []
        labels = [f"qubit {i}" for i in range(self.shown_qubits)]
        for r in circuit.qregs:
            for i in range(r.start, min(r.start + r.size, self.shown_qubits)):
                labels[i] = f"{r.name}[{i - r.start}]"
        wires = [Wire(clip(label, 20), True) for label in labels]
        cregs = circuit.cregs[: self.max_wires]
        self.bit_rows = {r.name: len(wires) + k for k, r in enumerate(cregs)}
        wires += [Wire(clip(f"{r.name}/{r.size}", 20), False) for r in cregs]
        self.wires = tuple(wires)

    # --- walking -------------------------------------------------------------------------

    def walk(self, block: Block) -> None:
        for item in block:
            if not self._may_go_on():
                return
            match item:
                case Run():
                    self._run(item)
                case If(condition, then, orelse):
                    parts = [(f"if {self._text(condition)}", then)]
                    if orelse:
                        parts.append(("else", orelse))
                    self._framed(parts, condition)
                case For(variable, values, body):
                    self._framed([(f"for {variable.name} in {self._values(values)}", body)])
                case While(condition, body):
                    self._framed([(f"while {self._text(condition)}", body)], condition)
                case Switch(subject, cases, default):
                    head = f"switch {self._text(subject)}: "
                    parts = [
                        ("case " + ", ".join(map(str, labels)), body) for labels, body in cases
                    ]
                    if default is not None:
                        parts.append(("default", default))
                    parts = [(head + parts[0][0], parts[0][1]), *parts[1:]] if parts else []
                    self._framed(parts or [(head, ())], subject)
                case Box(body, duration):
                    text = f" {_duration_text(duration)}" if duration else ""
                    self._framed([(f"box{text}", body)])
                case Delay(duration, qubits):
                    for row in (q for q in qubits if q < self.shown_qubits):
                        self._one(row, f"delay {_duration_text(duration)}")
                case Assign(target, value):
                    self._assign(target, value)
                case Break() | Continue() | End():
                    self._over_all(type(item).__name__.lower())

    def _text(self, expr: Expr) -> str:
        return expression_text(expr, self.circuit)

    def _values(self, values: Range | tuple[int, ...]) -> str:
        if isinstance(values, Range):
            start, stop, step = (self._text(e) for e in (values.start, values.stop, values.step))
            return f"[{start}:{stop}]" if step == "1" else f"[{start}:{step}:{stop}]"
        shown = ", ".join(map(str, values[:6]))
        return f"{{{shown}{', …' if len(values) > 6 else ''}}}"

    def _framed(self, parts: Iterable[tuple[str, Block]], reads: Expr | None = None) -> None:
        """Gather a block: an edge before each part and one at the end, over the rows it uses."""
        start = len(self.elements)
        edges: list[int] = []
        for text, body in parts:
            edges.append(len(self.elements))
            self.elements.append(Element("frame", 0, 0, text=clip(text)))
            self.walk(body)
        if not self.is_cut:
            edges.append(len(self.elements))
            self.elements.append(Element("frame", 0, 0, text="end"))
        inside = [e for i, e in enumerate(self.elements[start:], start) if i not in edges]
        rows = [row for e in inside for row in (e.top, e.bottom)]
        rows += [] if reads is None else self._rows_read(reads)
        top, bottom = min(rows, default=0), max(rows, default=len(self.wires) - 1)
        for i in edges:
            self.elements[i] = Element("frame", top, bottom, text=self.elements[i].text)

    def _rows_read(self, expr: Expr) -> list[int]:
        """Return the rows of the registers that an expression reads."""
        names = [
            self._register_of(part.index)[0] if isinstance(part, Bit) else part.name
            for part in walk(expr)
            if isinstance(part, Bit | Register)
        ]
        return [self.bit_rows[name] for name in names if name in self.bit_rows]

    def _over_all(self, text: str) -> None:
        if self.wires:
            self._add(Element("tall", 0, len(self.wires) - 1, text=clip(text)))

    def _one(self, row: int, text: str) -> None:
        self._add(Element("linked", row, row, (Mark(row, "box", clip(text)),)))

    def _assign(self, target: Bit | Register | VarRef, value: Expr) -> None:
        text = f"{self._text(target)} = {self._text(value)}"
        register = None
        if isinstance(target, Bit):
            register = self._register_of(target.index)[0]
        elif isinstance(target, Register):
            register = target.name
        row = self.bit_rows.get(register or "")
        if row is None:
            self._over_all(text)
        else:
            self._one(row, text)

    def _register_of(self, bit: int) -> tuple[str, int]:
        for register in self.circuit.cregs:
            if register.start <= bit < register.start + register.size:
                return register.name, bit - register.start
        return "", bit

    def _add(self, element: Element) -> None:
        self.elements.append(element)
        self.drawn += 1

    # --- runs ----------------------------------------------------------------------------

    def _run(self, run: Run) -> None:
        for i in range(len(run)):
            if not self._may_go_on():
                return
            self._operation(run, i)

    def _may_go_on(self) -> bool:
        """Count one more item, unless the drawing is full."""
        full = self.drawn >= self.max_operations
        if full or self.scanned >= _SCAN_FACTOR * self.max_operations:
            self.is_cut = True
        self.scanned += 1
        return not self.is_cut

    def _operation(self, run: Run, i: int) -> None:
        code = int(run.code[i])
        if code == G.GPHASE:
            self._over_all(f"phase{self._angles(run, i, 1)}")
            return
        operands = run.operands(i)
        shown = [q for q in operands if q < self.shown_qubits]
        if not shown:
            return
        left_out = len(shown) < len(operands)
        if code == G.BARRIER:
            marks = tuple(Mark(q, "barrier") for q in sorted(shown))
            self._add(Element("barrier", min(shown), max(shown), marks, open_below=left_out))
        elif code == G.MEASURE:
            register, bit = self._register_of(int(run.qubit[i, 1]))
            row = self.bit_rows.get(register)
            if row is None:
                self._one(shown[0], f"M {register}[{bit}]")
                return
            marks = (Mark(shown[0], "box", "M"), Mark(row, "bit", str(bit)))
            self._add(Element("measure", shown[0], row, marks))
        elif code == G.RESET:
            self._one(shown[0], "|0⟩")
        else:
            self._gate(run, i, code, operands, left_out)

    def _gate(self, run: Run, i: int, code: int, operands: tuple[int, ...], left_out: bool) -> None:
        gate = GATES[code]
        angles = self._angles(run, i, gate.num_angles)
        wide = gate.num_qubits < 0
        controls = len(operands) - 1 if wide else _control_count(code)
        target = "x" if wide else _target_name(code)
        targets = operands[controls:]
        marks = [Mark(q, "dot") for q in operands[:controls]]
        if target == "swap" and len(targets) == 2:
            marks += [Mark(q, "cross") for q in targets]
        elif len(targets) == 1:
            if controls and target == "x":
                marks.append(Mark(targets[0], "plus"))
            elif controls and target == "z":
                marks.append(Mark(targets[0], "dot"))
            else:
                marks.append(Mark(targets[0], "box", clip(gate_label(target) + angles)))
        else:
            ports = [Mark(q, "port", str(k)) for k, q in enumerate(operands)]
            shown = tuple(m for m in ports if m.row < self.shown_qubits)
            top, bottom = self._span(shown, left_out)
            text = clip(gate_label(gate.name) + angles)
            self._add(Element("tall", top, bottom, shown, text, left_out))
            return
        shown = tuple(m for m in marks if m.row < self.shown_qubits)
        top, bottom = self._span(shown, left_out)
        self._add(Element("linked", top, bottom, shown, open_below=left_out))

    def _span(self, marks: tuple[Mark, ...], left_out: bool) -> tuple[int, int]:
        rows = [m.row for m in marks]
        return min(rows), self.shown_qubits - 1 if left_out else max(rows)

    def _angles(self, run: Run, i: int, count: int) -> str:
        if not count:
            return ""
        first = int(run.angle[i])
        return "(" + ", ".join(self._angle(run, first + k) for k in range(count)) + ")"

    def _angle(self, run: Run, entry: int) -> str:
        row = self.circuit.forms.row(int(run.form[entry]))
        params = self.circuit.params
        terms = tuple((params[column], coef) for column, coef in row)
        return angle_text(Angle(int(run.frac[entry]), float(run.rem[entry]), terms))

    # --- placing -------------------------------------------------------------------------

    def finish(self) -> Diagram:
        """Place the elements: each as far left as the rows it covers are free."""
        columns: list[list[Element]] = []
        free = [0] * len(self.wires)
        for element in self.elements if self.wires else ():
            # A measurement writes its bit's number below its register's row.
            last = min(element.bottom + (element.kind == "measure"), len(free) - 1)
            rows = range(element.top, last + 1)
            at = max((free[r] for r in rows), default=0)
            while len(columns) <= at:
                columns.append([])
            columns[at].append(element)
            for r in rows:
                free[r] = at + 1
        return Diagram(
            self.wires,
            tuple(tuple(column) for column in columns),
            tuple(self._header()),
            tuple(self._footer()),
        )

    def _header(self) -> Iterator[str]:
        phase = self.circuit.global_phase
        if not phase.is_zero:
            yield f"global phase: {clip(angle_text(phase), 80)}"

    def _footer(self) -> Iterator[str]:
        hidden = self.circuit.num_qubits - self.shown_qubits
        if hidden > 0:
            plural = "qubit is" if hidden == 1 else "qubits are"
            yield f"… {hidden:,} more {plural} not drawn"
        registers = len(self.circuit.cregs) - len(self.bit_rows)
        if registers > 0:
            plural = "register is" if registers == 1 else "registers are"
            yield f"… {registers:,} more classical {plural} not drawn"
        if self.is_cut:
            total = len(self.circuit)
            yield f"… the drawing stops after {self.drawn:,} of {total:,} operations"
