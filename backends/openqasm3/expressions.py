"""Classical expressions as OpenQASM 3 text, with as few brackets as their meaning allows."""

from __future__ import annotations

from collections.abc import Callable

from qcomp.errors import TargetError
from qcomp.ir.classical import Binary, Bit, Call, Cast, Expr, Lit, Register, Unary, VarRef

__all__ = ["expression_text", "type_text"]

_LEVELS = (
    ("||",),
    ("&&",),
    ("|",),
    ("^",),
    ("&",),
    ("==", "!="),
    ("<", "<=", ">", ">="),
    ("<<", ">>"),
    ("+", "-"),
    ("*", "/", "%"),
)
_BINDING = {op: level for level, ops in enumerate(_LEVELS) for op in ops}
_UNARY = len(_LEVELS)
_POWER = _UNARY + 1
_ATOM = _POWER + 1


def type_text(kind: str, width: int) -> str:
    """Return a type: ``int[32]``, or ``int`` when the width is 0."""
    return f"{kind}[{width}]" if width else kind


def expression_text(expr: Expr, bit: Callable[[int], str], name: Callable[[str], str]) -> str:
    """Return the expression as text.

    Args:
        expr: The expression.
        bit: Text of a classical bit by its number.
        name: Text of a register's or a variable's name.
    """
    return _text(expr, bit, name)[0]


def _text(expr: Expr, bit: Callable[[int], str], name: Callable[[str], str]) -> tuple[str, int]:
    """Return (text, how tightly it binds)."""

    def inner(part: Expr, least: int) -> str:
        text, level = _text(part, bit, name)
        return text if level >= least else f"({text})"

    match expr:
        case Lit(bool(value)):
            return ("true" if value else "false"), _ATOM
        case Lit(value):
            text = repr(value)
            return text, (_UNARY if text.startswith("-") else _ATOM)
        case Bit(index):
            return bit(index), _ATOM
        case Register(register):
            return name(register), _ATOM
        case VarRef(variable):
            return name(variable), _ATOM
        case Unary(op, operand):
            text = inner(operand, _UNARY)
            return (f"-({text})" if op == "-" and text.startswith("-") else op + text), _UNARY
        case Binary("**", left, right):
            return f"{inner(left, _ATOM)}**{inner(right, _ATOM)}", _POWER
        case Binary(op, left, right) if op in _BINDING:
            level = _BINDING[op]
            return f"{inner(left, level)} {op} {inner(right, level + 1)}", level
        case Cast(kind, width, operand):
            return f"{type_text(kind, width)}({inner(operand, 0)})", _ATOM
        case Call(function, arguments):
            return f"{function}({', '.join(inner(a, 0) for a in arguments)})", _ATOM
        case _:
            raise TargetError(f"{expr!r} has no OpenQASM text")
