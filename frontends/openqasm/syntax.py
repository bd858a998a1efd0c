"""The syntax tree of OpenQASM 2 and 3, as plain data with positions.

Lines and columns count from 1. Nodes are never compared; they are walked once by the interpreter.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields

__all__ = [
    "Alias", "Annotated", "Argument", "ArrayLiteral", "ArrayType", "Assignment", "Barrier",
    "BinaryOp", "Block", "Box", "Break", "Calibration", "Call", "CastCall", "ClassicalDeclaration",
    "Concatenation", "Continue", "Delay", "DurationOf", "End", "Expression", "ExpressionStatement",
    "Extern", "For", "GateCall", "GateDefinition", "HardwareQubit", "If", "Include", "Index",
    "IoDeclaration", "Literal", "Measure", "MeasureStatement", "Modifier", "Name", "Node", "Nop",
    "Opaque", "Pragma", "Program", "QuantumCall", "QuantumDeclaration", "Range", "Reset", "Return",
    "ScalarType", "Set", "Statement", "SubroutineDefinition", "Switch", "Type", "UnaryOp", "While",
    "children", "walk",
]  # fmt: skip


@dataclass(slots=True, eq=False)
class Node:
    """Anything with a place in the source."""

    line: int
    column: int
    depth: int = field(default=1, init=False, repr=False)


class Expression(Node):
    """An expression."""

    __slots__ = ()


class Statement(Node):
    """A statement."""

    __slots__ = ()


# ---------------------------------------------------------------- types


@dataclass(slots=True, eq=False)
class ScalarType(Node):
    """``int[8]``, ``bool``, ``complex[float[64]]``; `kind` is the keyword."""

    kind: str
    size: Expression | None = None
    base: ScalarType | None = None


@dataclass(slots=True, eq=False)
class ArrayType(Node):
    """``array[int[8], 2, 3]``; a reference (`access` not empty) may give only its rank."""

    base: ScalarType
    shape: list[Expression]
    access: str = ""
    rank: Expression | None = None


Type = ScalarType | ArrayType


# ---------------------------------------------------------------- expressions


@dataclass(slots=True, eq=False)
class Literal(Expression):
    """A literal; kind is int, float, imaginary, bool, bitstring or a duration's unit."""

    kind: str
    value: int | float | bool | str


@dataclass(slots=True, eq=False)
class Name(Expression):
    """An identifier."""

    name: str


@dataclass(slots=True, eq=False)
class HardwareQubit(Expression):
    """``$3``."""

    index: int


@dataclass(slots=True, eq=False)
class UnaryOp(Expression):
    """``-a``, ``!a``, ``~a``."""

    op: str
    operand: Expression


@dataclass(slots=True, eq=False)
class BinaryOp(Expression):
    """``a + b``."""

    op: str
    left: Expression
    right: Expression


@dataclass(slots=True, eq=False)
class Call(Expression):
    """``sin(x)``; also a subroutine call."""

    name: str
    arguments: list[Expression]


@dataclass(slots=True, eq=False)
class CastCall(Expression):
    """``int[8](x)``."""

    type: Type
    operand: Expression


@dataclass(slots=True, eq=False)
class DurationOf(Expression):
    """``durationof({ ... })``."""

    body: list[Statement]


@dataclass(slots=True, eq=False)
class Range(Expression):
    """``start:step:stop`` of an index or a loop."""

    start: Expression | None
    step: Expression | None
    stop: Expression | None


@dataclass(slots=True, eq=False)
class Set(Expression):
    """``{1, 2, 3}`` of an index or a loop."""

    items: list[Expression]


@dataclass(slots=True, eq=False)
class Index(Expression):
    """``base[items]``."""

    base: Expression
    items: list[Expression]


@dataclass(slots=True, eq=False)
class Concatenation(Expression):
    """``a ++ b``."""

    parts: list[Expression]


@dataclass(slots=True, eq=False)
class ArrayLiteral(Expression):
    """``{{1, 2}, {3, 4}}``."""

    items: list[Expression]


@dataclass(slots=True, eq=False)
class Measure(Expression):
    """``measure q``."""

    operand: Expression


@dataclass(slots=True, eq=False)
class QuantumCall(Expression):
    """``name(args) operands`` used as a value: a call of a ``defcal``."""

    name: str
    arguments: list[Expression]
    operands: list[Expression]


# ---------------------------------------------------------------- statements


@dataclass(slots=True, eq=False)
class Block(Statement):
    """``{ ... }``."""

    body: list[Statement]


@dataclass(slots=True, eq=False)
class Include(Statement):
    """``include "file";``."""

    path: str


@dataclass(slots=True, eq=False)
class Pragma(Statement):
    """``#pragma text``."""

    text: str


@dataclass(slots=True, eq=False)
class Annotated(Statement):
    """``@name text`` before a statement."""

    text: str
    statement: Statement


@dataclass(slots=True, eq=False)
class Calibration(Statement):
    """``cal``, ``defcal`` or ``defcalgrammar``, named by `kind`."""

    kind: str
    name: str = ""


@dataclass(slots=True, eq=False)
class QuantumDeclaration(Statement):
    """``qubit[n] q;`` or ``qreg q[n];``."""

    name: str
    size: Expression | None


@dataclass(slots=True, eq=False)
class ClassicalDeclaration(Statement):
    """``int[8] x = 3;``, ``const``, ``creg c[3];``."""

    type: Type
    name: str
    value: Expression | None
    constant: bool = False


