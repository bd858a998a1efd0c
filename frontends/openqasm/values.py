"""Classical types of OpenQASM, the values they hold, and conversion between them.

A value's data is one of four things: a Python scalar (known now), an :class:`Affine` form of the
input parameters (known once they are bound), an expression of :mod:`qcomp.ir.classical` (known at
run time), or, for an array, a NumPy array of objects that are any of these.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from qcomp.errors import SourceError
from qcomp.frontends.openqasm.limits import MAX_INTEGER_BITS
from qcomp.frontends.openqasm.syntax import Expression, Node
from qcomp.ir.angle import Angle, radians
from qcomp.ir.blocks import Duration
from qcomp.ir.classical import (
    Binary,
    Bit,
    Call,
    Cast,
    ClassicalType,
    Expr,
    Lit,
    Register,
    Unary,
    VarRef,
)

__all__ = [
    "ANGLE", "BIT", "BOOL", "COMPLEX", "DURATION", "FLOAT", "INT", "RUNTIME_TYPES", "UINT", "VOID",
    "Affine", "ArrayData", "ArrayType", "Data", "RunTimeIndex", "ScalarType", "Type", "Value",
    "as_bool", "as_expr", "cast", "default", "fail", "is_known", "is_runtime", "known_int",
]  # fmt: skip

TURN = 2 * math.pi
NUMBERS = ("bool", "bit", "uint", "int", "angle", "float")
EXPRESSIONS = (Lit, Bit, Register, VarRef, Unary, Binary, Cast, Call)

ArrayData = NDArray[np.object_]


@dataclass(frozen=True, slots=True)
class Affine:
    """A number that is affine in the input parameters: ``constant + sum coefficient * parameter``.

    Unlike an Angle it is not reduced modulo 4 pi, so it may be divided further.

    Attributes:
        constant: Float part.
        terms: (parameter, coefficient) pairs, sorted.
        units: Exact part in units of pi / 2**60, of angles that are written as fractions of pi.
    """

    constant: float
    terms: tuple[tuple[str, float], ...]
    units: int = 0

    def plus(self, other: Affine | float, sign: int = 1) -> Affine | float:
        """Return the sum, or the difference for ``sign`` -1."""
        if not isinstance(other, Affine):
            return Affine(self.constant + sign * other, self.terms, self.units)
        sums = dict(self.terms)
        for name, coefficient in other.terms:
            sums[name] = sums.get(name, 0.0) + sign * coefficient
        terms = tuple(sorted((name, value) for name, value in sums.items() if value))
        total = Affine(
            self.constant + sign * other.constant, terms, self.units + sign * other.units
        )
        return total.plain()

    def times(self, factor: float) -> Affine | float:
        """Return the product with a number."""
        terms = tuple((name, value * factor) for name, value in self.terms if value * factor)
        return Affine(self._number() * factor, terms).plain()

    def divided(self, divisor: float) -> Affine:
        """Return the quotient by a number."""
        terms = tuple((name, value / divisor) for name, value in self.terms)
        return Affine(self._number() / divisor, terms)

    def plain(self) -> Affine | float:
        """Return a number where there are no parameters."""
        return self if self.terms else self._number()

    def angle(self) -> Angle:
        """Return it as a gate's angle."""
        return Angle.of(self.constant) + Angle(self.units, 0.0, self.terms)

    def _number(self) -> float:
        return self.constant + radians(self.units) if self.units else self.constant


Data = int | float | bool | complex | Affine | Duration | Expr | ArrayData


@dataclass(frozen=True, slots=True)
class ScalarType:
    """A scalar type; width 0 is none written. ``bit`` with a width is a register."""

    kind: str
    width: int = 0

    def __str__(self) -> str:
        """Return the type as OpenQASM spells it."""
        return f"{self.kind}[{self.width}]" if self.width else self.kind


@dataclass(frozen=True, slots=True)
class ArrayType:
    """An array type: its element's type and its shape."""

    base: ScalarType
    shape: tuple[int, ...]

    def __str__(self) -> str:
        """Return the type as OpenQASM spells it."""
        return f"array[{self.base}, {', '.join(map(str, self.shape))}]"


