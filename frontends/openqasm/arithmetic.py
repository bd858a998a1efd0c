"""Operators and functions of OpenQASM on values: computed now, kept affine, or left to run time."""

from __future__ import annotations

import cmath
import math
import operator
from collections.abc import Callable, Sequence

from qcomp.frontends.openqasm.limits import MAX_INTEGER_BITS
from qcomp.frontends.openqasm.syntax import Node
from qcomp.frontends.openqasm.values import (
    BIT,
    BOOL,
    COMPLEX,
    DURATION,
    FLOAT,
    INT,
    UINT,
    Affine,
    ArrayType,
    ScalarType,
    Value,
    as_bool,
    as_expr,
    cast,
    fail,
    is_runtime,
    known_int,
)
from qcomp.ir.blocks import Duration
from qcomp.ir.classical import Binary, Call, Unary

__all__ = ["CONSTANTS", "FUNCTIONS", "binary", "call", "unary"]

CONSTANTS: dict[str, Value] = {
    **dict.fromkeys(("pi", "π"), Value(FLOAT, math.pi)),
    **dict.fromkeys(("tau", "τ"), Value(FLOAT, math.tau)),
    **dict.fromkeys(("euler", "ℇ"), Value(FLOAT, math.e)),
    "im": Value(COMPLEX, 1j),
}
"""Names that stand for numbers unless the program declares them."""