@dataclass(slots=True, eq=False)
class IoDeclaration(Statement):
    """``input float theta;`` or ``output bit b;``; direction is the keyword."""

    direction: str
    type: Type
    name: str


@dataclass(slots=True, eq=False)
class Alias(Statement):
    """``let a = q[0:2] ++ r;``."""

    name: str
    value: Expression


@dataclass(slots=True, eq=False)
class Modifier(Node):
    """``ctrl(2) @``: kind is ctrl, negctrl, inv or pow."""

    kind: str
    argument: Expression | None = None


@dataclass(slots=True, eq=False)
class GateCall(Statement):
    """A gate applied to operands."""

    modifiers: list[Modifier]
    name: str
    arguments: list[Expression]
    operands: list[Expression]
    duration: Expression | None = None


@dataclass(slots=True, eq=False)
class GateDefinition(Statement):
    """``gate g(a) q { ... }``."""

    name: str
    parameters: list[str]
    qubits: list[str]
    body: list[Statement]


@dataclass(slots=True, eq=False)
class Opaque(Statement):
    """OpenQASM 2 ``opaque g(a) q;``."""

    name: str
    parameters: list[str]
    qubits: list[str]


@dataclass(slots=True, eq=False)
class Argument(Node):
    """One argument of a subroutine: a classical type, or a quantum one (`type` is None)."""

    name: str
    type: Type | None
    size: Expression | None = None


@dataclass(slots=True, eq=False)
class SubroutineDefinition(Statement):
    """``def f(...) -> type { ... }``."""

    name: str
    arguments: list[Argument]
    returns: ScalarType | None
    body: list[Statement]


@dataclass(slots=True, eq=False)
class Extern(Statement):
    """``extern f(...) -> type;``."""

    name: str


@dataclass(slots=True, eq=False)
class Assignment(Statement):
    """``target op value;``, op is ``=``, ``+=`` ..."""

    target: Expression
    op: str
    value: Expression


@dataclass(slots=True, eq=False)
class ExpressionStatement(Statement):
    """An expression on its own."""

    value: Expression


@dataclass(slots=True, eq=False)
class MeasureStatement(Statement):
    """``measure q -> c;`` or ``measure q;``."""

    value: Expression
    target: Expression | None


@dataclass(slots=True, eq=False)
class Reset(Statement):
    """``reset q;``."""

    operand: Expression


@dataclass(slots=True, eq=False)
class Barrier(Statement):
    """``barrier q, r;``; no operand means every qubit."""

    operands: list[Expression]


@dataclass(slots=True, eq=False)
class Delay(Statement):
    """``delay[100ns] q;``."""

    duration: Expression
    operands: list[Expression]


@dataclass(slots=True, eq=False)
class Nop(Statement):
    """``nop q;``."""

    operands: list[Expression]


@dataclass(slots=True, eq=False)
class Box(Statement):
    """``box[100ns] { ... }``."""

    duration: Expression | None
    body: list[Statement]


@dataclass(slots=True, eq=False)
class If(Statement):
    """``if (c) ... else ...``."""

    condition: Expression
    then: Statement
    orelse: Statement | None


@dataclass(slots=True, eq=False)
class While(Statement):
    """``while (c) ...``."""

    condition: Expression
    body: Statement


@dataclass(slots=True, eq=False)
class For(Statement):
    """``for int i in values ...``."""

    type: ScalarType
    name: str
    values: Expression
    body: Statement


@dataclass(slots=True, eq=False)
class Switch(Statement):
    """``switch (e) { case 1, 2 { ... } default { ... } }``."""

    subject: Expression
    cases: list[tuple[list[Expression], Block]]
    default: Block | None


@dataclass(slots=True, eq=False)
class Return(Statement):
    """``return e;``."""

    value: Expression | None


@dataclass(slots=True, eq=False)
class Break(Statement):
    """``break;``."""


@dataclass(slots=True, eq=False)
class Continue(Statement):
    """``continue;``."""


@dataclass(slots=True, eq=False)
class End(Statement):
    """``end;``."""


@dataclass(slots=True, eq=False)
class Program:
    """A whole source; version is (3, 0) where none is written."""

    version: tuple[int, int]
    body: list[Statement]


_PLAIN = frozenset({"line", "column", "depth", "name", "op", "kind", "text", "path", "direction"})
_FIELDS: dict[type[Node], tuple[str, ...]] = {}


def _fields_of(kind: type[Node]) -> tuple[str, ...]:
    """The names of a node's fields that can hold nodes."""
    if kind not in _FIELDS:
        _FIELDS[kind] = tuple(item.name for item in fields(kind) if item.name not in _PLAIN)
    return _FIELDS[kind]


def children(node: Node) -> Iterator[Node]:
    """The nodes directly below `node`."""
    for name in _fields_of(type(node)):
        value = getattr(node, name)
        if isinstance(value, Node):
            yield value
        elif isinstance(value, (list, tuple)):
            stack = list(value)
            while stack:
                entry = stack.pop(0)
                if isinstance(entry, Node):
                    yield entry
                elif isinstance(entry, (list, tuple)):
                    stack[:0] = entry


def walk(nodes: list[Statement]) -> Iterator[Node]:
    """Every node below and including `nodes`, without recursion, in source order."""
    stack: list[Node] = list(reversed(nodes))
    while stack:
        node = stack.pop()
        yield node
        stack.extend(reversed(list(children(node))))
