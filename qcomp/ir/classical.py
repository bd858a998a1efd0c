"""Classical expressions over measured bits and run-time variables, and their evaluation."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from qcomp.errors import UsageError

__all__ = [
    "Binary",
    "Bit",
    "Call",
    "Cast",
    "ClassicalVar",
    "Expr",
    "Lit",
    "Memory",
    "Register",
    "Unary",
    "VarRef",
    "evaluate",
    "walk",
]

Scalar = bool | int | float
ClassicalType = Literal["bool", "bit", "int", "uint", "float", "angle"]


@dataclass(frozen=True, slots=True)
class ClassicalVar:
    """A run-time variable: its name, type and width in bits (0: the type's natural width)."""

    name: str
    type: ClassicalType
    width: int = 0


@dataclass(frozen=True, slots=True)
class Lit:
    """A literal value."""

    value: Scalar


@dataclass(frozen=True, slots=True)
class Bit:
    """A classical bit of the circuit, by its number."""

    index: int


@dataclass(frozen=True, slots=True)
class Register:
    """A classical register as an unsigned integer, bit 0 least significant."""

    name: str


@dataclass(frozen=True, slots=True)
class VarRef:
    """The value of a run-time variable."""

    name: str


@dataclass(frozen=True, slots=True)
class Unary:
    """``op operand``; op one of - ~ !."""

    op: str
    operand: Expr


@dataclass(frozen=True, slots=True)
class Binary:
    """``left op right``; op an OpenQASM 3 binary operator."""

    op: str
    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class Cast:
    """``type[width](operand)``."""

    type: ClassicalType
    width: int
    operand: Expr


@dataclass(frozen=True, slots=True)
class Call:
    """A built-in function of OpenQASM 3: sin, cos, popcount, rotl, ..."""

    function: str
    arguments: tuple[Expr, ...]


Expr = Lit | Bit | Register | VarRef | Unary | Binary | Cast | Call


@dataclass(slots=True)
class Memory:
    """What a run of the circuit remembers.

    Attributes:
        bits: The classical bits, 0 or 1 each.
        registers: Register name -> (start, size) within ``bits``.
        variables: Variable name -> value.
    """

    bits: list[int]
    registers: Mapping[str, tuple[int, int]]
    variables: dict[str, Scalar]

    def copy(self) -> Memory:
        """Return an independent copy; the registers are shared."""
        return Memory(list(self.bits), self.registers, dict(self.variables))


def _integer_divide(a: Scalar, b: Scalar) -> Scalar:
    if isinstance(a, float) or isinstance(b, float):
        return a / b
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


_BINARY: dict[str, Callable[..., Scalar]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": _integer_divide,
    "%": lambda a, b: math.fmod(a, b) if isinstance(a, float) else int(math.fmod(a, b)),
    "**": operator.pow,
    "<<": lambda a, b: int(a) << int(b),
    ">>": lambda a, b: int(a) >> int(b),
    "&": lambda a, b: int(a) & int(b),
    "|": lambda a, b: int(a) | int(b),
    "^": lambda a, b: int(a) ^ int(b),
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "&&": lambda a, b: bool(a) and bool(b),
    "||": lambda a, b: bool(a) or bool(b),
}

_FUNCTIONS: dict[str, Callable[..., Scalar]] = {
    "arccos": math.acos,
    "arcsin": math.asin,
    "arctan": math.atan,
    "ceiling": math.ceil,
    "cos": math.cos,
    "exp": math.exp,
    "floor": math.floor,
    "log": math.log,
    "mod": math.fmod,
    "popcount": lambda a: int(a).bit_count(),
    "pow": math.pow,
    "sin": math.sin,
    "sqrt": math.sqrt,
    "tan": math.tan,
}


def wrap_to(value: Scalar, type_name: ClassicalType, width: int) -> Scalar:
    """Return the value as the type holds it: wrapped to the width, or as a truth value."""
    if type_name == "bool" or (type_name == "bit" and width <= 1):
        return bool(value) if type_name == "bool" else int(bool(value))
    if type_name == "float":
        return float(value)
    if type_name == "angle":
        return math.fmod(float(value), 2 * math.pi) % (2 * math.pi)
    whole = int(value)
    if not width:
        return whole
    whole &= (1 << width) - 1
    return whole - (1 << width) if type_name == "int" and whole >> (width - 1) else whole


def _width(expr: Expr, memory: Memory) -> int:
    if isinstance(expr, Register):
        return memory.registers[expr.name][1]
    if isinstance(expr, Cast):
        return expr.width
    return 1 if isinstance(expr, Bit) else 0


def evaluate(expr: Expr, memory: Memory) -> Scalar:
    """Return the value of the expression in this memory.

    Raises:
        UsageError: If the expression divides by zero or leaves a function's domain.
    """
    try:
        return _evaluate(expr, memory)
    except (ArithmeticError, ValueError, TypeError) as error:
        raise UsageError(f"a classical expression has no value: {error}") from error


def _evaluate(expr: Expr, memory: Memory) -> Scalar:
    match expr:
        case Lit(value):
            return value
        case Bit(index):
            return memory.bits[index]
        case Register(name):
            start, size = memory.registers[name]
            return sum(bit << i for i, bit in enumerate(memory.bits[start : start + size]))
        case VarRef(name):
            return memory.variables[name]
        case Unary("!", operand):
            return not _evaluate(operand, memory)
        case Unary("-", operand):
            return -_evaluate(operand, memory)
        case Unary("~", operand):
            width = _width(operand, memory)
            inverted = ~int(_evaluate(operand, memory))
            return inverted & ((1 << width) - 1) if width else inverted
        case Binary(op, left, right):
            return _BINARY[op](_evaluate(left, memory), _evaluate(right, memory))
        case Cast(type_name, width, operand):
            return wrap_to(_evaluate(operand, memory), type_name, width)
        case Call(function, arguments):
            values = [_evaluate(argument, memory) for argument in arguments]
            if function in ("rotl", "rotr"):
                return _rotate(function, values, _width(arguments[0], memory))
            return _FUNCTIONS[function](*values)
        case _:
            raise UsageError(f"{expr!r} is no classical expression")


def _rotate(function: str, values: list[Scalar], width: int) -> int:
    value, distance = int(values[0]), int(values[1])
    if width < 1:
        raise ValueError(f"{function} needs a bit register")
    distance = (distance if function == "rotl" else -distance) % width
    return ((value << distance) | (value >> (width - distance))) & ((1 << width) - 1)


def walk(expr: Expr) -> Iterator[Expr]:
    """Yield the expression and all its parts, the whole first."""
    yield expr
    match expr:
        case Unary(_, operand) | Cast(_, _, operand):
            yield from walk(operand)
        case Binary(_, left, right):
            yield from walk(left)
            yield from walk(right)
        case Call(_, arguments):
            for argument in arguments:
                yield from walk(argument)
