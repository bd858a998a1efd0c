"""Angles as qcomp writes them, ``0.5*theta + 3*pi/8 + 0.1``, read without rounding.

Everything else is computed in floats, as the language says.
"""

from __future__ import annotations

from collections.abc import Callable

from qcomp.frontends.openqasm import syntax as s
from qcomp.frontends.openqasm.values import Affine
from qcomp.ir.angle import PI

__all__ = ["exact_angle"]

_PI_NAMES = ("pi", "π")
_MAX_PART = 1 << 100
"""Units up to which multiples of pi are kept exact; no angle needs more."""


def exact_angle(node: s.Expression, find: Callable[[str], object]) -> Affine | None:
    """Return a sum of parameters times numbers, fractions of pi and numbers, or None.

    Args:
        node: An expression.
        find: Returns the parameter's form for the name of one, None for a name that is not
            declared, and anything else for other names.
    """
    match node:
        case s.BinaryOp(op="+" | "-", left=left, right=right):
            a = exact_angle(left, find)
            b = None if a is None else exact_angle(right, find)
            if a is None or b is None:
                return None
            return _sum(a, b, 1 if node.op == "+" else -1)
        case s.Literal() | s.Name():
            return _factor(node, find)
        case s.UnaryOp(op="-", operand=operand):
            inner = _product(operand, find)
            return None if inner is None else _sum(Affine(0.0, ()), inner, -1)
        case _:
            return _product(node, find)


def _product(node: s.Expression, find: Callable[[str], object]) -> Affine | None:
    match node:
        case s.BinaryOp(op="/", left=left, right=s.Literal(kind="int", value=int(divisor))):
            inner = _product(left, find)
            if inner is None or inner.terms or inner.constant or divisor < 1:
                return None
            if inner.units % divisor:
                return None
            return Affine(0.0, (), inner.units // divisor)
        case s.BinaryOp(op="*", left=left, right=s.Name() as name):
            number = _number(left)
            inner = _factor(name, find)
            if number is None or inner is None:
                return None
            if inner.terms:
                terms = ((inner.terms[0][0], float(number)),) if number else ()
                return Affine(0.0, terms)
            if not isinstance(number, int) or abs(number) * PI > _MAX_PART:
                return None
            return Affine(0.0, (), number * inner.units)
        case _:
            return _factor(node, find)


def _factor(node: s.Expression, find: Callable[[str], object]) -> Affine | None:
    if isinstance(node, s.Name):
        found = find(node.name)
        if isinstance(found, Affine):
            one = len(found.terms) == 1 and found.terms[0][1] == 1.0
            return found if one and not found.constant and not found.units else None
        return Affine(0.0, (), PI) if found is None and node.name in _PI_NAMES else None
    number = _number(node)
    return None if number is None or abs(number) > 1e300 else Affine(float(number), ())


def _number(node: s.Expression) -> int | float | None:
    match node:
        case s.Literal(kind="int", value=int(value)) | s.Literal(kind="float", value=float(value)):
            return value
        case s.UnaryOp(op="-", operand=operand):
            inner = _number(operand)
            return None if inner is None else -inner
        case _:
            return None


def _sum(a: Affine, b: Affine, sign: int) -> Affine:
    terms = dict(a.terms)
    for name, coefficient in b.terms:
        terms[name] = terms.get(name, 0.0) + sign * coefficient
    return Affine(
        a.constant + sign * b.constant,
        tuple(sorted((name, value) for name, value in terms.items() if value)),
        a.units + sign * b.units,
    )