Type = ScalarType | ArrayType
INT, UINT, FLOAT, BOOL, BIT, ANGLE, COMPLEX, DURATION, VOID = (
    ScalarType(kind)
    for kind in ("int", "uint", "float", "bool", "bit", "angle", "complex", "duration", "void")
)
RUNTIME_TYPES: dict[str, ClassicalType] = {
    "bool": "bool", "bit": "bit", "int": "int", "uint": "uint", "float": "float", "angle": "angle",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Value:
    """Data with its type."""

    type: Type
    data: Data

    @property
    def scalar(self) -> ScalarType:
        """The type of a scalar; an array's element type."""
        return self.type.base if isinstance(self.type, ArrayType) else self.type


def fail(node: Node, what: str, *, why: str = "", hint: str = "") -> NoReturn:
    """Raise a SourceError at a node."""
    raise SourceError(what, line=node.line, column=node.column, why=why, hint=hint)


class RunTimeIndex(Exception):
    """An index whose value a measurement decides, where a known one is needed.

    Attributes:
        node: The index.
        expression: Its value.
        extent: The number of entries that it chooses from.
    """

    def __init__(self, node: Expression, expression: Expr, extent: int) -> None:
        super().__init__()
        self.node = node
        self.expression = expression
        self.extent = extent


def is_runtime(data: Data) -> bool:
    """Whether the data is known only at run time."""
    return isinstance(data, EXPRESSIONS)


def is_known(data: Data) -> bool:
    """Whether the data is a plain value now."""
    return isinstance(data, (bool, int, float, complex, Duration))


def default(kind: Type) -> Data:
    """Return the value of a variable that was declared without one: zero."""
    if isinstance(kind, ArrayType):
        array = np.empty(kind.shape, dtype=object)
        array.fill(default(kind.base))
        return array
    if kind.kind == "bool":
        return False
    if kind.kind in ("float", "angle"):
        return 0.0
    if kind.kind == "complex":
        return 0j
    if kind.kind == "duration":
        return Duration(0.0, "ns")
    return 0


def as_expr(value: Value, node: Node) -> Expr:
    """Return the value as a run-time expression."""
    data = value.data
    if isinstance(data, EXPRESSIONS):
        return data
    if isinstance(data, (bool, int, float)):
        return Lit(data)
    if isinstance(data, Affine):
        fail(
            node,
            "an input parameter cannot take part in a run-time computation",
            why="it depends on a measurement as well as on an input",
            hint="use the input in gate angles only, or bind it before reading",
        )
    fail(node, f"a value of type {value.type} cannot be computed at run time")


def as_bool(value: Value, node: Node) -> bool | Expr:
    """Return the value as a condition: a truth value now, or a run-time expression."""
    data = value.data
    if isinstance(data, Affine):
        fail(
            node,
            "a condition depends on an input parameter",
            why="inputs are bound after compiling, so the branch is not known",
            hint="give the input's value while reading: read_text(text, inputs={...})",
        )
    if isinstance(value.type, ArrayType) or value.type.kind in ("duration", "complex"):
        fail(node, f"a value of type {value.type} is no condition")
    if isinstance(data, EXPRESSIONS):
        if value.type.kind == "bool" or value.type == BIT:
            return data
        return Binary("!=", data, Lit(0))
    return bool(data)


def known_int(value: Value, node: Node, what: str) -> int:
    """Return an integer that must be known now.

    Raises:
        SourceError: If it is known only at run time, or is no integer.
    """
    data = value.data
    if isinstance(data, EXPRESSIONS):
        fail(node, f"{what} is known only at run time", why="it depends on a measurement")
    if isinstance(data, Affine):
        fail(
            node,
            f"{what} depends on an input parameter",
            hint="give the input's value while reading: read_text(text, inputs={...})",
        )
    if isinstance(data, (bool, int)) and value.scalar.kind in ("int", "uint", "bool", "bit"):
        return int(data)
    fail(node, f"{what} must be an integer, not of type {value.type}")


def _wrap_int(number: int, kind: ScalarType, node: Node) -> int:
    width = kind.width
    if not width:
        if number.bit_length() > MAX_INTEGER_BITS:
            fail(node, f"an integer of more than {MAX_INTEGER_BITS} bits")
        return number
    number &= (1 << width) - 1
    if kind.kind == "int" and number >> (width - 1):
        number -= 1 << width
    return number


def _angle_number(number: float, kind: ScalarType) -> float:
    """Reduce radians into [0, 2 pi); a sized angle is rounded to its grid of 2 pi / 2**width."""
    if not kind.width or kind.width >= 53:
        return number if 0 <= number < TURN else number % TURN
    steps = 1 << kind.width
    return (round(number / TURN * steps) % steps) * TURN / steps


def cast(value: Value, target: Type, node: Node) -> Value:
    """Return the value converted to a type.

    Raises:
        SourceError: If the conversion has no meaning.
    """
    if isinstance(target, ArrayType) or isinstance(value.type, ArrayType):
        return _cast_array(value, target, node)
    source, data = value.type, value.data
    if source == target:
        return value
    if source.kind == "void" or target.kind == "void":
        fail(node, "a subroutine without a return type gives no value")
    if "duration" in (source.kind, target.kind):
        if source.kind != target.kind:
            fail(
                node,
                f"{source} cannot be converted to {target}",
                hint="a duration is a number with a unit, such as 100ns",
            )
        return value
    if source.kind == "complex" and target.kind != "complex":
        fail(node, f"{source} cannot be converted to {target}", hint="use real() or imag()")
    if isinstance(data, EXPRESSIONS):
        return _cast_runtime(data, source, target, node)
    if isinstance(data, Affine):
        if target.kind in ("float", "angle") or {source.kind, target.kind} <= {"int", "uint"}:
            return Value(target, data)
        fail(
            node,
            f"an input parameter cannot be converted to {target}",
            hint="give the input's value while reading: read_text(text, inputs={...})",
        )
    assert isinstance(data, (bool, int, float, complex))
    return Value(target, _cast_known(data, source, target, node))


def _cast_known(
    data: bool | int | float | complex, source: ScalarType, target: ScalarType, node: Node
) -> Data:
    kind = target.kind
    if kind == "complex":
        return complex(data)
    assert not isinstance(data, complex)
    if kind == "bool":
        return bool(data)
    if kind == "float":
        if isinstance(data, int) and data.bit_length() > 1000:
            fail(node, "an integer is too large for a float")
        return float(data)
    if kind == "angle":
        if source.kind == "bit" and source.width:
            if target.width != source.width:
                fail(node, f"{source} cannot be converted to {target}: the sizes differ")
            return _angle_number(int(data) * TURN / (1 << source.width), target)
        return _angle_number(float(data), target)
    if kind == "bit":
        return _to_bits(data, source, target, node)
    if source.kind == "angle":
        fail(node, f"angle cannot be converted to {target}", hint="divide it by an angle first")
    if isinstance(data, float) and not math.isfinite(data):
        fail(node, f"{data} cannot be converted to {target}")
    return _wrap_int(int(data), target, node)


def _to_bits(data: bool | int | float, source: ScalarType, target: ScalarType, node: Node) -> int:
    if not target.width:
        return int(bool(data))
    if source.kind == "angle":
        return round(float(data) / TURN * (1 << target.width)) % (1 << target.width)
    if source.kind == "float":
        fail(node, f"float cannot be converted to {target}")
    if source.kind == "bit" and source.width and source.width != target.width:
        fail(
            node,
            f"{source} cannot be converted to {target}: the sizes differ",
            hint="take a slice of the bits that are meant",
        )
    return int(data) & ((1 << target.width) - 1)


def _cast_runtime(data: Expr, source: ScalarType, target: ScalarType, node: Node) -> Value:
    if target.kind == "complex":
        fail(node, "a complex number cannot depend on a measurement")
    if source.kind == "bit" and source.width and target.kind == "bit" and target.width:
        if source.width != target.width:
            fail(node, f"{source} cannot be converted to {target}: the sizes differ")
    if {source, target} == {BIT, BOOL}:
        return Value(target, data)
    return Value(target, Cast(RUNTIME_TYPES[target.kind], target.width, data))


def _cast_array(value: Value, target: Type, node: Node) -> Value:
    if not isinstance(target, ArrayType) or not isinstance(value.type, ArrayType):
        fail(node, f"{value.type} cannot be converted to {target}")
    if value.type.shape != target.shape:
        fail(node, f"{value.type} does not have the shape of {target}")
    if value.type.base == target.base:
        return value
    assert isinstance(value.data, np.ndarray)
    out = np.empty(target.shape, dtype=object)
    for index in np.ndindex(*target.shape):
        element = Value(value.type.base, value.data[index])
        out[index] = cast(element, target.base, node).data
    return Value(target, out)
