"""A circuit as a Qiskit ``QuantumCircuit``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from qcomp.errors import TargetError
from qcomp.ir.angle import PI, SNAP_BITS, UNIT, Angle
from qcomp.ir.blocks import (
    Assign,
    Block,
    Box,
    Break,
    Continue,
    Delay,
    For,
    If,
    Item,
    Range,
    Switch,
    While,
)
from qcomp.ir.circuit import Circuit
from qcomp.ir.classical import (
    Binary,
    Bit,
    Cast,
    ClassicalVar,
    Expr,
    Lit,
    Register,
    Unary,
    VarRef,
)
from qcomp.ir.definitions import definition
from qcomp.ir.gates import GATES, NUM_ANGLES, NUM_QUBITS, G, Gate
from qcomp.ir.run import Run

if TYPE_CHECKING:
    from qiskit import QuantumCircuit

    from qcomp.ir.layout import Layout

__all__ = ["to_qiskit"]

_STEP = PI >> SNAP_BITS
_BINARY = {
    "&": "bit_and", "|": "bit_or", "^": "bit_xor", "&&": "logic_and", "||": "logic_or",
    "==": "equal", "!=": "not_equal", "<": "less", "<=": "less_equal", ">": "greater",
    ">=": "greater_equal", "<<": "shift_left", ">>": "shift_right", "+": "add", "-": "sub",
    "*": "mul", "/": "div",
}  # fmt: skip
_UNARY = {"~": "bit_not", "!": "logic_not", "-": "negate"}


def to_qiskit(circuit: Circuit) -> QuantumCircuit:
    """Return the circuit as a Qiskit circuit: same registers, parameters, phase and control flow.

    Raises:
        TargetError: If a classical expression or ``end`` has no counterpart in Qiskit.
    """
    return _Builder(circuit).build()


def _defined(row: Gate, classes: list[Any]) -> type:
    """Return the class of a gate that Qiskit has not, with its definition.

    Args:
        row: The gate.
        classes: Qiskit's class of each gate that the definition uses, by code.
    """
    from qiskit import QuantumCircuit
    from qiskit.circuit import Gate as QiskitGate

    class Defined(QiskitGate):
        def __init__(self, *angles: Any, label: str | None = None) -> None:  # noqa: ANN401
            super().__init__(row.name, row.num_qubits, list(angles), label=label)

        def _define(self) -> None:
            inner = QuantumCircuit(row.num_qubits, name=row.name)
            values = dict(zip("tplg", self.params, strict=False))
            for step in definition(row.name):
                angles = [
                    sum((factor * values[name] for name, factor in angle.terms),
                        float(Angle(angle.frac, angle.rem)))
                    for angle in step.angles
                ]  # fmt: skip
                inner.append(classes[step.gate.code](*angles), step.qubits)
            self.definition = inner

    return Defined


def _transpile_layout(layout: Layout, qubits: list[Any]) -> Any:  # noqa: ANN401
    """Return a layout as Qiskit's transpiler leaves it.

    Args:
        layout: The layout.
        qubits: The mapped circuit's qubits.
    """
    from qiskit.circuit import QuantumRegister
    from qiskit.transpiler.layout import Layout as QiskitLayout
    from qiskit.transpiler.layout import TranspileLayout

    virtual = QuantumRegister(layout.num_virtual, "q")
    ancilla = QuantumRegister(layout.num_physical - layout.num_virtual, "ancilla")
    places = dict(zip(virtual, layout.initial, strict=True))
    places |= dict(zip(ancilla, layout.ancillas, strict=True))
    initial = QiskitLayout(places)
    for register in (virtual, ancilla):
        initial.add_register(register)
    final = QiskitLayout(dict(zip(qubits, layout.permutation(), strict=True)))
    order = {qubit: i for i, qubit in enumerate((*virtual, *ancilla))}
    return TranspileLayout(initial, order, final, layout.num_virtual, list(qubits))


class _Builder:
    def __init__(self, circuit: Circuit) -> None:
        from qiskit.circuit import ClassicalRegister, Parameter, QuantumRegister
        from qiskit.circuit.library import get_standard_gate_name_mapping

        self.circuit = circuit
        self.params = [Parameter(name) for name in circuit.params]
        self.qregs = [QuantumRegister(r.size, r.name) for r in circuit.qregs]
        self.cregs = {r.name: ClassicalRegister(r.size, r.name) for r in circuit.cregs}
        self.variables: dict[str, Any] = {}
        known = get_standard_gate_name_mapping()
        self.gates: list[Any] = [known.get(row.name) for row in GATES]
        self.gates[G.GPHASE] = known["global_phase"]
        self.classes: list[Any] = [None if gate is None else type(gate) for gate in self.gates]
        for row in GATES:
            if self.gates[row.code] is None and row.definition_text:
                self.classes[row.code] = _defined(row, self.classes)
                if not row.num_angles:
                    self.gates[row.code] = self.classes[row.code]()

    def build(self) -> QuantumCircuit:
        """Return the whole circuit."""
        from qiskit import QuantumCircuit

        circuit = self.circuit
        result = QuantumCircuit(*self.qregs, *self.cregs.values(), name=circuit.name)
        self.qubits, self.clbits = list(result.qubits), list(result.clbits)
        result.global_phase = self._expression(circuit.global_phase)
        for variable in circuit.variables:
            self._declare(result, variable)
        self._block(result, circuit.body)
        if circuit.layout is not None:
            result._layout = _transpile_layout(circuit.layout, self.qubits)
        return result

    def _declare(self, result: QuantumCircuit, variable: ClassicalVar) -> None:
        from qiskit.circuit.classical import types

        if variable.type == "bool" or (variable.type == "bit" and variable.width <= 1):
            self.variables[variable.name] = result.add_var(variable.name, False)
        elif variable.type in ("uint", "bit") and variable.width:
            from qiskit.circuit.classical import expr

            zero = expr.lift(0, types.Uint(variable.width))
            self.variables[variable.name] = result.add_var(variable.name, zero)
        elif variable.type == "float":
            self.variables[variable.name] = result.add_var(variable.name, 0.0)
        else:
            raise TargetError(f"Qiskit has no variable of type {variable.type}[{variable.width}]")

    def _expression(self, angle: Angle) -> Any:  # noqa: ANN401
        index = {name: i for i, name in enumerate(self.circuit.params)}
        value: Any = float(Angle(angle.frac, angle.rem))
        for name, coef in angle.terms:
            value = value + coef * self.params[index[name]]
        return value

    def _block(self, result: QuantumCircuit, block: Block) -> None:
        for item in block:
            if isinstance(item, Run):
                self._run(result, item)
            else:
                self._item(result, item)

    def _run(self, result: QuantumCircuit, run: Run) -> None:
        from qiskit.circuit import Barrier, CircuitInstruction, Measure, Reset
        from qiskit.circuit.library import MCXGate

        steps = run.frac // _STEP
        exact = run.frac == steps * _STEP
        radians = np.where(exact, steps * np.pi / (1 << SNAP_BITS), run.frac * UNIT) + run.rem
        values: list[Any] = radians.tolist()
        for entry in np.flatnonzero(run.form >= 0).tolist():
            for column, coef in self.circuit.forms.row(int(run.form[entry])):
                term = self.params[column] if coef == 1.0 else coef * self.params[column]
                values[entry] = values[entry] + term if values[entry] else term
        qubits, clbits, gates, classes = self.qubits, self.clbits, self.gates, self.classes
        arity, angles = NUM_QUBITS.tolist(), NUM_ANGLES.tolist()
        measure, reset = Measure(), Reset()
        put = result._append
        first = run.angle.tolist()
        for i, (code, (a, b, c)) in enumerate(
            zip(run.code.tolist(), run.qubit.tolist(), strict=True)
        ):
            count = arity[code]
            if code == G.MEASURE:
                put(CircuitInstruction(measure, (qubits[a],), (clbits[b],)))
                continue
            if count < 0:
                wires = [qubits[q] for q in run.extra[a : a + b].tolist()]
                op = Barrier(b) if code == G.BARRIER else MCXGate(b - 1)
                put(CircuitInstruction(op, wires, ()))
                continue
            if code == G.RESET:
                op = reset
            elif angles[code]:
                op = classes[code](*values[first[i] : first[i] + angles[code]])
            else:
                op = gates[code]
            if count == 1:
                put(CircuitInstruction(op, (qubits[a],), ()))
            elif count == 2:
                put(CircuitInstruction(op, (qubits[a], qubits[b]), ()))
            else:
                put(CircuitInstruction(op, [qubits[q] for q in (a, b, c)[:count]], ()))

    # --- control flow --------------------------------------------------------------------

    def _body(self, result: QuantumCircuit, block: Block) -> QuantumCircuit:
        """Return a body on all wires of the circuit."""
        from qiskit import QuantumCircuit

        body = QuantumCircuit(
            result.qubits, result.clbits, *result.qregs, *result.cregs, captures=self._seen()
        )
        self._block(body, block)
        return body

    def _seen(self) -> list[Any]:
        return list(self.variables.values())

    def _item(self, result: QuantumCircuit, item: Item) -> None:
        from qiskit.circuit import (
            CASE_DEFAULT,
            BoxOp,
            BreakLoopOp,
            ContinueLoopOp,
            ForLoopOp,
            IfElseOp,
            SwitchCaseOp,
            WhileLoopOp,
        )

        op: Any
        match item:
            case If(condition, then, orelse):
                other = self._body(result, orelse) if orelse else None
                op = IfElseOp(self._condition(condition), self._body(result, then), other)
            case While(condition, body):
                op = WhileLoopOp(self._condition(condition), self._body(result, body))
            case For(variable, values, body):
                indices = self._indices(variable, values)
                op = ForLoopOp(indices, None, self._body(result, body))
            case Switch(subject, cases, default):
                table: list[Any] = [(labels, self._body(result, body)) for labels, body in cases]
                if default is not None:
                    table.append((CASE_DEFAULT, self._body(result, default)))
                op = SwitchCaseOp(self._classical(subject), table)
            case Box(body, duration):
                given = (None, "dt") if duration is None else (duration.value, duration.unit)
                length, unit = given
                if unit == "dt" and length is not None:
                    length = int(length)
                op = BoxOp(self._body(result, body), length, unit)
            case Break():
                op = BreakLoopOp(len(self.qubits), len(self.clbits))
            case Continue():
                op = ContinueLoopOp(len(self.qubits), len(self.clbits))
            case Delay(duration, qubits):
                value: float | int = duration.value
                if duration.unit == "dt":
                    value = int(value)
                result.delay(value, [self.qubits[q] for q in qubits], duration.unit)
                return
            case Assign(VarRef(name), value_expr):
                result.store(self.variables[name], self._classical(value_expr))
                return
            case Assign(Bit(index), value_expr):
                result.store(self.clbits[index], self._classical(value_expr))
                return
            case Assign(Register(name), value_expr):
                result.store(self.cregs[name], self._classical(value_expr))
                return
            case _:
                raise TargetError(f"Qiskit has no counterpart of '{type(item).__name__.lower()}'")
        result.append(op, result.qubits, result.clbits)

    @staticmethod
    def _indices(
        variable: ClassicalVar, values: Range | tuple[int, ...]
    ) -> range | tuple[int, ...]:
        if isinstance(values, tuple):
            return values
        match values:
            case Range(Lit(start), Lit(stop), Lit(step)) if step:
                first, last, by = int(start), int(stop), int(step)
                return range(first, last + (1 if by > 0 else -1), by)
        raise TargetError(
            f"Qiskit's for loops have fixed bounds, that of '{variable.name}' has not",
            hint="use a while loop",
        )

    def _condition(self, condition: Expr) -> Any:  # noqa: ANN401
        match condition:
            case Bit(index):
                return (self.clbits[index], 1)
            case Unary("!", Bit(index)):
                return (self.clbits[index], 0)
            case Binary("==", Bit(index), Lit(value)):
                return (self.clbits[index], int(value))
            case Binary("==", Register(name), Lit(value)):
                return (self.cregs[name], int(value))
            case _:
                return self._classical(condition)

    def _classical(self, value: Expr) -> Any:  # noqa: ANN401
        """Return a Qiskit expression.

        Raises:
            TargetError: If Qiskit has no such expression, or finds its types do not fit.
        """
        from qiskit.circuit.classical import expr, types

        match value:
            case Lit(number):
                return expr.lift(number)
            case Bit(index):
                return expr.lift(self.clbits[index])
            case Register(name):
                return expr.lift(self.cregs[name])
            case VarRef(name) if name in self.variables:
                return expr.lift(self.variables[name])
            case Binary("==" | "!=" as op, Bit() as bit, Lit(number)):
                flag = self._classical(bit)
                return flag if bool(number) == (op == "==") else expr.logic_not(flag)
            case Unary(op, operand) if op in _UNARY:
                build: Callable[..., Any] | None = getattr(expr, _UNARY[op], None)
                parts = [operand]
            case Binary(op, left, right) if op in _BINARY:
                build = getattr(expr, _BINARY[op], None)
                parts = [left, right]
            case Cast("uint", width, operand) if width:
                return expr.cast(self._classical(operand), types.Uint(width))
            case Cast("bool", _, operand):
                return expr.cast(self._classical(operand), types.Bool())
            case _:
                raise TargetError(f"Qiskit has no classical expression for {value!r}")
        try:
            if build is None:
                raise TypeError(f"this version has no '{op}'")
            return build(*(self._classical(part) for part in parts))
        except TypeError as error:
            raise TargetError(
                f"Qiskit does not take the classical expression {value!r}", why=str(error)
            ) from error
