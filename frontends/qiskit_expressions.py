"""Qiskit's classical expressions and wires in terms of a circuit's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qcomp.errors import SourceError
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

if TYPE_CHECKING:
    from qiskit import QuantumCircuit

__all__ = ["Wires", "condition_of", "expression_of", "variable_of"]

_UNARY = {"BIT_NOT": "~", "LOGIC_NOT": "!", "NEGATE": "-"}
_BINARY = {
    "BIT_AND": "&", "BIT_OR": "|", "BIT_XOR": "^", "LOGIC_AND": "&&", "LOGIC_OR": "||",
    "EQUAL": "==", "NOT_EQUAL": "!=", "LESS": "<", "LESS_EQUAL": "<=", "GREATER": ">",
    "GREATER_EQUAL": ">=", "SHIFT_LEFT": "<<", "SHIFT_RIGHT": ">>", "ADD": "+", "SUB": "-",
    "MUL": "*", "DIV": "/",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Wires:
    """Where the bits of a Qiskit circuit are.

    Attributes:
        qubits: Qubit -> its number.
        clbits: Classical bit -> its number.
        registers: Name of a classical register -> (start, size).
    """

    qubits: Mapping[object, int]
    clbits: Mapping[object, int]
    registers: Mapping[str, tuple[int, int]]

    def of_body(self, body: QuantumCircuit, item: Any) -> Wires:  # noqa: ANN401
        """Return the wires of a body or definition that acts where the instruction does."""
        qubits = {inner: self.qubits[q] for inner, q in zip(body.qubits, item.qubits, strict=True)}
        clbits = dict(self.clbits)
        clbits.update(
            (inner, self.clbits[c]) for inner, c in zip(body.clbits, item.clbits, strict=True)
        )
        return Wires(qubits, clbits, self.registers)

    def register(self, register: Any) -> Expr:  # noqa: ANN401
        """Return a classical register as an expression.

        Raises:
            SourceError: If its bits are not those of a register of the circuit.
        """
        bits = [self.clbits[bit] for bit in register]
        for name, (start, size) in self.registers.items():
            if bits == list(range(start, start + size)):
                return Register(name)
        raise SourceError(
            f"a condition on the register '{register.name}' that shares its bits with another",
            hint="use classical registers that share no bits",
        )


def condition_of(condition: Any, wires: Wires) -> Expr:  # noqa: ANN401
    """Return the condition of a control-flow operation: a (register or bit, value) or an Expr."""
    from qiskit.circuit import Clbit

    if not isinstance(condition, tuple):
        return expression_of(condition, wires)
    target, value = condition
    if isinstance(target, Clbit):
        bit = Bit(wires.clbits[target])
        return bit if value else Unary("!", bit)
    return Binary("==", wires.register(target), Lit(int(value)))


def expression_of(value: Any, wires: Wires) -> Expr:  # noqa: ANN401
    """Return a Qiskit expression, bit or register as an expression.

    Raises:
        SourceError: If it has no counterpart.
    """
    from qiskit.circuit import ClassicalRegister, Clbit
    from qiskit.circuit.classical import expr

    if isinstance(value, Clbit):
        return Bit(wires.clbits[value])
    if isinstance(value, ClassicalRegister):
        return wires.register(value)
    if isinstance(value, expr.Var):
        return VarRef(value.name) if value.standalone else expression_of(value.var, wires)
    if isinstance(value, expr.Value) and isinstance(value.value, (bool, int, float)):
        return Lit(value.value)
    if isinstance(value, expr.Cast):
        operand = expression_of(value.operand, wires)
        return operand if value.implicit else Cast(*_type(value.type), operand)
    if isinstance(value, expr.Unary) and value.op.name in _UNARY:
        return Unary(_UNARY[value.op.name], expression_of(value.operand, wires))
    if isinstance(value, expr.Binary) and value.op.name in _BINARY:
        left, right = expression_of(value.left, wires), expression_of(value.right, wires)
        return Binary(_BINARY[value.op.name], left, right)
    if isinstance(value, expr.Index):
        return _indexed(
            expression_of(value.target, wires), expression_of(value.index, wires), wires
        )
    raise SourceError(f"a {type(value).__name__} in a classical expression: {value!r}")


def _indexed(target: Expr, index: Expr, wires: Wires) -> Expr:
    if isinstance(target, Register) and isinstance(index, Lit):
        return Bit(wires.registers[target.name][0] + int(index.value))
    return Binary("==", Binary("&", Binary(">>", target, index), Lit(1)), Lit(1))


def variable_of(var: Any) -> ClassicalVar:  # noqa: ANN401
    """Return the declaration of a run-time variable."""
    kind, width = _type(var.type)
    return ClassicalVar(var.name, kind, width)


def _type(kind: Any) -> tuple[Any, int]:  # noqa: ANN401
    from qiskit.circuit.classical import types

    if isinstance(kind, types.Bool):
        return "bool", 0
    if isinstance(kind, types.Uint):
        return "uint", int(kind.width)
    if isinstance(kind, types.Float):
        return "float", 64
    raise SourceError(f"a classical value of type {kind}")