_RANK = {"bool": 0, "bit": 1, "uint": 2, "int": 3, "float": 4, "complex": 5}
_COMPARE: dict[str, Callable[..., bool]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le,
    ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_BITWISE: dict[str, Callable[[int, int], int]] = {
    "&": operator.and_, "|": operator.or_, "^": operator.xor,
}  # fmt: skip
_NANOSECONDS = {"ns": 1.0, "us": 1e3, "ms": 1e6, "s": 1e9}


def _scalars(op: str, values: Sequence[Value], node: Node) -> list[ScalarType]:
    kinds = []
    for value in values:
        if isinstance(value.type, ArrayType):
            fail(node, f"'{op}' does not work on whole arrays", hint="compute element by element")
        if value.type.kind == "void":
            fail(node, "a subroutine without a return type gives no value")
        kinds.append(value.type)
    return kinds


def _joint(a: ScalarType, b: ScalarType, op: str, node: Node) -> ScalarType:
    """Return the type that both operands of an arithmetic operator are converted to."""
    if "angle" in (a.kind, b.kind):
        other = b if a.kind == "angle" else a
        if other.kind == "complex":
            fail(node, f"'{op}' does not work on {a} and {b}")
        return a if a.kind == "angle" else b
    rank = max(_RANK[a.kind], _RANK[b.kind])
    if rank <= 1:
        return UINT
    kind = next(name for name, r in _RANK.items() if r == rank)
    widths = [t.width for t in (a, b) if t.kind == kind]
    return ScalarType(kind, 0 if 0 in widths else max(widths))


def binary(op: str, left: Value, right: Value, node: Node) -> Value:
    """Return ``left op right``.

    Raises:
        SourceError: If the operator does not work on these types, or has no value.
    """
    a, b = _scalars(op, (left, right), node)
    if op in ("&&", "||"):
        return _logical(op, left, right, node)
    if "duration" in (a.kind, b.kind):
        return _duration(op, left, right, node)
    if op in ("<<", ">>"):
        return _shift(op, left, right, node)
    if op in _BITWISE:
        return _bitwise(op, left, right, node)
    if is_runtime(left.data) or is_runtime(right.data):
        return _at_run_time(op, left, right, node)
    if op in _COMPARE:
        return _comparison(op, left, right, node)
    return _arithmetic(op, left, right, node)


def _logical(op: str, left: Value, right: Value, node: Node) -> Value:
    x, y = as_bool(left, node), as_bool(right, node)
    absorbing = op == "||"
    if isinstance(x, bool):
        return Value(BOOL, absorbing if x is absorbing else y)
    if isinstance(y, bool):
        return Value(BOOL, absorbing if y is absorbing else x)
    return Value(BOOL, Binary(op, x, y))


def _at_run_time(op: str, left: Value, right: Value, node: Node) -> Value:
    a, b = left.scalar, right.scalar
    if "complex" in (a.kind, b.kind):
        fail(node, "a complex number cannot depend on a measurement")
    kind = BOOL if op in _COMPARE else _joint(a, b, op, node)
    if kind.width and kind.kind != "float":
        # The result of run-time arithmetic is not wrapped before it is stored.
        kind = ScalarType(kind.kind)
    return Value(kind, Binary(op, as_expr(left, node), as_expr(right, node)))


def _comparison(op: str, left: Value, right: Value, node: Node) -> Value:
    for value in (left, right):
        if isinstance(value.data, Affine):
            fail(
                node,
                "a comparison depends on an input parameter",
                why="inputs are bound after compiling, so the outcome is not known",
                hint="give the input's value while reading: read_text(text, inputs={...})",
            )
    if "complex" in (left.scalar.kind, right.scalar.kind) and op not in ("==", "!="):
        fail(node, "complex numbers have no order")
    return Value(BOOL, bool(_COMPARE[op](left.data, right.data)))


def _arithmetic(op: str, left: Value, right: Value, node: Node) -> Value:
    a, b = left.scalar, right.scalar
    if op == "/" and a.kind == "angle" and b.kind == "angle":
        kind = UINT
    else:
        kind = _joint(a, b, op, node)
    if isinstance(left.data, Affine) or isinstance(right.data, Affine):
        return _affine(op, left, right, kind, node)
    x, y = left.data, right.data
    assert isinstance(x, (bool, int, float, complex))
    assert isinstance(y, (bool, int, float, complex))
    try:
        result = _compute(op, x, y, kind, node)
    except (ZeroDivisionError, OverflowError, ValueError, TypeError) as error:
        fail(node, f"'{op}' has no value here: {error}")
    if isinstance(result, complex) and kind.kind != "complex":
        fail(node, f"'{op}' gives a complex number here")
    if op == "**" and isinstance(result, float) and kind.kind in ("int", "uint"):
        kind = FLOAT  # a whole number to a negative power
    if isinstance(result, float) and math.isnan(result):
        fail(node, f"'{op}' gives no number here")
    return cast(
        Value(COMPLEX if isinstance(result, complex) else _kind_of(result), result), kind, node
    )


def _kind_of(result: int | float) -> ScalarType:
    return FLOAT if isinstance(result, float) else INT


def _compute(
    op: str, x: int | float | complex, y: int | float | complex, kind: ScalarType, node: Node
) -> int | float | complex:
    whole = isinstance(x, int) and isinstance(y, int)
    if op == "+":
        return x + y
    if op == "-":
        return x - y
    if op == "*":
        if whole:
            _check_bits(int(abs(x)).bit_length() + int(abs(y)).bit_length(), node)
        return x * y
    if op == "/":
        if whole or kind == UINT:
            assert not isinstance(x, complex)
            assert not isinstance(y, complex)
            if not y:
                raise ZeroDivisionError("division by zero")
            return (abs(x) // abs(y)) * (1 if (x < 0) == (y < 0) else -1) if whole else int(x / y)
        return x / y
    if op == "%":
        if isinstance(x, complex) or isinstance(y, complex):
            raise ValueError("complex numbers have no remainder")
        if whole:
            return int(abs(x) % abs(y)) * (-1 if x < 0 else 1)
        return math.fmod(x, y)
    if op == "**":
        if isinstance(x, int) and isinstance(y, int):
            if y < 0:
                return float(x) ** y
            _check_bits(x.bit_length() * y if abs(x) > 1 else 1, node)
        return x**y
    raise ValueError(f"there is no operator {op}")


def _check_bits(bits: int, node: Node) -> None:
    if bits > 2 * MAX_INTEGER_BITS:
        fail(node, f"an integer of more than {MAX_INTEGER_BITS} bits")


def _affine(op: str, left: Value, right: Value, kind: ScalarType, node: Node) -> Value:
    if kind.kind not in ("angle", "float"):
        if op == "/":
            fail(
                node,
                "an integer division of an input parameter is not affine",
                hint="declare the input as float",
            )
        kind = INT
    x, y = left.data, right.data
    if isinstance(x, Affine) and op in ("+", "-") and isinstance(y, (int, float, Affine)):
        return Value(kind, x.plus(y, 1 if op == "+" else -1))
    if isinstance(y, Affine) and op in ("+", "-") and isinstance(x, (int, float)):
        turned = y if op == "+" else y.times(-1.0)
        return Value(kind, turned.plus(x) if isinstance(turned, Affine) else turned + x)
    if op == "*" and isinstance(x, Affine) and isinstance(y, (int, float)):
        return Value(kind, x.times(y))
    if op == "*" and isinstance(y, Affine) and isinstance(x, (int, float)):
        return Value(kind, y.times(x))
    if op == "/" and isinstance(x, Affine) and isinstance(y, (int, float)):
        if not y:
            fail(node, "'/' has no value here: division by zero")
        return Value(kind, x.divided(y))
    if op == "**" and isinstance(x, Affine) and y == 1:
        return left
    fail(
        node,
        f"'{op}' is not affine in the input parameters",
        why="a gate's angle is a sum of inputs times numbers",
        hint="compute the value outside and pass it as one more input",
    )


def _duration(op: str, left: Value, right: Value, node: Node) -> Value:
    x, y = left.data, right.data
    if is_runtime(x) or is_runtime(y) or isinstance(x, Affine) or isinstance(y, Affine):
        fail(node, "a duration must be known at compile time")
    if isinstance(x, Duration) and isinstance(y, Duration):
        return _two_durations(op, x, y, node)
    if op in "*/" and isinstance(x, Duration) and isinstance(y, (int, float)):
        if op == "/" and not y:
            fail(node, "a duration is divided by zero")
        return Value(DURATION, Duration(x.value * y if op == "*" else x.value / y, x.unit))
    if op == "*" and isinstance(y, Duration) and isinstance(x, (int, float)):
        return Value(DURATION, Duration(x * y.value, y.unit))
    fail(node, f"'{op}' does not work on {left.type} and {right.type}")


def _two_durations(op: str, x: Duration, y: Duration, node: Node) -> Value:
    if x.unit != y.unit:
        if "dt" in (x.unit, y.unit):
            fail(
                node,
                "durations in dt and in seconds cannot be combined",
                why="the length of dt belongs to the machine",
            )
        x = Duration(x.value * _NANOSECONDS[x.unit], "ns")
        y = Duration(y.value * _NANOSECONDS[y.unit], "ns")
    if op in "+-":
        return Value(DURATION, Duration(x.value + (y.value if op == "+" else -y.value), x.unit))
    if op in _COMPARE:
        return Value(BOOL, _COMPARE[op](x.value, y.value))
    if op == "/" and y.value:
        return Value(FLOAT, x.value / y.value)
    fail(node, f"'{op}' does not work on two durations")


def _integer_operand(value: Value, op: str, node: Node) -> None:
    if value.scalar.kind not in ("bool", "bit", "int", "uint"):
        fail(node, f"'{op}' works on bits and integers, not on {value.type}")
    if isinstance(value.data, Affine):
        fail(
            node,
            f"'{op}' cannot work on an input parameter",
            hint="give the input's value while reading: read_text(text, inputs={...})",
        )


def _shift(op: str, left: Value, right: Value, node: Node) -> Value:
    _integer_operand(left, op, node)
    _integer_operand(right, op, node)
    kind = left.scalar if left.scalar.kind != "bool" else UINT
    if is_runtime(left.data) or is_runtime(right.data):
        shifted = Value(kind, Binary(op, as_expr(left, node), as_expr(right, node)))
        return cast(Value(UINT, shifted.data), kind, node) if kind.width else shifted
    x, distance = int(left.data), int(right.data)  # type: ignore[arg-type]
    if distance < 0:
        fail(node, "a shift by a negative distance")
    if op == ">>":
        return Value(kind, x >> min(distance, 2 * MAX_INTEGER_BITS))
    _check_bits(min(distance, 1 << 40) if x else 0, node)
    number = x << distance if x else 0
    if kind == BIT:
        return Value(UINT, number)
    return cast(Value(INT, number), kind, node)


def _bitwise(op: str, left: Value, right: Value, node: Node) -> Value:
    _integer_operand(left, op, node)
    _integer_operand(right, op, node)
    a, b = left.scalar, right.scalar
    if a.kind == "bool" and b.kind == "bool":
        kind = BOOL
    elif "bit" in (a.kind, b.kind) and {a.kind, b.kind} <= {"bit", "bool"}:
        kind = a if a.width or b.kind != "bit" else b
        if a.width and b.width and a.width != b.width:
            fail(node, f"'{op}' of {a} and {b}: the sizes differ")
    elif a.kind == "bit" or b.kind == "bit":
        kind = b if a.kind == "bit" else a
    else:
        kind = _joint(a, b, op, node)
    if is_runtime(left.data) or is_runtime(right.data):
        if op in ("|", "^"):
            for known, other in ((left, right), (right, left)):
                if known.data == 0 and isinstance(known.data, int):
                    return cast(other, kind, node)
        return Value(kind, Binary(op, as_expr(left, node), as_expr(right, node)))
    number = _BITWISE[op](int(left.data), int(right.data))  # type: ignore[arg-type]
    return Value(kind, bool(number) if kind == BOOL else number)


def unary(op: str, value: Value, node: Node) -> Value:
    """Return ``op value``.

    Raises:
        SourceError: If the operator does not work on this type.
    """
    (kind,) = _scalars(op, (value,), node)
    data = value.data
    if op == "!":
        truth = as_bool(value, node)
        return Value(BOOL, not truth if isinstance(truth, bool) else Unary("!", truth))
    if op == "~":
        _integer_operand(value, op, node)
        if is_runtime(data):
            if kind in (BIT, BOOL):
                return Value(kind, Unary("!", as_expr(value, node)))
            return Value(kind, Unary("~", as_expr(value, node)))
        number = int(data)  # type: ignore[arg-type]
        if kind in (BIT, BOOL):
            return Value(kind, not number if kind == BOOL else 1 - number)
        if kind.kind == "uint" and not kind.width:
            return Value(INT, ~number)
        if kind.kind == "bit":
            return Value(kind, ~number & ((1 << kind.width) - 1))
        return cast(Value(INT, ~number), kind, node)
    if kind.kind == "duration":
        assert isinstance(data, Duration)
        return Value(kind, Duration(-data.value, data.unit))
    if is_runtime(data):
        return Value(
            kind if kind.kind in ("int", "float") else INT, Unary("-", as_expr(value, node))
        )
    if isinstance(data, Affine):
        return Value(kind, data.times(-1.0))
    assert isinstance(data, (bool, int, float, complex))
    if kind.kind in ("bool", "bit", "uint"):
        return Value(INT, -int(data))  # type: ignore[arg-type]
    if kind.kind == "angle":
        return cast(Value(FLOAT, -data), kind, node)
    return Value(kind, -data)


# ---------------------------------------------------------------- functions


def _real(function: Callable[[float], float], by_complex: Callable[[complex], complex] | None = None
          ) -> Callable[[Value, Node], Value]:  # fmt: skip
    def compute(value: Value, node: Node) -> Value:
        data = value.data
        if isinstance(data, complex):
            if by_complex is None:
                fail(node, "the function does not work on complex numbers")
            return Value(COMPLEX, by_complex(data))
        if isinstance(data, Duration):
            fail(node, "the function does not work on durations")
        return Value(FLOAT, function(float(data)))  # type: ignore[arg-type]

    return compute


FUNCTIONS: dict[str, Callable[[Value, Node], Value]] = {
    "arccos": _real(math.acos, cmath.acos),
    "arcsin": _real(math.asin, cmath.asin),
    "arctan": _real(math.atan, cmath.atan),
    "cos": _real(math.cos, cmath.cos),
    "exp": _real(math.exp, cmath.exp),
    "log": _real(math.log, cmath.log),
    "sin": _real(math.sin, cmath.sin),
    "sqrt": _real(math.sqrt, cmath.sqrt),
    "tan": _real(math.tan, cmath.tan),
    "ceiling": lambda value, node: Value(INT, math.ceil(_number(value, node))),
    "floor": lambda value, node: Value(INT, math.floor(_number(value, node))),
    "abs": lambda value, node: Value(value.type, abs(_number(value, node))),
    "real": lambda value, node: Value(FLOAT, _complex(value, node).real),
    "imag": lambda value, node: Value(FLOAT, _complex(value, node).imag),
}
"""Functions of one argument."""

_SPELLINGS = {"ln": "log", "acos": "arccos", "asin": "arcsin", "atan": "arctan", "ceil": "ceiling"}
_NAMES = frozenset({*FUNCTIONS, *_SPELLINGS, "mod", "pow", "popcount", "rotl", "rotr"})


def _number(value: Value, node: Node) -> int | float:
    if not isinstance(value.data, (bool, int, float)):
        fail(node, f"a number is needed, not a value of type {value.type}")
    return value.data


def _complex(value: Value, node: Node) -> complex:
    if not isinstance(value.data, (bool, int, float, complex)):
        fail(node, f"a number is needed, not a value of type {value.type}")
    return complex(value.data)


def call(name: str, values: list[Value], node: Node) -> Value | None:
    """Return a built-in function's value, None when there is no such function.

    Raises:
        SourceError: If the arguments do not fit or the function has no value there.
    """
    if name not in _NAMES:
        return None
    name = _SPELLINGS.get(name, name)
    want = 2 if name in ("mod", "pow", "rotl", "rotr") else 1
    if len(values) != want:
        fail(node, f"'{name}' takes {want} argument{'s' * (want > 1)}, {len(values)} were given")
    kinds = _scalars(name, values, node)
    if any(isinstance(value.data, Affine) for value in values):
        fail(
            node,
            f"'{name}' of an input parameter is not affine",
            why="a gate's angle is a sum of inputs times numbers",
            hint="compute the value outside and pass it as one more input",
        )
    if any(is_runtime(value.data) for value in values):
        kind = kinds[0] if name in ("rotl", "rotr") else FLOAT
        if name in ("popcount", "floor", "ceiling"):
            kind = UINT if name == "popcount" else INT
        if name in ("real", "imag", "abs"):
            fail(node, f"'{name}' cannot be computed at run time")
        return Value(kind, Call(name, tuple(as_expr(value, node) for value in values)))
    try:
        if name in FUNCTIONS:
            return FUNCTIONS[name](values[0], node)
        return _two_arguments(name, values, node)
    except (ValueError, OverflowError, ZeroDivisionError, TypeError) as error:
        fail(node, f"'{name}' has no value here: {error}")


def _two_arguments(name: str, values: list[Value], node: Node) -> Value:
    if name == "mod":
        return binary("%", values[0], values[1], node)
    if name == "pow":
        return binary("**", values[0], values[1], node)
    if name == "popcount":
        return Value(UINT, abs(known_int(values[0], node, "the argument")).bit_count())
    kind = values[0].scalar
    if not kind.width or kind.kind not in ("bit", "uint", "int"):
        fail(node, f"'{name}' works on sized bits and integers, not on {kind}")
    width = kind.width
    number = known_int(values[0], node, "the argument") & ((1 << width) - 1)
    distance = known_int(values[1], node, "the distance")
    distance = (distance if name == "rotl" else -distance) % width
    turned = ((number << distance) | (number >> (width - distance))) & ((1 << width) - 1)
    return Value(kind, turned) if kind.kind == "bit" else cast(Value(INT, turned), kind, node)
